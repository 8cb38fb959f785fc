package tainteviction

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	corev1helpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/reconcile"
	"keelson.dev/keelson/internal/trace"
)

type controller struct {
	client   kubernetes.Interface
	recorder record.EventRecorder
	nodes    corelisters.NodeLister
	pods     cache.Indexer
	clock    clock.PassiveClock
	queue    reconcile.Queue

	mu sync.Mutex
	// since is from when the pods that bear a taint for some time are counted: few
	// taints tell when they were added.
	since map[types.UID]time.Time
	// waiting are the pods whose time is known.
	waiting sets.Set[types.UID]
}

// New makes the controller.
func New(c controllers.Context) (reconcile.Run, error) {
	nodes, pods := c.Informers.Core().V1().Nodes(), c.Informers.Core().V1().Pods().Informer()
	controllers.IndexPods(pods)
	e := &controller{client: c.Client(), recorder: c.Recorder(), nodes: nodes.Lister(), pods: pods.GetIndexer(), clock: c.Clock, queue: c.Queue("taint_eviction_controller"), since: map[types.UID]time.Time{}, waiting: sets.New[types.UID]()}
	reconcile.Handle(nodes.Informer(), func(n *v1.Node) { e.tainted(n) }, func(old, n *v1.Node) {
		if !equality.Semantic.DeepEqual(old.Spec.Taints, n.Spec.Taints) {
			e.tainted(old, n)
		}
	}, reconcile.Ignore)
	reconcile.Handle(pods, func(p *v1.Pod) {
		if p.Spec.NodeName != "" {
			e.queue.Add(reconcile.Key(p))
		}
	}, func(old, p *v1.Pod) {
		if p.Spec.NodeName != "" && (old.Spec.NodeName == "" || !equality.Semantic.DeepEqual(old.Spec.Tolerations, p.Spec.Tolerations)) {
			e.queue.Add(reconcile.Key(p))
		}
	}, func(p *v1.Pod) { e.forget(p) })
	return reconcile.Loop[*v1.Pod]{Queue: e.queue, Workers: 2, For: pods, Reads: []cache.SharedIndexInformer{nodes.Informer()}, Reconcile: e.reconcile}.Run, nil
}

// tainted queues the pods of a node that has, or had, a NoExecute taint.
func (e *controller) tainted(states ...*v1.Node) {
	if !slices.ContainsFunc(states, func(n *v1.Node) bool {
		return slices.ContainsFunc(n.Spec.Taints, func(t v1.Taint) bool { return t.Effect == v1.TaintEffectNoExecute })
	}) {
		return
	}
	pods, _ := controllers.PodsOn(e.pods, states[0].Name)
	for _, p := range pods {
		e.queue.Add(reconcile.Key(p))
	}
}

// from returns when the pod began to bear the taints of its node.
func (e *controller) from(pod *v1.Pod) time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	t, ok := e.since[pod.UID]
	if !ok {
		t = e.clock.Now()
		e.since[pod.UID] = t
	}
	return t
}

// forget forgets a pod, and reports whether it waited for its eviction.
func (e *controller) forget(pod *v1.Pod) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	waited := e.waiting.Has(pod.UID)
	delete(e.since, pod.UID)
	e.waiting.Delete(pod.UID)
	return waited
}

// await notes that the time of a pod is known.
func (e *controller) await(pod *v1.Pod) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.waiting.Insert(pod.UID)
}

// reconcile evicts a pod when its time on a tainted node is over.
func (e *controller) reconcile(ctx context.Context, pod *v1.Pod) (reconcile.Result, error) {
	if pod.Spec.NodeName == "" || pod.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	node, err := e.nodes.Get(pod.Spec.NodeName)
	if err != nil {
		return reconcile.Result{}, ignoreGone(err)
	}
	wait := e.wait(ctx, pod, node)
	if wait == 0 {
		// The cache may be behind: a taint that has been lifted evicts nobody.
		if node, err = e.client.CoreV1().Nodes().Get(ctx, node.Name, metav1.GetOptions{}); err != nil {
			return reconcile.Result{}, ignoreGone(err)
		}
		wait = e.wait(ctx, pod, node)
	}
	if wait < 0 {
		if e.forget(pod) {
			e.recorder.Event(pod, v1.EventTypeNormal, "TaintManagerEviction", fmt.Sprintf("Cancelling deletion of Pod %s/%s", pod.Namespace, pod.Name))
		}
		return reconcile.Result{}, nil
	}
	if wait > 0 {
		e.await(pod)
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	ctx = trace.WithCause(ctx, node)
	e.recorder.Event(pod, v1.EventTypeNormal, "TaintManagerEviction", fmt.Sprintf("Marking for deletion Pod %s/%s", pod.Namespace, pod.Name))
	_, err = controllers.Disrupt(ctx, e.client, e.clock, pod, "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint")
	return reconcile.Result{}, err
}

// wait returns for how long the pod may stay on the node yet; negative is for ever.
func (e *controller) wait(ctx context.Context, pod *v1.Pod, node *v1.Node) time.Duration {
	wait := time.Duration(-1)
	for i := range node.Spec.Taints {
		t := &node.Spec.Taints[i]
		if t.Effect != v1.TaintEffectNoExecute {
			continue
		}
		left, tolerated := stay(ctx, pod, t, e.from(pod), e.clock.Now())
		if !tolerated {
			return 0
		}
		if left >= 0 && (wait < 0 || left < wait) {
			wait = left
		}
	}
	return wait
}

func ignoreGone(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// stay returns how long a pod may stay beside a taint that it has borne since from, or
// since the taint was added if that is known; negative is for ever.
func stay(ctx context.Context, pod *v1.Pod, t *v1.Taint, from, now time.Time) (time.Duration, bool) {
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
		begin := from
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
