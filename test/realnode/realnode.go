// Package realnode gives tests a cluster with a node that runs containers on
// this machine. It needs root, containerd, runc, the CNI plug-ins and nftables,
// and leaves nothing behind.
package realnode

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/client-go/rest"

	"keelson.dev/keelson/internal/cluster"
)

// Node is a cluster of one node.
type Node struct {
	// Config is for its administrator.
	Config *rest.Config
	// Runtime is the CRI socket.
	Runtime string
	// Logs is the folder of the pods' logs.
	Logs string
}

// Start gives a cluster whose node is Ready, until the end of the test. The
// name, port and folders of o are set by it.
func Start(t testing.TB, o cluster.AgentOptions) *Node {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test runs containers: run it as root (make test does)")
	}
	alone(t)
	dir, err := os.MkdirTemp("", "keelson-node-")
	if err != nil {
		t.Fatal(err)
	}
	o.Name, o.Port, o.Logs = "node", freePort(t), filepath.Join(dir, "logs")
	o.PodCIDR = netip.MustParsePrefix("10.213.0.0/24")
	m := cluster.NewMachine(dir, o)
	c, err := cluster.Start(context.WithoutCancel(t.Context()), cluster.Options{DataDir: dir, Listen: "0.0.0.0:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
		if err := m.Clean(context.Background()); err != nil {
			t.Error(err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
		mounts, err := os.ReadFile("/proc/mounts")
		if err != nil || strings.Contains(string(mounts), dir) {
			t.Errorf("a mount is left below %s (%v)", dir, err)
		}
		if _, err := net.InterfaceByName("keelson0"); err == nil {
			t.Error("the bridge is left")
		}
	})
	if err := c.StartAgent(m); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := c.WaitNode(ctx, m.Name()); err != nil {
		t.Fatal(err)
	}
	cfg, err := c.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	return &Node{Config: cfg, Runtime: m.Endpoint(), Logs: o.Logs}
}

// alone waits for the machine's network: its bridge and its tables are there
// once, and go test runs several packages at a time.
func alone(t testing.TB) {
	t.Helper()
	lock, err := os.OpenFile(filepath.Join(os.TempDir(), "keelson-realnode.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lock.Close() })
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
