package cpumanager

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/clock"
	"k8s.io/utils/cpuset"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/node/hardware"
	"keelson.dev/keelson/internal/node/topology"
)

// machine has sockets of cores of threads; each socket is a node and has two caches. The
// threads of a core have numbers that are apart, as those of machines do.
func machine(sockets, cores, threads int) *hardware.Machine {
	m := &hardware.Machine{}
	n := sockets * cores
	for t := range threads {
		for i := range n {
			s := i / cores
			m.CPUs = append(m.CPUs, hardware.CPU{ID: t*n + i, Core: i, Socket: s * cores, Node: s, Cache: i / max(1, cores/2) * max(1, cores/2)})
		}
	}
	for s := range sockets {
		m.Nodes = append(m.Nodes, hardware.Node{ID: s})
	}
	return m
}

// TestTake checks which CPUs are chosen on two sockets of four cores of two threads: 0-3 and
// 8-11, 4-7 and 12-15.
func TestTake(t *testing.T) {
	for _, c := range []struct {
		free   string
		caches bool
		n      int
		want   string
	}{
		{"0-15", false, 1, "0"},
		{"0-15", false, 2, "0,8"},
		{"1-15", false, 1, "8"},             // what is left of a core
		{"1-15", false, 2, "1,9"},           // whole cores before what is left of one
		{"0-15", false, 8, "0-3,8-11"},      // a socket
		{"1-15", false, 8, "4-7,12-15"},     // the socket that is whole
		{"0-15", false, 10, "0-4,8-12"},     // a socket, and a core of the other
		{"0-15", false, 16, "0-15"},         //
		{"0-3,8-11,7,15", false, 2, "7,15"}, // beside what is in use
		{"0-15", true, 4, "0-1,8-9"},        // a cache
		{"0,2-15", true, 4, "2-3,10-11"},    // a cache that is whole
		{"0,2-15", false, 4, "0,2,8,10"},    //
		{"1-15", false, 16, "requested=16, available=15"},
	} {
		ch := newChooser(machine(2, 4, 2), c.caches)
		got, err := ch.take(parsed(t, c.free), c.n)
		if err != nil && strings.Contains(err.Error(), c.want) {
			continue
		}
		if want := parsed(t, c.want); err != nil || !got.Equals(want) {
			t.Errorf("%d of %s (caches %v): %s, want %s (%v)", c.n, c.free, c.caches, got, want, err)
		}
	}
}

func parsed(t *testing.T, s string) cpuset.CPUSet {
	t.Helper()
	c, err := cpuset.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		free  string
		n     int
		group int
		want  string
	}{
		{"0-15", 8, 1, "0-3,8-11"},            // one node has enough
		{"0-15", 10, 1, "0-2,8-9,4-6,12-13"},  // five of each
		{"0-15", 10, 2, "0-2,8-10,4-5,12-13"}, // six and four: whole cores
		{"0-15", 12, 2, "0-2,8-10,4-6,12-14"},
	} {
		got, err := newChooser(machine(2, 4, 2), false).spread(parsed(t, c.free), c.n, c.group)
		if want := parsed(t, c.want); err != nil || !got.Equals(want) {
			t.Errorf("%d of %s by %d: %s, want %s (%v)", c.n, c.free, c.group, got, want, err)
		}
	}
}

// pod is of the class Guaranteed, with so many CPUs for each container.
func pod(uid types.UID, cpus ...string) *v1.Pod {
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: uid, Name: string(uid)}, Status: v1.PodStatus{QOSClass: v1.PodQOSGuaranteed}}
	for i, c := range cpus {
		q := v1.ResourceList{v1.ResourceCPU: resource.MustParse(c), v1.ResourceMemory: resource.MustParse("1Mi")}
		p.Spec.Containers = append(p.Spec.Containers, v1.Container{Name: fmt.Sprint("c", i), Resources: v1.ResourceRequirements{Requests: q, Limits: q}})
	}
	return p
}

func config(t *testing.T) Config {
	return Config{Policy: Static, Machine: machine(2, 4, 2), ReservedMilli: 500, File: filepath.Join(t.TempDir(), "cpu_manager_state"), Period: 10 * time.Second,
		Clock: clock.RealClock{}, Pods: func() []*v1.Pod { return nil }}
}

