package clusterautoscaler

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/labels"
	resourcehelpers "k8s.io/component-helpers/resource"
)

// candidate is a node that may be unneeded.
type candidate struct {
	group       *group
	node        *v1.Node
	ready       bool
	pods        []*v1.Pod // the pods to be moved
	utilization utilization
}

// down finds unneeded nodes, and removes those that have been unneeded for long
// enough.
func (a *autoscaler) down(ctx context.Context, v *view) {
	budgets, err := a.budgets.List(labels.Everything())
	if err != nil {
		return
	}
	unneeded := a.find(ctx, v, a.candidates(v, budgets))
	since := make(map[string]time.Time, len(unneeded))
	for _, c := range unneeded {
		t, ok := a.unneeded[c.node.Name]
		if !ok {
			t = v.now
		}
		since[c.node.Name] = t
	}
	a.unneeded = since
	a.mu.Lock()
	all, drains := len(a.removing), 0
	removing := map[*group]int{}
	for name, pods := range a.removing {
		if pods {
			drains++
		}
		removing[v.of[name]]++
	}
	cooling := v.now.Sub(a.added) < a.DelayAfterAdd && !a.added.IsZero() || v.now.Sub(a.failed) < a.DelayAfterFailure && !a.failed.IsZero()
	a.mu.Unlock()
	if cooling {
		return
	}
	removed := false
	for _, c := range unneeded {
		g := c.group
		wait := g.options.UnneededTime
		if !c.ready {
			wait = g.options.UnreadyTime
		}
		if v.now.Sub(a.unneeded[c.node.Name]) < wait || g.target-removing[g] <= g.Least() {
			continue
		}
		if all >= a.Parallelism || len(c.pods) > 0 && drains >= a.Drains {
			continue
		}
		all++
		removing[g]++
		if len(c.pods) > 0 {
			drains++
		}
		delete(a.unneeded, c.node.Name)
		removed = true
		a.remove(ctx, c)
	}
	if !removed {
		a.soften(ctx, v)
	}
}

// candidates returns the nodes whose pods may all be moved, the emptiest first.
func (a *autoscaler) candidates(v *view, budgets []*policy.PodDisruptionBudget) (out []*candidate) {
	for i, n := range slices.Concat(v.nodes, v.unready) {
		g := v.of[n.Name]
		a.mu.Lock()
		_, going := a.removing[n.Name]
		a.mu.Unlock()
		if g == nil || going || v.awaited[n.Name] || g.target <= g.Least() || n.Annotations[scaleDownDisabled] == "true" {
			continue
		}
		c := &candidate{group: g, node: n, ready: i < len(v.nodes), utilization: utilize(n, v.byNode[n.Name])}
		if c.utilization.most >= g.options.Utilization {
			continue
		}
		blocked := slices.ContainsFunc(v.byNode[n.Name], func(p *v1.Pod) bool {
			if stays(p) {
				return false
			}
			c.pods = append(c.pods, p)
			return a.blocks(p, budgets) != ""
		})
		if !blocked {
			out = append(out, c)
		}
	}
	slices.SortStableFunc(out, func(x, y *candidate) int {
		return cmp.Or(cmp.Compare(min(len(x.pods), 1), min(len(y.pods), 1)), cmp.Compare(x.utilization.most, y.utilization.most))
	})
	return out
}

// find returns the candidates that can be removed together: the scheduler finds room
// for their pods on nodes that stay.
func (a *autoscaler) find(ctx context.Context, v *view, candidates []*candidate) (out []*candidate) {
	received := map[string]bool{} // nodes that pods would be moved to
	for _, c := range candidates {
		if received[c.node.Name] {
			continue
		}
		all := v.byNode[c.node.Name]
		for _, p := range all {
			a.sim.Remove(p)
		}
		a.sim.RemoveNode(c.node.Name)
		moved := make(map[*v1.Pod]string, len(c.pods))
		fits := true
		for _, p := range c.pods {
			loose := p.DeepCopy()
			loose.Spec.NodeName = ""
			node, err := a.sim.Place(ctx, loose)
			if fits = err == nil; !fits {
				break
			}
			moved[p] = node
		}
		if fits {
			for _, node := range moved {
				received[node] = true
			}
			out = append(out, c)
			continue
		}
		for p := range moved {
			a.sim.Remove(p) // by its UID
		}
		if c.ready {
			a.sim.AddNode(c.node)
		}
		for _, p := range all {
			a.sim.Put(p, c.node.Name)
		}
	}
	return out
}

// utilization is the share of a node's CPU and memory that its pods request, and the
// greater of the two.
type utilization struct {
	cpu, memory, most float64
}

// String formats a utilization as upstream's events have it.
func (u utilization) String() string {
	name := v1.ResourceMemory
	if u.cpu > u.memory {
		name = v1.ResourceCPU
	}
	return fmt.Sprintf("{%v %v 0 0 %s %v}", u.cpu, u.memory, name, u.most)
}

func utilize(n *v1.Node, pods []*v1.Pod) utilization {
	share := func(name v1.ResourceName) float64 {
		has := n.Status.Allocatable[name]
		if has.IsZero() {
			return 0
		}
		var used resource.Quantity
		for _, p := range pods {
			used.Add(resourcehelpers.PodRequests(p, resourcehelpers.PodResourcesOptions{})[name])
		}
		return float64(used.MilliValue()) / float64(has.MilliValue())
	}
	u := utilization{cpu: share(v1.ResourceCPU), memory: share(v1.ResourceMemory)}
	u.most = max(u.cpu, u.memory)
	return u
}
