package batch

import (
	"fmt"
	"strings"
	"time"

	v1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

const (
	// maxParallelismIndexed bounds the indexes kept in an Indexed job's status.
	maxParallelismIndexed = 100000
	maxFailedIndexes      = 100000
)

func validateJob(j *v1.Job) field.ErrorList {
	errs := validateGeneratedSelector(j)
	errs = append(errs, validateJobSpec(&j.Spec, field.NewPath("spec"))...)
	return append(errs, validateIndexedName(j)...)
}

// validateIndexedName: the hostnames of an Indexed job's pods are its name
// and index, and must be labels.
func validateIndexedName(j *v1.Job) field.ErrorList {
	if ptr.Deref(j.Spec.CompletionMode, "") != v1.IndexedCompletion || ptr.Deref(j.Spec.Completions, 0) <= 0 {
		return nil
	}
	host := fmt.Sprintf("%s-%d", j.Name, *j.Spec.Completions-1)
	var errs field.ErrorList
	for _, msg := range validation.IsDNS1123Label(host) {
		errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), j.Name, "will not able to create pod with invalid DNS label: "+host+": "+msg))
		break
	}
	return errs
}

func validateGeneratedSelector(j *v1.Job) field.ErrorList {
	if ptr.Deref(j.Spec.ManualSelector, false) {
		return nil
	}
	if j.Spec.Selector == nil {
		return nil // validateJobSpec requires it
	}
	var errs field.ErrorList
	template := field.NewPath("spec", "template", "metadata", "labels")
	want := labels.Set{v1.ControllerUidLabel: string(j.UID)}
	for _, key := range []string{"controller-uid", v1.ControllerUidLabel} {
		if v, ok := j.Spec.Template.Labels[key]; ok && v != string(j.UID) {
			errs = append(errs, field.Invalid(template.Key(key), v, fmt.Sprintf("must be '%s'", j.UID)))
		}
	}
	for _, key := range []string{"job-name", v1.JobNameLabel} {
		if v, ok := j.Spec.Template.Labels[key]; ok && v != j.Name {
			errs = append(errs, field.Invalid(template.Key(key), v, fmt.Sprintf("must be '%s'", j.Name)))
		}
	}
	if s, err := metav1.LabelSelectorAsSelector(j.Spec.Selector); err == nil && !s.Matches(labels.Merge(want, labels.Set{"controller-uid": string(j.UID)})) {
		errs = append(errs, field.Invalid(field.NewPath("spec", "selector"), j.Spec.Selector, "`selector` not auto-generated"))
	}
	return errs
}

func validateJobSpec(s *v1.JobSpec, fldPath *field.Path) field.ErrorList {
	errs := validateJobSpecShared(s, fldPath)
	if s.Selector == nil {
		errs = append(errs, field.Required(fldPath.Child("selector"), ""))
	} else {
		errs = append(errs, metav1validation.ValidateLabelSelector(s.Selector, metav1validation.LabelSelectorValidationOptions{}, fldPath.Child("selector"))...)
		if sel, err := metav1.LabelSelectorAsSelector(s.Selector); err == nil && !sel.Matches(labels.Set(s.Template.Labels)) {
			errs = append(errs, field.Invalid(fldPath.Child("template", "metadata", "labels"), s.Template.Labels, "`selector` does not match template `labels`"))
		}
	}
	return errs
}

func nonNegative[T int32 | int64](errs *field.ErrorList, v *T, fldPath *field.Path) {
	if v != nil {
		*errs = append(*errs, apivalidation.ValidateNonnegativeField(int64(*v), fldPath)...)
	}
}

