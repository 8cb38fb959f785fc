package resource

import (
	"time"

	v1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/row"
)

func taintRules() *api.Resource {
	r := api.Resource{Columns: []metav1.TableColumnDefinition{row.Name(), row.Age()}}
	return row.New[v1.DeviceTaintRuleList](v1.SchemeGroupVersion, r, row.Kind[*v1.DeviceTaintRule]{
		Generation:           true,
		Spec:                 func(t *v1.DeviceTaintRule) any { return &t.Spec },
		Status:               func(t *v1.DeviceTaintRule) any { return &t.Status },
		StatusOnly:           true,
		Default:              func(t *v1.DeviceTaintRule) { setTimeAdded(&t.Spec.Taint) },
		PrepareForUpdate:     prepareTaintRuleUpdate,
		Validate:             validateTaintRule,
		ValidateStatusUpdate: validateTaintRuleStatus,
		Cells:                func(t *v1.DeviceTaintRule, now time.Time) []any { return []any{t.Name, row.Created(t, now)} },
	})
}

// setTimeAdded notes when a taint came to be, in seconds, as it is encoded.
func setTimeAdded(t *v1.DeviceTaint) {
	if t.TimeAdded == nil {
		t.TimeAdded = &metav1.Time{Time: time.Now().Truncate(time.Second)}
	}
}

// prepareTaintRuleUpdate has the time follow the effect, unless the client sets it:
// tolerations of claims are counted from it.
func prepareTaintRuleUpdate(t, old *v1.DeviceTaintRule) {
	if is, was := &t.Spec.Taint, &old.Spec.Taint; is.Effect != was.Effect && is.TimeAdded.Equal(was.TimeAdded) {
		is.TimeAdded = nil
		setTimeAdded(is)
	}
}

func validateTaintRule(t *v1.DeviceTaintRule) (errs field.ErrorList) {
	spec := field.NewPath("spec")
	if s := t.Spec.DeviceSelector; s != nil {
		at := spec.Child("deviceSelector")
		if s.Driver != nil {
			errs = append(errs, validateDriver(*s.Driver, at.Child("driver"))...)
		}
		if s.Pool != nil {
			errs = append(errs, validatePool(*s.Pool, at.Child("pool"))...)
		}
		if s.Device != nil {
			errs = append(errs, validateLabel(*s.Device, at.Child("device"))...)
		}
	}
	return append(errs, validateTaint(&t.Spec.Taint, spec.Child("taint"))...)
}

func validateTaintRuleStatus(t, _ *v1.DeviceTaintRule) field.ErrorList {
	conditions := field.NewPath("status", "conditions")
	errs := metav1validation.ValidateConditions(t.Status.Conditions, conditions)
	if n := len(t.Status.Conditions); n > v1.DeviceTaintRuleStatusMaxConditions {
		errs = append(errs, field.TooMany(conditions, n, v1.DeviceTaintRuleStatusMaxConditions))
	}
	return errs
}
