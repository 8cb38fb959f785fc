package plugins

import (
	"context"
	"maps"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/sets"

	fw "keelson.dev/keelson/internal/scheduler/framework"
)

// InterPodAffinity places pods near to, or far from, other pods.
type InterPodAffinity struct {
	View fw.View
	// NamespaceLabels returns the labels of a namespace.
	NamespaceLabels func(string) labels.Set
}

// Name implements framework.Plugin.
func (InterPodAffinity) Name() string { return "InterPodAffinity" }

type domain struct{ key, value string }

// interPod is the state of the filter.
type interPod struct {
	terms *fw.PodAffinityTerms
	// existing are the domains from which an existing pod's anti-affinity excludes
	// this one.
	existing map[domain]int
	// near and far are the domains with pods that match all required affinity
	// terms, and any required anti-affinity term.
	near, far map[domain]int
}

// Clone implements framework.StateData.
func (s *interPod) Clone() fw.StateData {
	return &interPod{terms: s.terms, existing: maps.Clone(s.existing), near: maps.Clone(s.near), far: maps.Clone(s.far)}
}

// interPodScores is the state of the score: the sum of weights by domain.
type interPodScores map[domain]int64

// Clone implements framework.StateData: nothing changes it.
func (s interPodScores) Clone() fw.StateData { return s }

const (
	interPodKey      = "InterPodAffinity/filter"
	interPodScoreKey = "InterPodAffinity/score"
)

func count(m map[domain]int, n *fw.NodeInfo, key string, sign int) {
	if v, ok := n.Node.Labels[key]; ok {
		d := domain{key, v}
		if m[d] += sign; m[d] == 0 {
			delete(m, d)
		}
	}
}

// change adds a pod on a node to the state, or removes it.
func (p InterPodAffinity) change(s *interPod, pod *v1.Pod, other *fw.PodInfo, n *fw.NodeInfo, sign int) {
	if a := other.Affinity; a != nil {
		for i := range a.RequiredAnti {
			if t := &a.RequiredAnti[i]; t.Matches(pod, p.NamespaceLabels) {
				count(s.existing, n, t.TopologyKey, sign)
			}
		}
	}
	if t := s.terms; t != nil {
		if p.matchesAll(t.Required, other.Pod) {
			for i := range t.Required {
				count(s.near, n, t.Required[i].TopologyKey, sign)
			}
		}
		for i := range t.RequiredAnti {
			if t.RequiredAnti[i].Matches(other.Pod, p.NamespaceLabels) {
				count(s.far, n, t.RequiredAnti[i].TopologyKey, sign)
			}
		}
	}
}

func (p InterPodAffinity) matchesAll(terms []fw.AffinityTerm, pod *v1.Pod) bool {
	for i := range terms {
		if !terms[i].Matches(pod, p.NamespaceLabels) {
			return false
		}
	}
	return len(terms) > 0
}

// PreFilter implements framework.PreFilterPlugin.
func (p InterPodAffinity) PreFilter(_ context.Context, state *fw.CycleState, pod *v1.Pod) (sets.Set[string], *fw.Status) {
	terms := fw.ParseAffinity(pod)
	if terms != nil && terms.Err != nil {
		return nil, fw.NewStatus(fw.UnschedulableAndUnresolvable, terms.Err.Error())
	}
	own := terms != nil && len(terms.Required)+len(terms.RequiredAnti) > 0
	if !own && !p.View.AnyAffinity() {
		return nil, fw.NewStatus(fw.Skip)
	}
	s := &interPod{terms: terms, existing: map[domain]int{}, near: map[domain]int{}, far: map[domain]int{}}
	add := func(n *fw.NodeInfo) {
		for _, other := range n.Pods {
			p.change(s, pod, other, n, 1)
		}
	}
	if own {
		for _, n := range p.View.Nodes() {
			add(n)
		}
	} else {
		p.View.NodesWithAffinity(add)
		if len(s.existing) == 0 {
			return nil, fw.NewStatus(fw.Skip)
		}
	}
	state.Write(interPodKey, s)
	return nil, nil
}

// AddPod implements framework.PreFilterExtensions.
func (p InterPodAffinity) AddPod(_ context.Context, state *fw.CycleState, pod *v1.Pod, other *fw.PodInfo, n *fw.NodeInfo) {
	if s, ok := state.Read(interPodKey).(*interPod); ok {
		p.change(s, pod, other, n, 1)
	}
}

// RemovePod implements framework.PreFilterExtensions.
func (p InterPodAffinity) RemovePod(_ context.Context, state *fw.CycleState, pod *v1.Pod, other *fw.PodInfo, n *fw.NodeInfo) {
	if s, ok := state.Read(interPodKey).(*interPod); ok {
		p.change(s, pod, other, n, -1)
	}
}

