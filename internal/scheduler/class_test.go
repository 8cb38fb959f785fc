package scheduler

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	fw "keelson.dev/keelson/internal/scheduler/framework"
)

// choice is all that a pod's placement may come to: the nodes it may be placed
// on, or why there is none.
type choice struct {
	nodes []string
	err   string
}

func (c choice) String() string { return strings.Join(c.nodes, " ") + c.err }

// plainly finds it by trying and scoring all nodes.
func plainly(ctx context.Context, t testing.TB, s *Scheduler, pod *v1.Pod) (c choice) {
	t.Helper()
	state, d := fw.NewCycleState(), fw.NewDiagnosis()
	if _, st := s.profile.preFilter(ctx, state, pod, d); !st.IsSuccess() {
		t.Fatal(st.AsError())
	}
	s.PercentageOfNodesToScore = 100
	nodes, err := s.fitting(ctx, state, pod, s.snapshot.list, d)
	if err != nil {
		t.Fatal(err)
	}
	if len(nodes) == 0 {
		c.err = (&fw.FitError{Pod: pod, NumAllNodes: len(s.snapshot.list), Diagnosis: d}).Error()
		return c
	}
	totals, err := s.profile.score(ctx, state, pod, nodes)
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range nodes {
		if totals[i] == slices.Max(totals) {
			c.nodes = append(c.nodes, n.Node.Name)
		}
	}
	slices.Sort(c.nodes)
	return c
}

// shared finds it from the pod's class; false if it has none.
func shared(ctx context.Context, t testing.TB, s *Scheduler, pod *v1.Pod) (c choice, ok bool) {
	t.Helper()
	state, d := fw.NewCycleState(), fw.NewDiagnosis()
	if _, st := s.profile.preFilter(ctx, state, pod, d); !st.IsSuccess() {
		t.Fatal(st.AsError())
	}
	class := s.classes.find(ctx, s.profile, s.snapshot, pod, state)
	if class == nil {
		return c, false
	}
	if err := class.refresh(ctx); err != nil {
		t.Fatal(err)
	}
	if class.fit == 0 {
		class.diagnose(d)
		c.err = (&fw.FitError{Pod: pod, NumAllNodes: len(s.snapshot.list), Diagnosis: d}).Error()
		return c, true
	}
	for _, b := range class.best() {
		for _, e := range b.levels[b.top] {
			c.nodes = append(c.nodes, e.node.Node.Name)
		}
	}
	slices.Sort(c.nodes)
	return c, true
}

// random makes nodes and pods that differ in all that has to do with
// scheduling.
type random struct{ *rand.Rand }

func (r random) chance(percent int) bool { return r.IntN(100) < percent }

func (r random) node(i int) *v1.Node {
	return node(fmt.Sprintf("n%03d", i), func(n *v1.Node) {
		n.Status.Allocatable = v1.ResourceList{v1.ResourceCPU: *resource.NewMilliQuantity(int64(1000*(1+r.IntN(4))), resource.DecimalSI),
			v1.ResourceMemory: *resource.NewQuantity(int64(1+r.IntN(8))<<30, resource.BinarySI), v1.ResourcePods: *resource.NewQuantity(int64(3+r.IntN(20)), resource.DecimalSI)}
		if r.chance(80) {
			n.Labels[v1.LabelTopologyZone] = fmt.Sprint("z", r.IntN(3))
		}
		if r.chance(30) {
			n.Labels["disk"] = []string{"ssd", "hdd"}[r.IntN(2)]
		}
		n.Spec.Unschedulable = r.chance(5)
		if r.chance(20) {
			n.Spec.Taints = []v1.Taint{{Key: "a", Value: "b", Effect: []v1.TaintEffect{v1.TaintEffectNoSchedule, v1.TaintEffectPreferNoSchedule}[r.IntN(2)]}}
		}
		if r.chance(20) {
			n.Spec.Taints = append(n.Spec.Taints, v1.Taint{Key: "c", Effect: v1.TaintEffectPreferNoSchedule})
		}
		for _, image := range []string{"web:1", "db:1"} {
			if r.chance(30) {
				n.Status.Images = append(n.Status.Images, v1.ContainerImage{Names: []string{image}, SizeBytes: 300 << 20})
			}
		}
	})
}

// kind makes one of few kinds of pods, so that many share a class.
func (r random) kind() func(*v1.Pod) {
	cpu, memory, app := r.IntN(4)*250, r.IntN(3)<<29, fmt.Sprint("app", r.IntN(3))
	image := []string{"web:1", "db:1", "none:1"}[r.IntN(3)]
	lonely := r.chance(10)
	tolerates, selects, prefers, ports, constrained, zoned := r.chance(30), r.chance(20), r.chance(30), r.chance(15), r.chance(30), r.chance(50)
	return func(p *v1.Pod) {
		p.Labels["app"] = app
		p.Spec.Containers[0].Image = image
		p.Spec.Containers[0].Resources.Requests = v1.ResourceList{}
		if cpu > 0 {
			p.Spec.Containers[0].Resources.Requests[v1.ResourceCPU] = *resource.NewMilliQuantity(int64(cpu), resource.DecimalSI)
		}
		if memory > 0 {
			p.Spec.Containers[0].Resources.Requests[v1.ResourceMemory] = *resource.NewQuantity(int64(memory), resource.BinarySI)
		}
		if tolerates {
			p.Spec.Tolerations = []v1.Toleration{{Key: "a", Operator: v1.TolerationOpExists}}
		}
		if selects {
			p.Spec.NodeSelector = map[string]string{"disk": "ssd"}
		}
		if prefers {
			p.Spec.Affinity = &v1.Affinity{NodeAffinity: &v1.NodeAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []v1.PreferredSchedulingTerm{
				{Weight: 7, Preference: v1.NodeSelectorTerm{MatchExpressions: []v1.NodeSelectorRequirement{{Key: "disk", Operator: v1.NodeSelectorOpExists}}}},
				{Weight: 3, Preference: v1.NodeSelectorTerm{MatchExpressions: []v1.NodeSelectorRequirement{{Key: v1.LabelTopologyZone, Operator: v1.NodeSelectorOpIn, Values: []string{"z1"}}}}},
			}}}
		}
		if ports {
			port(8080)(p)
		}
		if lonely {
			p.Spec.Affinity = &v1.Affinity{PodAntiAffinity: &v1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []v1.PodAffinityTerm{
				{TopologyKey: v1.LabelHostname, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}}}}}
		}
		if constrained {
			key := v1.LabelHostname
			if zoned {
				key = v1.LabelTopologyZone
			}
			p.Spec.TopologySpreadConstraints = []v1.TopologySpreadConstraint{{MaxSkew: 2, TopologyKey: key, WhenUnsatisfiable: v1.ScheduleAnyway,
				LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}}}
		}
	}
}

