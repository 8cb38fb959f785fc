package nodelifecycle

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"
	coordinationlisters "k8s.io/client-go/listers/coordination/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/reconcile"
)

// heartbeat is the last sign of life of a node.
type heartbeat struct {
	renewed time.Time // as the lease says, or the Ready condition
	seen    time.Time // when that was seen here: clocks differ
	posted  bool      // whether the node had posted its status
}

type controller struct {
	client   kubernetes.Interface
	recorder record.EventRecorder
	nodes    corelisters.NodeLister
	pods     cache.Indexer
	leases   coordinationlisters.LeaseLister
	clock    clock.WithTicker
	queue    reconcile.Queue
	zones    zones

	mu    sync.Mutex
	beats map[string]heartbeat
}

// New makes the controller.
func New(c controllers.Context) (reconcile.Run, error) {
	core := c.Informers.Core().V1()
	nodes, pods, leases := core.Nodes(), core.Pods().Informer(), c.Informers.Coordination().V1().Leases()
	controllers.IndexPods(pods)
	n := &controller{
		client: c.Client(), recorder: c.Recorder(), nodes: nodes.Lister(), pods: pods.GetIndexer(), leases: leases.Lister(),
		clock: c.Clock, queue: c.Queue("node_lifecycle_controller"), beats: map[string]heartbeat{},
		zones: zones{NodeLifecycle: c.Tuned().NodeLifecycle, m: map[string]*zone{}},
	}
	reconcile.Handle(nodes.Informer(), func(o *v1.Node) {
		n.tell(o, "RegisteredNode", fmt.Sprintf("Node %s event: Registered Node %s in Controller", o.Name, o.Name))
		n.queue.Add(o.Name)
	}, func(_, o *v1.Node) { n.queue.Add(o.Name) }, func(o *v1.Node) {
		n.tell(o, "RemovingNode", fmt.Sprintf("Node %s event: Removing Node %s from Controller", o.Name, o.Name))
		n.mu.Lock()
		delete(n.beats, o.Name)
		n.mu.Unlock()
		n.zones.leave(o.Name)
	})
	reads := []cache.SharedIndexInformer{pods, leases.Informer()}
	return reconcile.Together(
		reconcile.Loop[*v1.Node]{Queue: n.queue, For: nodes.Informer(), Reads: reads, Reconcile: n.reconcile}.Run,
		reconcile.Every(c.Clock, n.zones.MonitorPeriod, n.monitor, append(reads, nodes.Informer())...),
	), nil
}

// tell records an event of a node.
func (n *controller) tell(node *v1.Node, reason, message string) {
	n.recorder.Event(&v1.ObjectReference{Kind: "Node", APIVersion: "v1", Name: node.Name, UID: node.UID}, v1.EventTypeNormal, reason, message)
}

// monitor queues the nodes that have fallen silent, and judges the zones.
func (n *controller) monitor(ctx context.Context) {
	all, err := n.nodes.List(labels.Everything())
	if err != nil {
		return
	}
	for _, o := range all {
		if n.silent(o) {
			n.queue.Add(o.Name)
		}
	}
	c := n.zones.look(counted(all))
	for _, name := range c.wake {
		n.queue.Add(name)
	}
	switch {
	case c.stopped:
		klog.FromContext(ctx).Info("No node is ready: no pods are evicted until one is")
		for _, o := range all {
			n.queue.Add(o.Name)
		}
	case c.resumed:
		// Nodes may have been silent only because this server was cut off.
		klog.FromContext(ctx).Info("Some nodes are ready again: pods are evicted as before")
		now := n.clock.Now()
		n.mu.Lock()
		for name, b := range n.beats {
			b.seen = now
			n.beats[name] = b
		}
		n.mu.Unlock()
	}
}

func condition(node *v1.Node, t v1.NodeConditionType) *v1.NodeCondition {
	for i := range node.Status.Conditions {
		if node.Status.Conditions[i].Type == t {
			return &node.Status.Conditions[i]
		}
	}
	return nil
}

