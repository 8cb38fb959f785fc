package plugins

import (
	"context"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/sets"

	fw "keelson.dev/keelson/internal/scheduler/framework"
)

// InterPodAffinity places pods near to, or far from, other pods.
type InterPodAffinity struct {
	View fw.View
	// NamespaceLabels gives the labels of a namespace.
	NamespaceLabels func(string) labels.Set
}

// Name implements framework.Plugin.
func (InterPodAffinity) Name() string { return "InterPodAffinity" }

type domain struct{ key, value string }

type interPod struct {
	terms *fw.PodAffinityTerms
	// existing are the domains from which a pod there bans this one.
	existing map[domain]int
	// near and far are the domains with pods that match all required affinity
	// terms, and any required anti-affinity term.
	near, far map[domain]int
	scores    map[domain]int64
}

// Clone implements framework.StateData.
func (s *interPod) Clone() fw.StateData { c := *s; return &c }

const interPodKey = "InterPodAffinity"

func count(m map[domain]int, n *fw.NodeInfo, key string) {
	if v, ok := n.Node.Labels[key]; ok {
		m[domain{key, v}]++
	}
}

// PreFilter implements framework.PreFilterPlugin.
func (p InterPodAffinity) PreFilter(_ context.Context, state *fw.CycleState, pod *v1.Pod) (sets.Set[string], *fw.Status) {
	s := &interPod{terms: fw.ParseAffinity(pod), existing: map[domain]int{}, near: map[domain]int{}, far: map[domain]int{}, scores: map[domain]int64{}}
	if s.terms != nil && s.terms.Err != nil {
		return nil, fw.NewStatus(fw.UnschedulableAndUnresolvable, s.terms.Err.Error())
	}
	others := false
	add := func(n *fw.NodeInfo, key string, w int64) {
		if v, ok := n.Node.Labels[key]; ok {
			s.scores[domain{key, v}] += w
		}
	}
	p.View.NodesWithAffinity(func(n *fw.NodeInfo) {
		for _, other := range n.Pods {
			if other.Affinity == nil {
				continue
			}
			others = true
			for i := range other.Affinity.RequiredAnti {
				if t := &other.Affinity.RequiredAnti[i]; t.Matches(pod, p.NamespaceLabels) {
					count(s.existing, n, t.TopologyKey)
				}
			}
			for i := range other.Affinity.Required {
				if t := &other.Affinity.Required[i]; t.Matches(pod, p.NamespaceLabels) {
					add(n, t.TopologyKey, 1) // upstream's hardPodAffinityWeight
				}
			}
			for i := range other.Affinity.Preferred {
				if t := &other.Affinity.Preferred[i]; t.Matches(pod, p.NamespaceLabels) {
					add(n, t.TopologyKey, int64(t.Weight))
				}
			}
			for i := range other.Affinity.PreferredAnti {
				if t := &other.Affinity.PreferredAnti[i]; t.Matches(pod, p.NamespaceLabels) {
					add(n, t.TopologyKey, -int64(t.Weight))
				}
			}
		}
	})
	if s.terms == nil && !others {
		return nil, fw.NewStatus(fw.Skip)
	}
	if t := s.terms; t != nil {
		for _, n := range p.View.Nodes() {
			for _, other := range n.Pods {
				all := len(t.Required) > 0
				for i := range t.Required {
					all = all && t.Required[i].Matches(other.Pod, p.NamespaceLabels)
				}
				if all {
					for i := range t.Required {
						count(s.near, n, t.Required[i].TopologyKey)
					}
				}
				for i := range t.RequiredAnti {
					if t.RequiredAnti[i].Matches(other.Pod, p.NamespaceLabels) {
						count(s.far, n, t.RequiredAnti[i].TopologyKey)
					}
				}
				for i := range t.Preferred {
					if t.Preferred[i].Matches(other.Pod, p.NamespaceLabels) {
						add(n, t.Preferred[i].TopologyKey, int64(t.Preferred[i].Weight))
					}
				}
				for i := range t.PreferredAnti {
					if t.PreferredAnti[i].Matches(other.Pod, p.NamespaceLabels) {
						add(n, t.PreferredAnti[i].TopologyKey, -int64(t.PreferredAnti[i].Weight))
					}
				}
			}
		}
	}
	state.Write(interPodKey, s)
	return nil, nil
}

// Filter implements framework.FilterPlugin.
func (p InterPodAffinity) Filter(_ context.Context, state *fw.CycleState, pod *v1.Pod, n *fw.NodeInfo) *fw.Status {
	s, ok := state.Read(interPodKey).(*interPod)
	if !ok {
		return nil
	}
	if t := s.terms; t != nil && len(t.Required) > 0 {
		fits := true
		for i := range t.Required {
			v, ok := n.Node.Labels[t.Required[i].TopologyKey]
			if !ok {
				return fw.NewStatus(fw.UnschedulableAndUnresolvable, "node(s) didn't match pod affinity rules")
			}
			fits = fits && s.near[domain{t.Required[i].TopologyKey, v}] > 0
		}
		if !fits {
			// The first of a group that wants to be together may go anywhere.
			first := len(s.near) == 0
			for i := range t.Required {
				first = first && t.Required[i].Matches(pod, p.NamespaceLabels)
			}
			if !first {
				return fw.NewStatus(fw.UnschedulableAndUnresolvable, "node(s) didn't match pod affinity rules")
			}
		}
	}
	if t := s.terms; t != nil {
		for i := range t.RequiredAnti {
			if v, ok := n.Node.Labels[t.RequiredAnti[i].TopologyKey]; ok && s.far[domain{t.RequiredAnti[i].TopologyKey, v}] > 0 {
				return fw.NewStatus(fw.Unschedulable, "node(s) didn't match pod anti-affinity rules")
			}
		}
	}
	for d, c := range s.existing {
		if c > 0 && n.Node.Labels[d.key] == d.value {
			return fw.NewStatus(fw.Unschedulable, "node(s) didn't satisfy existing pods anti-affinity rules")
		}
	}
	return nil
}

// Score implements framework.ScorePlugin.
func (p InterPodAffinity) Score(_ context.Context, state *fw.CycleState, _ *v1.Pod, n *fw.NodeInfo) (int64, *fw.Status) {
	s, ok := state.Read(interPodKey).(*interPod)
	if !ok {
		return 0, nil
	}
	var sum int64
	for d, w := range s.scores {
		if v, ok := n.Node.Labels[d.key]; ok && v == d.value {
			sum += w
		}
	}
	return sum, nil
}

// NormalizeScore implements framework.ScoreNormalizer.
func (p InterPodAffinity) NormalizeScore(_ context.Context, _ *fw.CycleState, _ *v1.Pod, _ []*fw.NodeInfo, scores []int64) {
	if len(scores) == 0 {
		return
	}
	least, most := scores[0], scores[0]
	for _, v := range scores {
		least, most = min(least, v), max(most, v)
	}
	for i := range scores {
		if most == least {
			scores[i] = 0
			continue
		}
		scores[i] = fw.MaxNodeScore * (scores[i] - least) / (most - least)
	}
}

// EventsToRegister implements framework.EnqueueExtensions.
func (InterPodAffinity) EventsToRegister() []fw.EventHint {
	return []fw.EventHint{{Events: fw.NodeAdd | fw.NodeUpdateLabel | fw.AssignedPodAdd | fw.AssignedPodDelete | fw.AssignedPodUpdateLabel | fw.NamespaceUpdate}}
}
