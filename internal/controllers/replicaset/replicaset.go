package replicaset

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	apps "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/reconcile"
)

const (
	// burst bounds the pods made or deleted in one sync.
	burst = 500
	// statusRetries bounds immediate retries of a status update.
	statusRetries = 1
)

type controller struct {
	kind
	client  kubernetes.Interface
	control controllers.PodControl
	clock   clock.Clock
	pods    cache.Indexer
	queue   reconcile.Queue
	expect  *controllers.Expectations
	pace    reconcile.Pace
}

// New makes the controller of ReplicaSets.
func New(c controllers.Context) (reconcile.Run, error) {
	return newController(c, replicaSets(c.Informers))
}

// NewReplicationController makes the controller of ReplicationControllers.
func NewReplicationController(c controllers.Context) (reconcile.Run, error) {
	return newController(c, replicationControllers(c.Informers))
}

func newController(c controllers.Context, k kind) (reconcile.Run, error) {
	pods := c.Informers.Core().V1().Pods().Informer()
	controllers.IndexPods(pods)
	r := &controller{
		kind: k, client: c.Client(), clock: c.Clock,
		pods: pods.GetIndexer(), queue: c.Queue(k.queue),
		expect: controllers.NewExpectations(c.Clock), pace: reconcile.Pace{Clock: c.Clock},
	}
	r.control = controllers.NewPodControl(r.client, c.Recorder(), c.Clock)
	reconcile.Handle(k.informer,
		func(o any) { r.queue.Add(reconcile.Key(o)) },
		func(old, cur any) {
			a, b := r.convert(old), r.convert(cur)
			if a.UID != b.UID {
				r.expect.Forget(reconcile.Key(old))
			}
			r.wake(reconcile.Key(cur), a.UID != b.UID || a.Generation != b.Generation || b.DeletionTimestamp != nil)
		},
		func(o any) {
			key := reconcile.Key(o)
			r.expect.Forget(key)
			r.queue.Add(key)
		})
	reconcile.HandleListed(pods, r.podAdded, r.podUpdated, r.podDeleted)
	return reconcile.Loop[runtime.Object]{
		Queue: r.queue, Workers: c.Workers(5), For: r.informer, Reads: []cache.SharedIndexInformer{pods}, Reconcile: r.reconcile,
		Gone: func(_ context.Context, key string) error {
			r.expect.Forget(key)
			r.pace.Forget(key)
			return nil
		},
	}.Run, nil
}

// owner returns the key of the set that a pod names as its controller.
func (r *controller) owner(pod *v1.Pod) (string, bool) {
	ref := metav1.GetControllerOfNoCopy(pod)
	if ref == nil || ref.Kind != r.gvk.Kind {
		return "", false
	}
	key := pod.Namespace + "/" + ref.Name
	obj, ok, _ := r.informer.GetIndexer().GetByKey(key)
	if !ok || r.convert(obj).UID != ref.UID {
		return "", false
	}
	return key, true
}

// enqueueMatching wakes every set that might adopt an orphan.
func (r *controller) enqueueMatching(pod *v1.Pod) {
	sets, _ := r.list(pod.Namespace)
	for _, rs := range sets {
		if sel, err := metav1.LabelSelectorAsSelector(rs.Spec.Selector); err == nil && !sel.Empty() && sel.Matches(labels.Set(pod.Labels)) {
			r.queue.Add(reconcile.Key(rs))
		}
	}
}

// sameOwner reports whether two references are equal; either may be nil.
func sameOwner(a, b *metav1.OwnerReference) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.UID == b.UID && a.Name == b.Name && a.Kind == b.Kind && a.APIVersion == b.APIVersion && ptr.Equal(a.BlockOwnerDeletion, b.BlockOwnerDeletion)
}

func podKey(p *v1.Pod) string { return p.Namespace + "/" + p.Name }

func (r *controller) podAdded(pod *v1.Pod, listed bool) {
	if pod.DeletionTimestamp != nil {
		r.podDeleted(pod)
		return
	}
	if metav1.GetControllerOfNoCopy(pod) == nil {
		r.enqueueMatching(pod)
	} else if key, ok := r.owner(pod); ok {
		r.wake(key, !listed && r.expect.Created(key))
	}
}

// wake has a set looked at: in a hurry where it has been changed, or where all that was
// expected of its pods has been seen, so that the next ones are made; else at its pace.
func (r *controller) wake(key string, hurry bool) {
	if hurry {
		r.pace.Hurry(key)
	}
	r.queue.AddAfter(key, r.pace.Rest(key))
}

