package job

import (
	"slices"
	"time"

	batch "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers"
)

// state is a Job and its pods during one reconciliation.
type state struct {
	// job is a copy, whose status is to be written.
	job *batch.Job
	now time.Time
	memory
	pods, active []*v1.Pod
	// The numbers that the status will have.
	running, ready, terminating int32
	// succeeded and failed count pods whether or not the status does yet.
	succeeded, failed int32
	// before, done and lost are the indexes that had succeeded when the status was
	// written, that have succeeded by now, and that have failed for good.
	before, done, lost indexes
	// kept has, by index, the failed pod whose finalizer stays until the pod that
	// replaces it has been made, since that takes over its number of failures.
	kept map[int]*v1.Pod
	// over is the condition by which the Job ends: FailureTarget or
	// SuccessCriteriaMet when it is found, Failed where the status has the former.
	over *batch.JobCondition
	// changed reports whether the status is to be written for more than its counts.
	changed bool
	// again is when to look again though nothing happens.
	again time.Duration
}

// observe compares a Job with its pods.
func observe(j *batch.Job, pods []*v1.Pod, known memory, now time.Time) *state {
	s := &state{job: j, now: now, memory: known, pods: pods}
	if j.Status.UncountedTerminatedPods == nil {
		j.Status.UncountedTerminatedPods = &batch.UncountedTerminatedPods{}
	}
	uncounted := j.Status.UncountedTerminatedPods
	for _, p := range pods {
		switch {
		case controllers.PodActive(p):
			s.active = append(s.active, p)
			if controllers.PodReady(p) {
				s.ready++
			}
		case p.DeletionTimestamp != nil && !controllers.PodTerminated(p):
			s.terminating++
		}
	}
	s.running = int32(len(s.active))
	succeeded := s.fresh(uncounted.Succeeded, func(p *v1.Pod) bool { return p.Status.Phase == v1.PodSucceeded })
	lost := s.fresh(uncounted.Failed, func(p *v1.Pod) bool { return failed(j, p) })
	s.succeeded = j.Status.Succeeded + int32(len(succeeded)+len(uncounted.Succeeded))
	s.failed = j.Status.Failed + int32(len(uncounted.Failed))
	for _, p := range lost {
		if judge(j.Spec.PodFailurePolicy, p).counts {
			s.failed++
		}
	}
	s.failures = s.failures.after(succeeded, lost)
	if j.Status.StartTime == nil && !suspended(j) {
		j.Status.StartTime = ptr.To(metav1.NewTime(now))
		s.changed = true
	}
	if indexed(j) {
		s.observeIndexes()
	}
	return s
}

// uncounted reports whether the pod's end is still to be counted.
func (s *state) uncounted(p *v1.Pod) bool { return tracked(p) && !s.released.Has(p.UID) }

// fresh returns the pods to be counted that are not in the status' list, and match.
func (s *state) fresh(listed []types.UID, match func(*v1.Pod) bool) (out []*v1.Pod) {
	for _, p := range s.pods {
		if s.uncounted(p) && !slices.Contains(listed, p.UID) && validIndex(s.job, p) && match(p) {
			out = append(out, p)
		}
	}
	return out
}

func (s *state) observeIndexes() {
	completions := int(*s.job.Spec.Completions)
	s.before = parseIndexes(s.job.Status.CompletedIndexes, completions)
	s.done = s.before
	for _, p := range s.pods {
		if s.uncounted(p) && validIndex(s.job, p) && p.Status.Phase == v1.PodSucceeded {
			s.done = s.done.with(indexOf(p))
		}
	}
	s.succeeded = int32(s.done.count())
	if !limitedPerIndex(s.job) {
		return
	}
	s.lost = parseIndexes(ptr.Deref(s.job.Status.FailedIndexes, ""), completions)
	var ends []*v1.Pod
	for _, p := range s.pods {
		if !s.uncounted(p) || !validIndex(s.job, p) || !failed(s.job, p) {
			continue
		}
		ends = append(ends, p)
		v := judge(s.job.Spec.PodFailurePolicy, p)
		before, _ := indexFailures(p)
		if v.action == batch.PodFailurePolicyActionFailIndex || v.counts && before >= int(*s.job.Spec.BackoffLimitPerIndex) {
			s.lost = s.lost.with(indexOf(p))
		}
	}
	s.kept = map[int]*v1.Pod{}
	running := indexesOf(s.active)
	for _, p := range ends {
		i := indexOf(p)
		if s.done.has(i) || s.lost.has(i) || running.has(i) {
			continue
		}
		if was := s.kept[i]; was == nil || failureBefore(was, p) {
			s.kept[i] = p
		}
	}
}

