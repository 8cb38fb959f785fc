package plugins

import (
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	fw "keelson.dev/keelson/internal/scheduler/framework"
)

func prefers(weight int32, key string) func(*v1.Pod) {
	return func(p *v1.Pod) {
		p.Spec.Affinity = &v1.Affinity{NodeAffinity: &v1.NodeAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []v1.PreferredSchedulingTerm{
			{Weight: weight, Preference: v1.NodeSelectorTerm{MatchExpressions: []v1.NodeSelectorRequirement{{Key: key, Operator: v1.NodeSelectorOpExists}}}}}}}
	}
}

func TestScores(t *testing.T) {
	preferNear := func(p *v1.Pod) {
		p.Spec.Affinity = &v1.Affinity{PodAffinity: &v1.PodAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []v1.WeightedPodAffinityTerm{
			{Weight: 5, PodAffinityTerm: v1.PodAffinityTerm{TopologyKey: zoneLabel, LabelSelector: appA}}}}}
	}
	byApp := func(*v1.Pod) labels.Selector { return labels.Set{"app": "a"}.AsSelector() }
	for _, c := range []struct {
		name   string
		plugin func(view) fw.ScorePlugin
		pod    *v1.Pod
		nodes  view
		want   []int64
	}{
		{"fewer taints", func(view) fw.ScorePlugin { return TaintToleration{} }, pod("p", tolerate(v1.Toleration{Key: "a", Operator: v1.TolerationOpExists})),
			view{node("a", taint(v1.TaintEffectPreferNoSchedule, "a")), node("b", taint(v1.TaintEffectPreferNoSchedule, "a", "b")), node("c", taint(v1.TaintEffectPreferNoSchedule, "b", "c"))}, []int64{100, 50, 0}},
		{"a toleration of another effect", func(view) fw.ScorePlugin { return TaintToleration{} }, pod("p", tolerate(v1.Toleration{Operator: v1.TolerationOpExists, Effect: v1.TaintEffectNoSchedule})),
			view{node("a", taint(v1.TaintEffectPreferNoSchedule, "a")), node("b", nil)}, []int64{0, 100}},
		{"no preference", func(view) fw.ScorePlugin { return NodeAffinity{} }, pod("p"), view{node("a", nil)}, nil},
		{"preferred nodes", func(view) fw.ScorePlugin { return NodeAffinity{} }, pod("p", prefers(3, "disk")), view{node("a", label("disk", "ssd")), node("b", nil)}, []int64{100, 0}},
		// Of 4 CPUs and 8Gi: (75+75)/2 and (50+50)/2.
		{"least allocated", func(view) fw.ScorePlugin { return NodeResourcesFit{} }, pod("p", asking("cpu", "1", "memory", "2Gi")), view{node("a", nil), node("b", nil, pod("x", asking("cpu", "1", "memory", "2Gi")))}, []int64{75, 50}},
		{"most allocated", func(view) fw.ScorePlugin { return NodeResourcesFit{Most: true} }, pod("p", asking("cpu", "1", "memory", "2Gi")), view{node("a", nil), node("b", nil, pod("x", asking("cpu", "1", "memory", "2Gi")))}, []int64{25, 50}},
		// 100m and 200Mi stand for what is not requested: (97+97)/2.
		{"least allocated by default requests", func(view) fw.ScorePlugin { return NodeResourcesFit{} }, pod("p"), view{node("a", nil)}, []int64{97}},
		{"best effort has no balance", func(view) fw.ScorePlugin { return BalancedAllocation{} }, pod("p"), view{node("a", nil)}, nil},
		// Alone it makes a's balance worse by 25, and b's better by 25.
		{"balance", func(view) fw.ScorePlugin { return BalancedAllocation{} }, pod("p", asking("cpu", "2")), view{node("a", nil), node("b", nil, pod("x", asking("memory", "4Gi")))}, []int64{62, 87}},
		{"images", func(v view) fw.ScorePlugin { return ImageLocality{View: v} }, pod("p"), view{node("a", image("web:1", 1000<<20)), node("b", image("db:1", 1000<<20)), node("c", nil)}, []int64{31, 0, 0}},
		{"an image on all nodes", func(v view) fw.ScorePlugin { return ImageLocality{View: v} }, pod("p"), view{node("a", image("web:1", 2000<<20)), node("b", image("web:1", 2000<<20))}, []int64{100, 100}},

		{"no constraint", func(v view) fw.ScorePlugin { return PodTopologySpread{View: v} }, pod("p"), view{node("a", nil)}, nil},
		// Counts 2, 1, 0 times ln(3 domains + 2), rounded: 3, 2, 0.
		{"spread over zones", func(v view) fw.ScorePlugin { return PodTopologySpread{View: v} }, pod("p", spreadBy(zoneLabel, 1, v1.ScheduleAnyway)),
			view{node("a", label(zoneLabel, "1"), pod("x"), pod("y")), node("b", label(zoneLabel, "2"), pod("z")), node("c", label(zoneLabel, "3")), node("d", nil)}, []int64{0, 33, 100, 0}},
		{"spread over hosts", func(v view) fw.ScorePlugin { return PodTopologySpread{View: v} }, pod("p", spreadBy(v1.LabelHostname, 1, v1.ScheduleAnyway)),
			view{node("a", nil, pod("x"), pod("y")), node("b", nil)}, []int64{0, 100}},
		// Zone 1 has two pods, zone 2 none; a node without a zone is not ignored.
		// Hosts weigh ln(4+2) and add 2, zones ln(3+2) and add 4: 13, 9, 6, 2.
		{"by default, over hosts and zones", func(v view) fw.ScorePlugin { return PodTopologySpread{View: v, Defaults: byApp} }, pod("p"),
			view{node("a", label(zoneLabel, "1"), pod("x"), pod("y")), node("b", label(zoneLabel, "1")), node("c", label(zoneLabel, "2")), node("d", nil)}, []int64{15, 46, 69, 100}},

		{"no terms", func(v view) fw.ScorePlugin { return InterPodAffinity{View: v} }, pod("p"), view{node("a", nil, pod("x"))}, nil},
		{"near preferred", func(v view) fw.ScorePlugin { return InterPodAffinity{View: v} }, pod("p", preferNear), view{node("a", label(zoneLabel, "1"), pod("x")), node("b", label(zoneLabel, "1")), node("c", label(zoneLabel, "2"))}, []int64{100, 100, 0}},
		{"others prefer it near", func(v view) fw.ScorePlugin { return InterPodAffinity{View: v} }, pod("p"), view{node("a", label(zoneLabel, "1"), pod("x", preferNear)), node("c", label(zoneLabel, "2"))}, []int64{100, 0}},
		{"others require it near", func(v view) fw.ScorePlugin { return InterPodAffinity{View: v} }, pod("p"), view{node("a", label(zoneLabel, "1"), pod("x", near(zoneLabel))), node("c", label(zoneLabel, "2"))}, []int64{100, 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := score(t, c.plugin(c.nodes), c.pod, c.nodes); !slices.Equal(got, c.want) {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

// TestHints checks which events are taken to help a pod that a plugin refused.
func TestHints(t *testing.T) {
	gpu := func(n *v1.Node) { n.Status.Allocatable["example.com/gpu"] = quantities([]string{"g", "1"})["g"] }
	small := func(n *v1.Node) {
		n.Status.Allocatable = quantities([]string{"cpu", "1", "memory", "8Gi", "pods", "10"})
	}
	obj := func(n *fw.NodeInfo) *v1.Node { return n.Node }
	for _, c := range []struct {
		name   string
		plugin fw.EnqueueExtensions
		pod    *v1.Pod
		event  fw.Event
		old    any
		now    any
		want   bool
	}{
		{"a node that is too small", NodeResourcesFit{}, pod("p", asking("cpu", "2")), fw.NodeAdd, nil, obj(node("a", small)), false},
		{"a node with room", NodeResourcesFit{}, pod("p", asking("cpu", "2")), fw.NodeAdd, nil, obj(node("a", nil)), true},
		{"a node grows", NodeResourcesFit{}, pod("p", asking("cpu", "2")), fw.NodeUpdateAllocatable, obj(node("a", small)), obj(node("a", nil)), true},
		{"a node grows in what the pod does not ask for", NodeResourcesFit{}, pod("p", asking("cpu", "2")), fw.NodeUpdateAllocatable, obj(node("a", nil)), obj(node("a", gpu)), false},
		{"a pod ends", NodeResourcesFit{}, pod("p", asking("cpu", "2")), fw.AssignedPodDelete, pod("x"), nil, true},
		{"labels do not make room", NodeResourcesFit{}, pod("p"), fw.NodeUpdateLabel, obj(node("a", nil)), obj(node("a", nil)), false},
		{"uncordoned", NodeUnschedulable{}, pod("p"), fw.NodeUpdateTaint, obj(node("a", nil)), obj(node("a", nil)), true},
		{"cordoned", NodeUnschedulable{}, pod("p"), fw.NodeUpdateTaint, obj(node("a", nil)), obj(node("a", func(n *v1.Node) { n.Spec.Unschedulable = true })), false},
		{"untainted", TaintToleration{}, pod("p"), fw.NodeUpdateTaint, obj(node("a", taint(v1.TaintEffectNoSchedule, "k"))), obj(node("a", nil)), true},
		{"another taint", TaintToleration{}, pod("p"), fw.NodeUpdateTaint, obj(node("a", taint(v1.TaintEffectNoSchedule, "k"))), obj(node("a", taint(v1.TaintEffectNoSchedule, "l"))), false},
		{"labelled", NodeAffinity{}, pod("p", func(p *v1.Pod) { p.Spec.NodeSelector = map[string]string{"disk": "ssd"} }), fw.NodeUpdateLabel, obj(node("a", nil)), obj(node("a", label("disk", "ssd"))), true},
		{"labelled otherwise", NodeAffinity{}, pod("p", func(p *v1.Pod) { p.Spec.NodeSelector = map[string]string{"disk": "ssd"} }), fw.NodeUpdateLabel, obj(node("a", nil)), obj(node("a", label("disk", "hdd"))), false},
		{"the port becomes free", NodePorts{}, pod("p", hostPort("", 80, v1.ProtocolTCP)), fw.AssignedPodDelete, pod("x", hostPort("", 80, v1.ProtocolTCP)), nil, true},
		{"another port becomes free", NodePorts{}, pod("p", hostPort("", 80, v1.ProtocolTCP)), fw.AssignedPodDelete, pod("x", hostPort("", 81, v1.ProtocolTCP)), nil, false},
		{"a counted pod ends", PodTopologySpread{}, pod("p", spreadBy(zoneLabel, 1, v1.DoNotSchedule)), fw.AssignedPodDelete, pod("x"), nil, true},
		{"a pod that is not counted ends", PodTopologySpread{}, pod("p", spreadBy(zoneLabel, 1, v1.DoNotSchedule)), fw.AssignedPodDelete, pod("x", labelled("app", "b")), nil, false},
		{"a node in no zone", PodTopologySpread{}, pod("p", spreadBy(zoneLabel, 1, v1.DoNotSchedule)), fw.NodeAdd, nil, obj(node("a", nil)), false},
		{"the one to be near comes", InterPodAffinity{}, pod("p", labelled("app", "b"), near(zoneLabel)), fw.AssignedPodAdd, nil, pod("x"), true},
		{"a stranger comes", InterPodAffinity{}, pod("p", labelled("app", "b"), near(zoneLabel)), fw.AssignedPodAdd, nil, pod("x", labelled("app", "c")), false},
		{"the one that kept others far ends", InterPodAffinity{}, pod("p"), fw.AssignedPodDelete, pod("x", labelled("app", "b"), far(zoneLabel)), nil, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := false
			for _, h := range c.plugin.EventsToRegister() {
				got = got || h.Events&c.event != 0 && (h.Hint == nil || h.Hint(c.pod, c.event, c.old, c.now))
			}
			if got != c.want {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}