func validateJobSpecShared(s *v1.JobSpec, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	nonNegative(&errs, s.Parallelism, fldPath.Child("parallelism"))
	nonNegative(&errs, s.Completions, fldPath.Child("completions"))
	nonNegative(&errs, s.ActiveDeadlineSeconds, fldPath.Child("activeDeadlineSeconds"))
	nonNegative(&errs, s.BackoffLimit, fldPath.Child("backoffLimit"))
	nonNegative(&errs, s.TTLSecondsAfterFinished, fldPath.Child("ttlSecondsAfterFinished"))
	nonNegative(&errs, s.BackoffLimitPerIndex, fldPath.Child("backoffLimitPerIndex"))
	nonNegative(&errs, s.MaxFailedIndexes, fldPath.Child("maxFailedIndexes"))
	if s.MaxFailedIndexes != nil {
		if s.Completions != nil && *s.MaxFailedIndexes > *s.Completions {
			errs = append(errs, field.Invalid(fldPath.Child("maxFailedIndexes"), *s.MaxFailedIndexes, "must be less than or equal to completions"))
		}
		if *s.MaxFailedIndexes > maxFailedIndexes {
			errs = append(errs, field.Invalid(fldPath.Child("maxFailedIndexes"), *s.MaxFailedIndexes, fmt.Sprintf("must be less than or equal to %d", maxFailedIndexes)))
		}
	}
	if s.ManagedBy != nil {
		errs = append(errs, validation.IsDomainPrefixedPath(fldPath.Child("managedBy"), *s.ManagedBy)...)
		if len(*s.ManagedBy) > 63 {
			errs = append(errs, field.TooLong(fldPath.Child("managedBy"), "", 63))
		}
	}
	indexed := ptr.Deref(s.CompletionMode, "") == v1.IndexedCompletion
	if s.CompletionMode != nil {
		if *s.CompletionMode != v1.NonIndexedCompletion && !indexed {
			errs = append(errs, field.NotSupported(fldPath.Child("completionMode"), *s.CompletionMode, []v1.CompletionMode{v1.NonIndexedCompletion, v1.IndexedCompletion}))
		}
		if indexed {
			if s.Completions == nil {
				errs = append(errs, field.Required(fldPath.Child("completions"), fmt.Sprintf("when completion mode is %s", v1.IndexedCompletion)))
			}
			if s.Parallelism != nil && *s.Parallelism > maxParallelismIndexed {
				errs = append(errs, field.Invalid(fldPath.Child("parallelism"), *s.Parallelism, fmt.Sprintf("must be less than or equal to %d when completion mode is %s", maxParallelismIndexed, v1.IndexedCompletion)))
			}
		}
	}
	if !indexed {
		if s.BackoffLimitPerIndex != nil {
			errs = append(errs, field.Invalid(fldPath.Child("backoffLimitPerIndex"), *s.BackoffLimitPerIndex, "requires indexed completion mode"))
		}
	}
	if s.BackoffLimitPerIndex == nil && s.MaxFailedIndexes != nil {
		errs = append(errs, field.Required(fldPath.Child("backoffLimitPerIndex"), "when maxFailedIndexes is specified"))
	}
	if p := s.PodReplacementPolicy; p != nil {
		all := []v1.PodReplacementPolicy{v1.Failed, v1.TerminatingOrFailed}
		switch {
		case *p != v1.Failed && *p != v1.TerminatingOrFailed:
			errs = append(errs, field.NotSupported(fldPath.Child("podReplacementPolicy"), *p, all))
		case s.PodFailurePolicy != nil && *p != v1.Failed:
			errs = append(errs, field.NotSupported(fldPath.Child("podReplacementPolicy"), *p, []v1.PodReplacementPolicy{v1.Failed}))
		}
	}
	errs = append(errs, validateTemplate(&s.Template, fldPath.Child("template"))...)
	policy := fldPath.Child("template", "spec", "restartPolicy")
	switch s.Template.Spec.RestartPolicy {
	case corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever:
	case "", corev1.RestartPolicyAlways:
		errs = append(errs, field.Required(policy, fmt.Sprintf("valid values: %q, %q", corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever)))
	default:
		errs = append(errs, field.NotSupported(policy, s.Template.Spec.RestartPolicy, []corev1.RestartPolicy{corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever}))
	}
	if s.PodFailurePolicy != nil && s.Template.Spec.RestartPolicy != corev1.RestartPolicyNever {
		errs = append(errs, field.Invalid(policy, s.Template.Spec.RestartPolicy, fmt.Sprintf("only %q is supported when podFailurePolicy is specified", corev1.RestartPolicyNever)))
	}
	return errs
}

