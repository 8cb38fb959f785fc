package job

import (
	"context"
	"slices"

	batch "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers"
)

// maxUncounted bounds the pods that are counted in one reconciliation, and with
// them the size of the status.
const maxUncounted = 500

// account counts the pods that have ended and writes the status. A Job that is
// over is said to be once all its pods have ended and are counted.
func (r *controller) account(ctx context.Context, key string, s *state) error {
	status := &s.job.Status
	flush := s.changed || status.Active != s.running || !ptr.Equal(status.Ready, &s.ready) || !ptr.Equal(status.Terminating, &s.terminating)
	status.Active, status.Ready, status.Terminating = s.running, &s.ready, &s.terminating

	waiting := sets.New[types.UID]()
	for _, p := range s.pods {
		if s.uncounted(p) {
			waiting.Insert(p.UID)
		}
	}
	if count(status, waiting) {
		flush = true
	}
	release, listed, all := s.list()
	flush = flush || listed
	if indexed(s.job) && s.writeIndexes(release) {
		flush = true
	}
	if s.over != nil && s.over.Type != batch.JobFailed {
		// The reason is written before the pods that it was found by may go.
		final := batch.JobFailed
		if s.over.Type == batch.JobSuccessCriteriaMet {
			final = batch.JobComplete
		}
		if !is(s.job, s.over.Type) {
			status.Conditions = append(status.Conditions, *s.over)
			flush = true
		}
		s.over = newCondition(final, v1.ConditionTrue, s.over.Reason, s.over.Message, s.now)
	}
	if flush {
		if err := r.write(ctx, key, s); err != nil {
			return err
		}
	}
	released, err := r.untrackAll(ctx, key, s.job, release)
	waiting = waiting.Difference(released)
	flush = count(&s.job.Status, waiting)
	if err == nil && all && s.finish() {
		flush = true
	}
	if flush {
		if werr := r.write(ctx, key, s); werr != nil {
			return werr
		}
	}
	if err == nil && finished(s.job) {
		r.tell(s)
	}
	return err
}

// count replaces the UIDs of pods that are not waiting, since they have no
// finalizer any more, by their number. It reports whether there were any.
func count(status *batch.JobStatus, waiting sets.Set[types.UID]) bool {
	changed := false
	move := func(list *[]types.UID, n *int32) {
		left := slices.DeleteFunc(slices.Clone(*list), func(uid types.UID) bool { return !waiting.Has(uid) })
		if moved := len(*list) - len(left); moved > 0 {
			*n += int32(moved)
			*list = left
			changed = true
		}
	}
	move(&status.UncountedTerminatedPods.Succeeded, &status.Succeeded)
	move(&status.UncountedTerminatedPods.Failed, &status.Failed)
	return changed
}

// list adds the UIDs of pods that have ended to the status, and returns the pods
// whose finalizers can be removed once that is written. listed reports whether it
// added any, all whether there is none left for another time.
func (s *state) list() (release []*v1.Pod, listed, all bool) {
	u := s.job.Status.UncountedTerminatedPods
	pods := s.pods
	if indexed(s.job) {
		pods = slices.Clone(pods)
		slices.SortStableFunc(pods, func(a, b *v1.Pod) int { return indexOf(a) - indexOf(b) })
	}
	successes := 0 // of indexes, which are counted by their index
	for _, p := range pods {
		if !s.uncounted(p) {
			continue
		}
		lost := failed(s.job, p)
		if !s.releasable(p, lost) {
			continue
		}
		release = append(release, p)
		switch {
		case slices.Contains(u.Failed, p.UID), slices.Contains(u.Succeeded, p.UID), !validIndex(s.job, p):
		case p.Status.Phase == v1.PodSucceeded && indexed(s.job):
			if !s.before.has(indexOf(p)) {
				successes++
				listed = true
			}
		case p.Status.Phase == v1.PodSucceeded:
			u.Succeeded = append(u.Succeeded, p.UID)
			listed = true
		case lost, s.over != nil && s.over.Type != batch.JobSuccessCriteriaMet:
			// Of a Job that has failed, each pod that has not ended is a failure.
			if judge(s.job.Spec.PodFailurePolicy, p).counts {
				u.Failed = append(u.Failed, p.UID)
				listed = true
			}
		}
		if successes+len(u.Succeeded)+len(u.Failed) >= maxUncounted {
			return release, listed, false
		}
	}
	return release, listed, true
}

