package namespace

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/reconcile"
)

const (
	// quickLooks is after how many looks at an ever doubled interval the
	// controller goes by the estimate of what is left.
	quickLooks = 9
	firstLook  = 5 * time.Millisecond
	// slowLook is the longest interval between looks, and slowRetry the longest between
	// attempts that fail, as where a group of resources is not served.
	slowLook  = 5 * time.Minute
	slowRetry = time.Minute
)

type controller struct {
	client    kubernetes.Interface
	metadata  metadata.Interface
	discovery discovery.DiscoveryInterface
	informer  cache.SharedIndexInformer
	queue     reconcile.Queue
	clock     clock.PassiveClock

	mu    sync.Mutex
	looks map[string]int
}

// New makes the controller; it is nil where the cluster's resources cannot be
// reached.
func New(c controllers.Context) (reconcile.Run, error) {
	n := &controller{
		client: c.Client(), metadata: c.Metadata(), discovery: c.Discovery,
		informer: c.Informers.Core().V1().Namespaces().Informer(), queue: c.QueueUpTo("namespace", slowRetry), clock: c.Clock,
		looks: map[string]int{},
	}
	if n.metadata == nil || n.discovery == nil {
		return nil, nil
	}
	pods := c.Informers.Core().V1().Pods().Informer()
	reconcile.Handle(n.informer, func(ns *v1.Namespace) {
		if ns.DeletionTimestamp != nil {
			n.queue.Add(ns.Name)
		}
	}, nil, func(ns *v1.Namespace) { n.forgetLooks(ns.Name) })
	// Pods take the longest to go, and all else waits for them.
	reconcile.Handle(pods, nil, nil, func(p *v1.Pod) {
		if obj, ok, _ := n.informer.GetIndexer().GetByKey(p.Namespace); ok && obj.(*v1.Namespace).DeletionTimestamp != nil {
			n.forgetLooks(p.Namespace)
			n.queue.Add(p.Namespace)
		}
	})
	return reconcile.Loop[*v1.Namespace]{
		Queue: n.queue, Workers: c.Workers(4), For: n.informer, Reads: []cache.SharedIndexInformer{pods},
		Reconcile: func(ctx context.Context, ns *v1.Namespace) (reconcile.Result, error) {
			left, err := n.finish(ctx, ns.Name)
			if err != nil || left == 0 {
				return reconcile.Result{}, err
			}
			return reconcile.Result{RequeueAfter: n.nextLook(ns, left)}, nil
		},
		Gone: func(_ context.Context, name string) error {
			n.forgetLooks(name)
			return nil
		},
	}.Run, nil
}

// finish empties a namespace that is being deleted, and lets it go when nothing
// is left; else it returns an estimate of how long what is left will take.
func (n *controller) finish(ctx context.Context, name string) (time.Duration, error) {
	// What is about to be emptied must be the namespace of now, not one of the
	// same name that the cache remembers.
	ns, err := n.client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
	if err != nil || ns.DeletionTimestamp == nil {
		return 0, ignoreGone(err)
	}
	if ns.Status.Phase != v1.NamespaceTerminating {
		ns = ns.DeepCopy()
		ns.Status.Phase = v1.NamespaceTerminating
		if ns, err = n.client.CoreV1().Namespaces().UpdateStatus(ctx, ns, metav1.UpdateOptions{}); err != nil {
			return 0, ignoreGone(err)
		}
	}
	if len(ns.Spec.Finalizers) == 0 {
		return 0, nil
	}
	left, found, err := n.empty(ctx, ns)
	if next := found.apply(ns); next != nil {
		updated, updateErr := n.client.CoreV1().Namespaces().UpdateStatus(ctx, next, metav1.UpdateOptions{})
		if updateErr != nil {
			return 0, errors.Join(err, ignoreGone(updateErr))
		}
		ns = updated
	}
	if err != nil || left > 0 {
		return left, err
	}
	ns = ns.DeepCopy()
	ns.Spec.Finalizers = slices.DeleteFunc(ns.Spec.Finalizers, func(f v1.FinalizerName) bool { return f == v1.FinalizerKubernetes })
	_, err = n.client.CoreV1().Namespaces().Finalize(ctx, ns, metav1.UpdateOptions{})
	return 0, ignoreGone(err)
}

// nextLook returns when to come back to a namespace in which something is left: at
// first soon, for most objects go at once, later after about half of the estimate, and
// ever more rarely the longer it takes. There is no event for the end of an
// object of an arbitrary kind.
func (n *controller) nextLook(ns *v1.Namespace, estimate time.Duration) time.Duration {
	n.mu.Lock()
	looks := n.looks[ns.Name]
	n.looks[ns.Name] = looks + 1
	n.mu.Unlock()
	if looks < quickLooks {
		return firstLook << looks
	}
	return max(estimate/2+time.Second, min(n.clock.Since(ns.DeletionTimestamp.Time)/10, slowLook))
}

func (n *controller) forgetLooks(name string) {
	n.mu.Lock()
	delete(n.looks, name)
	n.mu.Unlock()
}

func ignoreGone(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
