package podgc

import (
	"cmp"
	"context"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/reconcile"
	"keelson.dev/keelson/internal/trace"
)

// Upstream's figures.
const (
	period     = 20 * time.Second
	quarantine = 40 * time.Second
)

type collector struct {
	client kubernetes.Interface
	pods   corelisters.PodLister
	nodes  corelisters.NodeLister
	clock  clock.WithTicker
	gone   map[string]time.Time // node → since when it is missed
	most   int                  // of pods that have ended; any number where it is not positive
}

// New makes the collector.
func New(c controllers.Context) (reconcile.Run, error) {
	pods, nodes := c.Informers.Core().V1().Pods(), c.Informers.Core().V1().Nodes()
	g := &collector{c.Client(), pods.Lister(), nodes.Lister(), c.Clock, map[string]time.Time{}, c.Tuned().TerminatedPodGCThreshold}
	return reconcile.Every(c.Clock, period, g.collect, pods.Informer(), nodes.Informer()), nil
}

func terminated(p *v1.Pod) bool {
	return p.Status.Phase == v1.PodSucceeded || p.Status.Phase == v1.PodFailed
}

// collect deletes the pods that nothing else does: those of nodes that have gone or
// are out of service, those that were deleted before they had a node, and the oldest
// of those that have ended where there are too many.
func (g *collector) collect(ctx context.Context) {
	pods, err := g.pods.List(labels.Everything())
	if err != nil {
		return
	}
	var ended []*v1.Pod
	missed := map[string]bool{}
	for _, p := range pods {
		switch node, err := g.nodes.Get(p.Spec.NodeName); {
		case p.Spec.NodeName == "":
			if p.DeletionTimestamp != nil {
				g.end(ctx, p)
			}
		case apierrors.IsNotFound(err):
			missed[p.Spec.NodeName] = true
			if g.away(ctx, p.Spec.NodeName) {
				g.end(ctx, p, v1.PodCondition{Type: v1.DisruptionTarget, Status: v1.ConditionTrue, ObservedGeneration: p.Generation, Reason: "DeletionByPodGC", Message: "PodGC: node no longer exists"})
				continue
			}
		case err == nil && p.DeletionTimestamp != nil && outOfService(node):
			g.end(ctx, p)
			continue
		}
		if terminated(p) {
			ended = append(ended, p)
		}
	}
	for n := range g.gone {
		if !missed[n] {
			delete(g.gone, n)
		}
	}
	if g.most > 0 && len(ended) > g.most {
		slices.SortFunc(ended, func(a, b *v1.Pod) int {
			if evicted(a) != evicted(b) { // those that were evicted go first
				if evicted(a) {
					return -1
				}
				return 1
			}
			return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
		})
		for _, p := range ended[:len(ended)-g.most] {
			g.delete(ctx, p)
		}
	}
}

// away reports whether a node has been missed for the quarantine, and the API server
// does not know it either.
func (g *collector) away(ctx context.Context, name string) bool {
	since, ok := g.gone[name]
	if !ok {
		g.gone[name] = g.clock.Now()
		return false
	}
	if g.clock.Since(since) < quarantine {
		return false
	}
	_, err := g.client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	return apierrors.IsNotFound(err)
}

// outOfService reports whether a node is not ready and has the taint by which an
// administrator confirms that its pods run no more.
func outOfService(n *v1.Node) bool {
	ready := slices.ContainsFunc(n.Status.Conditions, func(c v1.NodeCondition) bool { return c.Type == v1.NodeReady && c.Status == v1.ConditionTrue })
	return !ready && slices.ContainsFunc(n.Spec.Taints, func(t v1.Taint) bool { return t.Key == v1.TaintNodeOutOfService })
}

func evicted(p *v1.Pod) bool { return p.Status.Phase == v1.PodFailed && p.Status.Reason == "Evicted" }

// end marks a pod as failed, so that controllers and clients that wait for it see its
// end, and deletes it. One that cannot be marked waits for the next time.
func (g *collector) end(ctx context.Context, p *v1.Pod, conditions ...v1.PodCondition) {
	if !terminated(p) {
		n := p.DeepCopy()
		n.Status.Phase, n.Status.ObservedGeneration = v1.PodFailed, p.Generation
		for _, c := range conditions {
			controllers.SetPodCondition(&n.Status, c, g.clock)
		}
		if _, err := g.client.CoreV1().Pods(p.Namespace).UpdateStatus(trace.WithCause(ctx, p), n, metav1.UpdateOptions{}); err != nil {
			if !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
				klog.FromContext(ctx).Error(err, "Marking an orphaned pod failed", "pod", klog.KObj(p))
			}
			return
		}
	}
	g.delete(ctx, p)
}

func (g *collector) delete(ctx context.Context, p *v1.Pod) {
	err := g.client.CoreV1().Pods(p.Namespace).Delete(trace.WithCause(ctx, p), p.Name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0), Preconditions: metav1.NewUIDPreconditions(string(p.UID))})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		klog.FromContext(ctx).Error(err, "Deleting a pod failed", "pod", klog.KObj(p))
	}
}
