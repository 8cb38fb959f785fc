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
	corev1helpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/trace"
)

// Upstream's figures.
const (
	monitorPeriod = 5 * time.Second
	gracePeriod   = 50 * time.Second
)

// health is what was seen of a node's heartbeats.
type health struct {
	renewed time.Time // as the lease says, or the Ready condition
	seen    time.Time // when that was seen here: clocks differ
}

type controller struct {
	client   kubernetes.Interface
	recorder record.EventRecorder
	nodes    corelisters.NodeLister
	pods     corelisters.PodLister
	leases   coordinationlisters.LeaseLister
	clock    clock.WithTicker
	queue    controllers.Queue // nodes
	evict    controllers.Queue // pods

	mu     sync.Mutex
	health map[string]health
}

// Start runs the controller until ctx is done.
func Start(ctx context.Context, c controllers.Context) error {
	core := c.Informers.Core().V1()
	leases := c.Informers.Coordination().V1().Leases()
	n := &controller{
		client: c.Client("node-controller"), recorder: c.Recorder("node-controller"), nodes: core.Nodes().Lister(), pods: core.Pods().Lister(), leases: leases.Lister(),
		clock: c.Clock, queue: controllers.NewQueue("node_lifecycle_controller", c.Clock), evict: controllers.NewQueue("taint_eviction_controller", c.Clock), health: map[string]health{},
	}
	leaseInf := leases.Informer()
	controllers.Handle(core.Nodes().Informer(), func(o *v1.Node) { n.queue.Add(o.Name) }, nil, func(o *v1.Node) {
		n.mu.Lock()
		delete(n.health, o.Name)
		n.mu.Unlock()
	})
	controllers.Handle(core.Pods().Informer(), func(p *v1.Pod) {
		if p.Spec.NodeName != "" && p.DeletionTimestamp == nil {
			n.evict.Add(controllers.Key(p))
		}
	}, func(old, p *v1.Pod) {
		if p.Spec.NodeName != "" && p.DeletionTimestamp == nil && (old.Spec.NodeName == "" || len(old.Spec.Tolerations) != len(p.Spec.Tolerations)) {
			n.evict.Add(controllers.Key(p))
		}
	}, func(*v1.Pod) {})
	synced := []cache.SharedIndexInformer{core.Nodes().Informer(), core.Pods().Informer(), leaseInf}
	nodeLoop := controllers.Loop{Name: "node-lifecycle", Queue: n.queue, Workers: 1, Sync: n.syncNode, Synced: synced}
	podLoop := controllers.Loop{Name: "taint-eviction", Queue: n.evict, Workers: 2, Sync: n.syncPod, Synced: synced}
	go nodeLoop.Run(ctx)
	go podLoop.Run(ctx)
	go func() {
		if !controllers.WaitFor(ctx, synced...) {
			return
		}
		t := c.Clock.NewTicker(monitorPeriod)
		defer t.Stop()
		for {
			select {
			case <-t.C():
			case <-ctx.Done():
				return
			}
			all, err := n.nodes.List(labels.Everything())
			if err != nil {
				continue
			}
			for _, o := range all {
				if n.silent(o) {
					n.queue.Add(o.Name)
				}
			}
		}
	}()
	return nil
}

func condition(node *v1.Node, t v1.NodeConditionType) *v1.NodeCondition {
	for i := range node.Status.Conditions {
		if node.Status.Conditions[i].Type == t {
			return &node.Status.Conditions[i]
		}
	}
	return nil
}

// silent says that a node has not been heard of for longer than it may.
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

// syncNode brings a node's conditions and taints to what is known of it.
func (n *controller) syncNode(ctx context.Context, name string) error {
	node, err := n.nodes.Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	ctx = trace.WithCause(ctx, node)
	if n.silent(node) {
		if node, err = n.unknown(ctx, node); err != nil {
			return err
		}
	}
	if node, err = n.taint(ctx, node); err != nil {
		return err
	}
	if c := condition(node, v1.NodeReady); c != nil && c.Status != v1.ConditionTrue {
		if err := n.unready(ctx, node); err != nil {
			return err
		}
	}
	if slices.ContainsFunc(node.Spec.Taints, func(t v1.Taint) bool { return t.Effect == v1.TaintEffectNoExecute }) {
		return n.each(node.Name, func(p *v1.Pod) error {
			n.evict.Add(controllers.Key(p))
			return nil
		})
	}
	return nil
}

