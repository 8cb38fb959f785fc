package batch

import (
	"fmt"

	v1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

func isTrue(s *v1.JobStatus, t v1.JobConditionType) bool {
	for _, c := range s.Conditions {
		if c.Type == t && c.Status == corev1.ConditionTrue {
			return true
		}
	}
	return false
}

func isFinished(s *v1.JobStatus) bool { return isTrue(s, v1.JobComplete) || isTrue(s, v1.JobFailed) }

// validateJobStatusUpdate holds the controllers of jobs, others' too
// (managedBy), to what clients rely on. A rule is applied when what it speaks
// of has changed: a status that breaks it, because the spec changed or of old,
// can still be brought up to date in all else.
func validateJobStatusUpdate(j, old *v1.Job) field.ErrorList {
	at := field.NewPath("status")
	errs := validateCounts(&j.Status, at)
	errs = append(errs, validateIndexLists(j, old, at)...)
	errs = append(errs, validateConditions(&j.Status, &old.Status, at.Child("conditions"))...)
	if j.Spec.SuccessPolicy != nil && isTrue(&j.Status, v1.JobComplete) && !isTrue(&j.Status, v1.JobSuccessCriteriaMet) {
		errs = append(errs, field.Invalid(at.Child("conditions"), field.OmitValueType{}, "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True"))
	}
	errs = append(errs, validateTimes(j, old, at)...)
	return append(errs, validateProgress(j, old, at)...)
}

func validateCounts(s *v1.JobStatus, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	nonNegative(&errs, &s.Active, at.Child("active"))
	nonNegative(&errs, &s.Succeeded, at.Child("succeeded"))
	nonNegative(&errs, &s.Failed, at.Child("failed"))
	nonNegative(&errs, s.Ready, at.Child("ready"))
	nonNegative(&errs, s.Terminating, at.Child("terminating"))
	if u := s.UncountedTerminatedPods; u != nil {
		seen, at := sets.New[types.UID](), at.Child("uncountedTerminatedPods")
		check := func(list []types.UID, at *field.Path) {
			for i, uid := range list {
				switch {
				case uid == "":
					errs = append(errs, field.Invalid(at.Index(i), uid, "must not be empty"))
				case seen.Has(uid):
					errs = append(errs, field.Duplicate(at.Index(i), uid))
				}
				seen.Insert(uid)
			}
		}
		check(u.Succeeded, at.Child("succeeded"))
		check(u.Failed, at.Child("failed"))
	}
	return errs
}

func validateIndexLists(j, old *v1.Job, at *field.Path) (errs field.ErrorList) {
	is, was, spec := &j.Status, &old.Status, &j.Spec
	completed := is.CompletedIndexes != was.CompletedIndexes
	failed := !ptr.Equal(is.FailedIndexes, was.FailedIndexes)
	if completed {
		path := at.Child("completedIndexes")
		if spec.Completions != nil {
			if _, err := parseIndexes(is.CompletedIndexes, *spec.Completions); err != nil {
				errs = append(errs, field.Invalid(path, is.CompletedIndexes, fmt.Sprintf("error parsing completedIndexes: %s", err)))
			}
		}
		if is.CompletedIndexes != "" && !indexed(spec) {
			errs = append(errs, field.Invalid(path, is.CompletedIndexes, "cannot set non-empty completedIndexes when non-indexed completion mode"))
		}
	}
	path := at.Child("failedIndexes")
	if failed && is.FailedIndexes != nil {
		if spec.BackoffLimitPerIndex == nil {
			errs = append(errs, field.Invalid(path, *is.FailedIndexes, "cannot set non-null failedIndexes when backoffLimitPerIndex is null"))
		} else if spec.Completions != nil {
			if _, err := parseIndexes(*is.FailedIndexes, *spec.Completions); err != nil {
				errs = append(errs, field.Invalid(path, *is.FailedIndexes, fmt.Sprintf("error parsing failedIndexes: %s", err)))
			}
		}
	}
	if (failed || completed) && is.FailedIndexes != nil && spec.Completions != nil {
		if i, both := overlap(is.CompletedIndexes, *is.FailedIndexes, *spec.Completions); both {
			errs = append(errs, field.Invalid(path, *is.FailedIndexes, fmt.Sprintf("failedIndexes and completedIndexes overlap at index: %d", i)))
		}
	}
	return errs
}

func validateConditions(is, was *v1.JobStatus, at *field.Path) (errs field.ErrorList) {
	refuse := func(format string, args ...any) {
		errs = append(errs, field.Invalid(at, field.OmitValueType{}, fmt.Sprintf(format, args...)))
	}
	changed := func(t v1.JobConditionType) bool { return isTrue(is, t) != isTrue(was, t) }
	complete, failed := isTrue(is, v1.JobComplete), isTrue(is, v1.JobFailed)
	target, met := isTrue(is, v1.JobFailureTarget), isTrue(is, v1.JobSuccessCriteriaMet)
	if complete && failed && (changed(v1.JobComplete) || changed(v1.JobFailed)) {
		refuse("cannot set Complete=True and Failed=true conditions")
	}
	if complete && target && (changed(v1.JobComplete) || changed(v1.JobFailureTarget)) {
		refuse("cannot set Complete=True and FailureTarget=true conditions")
	}
	if failed && !target && (changed(v1.JobFailed) || changed(v1.JobFailureTarget)) {
		refuse("cannot set Failed=True condition without the FailureTarget=true condition")
	}
	if complete && !met && (changed(v1.JobComplete) || changed(v1.JobSuccessCriteriaMet)) {
		refuse("cannot set Complete=True condition without the SuccessCriteriaMet=true condition")
	}
	if met && failed {
		refuse("cannot set SuccessCriteriaMet=True and Failed=true conditions")
	}
	if met && target {
		refuse("cannot set SuccessCriteriaMet=True and FailureTarget=true conditions")
	}
	for _, t := range []v1.JobConditionType{v1.JobFailed, v1.JobComplete, v1.JobFailureTarget} {
		if isTrue(was, t) && !isTrue(is, t) {
			refuse("cannot disable the terminal %s=True condition", t)
		}
	}
	if isTrue(was, v1.JobSuccessCriteriaMet) && !met {
		refuse("cannot disable the SuccessCriteriaMet=True condition")
	}
	if isTrue(was, v1.JobComplete) && !isTrue(was, v1.JobSuccessCriteriaMet) && met {
		refuse("cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions")
	}
	return errs
}

func validateTimes(j, old *v1.Job, at *field.Path) (errs field.ErrorList) {
	is, was := &j.Status, &old.Status
	complete := isTrue(is, v1.JobComplete)
	started, completed := !is.StartTime.Equal(was.StartTime), !is.CompletionTime.Equal(was.CompletionTime)
	path := at.Child("completionTime")
	if completed || complete != isTrue(was, v1.JobComplete) {
		switch {
		case complete && is.CompletionTime == nil:
			errs = append(errs, field.Required(path, "completionTime is required for Complete jobs"))
		case !complete && is.CompletionTime != nil:
			errs = append(errs, field.Invalid(path, is.CompletionTime, "cannot set completionTime when there is no Complete=True condition"))
		}
	}
	if (started || completed) && is.StartTime != nil && is.CompletionTime != nil && is.CompletionTime.Before(is.StartTime) {
		errs = append(errs, field.Invalid(path, is.CompletionTime, "completionTime cannot be set before startTime"))
	}
	if completed && is.CompletionTime != nil && was.CompletionTime != nil {
		errs = append(errs, field.Invalid(path, is.CompletionTime, "completionTime cannot be mutated"))
	}
	if isFinished(is) && is.StartTime == nil && (started || !isFinished(was)) {
		errs = append(errs, field.Required(at.Child("startTime"), "startTime is required for finished job"))
	}
	if started && was.StartTime != nil && !ptr.Deref(j.Spec.Suspend, false) {
		errs = append(errs, field.Required(at.Child("startTime"), "startTime cannot be removed for unsuspended job"))
	}
	return errs
}

func validateProgress(j, old *v1.Job, at *field.Path) (errs field.ErrorList) {
	is, was := &j.Status, &old.Status
	if finished, turned := isFinished(is), isFinished(is) != isFinished(was); finished {
		if is.Active > 0 && (turned || is.Active != was.Active) {
			errs = append(errs, field.Invalid(at.Child("active"), is.Active, "active>0 is invalid for finished job"))
		}
		if n := is.Terminating; n != nil && *n > 0 && (turned || !ptr.Equal(n, was.Terminating)) {
			errs = append(errs, field.Invalid(at.Child("terminating"), *n, "terminating>0 is invalid for finished job"))
		}
		if u := is.UncountedTerminatedPods; u != nil && len(u.Failed)+len(u.Succeeded) > 0 && (turned || !equality.Semantic.DeepEqual(u, was.UncountedTerminatedPods)) {
			errs = append(errs, field.Invalid(at.Child("uncountedTerminatedPods"), u, "uncountedTerminatedPods needs to be empty for finished job"))
		}
	}
	if is.Ready != nil && *is.Ready > is.Active && (!ptr.Equal(is.Ready, was.Ready) || is.Active != was.Active) {
		errs = append(errs, field.Invalid(at.Child("ready"), *is.Ready, "cannot set more ready pods than active"))
	}
	if is.Failed < was.Failed {
		errs = append(errs, field.Invalid(at.Child("failed"), is.Failed, "cannot decrease the failed counter"))
	}
	// An elastic Indexed job may have been scaled down.
	if is.Succeeded < was.Succeeded && (!indexed(&j.Spec) || !ptr.Equal(j.Spec.Completions, j.Spec.Parallelism)) {
		errs = append(errs, field.Invalid(at.Child("succeeded"), is.Succeeded, "cannot decrease the succeeded counter"))
	}
	return errs
}
