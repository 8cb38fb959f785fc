package exclusive

import (
	"reflect"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"k8s.io/utils/cpuset"

	"keelson.dev/keelson/internal/node/hardware"
)

func list(cpu, memory string) v1.ResourceList {
	out := v1.ResourceList{}
	if cpu != "" {
		out[v1.ResourceCPU] = resource.MustParse(cpu)
	}
	if memory != "" {
		out[v1.ResourceMemory] = resource.MustParse(memory)
	}
	return out
}

// TestManager checks that CPUs and memory of a container are of one node where the policy
// wants that, and that a pod which cannot have that has nothing.
func TestManager(t *testing.T) {
	m, err := New(Config{Root: t.TempDir(), Clock: clock.RealClock{}, Reserved: list("1", ""), All: list("1", "2Gi"),
		Options: Options{CPUPolicy: "static", MemoryPolicy: "Static", TopologyPolicy: "single-numa-node", ReservedCPUs: cpuset.New(0),
			ReservedMemory: map[int]v1.ResourceList{0: list("", "2Gi")}},
		Machine: &hardware.Machine{CPUs: []hardware.CPU{{ID: 0}, {ID: 1, Core: 1}, {ID: 2, Core: 2, Socket: 2, Node: 1}, {ID: 3, Core: 3, Socket: 2, Node: 1}},
			Nodes: []hardware.Node{{ID: 0, Memory: 4 << 30}, {ID: 1, Memory: 4 << 30}}}})
	if err != nil {
		t.Fatal(err)
	}
	pod := func(name, cpu, memory string) *v1.Pod {
		r := list(cpu, memory)
		return &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: types.UID(name)}, Status: v1.PodStatus{QOSClass: v1.PodQOSGuaranteed},
			Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Resources: v1.ResourceRequirements{Requests: r, Limits: r}}}}}
	}
	p := pod("a", "1", "3Gi") // the memory is on the second node only
	if err := m.Admit(p); err != nil {
		t.Fatal(err)
	}
	if g, err := m.Prepare(t.Context(), p, &p.Spec.Containers[0]); err != nil || !reflect.DeepEqual(g, &Given{CPUs: "2", Nodes: "1"}) {
		t.Errorf("%+v, %v", g, err)
	}
	if m.Fixed(p) != "Resize is infeasible for Guaranteed Pods alongside CPU Manager static policy" {
		t.Errorf("fixed: %q", m.Fixed(p))
	}
	other := pod("other", "2", "1Gi") // neither node has two CPUs left
	if err := m.Admit(other); err == nil || err.Error() != "Resources cannot be allocated with Topology locality" {
		t.Errorf("%v", err)
	}
	if g, err := m.Prepare(t.Context(), other, &other.Spec.Containers[0]); err != nil || !reflect.DeepEqual(g, &Given{CPUs: "0-1,3"}) {
		t.Errorf("%+v, %v", g, err)
	}
	if err := m.Free(p.UID); err != nil {
		t.Fatal(err)
	}
	if err := m.Admit(other); err != nil {
		t.Error(err)
	}
}

func TestReserve(t *testing.T) {
	o := Options{ReservedCPUs: cpuset.New(0, 2)}
	kube, system := o.Reserve(list("100m", "1Gi"), nil)
	if _, ok := kube[v1.ResourceCPU]; ok || kube.Memory().String() != "1Gi" || system.Cpu().String() != "2" {
		t.Errorf("%v, %v", kube, system)
	}
	o = Options{}
	if kube, system := o.Reserve(list("100m", ""), list("1", "")); kube.Cpu().String() != "100m" || system.Cpu().String() != "1" {
		t.Errorf("%v, %v", kube, system)
	}
}

func TestReservedMemoryFlag(t *testing.T) {
	var m memory
	for _, s := range []string{"0:memory=1Gi,hugepages-2Mi=4Mi;1:memory=2Gi", "2:memory=1Gi"} {
		if err := m.Set(s); err != nil {
			t.Fatal(err)
		}
	}
	if got := m.String(); got != "0:hugepages-2Mi=4Mi,memory=1Gi;1:memory=2Gi;2:memory=1Gi" {
		t.Error(got)
	}
	for s, want := range map[string]string{
		"": "give NODE:memory", "memory=1Gi": "give NODE:memory", "x:memory=1Gi": "give NODE:memory", "0:cpu=1": "neither memory nor huge pages", "0:memory=x": "failed to parse",
		"0:memory=0": "greater than zero", "0:memory=1,memory=2": "twice",
	} {
		if err := new(memory).Set(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", s, err, want)
		}
	}
}
