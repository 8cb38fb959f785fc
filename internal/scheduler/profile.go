package scheduler

import (
	"context"
	"fmt"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"

	fw "keelson.dev/keelson/internal/scheduler/framework"
	"keelson.dev/keelson/internal/scheduler/plugins"
)

// role is how the score of a plugin is shared by the pods of a class.
type role uint8

const (
	local       role = iota // a matter of node and pod
	byTaints                // normalized by the most of all nodes
	byAffinity              // the same
	fromDomains             // depends on the pods in the node's domains
)

// weighted is a score plugin with its weight.
type weighted struct {
	fw.ScorePlugin
	weight int64
	role   role
	max    fw.MaxNormalizer
}

// profile is the plugins, in the order in which they run: upstream's default
// ones with their default weights.
type profile struct {
	preFilters []fw.PreFilterPlugin
	filters    []fw.FilterPlugin
	// wide are the filters that depend on more than the node.
	wide     []fw.FilterPlugin
	scores   []weighted
	reserves []fw.ReservePlugin
	preBinds []fw.PreBindPlugin
	posts    []fw.PostFilterPlugin

	spread   plugins.PodTopologySpread
	interPod plugins.InterPodAffinity
	images   plugins.ImageLocality
	volumes  *plugins.Volumes
	devices  *plugins.DynamicResources
	localMax int64 // the best sum of the local scores
}

// newProfile puts plugins together. all are in upstream's order.
func newProfile(all []fw.Plugin, weights map[string]int64) *profile {
	p := &profile{}
	for _, pl := range all {
		switch t := pl.(type) {
		case plugins.PodTopologySpread:
			p.spread = t
		case plugins.InterPodAffinity:
			p.interPod = t
		case plugins.ImageLocality:
			p.images = t
		}
		_, isLocal := pl.(fw.NodeLocal)
		if t, ok := pl.(fw.PreFilterPlugin); ok {
			p.preFilters = append(p.preFilters, t)
		}
		if t, ok := pl.(fw.FilterPlugin); ok {
			p.filters = append(p.filters, t)
			if !isLocal {
				p.wide = append(p.wide, t)
			}
		}
		if t, ok := pl.(fw.ReservePlugin); ok {
			p.reserves = append(p.reserves, t)
		}
		if t, ok := pl.(fw.PreBindPlugin); ok {
			p.preBinds = append(p.preBinds, t)
		}
		if t, ok := pl.(fw.PostFilterPlugin); ok {
			p.posts = append(p.posts, t)
		}
		t, ok := pl.(fw.ScorePlugin)
		if !ok {
			continue
		}
		w := weighted{ScorePlugin: t, weight: weights[t.Name()]}
		switch t.(type) {
		case plugins.TaintToleration:
			w.role = byTaints
		case plugins.NodeAffinity:
			w.role = byAffinity
		case plugins.PodTopologySpread, plugins.InterPodAffinity:
			w.role = fromDomains
		default:
			p.localMax += w.weight * fw.MaxNodeScore
		}
		w.max, _ = pl.(fw.MaxNormalizer)
		p.scores = append(p.scores, w)
	}
	return p
}

// hints returns the events that may help a pod, by the plugin that refused it.
func (p *profile) hints() map[string][]fw.EventHint {
	out := map[string][]fw.EventHint{}
	for _, f := range p.filters {
		if e, ok := f.(fw.EnqueueExtensions); ok {
			out[f.Name()] = e.EventsToRegister()
		}
	}
	return out
}

