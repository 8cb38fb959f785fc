package scheduler

import (
	"context"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"

	fw "keelson.dev/keelson/internal/scheduler/framework"
)

func node(name string, change func(*v1.Node)) *v1.Node {
	n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{v1.LabelHostname: name}}}
	n.Status.Allocatable = v1.ResourceList{v1.ResourceCPU: resource.MustParse("2"), v1.ResourceMemory: resource.MustParse("4Gi"), v1.ResourcePods: resource.MustParse("3")}
	if change != nil {
		change(n)
	}
	return n
}

func pod(name string, change func(*v1.Pod)) *v1.Pod {
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID(name), Labels: map[string]string{"app": "a"}},
		Spec: v1.PodSpec{SchedulerName: v1.DefaultSchedulerName, Containers: []v1.Container{{Name: "c"}}}}
	if change != nil {
		change(p)
	}
	return p
}

func cpu(q string) func(*v1.Pod) {
	return func(p *v1.Pod) {
		p.Spec.Containers[0].Resources.Requests = v1.ResourceList{v1.ResourceCPU: resource.MustParse(q)}
	}
}

func scheduler(t testing.TB, nodes []*v1.Node, placed ...*v1.Pod) *Scheduler {
	t.Helper()
	client := fake.NewClientset()
	s, err := New(client, informers.NewSharedInformerFactory(client, 0), Options{Rand: func(int) int { return 1 }})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		s.snapshot.setNode(n)
	}
	for _, p := range placed {
		s.snapshot.place(p, p.Spec.NodeName)
	}
	return s
}

func on(name string, f func(*v1.Pod)) func(*v1.Pod) {
	return func(p *v1.Pod) {
		p.Spec.NodeName = name
		if f != nil {
			f(p)
		}
	}
}

func TestPlace(t *testing.T) {
	zone := func(z string) func(*v1.Node) { return func(n *v1.Node) { n.Labels[v1.LabelTopologyZone] = z } }
	spread := func(p *v1.Pod) {
		p.Spec.TopologySpreadConstraints = []v1.TopologySpreadConstraint{{MaxSkew: 1, TopologyKey: v1.LabelTopologyZone, WhenUnsatisfiable: v1.DoNotSchedule,
			LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}}}}
	}
	term := []v1.PodAffinityTerm{{TopologyKey: v1.LabelHostname, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}}}}
	anti := func(p *v1.Pod) {
		p.Spec.Affinity = &v1.Affinity{PodAntiAffinity: &v1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: term}}
	}
	for _, c := range []struct {
		name   string
		nodes  []*v1.Node
		placed []*v1.Pod
		pod    *v1.Pod
		want   string
		err    string
	}{
		{"no nodes", nil, nil, pod("p", nil), "", "no nodes available to schedule pods"},
		{"too big", []*v1.Node{node("a", nil), node("b", nil)}, nil, pod("p", cpu("3")), "", "0/2 nodes are available: 2 Insufficient cpu."},
		{"full", []*v1.Node{node("a", nil)}, []*v1.Pod{pod("x", on("a", nil)), pod("y", on("a", nil)), pod("z", on("a", nil))}, pod("p", nil), "", "0/1 nodes are available: 1 Too many pods."},
		{"least allocated", []*v1.Node{node("a", nil), node("b", nil)}, []*v1.Pod{pod("x", on("a", cpu("1")))}, pod("p", cpu("1")), "b", ""},
		{"cordoned and tainted", []*v1.Node{node("a", func(n *v1.Node) { n.Spec.Unschedulable = true }), node("b", func(n *v1.Node) {
			n.Spec.Taints = []v1.Taint{{Key: "k", Value: "v", Effect: v1.TaintEffectNoSchedule}}
		})}, nil, pod("p", nil), "", "0/2 nodes are available: 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable."},
		{"tolerated", []*v1.Node{node("b", func(n *v1.Node) {
			n.Spec.Taints = []v1.Taint{{Key: "k", Value: "v", Effect: v1.TaintEffectNoSchedule}}
		})}, nil, pod("p", func(p *v1.Pod) {
			p.Spec.Tolerations = []v1.Toleration{{Key: "k", Operator: v1.TolerationOpExists}}
		}), "b", ""},
		{"selector", []*v1.Node{node("a", nil)}, nil, pod("p", func(p *v1.Pod) { p.Spec.NodeSelector = map[string]string{"disk": "ssd"} }), "",
			"0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."},
		{"host port", []*v1.Node{node("a", nil)}, []*v1.Pod{pod("x", on("a", port(80)))}, pod("p", port(80)), "", "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."},
		{"spread", []*v1.Node{node("a", zone("1")), node("b", zone("2"))}, []*v1.Pod{pod("x", on("a", nil))}, pod("p", spread), "b", ""},
		{"no zone", []*v1.Node{node("a", nil)}, nil, pod("p", spread), "", "0/1 nodes are available: 1 node(s) didn't match pod topology spread constraints (missing required label)."},
		{"anti-affinity", []*v1.Node{node("a", nil)}, []*v1.Pod{pod("x", on("a", nil))}, pod("p", anti), "", "0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules."},
		{"others' anti-affinity", []*v1.Node{node("a", nil), node("b", nil)}, []*v1.Pod{pod("x", on("a", anti))}, pod("p", nil), "b", ""},
		{"affinity", []*v1.Node{node("a", nil), node("b", nil)}, []*v1.Pod{pod("x", on("b", nil))}, pod("p", func(p *v1.Pod) {
			p.Spec.Affinity = &v1.Affinity{PodAffinity: &v1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: term}}
		}), "b", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := scheduler(t, c.nodes, c.placed...).place(t.Context(), fw.NewCycleState(), c.pod)
			msg := ""
			if err != nil {
				msg = err.Error()
			}
			if got != c.want || msg != c.err {
				t.Errorf("%q, %q, want %q, %q", got, msg, c.want, c.err)
			}
		})
	}
}

