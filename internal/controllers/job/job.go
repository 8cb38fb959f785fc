package job

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	batch "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/reconcile"
)

// gather is how long a Job waits, after one of its pods has changed, for changes
// of others: its status is written once for all of them.
const gather = 100 * time.Millisecond

var kind = batch.SchemeGroupVersion.WithKind("Job")

type controller struct {
	client   kubernetes.Interface
	control  controllers.PodControl
	recorder record.EventRecorder
	clock    clock.Clock
	jobs     cache.Indexer
	pods     cache.Indexer
	queue    reconcile.Queue
	orphans  reconcile.Queue // of pods that no Job counts
	expect   *controllers.Expectations
	writes   controllers.Writes

	mu     sync.Mutex
	memory map[string]*memory // by the Job's key
}

// memory holds what the controller knows of a Job ahead of its caches. If it is
// lost, pods are replaced without delay, once.
type memory struct {
	uid types.UID
	// released are the pods whose finalizer was removed.
	released sets.Set[types.UID]
	failures failures
}

// New makes the controller of Jobs.
func New(c controllers.Context) (reconcile.Run, error) {
	jobs, pods := c.Informers.Batch().V1().Jobs().Informer(), c.Informers.Core().V1().Pods().Informer()
	controllers.IndexPods(pods)
	r := &controller{
		client: c.Client(), recorder: c.Recorder(), clock: c.Clock, jobs: jobs.GetIndexer(), pods: pods.GetIndexer(),
		queue: c.Queue("job"), orphans: c.Queue("job_orphan_pod"), expect: controllers.NewExpectations(c.Clock), memory: map[string]*memory{},
	}
	r.control = controllers.NewPodControl(r.client, r.recorder, c.Clock)
	reconcile.Handle(jobs, reconcile.Enqueue[*batch.Job](r.queue), r.jobUpdated, r.jobDeleted)
	reconcile.HandleListed(pods, r.podAdded, r.podUpdated, r.podDeleted)
	reads := []cache.SharedIndexInformer{pods}
	return reconcile.Together(
		reconcile.Loop[*batch.Job]{Queue: r.queue, Workers: c.Workers(5), For: jobs, Reads: reads, Reconcile: r.reconcile}.Run,
		reconcile.Loop[*v1.Pod]{Queue: r.orphans, For: pods, Reads: []cache.SharedIndexInformer{jobs}, Reconcile: r.release}.Run,
	), nil
}

// tracked reports whether the pod is still to be counted.
func tracked(p *v1.Pod) bool { return slices.Contains(p.Finalizers, batch.JobTrackingFinalizer) }

// suspended reports whether the Job is to have no pods for now.
func suspended(j *batch.Job) bool { return ptr.Deref(j.Spec.Suspend, false) }

// external reports whether another controller runs the Job (KEP-4368).
func external(j *batch.Job) bool {
	return j.Spec.ManagedBy != nil && *j.Spec.ManagedBy != batch.JobControllerName
}

// condition returns the Job's condition of a type, nil if it has none.
func condition(j *batch.Job, t batch.JobConditionType) *batch.JobCondition {
	for i := range j.Status.Conditions {
		if j.Status.Conditions[i].Type == t {
			return &j.Status.Conditions[i]
		}
	}
	return nil
}

// is reports whether the Job has a condition of a type that is true.
func is(j *batch.Job, t batch.JobConditionType) bool {
	c := condition(j, t)
	return c != nil && c.Status == v1.ConditionTrue
}

// finished reports whether the Job is over.
func finished(j *batch.Job) bool { return controllers.JobEnd(j) != nil }

// owner returns the Job that controls a pod, nil if there is none.
func (r *controller) owner(p *v1.Pod) *batch.Job {
	ref := metav1.GetControllerOfNoCopy(p)
	if ref == nil || ref.Kind != kind.Kind {
		return nil
	}
	obj, ok, _ := r.jobs.GetByKey(p.Namespace + "/" + ref.Name)
	if j, is := obj.(*batch.Job); ok && is && j.UID == ref.UID {
		return j
	}
	return nil
}

