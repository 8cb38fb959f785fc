package realcluster

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"keelson.dev/keelson/internal/agent"
	"keelson.dev/keelson/internal/apiserver/authn"
	"keelson.dev/keelson/internal/apiserver/controlplane"
	"keelson.dev/keelson/internal/cluster"
	"keelson.dev/keelson/internal/controllers/nodeipam"
	"keelson.dev/keelson/internal/machine"
	"keelson.dev/keelson/internal/machine/containerd"
	"keelson.dev/keelson/internal/node/eviction"
	"keelson.dev/keelson/test/harness/lab"
)

// roleEnv, in the environment, has the role of a process on a machine.
const roleEnv = "KEELSON_TEST_ROLE"

// What a process on a machine does: it has the server and a node, has joined, or takes
// down what a node has left.
const serve, joins, cleans = "serve", "join", "clean"

// serverPort is the port of the API server.
const serverPort = "6443"

// role is the role of a process on a machine.
type role struct {
	Do, Name, Dir string
	Address       netip.Addr
	Options       Options
	// Servers, Token and Hashes are what an agent joins by.
	Servers []string
	Token   string
	Hashes  []string
}

// Enter is called by a TestMain before anything else. In a process on a machine it
// does not return.
func Enter() {
	lab.Enter()
	text := os.Getenv(roleEnv)
	if text == "" {
		return
	}
	var r role
	err := json.Unmarshal([]byte(text), &r)
	if err == nil {
		err = r.run()
	}
	if err != nil {
		fmt.Println("error:", err)
		fmt.Fprintln(os.Stderr, r.Name+":", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func (r role) env() string {
	b, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	return roleEnv + "=" + string(b)
}

func (r role) machine() *machine.Machine {
	return machine.New(r.Dir, machine.Options{CgroupRoot: filepath.Base(r.Dir)})
}

func (r role) agent() agent.Options {
	// The disk of a machine that builds and tests may be nearly full.
	return agent.Options{Name: r.Name, Logs: filepath.Join(r.Dir, "logs"), Eviction: eviction.Settings{Hard: map[string]string{"memory.available": "100Mi"}}}
}

// run returns when the test's process has gone.
func (r role) run() error {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	ready := func() { fmt.Println("ready") }
	switch r.Do {
	case serve:
		return r.serve(ctx, ready)
	case joins:
		return agent.Run(ctx, r.machine(), agent.ProcessOptions{Options: r.agent(), Servers: r.Servers, Token: r.Token, CAHashes: r.Hashes, Ready: ready})
	case cleans:
		return r.machine().Clean(context.Background(), containerd.StopOptions{MaxGrace: time.Second})
	}
	return fmt.Errorf("no role %q", r.Do)
}

func (r role) serve(ctx context.Context, ready func()) error {
	o := cluster.Options{Options: controlplane.Options{DataDir: r.Dir, Listen: net.JoinHostPort("0.0.0.0", serverPort), Authentication: authn.Selection{Bootstrap: true}},
		NodeIPAM: nodeipam.Selection{ClusterCIDRs: r.Options.PodRanges}}
	for i, p := range r.Options.ServiceRanges {
		if i == 0 {
			o.ServiceCIDR = p
		} else {
			o.SecondServiceCIDR = p
		}
	}
	c, err := cluster.Start(ctx, o)
	if err != nil {
		return err
	}
	config, err := c.Kubeconfig("test")
	if err != nil {
		return err
	}
	for _, x := range config.Clusters {
		x.Server = strings.Replace(x.Server, "127.0.0.1", r.Address.String(), 1)
	}
	if err := clientcmd.WriteToFile(*config, kubeconfig(r.Dir)); err != nil {
		return err
	}
	if err := c.StartAgent(ctx, r.machine(), r.agent()); err != nil {
		return err
	}
	ready()
	<-ctx.Done()
	return c.Stop()
}

// kubeconfig returns the file of the cluster's administrator, in the server's folder.
func kubeconfig(dir string) string { return filepath.Join(dir, "test.kubeconfig") }
