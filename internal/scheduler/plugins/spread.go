package plugins

import (
	"context"
	"maps"
	"math"
	"strings"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/utils/ptr"

	fw "keelson.dev/keelson/internal/scheduler/framework"
)

// PodTopologySpread spreads pods over zones, hosts or other domains. KEP-895.
type PodTopologySpread struct {
	View fw.View
	// Defaults returns the selector of the pods that a pod without constraints is
	// spread from by default: those of its services and its controller. It may be
	// nil.
	Defaults func(*v1.Pod) labels.Selector
}

// Name implements framework.Plugin.
func (PodTopologySpread) Name() string { return "PodTopologySpread" }

// Constraint is a parsed topology spread constraint.
type Constraint struct {
	MaxSkew  int32
	Key      string
	Selector labels.Selector

	minDomains int32
	affinity   v1.NodeInclusionPolicy
	taints     v1.NodeInclusionPolicy
}

// PerNode reports whether each node is a domain of its own, whose pods are
// counted when the node is scored.
func (c *Constraint) PerNode() bool { return c.Key == v1.LabelHostname }

// Matching counts the pods of a node that the constraint spreads from.
func (c *Constraint) Matching(namespace string, n *fw.NodeInfo) int {
	if c.Selector.Empty() {
		return 0
	}
	count := 0
	for _, p := range n.Pods {
		if p.Pod.Namespace == namespace && p.Pod.DeletionTimestamp == nil && c.Selector.Matches(labels.Set(p.Pod.Labels)) {
			count++
		}
	}
	return count
}

// Score returns the weight of count matching pods in a domain, one of size
// domains. A greater maximal skew makes differences smaller.
func (c *Constraint) Score(count, size int) float64 {
	return float64(count)*math.Log(float64(size+2)) + float64(c.MaxSkew-1)
}

// Constraints are all of a pod of one kind.
type Constraints struct {
	List []Constraint
	// All reports whether a node must have all topology keys to take part.
	All bool

	pod      *v1.Pod
	required nodeaffinity.RequiredNodeAffinity
}

func parse(pod *v1.Pod, action v1.UnsatisfiableConstraintAction) (*Constraints, error) {
	var out *Constraints
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
		if out == nil {
			out = &Constraints{All: true, pod: pod, required: nodeaffinity.GetRequiredNodeAffinity(pod)}
		}
		out.List = append(out.List, Constraint{MaxSkew: t.MaxSkew, Key: t.TopologyKey, Selector: sel, minDomains: ptr.Deref(t.MinDomains, 1),
			affinity: ptr.Deref(t.NodeAffinityPolicy, v1.NodeInclusionPolicyHonor), taints: ptr.Deref(t.NodeTaintsPolicy, v1.NodeInclusionPolicyIgnore)})
	}
	return out, nil
}

// Soft returns the constraints that only rank nodes: the pod's own, or for a pod
// without constraints the system's default ones; nil if there are none.
func (p PodTopologySpread) Soft(pod *v1.Pod) (*Constraints, error) {
	if len(pod.Spec.TopologySpreadConstraints) > 0 {
		return parse(pod, v1.ScheduleAnyway)
	}
	if p.Defaults == nil {
		return nil, nil
	}
	sel := p.Defaults(pod)
	if sel == nil || sel.Empty() {
		return nil, nil
	}
	of := func(key string, skew int32) Constraint {
		return Constraint{MaxSkew: skew, Key: key, Selector: sel, minDomains: 1, affinity: v1.NodeInclusionPolicyHonor, taints: v1.NodeInclusionPolicyIgnore}
	}
	return &Constraints{pod: pod, required: nodeaffinity.GetRequiredNodeAffinity(pod), List: []Constraint{of(v1.LabelHostname, 3), of(v1.LabelTopologyZone, 5)}}, nil
}

// String describes all that the constraints read of the pod.
func (c *Constraints) String() string {
	var b strings.Builder
	b.WriteString(c.pod.Namespace)
	if c.All {
		b.WriteByte('*')
	}
	for i := range c.List {
		t := &c.List[i]
		b.WriteString("|" + t.Key + "|" + t.Selector.String() + "|" + string(t.affinity) + string(t.taints) + string(rune('0'+t.MaxSkew)))
	}
	return b.String()
}

// Lacks reports whether the node has not all topology keys that it must have.
func (c *Constraints) Lacks(n *fw.NodeInfo) bool {
	if !c.All {
		return false
	}
	for i := range c.List {
		if _, ok := n.Node.Labels[c.List[i].Key]; !ok {
			return true
		}
	}
	return false
}