// abandoned reports whether a pod waits to be counted by a Job that does not
// count it.
func (r *controller) abandoned(p *v1.Pod) bool {
	if !tracked(p) {
		return false
	}
	ref := metav1.GetControllerOfNoCopy(p)
	if ref != nil && (ref.Kind != kind.Kind || ref.APIVersion != kind.GroupVersion().String()) {
		return false
	}
	j := r.owner(p)
	return j == nil || finished(j) && !external(j)
}

func (r *controller) podAdded(p *v1.Pod, listed bool) {
	if p.DeletionTimestamp != nil {
		r.podGoes(p)
		return
	}
	if j := r.owner(p); j != nil {
		if !listed {
			r.expect.Created(reconcile.Key(j))
		}
		r.queue.AddAfter(reconcile.Key(j), gather)
	} else if metav1.GetControllerOfNoCopy(p) == nil {
		r.wakeMatching(p)
	}
	r.lookForOrphan(p)
}

func (r *controller) podUpdated(old, p *v1.Pod) {
	if old.ResourceVersion == p.ResourceVersion {
		return
	}
	was, j := r.owner(old), r.owner(p)
	if was != nil && (j == nil || j.UID != was.UID) {
		r.queue.Add(reconcile.Key(was))
	}
	if j != nil && !tracked(p) {
		r.seenReleased(reconcile.Key(j), p.UID)
	}
	if p.DeletionTimestamp != nil {
		r.podGoes(p)
		return
	}
	switch {
	case j != nil:
		r.queue.AddAfter(reconcile.Key(j), gather)
	case metav1.GetControllerOfNoCopy(p) == nil && (was != nil || !equality.Semantic.DeepEqual(old.Labels, p.Labels)):
		r.wakeMatching(p)
	}
	r.lookForOrphan(p)
}

// podGoes notes a pod that is being deleted.
func (r *controller) podGoes(p *v1.Pod) {
	if j := r.owner(p); j != nil {
		r.expect.Gone(reconcile.Key(j), reconcile.Key(p))
		r.queue.AddAfter(reconcile.Key(j), gather)
	}
	r.lookForOrphan(p)
}

func (r *controller) podDeleted(p *v1.Pod) {
	if j := r.owner(p); j != nil {
		key := reconcile.Key(j)
		r.seenReleased(key, p.UID)
		r.expect.Gone(key, reconcile.Key(p))
		r.queue.AddAfter(key, gather)
	}
}

func (r *controller) lookForOrphan(p *v1.Pod) {
	if r.abandoned(p) {
		r.orphans.Add(reconcile.Key(p))
	}
}

// wakeMatching wakes every Job that might adopt a pod.
func (r *controller) wakeMatching(p *v1.Pod) {
	objs, _ := r.jobs.ByIndex(cache.NamespaceIndex, p.Namespace)
	for _, o := range objs {
		j := o.(*batch.Job)
		if sel, err := metav1.LabelSelectorAsSelector(j.Spec.Selector); err == nil && !sel.Empty() && sel.Matches(labels.Set(p.Labels)) {
			r.queue.Add(reconcile.Key(j))
		}
	}
}

func (r *controller) jobUpdated(old, j *batch.Job) {
	if old.UID != j.UID {
		r.jobDeleted(old)
	}
	r.queue.Add(reconcile.Key(j))
}

// jobDeleted leaves the Job's pods to their collection.
func (r *controller) jobDeleted(j *batch.Job) {
	r.forget(reconcile.Key(j))
	pods, _ := controllers.PodsOf(r.pods, j, false)
	for _, p := range pods {
		r.lookForOrphan(p)
	}
}