func (r *controller) podUpdated(old, cur *v1.Pod) {
	if old.ResourceVersion == cur.ResourceVersion {
		return
	}
	relabelled := !maps.Equal(old.Labels, cur.Labels)
	if cur.DeletionTimestamp != nil {
		r.podDeleted(cur)
		if relabelled {
			r.podDeleted(old)
		}
		return
	}
	oldRef, ref := metav1.GetControllerOfNoCopy(old), metav1.GetControllerOfNoCopy(cur)
	changed := !sameOwner(oldRef, ref)
	if changed && oldRef != nil {
		if key, ok := r.owner(old); ok {
			r.queue.Add(key)
		}
	}
	if ref == nil {
		if relabelled || changed {
			r.enqueueMatching(cur)
		}
		return
	}
	key, ok := r.owner(cur)
	if !ok {
		return
	}
	r.wake(key, false)
	// Nothing else happens when a ready pod becomes available: come back then.
	if !controllers.PodReady(old) && controllers.PodReady(cur) {
		if obj, ok, _ := r.informer.GetIndexer().GetByKey(key); ok {
			if s := r.convert(obj).Spec.MinReadySeconds; s > 0 {
				r.queue.AddAfter(key, time.Duration(s)*time.Second+time.Second)
			}
		}
	}
}

func (r *controller) podDeleted(pod *v1.Pod) {
	if key, ok := r.owner(pod); ok {
		r.wake(key, r.expect.Gone(key, podKey(pod)))
	}
}