// Counts reports whether a node's pods count for the constraint.
func (c *Constraints) Counts(t *Constraint, n *fw.NodeInfo) bool {
	if t.affinity == v1.NodeInclusionPolicyHonor && selects(c.pod) {
		if ok, _ := c.required.Match(n.Node); !ok {
			return false
		}
	}
	return t.taints != v1.NodeInclusionPolicyHonor || toleratesAll(c.pod, n.Node)
}

// spread is the state of the filter: matching pods by the domains of each
// constraint.
type spread struct {
	*Constraints
	counts []map[string]int
}

// Clone implements framework.StateData.
func (s *spread) Clone() fw.StateData {
	c := &spread{Constraints: s.Constraints, counts: make([]map[string]int, len(s.counts))}
	for i, m := range s.counts {
		c.counts[i] = maps.Clone(m)
	}
	return c
}

const (
	spreadKey      = "PodTopologySpread/filter"
	spreadScoreKey = "PodTopologySpread/score"
)

// PreFilter implements framework.PreFilterPlugin.
func (p PodTopologySpread) PreFilter(_ context.Context, state *fw.CycleState, pod *v1.Pod) (sets.Set[string], *fw.Status) {
	if len(pod.Spec.TopologySpreadConstraints) == 0 {
		return nil, fw.NewStatus(fw.Skip)
	}
	hard, err := parse(pod, v1.DoNotSchedule)
	if err != nil {
		return nil, fw.AsStatus(err)
	}
	if hard == nil {
		return nil, fw.NewStatus(fw.Skip)
	}
	s := &spread{Constraints: hard, counts: make([]map[string]int, len(hard.List))}
	for i := range s.counts {
		s.counts[i] = map[string]int{}
	}
	for _, n := range p.View.Nodes() {
		if hard.Lacks(n) {
			continue
		}
		for i := range hard.List {
			if c := &hard.List[i]; hard.Counts(c, n) {
				s.counts[i][n.Node.Labels[c.Key]] += c.Matching(pod.Namespace, n)
			}
		}
	}
	state.Write(spreadKey, s)
	return nil, nil
}

// AddPod implements framework.PreFilterExtensions.
func (p PodTopologySpread) AddPod(_ context.Context, state *fw.CycleState, pod *v1.Pod, other *fw.PodInfo, n *fw.NodeInfo) {
	p.change(state, pod, other, n, 1)
}

// RemovePod implements framework.PreFilterExtensions.
func (p PodTopologySpread) RemovePod(_ context.Context, state *fw.CycleState, pod *v1.Pod, other *fw.PodInfo, n *fw.NodeInfo) {
	p.change(state, pod, other, n, -1)
}

func (PodTopologySpread) change(state *fw.CycleState, pod *v1.Pod, other *fw.PodInfo, n *fw.NodeInfo, sign int) {
	s, ok := state.Read(spreadKey).(*spread)
	if !ok || other.Pod.Namespace != pod.Namespace || other.Pod.DeletionTimestamp != nil || s.Lacks(n) {
		return
	}
	for i := range s.List {
		if c := &s.List[i]; !c.Selector.Empty() && c.Selector.Matches(labels.Set(other.Pod.Labels)) && s.Counts(c, n) {
			s.counts[i][n.Node.Labels[c.Key]] += sign
		}
	}
}

// Filter implements framework.FilterPlugin.
func (p PodTopologySpread) Filter(_ context.Context, state *fw.CycleState, pod *v1.Pod, n *fw.NodeInfo) *fw.Status {
	s, ok := state.Read(spreadKey).(*spread)
	if !ok {
		return nil
	}
	for i := range s.List {
		c := &s.List[i]
		d, ok := n.Node.Labels[c.Key]
		if !ok {
			return fw.NewStatus(fw.UnschedulableAndUnresolvable, "node(s) didn't match pod topology spread constraints (missing required label)")
		}
		counts, least := s.counts[i], math.MaxInt
		for _, v := range counts {
			least = min(least, v)
		}
		if len(counts) < int(c.minDomains) {
			least = 0
		}
		self := 0
		if c.Selector.Matches(labels.Set(pod.Labels)) {
			self = 1
		}
		if counts[d]+self-least > int(c.MaxSkew) {
			return fw.NewStatus(fw.Unschedulable, "node(s) didn't match pod topology spread constraints")
		}
	}
	return nil
}

// spreadScore is the state of the score.
type spreadScore struct {
	*Constraints
	counts []map[string]int // by constraint, then by domain with a node that fits
	sizes  []int
}

// Clone implements framework.StateData: nothing changes it.
func (s *spreadScore) Clone() fw.StateData { return s }

