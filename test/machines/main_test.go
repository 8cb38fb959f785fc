package machines_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"keelson.dev/keelson/internal/agent"
	"keelson.dev/keelson/internal/apiserver/authn"
	"keelson.dev/keelson/internal/apiserver/controlplane"
	"keelson.dev/keelson/internal/cluster"
	"keelson.dev/keelson/internal/machine"
	"keelson.dev/keelson/internal/machine/containerd"
	"keelson.dev/keelson/internal/node/eviction"
	"keelson.dev/keelson/test/harness"
	"keelson.dev/keelson/test/harness/lab"
)

func TestMain(m *testing.M) {
	lab.Enter()
	if text := os.Getenv(roleEnv); text != "" {
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
	harness.OwnNetwork()
	os.Exit(m.Run())
}

// roleEnv is the environment variable with the role of a process on a machine.
const roleEnv = "KEELSON_TEST_ROLE"

// role is the role of a process on a machine: serve, join, or clean up.
type role struct {
	Do, Name, Dir string
	Address       netip.Addr
	// Server, Token and Hashes are the options with which an agent joins.
	Server, Token string
	Hashes        []string
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

// run runs the role until the test's process ends.
func (r role) run() error {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	switch r.Do {
	case "serve":
		return r.serve(ctx)
	case "join":
		o := agent.ProcessOptions{Options: r.agent(), Server: r.Server, Token: r.Token, CAHashes: r.Hashes, Ready: func() { fmt.Println("ready") }}
		return agent.Run(ctx, r.machine(), o)
	case "clean":
		if err := r.machine().Clean(context.Background(), containerd.StopOptions{MaxGrace: time.Second}); err != nil {
			return err
		}
		fmt.Println("ready")
		return nil
	}
	return fmt.Errorf("no role %q", r.Do)
}

func (r role) serve(ctx context.Context) error {
	c, err := cluster.Start(ctx, cluster.Options{Options: controlplane.Options{DataDir: r.Dir, Listen: "0.0.0.0:6443", Advertise: r.Address,
		Authentication: authn.Selection{Bootstrap: true}}})
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
	if err := clientcmd.WriteToFile(*config, r.kubeconfig()); err != nil {
		return err
	}
	if err := c.StartAgent(ctx, r.machine(), r.agent()); err != nil {
		return err
	}
	fmt.Println("ready")
	<-ctx.Done()
	return c.Stop()
}

func (r role) kubeconfig() string { return filepath.Join(r.Dir, "test.kubeconfig") }
