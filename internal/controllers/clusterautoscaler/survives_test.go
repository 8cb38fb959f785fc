package clusterautoscaler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/controllers/controllertest"
	"keelson.dev/keelson/internal/nodegroup"
)

// errProvider is the error of a provider in trouble.
var errProvider = errors.New("the provider does not answer")

// patchy is a provider in trouble: calls fail, are done though their answer is lost, or hang,
// and the autoscaler is killed at some.
type patchy struct {
	*shop
	life controllertest.Life
}

// call makes a call, which hangs at times.
func (p patchy) call(ctx context.Context, do func() error) error {
	roll := p.life.Chance()
	hang := func() error {
		t := time.NewTimer(time.Duration(p.life.Chance() * float64(20*time.Second)))
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
		return errProvider
	}
	if roll < 0.02 {
		return hang()
	}
	err := p.life.Call(do)
	if roll < 0.04 {
		return hang()
	}
	return err
}

func (p patchy) Refresh(ctx context.Context) error { return p.call(ctx, func() error { return nil }) }
func (p patchy) Groups(context.Context) ([]nodegroup.Group, error) {
	return []nodegroup.Group{p}, nil
}

func (p patchy) Target(ctx context.Context) (n int, err error) {
	err = p.call(ctx, func() error { n, err = p.shop.Target(ctx); return err })
	return n, err
}

func (p patchy) Instances(ctx context.Context) (all []nodegroup.Instance, err error) {
	err = p.call(ctx, func() error { all, err = p.shop.Instances(ctx); return err })
	return all, err
}

func (p patchy) Increase(ctx context.Context, n int) error {
	return p.call(ctx, func() error { return p.shop.Increase(ctx, n) })
}

func (p patchy) Decrease(ctx context.Context, n int) error {
	return p.call(ctx, func() error { return p.shop.Decrease(ctx, n) })
}

func (p patchy) Delete(ctx context.Context, nodes []*v1.Node) error {
	return p.call(ctx, func() error { return p.shop.Delete(ctx, nodes) })
}

// perNode is how many of the shop's pods have room on a node.
const perNode = 2

// shop is a provider whose machines register when it says so, and a ReplicaSet, with its
// controller, a scheduler and kubelets: the others in the trial.
type shop struct {
	*pool
	t        *testing.T
	c        *controllertest.Cluster
	replicas int
	made     int               // pods
	binding  map[string]string // the node that each pod is being bound to
	demands  []demand
}

// demand is how many pods wanted a node at some time.
type demand struct {
	at time.Time
	n  int
}

// Increase checks that no more nodes are asked for than pods have lately wanted.
func (s *shop) Increase(ctx context.Context, n int) error {
	most := 0
	for i, d := range s.demands {
		if i == len(s.demands)-1 || time.Since(s.demands[i+1].at) < time.Minute {
			most = max(most, d.n)
		}
	}
	going := 0
	for _, node := range controllertest.All[*v1.Node](s.c, "") {
		if hasTaint(node, toBeDeleted) {
			going++
		}
	}
	target, _ := s.Target(ctx)
	if have := target - going + n; have > (most+perNode-1)/perNode {
		s.t.Errorf("%d nodes are asked for beside %d, of which %d are being removed, for %d pods", n, target, going, most)
	}
	return s.pool.Increase(ctx, n)
}

// Delete checks that no pod is on the nodes, or about to be.
func (s *shop) Delete(ctx context.Context, nodes []*v1.Node) error {
	for _, n := range nodes {
		for _, p := range controllertest.All[*v1.Pod](s.c, "shop") {
			if p.Spec.NodeName == n.Name || s.binding[p.Name] == n.Name {
				s.t.Errorf("node %s is deleted with pod %s", n.Name, p.Name)
			}
		}
	}
	return s.pool.Delete(ctx, nodes)
}

// step does what the others do, each with some chance.
func (s *shop) step(chance func() bool) (changed bool) {
	c := s.c
	s.mu.Lock()
	machines := slices.Clone(s.machines)
	s.mu.Unlock()
	for _, m := range machines {
		name := m.ID[len("test://"):]
		if _, ok := controllertest.Find[*v1.Node](c, "", name); !ok && chance() {
			c.Put(s.node(name))
			changed = true
		}
	}
	for name, node := range s.binding {
		controllertest.Edits("shop", name, func(p *v1.Pod) { p.Spec.NodeName, p.Status.Phase, p.Status.Conditions = node, v1.PodRunning, nil })(c)
	}
	clear(s.binding)
	pods := controllertest.All[*v1.Pod](c, "shop")
	on := map[string]int{}
	alive := 0
	for _, p := range pods {
		on[p.Spec.NodeName]++
		if p.DeletionTimestamp == nil {
			alive++
		}
	}
	s.demands = append(s.demands, demand{time.Now(), len(pods) + max(s.replicas-alive, 0)})
	for ; alive < s.replicas && chance(); alive++ {
		s.made++
		c.Put(pod("shop", func(p *v1.Pod) {
			p.Name, p.Labels = fmt.Sprint("p-", s.made), map[string]string{"app": "shop"}
			p.Spec.Containers = []v1.Container{{Name: "c", Resources: v1.ResourceRequirements{Requests: v1.ResourceList{v1.ResourceCPU: resource.MustParse("1500m")}}}}
		}))
		changed = true
	}
	for _, p := range pods {
		switch {
		case p.DeletionTimestamp == nil && alive > s.replicas && chance():
			controllertest.Remove[*v1.Pod](c, "shop", p.Name)
			alive--
		case p.DeletionTimestamp != nil && chance():
			controllertest.Remove[*v1.Pod](c, "shop", p.Name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)})
		case p.DeletionTimestamp == nil && p.Spec.NodeName == "" && chance():
			if !s.schedule(p, on) {
				continue
			}
		default:
			continue
		}
		changed = true
	}
	// The controller of budgets counts again.
	if b, ok := controllertest.Find[*policy.PodDisruptionBudget](c, "shop", "shop"); ok && b.Status.DisruptionsAllowed == 0 && alive == s.replicas && chance() {
		controllertest.Edit(c, "shop", "shop", func(b *policy.PodDisruptionBudget) { b.Status.DisruptionsAllowed = 1 })
		changed = true
	}
	return changed
}

