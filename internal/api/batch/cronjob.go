package batch

import (
	"fmt"
	"regexp"
	"strings"
	"time"
	_ "time/tzdata" // the zones, for machines that have none

	"github.com/robfig/cron/v3"
	v1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// cronJobNameLength leaves room for the eleven characters that the
// controller appends to make a Job's name.
const cronJobNameLength = validation.DNS1035LabelMaxLength - 11

func validateCronJob(c *v1.CronJob) field.ErrorList {
	errs := validateCronJobSpec(&c.Spec, nil, field.NewPath("spec"))
	if len(c.Name) > cronJobNameLength {
		errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), c.Name, fmt.Sprintf("must be no more than %d characters", cronJobNameLength)))
	}
	return errs
}

func validateCronJobUpdate(c, old *v1.CronJob) field.ErrorList {
	// The name cannot change, so an old one that is too long stays good.
	return validateCronJobSpec(&c.Spec, &old.Spec, field.NewPath("spec"))
}

func validateCronJobSpec(s, old *v1.CronJobSpec, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	if s.Schedule != "" {
		errs = append(errs, validateSchedule(s, old, fldPath.Child("schedule"))...)
	}
	nonNegative(&errs, s.StartingDeadlineSeconds, fldPath.Child("startingDeadlineSeconds"))
	if s.TimeZone != nil && (old == nil || !ptr.Equal(old.TimeZone, s.TimeZone)) {
		errs = append(errs, validateTimeZone(*s.TimeZone, fldPath.Child("timeZone"))...)
	}
	if s.ConcurrencyPolicy == "" {
		errs = append(errs, field.Required(fldPath.Child("concurrencyPolicy"), ""))
	} else {
		errs = append(errs, oneOf(fldPath.Child("concurrencyPolicy"), s.ConcurrencyPolicy, v1.AllowConcurrent, v1.ForbidConcurrent, v1.ReplaceConcurrent)...)
	}
	job, at := &s.JobTemplate.Spec, fldPath.Child("jobTemplate", "spec")
	errs = append(errs, validateJobSpecShared(job, at)...)
	if job.Selector != nil {
		errs = append(errs, field.Invalid(at.Child("selector"), job.Selector, "`selector` will be auto-generated"))
	}
	if ptr.Deref(job.ManualSelector, false) {
		errs = append(errs, field.NotSupported(at.Child("manualSelector"), true, []string{"nil", "false"}))
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
	switch allowed := old != nil && strings.Contains(old.Schedule, "TZ"); {
	case !allowed:
		errs = append(errs, field.Invalid(fldPath, s.Schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"))
	case s.TimeZone != nil:
		errs = append(errs, field.Invalid(fldPath, s.Schedule, "cannot use both timeZone field and TZ or CRON_TZ in schedule"))
	}
	return errs
}

// parseSchedule returns an error for a schedule that cannot be parsed. A time
// zone without a schedule is refused here, because the parser panics on it.
func parseSchedule(schedule string) error {
	if (strings.HasPrefix(schedule, "TZ=") || strings.HasPrefix(schedule, "CRON_TZ=")) && !strings.Contains(schedule, " ") {
		return fmt.Errorf("empty spec string")
	}
	_, err := cron.ParseStandard(schedule)
	return err
}

// zonePart is a part of a time zone's name, as IANA makes them and made them.
var zonePart = regexp.MustCompile(`^[A-Za-z\.\-_0-9+]{1,14}$`)

func validateTimeZone(zone string, fldPath *field.Path) field.ErrorList {
	if zone == "" {
		return field.ErrorList{field.Invalid(fldPath, zone, "timeZone must be nil or non-empty string")}
	}
	for part := range strings.SplitSeq(zone, "/") {
		if part == "." || part == ".." || strings.HasPrefix(part, "-") || !zonePart.MatchString(part) {
			return field.ErrorList{field.Invalid(fldPath, zone, "unknown time zone "+zone)}
		}
	}
	var errs field.ErrorList
	if strings.EqualFold(zone, "Local") {
		errs = append(errs, field.Invalid(fldPath, zone, "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"))
	}
	if _, err := time.LoadLocation(zone); err != nil {
		errs = append(errs, field.Invalid(fldPath, zone, err.Error()))
	}
	return errs
}
