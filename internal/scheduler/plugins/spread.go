package plugins

import (
	"context"
	"math"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/sets"
	corev1helpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	fw "keelson.dev/keelson/internal/scheduler/framework"
)

// PodTopologySpread spreads pods over zones, hosts or other domains. KEP-895.
type PodTopologySpread struct{ View fw.View }

// Name implements framework.Plugin.
func (PodTopologySpread) Name() string { return "PodTopologySpread" }

type constraint struct {
	maxSkew    int32
	key        string
	selector   labels.Selector
	minDomains int32
	affinity   v1.NodeInclusionPolicy
	taints     v1.NodeInclusionPolicy
}

// spread is the state of a cycle: matching pods per domain of each constraint.
type spread struct {
	hard, soft []constraint
	counts     map[string]map[string]int // key + selector → domain → pods
}

// Clone implements framework.StateData.
func (s *spread) Clone() fw.StateData {
	c := &spread{hard: s.hard, soft: s.soft, counts: map[string]map[string]int{}}
	for k, m := range s.counts {
		n := make(map[string]int, len(m))
		for d, v := range m {
			n[d] = v
		}
		c.counts[k] = n
	}
	return c
}

const spreadKey = "PodTopologySpread"

func (c *constraint) id() string { return c.key + "|" + c.selector.String() }

func constraints(pod *v1.Pod, action v1.UnsatisfiableConstraintAction) ([]constraint, error) {
	var out []constraint
	for i := range pod.Spec.TopologySpreadConstraints {
		t := &pod.Spec.TopologySpreadConstraints[i]
		if t.WhenUnsatisfiable != action {
			continue
		}
		sel, err := metav1.LabelSelectorAsSelector(t.LabelSelector)
		if err != nil {
			return nil, err
		}
		for _, k := range t.MatchLabelKeys {
			if v, ok := pod.Labels[k]; ok {
				if r, err := labels.NewRequirement(k, "in", []string{v}); err == nil {
					sel = sel.Add(*r)
				}
			}
		}
		out = append(out, constraint{t.MaxSkew, t.TopologyKey, sel, ptr.Deref(t.MinDomains, 1),
			ptr.Deref(t.NodeAffinityPolicy, v1.NodeInclusionPolicyHonor), ptr.Deref(t.NodeTaintsPolicy, v1.NodeInclusionPolicyIgnore)})
	}
	return out, nil
}

// counted says whether a node's pods count for a constraint.
func (c *constraint) counted(pod *v1.Pod, n *fw.NodeInfo) bool {
	if c.affinity == v1.NodeInclusionPolicyHonor && selects(pod) {
		if ok, _ := nodeaffinity.GetRequiredNodeAffinity(pod).Match(n.Node); !ok {
			return false
		}
	}
	if c.taints == v1.NodeInclusionPolicyHonor {
		_, untolerated := corev1helpers.FindMatchingUntoleratedTaint(klog.Background(), n.Node.Spec.Taints, pod.Spec.Tolerations, func(t *v1.Taint) bool {
			return t.Effect == v1.TaintEffectNoSchedule || t.Effect == v1.TaintEffectNoExecute
		}, true)
		return !untolerated
	}
	return true
}

func matching(c *constraint, pod *v1.Pod, n *fw.NodeInfo) int {
	count := 0
	for _, p := range n.Pods {
		if p.Pod.Namespace == pod.Namespace && p.Pod.DeletionTimestamp == nil && c.selector.Matches(labels.Set(p.Pod.Labels)) {
			count++
		}
	}
	return count
}

