package batch

import (
	"fmt"

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

	"keelson.dev/keelson/internal/api/podspec"
)

const (
	// An Indexed job's status lists indexes in one string; these bound it.
	maxParallelismIndexed = 100_000
	maxFailedIndexes      = 100_000
	// Above this many completions, limits of each index cost too much with
	// more than highLimit pods at a time or failed indexes.
	manyCompletions = 100_000
	highLimit       = 10_000

	maxManagedByLength = 63
)

func indexed(s *v1.JobSpec) bool { return ptr.Deref(s.CompletionMode, "") == v1.IndexedCompletion }

func validateJob(j *v1.Job) field.ErrorList {
	errs := validateGeneratedSelector(j, true)
	errs = append(errs, validateJobSpec(&j.Spec, field.NewPath("spec"), false)...)
	return append(errs, validateIndexedName(j)...)
}

// validateIndexedName checks that the hostnames of an Indexed job's pods, its
// name and an index, are DNS labels.
func validateIndexedName(j *v1.Job) field.ErrorList {
	if !indexed(&j.Spec) || ptr.Deref(j.Spec.Completions, 0) <= 0 {
		return nil
	}
	host := fmt.Sprintf("%s-%d", j.Name, *j.Spec.Completions-1)
	if len(validation.IsDNS1123Label(host)) == 0 {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath("metadata", "name"), j.Name, "will not able to create pod with invalid DNS label: "+host)}
}

// validateGeneratedSelector checks that the labels of the template and the
// selector are the ones that generateSelector gives. Jobs of old releases do
// not have the prefixed ones.
func validateGeneratedSelector(j *v1.Job, prefixed bool) field.ErrorList {
	if ptr.Deref(j.Spec.ManualSelector, false) || j.Spec.Selector == nil {
		return nil
	}
	var errs field.ErrorList
	if j.UID == "" {
		errs = append(errs, field.Required(field.NewPath("metadata", "uid"), ""))
	}
	at := field.NewPath("spec", "template", "metadata", "labels")
	want := labels.Set{}
	has := func(key, value string) {
		want[key] = value
		if is, ok := j.Spec.Template.Labels[key]; !ok {
			errs = append(errs, field.Required(at.Key(key), fmt.Sprintf("must be '%s'", value)))
		} else if is != value {
			errs = append(errs, field.Invalid(at.Key(key), j.Spec.Template.Labels, fmt.Sprintf("must be '%s'", value)))
		}
	}
	for i := range nameLabels {
		if i == 0 || prefixed {
			has(uidLabels[i], string(j.UID))
			has(nameLabels[i], j.Name)
		}
	}
	if s, err := metav1.LabelSelectorAsSelector(j.Spec.Selector); err == nil && !s.Matches(want) {
		errs = append(errs, field.Invalid(field.NewPath("spec", "selector"), j.Spec.Selector, "`selector` not auto-generated"))
	}
	return errs
}

// validateJobSpec checks a whole job's spec. badValues lets a selector keep
// values that are no label values.
func validateJobSpec(s *v1.JobSpec, fldPath *field.Path, badValues bool) field.ErrorList {
	errs := validateJobSpecShared(s, fldPath)
	if s.Selector == nil {
		errs = append(errs, field.Required(fldPath.Child("selector"), ""))
	} else {
		opts := metav1validation.LabelSelectorValidationOptions{AllowInvalidLabelValueInSelector: badValues}
		errs = append(errs, metav1validation.ValidateLabelSelector(s.Selector, opts, fldPath.Child("selector"))...)
	}
	if sel, err := metav1.LabelSelectorAsSelector(s.Selector); err == nil && !sel.Matches(labels.Set(s.Template.Labels)) {
		errs = append(errs, field.Invalid(fldPath.Child("template", "metadata", "labels"), s.Template.Labels, "`selector` does not match template `labels`"))
	}
	return errs
}

func nonNegative[T int32 | int64](errs *field.ErrorList, v *T, fldPath *field.Path) {
	if v != nil {
		*errs = append(*errs, apivalidation.ValidateNonnegativeField(int64(*v), fldPath)...)
	}
}