// release removes the finalizer of a pod that no Job counts.
func (r *controller) release(ctx context.Context, p *v1.Pod) (reconcile.Result, error) {
	if !r.abandoned(p) {
		return reconcile.Result{}, nil
	}
	if ref := metav1.GetControllerOfNoCopy(p); ref != nil && r.owner(p) == nil {
		// The pod may be known before its Job is.
		j, err := r.client.BatchV1().Jobs(p.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
		if err == nil && j.UID == ref.UID && (!finished(j) || external(j)) {
			return reconcile.Result{}, nil
		}
		if err != nil && !apierrors.IsNotFound(err) {
			return reconcile.Result{}, err
		}
	}
	err := r.untrack(ctx, p)
	if apierrors.IsNotFound(err) {
		err = nil
	}
	return reconcile.Result{}, err
}

// untrack removes a pod's finalizer.
func (r *controller) untrack(ctx context.Context, p *v1.Pod) error {
	patch := fmt.Appendf(nil, `{"metadata":{"uid":%q,"$deleteFromPrimitiveList/finalizers":[%q]}}`, p.UID, batch.JobTrackingFinalizer)
	_, err := r.client.CoreV1().Pods(p.Namespace).Patch(ctx, p.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	if apierrors.IsInvalid(err) || apierrors.IsConflict(err) {
		// It is another pod of this name now.
		return apierrors.NewNotFound(v1.Resource("pods"), p.Name)
	}
	return err
}

// remembered calls f with what is known of a Job.
func (r *controller) remembered(key string, uid types.UID, f func(*memory)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.memory[key]
	if m == nil || m.uid != uid {
		m = &memory{uid: uid, released: sets.New[types.UID]()}
		r.memory[key] = m
	}
	f(m)
}

func (r *controller) forget(key string) {
	r.expect.Forget(key)
	r.writes.Forget(key)
	r.mu.Lock()
	delete(r.memory, key)
	r.mu.Unlock()
}

// seenReleased notes that the cache has seen the end of a finalizer.
func (r *controller) seenReleased(key string, pod types.UID) {
	r.mu.Lock()
	if m := r.memory[key]; m != nil {
		m.released.Delete(pod)
	}
	r.mu.Unlock()
}

func (r *controller) reconcile(ctx context.Context, shared *batch.Job) (reconcile.Result, error) {
	key := reconcile.Key(shared)
	if external(shared) || finished(shared) {
		r.forget(key)
		return reconcile.Result{}, nil
	}
	if m := shared.Spec.CompletionMode; m != nil && *m != batch.NonIndexedCompletion && *m != batch.IndexedCompletion {
		r.recorder.Event(shared, v1.EventTypeWarning, "UnknownCompletionMode", "Skipped Job sync because completion mode is unknown")
		return reconcile.Result{}, nil
	}
	if r.writes.Behind(shared) {
		return reconcile.Result{}, nil
	}
	var known memory
	r.remembered(key, shared.UID, func(m *memory) { known = memory{released: m.released.Clone(), failures: m.failures} })
	satisfied := r.expect.Satisfied(key) // before the pods are read
	pods, err := r.claim(ctx, shared)
	if err != nil {
		return reconcile.Result{}, err
	}
	s := observe(shared.DeepCopy(), pods, known, r.clock.Now())
	s.judge()
	var managed error
	if s.over != nil {
		managed = r.end(ctx, s, satisfied)
	} else {
		if satisfied && s.job.DeletionTimestamp == nil {
			managed = r.manage(ctx, key, s)
			r.suspend(s)
		}
		s.complete()
	}
	if err := r.account(ctx, key, s); err != nil {
		return reconcile.Result{}, fmt.Errorf("tracking status: %w", err)
	}
	return reconcile.Result{RequeueAfter: s.again}, managed
}

// claim returns the Job's pods once it has adopted and released what it should.
func (r *controller) claim(ctx context.Context, j *batch.Job) ([]*v1.Pod, error) {
	selector, err := metav1.LabelSelectorAsSelector(j.Spec.Selector)
	if err != nil {
		return nil, fmt.Errorf("couldn't convert Job selector: %w", err)
	}
	all, err := controllers.PodsOf(r.pods, j, true)
	if err != nil {
		return nil, err
	}
	claimer := controllers.Claimer[*v1.Pod]{
		Owner: j, Kind: kind, Selector: selector, Patch: controllers.PatchPod(r.client), Finalizers: []string{batch.JobTrackingFinalizer},
		Fresh: func(ctx context.Context) (metav1.Object, error) {
			return r.client.BatchV1().Jobs(j.Namespace).Get(ctx, j.Name, metav1.GetOptions{})
		},
	}
	pods, err := claimer.Claim(ctx, all)
	if err != nil {
		return nil, err
	}
	for i, p := range pods {
		if !controllers.ControlledBy(p, j) && !tracked(p) {
			// It was adopted just now, with the finalizer.
			pods[i] = p.DeepCopy()
			pods[i].Finalizers = append(pods[i].Finalizers, batch.JobTrackingFinalizer)
		}
	}
	return pods, nil
}