// PreScore implements framework.PreScorePlugin.
func (p PodTopologySpread) PreScore(_ context.Context, state *fw.CycleState, pod *v1.Pod, nodes []*fw.NodeInfo) *fw.Status {
	soft, err := p.Soft(pod)
	if err != nil {
		return fw.AsStatus(err)
	}
	if soft == nil {
		return fw.NewStatus(fw.Skip)
	}
	s := &spreadScore{Constraints: soft, counts: make([]map[string]int, len(soft.List)), sizes: make([]int, len(soft.List))}
	hosts := 0
	for i := range s.counts {
		s.counts[i] = map[string]int{}
	}
	for _, n := range nodes {
		if soft.Lacks(n) {
			continue
		}
		hosts++
		for i := range soft.List {
			if c := &soft.List[i]; !c.PerNode() {
				s.counts[i][n.Node.Labels[c.Key]] = 0
			}
		}
	}
	shared := false
	for i := range soft.List {
		if s.sizes[i] = len(s.counts[i]); soft.List[i].PerNode() {
			s.sizes[i] = hosts
		} else {
			shared = true
		}
	}
	if shared {
		for _, n := range p.View.Nodes() {
			if soft.Lacks(n) {
				continue
			}
			for i := range soft.List {
				c := &soft.List[i]
				d := n.Node.Labels[c.Key]
				if have, ok := s.counts[i][d]; ok && soft.Counts(c, n) {
					s.counts[i][d] = have + c.Matching(pod.Namespace, n)
				}
			}
		}
	}
	state.Write(spreadScoreKey, s)
	return nil
}

// Score implements framework.ScorePlugin: the fewer matching pods in the
// node's domains, the better; NormalizeScore turns it round.
func (p PodTopologySpread) Score(_ context.Context, state *fw.CycleState, pod *v1.Pod, n *fw.NodeInfo) (int64, *fw.Status) {
	s, ok := state.Read(spreadScoreKey).(*spreadScore)
	if !ok || s.Lacks(n) {
		return 0, nil
	}
	score := 0.0
	for i := range s.List {
		c := &s.List[i]
		if d, ok := n.Node.Labels[c.Key]; ok {
			count := s.counts[i][d]
			if c.PerNode() {
				count = c.Matching(pod.Namespace, n)
			}
			score += c.Score(count, s.sizes[i])
		}
	}
	return int64(math.Round(score)), nil
}

// NormalizeScore implements framework.ScoreNormalizer.
func (p PodTopologySpread) NormalizeScore(_ context.Context, state *fw.CycleState, _ *v1.Pod, nodes []*fw.NodeInfo, scores []int64) {
	s, ok := state.Read(spreadScoreKey).(*spreadScore)
	if !ok {
		return
	}
	least, most := int64(math.MaxInt64), int64(0)
	for i, n := range nodes {
		if !s.Lacks(n) {
			least, most = min(least, scores[i]), max(most, scores[i])
		}
	}
	for i, n := range nodes {
		if s.Lacks(n) {
			scores[i] = 0
		} else {
			scores[i] = NormalizeSpread(scores[i], least, most)
		}
	}
}

// NormalizeSpread turns a raw score round, given the least and the most of all.
func NormalizeSpread(score, least, most int64) int64 {
	if most == 0 {
		return fw.MaxNodeScore
	}
	return fw.MaxNodeScore * (most + least - score) / most
}

// EventsToRegister implements framework.EnqueueExtensions.
func (p PodTopologySpread) EventsToRegister() []fw.EventHint {
	return []fw.EventHint{
		{Events: fw.AssignedPodAdd | fw.AssignedPodDelete | fw.AssignedPodUpdateLabel, Hint: func(pod *v1.Pod, _ fw.Event, old, o any) bool {
			for _, other := range []any{old, o} {
				if q, ok := other.(*v1.Pod); ok && q != nil && q.Namespace == pod.Namespace && spreads(pod, q) {
					return true
				}
			}
			return false
		}},
		{Events: fw.NodeAdd | fw.NodeDelete | fw.NodeUpdateLabel | fw.NodeUpdateTaint, Hint: func(pod *v1.Pod, _ fw.Event, old, o any) bool {
			for _, n := range []any{old, o} {
				if n, ok := n.(*v1.Node); ok && n != nil && hasKeys(pod, n) {
					return true
				}
			}
			return false
		}},
		{Events: fw.PodUpdateLabel},
	}
}

// spreads reports whether a hard constraint of pod counts other.
func spreads(pod, other *v1.Pod) bool {
	hard, err := parse(pod, v1.DoNotSchedule)
	if err != nil || hard == nil {
		return true
	}
	for i := range hard.List {
		if hard.List[i].Selector.Matches(labels.Set(other.Labels)) {
			return true
		}
	}
	return false
}

func hasKeys(pod *v1.Pod, n *v1.Node) bool {
	hard, err := parse(pod, v1.DoNotSchedule)
	return err != nil || hard == nil || !hard.Lacks(&fw.NodeInfo{Node: n})
}
