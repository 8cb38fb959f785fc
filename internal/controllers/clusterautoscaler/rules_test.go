package clusterautoscaler

import (
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/nodegroup"
)

// pod returns a pod of a ReplicaSet in the namespace, changed by f.
func pod(namespace string, f func(*v1.Pod)) *v1.Pod {
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "p", Labels: map[string]string{"app": "web"}, Annotations: map[string]string{},
		OwnerReferences: []metav1.OwnerReference{{Kind: "ReplicaSet", Name: "r", Controller: ptr.To(true)}}}}
	f(p)
	return p
}

func TestBlocks(t *testing.T) {
	budget := func(allowed int32) *policy.PodDisruptionBudget {
		return &policy.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "b"}, Spec: policy.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}},
			Status: policy.PodDisruptionBudgetStatus{DisruptionsAllowed: allowed}}
	}
	for name, c := range map[string]struct {
		namespace string
		f         func(*v1.Pod)
		budgets   []*policy.PodDisruptionBudget
		want      string
	}{
		"replicated":                 {f: func(*v1.Pod) {}},
		"alone":                      {f: func(p *v1.Pod) { p.OwnerReferences = nil }, want: "pod is not replicated"},
		"alone, but safe":            {f: func(p *v1.Pod) { p.OwnerReferences, p.Annotations[safeToEvict] = nil, "true" }},
		"not safe":                   {f: func(p *v1.Pod) { p.Annotations[safeToEvict] = "false" }, want: "pod annotated as not safe to evict"},
		"of the system":              {namespace: "kube-system", f: func(*v1.Pod) {}, want: "non-daemonset, non-mirrored, kube-system pod"},
		"a budget forbids":           {f: func(*v1.Pod) {}, budgets: []*policy.PodDisruptionBudget{budget(0)}, want: "not enough pod disruption budget b"},
		"safe, but a budget forbids": {f: func(p *v1.Pod) { p.Annotations[safeToEvict] = "true" }, budgets: []*policy.PodDisruptionBudget{budget(0)}, want: "not enough"},
		"a budget allows":            {f: func(*v1.Pod) {}, budgets: []*policy.PodDisruptionBudget{budget(1)}},
		"local storage": {f: func(p *v1.Pod) {
			p.Spec.Volumes = []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}}}
		}, want: "pod with local storage present: v"},
		"local storage in memory": {f: func(p *v1.Pod) {
			p.Spec.Volumes = []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{Medium: v1.StorageMediumMemory}}}}
		}},
		"local storage that may go": {f: func(p *v1.Pod) {
			p.Annotations[safeVolumes] = "u,v"
			p.Spec.Volumes = []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{HostPath: &v1.HostPathVolumeSource{}}}}
		}},
		"on its way": {f: func(p *v1.Pod) { p.OwnerReferences, p.DeletionTimestamp = nil, &metav1.Time{} }},
	} {
		if c.namespace == "" {
			c.namespace = "ns"
		}
		if got := (&autoscaler{}).blocks(pod(c.namespace, c.f), c.budgets); got == "" != (c.want == "") || !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

type named struct {
	nodegroup.Group
	id string
}

func (n named) ID() string { return n.id }

func TestExpanders(t *testing.T) {
	of := func(id, cpu, memory string, nodes, pods int) *option {
		o := &option{group: &group{Group: named{id: id}, template: &v1.Node{Status: v1.NodeStatus{Allocatable: v1.ResourceList{v1.ResourceCPU: resource.MustParse(cpu), v1.ResourceMemory: resource.MustParse(memory)}}}}, nodes: make([]*v1.Node, nodes)}
		for range pods {
			o.pods = append(o.pods, &v1.Pod{Spec: v1.PodSpec{Containers: []v1.Container{{Resources: v1.ResourceRequirements{Requests: v1.ResourceList{v1.ResourceCPU: resource.MustParse("1"), v1.ResourceMemory: resource.MustParse("1Gi")}}}}}})
		}
		return o
	}
	ids := func(options []*option) (out []string) {
		for _, o := range options {
			out = append(out, o.group.ID())
		}
		return out
	}
	small, big, wide := of("small", "4", "4Gi", 2, 8), of("big", "32", "32Gi", 1, 8), of("wide", "4", "64Gi", 2, 8)
	if got := ids(leastWaste([]*option{big, small, wide})); !slices.Equal(got, []string{"small"}) {
		t.Errorf("least waste: %v", got)
	}
	if got := ids(leastWaste([]*option{big, of("same", "32", "32Gi", 1, 8)})); len(got) != 2 {
		t.Errorf("of the same waste: %v", got)
	}
	table, err := parsePriorities("10:\n- .*\n50:\n- big.*\n- small\n")
	if err != nil || len(table) != 2 || len(table[50]) != 2 || !table[50][0].MatchString("bigger") {
		t.Errorf("priorities %v, %v", table, err)
	}
	for _, text := range []string{"10:\n- '('\n", "high: [a]", "- x"} {
		if _, err := parsePriorities(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}