func (r *controller) reconcile(ctx context.Context, obj runtime.Object) (reconcile.Result, error) {
	rs := r.convert(obj)
	key := reconcile.Key(rs)
	if wait := r.pace.Begin(key); wait > 0 {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	satisfied := r.expect.Satisfied(key)
	begun := time.Now() // what the look costs is real, be the clock one that runs ahead
	selector, err := metav1.LabelSelectorAsSelector(rs.Spec.Selector)
	if err != nil {
		klog.FromContext(ctx).Error(err, "Error converting pod selector to selector", "key", key)
		return reconcile.Result{}, nil
	}
	all, err := controllers.PodsOf(r.pods, rs, true)
	if err != nil {
		return reconcile.Result{}, err
	}
	active := make([]*v1.Pod, 0, len(all))
	var terminating int32
	for _, p := range all {
		switch {
		case controllers.PodActive(p):
			active = append(active, p)
		case p.DeletionTimestamp != nil && !controllers.PodTerminated(p) && controllers.ControlledBy(p, rs):
			terminating++
		}
	}
	claimer := controllers.Claimer[*v1.Pod]{
		Owner: rs, Kind: r.gvk, Selector: selector, Patch: controllers.PatchPod(r.client),
		Fresh: func(ctx context.Context) (metav1.Object, error) { return r.get(ctx, r.client, rs.Namespace, rs.Name) },
	}
	active, err = claimer.Claim(ctx, active)
	if err != nil {
		return reconcile.Result{}, err
	}
	looked := time.Since(begun)
	var manageErr error
	if satisfied && rs.DeletionTimestamp == nil {
		manageErr = r.manage(ctx, key, rs, selector, active)
	}
	now := r.clock.Now()
	begun = time.Now()
	status, wait := r.status(rs, active, terminating, manageErr, now)
	looked += time.Since(begun)
	defer r.pace.Took(key, looked)
	updated, err := r.updateStatus(ctx, rs, status)
	if err != nil {
		return reconcile.Result{}, err
	}
	if manageErr != nil {
		return reconcile.Result{}, manageErr
	}
	if updated.Status.ReadyReplicas == updated.Status.AvailableReplicas {
		wait = 0
	}
	return reconcile.Result{RequeueAfter: wait}, nil
}

func replicas(rs *apps.ReplicaSet) int {
	if rs.Spec.Replicas == nil {
		return 1
	}
	return int(*rs.Spec.Replicas)
}

// manage makes or deletes pods until there are as many as asked for.
func (r *controller) manage(ctx context.Context, key string, rs *apps.ReplicaSet, selector labels.Selector, active []*v1.Pod) error {
	diff := len(active) - replicas(rs)
	if diff < 0 {
		n := min(-diff, burst)
		r.expect.ExpectCreations(key, n)
		ref := metav1.NewControllerRef(rs, r.gvk)
		done, err := controllers.SlowStart(n, func(int) error {
			err := r.control.Create(ctx, r.original(rs), selector, controllers.PodFromTemplate(&rs.Spec.Template, rs, ref))
			// A terminating namespace takes no pods; its end removes rs too.
			if apierrors.HasStatusCause(err, v1.NamespaceTerminatingCause) {
				return nil
			}
			return err
		})
		// Those that failed and those never tried will not be seen.
		r.expect.CreatedN(key, n-done)
		return err
	}
	if diff == 0 {
		return nil
	}
	victims := r.victims(rs, active, min(diff, burst))
	keys := make([]string, len(victims))
	for i, p := range victims {
		keys[i] = podKey(p)
	}
	r.expect.ExpectDeletions(key, keys...)
	return controllers.Parallel(len(victims), func(i int) error {
		err := r.control.Delete(ctx, r.original(rs), victims[i])
		if err != nil {
			r.expect.Gone(key, keys[i])
			if apierrors.IsNotFound(err) {
				return nil
			}
		}
		return err
	})
}

// victims chooses n of the active pods. Pods of sets with the same owner count
// as neighbours on a node: during a rollout it is the workload that should
// stay spread, not each of its revisions.
func (r *controller) victims(rs *apps.ReplicaSet, active []*v1.Pod, n int) []*v1.Pod {
	if n >= len(active) {
		return active
	}
	related := []*apps.ReplicaSet{rs}
	if ref := metav1.GetControllerOfNoCopy(rs); ref != nil {
		all, _ := r.list(rs.Namespace)
		for _, o := range all {
			if x := metav1.GetControllerOfNoCopy(o); o.UID != rs.UID && x != nil && x.UID == ref.UID {
				related = append(related, o)
			}
		}
	}
	onNode := map[string]int{}
	for _, o := range related {
		pods, _ := controllers.PodsOf(r.pods, o, false)
		for _, p := range pods {
			if controllers.PodActive(p) {
				onNode[p.Spec.NodeName]++
			}
		}
	}
	active = slices.Clone(active)
	controllers.RankForDeletion(active, onNode, r.clock.Now())
	return active[:n]
}

// selectsAll reports whether rs selects pods by all of its template's labels, as it does
// as a rule: then each of its pods has them.
func selectsAll(rs *apps.ReplicaSet) bool {
	if rs.Spec.Selector == nil {
		return false
	}
	for k, v := range rs.Spec.Template.Labels {
		if want, ok := rs.Spec.Selector.MatchLabels[k]; !ok || want != v {
			return false
		}
	}
	return true
}

// status computes rs's status, and the time until the next of its pods becomes
// available.
func (r *controller) status(rs *apps.ReplicaSet, active []*v1.Pod, terminating int32, manageErr error, now time.Time) (apps.ReplicaSetStatus, time.Duration) {
	s := *rs.Status.DeepCopy()
	var labelled, ready, available int32
	var next time.Duration
	tmpl := labels.Set(rs.Spec.Template.Labels).AsSelectorPreValidated()
	all := selectsAll(rs)
	for _, p := range active {
		if all || tmpl.Matches(labels.Set(p.Labels)) {
			labelled++
		}
		if controllers.PodReady(p) {
			ready++
			ok, wait := controllers.PodAvailable(p, rs.Spec.MinReadySeconds, now)
			if ok {
				available++
			} else if wait > 0 && (next == 0 || wait < next) {
				next = wait
			}
		}
	}
	failure := slices.IndexFunc(s.Conditions, func(c apps.ReplicaSetCondition) bool { return c.Type == apps.ReplicaSetReplicaFailure })
	if manageErr != nil && failure < 0 {
		reason := "FailedDelete"
		if len(active) < replicas(rs) {
			reason = "FailedCreate"
		}
		s.Conditions = append(s.Conditions, apps.ReplicaSetCondition{
			Type: apps.ReplicaSetReplicaFailure, Status: v1.ConditionTrue, Reason: reason,
			Message: manageErr.Error(), LastTransitionTime: metav1.NewTime(now),
		})
	} else if manageErr == nil && failure >= 0 {
		s.Conditions = slices.Delete(s.Conditions, failure, failure+1)
	}
	s.Replicas = int32(len(active))
	s.FullyLabeledReplicas = labelled
	s.ReadyReplicas = ready
	s.AvailableReplicas = available
	s.TerminatingReplicas = &terminating
	if r.gvk.Kind != "ReplicaSet" {
		s.TerminatingReplicas = nil
	}
	return s, next
}

func (r *controller) updateStatus(ctx context.Context, rs *apps.ReplicaSet, s apps.ReplicaSetStatus) (*apps.ReplicaSet, error) {
	same := s
	same.ObservedGeneration = rs.Status.ObservedGeneration
	if rs.Generation == rs.Status.ObservedGeneration && equality.Semantic.DeepEqual(rs.Status, same) {
		return rs, nil
	}
	s.ObservedGeneration = rs.Generation
	var errs []error
	for try := 0; ; try++ {
		next := rs.DeepCopy()
		next.Status = s
		updated, err := r.update(ctx, r.client, next)
		if err == nil {
			return updated, nil
		}
		errs = append(errs, err)
		if try >= statusRetries {
			return nil, fmt.Errorf("updating status of %v %v/%v: %w", r.gvk.Kind, rs.Namespace, rs.Name, errors.Join(errs...))
		}
		if rs, err = r.get(ctx, r.client, rs.Namespace, rs.Name); err != nil {
			return nil, err
		}
	}
}
