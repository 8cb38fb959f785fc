// Package realnode starts clusters for tests with a node that runs containers,
// in a network namespace of the test's own (harness.OwnNetwork). It needs root,
// containerd, runc, the CNI plug-ins and nftables, and leaves nothing behind.
package realnode

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"keelson.dev/keelson/internal/agent"
	"keelson.dev/keelson/internal/apiserver/certs"
	"keelson.dev/keelson/internal/apiserver/controlplane"
	"keelson.dev/keelson/internal/cluster"
	"keelson.dev/keelson/internal/controllers/nodeipam"
	"keelson.dev/keelson/internal/machine"
	"keelson.dev/keelson/internal/machine/containerd"
	"keelson.dev/keelson/test/harness"
)

// Node is a cluster of one node.
type Node struct {
	// Config is the client configuration of an administrator.
	Config *rest.Config
	// Runtime is the CRI socket.
	Runtime string
	// Logs is the folder of the pods' logs.
	Logs string
	// Manifests is the folder of the static pods' manifests.
	Manifests string
}

// Start returns a cluster whose node is Ready, until the end of the test. It sets
// the name, port, folders and cgroup in o, and change changes the cluster's options. A
// process has one such cluster at a time.
func Start(t testing.TB, o agent.Options, change ...func(*cluster.Options)) *Node {
	t.Helper()
	return start(t, o, (*cluster.Cluster).StartAgent, change...)
}

// Run starts the agent of a node on a machine of a cluster, and returns when the node is
// Ready, or when wait has ended.
type Run func(c *cluster.Cluster, wait context.Context, m *machine.Machine, o agent.Options) error

// StartBy does what Start does, with an agent that run starts, and ends before the cleaning
// up that follows.
func StartBy(t testing.TB, o agent.Options, run Run) *Node {
	t.Helper()
	return start(t, o, run)
}

// StartApart does what Start does, with an agent that has only a kubeconfig of
// its node's user.
func StartApart(t testing.TB, o agent.Options) *Node {
	t.Helper()
	return start(t, o, func(c *cluster.Cluster, wait context.Context, m *machine.Machine, o agent.Options) error {
		cfg, err := NodeConfig(wait, c, o.Name)
		if err != nil {
			return err
		}
		kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
		if err := clientcmd.WriteToFile(*certs.Kubeconfig("node", cfg.Host, cfg.CAData, certs.Pair{Cert: cfg.CertData, Key: cfg.KeyData}), kubeconfig); err != nil {
			return err
		}
		ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
		ready, ended := make(chan struct{}), make(chan error, 1)
		t.Cleanup(func() {
			stop()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
		go func() {
			ended <- agent.Run(ctx, m, agent.ProcessOptions{Options: o, Kubeconfig: kubeconfig, Ready: func() { close(ready) }})
		}()
		select {
		case <-ready:
			return nil
		case err := <-ended:
			ended <- nil
			return fmt.Errorf("the agent ended: %w", err)
		case <-wait.Done():
			return wait.Err()
		}
	})
}

// NodeConfig returns the client configuration of the user of a node, which may join
// the cluster.
func NodeConfig(ctx context.Context, c *cluster.Cluster, name string) (*rest.Config, error) {
	admin, err := c.RESTConfig()
	if err != nil {
		return nil, err
	}
	if err := agent.PrepareJoin(ctx, kubernetes.NewForConfigOrDie(admin)); err != nil {
		return nil, err
	}
	pair, err := c.Certs.ClientCert("system:node:"+name, []string{user.NodesGroup})
	if err != nil {
		return nil, err
	}
	return &rest.Config{Host: admin.Host, TLSClientConfig: rest.TLSClientConfig{CAData: admin.CAData, CertData: pair.Cert, KeyData: pair.Key}}, nil
}

func start(t testing.TB, o agent.Options, run Run, change ...func(*cluster.Options)) *Node {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test runs containers: run it as root (make test does)")
	}
	if !harness.InOwnNetwork() {
		t.Fatal("this test runs a node: have its package's TestMain call harness.OwnNetwork")
	}
	dir, err := os.MkdirTemp("", "keelson-node-")
	if err != nil {
		t.Fatal(err)
	}
	o.Name, o.Port, o.Logs = "node", harness.FreePort(t), filepath.Join(dir, "logs")
	if o.Eviction.Hard == nil {
		// The disk of a machine that builds and tests may be nearly full.
		o.Eviction.Hard = map[string]string{"memory.available": "100Mi"}
	}
	o.StaticPods = filepath.Join(dir, "manifests")
	if err := os.Mkdir(o.StaticPods, 0o755); err != nil {
		t.Fatal(err)
	}
	before := harness.Network(t)
	m := machine.New(dir, machine.Options{CgroupRoot: filepath.Base(dir)})
	options := cluster.Options{Options: controlplane.Options{DataDir: dir, Listen: "0.0.0.0:0"},
		NodeIPAM: nodeipam.Selection{ClusterCIDRs: []string{"10.213.0.0/16"}}, ExternalCloud: o.ExternalCloud}
	for _, f := range change {
		f(&options)
	}
	c, err := cluster.Start(context.WithoutCancel(t.Context()), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
		if err := m.Clean(context.Background(), containerd.StopOptions{MaxGrace: time.Second}); err != nil {
			t.Error(err)
		}
		// A test may have given the pods' folder a disk of its own, which is the user's.
		if err := unix.Unmount(m.Root(), 0); err != nil && !errors.Is(err, unix.EINVAL) {
			t.Error(err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
		mounts, err := os.ReadFile("/proc/mounts")
		if err != nil || strings.Contains(string(mounts), dir) {
			t.Errorf("a mount is left below %s (%v)", dir, err)
		}
		for _, left := range before.More(harness.Network(t)) {
			t.Errorf("left: %s", left)
		}
		// The network namespaces of pods are mounted in that folder.
		state := filepath.Dir(strings.TrimPrefix(m.Endpoint(), "unix://"))
		if _, err := os.Stat(state); err == nil || strings.Contains(string(mounts), state) {
			t.Errorf("the folder %s is left", state)
		}
		for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
			if left, _ := filepath.Glob(pattern + m.CgroupRoot()); len(left) > 0 {
				t.Errorf("cgroups are left: %s", left)
			}
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := run(c, ctx, m, o); err != nil {
		t.Fatal(err)
	}
	cfg, err := c.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	return &Node{Config: cfg, Runtime: m.Endpoint(), Logs: o.Logs, Manifests: o.StaticPods}
}
