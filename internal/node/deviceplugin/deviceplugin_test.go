package deviceplugin

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
	testingclock "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/node/topology"
)

const gpu = "example.com/gpu"

// sample is a plug-in whose devices are what a test says.
type sample struct {
	pluginapi.UnimplementedDevicePluginServer
	options pluginapi.DevicePluginOptions
	devices chan []*pluginapi.Device
	liked   []string
	fail    error

	mu      sync.Mutex
	started [][]string
}

func (s *sample) GetDevicePluginOptions(context.Context, *pluginapi.Empty) (*pluginapi.DevicePluginOptions, error) {
	return &s.options, nil
}

func (s *sample) ListAndWatch(_ *pluginapi.Empty, w grpc.ServerStreamingServer[pluginapi.ListAndWatchResponse]) error {
	for {
		select {
		case d, ok := <-s.devices:
			if !ok {
				return nil
			}
			if err := w.Send(&pluginapi.ListAndWatchResponse{Devices: d}); err != nil {
				return err
			}
		case <-w.Context().Done():
			return nil
		}
	}
}

func (s *sample) Allocate(_ context.Context, r *pluginapi.AllocateRequest) (*pluginapi.AllocateResponse, error) {
	ids := strings.Join(r.ContainerRequests[0].DevicesIds, ",")
	return &pluginapi.AllocateResponse{ContainerResponses: []*pluginapi.ContainerAllocateResponse{{
		Envs: map[string]string{"GPUS": ids}, Devices: []*pluginapi.DeviceSpec{{ContainerPath: "/dev/gpu", HostPath: "/dev/null", Permissions: "rw"}},
		Mounts: []*pluginapi.Mount{{ContainerPath: "/gpu", HostPath: "/tmp"}}, CdiDevices: []*pluginapi.CDIDevice{{Name: gpu + "=" + ids}},
	}}}, s.fail
}

func (s *sample) PreStartContainer(_ context.Context, r *pluginapi.PreStartContainerRequest) (*pluginapi.PreStartContainerResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.started = append(s.started, r.DevicesIds)
	return &pluginapi.PreStartContainerResponse{}, nil
}

func (s *sample) GetPreferredAllocation(context.Context, *pluginapi.PreferredAllocationRequest) (*pluginapi.PreferredAllocationResponse, error) {
	return &pluginapi.PreferredAllocationResponse{ContainerResponses: []*pluginapi.ContainerPreferredAllocationResponse{{DeviceIDs: s.liked}}}, nil
}

// serve has the plug-in listen in the folder.
func (s *sample) serve(t *testing.T, dir, name string) {
	t.Helper()
	s.devices = make(chan []*pluginapi.Device)
	l, err := net.Listen("unix", filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	pluginapi.RegisterDevicePluginServer(g, s)
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
}

// node is a manager that runs.
type node struct {
	*testing.T
	*Manager
	clock   *testingclock.FakeClock
	changes chan []types.UID
	stop    func()
}

func start(t *testing.T, dir string) *node {
	t.Helper()
	n := &node{T: t, clock: testingclock.NewFakeClock(time.Unix(1, 0)), changes: make(chan []types.UID, 100)}
	m, err := New(Config{Dir: dir, Clock: n.clock, Nodes: []int{0, 1}, Changed: func(pods []types.UID) { n.changes <- pods },
		Registered: func(string) {}, Allocated: func(string, time.Duration) {}})
	if err != nil {
		t.Fatal(err)
	}
	n.Manager = m
	l, err := m.Listen()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- m.Run(ctx, l) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(n.stop)
	return n
}

// register registers as a plug-in does.
func (n *node) register(r *pluginapi.RegisterRequest) error {
	n.Helper()
	conn, err := grpc.NewClient("unix://"+filepath.Join(n.Dir, socket), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("localhost"))
	if err != nil {
		n.Fatal(err)
	}
	defer conn.Close()
	_, err = pluginapi.NewRegistrationClient(conn).Register(n.Context(), r, grpc.WaitForReady(true))
	return err
}

// tell makes the plug-in report its devices, and returns the pods whose devices are
// reported as changed.
func (n *node) tell(s *sample, devices ...*pluginapi.Device) []types.UID {
	s.devices <- devices
	return <-n.changes
}

func device(id string, healthy bool, nodes ...int64) *pluginapi.Device {
	d := &pluginapi.Device{ID: id, Health: pluginapi.Unhealthy}
	if healthy {
		d.Health = pluginapi.Healthy
	}
	for _, n := range nodes {
		if d.Topology == nil {
			d.Topology = &pluginapi.TopologyInfo{}
		}
		d.Topology.Nodes = append(d.Topology.Nodes, &pluginapi.NUMANode{ID: n})
	}
	return d
}

func (n *node) amounts(want string) {
	n.Helper()
	c, a := n.Capacity()
	x, y := c[gpu], a[gpu]
	if got := x.String() + "/" + y.String(); got != want {
		n.Errorf("capacity and allocatable %s, want %s", got, want)
	}
}

func container(name string, gpus int64) v1.Container {
	return v1.Container{Name: name, Resources: v1.ResourceRequirements{Limits: v1.ResourceList{gpu: *resource.NewQuantity(gpus, resource.DecimalSI)}}}
}

func pod(uid types.UID, containers ...v1.Container) *v1.Pod {
	return &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: uid}, Spec: v1.PodSpec{Containers: containers}}
}