// validateJobSpecShared checks what a job and a CronJob's template of jobs
// have in common.
func validateJobSpecShared(s *v1.JobSpec, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	nonNegative(&errs, s.Parallelism, fldPath.Child("parallelism"))
	nonNegative(&errs, s.Completions, fldPath.Child("completions"))
	nonNegative(&errs, s.ActiveDeadlineSeconds, fldPath.Child("activeDeadlineSeconds"))
	nonNegative(&errs, s.BackoffLimit, fldPath.Child("backoffLimit"))
	nonNegative(&errs, s.TTLSecondsAfterFinished, fldPath.Child("ttlSecondsAfterFinished"))
	nonNegative(&errs, s.BackoffLimitPerIndex, fldPath.Child("backoffLimitPerIndex"))
	nonNegative(&errs, s.MaxFailedIndexes, fldPath.Child("maxFailedIndexes"))
	if s.MaxFailedIndexes != nil && s.BackoffLimitPerIndex == nil {
		errs = append(errs, field.Required(fldPath.Child("backoffLimitPerIndex"), "when maxFailedIndexes is specified"))
	}
	if s.ManagedBy != nil {
		at := fldPath.Child("managedBy")
		errs = append(errs, validation.IsDomainPrefixedPath(at, *s.ManagedBy)...)
		if len(*s.ManagedBy) > maxManagedByLength {
			errs = append(errs, field.TooLong(at, "", maxManagedByLength))
		}
	}
	errs = append(errs, validateCompletionMode(s, fldPath)...)
	if s.PodFailurePolicy != nil {
		errs = append(errs, validateFailurePolicy(s, fldPath.Child("podFailurePolicy"))...)
	}
	if s.SuccessPolicy != nil {
		if indexed(s) {
			errs = append(errs, validateSuccessPolicy(s, fldPath.Child("successPolicy"))...)
		} else {
			errs = append(errs, field.Invalid(fldPath.Child("successPolicy"), *s.SuccessPolicy, "requires indexed completion mode"))
		}
	}
	errs = append(errs, validateReplacement(s, fldPath.Child("podReplacementPolicy"))...)
	errs = append(errs, podspec.ValidatePodTemplateSpec(&s.Template, fldPath.Child("template"))...)
	at := fldPath.Child("template", "spec", "restartPolicy")
	switch policy := s.Template.Spec.RestartPolicy; {
	case policy == "" || policy == corev1.RestartPolicyAlways:
		// The default of pods is none that a job may have.
		errs = append(errs, field.Required(at, fmt.Sprintf("valid values: %q, %q", corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever)))
	case policy != corev1.RestartPolicyOnFailure && policy != corev1.RestartPolicyNever:
		errs = append(errs, field.NotSupported(at, policy, []corev1.RestartPolicy{corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever}))
	case policy != corev1.RestartPolicyNever && s.PodFailurePolicy != nil:
		errs = append(errs, field.Invalid(at, policy, fmt.Sprintf("only %q is supported when podFailurePolicy is specified", corev1.RestartPolicyNever)))
	}
	return errs
}

func validateCompletionMode(s *v1.JobSpec, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	invalid := func(name string, value *int32, format string, args ...any) {
		errs = append(errs, field.Invalid(fldPath.Child(name), *value, fmt.Sprintf(format, args...)))
	}
	above := func(n *int32, limit int32) bool { return n != nil && *n > limit }
	switch ptr.Deref(s.CompletionMode, v1.NonIndexedCompletion) {
	case v1.IndexedCompletion:
		if s.Completions == nil {
			errs = append(errs, field.Required(fldPath.Child("completions"), fmt.Sprintf("when completion mode is %s", v1.IndexedCompletion)))
		}
		if above(s.Parallelism, maxParallelismIndexed) {
			invalid("parallelism", s.Parallelism, "must be less than or equal to %d when completion mode is %s", maxParallelismIndexed, v1.IndexedCompletion)
		}
		if s.Completions != nil && above(s.MaxFailedIndexes, *s.Completions) {
			invalid("maxFailedIndexes", s.MaxFailedIndexes, "must be less than or equal to completions")
		}
		if above(s.MaxFailedIndexes, maxFailedIndexes) {
			invalid("maxFailedIndexes", s.MaxFailedIndexes, "must be less than or equal to %d", maxFailedIndexes)
		}
		if !above(s.Completions, manyCompletions) || s.BackoffLimitPerIndex == nil {
			break
		}
		const high = "must be less than or equal to %d when completions are above %d and used with backoff limit per index"
		if s.MaxFailedIndexes == nil {
			errs = append(errs, field.Required(fldPath.Child("maxFailedIndexes"), fmt.Sprintf("must be specified when completions is above %d", manyCompletions)))
		}
		if above(s.Parallelism, highLimit) {
			invalid("parallelism", s.Parallelism, high, highLimit, manyCompletions)
		}
		if above(s.MaxFailedIndexes, highLimit) {
			invalid("maxFailedIndexes", s.MaxFailedIndexes, high, highLimit, manyCompletions)
		}
	case v1.NonIndexedCompletion:
		if s.BackoffLimitPerIndex != nil {
			invalid("backoffLimitPerIndex", s.BackoffLimitPerIndex, "requires indexed completion mode")
		}
		if s.MaxFailedIndexes != nil {
			invalid("maxFailedIndexes", s.MaxFailedIndexes, "requires indexed completion mode")
		}
	default:
		errs = append(errs, field.NotSupported(fldPath.Child("completionMode"), *s.CompletionMode, []v1.CompletionMode{v1.NonIndexedCompletion, v1.IndexedCompletion}))
	}
	return errs
}

