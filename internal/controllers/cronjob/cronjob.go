package cronjob

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	batch "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/reconcile"
)

// late is how long after a scheduled time the controller looks, so that a clock
// which is a little slow has reached it.
const late = 100 * time.Millisecond

var kind = batch.SchemeGroupVersion.WithKind("CronJob")

type controller struct {
	client   kubernetes.Interface
	recorder record.EventRecorder
	clock    clock.Clock
	jobs     cache.Indexer
	queue    reconcile.Queue
	writes   controllers.Writes
}

// New makes the controller of CronJobs.
func New(c controllers.Context) (reconcile.Run, error) {
	crons, jobs := c.Informers.Batch().V1().CronJobs().Informer(), c.Informers.Batch().V1().Jobs().Informer()
	r := &controller{client: c.Client(), recorder: c.Recorder(), clock: c.Clock, jobs: jobs.GetIndexer(), queue: c.Queue("cronjob")}
	reconcile.Handle(crons, reconcile.Enqueue[*batch.CronJob](r.queue), nil, nil)
	reconcile.Handle(jobs, r.wakeOwner, func(old, j *batch.Job) {
		if !equality.Semantic.DeepEqual(old.OwnerReferences, j.OwnerReferences) {
			r.wakeOwner(old)
		}
		r.wakeOwner(j)
	}, nil)
	return reconcile.Loop[*batch.CronJob]{
		Queue: r.queue, Workers: c.Workers(5), For: crons, Reads: []cache.SharedIndexInformer{jobs}, Reconcile: r.reconcile,
		Gone: func(_ context.Context, key string) error { r.writes.Forget(key); return nil },
	}.Run, nil
}

func (r *controller) wakeOwner(j *batch.Job) {
	if ref := metav1.GetControllerOfNoCopy(j); ref != nil && ref.Kind == kind.Kind {
		r.queue.Add(j.Namespace + "/" + ref.Name)
	}
}

// jobsOf returns the Jobs that a CronJob controls.
func (r *controller) jobsOf(cj *batch.CronJob) ([]*batch.Job, error) {
	objs, err := r.jobs.ByIndex(cache.NamespaceIndex, cj.Namespace)
	var out []*batch.Job
	for _, o := range objs {
		if j := o.(*batch.Job); controllers.ControlledBy(j, cj) {
			out = append(out, j)
		}
	}
	return out, err
}

func (r *controller) reconcile(ctx context.Context, shared *batch.CronJob) (reconcile.Result, error) {
	if r.writes.Behind(shared) {
		return reconcile.Result{}, nil
	}
	jobs, err := r.jobsOf(shared)
	if err != nil {
		return reconcile.Result{}, err
	}
	cj := shared.DeepCopy()
	var errs []error
	if err := r.follow(ctx, cj, jobs); err != nil {
		errs = append(errs, err)
	}
	if err := r.prune(ctx, cj, jobs); err != nil {
		errs = append(errs, err)
	}
	wait, err := r.start(ctx, cj, jobs)
	if err != nil {
		errs = append(errs, err)
	}
	if !equality.Semantic.DeepEqual(shared.Status, cj.Status) {
		updated, err := r.client.BatchV1().CronJobs(cj.Namespace).UpdateStatus(ctx, cj, metav1.UpdateOptions{})
		if err != nil {
			errs = append(errs, fmt.Errorf("unable to update status for %s (rv = %s): %w", reconcile.Key(cj), cj.ResourceVersion, err))
		} else {
			r.writes.Wrote(updated)
		}
	}
	return reconcile.Result{RequeueAfter: wait}, errors.Join(errs...)
}

// reference returns what the list of active Jobs has of a Job.
func reference(j *batch.Job) v1.ObjectReference {
	return v1.ObjectReference{APIVersion: "batch/v1", Kind: "Job", Namespace: j.Namespace, Name: j.Name, UID: j.UID, ResourceVersion: j.ResourceVersion}
}

