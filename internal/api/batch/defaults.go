package batch

import (
	"maps"
	"math"

	v1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/api/podspec"
)

func setJobDefaults(j *v1.Job) {
	s := &j.Spec
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
	if s.BackoffLimitPerIndex != nil {
		// The limit of each index decides; the whole is unlimited.
		setDefault(&s.BackoffLimit, math.MaxInt32)
	}
	setDefault(&s.BackoffLimit, 6)
	if len(j.Labels) == 0 {
		j.Labels = maps.Clone(s.Template.Labels)
	}
	setSharedDefaults(s)
}

// setSharedDefaults fills in what a job and a CronJob's template of jobs have
// filled in alike. The rest of such a template stays open until it is a job.
func setSharedDefaults(s *v1.JobSpec) {
	if s.PodFailurePolicy != nil {
		for i := range s.PodFailurePolicy.Rules {
			for j := range s.PodFailurePolicy.Rules[i].OnPodConditions {
				if c := &s.PodFailurePolicy.Rules[i].OnPodConditions[j]; c.Status == "" {
					c.Status = corev1.ConditionTrue
				}
			}
		}
	}
	podspec.SetDefaultsPodTemplate(&s.Template)
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
	setSharedDefaults(&c.Spec.JobTemplate.Spec)
}

func setDefault[T any](p **T, v T) {
	if *p == nil {
		*p = &v
	}
}

// dropDisabled drops what only the feature WorkloadWithJob, alpha and off,
// would give a meaning.
func dropDisabled(s, old *v1.JobSpec) {
	if old == nil || old.Scheduling == nil {
		s.Scheduling = nil
	}
}

// The labels by which a job's pods are known; the older names are the first.
var (
	nameLabels = []string{"job-name", v1.JobNameLabel}
	uidLabels  = []string{"controller-uid", v1.ControllerUidLabel}
)

// generateSelector returns a job a selector of its own UID, unless the user
// manages the selector. What the user has set stays, for validation to judge.
func generateSelector(j *v1.Job) {
	if ptr.Deref(j.Spec.ManualSelector, false) {
		return
	}
	labels := &j.Spec.Template.Labels
	for _, key := range nameLabels {
		setLabel(labels, key, j.Name)
	}
	for _, key := range uidLabels {
		setLabel(labels, key, string(j.UID))
	}
	if j.Spec.Selector == nil {
		j.Spec.Selector = &metav1.LabelSelector{}
	}
	setLabel(&j.Spec.Selector.MatchLabels, v1.ControllerUidLabel, string(j.UID))
}

func setLabel(m *map[string]string, key, value string) {
	if *m == nil {
		*m = map[string]string{}
	}
	if _, ok := (*m)[key]; !ok {
		(*m)[key] = value
	}
}