func (n *node) ids(uid types.UID, container string) (out []string) {
	for _, d := range n.Devices(uid, container) {
		out = append(out, d.ID)
	}
	return out
}

// dir returns a folder with a short path, as sockets need.
func dir(t *testing.T) string {
	t.Helper()
	d, err := os.MkdirTemp("", "devices")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(d) })
	return d
}

// TestLife goes through the life of a plug-in's devices: told, given, sick, gone, and back
// with another agent.
func TestLife(t *testing.T) {
	d := dir(t)
	n := start(t, d)
	s := &sample{options: pluginapi.DevicePluginOptions{PreStartRequired: true}}
	s.serve(t, d, "gpu.sock")
	request := &pluginapi.RegisterRequest{Version: pluginapi.Version, Endpoint: "gpu.sock", ResourceName: gpu, Options: &s.options}
	if err := n.register(request); err != nil {
		t.Fatal(err)
	}
	n.tell(s, device("a", true), device("b", true, 1), device("c", false))
	n.amounts("3/2")
	p := pod("1", container("x", 1), container("y", 1))
	for i := range p.Spec.Containers {
		for range 2 { // the second time it has been given
			if err := n.Allocate(p, &p.Spec.Containers[i], topology.Hint{Nodes: topology.MaskOf(1)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if x, y := n.ids("1", "x"), n.ids("1", "y"); !slices.Equal(x, []string{"b"}) || !slices.Equal(y, []string{"a"}) {
		t.Errorf("x has %q, y has %q", x, y)
	}
	for want, other := range map[string]*v1.Pod{
		"requested number of devices unavailable for example.com/gpu. Requested: 1, Available: 0": pod("2", container("x", 1)),
		`pod "1" container "x" changed request for resource "example.com/gpu" from 1 to 2`:        pod("1", container("x", 2)),
	} {
		if err := n.Allocate(other, &other.Spec.Containers[0], topology.Hint{}); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	got, err := n.Prepare(t.Context(), p, &p.Spec.Containers[0])
	if err != nil || got.Envs["GPUS"] != "b" || got.Devices[0].HostPath != "/dev/null" || got.Mounts[0].HostPath != "/tmp" || got.CdiDevices[0].Name != gpu+"=b" {
		t.Errorf("prepared %v, %v", got, err)
	}
	s.mu.Lock()
	if want := [][]string{{"b"}}; !reflect.DeepEqual(s.started, want) {
		t.Errorf("told of the start of %q", s.started)
	}
	s.mu.Unlock()
	if pods := n.tell(s, device("a", true), device("b", false, 1)); !slices.Equal(pods, []types.UID{"1"}) {
		t.Errorf("told of %q", pods)
	}
	n.amounts("2/1")
	if h := n.Devices("1", "x")[0]; h.Health != v1.ResourceHealthStatusUnhealthy || !slices.Equal(h.Nodes, []int64{1}) {
		t.Errorf("%+v", h)
	}
	if q := n.Admittable()[gpu]; q.Value() != 2 {
		t.Errorf("%v can be had, and 2 are", q.String())
	}

	// Another agent: the devices stay given, and are there when the plug-in is.
	n.stop()
	n = start(t, d)
	n.amounts("0/0")
	if x := n.ids("1", "x"); !slices.Equal(x, []string{"b"}) {
		t.Errorf("x has %q", x)
	}
	if err := n.Allocate(pod("2", container("x", 1)), ptr.To(container("x", 1)), topology.Hint{}); err == nil || !strings.Contains(err.Error(), "no healthy devices present") {
		t.Errorf("%v", err)
	}
	if got, err := n.Prepare(t.Context(), p, &p.Spec.Containers[1]); err != nil || got.Envs["GPUS"] != "a" {
		t.Errorf("prepared %v, %v", got, err)
	}
	again := &sample{}
	again.serve(t, d, "gpu.sock") // the agent has removed the socket of the first
	if err := n.register(request); err != nil {
		t.Fatal(err)
	}
	n.tell(again, device("a", true), device("b", true))
	n.amounts("2/2")
	if err := n.Free(func(types.UID) bool { return false }); err != nil {
		t.Fatal(err)
	}
	if x := n.ids("1", "x"); len(x) != 0 {
		t.Errorf("x has %q", x)
	}

	// The plug-in goes: its devices count for a while, but none is given.
	close(again.devices)
	<-n.changes
	n.amounts("2/0")
	n.clock.Step(stopGrace + time.Second)
	n.amounts("0/0")
	if err := n.Allocate(p, &p.Spec.Containers[0], topology.Hint{}); err != nil {
		t.Errorf("a resource that is nobody's: %v", err)
	}
}

// TestRegisterRefuses checks what plug-ins are told.
func TestRegisterRefuses(t *testing.T) {
	n := start(t, dir(t))
	for want, r := range map[string]*pluginapi.RegisterRequest{
		`requested API version "v0" is not supported by kubelet. Supported version is ["v1beta1"]`: {Version: "v0", Endpoint: "x", ResourceName: gpu},
		`the ResourceName "cpu" is invalid`:               {Version: pluginapi.Version, Endpoint: "x", ResourceName: "cpu"},
		`the ResourceName "a.kubernetes.io/b" is invalid`: {Version: pluginapi.Version, Endpoint: "x", ResourceName: "a.kubernetes.io/b"},
		`the Endpoint "../x" is no name of a socket`:      {Version: pluginapi.Version, Endpoint: "../x", ResourceName: gpu},
	} {
		if err := n.register(r); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if err := n.Manager.Register(t.Context(), gpu, "/no/such/socket", []string{"v0"}); err == nil {
		t.Error("a plug-in of another version")
	}
}

// TestChoose checks which devices a container gets.
func TestChoose(t *testing.T) {
	d := dir(t)
	s := &sample{options: pluginapi.DevicePluginOptions{GetPreferredAllocationAvailable: true}}
	s.serve(t, d, "s")
	conn, err := connect(filepath.Join(d, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	p := &plugin{client: pluginapi.NewDevicePluginClient(conn), options: &s.options}
	devices := map[string]*pluginapi.Device{}
	for _, v := range []*pluginapi.Device{device("a0", true, 0), device("b1", true, 1), device("c1", true, 1), device("d", true), device("e0", true, 0)} {
		devices[v.ID] = v
	}
	for _, c := range []struct {
		free, reusable, liked string
		n                     int
		hint                  topology.Mask
		want                  string
	}{
		{"a0 b1 c1 d", "", "", 1, 0, "a0"},
		{"a0 b1 c1 d", "", "d", 1, 0, "d"},
		{"a0 b1 c1 d", "", "c1", 1, topology.MaskOf(1), "c1"},
		{"a0 b1 c1 d", "", "", 3, topology.MaskOf(1), "b1 c1 d"},
		{"a0 b1 c1 d", "", "a0", 3, topology.MaskOf(1), "a0 b1 c1"},
		{"a0 b1", "e0", "", 2, topology.MaskOf(1), "b1 e0"},
		{"a0", "", "", 2, 0, "unexpectedly allocated less resources than required"},
	} {
		s.liked = strings.Fields(c.liked)
		got, err := p.choose(t.Context(), devices, sets.New(strings.Fields(c.free)...), sets.New(strings.Fields(c.reusable)...), c.n, topology.Hint{Nodes: c.hint})
		if text := strings.Join(got, " "); text != c.want && fmt.Sprint(err) != c.want {
			t.Errorf("%+v: %q, %v", c, text, err)
		}
	}
}

// TestHints checks on which nodes devices can be given.
func TestHints(t *testing.T) {
	m := &Manager{Config: Config{Nodes: []int{0, 1}}, plugins: map[string]*plugin{gpu: {devices: map[string]*pluginapi.Device{
		"a": device("a", true, 0), "b": device("b", true, 1), "c": device("c", true, 1)}}}, given: map[types.UID]map[string]map[string]*allocation{}}
	hint := func(preferred bool, nodes ...int) topology.Hint {
		return topology.Hint{Nodes: topology.MaskOf(nodes...), Preferred: preferred}
	}
	for n, want := range map[int64][]topology.Hint{
		1: {hint(true, 0), hint(true, 1), hint(false, 0, 1)},
		2: {hint(true, 1), hint(false, 0, 1)},
		3: {hint(true, 0, 1)},
		4: {},
	} {
		p := pod("1", container("x", n))
		if got := m.Hints(p, &p.Spec.Containers[0])[gpu]; !reflect.DeepEqual(got, want) {
			t.Errorf("%d: %v, want %v", n, got, want)
		}
		if got := m.PodHints(p)[gpu]; !reflect.DeepEqual(got, want) {
			t.Errorf("pod of %d: %v, want %v", n, got, want)
		}
	}
	m.set("1", "x", gpu, &allocation{Devices: map[int64][]string{1: {"b"}}})
	p := pod("1", container("x", 1))
	if got, want := m.Hints(p, &p.Spec.Containers[0])[gpu], []topology.Hint{hint(true, 1), hint(false, 0, 1)}; !reflect.DeepEqual(got, want) {
		t.Errorf("what it has: %v, want %v", got, want)
	}
	p = pod("2", container("x", 2))
	if got, want := m.Hints(p, &p.Spec.Containers[0])[gpu], []topology.Hint{hint(false, 0, 1)}; !reflect.DeepEqual(got, want) {
		t.Errorf("what is left: %v, want %v", got, want)
	}
}

// TestReuse checks that containers have the devices of init containers which have ended by
// then, and not those of sidecars.
func TestReuse(t *testing.T) {
	m := &Manager{plugins: map[string]*plugin{}, given: map[types.UID]map[string]map[string]*allocation{}}
	p := pod("1", container("x", 1), container("y", 1))
	side := container("side", 1)
	side.RestartPolicy = ptr.To(v1.ContainerRestartPolicyAlways)
	p.Spec.InitContainers = []v1.Container{container("init", 2), side}
	m.set("1", "init", gpu, &allocation{Devices: map[int64][]string{anywhere: {"a", "b"}}})
	m.set("1", "side", gpu, &allocation{Devices: map[int64][]string{anywhere: {"c"}}})
	if got := sets.List(m.reusable(p, &p.Spec.Containers[0], gpu)); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("x may have %q", got)
	}
	m.set("1", "x", gpu, &allocation{Devices: map[int64][]string{anywhere: {"a"}}})
	if got := sets.List(m.reusable(p, &p.Spec.Containers[1], gpu)); !slices.Equal(got, []string{"b"}) {
		t.Errorf("y may have %q", got)
	}
}
