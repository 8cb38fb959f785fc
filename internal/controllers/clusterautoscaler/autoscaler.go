package clusterautoscaler

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	policylisters "k8s.io/client-go/listers/policy/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/nodegroup"
	"keelson.dev/keelson/internal/reconcile"
	"keelson.dev/keelson/internal/scheduler"
)

const (
	// gather is how long the loop waits for further pods after one has been found
	// unschedulable.
	gather = 500 * time.Millisecond
	// expendable is the priority below which waiting pods do not add nodes.
	expendable = -10
	// firstBackoff and lastBackoff bound the time for which a group that has failed is
	// not increased.
	firstBackoff, lastBackoff = 5 * time.Minute, 30 * time.Minute
	// delayAfterFailure is the time after a failed removal in which no node is
	// removed.
	delayAfterFailure = 3 * time.Minute
)

type autoscaler struct {
	nodegroup.Options
	provider nodegroup.Provider
	client   kubernetes.Interface
	recorder record.EventRecorder
	clock    clock.WithTicker
	sim      *scheduler.Simulator
	nodes    corelisters.NodeLister
	pods     corelisters.PodLister
	budgets  policylisters.PodDisruptionBudgetLister
	wake     chan struct{}

	// The fields below are used by the loop only.
	asked    map[string]time.Time // when each group was last increased
	backoffs map[string]backoff
	unneeded map[string]time.Time // since when each node is unneeded
	told     map[types.UID]string // the reported reason why a pod did not trigger a scale-up
	added    time.Time            // when the last node was requested
	status   status

	// mu guards the removals, which run beside the loop.
	mu       sync.Mutex
	removing map[string]bool // by name, whether the node has pods
	failed   time.Time       // when a removal failed last
	wg       sync.WaitGroup
}

// backoff is the time until which a group is not increased.
type backoff struct {
	until time.Time
	next  time.Duration
}

// New makes the controller. Without a provider of node groups it returns nil.
func New(c controllers.Context) (reconcile.Run, error) {
	if c.NodeGroups == nil {
		return nil, nil
	}
	core := c.Informers.Core().V1()
	sim, err := scheduler.NewSimulator(c.Informers, c.Clock)
	if err != nil {
		return nil, err
	}
	a := &autoscaler{Options: c.Autoscaling, provider: c.NodeGroups, client: c.Client(), recorder: c.Recorder(), clock: c.Clock, sim: sim,
		nodes: core.Nodes().Lister(), pods: core.Pods().Lister(), budgets: c.Informers.Policy().V1().PodDisruptionBudgets().Lister(), wake: make(chan struct{}, 1),
		asked: map[string]time.Time{}, backoffs: map[string]backoff{}, unneeded: map[string]time.Time{}, told: map[types.UID]string{}, removing: map[string]bool{}}
	if a.ScanInterval == 0 {
		a.Options = nodegroup.DefaultOptions()
	}
	reconcile.Handle(core.Pods().Informer(), func(p *v1.Pod) {
		if waits(p) {
			a.look()
		}
	}, func(old, cur *v1.Pod) {
		if waits(cur) && !waits(old) {
			a.look()
		}
	}, reconcile.Ignore)
	reads := []cache.SharedIndexInformer{core.Pods().Informer(), core.Nodes().Informer(), c.Informers.Policy().V1().PodDisruptionBudgets().Informer()}
	return func(ctx context.Context) {
		if reconcile.WaitFor(ctx, reads...) && sim.Synced(ctx) {
			a.run(ctx)
		}
	}, nil
}

// look makes the loop check the cluster soon.
func (a *autoscaler) look() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

