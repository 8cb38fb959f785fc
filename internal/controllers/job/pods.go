package job

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	batch "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/reconcile"
)

const (
	// burst bounds the pods made or deleted in one reconciliation.
	burst = 500
	// indexVariable has the completion index in the containers' environment.
	indexVariable = "JOB_COMPLETION_INDEX"
	// maxPrefix is the length of the longest prefix to which the API server adds a
	// generated suffix without cutting it.
	maxPrefix = 58
)

// manage makes or deletes pods until there are as many as there should be.
func (r *controller) manage(ctx context.Context, key string, s *state) error {
	if suspended(s.job) {
		return r.remove(ctx, key, s, s.active)
	}
	parallelism := ptr.Deref(s.job.Spec.Parallelism, 1)
	want := parallelism
	switch {
	case s.job.Spec.Completions != nil:
		want = max(min(*s.job.Spec.Completions-s.succeeded, parallelism), 0)
	case s.succeeded > 0:
		want = s.running // they finish what they do; none is added
	}
	if surplus := s.surplus(int(s.running - want)); len(surplus) > 0 {
		return r.remove(ctx, key, s, surplus[:min(len(surplus), burst)])
	}
	missing := int(want - s.running)
	if replacesFailed(s.job) {
		missing -= int(s.terminating)
	}
	if missing <= 0 {
		return nil
	}
	if !limitedPerIndex(s.job) {
		if wait := s.failures.wait(s.now); wait > 0 {
			s.lookAgain(wait)
			return nil
		}
	}
	missing = min(missing, burst)
	var at []int
	if indexed(s.job) {
		at = s.missingIndexes(missing)
		missing = len(at)
	}
	return r.create(ctx, key, s, missing, at)
}

// surplus returns the active pods that are to go: those with an index that is
// another's too, or is none of the Job's, and then as many that n are reached.
func (s *state) surplus(n int) []*v1.Pod {
	left := slices.Clone(s.active)
	controllers.RankForDeletion(left, nil, s.now)
	var out []*v1.Pod
	if indexed(s.job) {
		// Of each index the pod that is missed most stays.
		taken := map[int]bool{}
		var stay []*v1.Pod
		for _, p := range slices.Backward(left) {
			if i := indexOf(p); validIndex(s.job, p) && !taken[i] {
				taken[i] = true
				stay = append(stay, p)
			} else {
				out = append(out, p)
			}
		}
		slices.Reverse(stay)
		left = stay
	}
	if more := n - len(out); more > 0 {
		out = append(out, left[:min(more, len(left))]...)
	}
	return out
}

// missingIndexes returns at most n indexes that pods can be made for now.
func (s *state) missingIndexes(n int) []int {
	have := s.done.union(s.lost).union(indexesOf(s.active))
	if replacesFailed(s.job) {
		for _, p := range s.pods {
			if p.DeletionTimestamp != nil && !controllers.PodTerminated(p) && validIndex(s.job, p) {
				have = have.with(indexOf(p))
			}
		}
	}
	all := have.gaps(n, int(*s.job.Spec.Completions))
	if !limitedPerIndex(s.job) {
		return all
	}
	var now []int
	var next time.Duration
	for _, i := range all {
		wait := indexWait(s.kept[i], s.now)
		if wait == 0 {
			now = append(now, i)
		} else if next == 0 || wait < next {
			next = wait
		}
	}
	if next > 0 {
		s.lookAgain(next)
	}
	return now
}

// create makes n pods, with the indexes at where the Job has indexes.
func (r *controller) create(ctx context.Context, key string, s *state, n int, at []int) error {
	if n == 0 {
		return nil
	}
	selector, err := metav1.LabelSelectorAsSelector(s.job.Spec.Selector)
	if err != nil {
		return fmt.Errorf("couldn't convert Job selector: %w", err)
	}
	r.expect.ExpectCreations(key, n)
	var made atomic.Int32
	done, err := controllers.SlowStart(n, func(i int) error {
		index := -1
		if len(at) > 0 {
			index = at[i]
		}
		err := r.control.Create(ctx, s.job, selector, s.pod(index))
		if err == nil {
			made.Add(1)
		} else if apierrors.HasStatusCause(err, v1.NamespaceTerminatingCause) {
			return nil // its end removes the Job too
		}
		return err
	})
	// Those that failed and those never tried will not be seen.
	r.expect.CreatedN(key, n-done)
	s.running += made.Load()
	return err
}