// Filter implements framework.FilterPlugin.
func (p InterPodAffinity) Filter(_ context.Context, state *fw.CycleState, pod *v1.Pod, n *fw.NodeInfo) *fw.Status {
	s, ok := state.Read(interPodKey).(*interPod)
	if !ok {
		return nil
	}
	if t := s.terms; t != nil {
		fits := true
		for i := range t.Required {
			v, ok := n.Node.Labels[t.Required[i].TopologyKey]
			if !ok {
				return fw.NewStatus(fw.UnschedulableAndUnresolvable, "node(s) didn't match pod affinity rules")
			}
			fits = fits && s.near[domain{t.Required[i].TopologyKey, v}] > 0
		}
		// The first pod of a group with affinity to itself may go anywhere.
		if !fits && (len(s.near) > 0 || !p.matchesAll(t.Required, pod)) {
			return fw.NewStatus(fw.UnschedulableAndUnresolvable, "node(s) didn't match pod affinity rules")
		}
		for i := range t.RequiredAnti {
			if v, ok := n.Node.Labels[t.RequiredAnti[i].TopologyKey]; ok && s.far[domain{t.RequiredAnti[i].TopologyKey, v}] > 0 {
				return fw.NewStatus(fw.Unschedulable, "node(s) didn't match pod anti-affinity rules")
			}
		}
	}
	if len(s.existing) > 0 {
		for k, v := range n.Node.Labels {
			if s.existing[domain{k, v}] > 0 {
				return fw.NewStatus(fw.Unschedulable, "node(s) didn't satisfy existing pods anti-affinity rules")
			}
		}
	}
	return nil
}

// PreScore implements framework.PreScorePlugin.
func (p InterPodAffinity) PreScore(_ context.Context, state *fw.CycleState, pod *v1.Pod, _ []*fw.NodeInfo) *fw.Status {
	terms := fw.ParseAffinity(pod)
	own := terms != nil && len(terms.Preferred)+len(terms.PreferredAnti) > 0
	if !own && !p.View.AnyAffinity() {
		return fw.NewStatus(fw.Skip)
	}
	scores := interPodScores{}
	weigh := func(n *fw.NodeInfo, of []fw.AffinityTerm, pod *v1.Pod, weight func(*fw.AffinityTerm) int64) {
		for i := range of {
			t := &of[i]
			if v, ok := n.Node.Labels[t.TopologyKey]; ok && t.Matches(pod, p.NamespaceLabels) {
				scores[domain{t.TopologyKey, v}] += weight(t)
			}
		}
	}
	preferred := func(t *fw.AffinityTerm) int64 { return int64(t.Weight) }
	avoided := func(t *fw.AffinityTerm) int64 { return -int64(t.Weight) }
	hard := func(*fw.AffinityTerm) int64 { return 1 } // the default hardPodAffinityWeight
	add := func(n *fw.NodeInfo) {
		for _, other := range n.Pods {
			if a := other.Affinity; a != nil {
				weigh(n, a.Required, pod, hard)
				weigh(n, a.Preferred, pod, preferred)
				weigh(n, a.PreferredAnti, pod, avoided)
			}
			if own {
				weigh(n, terms.Preferred, other.Pod, preferred)
				weigh(n, terms.PreferredAnti, other.Pod, avoided)
			}
		}
	}
	if own {
		for _, n := range p.View.Nodes() {
			add(n)
		}
	} else {
		p.View.NodesWithAffinity(add)
	}
	if len(scores) == 0 {
		return fw.NewStatus(fw.Skip)
	}
	state.Write(interPodScoreKey, scores)
	return nil
}

// Score implements framework.ScorePlugin.
func (p InterPodAffinity) Score(_ context.Context, state *fw.CycleState, _ *v1.Pod, n *fw.NodeInfo) (int64, *fw.Status) {
	s, ok := state.Read(interPodScoreKey).(interPodScores)
	if !ok {
		return 0, nil
	}
	var sum int64
	for k, v := range n.Node.Labels {
		sum += s[domain{k, v}]
	}
	return sum, nil
}

// NormalizeScore implements framework.ScoreNormalizer.
func (p InterPodAffinity) NormalizeScore(_ context.Context, _ *fw.CycleState, _ *v1.Pod, _ []*fw.NodeInfo, scores []int64) {
	if len(scores) == 0 {
		return
	}
	least, most := slices.Min(scores), slices.Max(scores)
	for i := range scores {
		if most == least {
			scores[i] = 0
			continue
		}
		scores[i] = int64(float64(fw.MaxNodeScore) * (float64(scores[i]-least) / float64(most-least)))
	}
}

// EventsToRegister implements framework.EnqueueExtensions.
func (p InterPodAffinity) EventsToRegister() []fw.EventHint {
	return []fw.EventHint{
		{Events: fw.AssignedPodAdd | fw.AssignedPodDelete | fw.AssignedPodUpdateLabel, Hint: func(pod *v1.Pod, e fw.Event, old, o any) bool {
			for _, other := range []any{old, o} {
				if q, ok := other.(*v1.Pod); ok && q != nil && p.concerns(pod, q) {
					return true
				}
			}
			return false
		}},
		{Events: fw.NodeAdd | fw.NodeUpdateLabel | fw.NamespaceUpdate | fw.PodUpdateLabel},
	}
}

// concerns reports whether a required term of one of the pods selects the other.
func (p InterPodAffinity) concerns(pod, other *v1.Pod) bool {
	any := func(terms []fw.AffinityTerm, of *v1.Pod) bool {
		return slices.ContainsFunc(terms, func(t fw.AffinityTerm) bool { return t.Matches(of, p.NamespaceLabels) })
	}
	if t := fw.ParseAffinity(pod); t != nil && (any(t.Required, other) || any(t.RequiredAnti, other)) {
		return true
	}
	t := fw.ParseAffinity(other)
	return t != nil && any(t.RequiredAnti, pod)
}