func (a *autoscaler) run(ctx context.Context) {
	defer a.wg.Wait()
	a.untaint(ctx)
	for {
		if err := a.once(ctx); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Looking at the cluster failed")
		}
		timer := a.clock.NewTimer(a.ScanInterval)
		select {
		case <-timer.C():
		case <-a.wake:
			timer.Stop()
			// Many pods become unschedulable at about the same time.
			t := a.clock.NewTimer(gather)
			select {
			case <-t.C():
			case <-ctx.Done():
				t.Stop()
			}
		case <-ctx.Done():
			timer.Stop()
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// waits reports whether the scheduler has found no node for a pod, so that another
// node might help.
func waits(p *v1.Pod) bool {
	if p.Spec.NodeName != "" || p.DeletionTimestamp != nil || p.Status.NominatedNodeName != "" || len(p.Spec.SchedulingGates) > 0 {
		return false
	}
	if p.Spec.Priority != nil && *p.Spec.Priority < expendable {
		return false
	}
	return slices.ContainsFunc(p.Status.Conditions, func(c v1.PodCondition) bool {
		return c.Type == v1.PodScheduled && c.Status == v1.ConditionFalse && c.Reason == v1.PodReasonUnschedulable
	})
}

// group is the present state of a node group.
type group struct {
	nodegroup.Group
	options nodegroup.GroupOptions
	target  int
	nodes   []*v1.Node // those that have registered
	ready   int
	// template is what a new node would look like; nil if that is not known.
	template *v1.Node
}

// view is the present state of the cluster.
type view struct {
	now     time.Time
	groups  []*group
	of      map[string]*group // by name of the node
	nodes   []*v1.Node        // the schedulable nodes
	pods    []*v1.Pod         // the bound pods
	pending []*v1.Pod
	byNode  map[string][]*v1.Pod
}

// once reads the cluster's state, and adds or removes nodes.
func (a *autoscaler) once(ctx context.Context) error {
	v, err := a.see(ctx)
	if err != nil {
		return err
	}
	a.overdue(ctx, v)
	a.sim.Reset(v.nodes, v.pods)
	for _, g := range v.groups {
		if g.template == nil {
			continue
		}
		// Nodes that were requested and have not appeared yet.
		for i := range g.target - g.ready {
			a.sim.AddNode(g.node(fmt.Sprintf("upcoming-%d", i)))
		}
	}
	var rest []*v1.Pod
	for _, p := range v.pending {
		if _, err := a.sim.Place(ctx, p); err != nil {
			rest = append(rest, p)
		}
	}
	scaled := a.up(ctx, v, rest)
	if scaled {
		clear(a.unneeded)
	} else if !a.NoScaleDown {
		a.down(ctx, v)
	}
	a.tell(ctx, v, scaled)
	return nil
}

// see reads the cluster and the groups.
func (a *autoscaler) see(ctx context.Context) (*view, error) {
	if err := a.provider.Refresh(ctx); err != nil {
		return nil, fmt.Errorf("refreshing the provider %s: %w", a.provider.Name(), err)
	}
	groups, err := a.provider.Groups(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the node groups of %s: %w", a.provider.Name(), err)
	}
	v := &view{now: a.clock.Now(), of: map[string]*group{}, byNode: map[string][]*v1.Pod{}}
	byID := map[string]*group{}
	for _, g := range groups {
		target, err := g.Target(ctx)
		if err != nil {
			return nil, fmt.Errorf("reading the size of node group %s: %w", g.ID(), err)
		}
		options, err := g.Options(ctx, a.GroupOptions)
		if err != nil {
			options = a.GroupOptions
		}
		one := &group{Group: g, options: options, target: target}
		v.groups, byID[g.ID()] = append(v.groups, one), one
	}
	nodes, err := a.nodes.List(labels.Everything())
	if err != nil {
		return nil, err
	}
	for _, n := range nodes {
		id, err := a.provider.GroupOf(ctx, n)
		if err != nil {
			return nil, fmt.Errorf("asking for the node group of node %s: %w", n.Name, err)
		}
		ready := isReady(n)
		if g := byID[id]; g != nil {
			v.of[n.Name] = g
			g.nodes = append(g.nodes, n)
			if ready {
				g.ready++
			}
		}
		if ready && !tainted(n) {
			v.nodes = append(v.nodes, n)
		}
	}
	for _, g := range v.groups {
		if g.template, err = a.template(ctx, g); err != nil {
			klog.FromContext(ctx).V(2).Info("A node group's new nodes are not known", "group", g.ID(), "err", err)
		}
	}
	pods, err := a.pods.List(labels.Everything())
	if err != nil {
		return nil, err
	}
	waiting := map[types.UID]bool{}
	for _, p := range pods {
		switch {
		case p.Status.Phase == v1.PodSucceeded || p.Status.Phase == v1.PodFailed:
		case p.Spec.NodeName != "":
			v.pods = append(v.pods, p)
			v.byNode[p.Spec.NodeName] = append(v.byNode[p.Spec.NodeName], p)
		case waits(p) && !ofDaemonSet(p):
			v.pending = append(v.pending, p)
			waiting[p.UID] = true
		}
	}
	for uid := range a.told {
		if !waiting[uid] {
			delete(a.told, uid)
		}
	}
	slices.SortStableFunc(v.pending, func(x, y *v1.Pod) int { return int(priority(y)) - int(priority(x)) })
	return v, nil
}

func priority(p *v1.Pod) int32 {
	if p.Spec.Priority == nil {
		return 0
	}
	return *p.Spec.Priority
}

func isReady(n *v1.Node) bool {
	return slices.ContainsFunc(n.Status.Conditions, func(c v1.NodeCondition) bool { return c.Type == v1.NodeReady && c.Status == v1.ConditionTrue })
}

// template returns what a new node of the group would look like, from the provider or
// from an existing node.
func (a *autoscaler) template(ctx context.Context, g *group) (*v1.Node, error) {
	for _, n := range g.nodes {
		if isReady(n) && !tainted(n) {
			t := n.DeepCopy()
			t.Spec.Unschedulable = false
			t.Spec.Taints = slices.DeleteFunc(t.Spec.Taints, func(t v1.Taint) bool { return t.Key == v1.TaintNodeUnschedulable })
			return t, nil
		}
	}
	return g.Template(ctx)
}

// node returns a simulated new node of the group.
func (g *group) node(name string) *v1.Node {
	n := g.template.DeepCopy()
	n.Name = "template-node-for-" + g.ID() + "-" + name
	n.UID = types.UID(n.Name)
	if n.Labels == nil {
		n.Labels = map[string]string{}
	}
	n.Labels[v1.LabelHostname] = n.Name
	return n
}

// overdue cancels requested nodes that have not appeared in time, and makes their
// group back off.
func (a *autoscaler) overdue(ctx context.Context, v *view) {
	for _, g := range v.groups {
		missing := g.target - len(g.nodes)
		asked, ok := a.asked[g.ID()]
		if missing <= 0 {
			if g.ready >= g.target {
				delete(a.asked, g.ID())
				delete(a.backoffs, g.ID())
			}
			continue
		}
		if !ok {
			a.asked[g.ID()] = v.now // requested by an earlier process
			continue
		}
		if v.now.Sub(asked) < g.options.ProvisionTime {
			continue
		}
		err := g.Decrease(ctx, missing)
		if err == nil {
			g.target -= missing
		}
		delete(a.asked, g.ID())
		a.fail(g.ID(), v.now)
		a.event(v1.EventTypeWarning, "ScaleUpTimedOut", fmt.Sprintf("Nodes added to group %s failed to register within %s", g.ID(), g.options.ProvisionTime))
	}
}

// fail makes a group back off, for longer with each failure.
func (a *autoscaler) fail(id string, now time.Time) {
	wait := max(a.backoffs[id].next, firstBackoff)
	a.backoffs[id] = backoff{until: now.Add(wait), next: min(2*wait, lastBackoff)}
}