func start(t *testing.T, c Config) *Manager {
	t.Helper()
	m, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func give(t *testing.T, m *Manager, p *v1.Pod, h topology.Mask) error {
	t.Helper()
	for _, cs := range [][]v1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range cs {
			if err := m.Allocate(p, &cs[i], topology.Hint{Nodes: h}); err != nil {
				return err
			}
		}
	}
	return nil
}

// TestAllocate checks who gets CPUs, which, and that an agent after this one knows.
func TestAllocate(t *testing.T) {
	c := config(t)
	m := start(t, c)
	is := func(uid types.UID, container, want string) {
		t.Helper()
		if got := m.Of(uid, container); got.String() != want {
			t.Errorf("%s %s: %s, want %s", uid, container, got, want)
		}
	}
	is("x", "c0", "0-15")
	burstable := pod("burstable", "2")
	burstable.Status.QOSClass = v1.PodQOSBurstable
	whole := pod("whole", "2")
	whole.Spec.Resources = &whole.Spec.Containers[0].Resources
	for _, p := range []*v1.Pod{burstable, whole, pod("part", "1500m")} {
		if err := give(t, m, p, 0); err != nil || !m.Exclusive(p.UID, "c0").IsEmpty() {
			t.Errorf("%s: %v", p.Name, err)
		}
	}
	if err := give(t, m, pod("a", "2", "500m", "1"), 0); err != nil {
		t.Fatal(err)
	}
	if err := give(t, m, pod("b", "4"), topology.MaskOf(1)); err != nil {
		t.Fatal(err)
	}
	is("a", "c0", "1,9")
	is("a", "c2", "8") // the sibling of the reserved one
	is("b", "c0", "4-5,12-13")
	is("a", "c1", "0,2-3,6-7,10-11,14-15")
	if err := give(t, m, pod("c", "9"), 0); err == nil || err.Error() != "not enough cpus available to satisfy request: requested=9, available=8" {
		t.Errorf("%v", err)
	}
	m = start(t, c)
	is("b", "c0", "4-5,12-13")
	if err := m.Free(func(uid types.UID) bool { return uid != "b" }); err != nil {
		t.Fatal(err)
	}
	is("b", "c0", "0,2-7,10-15")
	m = start(t, c)
	is("b", "c0", "0,2-7,10-15")

	other := c
	other.Policy = None
	if _, err := New(other); err == nil || !strings.Contains(err.Error(), `configured policy "none" differs from state checkpoint policy "static"`) {
		t.Errorf("another policy: %v", err)
	}
	other = c
	other.Machine = machine(1, 4, 2)
	if _, err := New(other); err == nil || !strings.Contains(err.Error(), "doesn't match with CPUs in state") {
		t.Errorf("another machine: %v", err)
	}
}