// releasable reports whether the pod's finalizer can be removed once the pod is
// in the status: it has ended, or the Job has.
func (s *state) releasable(p *v1.Pod, lost bool) bool {
	if s.job.DeletionTimestamp != nil || s.over != nil || p.Status.Phase == v1.PodSucceeded {
		return true
	}
	if !lost {
		return false
	}
	kept := s.kept[indexOf(p)]
	return kept == nil || kept.UID != p.UID
}

// writeIndexes puts the indexes into the status, with those of the released pods
// that have succeeded, and reports whether that is a change.
func (s *state) writeIndexes(released []*v1.Pod) bool {
	done := s.before
	for _, p := range released {
		if p.Status.Phase == v1.PodSucceeded && validIndex(s.job, p) {
			done = done.with(indexOf(p))
		}
	}
	status := &s.job.Status
	completed := done.String()
	var lost *string
	if limitedPerIndex(s.job) {
		lost = ptr.To(s.lost.String())
	}
	changed := status.CompletedIndexes != completed || !ptr.Equal(status.FailedIndexes, lost) || status.Succeeded != int32(done.count())
	status.Succeeded, status.CompletedIndexes, status.FailedIndexes = int32(done.count()), completed, lost
	return changed
}

// untrackAll removes the finalizers of pods and returns the UIDs of those that have
// none any more.
func (r *controller) untrackAll(ctx context.Context, key string, j *batch.Job, pods []*v1.Pod) (sets.Set[types.UID], error) {
	done := make([]bool, len(pods))
	r.remembered(key, j.UID, func(m *memory) {
		for _, p := range pods {
			m.released.Insert(p.UID)
		}
	})
	err := controllers.Parallel(len(pods), func(i int) error {
		err := r.untrack(ctx, pods[i])
		if err == nil || apierrors.IsNotFound(err) {
			done[i] = true
			return nil
		}
		r.seenReleased(key, pods[i].UID) // no change of the pod will tell
		return err
	})
	out := sets.New[types.UID]()
	for i, p := range pods {
		if done[i] {
			out.Insert(p.UID)
		}
	}
	return out, err
}

// finish ends the Job, if it is over and all its pods have ended and are
// counted. It reports whether it did.
func (s *state) finish() bool {
	u := s.job.Status.UncountedTerminatedPods
	if s.over == nil || len(u.Succeeded)+len(u.Failed) > 0 || s.terminating > 0 {
		return false
	}
	s.set(s.over.Type, v1.ConditionTrue, s.over.Reason, s.over.Message)
	if s.over.Type == batch.JobComplete {
		s.job.Status.CompletionTime = &s.over.LastTransitionTime
	}
	return true
}

// tell records the end of the Job.
func (r *controller) tell(s *state) {
	if s.over.Type != batch.JobComplete {
		r.recorder.Event(s.job, v1.EventTypeWarning, s.over.Reason, s.over.Message)
		return
	}
	if c := s.job.Spec.Completions; c != nil && s.job.Status.Succeeded > *c {
		r.recorder.Event(s.job, v1.EventTypeWarning, "TooManySucceededPods", "Too many succeeded pods running after completion count reached")
	}
	r.recorder.Event(s.job, v1.EventTypeNormal, "Completed", "Job completed")
}

// write writes the status, and goes on with the object that has it.
func (r *controller) write(ctx context.Context, key string, s *state) error {
	j, err := r.client.BatchV1().Jobs(s.job.Namespace).UpdateStatus(ctx, s.job, metav1.UpdateOptions{})
	if err != nil {
		return err
	}
	r.writes.Wrote(j)
	r.remembered(key, j.UID, func(m *memory) { m.failures = s.failures })
	s.job = j.DeepCopy()
	if s.job.Status.UncountedTerminatedPods == nil {
		s.job.Status.UncountedTerminatedPods = &batch.UncountedTerminatedPods{}
	}
	return nil
}
