package statefulset

import (
	"context"
	"errors"
	"slices"

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
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/controllers/history"
	"keelson.dev/keelson/internal/reconcile"
)

var gvk = apps.SchemeGroupVersion.WithKind("StatefulSet")

type controller struct {
	client   kubernetes.Interface
	recorder record.EventRecorder
	clock    clock.Clock
	sets     appsinformers.StatefulSetInformer
	pods     cache.Indexer
	claims   corelisters.PersistentVolumeClaimLister
	history  history.Store
	queue    reconcile.Queue
}

// New makes the controller.
func New(c controllers.Context) (reconcile.Run, error) {
	pods, claims := c.Informers.Core().V1().Pods().Informer(), c.Informers.Core().V1().PersistentVolumeClaims()
	revisions := c.Informers.Apps().V1().ControllerRevisions()
	controllers.IndexPods(pods)
	s := &controller{
		client: c.Client(), recorder: c.Recorder(), clock: c.Clock, sets: c.Informers.Apps().V1().StatefulSets(),
		pods: pods.GetIndexer(), claims: claims.Lister(), queue: c.Queue("statefulset"),
	}
	s.history = history.Store{Client: s.client, Lister: revisions.Lister()}
	reconcile.Handle(s.sets.Informer(), reconcile.Enqueue[*apps.StatefulSet](s.queue), nil, nil)
	reconcile.Handle(pods, s.podChanged, func(old, cur *v1.Pod) {
		if old.ResourceVersion == cur.ResourceVersion {
			return
		}
		was, is := metav1.GetControllerOfNoCopy(old), metav1.GetControllerOfNoCopy(cur)
		changed := !equality.Semantic.DeepEqual(was, is)
		if changed && was != nil {
			s.enqueueOwner(old)
		}
		if is != nil || changed || !equality.Semantic.DeepEqual(old.Labels, cur.Labels) {
			s.podChanged(cur)
		}
	}, s.enqueueOwner)
	// What a set waits for may be that a claim of a former pod has gone.
	reconcile.Handle(claims.Informer(), nil, nil, s.claimDeleted)
	return reconcile.Loop[*apps.StatefulSet]{
		Queue: s.queue, Workers: c.Workers(5), For: s.sets.Informer(), Reconcile: s.reconcile,
		Reads: []cache.SharedIndexInformer{pods, claims.Informer(), revisions.Informer()},
	}.Run, nil
}

// podChanged queues the set that controls a pod or else those that may adopt it.
func (s *controller) podChanged(pod *v1.Pod) {
	if metav1.GetControllerOfNoCopy(pod) != nil {
		s.enqueueOwner(pod)
		return
	}
	if pod.DeletionTimestamp != nil {
		return
	}
	parent, _ := identity(pod)
	set, err := s.sets.Lister().StatefulSets(pod.Namespace).Get(parent)
	if err != nil {
		return
	}
	if sel, err := metav1.LabelSelectorAsSelector(set.Spec.Selector); err == nil && !sel.Empty() && sel.Matches(labels.Set(pod.Labels)) {
		s.queue.Add(reconcile.Key(set))
	}
}

func (s *controller) enqueueOwner(pod *v1.Pod) {
	ref := metav1.GetControllerOfNoCopy(pod)
	if ref == nil || ref.Kind != gvk.Kind {
		return
	}
	if set, err := s.sets.Lister().StatefulSets(pod.Namespace).Get(ref.Name); err == nil && set.UID == ref.UID {
		s.queue.Add(reconcile.Key(set))
	}
}

// claimDeleted queues the sets that have a pod with a claim of that name.
func (s *controller) claimDeleted(claim *v1.PersistentVolumeClaim) {
	sets, _ := s.sets.Lister().StatefulSets(claim.Namespace).List(labels.Everything())
	for _, set := range sets {
		for i := range set.Spec.VolumeClaimTemplates {
			if claimOf(&set.Spec.VolumeClaimTemplates[i], set, claim.Name) {
				s.queue.Add(reconcile.Key(set))
			}
		}
	}
}

func (s *controller) reconcile(ctx context.Context, shared *apps.StatefulSet) (reconcile.Result, error) {
	selector, err := metav1.LabelSelectorAsSelector(shared.Spec.Selector)
	if err != nil {
		klog.FromContext(ctx).Error(err, "Error converting StatefulSet selector", "statefulSet", klog.KObj(shared))
		return reconcile.Result{}, nil
	}
	fresh := func(ctx context.Context) (metav1.Object, error) {
		return s.client.AppsV1().StatefulSets(shared.Namespace).Get(ctx, shared.Name, metav1.GetOptions{})
	}
	revisions, err := s.history.Claim(ctx, shared, gvk, selector, fresh)
	if err != nil {
		return reconcile.Result{}, err
	}
	pods, err := controllers.PodsOf(s.pods, shared, true)
	if err != nil {
		return reconcile.Result{}, err
	}
	pods = slices.DeleteFunc(pods, func(p *v1.Pod) bool {
		parent, _ := identity(p)
		return parent != shared.Name
	})
	claimer := controllers.Claimer[*v1.Pod]{Owner: shared, Kind: gvk, Selector: selector, Fresh: fresh, Patch: controllers.PatchPod(s.client)}
	if pods, err = claimer.Claim(ctx, pods); err != nil {
		return reconcile.Result{}, err
	}
	set := shared.DeepCopy()
	collisions := ptr.Deref(set.Status.CollisionCount, 0)
	data, err := history.Patch(&set.Spec.Template)
	if err != nil {
		return reconcile.Result{}, err
	}
	update, err := s.history.Update(ctx, set, gvk, set.Spec.Template.Labels, data, revisions, &collisions)
	if err != nil {
		return reconcile.Result{}, err
	}
	current := update
	for _, r := range revisions {
		if r.Name == set.Status.CurrentRevision {
			current = r
		}
	}
	p, err := s.newPass(set, current, update, pods)
	if err != nil {
		return reconcile.Result{}, err
	}
	p.status.CollisionCount = &collisions
	passErr := p.run(ctx)
	err = errors.Join(passErr, p.writeStatus(ctx))
	live := map[string]bool{current.Name: true, update.Name: true}
	for _, pod := range pods {
		live[revisionOf(pod)] = true
	}
	err = errors.Join(err, s.history.Truncate(ctx, revisions, live, int(ptr.Deref(set.Spec.RevisionHistoryLimit, 10))))
	return reconcile.Result{RequeueAfter: p.nextAvailable()}, err
}