func TestOptions(t *testing.T) {
	c := config(t)
	c.Options = map[string]string{"full-pcpus-only": "true", "strict-cpu-reservation": "true"}
	m := start(t, c)
	if got := m.Of("x", "c"); got.String() != "1-15" {
		t.Errorf("shared: %s", got)
	}
	refused := func(p *v1.Pod, want string) {
		t.Helper()
		err := give(t, m, p, 0)
		var r *topology.Refused
		if !errors.As(err, &r) || r.Reason != "SMTAlignmentError" || r.Message != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	refused(pod("odd", "3"), "SMT Alignment Error: requested 3 cpus not multiple cpus per core = 2")
	refused(pod("all", "16"), "SMT Alignment Error: not enough free physical CPUs: available physical CPUs = 14, requested CPUs = 16, CPUs per core = 2")
	if err := give(t, m, pod("most", "14"), 0); err != nil || m.Of("x", "c").String() != "8" {
		t.Errorf("%v, shared: %s", err, m.Of("x", "c"))
	}
	start(t, c)

	for want, change := range map[string]func(*Config){
		`unknown CPU Manager Policy option: "x"`:                                           func(c *Config) { c.Options = map[string]string{"x": "true"} },
		`CPU Manager Policy Alpha-level Options not enabled, but option "align-by-socket"`: func(c *Config) { c.Options = map[string]string{"align-by-socket": "true"} },
		`bad value for option "full-pcpus-only"`:                                           func(c *Config) { c.Options = map[string]string{"full-pcpus-only": "x"} },
		"can not be used at the same time": func(c *Config) {
			c.Options = map[string]string{"distribute-cpus-across-numa": "true", "prefer-align-cpus-by-uncorecache": "true"}
		},
		"none policy: no options are supported": func(c *Config) { c.Policy, c.Options = None, map[string]string{"full-pcpus-only": "true"} },
		`unknown policy: "x"`:                   func(c *Config) { c.Policy = "x" },
		"requires systemreserved.cpu + kubereserved.cpu to be greater than zero": func(c *Config) { c.ReservedMilli = 0 },
		"are not all among the machine's":                                        func(c *Config) { c.Reserved = cpuset.New(99) },
	} {
		c := config(t)
		change(&c)
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// TestInit checks that containers have the CPUs of init containers, and not those of
// sidecars.
func TestInit(t *testing.T) {
	m := start(t, config(t))
	p := pod("a", "2", "1")
	p.Spec.InitContainers = pod("i", "4", "2").Spec.Containers
	p.Spec.InitContainers[0].Name, p.Spec.InitContainers[1].Name = "init", "side"
	p.Spec.InitContainers[1].RestartPolicy = ptr.To(v1.ContainerRestartPolicyAlways)
	if err := give(t, m, p, 0); err != nil {
		t.Fatal(err)
	}
	init, side := m.Of("a", "init"), m.Of("a", "side")
	for _, name := range []string{"c0", "c1"} {
		if got := m.Of("a", name); !got.Intersection(side).IsEmpty() {
			t.Errorf("%s has %s of the sidecar's", name, got)
		}
	}
	if !side.IsSubsetOf(init) {
		t.Errorf("the sidecar has %s, the init container before it %s", side, init)
	}
	if got := m.pool().Size(); got != 16-5 {
		t.Errorf("%d are shared, want all but the 5 of the containers that run at one time", got)
	}
}

func TestHints(t *testing.T) {
	m := start(t, config(t))
	text := func(h map[string][]topology.Hint) (out []string) {
		for _, x := range h["cpu"] {
			s := x.Nodes.String()
			if x.Preferred {
				s += "!"
			}
			out = append(out, s)
		}
		return out
	}
	for cpus, want := range map[string][]string{"1": {"1!", "10!", "11"}, "8": {"10!", "11"}, "9": {"11!"}, "500m": nil} {
		p := pod("a", cpus)
		if got := text(m.Hints(p, &p.Spec.Containers[0])); !slices.Equal(got, want) {
			t.Errorf("%s CPUs: %q, want %q", cpus, got, want)
		}
		if got := text(m.PodHints(p)); !slices.Equal(got, want) {
			t.Errorf("pod of %s CPUs: %q, want %q", cpus, got, want)
		}
	}
	p := pod("a", "2")
	if err := give(t, m, p, topology.MaskOf(1)); err != nil {
		t.Fatal(err)
	}
	if got, want := text(m.Hints(p, &p.Spec.Containers[0])), []string{"10!", "11"}; !slices.Equal(got, want) {
		t.Errorf("what it has: %q, want %q", got, want)
	}
}

// TestReconcile checks that the runtime gets the containers' CPUs when these change,
// again after an error, and not more often.
func TestReconcile(t *testing.T) {
	c := config(t)
	synctest.Test(t, func(t *testing.T) {
		running := func(uid types.UID) *v1.Pod {
			return &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: uid}, Status: v1.PodStatus{ContainerStatuses: []v1.ContainerStatus{
				{Name: "c0", ContainerID: "r://" + string(uid), State: v1.ContainerState{Running: &v1.ContainerStateRunning{}}}, {Name: "ended", ContainerID: "r://e"}}}}
		}
		var told []string
		fail := true
		c.Pods = func() []*v1.Pod { return []*v1.Pod{running("a"), running("b")} }
		c.Update = func(_ context.Context, id string, r *runtimeapi.LinuxContainerResources) error {
			if fail && id == "b" {
				fail = false
				return fmt.Errorf("busy")
			}
			told = append(told, id+" "+r.CpusetCpus)
			return nil
		}
		m := start(t, c)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go m.Run(ctx)
		expect := func(want ...string) {
			t.Helper()
			synctest.Wait()
			if !slices.Equal(told, want) {
				t.Errorf("told %q, want %q", told, want)
			}
			told = nil
		}
		expect("a 0-15")
		time.Sleep(time.Minute)
		expect("b 0-15")
		if err := give(t, m, pod("a", "2"), 0); err != nil {
			t.Fatal(err)
		}
		expect("a 1,9", "b 0,2-8,10-15")
	})
}
