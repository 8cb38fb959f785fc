package plugins

import (
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"

	fw "keelson.dev/keelson/internal/scheduler/framework"
)

const zoneLabel = v1.LabelTopologyZone

func inNode(names ...string) func(*v1.Pod) {
	return func(p *v1.Pod) {
		p.Spec.Affinity = &v1.Affinity{NodeAffinity: &v1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &v1.NodeSelector{
			NodeSelectorTerms: []v1.NodeSelectorTerm{{MatchFields: []v1.NodeSelectorRequirement{{Key: metav1.ObjectNameField, Operator: v1.NodeSelectorOpIn, Values: names}}}}}}}
	}
}

func TestFilters(t *testing.T) {
	noNamespaces := func(string) labels.Set { return nil }
	const (
		untolerated = "node(s) had untolerated taint(s)!"
		selector    = "node(s) didn't match Pod's node affinity/selector!"
		ports       = "node(s) didn't have free ports for the requested pod ports"
		spreadOff   = "node(s) didn't match pod topology spread constraints"
		spreadLabel = "node(s) didn't match pod topology spread constraints (missing required label)!"
		nearOff     = "node(s) didn't match pod affinity rules!"
		farOff      = "node(s) didn't match pod anti-affinity rules"
		existingOff = "node(s) didn't satisfy existing pods anti-affinity rules"
	)
	sidecar := func(p *v1.Pod) {
		p.Spec.InitContainers = []v1.Container{{Name: "s", RestartPolicy: ptr.To(v1.ContainerRestartPolicyAlways), Resources: v1.ResourceRequirements{Requests: quantities([]string{"cpu", "2"})}}}
	}
	for _, c := range []struct {
		name   string
		plugin func(view) fw.FilterPlugin
		pod    *v1.Pod
		nodes  view
		want   []string
	}{
		{"another node is named", nil, pod("p", func(p *v1.Pod) { p.Spec.NodeName = "a" }), view{node("a", nil), node("b", nil)}, []string{"", "node(s) didn't match the requested node name!"}},
		{"cordoned", func(view) fw.FilterPlugin { return NodeUnschedulable{} }, pod("p"), view{node("a", func(n *v1.Node) { n.Spec.Unschedulable = true })}, []string{"node(s) were unschedulable!"}},
		{"cordoned, tolerated", func(view) fw.FilterPlugin { return NodeUnschedulable{} }, pod("p", tolerate(v1.Toleration{Key: v1.TaintNodeUnschedulable, Operator: v1.TolerationOpExists})),
			view{node("a", func(n *v1.Node) { n.Spec.Unschedulable = true })}, []string{""}},
		{"taints", func(view) fw.FilterPlugin { return TaintToleration{} }, pod("p", tolerate(v1.Toleration{Key: "k", Operator: v1.TolerationOpExists, Effect: v1.TaintEffectNoSchedule})),
			view{node("a", taint(v1.TaintEffectNoSchedule, "k")), node("b", taint(v1.TaintEffectNoExecute, "k")), node("c", taint(v1.TaintEffectNoSchedule, "k", "other")), node("d", taint(v1.TaintEffectPreferNoSchedule, "x"))},
			[]string{"", untolerated, untolerated, ""}},
		{"selector", func(view) fw.FilterPlugin { return NodeAffinity{} }, pod("p", func(p *v1.Pod) { p.Spec.NodeSelector = map[string]string{"disk": "ssd"} }), view{node("a", label("disk", "ssd")), node("b", nil)}, []string{"", selector}},
		{"node by field", func(view) fw.FilterPlugin { return NodeAffinity{} }, pod("p", inNode("b")), view{node("a", nil), node("b", nil)}, []string{selector, ""}},
		{"ports", func(view) fw.FilterPlugin { return NodePorts{} }, pod("p", hostPort("", 80, v1.ProtocolTCP)),
			view{node("a", nil, pod("x", hostPort("127.0.0.1", 80, v1.ProtocolTCP))), node("b", nil, pod("x", hostPort("", 80, v1.ProtocolUDP))), node("c", nil, pod("x", hostPort("", 81, v1.ProtocolTCP)))},
			[]string{ports, "", ""}},
		{"ports of two addresses", func(view) fw.FilterPlugin { return NodePorts{} }, pod("p", hostPort("127.0.0.2", 80, v1.ProtocolTCP)), view{node("a", nil, pod("x", hostPort("127.0.0.1", 80, v1.ProtocolTCP)))}, []string{""}},
		{"resources", func(view) fw.FilterPlugin { return NodeResourcesFit{} }, pod("p", asking("cpu", "3", "memory", "5Gi")),
			view{node("a", nil), node("b", nil, pod("x", asking("cpu", "2", "memory", "4Gi"))), node("c", func(n *v1.Node) { n.Status.Allocatable[v1.ResourceCPU] = resource.MustParse("2") })},
			[]string{"", "Insufficient cpu, Insufficient memory", "Insufficient cpu!"}},
		{"extended resources", func(view) fw.FilterPlugin { return NodeResourcesFit{} }, pod("p", asking("example.com/gpu", "1")), view{node("a", nil)}, []string{"Insufficient example.com/gpu!"}},
		{"ephemeral storage", func(view) fw.FilterPlugin { return NodeResourcesFit{} }, pod("p", asking("ephemeral-storage", "1Gi")), view{node("a", nil)}, []string{"Insufficient ephemeral-storage!"}},
		{"too many", func(view) fw.FilterPlugin { return NodeResourcesFit{} }, pod("p"), view{node("a", func(n *v1.Node) { n.Status.Allocatable[v1.ResourcePods] = resource.MustParse("1") }, pod("x"))}, []string{"Too many pods"}},
		{"a sidecar counts with the containers", func(view) fw.FilterPlugin { return NodeResourcesFit{} }, pod("p", asking("cpu", "3"), sidecar), view{node("a", nil)}, []string{"Insufficient cpu!"}},
		{"pod-level requests count instead of the containers'", func(view) fw.FilterPlugin { return NodeResourcesFit{} }, pod("p", asking("cpu", "1"), func(p *v1.Pod) {
			p.Spec.Resources = &v1.ResourceRequirements{Requests: quantities([]string{"cpu", "5"})}
		}), view{node("a", nil)}, []string{"Insufficient cpu!"}},
		{"overhead", func(view) fw.FilterPlugin { return NodeResourcesFit{} }, pod("p", asking("cpu", "4"), func(p *v1.Pod) { p.Spec.Overhead = quantities([]string{"cpu", "1m"}) }), view{node("a", nil)}, []string{"Insufficient cpu!"}},

		{"spread over zones", func(v view) fw.FilterPlugin { return PodTopologySpread{View: v} }, pod("p", spreadBy(zoneLabel, 1, v1.DoNotSchedule)),
			view{node("a", label(zoneLabel, "1"), pod("x")), node("b", label(zoneLabel, "1")), node("c", label(zoneLabel, "2")), node("d", nil)}, []string{spreadOff, spreadOff, "", spreadLabel}},
		{"others and the dying do not count", func(v view) fw.FilterPlugin { return PodTopologySpread{View: v} }, pod("p", spreadBy(zoneLabel, 1, v1.DoNotSchedule)),
			view{node("a", label(zoneLabel, "1"), pod("x", labelled("app", "b")), pod("y", func(p *v1.Pod) { p.DeletionTimestamp = &metav1.Time{} }), pod("z", func(p *v1.Pod) { p.Namespace = "other" })), node("c", label(zoneLabel, "2"))}, []string{"", ""}},
		{"too few domains", func(v view) fw.FilterPlugin { return PodTopologySpread{View: v} }, pod("p", spreadBy(zoneLabel, 1, v1.DoNotSchedule, func(c *v1.TopologySpreadConstraint) { c.MinDomains = ptr.To[int32](3) })),
			view{node("a", label(zoneLabel, "1"), pod("x")), node("c", label(zoneLabel, "2"), pod("y"))}, []string{spreadOff, spreadOff}},
		{"nodes that the pod does not tolerate count by default", func(v view) fw.FilterPlugin { return PodTopologySpread{View: v} }, pod("p", spreadBy(zoneLabel, 1, v1.DoNotSchedule)),
			view{node("a", label(zoneLabel, "1"), pod("x")), node("c", func(n *v1.Node) { label(zoneLabel, "2")(n); taint(v1.TaintEffectNoSchedule, "k")(n) })}, []string{spreadOff, ""}},
		{"and not if their taints are honored", func(v view) fw.FilterPlugin { return PodTopologySpread{View: v} }, pod("p", spreadBy(zoneLabel, 1, v1.DoNotSchedule, func(c *v1.TopologySpreadConstraint) { c.NodeTaintsPolicy = ptr.To(v1.NodeInclusionPolicyHonor) })),
			view{node("a", label(zoneLabel, "1"), pod("x")), node("c", func(n *v1.Node) { label(zoneLabel, "2")(n); taint(v1.TaintEffectNoSchedule, "k")(n) })}, []string{"", ""}},
		{"a revision of its own", func(v view) fw.FilterPlugin { return PodTopologySpread{View: v} }, pod("p", labelled("rev", "2"), spreadBy(zoneLabel, 1, v1.DoNotSchedule, func(c *v1.TopologySpreadConstraint) { c.MatchLabelKeys = []string{"rev"} })),
			view{node("a", label(zoneLabel, "1"), pod("x", labelled("rev", "1"))), node("c", label(zoneLabel, "2"))}, []string{"", ""}},

		{"near", func(v view) fw.FilterPlugin { return InterPodAffinity{View: v, NamespaceLabels: noNamespaces} }, pod("p", labelled("app", "b"), near(zoneLabel)),
			view{node("a", label(zoneLabel, "1"), pod("x")), node("b", label(zoneLabel, "1")), node("c", label(zoneLabel, "2")), node("d", nil)}, []string{"", "", nearOff, nearOff}},
		{"near nobody", func(v view) fw.FilterPlugin { return InterPodAffinity{View: v, NamespaceLabels: noNamespaces} }, pod("p", labelled("app", "b"), near(zoneLabel)), view{node("a", label(zoneLabel, "1"))}, []string{nearOff}},
		{"the first of its kind", func(v view) fw.FilterPlugin { return InterPodAffinity{View: v, NamespaceLabels: noNamespaces} }, pod("p", near(zoneLabel)), view{node("a", label(zoneLabel, "1"))}, []string{""}},
		{"far", func(v view) fw.FilterPlugin { return InterPodAffinity{View: v, NamespaceLabels: noNamespaces} }, pod("p", far(zoneLabel)),
			view{node("a", label(zoneLabel, "1"), pod("x")), node("b", label(zoneLabel, "1")), node("c", label(zoneLabel, "2")), node("d", nil)}, []string{farOff, farOff, "", ""}},
		{"others want to be far", func(v view) fw.FilterPlugin { return InterPodAffinity{View: v, NamespaceLabels: noNamespaces} }, pod("p"),
			view{node("a", label(zoneLabel, "1"), pod("x", labelled("app", "b"), far(zoneLabel))), node("b", label(zoneLabel, "1")), node("c", label(zoneLabel, "2"))}, []string{existingOff, existingOff, ""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var p fw.FilterPlugin = NodeName{}
			if c.plugin != nil {
				p = c.plugin(c.nodes)
			}
			if got := filter(t, p, c.pod, c.nodes); !slices.Equal(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

// TestRemoveAndAddPods checks that the state of a filter follows pods taken
// away and put back.
func TestRemoveAndAddPods(t *testing.T) {
	x := pod("x")
	exclusive := pod("x", labelled("app", "b"), far(zoneLabel))
	for _, c := range []struct {
		name   string
		plugin func(view) fw.FilterPlugin
		pod    *v1.Pod
		other  *v1.Pod
	}{
		{"spread", func(v view) fw.FilterPlugin { return PodTopologySpread{View: v} }, pod("p", spreadBy(zoneLabel, 1, v1.DoNotSchedule)), x},
		{"far", func(v view) fw.FilterPlugin { return InterPodAffinity{View: v} }, pod("p", far(zoneLabel)), x},
		{"far from it", func(v view) fw.FilterPlugin { return InterPodAffinity{View: v} }, pod("p"), exclusive},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := node("a", label(zoneLabel, "1"), c.other)
			v := view{n, node("b", label(zoneLabel, "2"))}
			p := c.plugin(v)
			x, ext := p.(fw.PreFilterPlugin), p.(fw.PreFilterExtensions)
			state := fw.NewCycleState()
			if _, st := x.PreFilter(t.Context(), state, c.pod); !st.IsSuccess() {
				t.Fatal(st.Message())
			}
			whatIf, info := state.Clone(), n.Pods[0]
			fits := func(s *fw.CycleState) bool { return p.Filter(t.Context(), s, c.pod, n).IsSuccess() }
			if fits(whatIf) {
				t.Fatal("it fits beside the other")
			}
			ext.RemovePod(t.Context(), whatIf, c.pod, info, n)
			if !fits(whatIf) || fits(state) {
				t.Errorf("without the other: %v, in the state cloned from: %v", fits(whatIf), fits(state))
			}
			ext.AddPod(t.Context(), whatIf, c.pod, info, n)
			if fits(whatIf) {
				t.Error("it fits beside the other that is back")
			}
		})
	}
}

// TestPreFilterNodes checks that a pod bound to nodes by name is tried on these
// only.
func TestPreFilterNodes(t *testing.T) {
	for _, c := range []struct {
		name string
		pod  *v1.Pod
		want []string
		msg  string
	}{
		{"named", pod("p", inNode("a", "b")), []string{"a", "b"}, ""},
		{"none", pod("p", inNode()), nil, "pod affinity terms conflict"},
		{"one of the terms names none", pod("p", inNode("a"), func(p *v1.Pod) {
			r := p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution
			r.NodeSelectorTerms = append(r.NodeSelectorTerms, v1.NodeSelectorTerm{MatchExpressions: []v1.NodeSelectorRequirement{{Key: "x", Operator: v1.NodeSelectorOpExists}}})
		}), nil, ""},
	} {
		names, st := NodeAffinity{}.PreFilter(t.Context(), fw.NewCycleState(), c.pod)
		got := names.UnsortedList()
		slices.Sort(got)
		if !slices.Equal(got, c.want) || st.Message() != c.msg {
			t.Errorf("%s: %v, %q", c.name, got, st.Message())
		}
	}
}