// failureBefore reports whether a failed before b, pods of one index.
func failureBefore(a, b *v1.Pod) bool {
	ac, ai := indexFailures(a)
	bc, bi := indexFailures(b)
	if ac+ai != bc+bi {
		return ac+ai < bc+bi
	}
	return !ended(b).Before(ended(a))
}

// fail ends the Job as failed.
func (s *state) fail(reason, message string) {
	s.over = newCondition(batch.JobFailureTarget, v1.ConditionTrue, reason, message, s.now)
}

// judge finds out whether the Job has failed, or has succeeded by its policy.
func (s *state) judge() {
	j := s.job
	if c := condition(j, batch.JobSuccessCriteriaMet); c != nil && c.Status == v1.ConditionTrue {
		s.over = c
		return
	}
	if c := condition(j, batch.JobFailureTarget); c != nil && c.Status == v1.ConditionTrue {
		s.over = newCondition(batch.JobFailed, v1.ConditionTrue, c.Reason, c.Message, s.now)
		return
	}
	if j.Spec.PodFailurePolicy != nil {
		for _, p := range s.pods {
			if failed(j, p) {
				if v := judge(j.Spec.PodFailurePolicy, p); v.message != "" {
					s.fail(batch.JobReasonPodFailurePolicy, v.message)
					return
				}
			}
		}
	}
	if s.failed > ptr.Deref(j.Spec.BackoffLimit, 6) || s.restartedTooOften() {
		s.fail(batch.JobReasonBackoffLimitExceeded, "Job has reached the specified backoff limit")
		return
	}
	if d := j.Spec.ActiveDeadlineSeconds; d != nil && !suspended(j) {
		left := time.Duration(*d)*time.Second - s.now.Sub(j.Status.StartTime.Time)
		if left <= 0 {
			s.fail(batch.JobReasonDeadlineExceeded, "Job was active longer than specified deadline")
			return
		}
		s.lookAgain(left)
	}
	if limitedPerIndex(j) {
		n := s.lost.count()
		switch {
		case j.Spec.MaxFailedIndexes != nil && n > int(*j.Spec.MaxFailedIndexes):
			s.fail(batch.JobReasonMaxFailedIndexesExceeded, "Job has exceeded the specified maximal number of failed indexes")
			return
		case n > 0 && n+s.done.count() >= int(*j.Spec.Completions):
			s.fail(batch.JobReasonFailedIndexes, "Job has failed indexes")
			return
		}
	}
	if m := success(j, s.done); m != "" && indexed(j) {
		s.over = newCondition(batch.JobSuccessCriteriaMet, v1.ConditionTrue, batch.JobReasonSuccessPolicy, m, s.now)
	}
}

// restartedTooOften reports whether the containers of the Job's running pods,
// which restart on failure, have reached the backoff limit.
func (s *state) restartedTooOften() bool {
	if s.job.Spec.Template.Spec.RestartPolicy != v1.RestartPolicyOnFailure {
		return false
	}
	var n int32
	for _, p := range s.pods {
		if p.Status.Phase != v1.PodRunning && p.Status.Phase != v1.PodPending {
			continue
		}
		for _, list := range [][]v1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses} {
			for i := range list {
				n += list[i].RestartCount
			}
		}
	}
	limit := ptr.Deref(s.job.Spec.BackoffLimit, 6)
	return n > 0 && n >= limit
}

// complete ends the Job as complete, if it is.
func (s *state) complete() {
	enough := s.succeeded > 0
	if s.job.Spec.Completions != nil {
		enough = s.succeeded >= *s.job.Spec.Completions
	}
	if enough && s.running == 0 {
		s.over = newCondition(batch.JobSuccessCriteriaMet, v1.ConditionTrue, batch.JobReasonCompletionsReached, "Reached expected number of succeeded pods", s.now)
	}
}

// lookAgain makes the Job be reconciled again after d at the latest.
func (s *state) lookAgain(d time.Duration) {
	if s.again == 0 || d < s.again {
		s.again = d
	}
}

// set makes a condition of the status what it is to be, and reports whether that
// is a change. A condition that is false is not made where there is none.
func (s *state) set(t batch.JobConditionType, status v1.ConditionStatus, reason, message string) bool {
	c := condition(s.job, t)
	switch {
	case c == nil && status == v1.ConditionFalse, c != nil && c.Status == status && c.Reason == reason && c.Message == message:
		return false
	case c == nil:
		s.job.Status.Conditions = append(s.job.Status.Conditions, *newCondition(t, status, reason, message, s.now))
	default:
		*c = *newCondition(t, status, reason, message, s.now)
	}
	return true
}

func newCondition(t batch.JobConditionType, status v1.ConditionStatus, reason, message string, now time.Time) *batch.JobCondition {
	return &batch.JobCondition{Type: t, Status: status, LastProbeTime: metav1.NewTime(now), LastTransitionTime: metav1.NewTime(now), Reason: reason, Message: message}
}