// preFilter runs the PreFilter plugins. A nil set of names means all nodes.
func (p *profile) preFilter(ctx context.Context, state *fw.CycleState, pod *v1.Pod, d *fw.Diagnosis) (names sets.Set[string], st *fw.Status) {
	var limiting []string
	for _, pl := range p.preFilters {
		only, st := pl.PreFilter(ctx, state, pod)
		switch {
		case st.IsSkip():
			state.SkipFilter = append(state.SkipFilter, pl.Name())
			continue
		case st.IsRejected():
			d.UnschedulablePlugins.Insert(pl.Name())
			return nil, st.WithPlugin(pl.Name())
		case !st.IsSuccess():
			return nil, fw.AsStatus(fmt.Errorf("running PreFilter plugin %q: %w", pl.Name(), st.AsError()))
		}
		if only == nil {
			continue
		}
		limiting = append(limiting, pl.Name())
		if names == nil {
			names = only
		} else if names = names.Intersection(only); names.Len() == 0 {
			d.UnschedulablePlugins.Insert(limiting...)
			return nil, fw.NewStatus(fw.UnschedulableAndUnresolvable,
				fmt.Sprintf("node(s) didn't satisfy plugin(s) %v simultaneously", sets.List(sets.New(limiting...))))
		}
	}
	if names != nil {
		d.UnschedulablePlugins.Insert(limiting...)
		d.Absent = fw.NewStatus(fw.UnschedulableAndUnresolvable, fmt.Sprintf("node(s) didn't satisfy plugin(s) %v", sets.List(sets.New(limiting...))))
	}
	return names, nil
}

// filter runs the Filter plugins for a node.
func (p *profile) filter(ctx context.Context, state *fw.CycleState, pod *v1.Pod, n *fw.NodeInfo) *fw.Status {
	for _, pl := range p.filters {
		if state.SkipFilter.Has(pl.Name()) {
			continue
		}
		if st := pl.Filter(ctx, state, pod, n); !st.IsSuccess() {
			return st.WithPlugin(pl.Name())
		}
	}
	return nil
}

// addPod and removePod tell the PreFilter plugins of a what-if.
func (p *profile) addPod(ctx context.Context, state *fw.CycleState, pod *v1.Pod, other *fw.PodInfo, n *fw.NodeInfo) {
	for _, pl := range p.preFilters {
		if x, ok := pl.(fw.PreFilterExtensions); ok && !state.SkipFilter.Has(pl.Name()) {
			x.AddPod(ctx, state, pod, other, n)
		}
	}
}

func (p *profile) removePod(ctx context.Context, state *fw.CycleState, pod *v1.Pod, other *fw.PodInfo, n *fw.NodeInfo) {
	for _, pl := range p.preFilters {
		if x, ok := pl.(fw.PreFilterExtensions); ok && !state.SkipFilter.Has(pl.Name()) {
			x.RemovePod(ctx, state, pod, other, n)
		}
	}
}

// preScore runs the PreScore plugins.
func (p *profile) preScore(ctx context.Context, state *fw.CycleState, pod *v1.Pod, nodes []*fw.NodeInfo) error {
	for i := range p.scores {
		pl, ok := p.scores[i].ScorePlugin.(fw.PreScorePlugin)
		if !ok {
			continue
		}
		switch st := pl.PreScore(ctx, state, pod, nodes); {
		case st.IsSkip():
			state.SkipScore = append(state.SkipScore, pl.Name())
		case !st.IsSuccess():
			return fmt.Errorf("running PreScore plugin %q: %w", pl.Name(), st.AsError())
		}
	}
	return nil
}

// score returns the nodes' totals.
func (p *profile) score(ctx context.Context, state *fw.CycleState, pod *v1.Pod, nodes []*fw.NodeInfo) ([]int64, error) {
	if err := p.preScore(ctx, state, pod, nodes); err != nil {
		return nil, err
	}
	totals := make([]int64, len(nodes))
	scores := make([]int64, len(nodes))
	for i := range p.scores {
		s := &p.scores[i]
		if state.SkipScore.Has(s.Name()) {
			continue
		}
		for i, n := range nodes {
			v, st := s.Score(ctx, state, pod, n)
			if !st.IsSuccess() {
				return nil, scoreError(s.Name(), st)
			}
			scores[i] = v
		}
		if nz, ok := s.ScorePlugin.(fw.ScoreNormalizer); ok {
			nz.NormalizeScore(ctx, state, pod, nodes, scores)
		}
		for i := range totals {
			totals[i] += scores[i] * s.weight
		}
	}
	return totals, nil
}

func filterError(st *fw.Status) error {
	return fmt.Errorf("running Filter plugin %q: %w", st.Plugin(), st.AsError())
}

func scoreError(plugin string, st *fw.Status) error {
	return fmt.Errorf("running Score plugin %q: %w", plugin, st.AsError())
}
