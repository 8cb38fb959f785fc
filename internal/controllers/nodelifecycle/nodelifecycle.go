package nodelifecycle

import (
	"context"
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
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/reconcile"
)

// Upstream's figures.
const (
	monitorPeriod = 5 * time.Second
	gracePeriod   = 50 * time.Second
)

// health records a node's heartbeats.
type health struct {
	renewed time.Time // as the lease says, or the Ready condition
	seen    time.Time // when that was seen here: clocks differ
}

type controller struct {
	client   kubernetes.Interface
	recorder record.EventRecorder
	nodes    corelisters.NodeLister
	pods     cache.Indexer
	leases   coordinationlisters.LeaseLister
	clock    clock.WithTicker
	queue    reconcile.Queue

	mu     sync.Mutex
	health map[string]health
}

// New makes the controller.
func New(c controllers.Context) (reconcile.Run, error) {
	core := c.Informers.Core().V1()
	nodes, pods, leases := core.Nodes(), core.Pods().Informer(), c.Informers.Coordination().V1().Leases()
	controllers.IndexPods(pods)
	n := &controller{
		client: c.Client(), recorder: c.Recorder(), nodes: nodes.Lister(), pods: pods.GetIndexer(), leases: leases.Lister(),
		clock: c.Clock, queue: c.Queue("node_lifecycle_controller"), health: map[string]health{},
	}
	reconcile.Handle(nodes.Informer(), reconcile.Enqueue[*v1.Node](n.queue), nil, func(o *v1.Node) {
		n.mu.Lock()
		delete(n.health, o.Name)
		n.mu.Unlock()
	})
	reads := []cache.SharedIndexInformer{pods, leases.Informer()}
	return reconcile.Together(
		reconcile.Loop[*v1.Node]{Queue: n.queue, For: nodes.Informer(), Reads: reads, Reconcile: n.reconcile}.Run,
		reconcile.Every(c.Clock, monitorPeriod, n.monitor, append(reads, nodes.Informer())...),
	), nil
}

// monitor queues the nodes that have fallen silent.
func (n *controller) monitor(context.Context) {
	all, err := n.nodes.List(labels.Everything())
	if err != nil {
		return
	}
	for _, o := range all {
		if n.silent(o) {
			n.queue.Add(o.Name)
		}
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
	n.mu.Lock()
	defer n.mu.Unlock()
	h, ok := n.health[node.Name]
	if !ok || renewed.After(h.renewed) {
		h = health{renewed, n.clock.Now()}
		n.health[node.Name] = h
	}
	return n.clock.Since(h.seen) > gracePeriod
}

// reconcile brings a node's conditions and taints to what is known of it.
func (n *controller) reconcile(ctx context.Context, node *v1.Node) (reconcile.Result, error) {
	var err error
	if n.silent(node) {
		if node, err = n.unknown(ctx, node); err != nil {
			return reconcile.Result{}, err
		}
	}
	if node, err = n.taint(ctx, node); err != nil {
		return reconcile.Result{}, err
	}
	if c := condition(node, v1.NodeReady); c != nil && c.Status != v1.ConditionTrue {
		err = n.unready(ctx, node)
	}
	return reconcile.Result{}, err
}

// unknown tells that a node's state is not known any more.
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
	n.recorder.Eventf(&v1.ObjectReference{Kind: "Node", APIVersion: "v1", Name: node.Name, UID: node.UID}, v1.EventTypeNormal, "NodeNotReady", "Node %s status is now: NodeNotReady", node.Name)
	return n.client.CoreV1().Nodes().UpdateStatus(ctx, out, metav1.UpdateOptions{})
}

// managed are the keys of the taints that this controller sets and lifts.
var managed = map[string]bool{v1.TaintNodeNotReady: true, v1.TaintNodeUnreachable: true, v1.TaintNodeMemoryPressure: true, v1.TaintNodeDiskPressure: true,
	v1.TaintNodePIDPressure: true, v1.TaintNodeNetworkUnavailable: true, v1.TaintNodeUnschedulable: true}

// wanted returns the taints that a node's conditions and cordon make.
func wanted(node *v1.Node) []v1.Taint {
	var out []v1.Taint
	add := func(key string, effects ...v1.TaintEffect) {
		for _, e := range effects {
			out = append(out, v1.Taint{Key: key, Effect: e})
		}
	}
	if c := condition(node, v1.NodeReady); c != nil {
		switch c.Status {
		case v1.ConditionFalse:
			add(v1.TaintNodeNotReady, v1.TaintEffectNoSchedule, v1.TaintEffectNoExecute)
		case v1.ConditionUnknown:
			add(v1.TaintNodeUnreachable, v1.TaintEffectNoSchedule, v1.TaintEffectNoExecute)
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

func (n *controller) taint(ctx context.Context, node *v1.Node) (*v1.Node, error) {
	want := wanted(node)
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
		return node, nil
	}
	out := node.DeepCopy()
	out.Spec.Taints = next
	return n.client.CoreV1().Nodes().Update(ctx, out, metav1.UpdateOptions{})
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