// silent reports whether a node has not been heard of for longer than it may.
func (n *controller) silent(node *v1.Node) bool {
	renewed := node.CreationTimestamp.Time
	if c := condition(node, v1.NodeReady); c != nil && c.LastHeartbeatTime.After(renewed) {
		renewed = c.LastHeartbeatTime.Time
	}
	var lease *coordinationv1.Lease
	if l, err := n.leases.Leases(v1.NamespaceNodeLease).Get(node.Name); err == nil {
		lease = l
	}
	if lease != nil && lease.Spec.RenewTime != nil && lease.Spec.RenewTime.After(renewed) {
		renewed = lease.Spec.RenewTime.Time
	}
	posted, grace := condition(node, v1.NodeReady) != nil, n.zones.MonitorGracePeriod
	if !posted {
		grace = n.zones.StartupGracePeriod
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	b, ok := n.beats[node.Name]
	switch {
	case !ok && !posted:
		b = heartbeat{renewed, node.CreationTimestamp.Time, false}
		if lease != nil {
			b.seen = n.clock.Now()
		}
	case !ok || renewed.After(b.renewed) || posted && !b.posted:
		b = heartbeat{renewed, n.clock.Now(), posted}
	}
	n.beats[node.Name] = b
	return n.clock.Since(b.seen) > grace
}

// reconcile brings a node's conditions and taints to what is known of it.
func (n *controller) reconcile(ctx context.Context, node *v1.Node) (reconcile.Result, error) {
	var err error
	if n.silent(node) {
		if node, err = n.unknown(ctx, node); err != nil {
			return reconcile.Result{}, err
		}
	}
	node, wait, err := n.taint(ctx, node)
	if err != nil {
		return reconcile.Result{}, err
	}
	if c := condition(node, v1.NodeReady); c != nil && c.Status != v1.ConditionTrue {
		err = n.unready(ctx, node)
	}
	return reconcile.Result{RequeueAfter: wait}, err
}

// unknown sets a node's conditions to Unknown.
func (n *controller) unknown(ctx context.Context, node *v1.Node) (*v1.Node, error) {
	out := node.DeepCopy()
	now := metav1.NewTime(n.clock.Now().UTC().Truncate(time.Second))
	changed := false
	for _, t := range []v1.NodeConditionType{v1.NodeReady, v1.NodeMemoryPressure, v1.NodeDiskPressure, v1.NodePIDPressure} {
		c := condition(out, t)
		switch {
		case c == nil:
			out.Status.Conditions = append(out.Status.Conditions, v1.NodeCondition{Type: t, Status: v1.ConditionUnknown, Reason: "NodeStatusNeverUpdated",
				Message: "Kubelet never posted node status.", LastHeartbeatTime: node.CreationTimestamp, LastTransitionTime: now})
			changed = true
		case c.Status != v1.ConditionUnknown:
			c.Status, c.Reason, c.Message, c.LastTransitionTime = v1.ConditionUnknown, "NodeStatusUnknown", "Kubelet stopped posting node status.", now
			changed = true
		}
	}
	if !changed {
		return node, nil
	}
	if c := condition(node, v1.NodeReady); c != nil && c.Status == v1.ConditionTrue {
		n.tell(node, "NodeNotReady", fmt.Sprintf("Node %s status is now: NodeNotReady", node.Name))
	}
	return n.client.CoreV1().Nodes().UpdateStatus(ctx, out, metav1.UpdateOptions{})
}

// managed are the keys of the taints that this controller sets and lifts.
var managed = map[string]bool{v1.TaintNodeNotReady: true, v1.TaintNodeUnreachable: true, v1.TaintNodeMemoryPressure: true, v1.TaintNodeDiskPressure: true,
	v1.TaintNodePIDPressure: true, v1.TaintNodeNetworkUnavailable: true, v1.TaintNodeUnschedulable: true}

// wanted returns the taints that a node's conditions and cordon make at once.
func wanted(node *v1.Node) []v1.Taint {
	var out []v1.Taint
	add := func(key string, effect v1.TaintEffect) { out = append(out, v1.Taint{Key: key, Effect: effect}) }
	if c := condition(node, v1.NodeReady); c != nil {
		switch c.Status {
		case v1.ConditionFalse:
			add(v1.TaintNodeNotReady, v1.TaintEffectNoSchedule)
		case v1.ConditionUnknown:
			add(v1.TaintNodeUnreachable, v1.TaintEffectNoSchedule)
		}
	}
	for _, p := range []struct {
		t   v1.NodeConditionType
		key string
	}{{v1.NodeMemoryPressure, v1.TaintNodeMemoryPressure}, {v1.NodeDiskPressure, v1.TaintNodeDiskPressure}, {v1.NodePIDPressure, v1.TaintNodePIDPressure}, {v1.NodeNetworkUnavailable, v1.TaintNodeNetworkUnavailable}} {
		if c := condition(node, p.t); c != nil && c.Status == v1.ConditionTrue {
			add(p.key, v1.TaintEffectNoSchedule)
		}
	}
	if node.Spec.Unschedulable {
		add(v1.TaintNodeUnschedulable, v1.TaintEffectNoSchedule)
	}
	return out
}

// evicting returns the taint that evicts the pods of a node that is not ready, or nil:
// where it is one more node, only when it is its turn, and not at all while no node of
// the cluster is ready. wait is when its turn comes.
func (n *controller) evicting(node *v1.Node) (t *v1.Taint, wait time.Duration) {
	c := condition(node, v1.NodeReady)
	if c == nil || c.Status == v1.ConditionTrue {
		n.zones.leave(node.Name)
		return nil, 0
	}
	t = &v1.Taint{Key: v1.TaintNodeNotReady, Effect: v1.TaintEffectNoExecute}
	if c.Status == v1.ConditionUnknown {
		t.Key = v1.TaintNodeUnreachable
	}
	stopped := n.zones.stopped()
	if !stopped && slices.ContainsFunc(node.Spec.Taints, func(o v1.Taint) bool {
		return o.Effect == t.Effect && (o.Key == v1.TaintNodeNotReady || o.Key == v1.TaintNodeUnreachable)
	}) {
		n.zones.leave(node.Name)
		return t, 0 // it has it, or that for the other state
	}
	ok, wait := n.zones.turn(node, n.clock.Now())
	if !ok {
		return nil, wait
	}
	return t, 0
}

// taint brings a node's taints to what they are to be. It returns when to come back to it.
func (n *controller) taint(ctx context.Context, node *v1.Node) (*v1.Node, time.Duration, error) {
	want := wanted(node)
	evict, wait := n.evicting(node)
	if evict != nil {
		want = append(want, *evict)
	}
	var next []v1.Taint
	changed := false
	for _, t := range node.Spec.Taints {
		if managed[t.Key] {
			i := slices.IndexFunc(want, func(w v1.Taint) bool { return w.Key == t.Key && w.Effect == t.Effect })
			if i < 0 {
				changed = true
				continue
			}
			want = slices.Delete(want, i, i+1)
		}
		next = append(next, t)
	}
	for _, t := range want {
		if t.Effect == v1.TaintEffectNoExecute || t.Key == v1.TaintNodeUnschedulable {
			now := metav1.NewTime(n.clock.Now().UTC().Truncate(time.Second))
			t.TimeAdded = &now
		}
		next = append(next, t)
		changed = true
	}
	if !changed {
		return node, wait, nil
	}
	out := node.DeepCopy()
	out.Spec.Taints = next
	out, err := n.client.CoreV1().Nodes().Update(ctx, out, metav1.UpdateOptions{})
	if err != nil && evict != nil {
		n.zones.again(node)
	}
	return out, wait, err
}

// unready takes the pods of a node that is not ready out of their services.
func (n *controller) unready(ctx context.Context, node *v1.Node) error {
	pods, err := controllers.PodsOn(n.pods, node.Name)
	if err != nil {
		return err
	}
	for _, p := range pods {
		i := slices.IndexFunc(p.Status.Conditions, func(c v1.PodCondition) bool { return c.Type == v1.PodReady })
		if p.DeletionTimestamp != nil || i < 0 || p.Status.Conditions[i].Status != v1.ConditionTrue {
			continue
		}
		out := p.DeepCopy()
		out.Status.Conditions[i].Status = v1.ConditionFalse
		out.Status.Conditions[i].LastTransitionTime = metav1.NewTime(n.clock.Now().UTC().Truncate(time.Second))
		_, err := n.client.CoreV1().Pods(p.Namespace).UpdateStatus(ctx, out, metav1.UpdateOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		n.recorder.Event(p, v1.EventTypeWarning, "NodeNotReady", "Node is not ready")
	}
	return nil
}