// schedule chooses a node with room for a pod, which is bound to it at the next step,
// whatever has become of the node, or says that there is none. It reports whether that
// changes anything.
func (s *shop) schedule(p *v1.Pod, on map[string]int) bool {
	nodes := slices.DeleteFunc(controllertest.All[*v1.Node](s.c, ""), func(n *v1.Node) bool {
		return !isReady(n) || hasTaint(n, toBeDeleted) || on[n.Name] >= perNode
	})
	if len(nodes) == 0 {
		if waits(p) {
			return false
		}
		controllertest.Edit(s.c, "shop", p.Name, func(p *v1.Pod) {
			p.Status.Conditions = []v1.PodCondition{{Type: v1.PodScheduled, Status: v1.ConditionFalse, Reason: v1.PodReasonUnschedulable}}
		})
		return true
	}
	best := slices.MinFunc(nodes, func(x, y *v1.Node) int { // as little of a taint, and as full, as can be
		return cmp.Or(cmp.Compare(len(x.Spec.Taints), len(y.Spec.Taints)), -cmp.Compare(on[x.Name], on[y.Name]))
	})
	on[best.Name]++
	s.binding[p.Name] = best.Name
	return true
}

// TestSurvives checks that in the end there are as many nodes as the pods need, none is
// about to go, and no pod waits; that no node is ever deleted with pods, and that no more
// nodes are asked for than pods want.
func TestSurvives(t *testing.T) {
	var now *shop // of the seed that runs
	scale := func(n int) controllertest.Action {
		return func(*controllertest.Cluster) { now.replicas = n }
	}
	controllertest.Trial{
		Seeds: 200, Controllers: []controllertest.Constructor{New}, Tick: 3 * time.Second, Rest: 2 * time.Minute, Beats: []string{"configmaps"},
		Outside: func(c *controllertest.Cluster, life controllertest.Life, context *controllers.Context) {
			if now == nil || now.c != c {
				now = &shop{pool: &pool{client: c.Client, id: "g", most: 6, fate: silent}, t: t, c: c, binding: map[string]string{}}
			}
			o := nodegroup.DefaultOptions()
			o.ScanInterval, o.UnneededTime, o.UnreadyTime, o.DelayAfterAdd, o.DelayAfterFailure = 2*time.Second, 10*time.Second, 20*time.Second, 10*time.Second, 5*time.Second
			o.FirstBackoff, o.LastBackoff = 10*time.Second, 30*time.Second
			context.NodeGroups, context.Autoscaling = patchy{now, life}, o
		},
		World: []controllertest.Object{
			&policy.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "shop"}, Spec: policy.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "shop"}}},
				Status: policy.PodDisruptionBudgetStatus{DisruptionsAllowed: 1}},
		},
		Actions: []controllertest.Action{scale(4), scale(7), scale(2), scale(5), scale(0), scale(9), scale(3)},
		Others:  func(_ *controllertest.Cluster, chance func() bool) bool { return now.step(chance) },
		End: func(t *testing.T, c *controllertest.Cluster) {
			var nodes []string
			for _, n := range controllertest.All[*v1.Node](c, "") {
				if nodes = append(nodes, n.Name); len(n.Spec.Taints) > 0 {
					t.Errorf("node %s has the taints %v", n.Name, n.Spec.Taints)
				}
			}
			if len(nodes) != 2 || now.target != 2 || len(now.machines) != 2 {
				t.Errorf("nodes %q, machines %v, target %d: want 2 for 3 pods", nodes, now.machines, now.target)
			}
			for _, p := range controllertest.All[*v1.Pod](c, "shop") {
				if !slices.Contains(nodes, p.Spec.NodeName) {
					t.Errorf("pod %s is on %q", p.Name, p.Spec.NodeName)
				}
			}
			if _, ok := controllertest.Find[*v1.ConfigMap](c, metav1.NamespaceSystem, statusName); !ok {
				t.Error("there is no status")
			}
		},
	}.Survives(t)
}
