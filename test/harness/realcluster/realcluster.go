// Package realcluster gives tests a cluster of several machines (lab.Machine), each a
// node that runs containers in a process of its own: one has the server, the others
// have joined by a token. It needs what realnode needs, and leaves nothing behind.
package realcluster

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"keelson.dev/keelson/internal/agent"
	"keelson.dev/keelson/internal/agent/join"
	"keelson.dev/keelson/test/harness"
	"keelson.dev/keelson/test/harness/lab"
)

// Cluster is a cluster of several machines.
type Cluster struct {
	t testing.TB
	// Config is for its administrator, and Kubeconfig the file of it.
	Config     *rest.Config
	Kubeconfig string
	Client     *kubernetes.Clientset
	// Server is the machine with the API server.
	Server  *lab.Machine
	joining role
	nodes   map[*lab.Machine]*node
}

// node is a machine's process, and the role that it has after Start.
type node struct {
	*harness.Process
	role role
}

// Options of a cluster.
type Options struct {
	// PodRanges and ServiceRanges are the cluster's, of one family or of both; the
	// defaults of the server where they are empty.
	PodRanges     []string
	ServiceRanges []netip.Prefix
}

// Start returns a cluster whose one node is Ready, on that machine, until the end of
// the test. The package's TestMain calls Enter first.
func Start(t testing.TB, server *lab.Machine, o Options) *Cluster {
	t.Helper()
	c := &Cluster{t: t, Server: server, nodes: map[*lab.Machine]*node{}}
	serve := role{Do: serve, Options: o}
	c.start(server, serve)
	c.Kubeconfig = kubeconfig(server.Dir)
	cfg, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	if err := rest.LoadTLSFiles(cfg); err != nil {
		t.Fatal(err)
	}
	cfg.QPS = -1
	c.connect(cfg)
	return c
}

func (c *Cluster) connect(cfg *rest.Config) {
	c.Config, c.Client = cfg, kubernetes.NewForConfigOrDie(cfg)
}

// Follow has the cluster's client and the agents use the address that the server's machine
// has now; the agents start again with its URL and without a token. The file Kubeconfig
// stays.
func (c *Cluster) Follow() {
	c.t.Helper()
	c.FollowAlone()
	cfg := c.Config
	for m, n := range c.nodes {
		if m == c.Server {
			continue
		}
		n.Kill()
		n.role.Servers, n.role.Token, n.role.Hashes = []string{cfg.Host}, "", nil
		n.Start()
	}
}

// FollowAlone has the cluster's client use the address that the server's machine has now, and
// leaves the agents to themselves.
func (c *Cluster) FollowAlone() {
	cfg := rest.CopyConfig(c.Config)
	cfg.Host = "https://" + net.JoinHostPort(c.Server.Address.String(), serverPort)
	c.connect(cfg)
}

// Join has machines join by a token, as keelson token create makes it, and returns when
// their nodes are Ready.
func (c *Cluster) Join(machines ...*lab.Machine) {
	c.t.Helper()
	if c.joining.Token == "" {
		c.joining = c.token()
	}
	for _, m := range machines {
		c.start(m, c.joining)
	}
}

// token lets machines join.
func (c *Cluster) token() role {
	c.t.Helper()
	check := func(err error) {
		c.t.Helper()
		if err != nil {
			c.t.Fatal(err)
		}
	}
	ctx := c.t.Context()
	server, err := join.Server(ctx, c.Client)
	check(err)
	check(join.Prepare(ctx, c.Client, server, c.Config.CAData))
	check(agent.PrepareJoin(ctx, c.Client))
	t, err := join.Create(ctx, c.Client, join.Token{Groups: []string{join.DefaultGroup}, Expires: time.Now().Add(time.Hour)})
	check(err)
	hashes, err := join.Hashes(c.Config.CAData)
	check(err)
	return role{Do: joins, Servers: []string{server}, Token: t.String(), Hashes: hashes}
}

// start runs a role on a machine until the end of the test, cleans up after it, and
// checks that nothing is left.
func (c *Cluster) start(m *lab.Machine, r role) {
	t := c.t
	t.Helper()
	r.Name, r.Dir, r.Address = m.Name, m.Dir, m.Address
	t.Cleanup(func() {
		cmd := m.Self(role{Do: cleans, Name: m.Name, Dir: m.Dir}.env())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("cleaning %s: %v: %s", m.Name, err, out)
		}
		if left := append(m.Left(), leftOf(m)...); len(left) > 0 {
			t.Errorf("%s has left: %q", m.Name, left)
		}
	})
	n := &node{role: r}
	c.nodes[m] = n
	n.Process = harness.StartProcess(t, func() *exec.Cmd { return m.Self(n.role.env()) })
}

// leftOf returns the mounts, folders of sockets and namespaces, cgroups and processes that
// a node has left.
func leftOf(m *lab.Machine) (left []string) {
	node := role{Name: m.Name, Dir: m.Dir}.machine()
	state := filepath.Dir(strings.TrimPrefix(node.Endpoint(), "unix://"))
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		return []string{err.Error()}
	}
	for line := range strings.Lines(strings.ReplaceAll(string(mounts), m.Dir+"/netns", "")) {
		if strings.Contains(line, m.Dir) || strings.Contains(line, state) {
			left = append(left, "mount "+strings.TrimSpace(line))
		}
	}
	if _, err := os.Stat(state); err == nil {
		left = append(left, "folder "+state)
	}
	for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
		groups, _ := filepath.Glob(pattern + node.CgroupRoot())
		for _, g := range groups {
			left = append(left, "cgroup "+g)
		}
	}
	processes, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range processes {
		// One that has just ended has none.
		if line, _ := os.ReadFile(p); strings.Contains(string(line), m.Dir) || strings.Contains(string(line), state) {
			left = append(left, "process "+strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return left
}

// Kill ends a machine's process at once. Its containers go on.
func (c *Cluster) Kill(m *lab.Machine) { c.nodes[m].Kill() }

// Restart starts the process of a machine again after Kill; an agent without its token,
// since it has its certificate.
func (c *Cluster) Restart(m *lab.Machine) {
	n := c.nodes[m]
	n.role.Servers, n.role.Token, n.role.Hashes = nil, "", nil
	n.Start()
}