// follow brings the list of active Jobs up to date.
func (r *controller) follow(ctx context.Context, cj *batch.CronJob, jobs []*batch.Job) error {
	active := func(uid types.UID) int {
		return slices.IndexFunc(cj.Status.Active, func(ref v1.ObjectReference) bool { return ref.UID == uid })
	}
	children, noted := map[types.UID]bool{}, cj.Status.LastScheduleTime
	for _, j := range jobs {
		children[j.UID] = true
		i, end := active(j.UID), controllers.JobEnd(j)
		// The Job of a time may have been made, and that not have been noted.
		at, err := time.Parse(time.RFC3339, j.Annotations[batch.CronJobScheduledTimestampAnnotation])
		lost := err == nil && (noted == nil || noted.Time.Before(at))
		if lost && (cj.Status.LastScheduleTime == nil || cj.Status.LastScheduleTime.Time.Before(at)) {
			cj.Status.LastScheduleTime = &metav1.Time{Time: at.UTC()}
		}
		switch {
		case lost && i < 0 && end == nil:
			cj.Status.Active = append(cj.Status.Active, reference(j))
		case i < 0 && end == nil:
			// A Job of this CronJob that is not in its list: it was made, and the list
			// not written, or it was adopted.
			r.recorder.Eventf(cj, v1.EventTypeWarning, "UnexpectedJob", "Saw a job that the controller did not create or forgot: %s", j.Name)
		case i >= 0 && end != nil:
			cj.Status.Active = slices.Delete(cj.Status.Active, i, i+1)
			r.recorder.Eventf(cj, v1.EventTypeNormal, "SawCompletedJob", "Saw completed job: %s, condition: %v", j.Name, end.Type)
		}
		if end != nil && end.Type == batch.JobComplete && j.Status.CompletionTime != nil && !j.Status.CompletionTime.Before(cj.Status.LastSuccessfulTime) {
			cj.Status.LastSuccessfulTime = j.Status.CompletionTime
		}
	}
	// Of those that are gone, the cache may just not have some yet.
	var errs []error
	cj.Status.Active = slices.DeleteFunc(cj.Status.Active, func(ref v1.ObjectReference) bool {
		if children[ref.UID] {
			return false
		}
		j, err := r.client.BatchV1().Jobs(ref.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, err)
			return false
		}
		if err == nil && j.UID == ref.UID {
			return false
		}
		r.recorder.Eventf(cj, v1.EventTypeNormal, "MissingJob", "Active job went missing: %v", ref.Name)
		return true
	})
	return errors.Join(errs...)
}

// prune deletes the oldest finished Jobs, so many of each kind that as many are
// left as the history is to have.
func (r *controller) prune(ctx context.Context, cj *batch.CronJob, jobs []*batch.Job) error {
	var errs []error
	for t, limit := range map[batch.JobConditionType]*int32{batch.JobComplete: cj.Spec.SuccessfulJobsHistoryLimit, batch.JobFailed: cj.Spec.FailedJobsHistoryLimit} {
		if limit == nil {
			continue
		}
		over := slices.DeleteFunc(slices.Clone(jobs), func(j *batch.Job) bool {
			c := controllers.JobEnd(j)
			return c == nil || c.Type != t || j.DeletionTimestamp != nil
		})
		slices.SortFunc(over, func(a, b *batch.Job) int {
			if c := ptr.Deref(a.Status.StartTime, a.CreationTimestamp).Compare(ptr.Deref(b.Status.StartTime, b.CreationTimestamp).Time); c != 0 {
				return c
			}
			return strings.Compare(a.Name, b.Name)
		})
		for _, j := range over[:max(len(over)-int(*limit), 0)] {
			errs = append(errs, r.delete(ctx, cj, j))
		}
	}
	return errors.Join(errs...)
}

func (r *controller) delete(ctx context.Context, cj *batch.CronJob, j *batch.Job) error {
	err := r.client.BatchV1().Jobs(j.Namespace).Delete(ctx, j.Name, metav1.DeleteOptions{
		PropagationPolicy: ptr.To(metav1.DeletePropagationBackground), Preconditions: metav1.NewUIDPreconditions(string(j.UID))})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		r.recorder.Eventf(cj, v1.EventTypeWarning, "FailedDelete", "Deleted job: %v", err)
		return err
	}
	cj.Status.Active = slices.DeleteFunc(cj.Status.Active, func(ref v1.ObjectReference) bool { return ref.UID == j.UID })
	r.recorder.Eventf(cj, v1.EventTypeNormal, "SuccessfulDelete", "Deleted job %v", j.Name)
	return nil
}