// pod makes a pod of the Job, with an index unless that is below 0.
func (s *state) pod(index int) *v1.Pod {
	p := controllers.PodFromTemplate(&s.job.Spec.Template, s.job, metav1.NewControllerRef(s.job, kind))
	if !tracked(p) {
		p.Finalizers = append(p.Finalizers, batch.JobTrackingFinalizer)
	}
	if index < 0 {
		return p
	}
	n := strconv.Itoa(index)
	suffix := "-" + n + "-"
	name := s.job.Name
	p.GenerateName = name[:min(len(name), maxPrefix-len(suffix))] + suffix
	p.Spec.Hostname = fmt.Sprintf("%s-%d", name, index)
	set := func(m *map[string]string, key, value string) {
		if *m == nil {
			*m = map[string]string{}
		}
		(*m)[key] = value
	}
	set(&p.Annotations, batch.JobCompletionIndexAnnotation, n)
	set(&p.Labels, batch.JobCompletionIndexAnnotation, n)
	if limitedPerIndex(s.job) {
		counted, ignored := indexFailuresAfter(s.job, s.kept[index])
		set(&p.Annotations, batch.JobIndexFailureCountAnnotation, strconv.Itoa(counted))
		if ignored > 0 {
			set(&p.Annotations, batch.JobIndexIgnoredFailureCountAnnotation, strconv.Itoa(ignored))
		}
	}
	from := &v1.EnvVarSource{FieldRef: &v1.ObjectFieldSelector{FieldPath: "metadata.labels['" + batch.JobCompletionIndexAnnotation + "']"}}
	for _, list := range [][]v1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range list {
			if !slices.ContainsFunc(list[i].Env, func(e v1.EnvVar) bool { return e.Name == indexVariable }) {
				list[i].Env = append(list[i].Env, v1.EnvVar{Name: indexVariable, ValueFrom: from})
			}
		}
	}
	return p
}

// remove deletes active pods, which are not counted: they go without finalizer.
func (r *controller) remove(ctx context.Context, key string, s *state, pods []*v1.Pod) error {
	if len(pods) == 0 {
		return nil
	}
	names := make([]string, len(pods))
	for i, p := range pods {
		names[i] = reconcile.Key(p)
	}
	r.expect.ExpectDeletions(key, names...)
	return s.delete(pods, func(i int) error {
		err := r.untrack(ctx, pods[i])
		if err == nil {
			err = r.control.Delete(ctx, s.job, pods[i])
		}
		if err != nil {
			r.expect.Gone(key, names[i])
		}
		return err
	})
}

// end deletes the active pods of a Job that is over. Their finalizers stay until
// they are counted. Where pods are left, or are not in the cache yet, the Job
// cannot be said to be over.
func (r *controller) end(ctx context.Context, s *state, satisfied bool) error {
	err := s.delete(s.active, func(i int) error { return r.control.Delete(ctx, s.job, s.active[i]) })
	if s.running > 0 || !satisfied {
		s.over = nil
	}
	return err
}

// delete calls f for each of the pods, and counts those that go as terminating.
func (s *state) delete(pods []*v1.Pod, f func(i int) error) error {
	var gone, ready atomic.Int32
	err := controllers.Parallel(len(pods), func(i int) error {
		err := f(i)
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		gone.Add(1)
		if controllers.PodReady(pods[i]) {
			ready.Add(1)
		}
		return nil
	})
	s.running -= gone.Load()
	s.terminating += gone.Load()
	s.ready -= ready.Load()
	return err
}

// suspend sets the condition of the Job's suspension and of its end, which
// restarts the Job's time.
func (r *controller) suspend(s *state) {
	if suspended(s.job) {
		if s.set(batch.JobSuspended, v1.ConditionTrue, "JobSuspended", "Job suspended") {
			s.changed = true
			r.recorder.Event(s.job, v1.EventTypeNormal, "Suspended", "Job suspended")
		}
		return
	}
	if s.set(batch.JobSuspended, v1.ConditionFalse, "JobResumed", "Job resumed") {
		s.changed = true
		s.job.Status.StartTime = ptr.To(metav1.NewTime(s.now))
		r.recorder.Event(s.job, v1.EventTypeNormal, "Resumed", "Job resumed")
	}
}
