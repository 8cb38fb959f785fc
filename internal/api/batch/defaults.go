package batch

import (
	"maps"

	v1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func setJobDefaults(j *v1.Job) {
	setJobSpecDefaults(&j.Spec)
	if len(j.Labels) == 0 {
		j.Labels = maps.Clone(j.Spec.Template.Labels)
	}
}

func setJobSpecDefaults(s *v1.JobSpec) {
	// With neither given it is a job of one pod; with parallelism alone it
	// is a work queue, whose completions stay open.
	if s.Completions == nil && s.Parallelism == nil {
		s.Completions = ptr.To[int32](1)
	}
	setDefault(&s.Parallelism, 1)
	setDefault(&s.CompletionMode, v1.NonIndexedCompletion)
	setDefault(&s.Suspend, false)
	setDefault(&s.ManualSelector, false)
	setDefault(&s.PodReplacementPolicy, podReplacement(s))
	if s.BackoffLimit == nil {
		if s.BackoffLimitPerIndex != nil {
			// The limit of each index decides; the whole is unlimited.
			s.BackoffLimit = ptr.To[int32](1<<31 - 1)
		} else {
			s.BackoffLimit = ptr.To[int32](6)
		}
	}
	if s.PodFailurePolicy != nil {
		for i := range s.PodFailurePolicy.Rules {
			for j := range s.PodFailurePolicy.Rules[i].OnPodConditions {
				if c := &s.PodFailurePolicy.Rules[i].OnPodConditions[j]; c.Status == "" {
					c.Status = "True"
				}
			}
		}
	}
	setTemplateDefaults(&s.Template)
}

func podReplacement(s *v1.JobSpec) v1.PodReplacementPolicy {
	if s.PodFailurePolicy != nil {
		return v1.Failed
	}
	return v1.TerminatingOrFailed
}

func setCronJobDefaults(c *v1.CronJob) {
	if c.Spec.ConcurrencyPolicy == "" {
		c.Spec.ConcurrencyPolicy = v1.AllowConcurrent
	}
	setDefault(&c.Spec.Suspend, false)
	setDefault(&c.Spec.SuccessfulJobsHistoryLimit, 3)
	setDefault(&c.Spec.FailedJobsHistoryLimit, 1)
	setJobSpecDefaults(&c.Spec.JobTemplate.Spec)
}

func setDefault[T any](p **T, v T) {
	if *p == nil {
		*p = &v
	}
}

// generateSelector gives a job a selector of its own UID, unless the user
// manages the selector.
func generateSelector(j *v1.Job) {
	if ptr.Deref(j.Spec.ManualSelector, false) {
		return
	}
	if j.Spec.Template.Labels == nil {
		j.Spec.Template.Labels = map[string]string{}
	}
	labels := j.Spec.Template.Labels
	for _, key := range []string{v1.ControllerUidLabel, "controller-uid"} {
		labels[key] = string(j.UID)
	}
	for _, key := range []string{v1.JobNameLabel, "job-name"} {
		labels[key] = j.Name
	}
	if j.Spec.Selector == nil {
		j.Spec.Selector = &metav1.LabelSelector{}
	}
	if j.Spec.Selector.MatchLabels == nil {
		j.Spec.Selector.MatchLabels = map[string]string{}
	}
	if _, ok := j.Spec.Selector.MatchLabels[v1.ControllerUidLabel]; !ok {
		j.Spec.Selector.MatchLabels[v1.ControllerUidLabel] = string(j.UID)
	}
}
