package job

import (
	"slices"
	"strconv"
	"time"

	batch "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"

	"keelson.dev/keelson/internal/api/podspec"
)

// The delay before a failed pod is replaced: it doubles with each failure in a
// row.
const (
	firstBackoff = 10 * time.Second
	maxBackoff   = 10 * time.Minute
)

// failures are the failures of a Job since its last success.
type failures struct {
	n    int
	last time.Time
}

// after returns the failures once more pods have ended.
func (f failures) after(succeeded, failed []*v1.Pod) failures {
	if len(succeeded) > 0 {
		// Of the failed ones, those count that failed after the last success.
		last := slices.MaxFunc(succeeded, byEnd)
		failed = slices.DeleteFunc(slices.Clone(failed), func(p *v1.Pod) bool { return !ended(p).After(ended(last)) })
		f = failures{}
	}
	if len(failed) > 0 {
		f = failures{f.n + len(failed), ended(slices.MaxFunc(failed, byEnd))}
	}
	return f
}

// wait returns the time until the next pod may be made.
func (f failures) wait(now time.Time) time.Duration {
	if f.n == 0 {
		return 0
	}
	d := firstBackoff
	for i := 1; i < f.n && d < maxBackoff; i++ {
		d *= 2
	}
	return max(min(d, maxBackoff)-now.Sub(f.last), 0)
}

func byEnd(a, b *v1.Pod) int { return ended(a).Compare(ended(b)) }

// ended returns the time at which a pod ended: when the last of its containers did,
// else when it ceased to be ready, else when its deletion was asked for, else, of
// a pod that never had a node, when it was made.
func ended(p *v1.Pod) time.Time {
	var last time.Time
	known := true
	look := func(s *v1.ContainerStatus) {
		if t := s.State.Terminated; t == nil || t.FinishedAt.IsZero() {
			known = false
		} else if t.FinishedAt.After(last) {
			last = t.FinishedAt.Time
		}
	}
	for i := range p.Status.ContainerStatuses {
		look(&p.Status.ContainerStatuses[i])
	}
	for i := range p.Status.InitContainerStatuses {
		// A sidecar ends after the containers, any other before them.
		s := &p.Status.InitContainerStatuses[i]
		if slices.ContainsFunc(p.Spec.InitContainers, func(c v1.Container) bool {
			return c.Name == s.Name && c.RestartPolicy != nil && *c.RestartPolicy == v1.ContainerRestartPolicyAlways
		}) {
			look(s)
		}
	}
	if known && !last.IsZero() {
		return last
	}
	if c := podspec.Condition(p, v1.PodReady); c != nil && c.Status == v1.ConditionFalse && !c.LastTransitionTime.IsZero() {
		return c.LastTransitionTime.Time
	}
	if p.DeletionTimestamp != nil {
		var grace int64
		if p.DeletionGracePeriodSeconds != nil {
			grace = *p.DeletionGracePeriodSeconds
		}
		return p.DeletionTimestamp.Add(-time.Duration(grace) * time.Second)
	}
	return p.CreationTimestamp.Time
}

// indexFailures reads how often a pod's index failed before the pod was made:
// failures that count, and ignored ones.
func indexFailures(p *v1.Pod) (counted, ignored int) {
	counted, _ = strconv.Atoi(p.Annotations[batch.JobIndexFailureCountAnnotation])
	ignored, _ = strconv.Atoi(p.Annotations[batch.JobIndexIgnoredFailureCountAnnotation])
	return max(counted, 0), max(ignored, 0)
}

// indexFailuresAfter returns the same for the pod that replaces failed, which is
// nil if there was none before.
func indexFailuresAfter(j *batch.Job, failed *v1.Pod) (counted, ignored int) {
	if failed == nil {
		return 0, 0
	}
	counted, ignored = indexFailures(failed)
	if judge(j.Spec.PodFailurePolicy, failed).counts {
		return counted + 1, ignored
	}
	return counted, ignored + 1
}

// indexWait returns the time until the pod that replaces failed may be made.
func indexWait(failed *v1.Pod, now time.Time) time.Duration {
	if failed == nil {
		return 0
	}
	counted, ignored := indexFailures(failed)
	return failures{counted + ignored + 1, ended(failed)}.wait(now)
}