func validateJobUpdate(j, old *v1.Job) field.ErrorList {
	at := field.NewPath("spec")
	errs := validateJobSpec(&j.Spec, at)
	immutable := func(name string, is, was any) {
		errs = append(errs, apivalidation.ValidateImmutableField(is, was, at.Child(name))...)
	}
	indexed := ptr.Deref(j.Spec.CompletionMode, "") == v1.IndexedCompletion
	if indexed && j.Spec.Completions != nil && old.Spec.Completions != nil {
		// An elastic Indexed job: both change together.
		if *j.Spec.Completions != *old.Spec.Completions && ptr.Deref(j.Spec.Parallelism, 0) != *j.Spec.Completions {
			errs = append(errs, field.Invalid(at.Child("completions"), j.Spec.Completions, fmt.Sprintf("can only be modified in tandem with %s", at.Child("parallelism"))))
		}
	} else {
		immutable("completions", j.Spec.Completions, old.Spec.Completions)
	}
	immutable("selector", j.Spec.Selector, old.Spec.Selector)
	immutable("template", templateForUpdate(j, old), old.Spec.Template)
	immutable("completionMode", j.Spec.CompletionMode, old.Spec.CompletionMode)
	immutable("podFailurePolicy", j.Spec.PodFailurePolicy, old.Spec.PodFailurePolicy)
	immutable("backoffLimitPerIndex", j.Spec.BackoffLimitPerIndex, old.Spec.BackoffLimitPerIndex)
	immutable("managedBy", j.Spec.ManagedBy, old.Spec.ManagedBy)
	immutable("successPolicy", j.Spec.SuccessPolicy, old.Spec.SuccessPolicy)
	return errs
}

// templateForUpdate gives j's template with the scheduling directives of
// old's where they may be changed: while a suspended job has never started,
// a queue controller says where it runs.
func templateForUpdate(j, old *v1.Job) corev1.PodTemplateSpec {
	t := j.Spec.Template
	if !ptr.Deref(old.Spec.Suspend, false) || old.Status.StartTime != nil {
		return t
	}
	o := &old.Spec.Template
	t.Annotations, t.Labels = o.Annotations, o.Labels
	t.Spec.NodeSelector, t.Spec.Tolerations, t.Spec.SchedulingGates = o.Spec.NodeSelector, o.Spec.Tolerations, o.Spec.SchedulingGates
	if t.Spec.Affinity != nil && o.Spec.Affinity != nil {
		a := *t.Spec.Affinity
		a.NodeAffinity = o.Spec.Affinity.NodeAffinity
		t.Spec.Affinity = &a
	} else if t.Spec.Affinity != nil {
		a := *t.Spec.Affinity
		if a.NodeAffinity = nil; equality.Semantic.DeepEqual(a, corev1.Affinity{}) {
			t.Spec.Affinity = nil
		}
	} else if o.Spec.Affinity != nil {
		if o.Spec.Affinity.PodAffinity == nil && o.Spec.Affinity.PodAntiAffinity == nil {
			t.Spec.Affinity = o.Spec.Affinity
		}
	}
	return t
}

func validateJobStatusUpdate(j, old *v1.Job) field.ErrorList {
	at := field.NewPath("status")
	var errs field.ErrorList
	for name, n := range map[string]int32{"active": j.Status.Active, "succeeded": j.Status.Succeeded, "failed": j.Status.Failed} {
		errs = append(errs, apivalidation.ValidateNonnegativeField(int64(n), at.Child(name))...)
	}
	nonNegative(&errs, j.Status.Ready, at.Child("ready"))
	nonNegative(&errs, j.Status.Terminating, at.Child("terminating"))
	is := func(status *v1.JobStatus, t v1.JobConditionType) bool {
		for _, c := range status.Conditions {
			if c.Type == t && c.Status == corev1.ConditionTrue {
				return true
			}
		}
		return false
	}
	conditions := at.Child("conditions")
	if is(&j.Status, v1.JobFailed) && is(&j.Status, v1.JobComplete) {
		errs = append(errs, field.Invalid(conditions, field.OmitValueType{}, "cannot set Complete=True and Failed=true conditions"))
	}
	for _, t := range []v1.JobConditionType{v1.JobComplete, v1.JobFailed} {
		if is(&old.Status, t) && !is(&j.Status, t) {
			errs = append(errs, field.Invalid(conditions, field.OmitValueType{}, fmt.Sprintf("cannot disable %s=True condition", t)))
		}
	}
	if is(&old.Status, v1.JobComplete) && is(&j.Status, v1.JobComplete) && old.Status.CompletionTime != nil &&
		!equality.Semantic.DeepEqual(old.Status.CompletionTime, j.Status.CompletionTime) {
		errs = append(errs, field.Invalid(at.Child("completionTime"), j.Status.CompletionTime, "completionTime cannot be mutated"))
	}
	return errs
}

