package memorymanager

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"keelson.dev/keelson/internal/node/hardware"
	"keelson.dev/keelson/internal/node/topology"
)

const gi = 1 << 30

// config is that of a machine of two nodes of 10 GiB, of which 1 GiB is reserved on the
// first and 2 GiB are huge pages on the second.
func config(t *testing.T) Config {
	return Config{
		Policy: Static, File: filepath.Join(t.TempDir(), "memory_manager_state"),
		Machine:  &hardware.Machine{Nodes: []hardware.Node{{ID: 0, Memory: 10 * gi}, {ID: 1, Memory: 10 * gi, HugePages: map[uint64]uint64{2 << 20: 2 * gi}}}},
		Reserved: map[int]v1.ResourceList{0: list("1Gi")}, All: list("1Gi"),
	}
}

func list(memory string) v1.ResourceList {
	return v1.ResourceList{v1.ResourceMemory: resource.MustParse(memory)}
}

func start(t *testing.T, c Config) *Manager {
	t.Helper()
	m, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// pod is of the class Guaranteed, with so much memory for each container.
func pod(uid types.UID, memory ...string) *v1.Pod {
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: uid}, Status: v1.PodStatus{QOSClass: v1.PodQOSGuaranteed}}
	for i, m := range memory {
		p.Spec.Containers = append(p.Spec.Containers, v1.Container{Name: fmt.Sprint("c", i), Resources: v1.ResourceRequirements{Limits: list(m), Requests: list(m)}})
	}
	return p
}

func give(m *Manager, p *v1.Pod, h topology.Mask) error {
	for _, cs := range [][]v1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range cs {
			if err := m.Allocate(p, &cs[i], topology.Hint{Nodes: h}); err != nil {
				return err
			}
		}
	}
	return nil
}

// TestAllocate checks on which nodes pods are, one after another: a node that is in a group
// is in no other.
func TestAllocate(t *testing.T) {
	c := config(t)
	m := start(t, c)
	for _, s := range []struct {
		uid    types.UID
		memory string
		hint   topology.Mask
		want   string
	}{
		{"a", "5Gi", 0, "[0]"},
		{"b", "5Gi", 0, "[1]"},
		{"c", "4Gi", 0, "[0]"},
		{"d", "4Gi", 0, "[memorymanager] failed to get the default NUMA affinity, no NUMA nodes with enough memory is available"},
		{"e", "1Gi", topology.MaskOf(0), "[memorymanager] failed to find NUMA nodes to extend the current topology hint"},
		{"e", "1Gi", topology.MaskOf(1), "[1]"},
		{"", "", 0, ""}, // all are gone
		{"f", "12Gi", 0, "[0 1]"},
		{"g", "1Gi", topology.MaskOf(1), "[0 1]"},
		{"h", "5Gi", 0, "[memorymanager] failed to get the default NUMA affinity, no NUMA nodes with enough memory is available"},
	} {
		if s.uid == "" {
			if err := m.Free(func(types.UID) bool { return false }); err != nil {
				t.Fatal(err)
			}
			continue
		}
		err := give(m, pod(s.uid, s.memory), s.hint)
		if got := fmt.Sprint(m.Nodes(s.uid, "c0")); err == nil && got != s.want || err != nil && err.Error() != s.want {
			t.Errorf("%s: nodes %s, %v; want %s", s.uid, got, err, s.want)
		}
		m = start(t, c) // another agent goes on
	}
	burstable := pod("x", "1Gi")
	burstable.Status.QOSClass = v1.PodQOSBurstable
	if err := give(m, burstable, 0); err != nil || len(m.Nodes("x", "c0")) != 0 {
		t.Errorf("burstable: %v, %v", m.Nodes("x", "c0"), err)
	}
	other := c
	other.Policy = None
	if _, err := New(other); err == nil || !strings.Contains(err.Error(), `configured policy "None" differs from state checkpoint policy "Static"`) {
		t.Errorf("another policy: %v", err)
	}
	other = c
	other.Machine = &hardware.Machine{Nodes: []hardware.Node{{ID: 0, Memory: 10 * gi}, {ID: 1, Memory: gi}}}
	if _, err := New(other); err == nil || !strings.Contains(err.Error(), "is different from the real one") {
		t.Errorf("another machine: %v", err)
	}
}

// TestInit checks that what an init container has is used again, and not more.
func TestInit(t *testing.T) {
	m := start(t, config(t))
	p := pod("a", "2Gi", "3Gi")
	p.Spec.InitContainers = pod("", "4Gi").Spec.Containers
	p.Spec.InitContainers[0].Name = "init"
	if err := give(m, p, topology.MaskOf(0)); err != nil {
		t.Fatal(err)
	}
	if left := m.left(topology.MaskOf(0), v1.ResourceMemory, pod("b", "1Gi"), "c0"); left != 4*gi {
		t.Errorf("%d bytes are left, want 9 GiB less the 5 of the containers that run at one time", left)
	}
}

func TestHints(t *testing.T) {
	m := start(t, config(t))
	text := func(h []topology.Hint) (out []string) {
		for _, x := range h {
			s := x.Nodes.String()
			if x.Preferred {
				s += "!"
			}
			out = append(out, s)
		}
		return out
	}
	for memory, want := range map[string][]string{"1Gi": {"1!", "10!", "11"}, "9Gi": {"1!", "11"}, "10Gi": {"11!"}, "18Gi": nil} {
		p := pod("a", memory)
		if got := text(m.Hints(p, &p.Spec.Containers[0])["memory"]); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", memory, got, want)
		}
		if got := text(m.PodHints(p)["memory"]); !slices.Equal(got, want) {
			t.Errorf("pod of %s: %q, want %q", memory, got, want)
		}
	}
	p := pod("a", "1Gi")
	p.Spec.Containers[0].Resources.Limits["hugepages-2Mi"] = resource.MustParse("4Mi")
	h := m.Hints(p, &p.Spec.Containers[0])
	if got, want := text(h["memory"]), []string{"10!", "11"}; !slices.Equal(got, want) || !slices.Equal(text(h["hugepages-2Mi"]), want) {
		t.Errorf("with huge pages: %v", h)
	}
	if err := give(m, p, 0); err != nil {
		t.Fatal(err)
	}
	if got := text(m.Hints(p, &p.Spec.Containers[0])["memory"]); !slices.Equal(got, []string{"10!"}) {
		t.Errorf("what it has: %q", got)
	}
}

func TestNewRefuses(t *testing.T) {
	for want, change := range map[string]func(*Config){
		`unknown policy: "x"`:                           func(c *Config) { c.Policy = "x" },
		"you should specify the system reserved memory": func(c *Config) { c.Reserved = nil },
		"references a NUMA node 7 that does not exist":  func(c *Config) { c.Reserved = map[int]v1.ResourceList{7: list("1Gi")} },
		`the total amount "1Gi" of type "memory" is not equal to the value "2Gi" determined by Node Allocatable feature`: func(c *Config) { c.All = list("2Gi") },
		"and 21474836480 are reserved": func(c *Config) { c.Reserved, c.All = map[int]v1.ResourceList{0: list("20Gi")}, list("20Gi") },
	} {
		c := config(t)
		change(&c)
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