func port(n int32) func(*v1.Pod) {
	return func(p *v1.Pod) { p.Spec.Containers[0].Ports = []v1.ContainerPort{{HostPort: n, ContainerPort: n}} }
}

// TestRequeue checks that a pod that fits nowhere is bound when a node comes.
func TestRequeue(t *testing.T) {
	client := fake.NewClientset(node("small", func(n *v1.Node) { n.Status.Allocatable[v1.ResourceCPU] = resource.MustParse("1") }), pod("p", cpu("2")))
	inf := informers.NewSharedInformerFactory(client, 0)
	s, err := New(client, inf, Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	refused := make(chan struct{}, 16)
	w, err := client.CoreV1().Pods("default").Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	bound := make(chan string, 1)
	client.PrependReactor("create", "pods", bindReaction(bound))
	inf.StartWithContext(ctx)
	go s.Run(ctx) //nolint:errcheck // ends with the test
	go func() {
		for ev := range w.ResultChan() {
			if p, ok := ev.Object.(*v1.Pod); ok && ev.Type == watch.Modified && len(p.Status.Conditions) > 0 {
				refused <- struct{}{}
			}
		}
	}()
	<-refused
	if _, err := client.CoreV1().Nodes().Create(ctx, node("big", nil), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := <-bound; got != "big" {
		t.Errorf("bound to %q", got)
	}
}

func BenchmarkPlace100Nodes(b *testing.B) {
	var nodes []*v1.Node
	for i := range 100 {
		nodes = append(nodes, node(string(rune('a'+i/26))+string(rune('a'+i%26)), func(n *v1.Node) { n.Status.Allocatable[v1.ResourcePods] = resource.MustParse("100000") }))
	}
	s := scheduler(b, nodes)
	p := pod("p", nil)
	for b.Loop() {
		if _, err := s.place(b.Context(), fw.NewCycleState(), p); err != nil {
			b.Fatal(err)
		}
	}
}