// start makes the Job of the last scheduled time that was not served yet, and
// returns the time until the next one; 0 if there is none.
func (r *controller) start(ctx context.Context, cj *batch.CronJob, jobs []*batch.Job) (time.Duration, error) {
	if cj.DeletionTimestamp != nil {
		return 0, nil
	}
	if zone := cj.Spec.TimeZone; zone != nil {
		if _, err := time.LoadLocation(*zone); err != nil {
			r.recorder.Eventf(cj, v1.EventTypeWarning, "UnknownTimeZone", "invalid timeZone: %q: %s", *zone, err)
			return 0, nil // until its author mends it, by a change that comes here again
		}
	}
	if ptr.Deref(cj.Spec.Suspend, false) {
		return 0, nil
	}
	if zoned(cj.Spec.Schedule) {
		r.recorder.Eventf(cj, v1.EventTypeWarning, "UnsupportedSchedule", "CRON_TZ or TZ used in schedule %q is not officially supported, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details", cj.Spec.Schedule)
	}
	schedule, err := parse(cj)
	if err != nil {
		r.recorder.Eventf(cj, v1.EventTypeWarning, "UnparseableSchedule", "unparseable schedule: %q : %s", cj.Spec.Schedule, err)
		return 0, nil
	}
	now := r.clock.Now()
	wait := time.Duration(0)
	if next := schedule.Next(now); !next.IsZero() {
		wait = next.Sub(now) + late
	} else {
		// There is no such day, as the 31st of February.
		r.recorder.Eventf(cj, v1.EventTypeWarning, "InvalidSchedule", "invalid schedule: %s : time difference between two schedules is less than 1 second", cj.Spec.Schedule)
	}
	at, missed := due(schedule, since(cj, now), now)
	if at.IsZero() {
		return wait, nil
	}
	if missed > manyMissed {
		r.recorder.Eventf(cj, v1.EventTypeWarning, "TooManyMissedTimes", "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew")
	}
	name := fmt.Sprintf("%s-%d", cj.Name, at.Unix()/60)
	if slices.ContainsFunc(jobs, func(j *batch.Job) bool { return j.Name == name }) ||
		slices.ContainsFunc(cj.Status.Active, func(ref v1.ObjectReference) bool { return ref.Name == name }) ||
		cj.Status.LastScheduleTime.Equal(&metav1.Time{Time: at}) {
		r.served(cj, at, jobs, name)
		return wait, nil
	}
	switch cj.Spec.ConcurrencyPolicy {
	case batch.ForbidConcurrent:
		if len(cj.Status.Active) > 0 {
			r.recorder.Eventf(cj, v1.EventTypeNormal, "JobAlreadyActive", "Not starting job because prior execution is running and concurrency policy is Forbid")
			return wait, nil
		}
	case batch.ReplaceConcurrent:
		for _, ref := range slices.Clone(cj.Status.Active) {
			j, err := r.client.BatchV1().Jobs(ref.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				continue
			}
			if err != nil {
				r.recorder.Eventf(cj, v1.EventTypeWarning, "FailedGet", "Get job: %v", err)
				return wait, err
			}
			if err := r.delete(ctx, cj, j); err != nil {
				return wait, err
			}
		}
	}
	job, err := r.create(ctx, cj, name, at)
	if err != nil || job == nil {
		return wait, err
	}
	cj.Status.Active = append(cj.Status.Active, reference(job))
	cj.Status.LastScheduleTime = &metav1.Time{Time: at}
	return wait, nil
}

// served notes that the Job of a time has been made, where the status does not
// say so yet.
func (r *controller) served(cj *batch.CronJob, at time.Time, jobs []*batch.Job, name string) {
	if last := cj.Status.LastScheduleTime; last != nil && !last.Time.Before(at) {
		return
	}
	for _, j := range jobs {
		if j.Name == name && controllers.JobEnd(j) == nil && !slices.ContainsFunc(cj.Status.Active, func(ref v1.ObjectReference) bool { return ref.UID == j.UID }) {
			cj.Status.Active = append(cj.Status.Active, reference(j))
		}
	}
	cj.Status.LastScheduleTime = &metav1.Time{Time: at}
}

// create makes the Job of a time, or returns the one that was made before. It
// returns nil where the namespace takes no more.
func (r *controller) create(ctx context.Context, cj *batch.CronJob, name string, at time.Time) (*batch.Job, error) {
	t := cj.Spec.JobTemplate.DeepCopy()
	zone := time.UTC
	if cj.Spec.TimeZone != nil {
		if z, err := time.LoadLocation(*cj.Spec.TimeZone); err == nil {
			zone = z
		}
	}
	if t.Annotations == nil {
		t.Annotations = map[string]string{}
	}
	t.Annotations[batch.CronJobScheduledTimestampAnnotation] = at.In(zone).Format(time.RFC3339)
	j := &batch.Job{ObjectMeta: metav1.ObjectMeta{Namespace: cj.Namespace, Name: name, Labels: t.Labels, Annotations: t.Annotations,
		OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(cj, kind)}}, Spec: t.Spec}
	made, err := r.client.BatchV1().Jobs(cj.Namespace).Create(ctx, j, metav1.CreateOptions{})
	switch {
	case err == nil:
		r.recorder.Eventf(cj, v1.EventTypeNormal, "SuccessfulCreate", "Created job %v", made.Name)
		return made, nil
	case apierrors.HasStatusCause(err, v1.NamespaceTerminatingCause):
		return nil, nil
	case apierrors.IsAlreadyExists(err):
		old, gerr := r.client.BatchV1().Jobs(cj.Namespace).Get(ctx, name, metav1.GetOptions{})
		if gerr != nil {
			return nil, gerr
		}
		if controllers.ControlledBy(old, cj) {
			return old, nil
		}
	}
	r.recorder.Eventf(cj, v1.EventTypeWarning, "FailedCreate", "Error creating job: %v", err)
	return nil, err
}
