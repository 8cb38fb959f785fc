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
	threshold  = 12500
)

type collector struct {
	client kubernetes.Interface
	pods   corelisters.PodLister
	nodes  corelisters.NodeLister
	clock  clock.WithTicker
	gone   map[string]time.Time // node → since when it is missed
}

// New makes the collector.
func New(c controllers.Context) (reconcile.Run, error) {
	pods, nodes := c.Informers.Core().V1().Pods(), c.Informers.Core().V1().Nodes()
	g := &collector{c.Client(), pods.Lister(), nodes.Lister(), c.Clock, map[string]time.Time{}}
	return reconcile.Every(c.Clock, period, g.collect, pods.Informer(), nodes.Informer()), nil
}

func terminated(p *v1.Pod) bool {
	return p.Status.Phase == v1.PodSucceeded || p.Status.Phase == v1.PodFailed
}

func (g *collector) collect(ctx context.Context) {
	pods, err := g.pods.List(labels.Everything())
	if err != nil {
		return
	}
	var ended []*v1.Pod
	missed := map[string]bool{}
	now := g.clock.Now()
	for _, p := range pods {
		switch {
		case p.Spec.NodeName == "" && p.DeletionTimestamp != nil:
			g.delete(ctx, p)
		case p.Spec.NodeName != "":
			if _, err := g.nodes.Get(p.Spec.NodeName); apierrors.IsNotFound(err) {
				missed[p.Spec.NodeName] = true
				since, ok := g.gone[p.Spec.NodeName]
				if !ok {
					g.gone[p.Spec.NodeName] = now
				} else if now.Sub(since) >= quarantine {
					g.fail(ctx, p)
					g.delete(ctx, p)
					continue
				}
			}
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
	if len(ended) > threshold {
		slices.SortFunc(ended, func(a, b *v1.Pod) int {
			if c := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); c != 0 {
				return c
			}
			return cmp.Compare(a.Name, b.Name)
		})
		for _, p := range ended[:len(ended)-threshold] {
			g.delete(ctx, p)
		}
	}
}

// fail marks a pod whose node is gone as failed, so that controllers and
// clients that wait for it see its end.
func (g *collector) fail(ctx context.Context, p *v1.Pod) {
	if terminated(p) {
		return
	}
	n := p.DeepCopy()
	n.Status.Phase = v1.PodFailed
	n.Status.Conditions = append(slices.DeleteFunc(n.Status.Conditions, func(c v1.PodCondition) bool { return c.Type == v1.DisruptionTarget }),
		v1.PodCondition{Type: v1.DisruptionTarget, Status: v1.ConditionTrue, Reason: "DeletionByPodGC", Message: "PodGC: node no longer exists",
			LastTransitionTime: metav1.NewTime(g.clock.Now().UTC().Truncate(time.Second))})
	if _, err := g.client.CoreV1().Pods(p.Namespace).UpdateStatus(trace.WithCause(ctx, p), n, metav1.UpdateOptions{}); err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		klog.FromContext(ctx).Error(err, "Marking an orphaned pod failed", "pod", klog.KObj(p))
	}
}

func (g *collector) delete(ctx context.Context, p *v1.Pod) {
	err := g.client.CoreV1().Pods(p.Namespace).Delete(trace.WithCause(ctx, p), p.Name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0), Preconditions: metav1.NewUIDPreconditions(string(p.UID))})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		klog.FromContext(ctx).Error(err, "Deleting a pod failed", "pod", klog.KObj(p))
	}
}
