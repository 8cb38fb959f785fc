package deployment

import (
	"context"
	"slices"
	"time"

	apps "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	appsinformers "k8s.io/client-go/informers/apps/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/reconcile"
)

var gvk = apps.SchemeGroupVersion.WithKind("Deployment")

type controller struct {
	client      kubernetes.Interface
	recorder    record.EventRecorder
	clock       clock.Clock
	deployments appsinformers.DeploymentInformer
	replicaSets appsinformers.ReplicaSetInformer
	pods        cache.Indexer
	queue       reconcile.Queue
	// wrote knows the Deployments' statuses that were written, wroteSets the
	// ReplicaSets: a rollout acts on nothing older.
	wrote, wroteSets controllers.Writes
}

// New makes the controller.
func New(c controllers.Context) (reconcile.Run, error) {
	pods := c.Informers.Core().V1().Pods().Informer()
	controllers.IndexPods(pods)
	d := &controller{
		client: c.Client(), recorder: c.Recorder(), clock: c.Clock,
		deployments: c.Informers.Apps().V1().Deployments(), replicaSets: c.Informers.Apps().V1().ReplicaSets(),
		pods: pods.GetIndexer(), queue: c.Queue("deployment"),
	}
	reconcile.Handle(d.deployments.Informer(), reconcile.Enqueue[*apps.Deployment](d.queue), nil, nil)
	reconcile.Handle(d.replicaSets.Informer(), d.replicaSetChanged, func(old, cur *apps.ReplicaSet) {
		if old.ResourceVersion == cur.ResourceVersion {
			return
		}
		was, is := metav1.GetControllerOfNoCopy(old), metav1.GetControllerOfNoCopy(cur)
		ownerChanged := !equality.Semantic.DeepEqual(was, is)
		if ownerChanged && was != nil {
			d.enqueueOwner(old)
		}
		if is != nil {
			d.enqueueOwner(cur)
		} else if ownerChanged || !equality.Semantic.DeepEqual(old.Labels, cur.Labels) {
			d.replicaSetChanged(cur)
		}
	}, func(rs *apps.ReplicaSet) {
		d.wroteSets.Forget(reconcile.Key(rs))
		d.enqueueOwner(rs)
	})
	// A Recreate rollout waits for the last old pod to go.
	reconcile.Handle(pods, nil, nil, d.podDeleted)
	return reconcile.Loop[*apps.Deployment]{
		Queue: d.queue, Workers: c.Workers(5), For: d.deployments.Informer(), Reconcile: d.reconcile,
		Gone: func(_ context.Context, key string) error {
			d.wrote.Forget(key)
			return nil
		},
		Reads: []cache.SharedIndexInformer{d.replicaSets.Informer(), pods},
	}.Run, nil
}

func (d *controller) replicaSetChanged(rs *apps.ReplicaSet) {
	if metav1.GetControllerOfNoCopy(rs) != nil {
		d.enqueueOwner(rs)
		return
	}
	all, _ := d.deployments.Lister().Deployments(rs.Namespace).List(labels.Everything())
	for _, o := range all {
		if sel, err := metav1.LabelSelectorAsSelector(o.Spec.Selector); err == nil && !sel.Empty() && sel.Matches(labels.Set(rs.Labels)) {
			d.queue.Add(reconcile.Key(o))
		}
	}
}

func (d *controller) owner(rs *apps.ReplicaSet) *apps.Deployment {
	ref := metav1.GetControllerOfNoCopy(rs)
	if ref == nil || ref.Kind != gvk.Kind {
		return nil
	}
	o, err := d.deployments.Lister().Deployments(rs.Namespace).Get(ref.Name)
	if err != nil || o.UID != ref.UID {
		return nil
	}
	return o
}

func (d *controller) enqueueOwner(rs *apps.ReplicaSet) {
	if o := d.owner(rs); o != nil {
		d.queue.Add(reconcile.Key(o))
	}
}

func (d *controller) podDeleted(pod *v1.Pod) {
	ref := metav1.GetControllerOfNoCopy(pod)
	if ref == nil || ref.Kind != "ReplicaSet" {
		return
	}
	rs, err := d.replicaSets.Lister().ReplicaSets(pod.Namespace).Get(ref.Name)
	if err != nil || rs.UID != ref.UID {
		return
	}
	if o := d.owner(rs); o != nil && o.Spec.Strategy.Type == apps.RecreateDeploymentStrategyType {
		d.queue.Add(reconcile.Key(o))
	}
}

func (d *controller) reconcile(ctx context.Context, shared *apps.Deployment) (reconcile.Result, error) {
	if d.wrote.Behind(shared) {
		return reconcile.Result{}, nil // the newer one wakes it
	}
	r := &rollout{controller: d, d: shared.DeepCopy()}
	if equality.Semantic.DeepEqual(r.d.Spec.Selector, &metav1.LabelSelector{}) {
		d.recorder.Eventf(shared, v1.EventTypeWarning, "SelectingAll", "This deployment is selecting all pods. A non-empty selector is required.")
		if r.d.Status.ObservedGeneration < r.d.Generation {
			r.d.Status.ObservedGeneration = r.d.Generation
			return reconcile.Result{}, r.writeStatus(ctx)
		}
		return reconcile.Result{}, nil
	}
	var err error
	if r.all, err = d.claim(ctx, shared); err != nil {
		return reconcile.Result{}, err
	}
	if slices.ContainsFunc(r.all, func(rs *apps.ReplicaSet) bool { return d.wroteSets.Behind(rs) }) {
		return reconcile.Result{}, nil
	}
	err = r.run(ctx)
	return reconcile.Result{RequeueAfter: r.again}, err
}

// claim returns the ReplicaSets that o controls, after adoption and release.
func (d *controller) claim(ctx context.Context, o *apps.Deployment) ([]*apps.ReplicaSet, error) {
	selector, err := metav1.LabelSelectorAsSelector(o.Spec.Selector)
	if err != nil {
		klog.FromContext(ctx).Error(err, "Invalid label selector", "deployment", klog.KObj(o))
		return nil, err
	}
	sets, err := d.replicaSets.Lister().ReplicaSets(o.Namespace).List(labels.Everything())
	if err != nil {
		return nil, err
	}
	claimer := controllers.Claimer[*apps.ReplicaSet]{
		Owner: o, Kind: gvk, Selector: selector,
		Fresh: func(ctx context.Context) (metav1.Object, error) {
			return d.client.AppsV1().Deployments(o.Namespace).Get(ctx, o.Name, metav1.GetOptions{})
		},
		Patch: func(ctx context.Context, rs *apps.ReplicaSet, data []byte) error {
			_, err := d.client.AppsV1().ReplicaSets(rs.Namespace).Patch(ctx, rs.Name, types.StrategicMergePatchType, data, metav1.PatchOptions{})
			return err
		},
	}
	return claimer.Claim(ctx, sets)
}

// stuckAfter returns the time until the progress deadline of an unfinished rollout
// has passed, since nothing else would happen then.
func (d *controller) stuckAfter(o *apps.Deployment, s *apps.DeploymentStatus) time.Duration {
	cond := condition(o.Status, apps.DeploymentProgressing)
	if cond == nil || !hasDeadline(o) || complete(o, s) || cond.Reason == reasonTimedOut {
		return 0
	}
	return max(0, cond.LastUpdateTime.Add(deadline(o)).Sub(d.clock.Now())) + time.Second
}
