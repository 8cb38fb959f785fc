package daemonset

import (
	"context"
	"errors"
	"strconv"
	"time"

	apps "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	appsinformers "k8s.io/client-go/informers/apps/v1"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/controllers/history"
	"keelson.dev/keelson/internal/reconcile"
)

const (
	// burst bounds the pods that are made or deleted at once.
	burst = 250
	// firstBackoff and longestBackoff bound the time between the failure of a pod
	// and its deletion; each failure on a node doubles it.
	firstBackoff, longestBackoff = time.Second, 15 * time.Minute
	backoffCleaning              = time.Minute
)

var gvk = apps.SchemeGroupVersion.WithKind("DaemonSet")

type controller struct {
	client   kubernetes.Interface
	recorder record.EventRecorder
	control  controllers.PodControl
	clock    clock.WithTicker
	sets     appsinformers.DaemonSetInformer
	nodes    corelisters.NodeLister
	pods     cache.Indexer
	history  history.Store
	queue    reconcile.Queue
	expect   *controllers.Expectations
	failures *flowcontrol.Backoff
}

// New makes the controller.
func New(c controllers.Context) (reconcile.Run, error) {
	core := c.Informers.Core().V1()
	pods, nodes, revisions := core.Pods().Informer(), core.Nodes(), c.Informers.Apps().V1().ControllerRevisions()
	controllers.IndexPods(pods)
	d := &controller{
		client: c.Client(), recorder: c.Recorder(), clock: c.Clock, sets: c.Informers.Apps().V1().DaemonSets(), nodes: nodes.Lister(), pods: pods.GetIndexer(),
		queue: c.Queue("daemonset"), expect: controllers.NewExpectations(c.Clock), failures: flowcontrol.NewBackOffWithJitter(firstBackoff, longestBackoff, 0),
	}
	d.failures.Clock = c.Clock
	d.control = controllers.NewPodControl(d.client, d.recorder, c.Clock)
	d.history = history.Store{Client: d.client, Lister: revisions.Lister()}
	reconcile.Handle(d.sets.Informer(), reconcile.Enqueue[*apps.DaemonSet](d.queue), func(old, cur *apps.DaemonSet) {
		if old.UID != cur.UID {
			d.expect.Forget(reconcile.Key(old))
		}
		d.queue.Add(reconcile.Key(cur))
	}, nil)
	reconcile.HandleListed(pods, d.podAdded, d.podUpdated, d.podDeleted)
	reconcile.Handle(nodes.Informer(), func(*v1.Node) { d.enqueueAll() }, func(old, cur *v1.Node) {
		if !equality.Semantic.DeepEqual(old.Spec, cur.Spec) || !equality.Semantic.DeepEqual(old.Labels, cur.Labels) {
			d.enqueueAll()
		}
	}, nil)
	loop := reconcile.Loop[*apps.DaemonSet]{
		Queue: d.queue, Workers: c.Workers(2), For: d.sets.Informer(), Reconcile: d.reconcile,
		Reads: []cache.SharedIndexInformer{pods, nodes.Informer(), revisions.Informer()},
		Gone: func(_ context.Context, key string) error {
			d.expect.Forget(key)
			return nil
		},
	}
	return reconcile.Together(loop.Run, reconcile.Every(c.Clock, backoffCleaning, func(context.Context) { d.failures.GC() })), nil
}

func (d *controller) enqueueAll() {
	all, _ := d.sets.Lister().List(labels.Everything())
	for _, ds := range all {
		d.queue.Add(reconcile.Key(ds))
	}
}

// owner returns the key of the set that a pod names as its controller.
func (d *controller) owner(pod *v1.Pod) (string, bool) {
	ref := metav1.GetControllerOfNoCopy(pod)
	if ref == nil || ref.Kind != gvk.Kind {
		return "", false
	}
	ds, err := d.sets.Lister().DaemonSets(pod.Namespace).Get(ref.Name)
	if err != nil || ds.UID != ref.UID {
		return "", false
	}
	return reconcile.Key(ds), true
}

