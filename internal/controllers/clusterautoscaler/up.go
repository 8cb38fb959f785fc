package clusterautoscaler

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	fw "keelson.dev/keelson/internal/scheduler/framework"
)

// Reasons for which a group is not increased.
const (
	atMost     = "max node group size reached"
	backingOff = "in backoff after failed scale-up"
	unready    = "not ready for scale-up"
)

// option is a possible increase of a group, with the waiting pods that it would
// help.
type option struct {
	group *group
	nodes []*v1.Node
	pods  []*v1.Pod
	on    map[*v1.Pod]string // the new node of each pod
}

// up adds nodes for unschedulable pods, and reports whether it has.
func (a *autoscaler) up(ctx context.Context, v *view, pods []*v1.Pod) (scaled bool) {
	for len(pods) > 0 {
		reasons := map[*v1.Pod]map[string]int{}
		var options []*option
		for _, g := range v.groups {
			why := ""
			switch {
			case g.target >= g.Most():
				why = atMost
			case v.now.Before(a.backoffs[g.ID()].until):
				why = backingOff
			case g.template == nil || !g.healthy:
				why = unready
			}
			if why != "" {
				for _, p := range pods {
					count(reasons, p, why)
				}
				continue
			}
			if o := a.estimate(ctx, g, pods, reasons); len(o.pods) > 0 {
				options = append(options, o)
			}
		}
		if len(options) == 0 {
			a.notTriggered(pods, reasons)
			return scaled
		}
		best := a.expand(ctx, options)
		if !a.increase(ctx, v, best) {
			continue // the group has begun to back off
		}
		scaled = true
		pods = slices.DeleteFunc(pods, func(p *v1.Pod) bool { _, ok := best.on[p]; return ok })
	}
	return scaled
}

func count(reasons map[*v1.Pod]map[string]int, p *v1.Pod, why string) {
	if reasons[p] == nil {
		reasons[p] = map[string]int{}
	}
	reasons[p][why]++
}

// estimate packs pods on new nodes of a group: it adds a node when the scheduler finds
// no room on the earlier ones. It leaves the simulation unchanged.
func (a *autoscaler) estimate(ctx context.Context, g *group, pods []*v1.Pod, reasons map[*v1.Pod]map[string]int) *option {
	o := &option{group: g, on: map[*v1.Pod]string{}}
	room := g.Most() - g.target
	place := func(p *v1.Pod) error {
		node, err := a.sim.Place(ctx, p)
		if err == nil {
			o.pods, o.on[p] = append(o.pods, p), node
		}
		return err
	}
	for _, p := range pods {
		err := place(p)
		if err == nil {
			continue
		}
		if len(o.nodes) == room {
			count(reasons, p, atMost)
			continue
		}
		n := g.node(fmt.Sprintf("%d", g.target+len(o.nodes)))
		a.addNode(g, n)
		if err = place(p); err != nil {
			a.removeNode(g, n)
			for _, why := range refusals(err, n.Name) {
				count(reasons, p, why)
			}
			continue
		}
		o.nodes = append(o.nodes, n)
	}
	for _, p := range o.pods {
		a.sim.Remove(p)
	}
	for _, n := range o.nodes {
		a.removeNode(g, n)
	}
	return o
}

// refusals returns the scheduler's reasons for refusing a node.
func refusals(err error, node string) []string {
	var fit *fw.FitError
	if !errors.As(err, &fit) {
		return []string{err.Error()}
	}
	if fit.Diagnosis.PreFilterMsg != "" {
		return []string{fit.Diagnosis.PreFilterMsg}
	}
	return fit.Diagnosis.Status(node).Reasons()
}

// increase adds the nodes of an option to its group.
func (a *autoscaler) increase(ctx context.Context, v *view, o *option) bool {
	g, n := o.group, len(o.nodes)
	if n > 0 {
		a.event(v1.EventTypeNormal, "ScaledUpGroup", fmt.Sprintf("Scale-up: setting group %s size to %d instead of %d (max: %d)", g.ID(), g.target+n, g.target, g.Most()))
		if err := g.Increase(ctx, n); err != nil {
			klog.FromContext(ctx).Error(err, "Increasing a node group failed", "group", g.ID(), "by", n)
			a.event(v1.EventTypeWarning, "FailedToScaleUpGroup", fmt.Sprintf("Scale-up failed for group %s: %v", g.ID(), err))
			a.backOff(g.ID(), v.now, "cloudProviderError", "failed to increase node group size: "+err.Error())
			return false
		}
		a.event(v1.EventTypeNormal, "ScaledUpGroup", fmt.Sprintf("Scale-up: group %s size set to %d instead of %d (max: %d)", g.ID(), g.target+n, g.target, g.Most()))
		message := fmt.Sprintf("pod triggered scale-up: [{%s %d->%d (max: %d)}]", g.ID(), g.target, g.target+n, g.Most())
		for _, p := range o.pods {
			a.recorder.Event(p, v1.EventTypeNormal, "TriggeredScaleUp", message)
			delete(a.told, p.UID)
		}
		a.growths[g.ID()], a.added = growth{at: v.now, by: a.growths[g.ID()].by + n}, v.now
		g.target += n
	}
	for _, n := range o.nodes {
		a.addNode(g, n)
	}
	for _, p := range o.pods {
		a.sim.Put(p, o.on[p])
	}
	return true
}

// notTriggered records events of the pods that no group helps, when the reasons
// change.
func (a *autoscaler) notTriggered(pods []*v1.Pod, reasons map[*v1.Pod]map[string]int) {
	for _, p := range pods {
		var parts []string
		for _, why := range slices.Sorted(maps.Keys(reasons[p])) {
			parts = append(parts, fmt.Sprintf("%d %s", reasons[p][why], why))
		}
		message := "pod didn't trigger scale-up: " + strings.Join(parts, ", ")
		if a.told[p.UID] == message {
			continue
		}
		a.told[p.UID] = message
		a.recorder.Event(p, v1.EventTypeNormal, "NotTriggerScaleUp", message)
	}
}
