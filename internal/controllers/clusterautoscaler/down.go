package clusterautoscaler

import (
	"cmp"
	"context"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/labels"
	resourcehelpers "k8s.io/component-helpers/resource"
)

// candidate is a node that may be unneeded.
type candidate struct {
	group       *group
	node        *v1.Node
	pods        []*v1.Pod // the pods to be moved
	utilization float64
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
	cooling := v.now.Sub(a.added) < a.DelayAfterAdd && !a.added.IsZero() || v.now.Sub(a.failed) < delayAfterFailure && !a.failed.IsZero()
	a.mu.Unlock()
	if cooling {
		return
	}
	for _, c := range unneeded {
		g := c.group
		if v.now.Sub(a.unneeded[c.node.Name]) < g.options.UnneededTime || g.target-removing[g] <= g.Least() {
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
		a.remove(ctx, g, c.node, c.pods, c.utilization)
	}
}

// candidates returns the nodes whose pods may all be moved, the emptiest first.
func (a *autoscaler) candidates(v *view, budgets []*policy.PodDisruptionBudget) (out []*candidate) {
	for _, n := range v.nodes {
		g := v.of[n.Name]
		a.mu.Lock()
		_, going := a.removing[n.Name]
		a.mu.Unlock()
		if g == nil || going || g.target <= g.Least() || n.Annotations[scaleDownDisabled] == "true" {
			continue
		}
		c := &candidate{group: g, node: n, utilization: utilization(n, v.byNode[n.Name])}
		if c.utilization >= g.options.Utilization {
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
		return cmp.Or(cmp.Compare(min(len(x.pods), 1), min(len(y.pods), 1)), cmp.Compare(x.utilization, y.utilization))
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
		a.sim.AddNode(c.node)
		for _, p := range all {
			a.sim.Put(p, c.node.Name)
		}
	}
	return out
}

// utilization returns the greater share of a node's CPU and memory that its pods request.
func utilization(n *v1.Node, pods []*v1.Pod) float64 {
	most := 0.0
	for _, name := range []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory} {
		has := n.Status.Allocatable[name]
		if has.IsZero() {
			continue
		}
		used := 0.0
		for _, p := range pods {
			q := resourcehelpers.PodRequests(p, resourcehelpers.PodResourcesOptions{})[name]
			used += q.AsApproximateFloat64()
		}
		most = max(most, used/has.AsApproximateFloat64())
	}
	return most
}
