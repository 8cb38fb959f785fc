package events

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	v1 "k8s.io/api/events/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	instanceLengthLimit = 128
	actionLengthLimit   = 128
	reasonLengthLimit   = 128
	noteLengthLimit     = 1024
)

// validate holds a new event to this group's rules, which the core group's
// form is spared.
func validate(e *v1.Event) field.ErrorList {
	errs := validateNamespace(e)
	if e.EventTime.IsZero() {
		errs = append(errs, field.Required(field.NewPath("eventTime"), ""))
	}
	if e.Type != corev1.EventTypeNormal && e.Type != corev1.EventTypeWarning {
		errs = append(errs, field.Invalid(field.NewPath("type"), "", "has invalid value: "+e.Type))
	}
	if e.DeprecatedFirstTimestamp != (metav1.Time{}) {
		errs = append(errs, field.Invalid(field.NewPath("firstTimestamp"), "", "needs to be unset"))
	}
	if e.DeprecatedLastTimestamp != (metav1.Time{}) {
		errs = append(errs, field.Invalid(field.NewPath("lastTimestamp"), "", "needs to be unset"))
	}
	if e.DeprecatedCount != 0 {
		errs = append(errs, field.Invalid(field.NewPath("count"), "", "needs to be unset"))
	}
	if e.DeprecatedSource.Component != "" || e.DeprecatedSource.Host != "" {
		errs = append(errs, field.Invalid(field.NewPath("source"), "", "needs to be unset"))
	}
	return append(errs, validateReport(e)...)
}

func validateUpdate(e, old *v1.Event) field.ErrorList {
	errs := validateNamespace(e)
	// Events whose fields came by the old core path are not held to this
	// group's rules; the series' count and time are all that may change of
	// those that came by this one.
	immutable := func(name string, is, was any) {
		errs = append(errs, apivalidation.ValidateImmutableField(is, was, field.NewPath(name))...)
	}
	immutable("involvedObject", e.Regarding, old.Regarding)
	immutable("reason", e.Reason, old.Reason)
	immutable("message", e.Note, old.Note)
	immutable("source", e.DeprecatedSource, old.DeprecatedSource)
	immutable("firstTimestamp", e.DeprecatedFirstTimestamp, old.DeprecatedFirstTimestamp)
	immutable("lastTimestamp", e.DeprecatedLastTimestamp, old.DeprecatedLastTimestamp)
	immutable("count", e.DeprecatedCount, old.DeprecatedCount)
	immutable("type", e.Type, old.Type)
	// Storage keeps microseconds, so times are compared by those.
	immutable("eventTime", micro(e.EventTime), micro(old.EventTime))
	immutable("action", e.Action, old.Action)
	immutable("related", e.Related, old.Related)
	immutable("reportingController", e.ReportingController, old.ReportingController)
	immutable("reportingInstance", e.ReportingInstance, old.ReportingInstance)
	return append(errs, validateReport(e)...)
}

func micro(t metav1.MicroTime) string {
	return t.Truncate(time.Microsecond).UTC().Format(time.RFC3339Nano)
}

// validateNamespace: an event is in the namespace of its object; those of
// cluster-scoped objects are in "default".
func validateNamespace(e *v1.Event) field.ErrorList {
	path := field.NewPath("involvedObject", "namespace")
	if e.Regarding.Namespace == "" {
		if e.Namespace != metav1.NamespaceNone && e.Namespace != metav1.NamespaceDefault && e.Namespace != metav1.NamespaceSystem {
			return field.ErrorList{field.Invalid(path, e.Regarding.Namespace, "does not match event.namespace")}
		}
		return nil
	}
	if e.Namespace != e.Regarding.Namespace {
		return field.ErrorList{field.Invalid(path, e.Regarding.Namespace, "does not match event.namespace")}
	}
	return nil
}

func validateReport(e *v1.Event) field.ErrorList {
	var errs field.ErrorList
	at := field.NewPath("reportingController")
	if e.ReportingController == "" {
		errs = append(errs, field.Required(at, ""))
	}
	for _, msg := range validation.IsQualifiedName(e.ReportingController) {
		errs = append(errs, field.Invalid(at, e.ReportingController, msg))
	}
	required := func(name, value string, limit int) {
		if value == "" {
			errs = append(errs, field.Required(field.NewPath(name), ""))
		}
		if len(value) > limit {
			errs = append(errs, field.Invalid(field.NewPath(name), "", fmt.Sprintf("can have at most %v characters", limit)))
		}
	}
	required("reportingInstance", e.ReportingInstance, instanceLengthLimit)
	required("action", e.Action, actionLengthLimit)
	required("reason", e.Reason, reasonLengthLimit)
	if len(e.Note) > noteLengthLimit {
		errs = append(errs, field.Invalid(field.NewPath("message"), "", fmt.Sprintf("can have at most %v characters", noteLengthLimit)))
	}
	if e.Series != nil {
		if e.Series.Count < 2 {
			errs = append(errs, field.Invalid(field.NewPath("series", "count"), "", "should be at least 2"))
		}
		if e.Series.LastObservedTime.IsZero() {
			errs = append(errs, field.Required(field.NewPath("series", "lastObservedTime"), ""))
		}
	}
	return errs
}
