package events

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	v1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/equality"
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

// ValidateCore checks an event in the core group's form. Events with an
// eventTime are of the newer kind, which must name its reporter and action; the
// older kind need not.
func ValidateCore(e *corev1.Event) (errs field.ErrorList) {
	object := e.InvolvedObject.Namespace
	elsewhere := func() {
		errs = append(errs, field.Invalid(field.NewPath("involvedObject", "namespace"), object, "does not match event.namespace"))
	}
	if e.EventTime.IsZero() {
		// The events of objects without a namespace are in the default one.
		clusterWide := object == "" && (e.Namespace == metav1.NamespaceNone || e.Namespace == metav1.NamespaceDefault)
		if e.Namespace != object && !clusterWide {
			elsewhere()
		}
	} else {
		if object == "" && e.Namespace != metav1.NamespaceDefault && e.Namespace != metav1.NamespaceSystem {
			elsewhere()
		}
		errs = append(errs, validateReport(e)...)
	}
	for _, msg := range validation.IsDNS1123Subdomain(e.Namespace) {
		errs = append(errs, field.Invalid(field.NewPath("namespace"), e.Namespace, msg))
	}
	return errs
}

func validateReport(e *corev1.Event) (errs field.ErrorList) {
	if e.ReportingController == "" {
		errs = append(errs, field.Required(field.NewPath("reportingController"), ""))
	}
	for _, msg := range validation.IsQualifiedName(e.ReportingController) {
		errs = append(errs, field.Invalid(field.NewPath("reportingController"), e.ReportingController, msg))
	}
	text := func(name, value string, needed bool, limit int) {
		if needed && value == "" {
			errs = append(errs, field.Required(field.NewPath(name), ""))
		}
		if len(value) > limit {
			errs = append(errs, field.Invalid(field.NewPath(name), "", fmt.Sprintf("can have at most %v characters", limit)))
		}
	}
	text("reportingInstance", e.ReportingInstance, true, instanceLengthLimit)
	text("action", e.Action, true, actionLengthLimit)
	text("reason", e.Reason, true, reasonLengthLimit)
	text("message", e.Message, false, noteLengthLimit)
	return errs
}

// asCore returns the event as the core group has it, for the rules of both groups.
func asCore(e *v1.Event) *corev1.Event {
	obj, _ := toCore(e)
	return obj.(*corev1.Event)
}

// validate holds a new event to this group's rules, which the core group's form
// is spared. Its fields go by their names in that form.
func validate(e *v1.Event) field.ErrorList {
	errs := ValidateCore(asCore(e))
	errs = append(errs, validateSeries(e.Series)...)
	if e.EventTime.IsZero() {
		errs = append(errs, field.Required(field.NewPath("eventTime"), ""))
	}
	if e.Type != corev1.EventTypeNormal && e.Type != corev1.EventTypeWarning {
		errs = append(errs, field.Invalid(field.NewPath("type"), "", fmt.Sprintf("has invalid value: %v", e.Type)))
	}
	unset := func(name string, set bool) {
		if set {
			errs = append(errs, field.Invalid(field.NewPath(name), "", "needs to be unset"))
		}
	}
	unset("firstTimestamp", !e.DeprecatedFirstTimestamp.IsZero())
	unset("lastTimestamp", !e.DeprecatedLastTimestamp.IsZero())
	unset("count", e.DeprecatedCount != 0)
	unset("source", e.DeprecatedSource != corev1.EventSource{})
	return errs
}

func validateSeries(s *v1.EventSeries) (errs field.ErrorList) {
	if s == nil {
		return nil
	}
	if s.Count < 2 {
		errs = append(errs, field.Invalid(field.NewPath("series.count"), "", "should be at least 2"))
	}
	if s.LastObservedTime.IsZero() {
		errs = append(errs, field.Required(field.NewPath("series.lastObservedTime"), ""))
	}
	return errs
}

// validateUpdate checks that nothing but the series has changed.
func validateUpdate(e, old *v1.Event) field.ErrorList {
	errs := ValidateCore(asCore(e))
	if !equality.Semantic.DeepEqual(e.Series, old.Series) {
		errs = append(errs, validateSeries(e.Series)...)
	}
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
	return errs
}

func micro(t metav1.MicroTime) string {
	return t.Truncate(time.Microsecond).UTC().Format(time.RFC3339Nano)
}