// TestSharedResults checks that a pod that shares the results of others is
// placed as without them, in clusters that change all the time.
func TestSharedResults(t *testing.T) {
	compared, unfit := 0, 0
	for seed := range uint64(20) {
		r := random{rand.New(rand.NewPCG(seed, 1))}
		var nodes []*v1.Node
		for i := range 5 + r.IntN(60) {
			nodes = append(nodes, r.node(i))
		}
		s := scheduler(t, nodes)
		// app0 and app1 have a service, so that their pods spread by default.
		s.profile.setDefaults(func(p *v1.Pod) labels.Selector {
			if p.Labels["app"] == "app2" {
				return labels.Set{}.AsSelector()
			}
			return labels.Set{"app": p.Labels["app"]}.AsSelector()
		})
		var kinds []func(*v1.Pod)
		for range 6 {
			kinds = append(kinds, r.kind())
		}
		var placed []*v1.Pod
		for i := range 400 {
			switch {
			case r.chance(10) && len(placed) > 0: // a pod ends, or is about to
				k := r.IntN(len(placed))
				p := placed[k].DeepCopy()
				if placed = slices.Delete(placed, k, k+1); r.chance(50) {
					s.snapshot.remove(p)
				} else {
					p.DeletionTimestamp = &metav1.Time{}
					s.snapshot.place(p, p.Spec.NodeName)
				}
			case r.chance(5): // a node comes or changes
				s.snapshot.setNode(r.node(r.IntN(len(nodes) + 5)))
			case r.chance(2): // a node goes
				s.snapshot.removeNode(nodes[r.IntN(len(nodes))].Name)
			}
			if len(s.snapshot.list) == 0 {
				continue
			}
			p := pod(fmt.Sprint("p", i), kinds[r.IntN(len(kinds))])
			want := plainly(t.Context(), t, s, p)
			got, ok := shared(t.Context(), t, s, p)
			if !ok {
				got = want // the first of its class
			} else {
				compared++
			}
			if got.String() != want.String() {
				t.Fatalf("seed %d, pod %d: shared: %v; on its own: %v", seed, i, got, want)
			}
			if want.err != "" {
				unfit++
				continue
			}
			p = p.DeepCopy()
			p.Spec.NodeName = want.nodes[r.IntN(len(want.nodes))]
			s.snapshot.place(p, p.Spec.NodeName)
			placed = append(placed, p)
		}
	}
	if compared < 5000 || unfit < 50 {
		t.Errorf("only %d decisions compared, %d of them without a node", compared, unfit)
	}
}

// BenchmarkPlace places pods of one Deployment, which spread by default.
func BenchmarkPlace(b *testing.B) {
	for _, size := range []int{1000, 5000, 20000} {
		for _, way := range []struct {
			name    string
			alone   bool
			percent int
		}{{"shared", false, 0}, {"alone", true, 100}, {"alone, sampled", true, 0}} {
			b.Run(fmt.Sprintf("nodes=%d/%s", size, way.name), func(b *testing.B) {
				nodes := make([]*v1.Node, size)
				for i := range nodes {
					nodes[i] = node(fmt.Sprintf("n%05d", i), func(n *v1.Node) {
						n.Labels[v1.LabelTopologyZone] = fmt.Sprint("z", i%3)
						n.Status.Allocatable = v1.ResourceList{v1.ResourceCPU: resource.MustParse("32"), v1.ResourceMemory: resource.MustParse("128Gi"), v1.ResourcePods: resource.MustParse("110")}
					})
				}
				s := scheduler(b, nodes)
				s.NoSharing, s.PercentageOfNodesToScore = way.alone, way.percent
				s.Rand = rand.IntN
				s.profile.setDefaults(func(*v1.Pod) labels.Selector { return labels.Set{"app": "a"}.AsSelector() })
				i := 0
				next := func() {
					p := pod("p", cpu("100m"))
					i++
					p.UID = p.UID + "-" + types.UID(fmt.Sprint(i))
					n, err := s.place(b.Context(), fw.NewCycleState(), p)
					if err != nil {
						b.Fatal(err)
					}
					s.snapshot.placeLocked(fw.NewPodInfo(p).At(n), n, true)
				}
				for range 3 {
					next() // the class is made
				}
				for b.Loop() {
					next()
				}
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "pods/s")
			})
		}
	}
}

// setDefaults replaces what pods without constraints spread from.
func (p *profile) setDefaults(f func(*v1.Pod) labels.Selector) {
	p.spread.Defaults = f
	for i := range p.scores {
		if p.scores[i].Name() == p.spread.Name() {
			p.scores[i].ScorePlugin = p.spread
		}
	}
}