// PreFilter implements framework.PreFilterPlugin.
func (p PodTopologySpread) PreFilter(_ context.Context, state *fw.CycleState, pod *v1.Pod) (sets.Set[string], *fw.Status) {
	if len(pod.Spec.TopologySpreadConstraints) == 0 {
		return nil, fw.NewStatus(fw.Skip)
	}
	hard, err := constraints(pod, v1.DoNotSchedule)
	if err != nil {
		return nil, fw.AsStatus(err)
	}
	soft, err := constraints(pod, v1.ScheduleAnyway)
	if err != nil {
		return nil, fw.AsStatus(err)
	}
	s := &spread{hard: hard, soft: soft, counts: map[string]map[string]int{}}
	for _, list := range [][]constraint{hard, soft} {
		for i := range list {
			c := &list[i]
			m := map[string]int{}
			for _, n := range p.View.Nodes() {
				if d, ok := n.Node.Labels[c.key]; ok && c.counted(pod, n) {
					m[d] += matching(c, pod, n)
				}
			}
			s.counts[c.id()] = m
		}
	}
	state.Write(spreadKey, s)
	return nil, nil
}

// Filter implements framework.FilterPlugin.
func (p PodTopologySpread) Filter(_ context.Context, state *fw.CycleState, pod *v1.Pod, n *fw.NodeInfo) *fw.Status {
	s, ok := state.Read(spreadKey).(*spread)
	if !ok {
		return nil
	}
	for i := range s.hard {
		c := &s.hard[i]
		d, ok := n.Node.Labels[c.key]
		if !ok {
			return fw.NewStatus(fw.UnschedulableAndUnresolvable, "node(s) didn't match pod topology spread constraints (missing required label)")
		}
		counts := s.counts[c.id()]
		least := math.MaxInt
		for _, v := range counts {
			least = min(least, v)
		}
		if len(counts) < int(c.minDomains) || least == math.MaxInt {
			least = 0
		}
		self := 0
		if c.selector.Matches(labels.Set(pod.Labels)) {
			self = 1
		}
		if counts[d]+self-least > int(c.maxSkew) {
			return fw.NewStatus(fw.Unschedulable, "node(s) didn't match pod topology spread constraints")
		}
	}
	return nil
}

// Score implements framework.ScorePlugin: the fewer matching pods in the
// node's domains, the better; NormalizeScore turns it round.
func (p PodTopologySpread) Score(_ context.Context, state *fw.CycleState, _ *v1.Pod, n *fw.NodeInfo) (int64, *fw.Status) {
	s, ok := state.Read(spreadKey).(*spread)
	if !ok {
		return 0, nil
	}
	score := 0.0
	for i := range s.soft {
		c := &s.soft[i]
		if d, ok := n.Node.Labels[c.key]; ok {
			counts := s.counts[c.id()]
			score += float64(counts[d])*math.Log(float64(len(counts)+2)) + float64(c.maxSkew-1)
		}
	}
	return int64(math.Round(score)), nil
}

// NormalizeScore implements framework.ScoreNormalizer.
func (p PodTopologySpread) NormalizeScore(_ context.Context, state *fw.CycleState, _ *v1.Pod, nodes []*fw.NodeInfo, scores []int64) {
	s, ok := state.Read(spreadKey).(*spread)
	if !ok || len(s.soft) == 0 {
		return
	}
	lacks := func(n *fw.NodeInfo) bool {
		for i := range s.soft {
			if _, ok := n.Node.Labels[s.soft[i].key]; !ok {
				return true
			}
		}
		return false
	}
	least, most := int64(math.MaxInt64), int64(0)
	for i, n := range nodes {
		if !lacks(n) {
			least, most = min(least, scores[i]), max(most, scores[i])
		}
	}
	for i, n := range nodes {
		switch {
		case lacks(n):
			scores[i] = 0
		case most == 0:
			scores[i] = fw.MaxNodeScore
		default:
			scores[i] = fw.MaxNodeScore * (most + least - scores[i]) / most
		}
	}
}

// EventsToRegister implements framework.EnqueueExtensions.
func (PodTopologySpread) EventsToRegister() []fw.EventHint {
	return []fw.EventHint{{Events: fw.NodeAdd | fw.NodeUpdateLabel | fw.NodeUpdateTaint | fw.NodeDelete | fw.AssignedPodAdd | fw.AssignedPodDelete | fw.AssignedPodUpdateLabel}}
}
