package clusterautoscaler

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	apps "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	appslisters "k8s.io/client-go/listers/apps/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	policylisters "k8s.io/client-go/listers/policy/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/controllers/daemonset/placement"
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
	daemons  appslisters.DaemonSetLister
	wake     chan struct{}

	// The fields below are used by the loop only.
	growths  map[string]growth // by the group's ID
	backoffs map[string]backoff
	missing  map[string]time.Time  // since when an instance has no node, by its ID
	broken   map[string]bool       // instances that cannot be made, by their ID
	differs  map[string]difference // by the group's ID
	// warned holds the events of what is wrong with the expander's ConfigMap, of
	// this resource version.
	warned   map[string]bool
	warnedOf string
	unneeded map[string]time.Time // since when each node is unneeded
	told     map[types.UID]string // the reported reason why a pod did not trigger a scale-up
	added    time.Time            // when the last node was requested
	status   status

	// mu guards the removals, which run beside the loop.
	mu       sync.Mutex
	removing map[string]bool    // by name, whether the node has pods
	gone     map[types.UID]bool // nodes that have been deleted, which an informer may still show
	failed   time.Time          // when a removal failed last
	wg       sync.WaitGroup
}

// New makes the controller. Without a provider of node groups it returns nil.
func New(c controllers.Context) (reconcile.Run, error) {
	if c.NodeGroups == nil {
		return nil, nil
	}
	core, sets := c.Informers.Core().V1(), c.Informers.Apps().V1().DaemonSets()
	sim, err := scheduler.NewSimulator(c.Informers, c.Clock)
	if err != nil {
		return nil, err
	}
	a := &autoscaler{Options: c.Autoscaling, provider: c.NodeGroups, client: c.Client(), recorder: c.Recorder(), clock: c.Clock, sim: sim,
		nodes: core.Nodes().Lister(), pods: core.Pods().Lister(), budgets: c.Informers.Policy().V1().PodDisruptionBudgets().Lister(), daemons: sets.Lister(), wake: make(chan struct{}, 1),
		growths: map[string]growth{}, backoffs: map[string]backoff{}, missing: map[string]time.Time{}, broken: map[string]bool{}, differs: map[string]difference{}, warned: map[string]bool{}, unneeded: map[string]time.Time{}, told: map[types.UID]string{}, removing: map[string]bool{}, gone: map[types.UID]bool{}}
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
	reads := []cache.SharedIndexInformer{core.Pods().Informer(), core.Nodes().Informer(), c.Informers.Policy().V1().PodDisruptionBudgets().Informer(), sets.Informer()}
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
	for {
		a.clean(ctx)
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
	census
	nodes  []*v1.Node           // those that have registered
	failed []nodegroup.Instance // those that cannot be made
	// healthy reports whether no more nodes are missing than may be.
	healthy bool
	// template is a node as a new one would be, daemons the DaemonSets that have a pod
	// there; nil if it is not known.
	template *v1.Node
	daemons  []*apps.DaemonSet
}

// view is the present state of the cluster.
type view struct {
	now     time.Time
	groups  []*group
	of      map[string]*group // by the node's name
	nodes   []*v1.Node        // those that take pods
	unready []*v1.Node        // those of groups that are not ready though they have had the time
	total   census            // of all nodes
	pods    []*v1.Pod         // those that are bound
	pending []*v1.Pod
	awaited map[string]bool // nodes on which pending pods have room
	byNode  map[string][]*v1.Pod
}

// once reads the cluster's state, and adds or removes nodes.
func (a *autoscaler) once(ctx context.Context) error {
	v, err := a.see(ctx)
	if err != nil {
		return err
	}
	if !a.settle(ctx, v) {
		a.tell(ctx, v)
		return nil
	}
	a.sim.Reset(v.nodes, v.pods)
	for _, g := range v.groups {
		if g.template == nil {
			continue
		}
		// Nodes that were requested and have not appeared yet.
		for i := range g.upcoming() {
			a.addNode(g, g.node(fmt.Sprintf("upcoming-%d", i)))
		}
	}
	var rest []*v1.Pod
	for _, p := range v.pending {
		node, err := a.sim.Place(ctx, p)
		if err != nil {
			rest = append(rest, p)
			continue
		}
		v.awaited[node] = true
	}
	scaled := a.up(ctx, v, rest)
	if scaled {
		clear(a.unneeded)
	} else if !a.NoScaleDown {
		a.down(ctx, v)
	}
	a.tell(ctx, v)
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
	v := &view{now: a.clock.Now(), of: map[string]*group{}, awaited: map[string]bool{}, byNode: map[string][]*v1.Pod{}}
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
	nodes, err := a.present()
	if err != nil {
		return nil, err
	}
	for _, n := range nodes {
		id, err := a.provider.GroupOf(ctx, n)
		if err != nil {
			return nil, fmt.Errorf("asking for the node group of node %s: %w", n.Name, err)
		}
		g, options := byID[id], a.GroupOptions
		if g != nil {
			options = g.options
			v.of[n.Name] = g
			g.nodes = append(g.nodes, n)
			g.count(n, options.StartupTime, v.now)
		}
		broke := v.total.count(n, options.StartupTime, v.now)
		switch ready := isReady(n); {
		case ready && !hasTaint(n, toBeDeleted):
			v.nodes = append(v.nodes, n)
		case broke && g != nil:
			v.unready = append(v.unready, n)
		}
	}
	if err := a.seeInstances(ctx, v, nodes); err != nil {
		return nil, err
	}
	daemons, err := a.daemons.List(labels.Everything())
	if err != nil {
		return nil, err
	}
	for _, g := range v.groups {
		if g.template, err = a.template(ctx, g); err == nil {
			g.daemons = slices.DeleteFunc(slices.Clone(daemons), func(ds *apps.DaemonSet) bool { return placement.Pod(ds, g.template) == nil })
		} else {
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

// present returns the nodes but those that have been deleted.
func (a *autoscaler) present() ([]*v1.Node, error) {
	nodes, err := a.nodes.List(labels.Everything())
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	seen := make(map[types.UID]bool, len(a.gone))
	nodes = slices.DeleteFunc(nodes, func(n *v1.Node) bool {
		if a.gone[n.UID] {
			seen[n.UID] = true
		}
		return a.gone[n.UID]
	})
	a.gone = seen
	return nodes, nil
}

func priority(p *v1.Pod) int32 {
	if p.Spec.Priority == nil {
		return 0
	}
	return *p.Spec.Priority
}

// isReady reports whether a node takes pods: it is ready, and no taint says that it is
// still starting. The node lifecycle controller takes the taint not-ready, with which a
// node is created, away some time after the node has become ready.
func isReady(n *v1.Node) bool {
	if slices.ContainsFunc(n.Spec.Taints, starting) || slices.ContainsFunc(n.Spec.Taints, unwell) {
		return false
	}
	ready := false
	for _, c := range n.Status.Conditions {
		is := c.Status == v1.ConditionTrue
		switch c.Type {
		case v1.NodeReady:
			ready = is
		case v1.NodeDiskPressure, v1.NodeNetworkUnavailable:
			if is {
				return false
			}
		}
	}
	return ready
}

// template returns what a new node of the group would look like, from the provider or
// from an existing node.
func (a *autoscaler) template(ctx context.Context, g *group) (*v1.Node, error) {
	for _, n := range g.nodes {
		if isReady(n) && !hasTaint(n, toBeDeleted) {
			t := n.DeepCopy()
			t.Spec.Unschedulable = false
			t.Spec.Taints = slices.DeleteFunc(t.Spec.Taints, passing)
			return t, nil
		}
	}
	return g.Template(ctx)
}

// addNode adds a node of the group that is yet to come to the simulation, with the pods
// of DaemonSets that it will have; removeNode takes it away again.
func (a *autoscaler) addNode(g *group, n *v1.Node) {
	a.sim.AddNode(n)
	for _, p := range g.daemonPods(n) {
		a.sim.Put(p, n.Name)
	}
}

func (a *autoscaler) removeNode(g *group, n *v1.Node) {
	for _, p := range g.daemonPods(n) {
		a.sim.Remove(p)
	}
	a.sim.RemoveNode(n.Name)
}

// daemonPods returns the pods of DaemonSets that a node will have.
func (g *group) daemonPods(n *v1.Node) (pods []*v1.Pod) {
	for _, ds := range g.daemons {
		if p := placement.Pod(ds, n); p != nil {
			p.UID = types.UID(n.Name + "/" + string(ds.UID))
			pods = append(pods, p)
		}
	}
	return pods
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
