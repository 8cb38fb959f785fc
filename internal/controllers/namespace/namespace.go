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

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/trace"
)

const (
	component = "namespace-controller"
	// quickLooks is after how many looks at an ever doubled interval the
	// controller goes by the estimate of what is left.
	quickLooks = 9
	firstLook  = 5 * time.Millisecond
)

type controller struct {
	client    kubernetes.Interface
	metadata  metadata.Interface
	discovery discovery.DiscoveryInterface
	informer  cache.SharedIndexInformer
	queue     controllers.Queue

	mu    sync.Mutex
	looks map[string]int
}

// Start runs the controller until ctx is done.
func Start(ctx context.Context, c controllers.Context) error {
	n := &controller{
		client: c.Client(component), metadata: c.Metadata, discovery: c.Discovery,
		informer: c.Informers.Core().V1().Namespaces().Informer(), queue: controllers.NewQueue("namespace", c.Clock),
		looks: map[string]int{},
	}
	pods := c.Informers.Core().V1().Pods().Informer()
	controllers.Handle(n.informer, func(ns *v1.Namespace) {
		if ns.DeletionTimestamp != nil {
			n.queue.Add(ns.Name)
		}
	}, nil, func(ns *v1.Namespace) { n.forgetLooks(ns.Name) })
	// Pods take the longest to go, and all else waits for them.
	controllers.Handle(pods, func(*v1.Pod) {}, nil, func(p *v1.Pod) {
		if obj, ok, _ := n.informer.GetIndexer().GetByKey(p.Namespace); ok && obj.(*v1.Namespace).DeletionTimestamp != nil {
			n.forgetLooks(p.Namespace)
			n.queue.Add(p.Namespace)
		}
	})
	loop := controllers.Loop{
		Name: component, Queue: n.queue, Workers: 4, Synced: []cache.SharedIndexInformer{n.informer, pods},
		Sync: n.sync,
	}
	go loop.Run(ctx)
	return nil
}

func (n *controller) sync(ctx context.Context, name string) error {
	_, ok, err := n.informer.GetIndexer().GetByKey(name)
	if err != nil || !ok {
		n.forgetLooks(name)
		return err
	}
	// What is about to be emptied must be the namespace of now, not one of the
	// same name that the cache remembers.
	ns, err := n.client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil || ns.DeletionTimestamp == nil {
		return err
	}
	ctx = trace.WithCause(ctx, ns)
	if ns.Status.Phase != v1.NamespaceTerminating {
		ns = ns.DeepCopy()
		ns.Status.Phase = v1.NamespaceTerminating
		if ns, err = n.client.CoreV1().Namespaces().UpdateStatus(ctx, ns, metav1.UpdateOptions{}); err != nil {
			return ignoreGone(err)
		}
	}
	if len(ns.Spec.Finalizers) == 0 {
		return nil
	}
	left, found, err := n.empty(ctx, ns)
	if next := found.apply(ns); next != nil {
		updated, updateErr := n.client.CoreV1().Namespaces().UpdateStatus(ctx, next, metav1.UpdateOptions{})
		if updateErr != nil {
			return errors.Join(err, ignoreGone(updateErr))
		}
		ns = updated
	}
	if err != nil {
		return err
	}
	if left > 0 {
		n.lookAgain(name, left)
		return nil
	}
	ns = ns.DeepCopy()
	ns.Spec.Finalizers = slices.DeleteFunc(ns.Spec.Finalizers, func(f v1.FinalizerName) bool { return f == v1.FinalizerKubernetes })
	_, err = n.client.CoreV1().Namespaces().Finalize(ctx, ns, metav1.UpdateOptions{})
	return ignoreGone(err)
}

// lookAgain comes back to a namespace in which something is left: at first
// soon, for most objects go at once, later after about half of the estimate.
// Nothing tells of the end of an object of an arbitrary kind.
func (n *controller) lookAgain(name string, estimate time.Duration) {
	n.mu.Lock()
	looks := n.looks[name]
	n.looks[name] = looks + 1
	n.mu.Unlock()
	if looks < quickLooks {
		n.queue.AddAfter(name, firstLook<<looks)
		return
	}
	n.queue.AddAfter(name, estimate/2+time.Second)
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