func validateCronJob(c *v1.CronJob) field.ErrorList {
	errs := validateCronJobSpec(&c.Spec, nil, field.NewPath("spec"))
	if len(c.Name) > cronJobNameLength {
		errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), c.Name, "must be no more than 52 characters"))
	}
	return errs
}

func validateCronJobUpdate(c, old *v1.CronJob) field.ErrorList {
	// The name cannot change, so an old one that is too long stays good.
	return validateCronJobSpec(&c.Spec, &old.Spec, field.NewPath("spec"))
}

func validateCronJobSpec(s, old *v1.CronJobSpec, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	schedule := fldPath.Child("schedule")
	if s.Schedule == "" {
		errs = append(errs, field.Required(schedule, ""))
	} else {
		errs = append(errs, validateSchedule(s, old, schedule)...)
	}
	nonNegative(&errs, s.StartingDeadlineSeconds, fldPath.Child("startingDeadlineSeconds"))
	if s.TimeZone != nil && (old == nil || ptr.Deref(old.TimeZone, "") != *s.TimeZone) {
		errs = append(errs, validateTimeZone(*s.TimeZone, fldPath.Child("timeZone"))...)
	}
	all := []v1.ConcurrencyPolicy{v1.AllowConcurrent, v1.ForbidConcurrent, v1.ReplaceConcurrent}
	switch s.ConcurrencyPolicy {
	case v1.AllowConcurrent, v1.ForbidConcurrent, v1.ReplaceConcurrent:
	case "":
		errs = append(errs, field.Required(fldPath.Child("concurrencyPolicy"), ""))
	default:
		errs = append(errs, field.NotSupported(fldPath.Child("concurrencyPolicy"), s.ConcurrencyPolicy, all))
	}
	template := fldPath.Child("jobTemplate", "spec")
	job := &s.JobTemplate.Spec
	errs = append(errs, validateJobSpecShared(job, template)...)
	if ptr.Deref(job.ManualSelector, false) {
		errs = append(errs, field.NotSupported(template.Child("manualSelector"), true, []string{"nil", "false"}))
	}
	nonNegative(&errs, s.SuccessfulJobsHistoryLimit, fldPath.Child("successfulJobsHistoryLimit"))
	nonNegative(&errs, s.FailedJobsHistoryLimit, fldPath.Child("failedJobsHistoryLimit"))
	return errs
}

func validateSchedule(s, old *v1.CronJobSpec, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	if err := parseSchedule(s.Schedule); err != nil {
		errs = append(errs, field.Invalid(fldPath, s.Schedule, err.Error()))
	}
	if !strings.Contains(s.Schedule, "TZ") {
		return errs
	}
	if s.TimeZone != nil {
		errs = append(errs, field.Invalid(fldPath, s.Schedule, "cannot use both timeZone field and TZ or CRON_TZ in schedule"))
	} else if old == nil || !strings.Contains(old.Schedule, "TZ") {
		errs = append(errs, field.Invalid(fldPath, s.Schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"))
	}
	return errs
}

func validateTimeZone(zone string, fldPath *field.Path) field.ErrorList {
	if zone == "" {
		return field.ErrorList{field.Invalid(fldPath, zone, "timeZone must be nil or non-empty string")}
	}
	for _, r := range zone {
		if !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-+_/", r) {
			return field.ErrorList{field.Invalid(fldPath, zone, "unknown time zone "+zone)}
		}
	}
	if strings.EqualFold(zone, "Local") {
		return field.ErrorList{field.Invalid(fldPath, zone, "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones")}
	}
	if _, err := time.LoadLocation(zone); err != nil {
		return field.ErrorList{field.Invalid(fldPath, zone, err.Error())}
	}
	return nil
}

func cronJobWarnings(c *v1.CronJob) []string {
	var out []string
	for _, msg := range validation.IsDNS1123Label(c.Name) {
		out = append(out, fmt.Sprintf("metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: %v", []string{msg}))
		break
	}
	if strings.Contains(c.Spec.Schedule, "TZ") {
		out = append(out, fmt.Sprintf("%s: CRON_TZ or TZ is not officially supported, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details", field.NewPath("spec", "schedule")))
	}
	return out
}