func (n *controller) each(node string, f func(*v1.Pod) error) error {
	all, err := n.pods.List(labels.Everything())
	if err != nil {
		return err
	}
	for _, p := range all {
		if p.Spec.NodeName == node && p.DeletionTimestamp == nil {
			if err := f(p); err != nil {
				return err
			}
		}
	}
	return nil
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

// wanted are the taints that a node's conditions and cordon make.
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
	return n.each(node.Name, func(p *v1.Pod) error {
		for i := range p.Status.Conditions {
			if c := &p.Status.Conditions[i]; c.Type != v1.PodReady || c.Status != v1.ConditionTrue {
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
	})
}

// syncPod evicts a pod when its time on a tainted node is over.
func (n *controller) syncPod(ctx context.Context, key string) error {
	ns, name, err := cache.SplitMetaNamespaceKey(key)
	if err != nil {
		return nil //nolint:nilerr // never to be retried
	}
	pod, err := n.pods.Pods(ns).Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil || pod.Spec.NodeName == "" || pod.DeletionTimestamp != nil {
		return err
	}
	node, err := n.nodes.Get(pod.Spec.NodeName)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	wait := time.Duration(-1) // for ever
	for i := range node.Spec.Taints {
		t := &node.Spec.Taints[i]
		if t.Effect != v1.TaintEffectNoExecute {
			continue
		}
		left, tolerated := stay(ctx, pod, t, n.clock.Now())
		if !tolerated {
			wait = 0
		} else if left >= 0 && (wait < 0 || left < wait) {
			wait = left
		}
	}
	switch {
	case wait < 0:
		return nil
	case wait > 0:
		n.evict.AddAfter(key, wait)
		return nil
	}
	ctx = trace.WithCause(ctx, node)
	n.recorder.Event(pod, v1.EventTypeNormal, "TaintManagerEviction", fmt.Sprintf("Marking for deletion Pod %s/%s", ns, name))
	out := pod.DeepCopy()
	out.Status.Conditions = append(slices.DeleteFunc(out.Status.Conditions, func(c v1.PodCondition) bool { return c.Type == v1.DisruptionTarget }),
		v1.PodCondition{Type: v1.DisruptionTarget, Status: v1.ConditionTrue, Reason: "DeletionByTaintManager", Message: "Taint manager: deleting due to NoExecute taint",
			LastTransitionTime: metav1.NewTime(n.clock.Now().UTC().Truncate(time.Second))})
	if _, err := n.client.CoreV1().Pods(ns).UpdateStatus(ctx, out, metav1.UpdateOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	err = n.client.CoreV1().Pods(ns).Delete(ctx, name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(pod.UID))})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}

// stay gives how long a pod may stay beside a taint; negative is for ever.
func stay(ctx context.Context, pod *v1.Pod, t *v1.Taint, now time.Time) (time.Duration, bool) {
	left, tolerated := time.Duration(-1), false
	for i := range pod.Spec.Tolerations {
		tol := &pod.Spec.Tolerations[i]
		if !corev1helpers.TolerationsTolerateTaint(klog.FromContext(ctx), []v1.Toleration{*tol}, t, true) {
			continue
		}
		tolerated = true
		if tol.TolerationSeconds == nil {
			continue
		}
		begin := now
		if t.TimeAdded != nil {
			begin = t.TimeAdded.Time
		}
		d := max(0, begin.Add(time.Duration(*tol.TolerationSeconds)*time.Second).Sub(now))
		if left < 0 || d < left {
			left = d
		}
	}
	return left, tolerated && left != 0
}