func (d *controller) podAdded(pod *v1.Pod, listed bool) {
	if pod.DeletionTimestamp != nil {
		d.podDeleted(pod)
		return
	}
	if metav1.GetControllerOfNoCopy(pod) == nil {
		d.enqueueMatching(pod)
	} else if key, ok := d.owner(pod); ok {
		if !listed {
			d.expect.Created(key)
		}
		d.queue.Add(key)
	}
}

func (d *controller) podUpdated(old, cur *v1.Pod) {
	if old.ResourceVersion == cur.ResourceVersion {
		return
	}
	if cur.DeletionTimestamp != nil {
		d.podDeleted(cur)
		return
	}
	was, is := metav1.GetControllerOfNoCopy(old), metav1.GetControllerOfNoCopy(cur)
	changed := !equality.Semantic.DeepEqual(was, is)
	if changed && was != nil {
		if key, ok := d.owner(old); ok {
			d.queue.Add(key)
		}
	}
	if is == nil {
		if changed || !equality.Semantic.DeepEqual(old.Labels, cur.Labels) {
			d.enqueueMatching(cur)
		}
	} else if key, ok := d.owner(cur); ok {
		d.queue.Add(key)
	}
}

func (d *controller) podDeleted(pod *v1.Pod) {
	if key, ok := d.owner(pod); ok {
		d.expect.Gone(key, reconcile.Key(pod))
		d.queue.Add(key)
	}
}

// enqueueMatching queues the sets that may adopt a pod.
func (d *controller) enqueueMatching(pod *v1.Pod) {
	sets, _ := d.sets.Lister().DaemonSets(pod.Namespace).List(labels.Everything())
	for _, ds := range sets {
		if sel, err := metav1.LabelSelectorAsSelector(ds.Spec.Selector); err == nil && !sel.Empty() && sel.Matches(labels.Set(pod.Labels)) {
			d.queue.Add(reconcile.Key(ds))
		}
	}
}

func (d *controller) reconcile(ctx context.Context, shared *apps.DaemonSet) (reconcile.Result, error) {
	if equality.Semantic.DeepEqual(shared.Spec.Selector, &metav1.LabelSelector{}) {
		d.recorder.Eventf(shared, v1.EventTypeWarning, "SelectingAll", "This daemon set is selecting all pods. A non-empty selector is required.")
		return reconcile.Result{}, nil
	}
	if shared.DeletionTimestamp != nil {
		return reconcile.Result{}, nil // the garbage collector takes the pods
	}
	selector, err := metav1.LabelSelectorAsSelector(shared.Spec.Selector)
	if err != nil {
		klog.FromContext(ctx).Error(err, "Error converting pod selector to selector", "daemonset", klog.KObj(shared))
		return reconcile.Result{}, nil
	}
	satisfied := d.expect.Satisfied(reconcile.Key(shared)) // before the caches are read
	p := &pass{controller: d, ds: shared.DeepCopy(), key: reconcile.Key(shared), selector: selector, now: d.clock.Now()}
	if err := p.find(ctx); err != nil {
		return reconcile.Result{}, err
	}
	old, err := p.revisions(ctx)
	if err != nil {
		return reconcile.Result{}, err
	}
	if satisfied {
		err = p.manage(ctx)
		if err == nil && d.expect.Satisfied(p.key) {
			if p.ds.Spec.UpdateStrategy.Type == apps.RollingUpdateDaemonSetStrategyType {
				err = p.roll(ctx)
			}
			err = errors.Join(err, p.truncate(ctx, old))
		}
	}
	err = errors.Join(err, p.writeStatus(ctx, satisfied))
	return reconcile.Result{RequeueAfter: p.again}, err
}

// fresh reads a set past the cache.
func (d *controller) fresh(ds *apps.DaemonSet) func(context.Context) (metav1.Object, error) {
	return func(ctx context.Context) (metav1.Object, error) {
		return d.client.AppsV1().DaemonSets(ds.Namespace).Get(ctx, ds.Name, metav1.GetOptions{})
	}
}

// generation returns the template's generation from a deprecated annotation, which
// pods had as a label before there were revisions; nil without one.
func generation(ds *apps.DaemonSet) *int64 {
	n, err := strconv.ParseInt(ds.Annotations[apps.DeprecatedTemplateGeneration], 10, 64)
	if err != nil {
		return nil
	}
	return &n
}