func validateReplacement(s *v1.JobSpec, fldPath *field.Path) field.ErrorList {
	if s.PodReplacementPolicy == nil {
		return nil
	}
	allowed := []v1.PodReplacementPolicy{v1.Failed, v1.TerminatingOrFailed}
	if s.PodFailurePolicy != nil {
		// Whether a pod failed in a way that counts is known once it has ended.
		allowed = allowed[:1]
	}
	return oneOf(fldPath, *s.PodReplacementPolicy, allowed...)
}

func oneOf[T ~string](fldPath *field.Path, value T, allowed ...T) field.ErrorList {
	for _, a := range allowed {
		if value == a {
			return nil
		}
	}
	return field.ErrorList{field.NotSupported(fldPath, value, allowed)}
}

func validateJobUpdate(j, old *v1.Job) field.ErrorList {
	has := func(key string) bool { _, ok := old.Spec.Template.Labels[key]; return ok }
	errs := validateGeneratedSelector(j, has(v1.JobNameLabel) && has(v1.ControllerUidLabel))
	at := field.NewPath("spec")
	errs = append(errs, validateJobSpec(&j.Spec, at, metav1validation.LabelSelectorHasInvalidLabelValue(old.Spec.Selector))...)
	errs = append(errs, validateIndexedName(j)...)
	immutable := func(name string, is, was any) {
		errs = append(errs, apivalidation.ValidateImmutableField(is, was, at.Child(name))...)
	}
	if indexed(&j.Spec) {
		// An elastic Indexed job: both change together.
		if n := j.Spec.Completions; n != nil && !ptr.Equal(n, old.Spec.Completions) && *n != ptr.Deref(j.Spec.Parallelism, 0) {
			errs = append(errs, field.Invalid(at.Child("completions"), *n, fmt.Sprintf("can only be modified in tandem with %s", at.Child("parallelism"))))
		}
	} else {
		immutable("completions", j.Spec.Completions, old.Spec.Completions)
	}
	immutable("selector", j.Spec.Selector, old.Spec.Selector)
	immutable("template", j.Spec.Template, mutableTemplate(j, old))
	immutable("completionMode", j.Spec.CompletionMode, old.Spec.CompletionMode)
	immutable("podFailurePolicy", j.Spec.PodFailurePolicy, old.Spec.PodFailurePolicy)
	immutable("backoffLimitPerIndex", j.Spec.BackoffLimitPerIndex, old.Spec.BackoffLimitPerIndex)
	immutable("managedBy", j.Spec.ManagedBy, old.Spec.ManagedBy)
	immutable("successPolicy", j.Spec.SuccessPolicy, old.Spec.SuccessPolicy)
	return errs
}

// mutableTemplate returns old's template with what j may change of it: while a
// suspended job has no pods, a queue's controller says where they will run
// and how much they get.
func mutableTemplate(j, old *v1.Job) corev1.PodTemplateSpec {
	t, n := old.Spec.Template, &j.Spec.Template
	idle := old.Status.StartTime == nil || isTrue(&old.Status, v1.JobSuspended)
	if !ptr.Deref(old.Spec.Suspend, false) || !idle || old.Status.Active > 0 {
		return t
	}
	t.Annotations, t.Labels = n.Annotations, n.Labels
	t.Spec.NodeSelector, t.Spec.Tolerations, t.Spec.SchedulingGates = n.Spec.NodeSelector, n.Spec.Tolerations, n.Spec.SchedulingGates
	affinity := ptr.Deref(t.Spec.Affinity, corev1.Affinity{})
	if affinity.NodeAffinity = nil; n.Spec.Affinity != nil {
		affinity.NodeAffinity = n.Spec.Affinity.NodeAffinity
	}
	if t.Spec.Affinity = &affinity; n.Spec.Affinity == nil && equality.Semantic.DeepEqual(affinity, corev1.Affinity{}) {
		t.Spec.Affinity = nil
	}
	t.Spec.Containers = withResources(t.Spec.Containers, n.Spec.Containers)
	t.Spec.InitContainers = withResources(t.Spec.InitContainers, n.Spec.InitContainers)
	return t
}

// withResources gives containers the resources of others in the same places.
func withResources(containers, others []corev1.Container) []corev1.Container {
	if len(containers) != len(others) {
		return containers
	}
	out := make([]corev1.Container, len(containers))
	copy(out, containers)
	for i := range out {
		out[i].Resources = others[i].Resources
	}
	return out
}
