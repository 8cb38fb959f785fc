package policy

import (
	"slices"
	"time"

	v1 "k8s.io/api/policy/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/row"
)

// Resources returns the rows of policy/v1.
func Resources() []*api.Resource {
	spec, status := v1.PodDisruptionBudgetSpec{}.SwaggerDoc(), v1.PodDisruptionBudgetStatus{}.SwaggerDoc()
	r := api.Resource{
		ShortNames: []string{"pdb"},
		Namespaced: true,
		Columns: []metav1.TableColumnDefinition{
			row.Name(),
			row.String("Min Available", spec["minAvailable"]),
			row.String("Max Unavailable", spec["maxUnavailable"]),
			row.Integer("Allowed Disruptions", status["disruptionsAllowed"]),
			row.Age(),
		},
	}
	r.RequireResourceVersion = true
	return []*api.Resource{row.New[v1.PodDisruptionBudgetList](v1.SchemeGroupVersion, r, row.Kind[*v1.PodDisruptionBudget]{
		Generation: true,
		Spec:       func(b *v1.PodDisruptionBudget) any { return &b.Spec },
		Status:     func(b *v1.PodDisruptionBudget) any { return &b.Status },
		Default:    func(b *v1.PodDisruptionBudget) { dropMatchLabel(b.Spec.Selector) },
		Validate: func(b *v1.PodDisruptionBudget) field.ErrorList {
			return validateSpec(&b.Spec, false, field.NewPath("spec"))
		},
		ValidateUpdate: func(b, old *v1.PodDisruptionBudget) field.ErrorList {
			bad := len(metav1validation.ValidateLabelSelector(old.Spec.Selector, metav1validation.LabelSelectorValidationOptions{}, nil)) > 0
			return validateSpec(&b.Spec, bad, field.NewPath("spec"))
		},
		ValidateStatusUpdate: func(b, _ *v1.PodDisruptionBudget) field.ErrorList { return validateStatus(&b.Status) },
		Cells: func(b *v1.PodDisruptionBudget, now time.Time) []any {
			return []any{b.Name, orNone(b.Spec.MinAvailable), orNone(b.Spec.MaxUnavailable), int64(b.Status.DisruptionsAllowed), row.Created(b, now)}
		},
	})}
}

func orNone(v *intstr.IntOrString) string {
	if v == nil {
		return "N/A"
	}
	return v.String()
}

// matchLabel is the key of the requirement by which v1beta1, where an empty
// selector selects nothing, says of a v1 selector whether it was empty.
const matchLabel = "pdb.kubernetes.io/deprecated-v1beta1-empty-selector-match"

// dropMatchLabel drops that requirement from a selector where it is not the
// whole of one that selects nothing.
func dropMatchLabel(s *metav1.LabelSelector) {
	isMatch := func(r metav1.LabelSelectorRequirement) bool { return r.Key == matchLabel }
	if s == nil || !slices.ContainsFunc(s.MatchExpressions, isMatch) ||
		len(s.MatchLabels) == 0 && len(s.MatchExpressions) == 1 && s.MatchExpressions[0].Operator == metav1.LabelSelectorOpExists {
		return
	}
	s.MatchExpressions = slices.DeleteFunc(slices.Clone(s.MatchExpressions), isMatch)
	if len(s.MatchExpressions) == 0 {
		s.MatchExpressions = nil
	}
}

// budget is a spec as messages show it.
type budget struct {
	MinAvailable               *intstr.IntOrString
	Selector                   *metav1.LabelSelector
	MaxUnavailable             *intstr.IntOrString
	UnhealthyPodEvictionPolicy *v1.UnhealthyPodEvictionPolicyType
}

// validateSpec lets a selector keep values that are no label values, with
// badValues.
func validateSpec(spec *v1.PodDisruptionBudgetSpec, badValues bool, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	if spec.MinAvailable != nil && spec.MaxUnavailable != nil {
		errs = append(errs, field.Invalid(fldPath, budget(*spec), "minAvailable and maxUnavailable cannot be both set"))
	}
	if spec.MinAvailable != nil {
		errs = append(errs, validateAmount(*spec.MinAvailable, fldPath.Child("minAvailable"))...)
	}
	if spec.MaxUnavailable != nil {
		errs = append(errs, validateAmount(*spec.MaxUnavailable, fldPath.Child("maxUnavailable"))...)
	}
	errs = append(errs, metav1validation.ValidateLabelSelector(spec.Selector, metav1validation.LabelSelectorValidationOptions{AllowInvalidLabelValueInSelector: badValues}, fldPath.Child("selector"))...)
	if p := spec.UnhealthyPodEvictionPolicy; p != nil && *p != v1.IfHealthyBudget && *p != v1.AlwaysAllow {
		errs = append(errs, field.NotSupported(fldPath.Child("unhealthyPodEvictionPolicy"), *p, []v1.UnhealthyPodEvictionPolicyType{v1.AlwaysAllow, v1.IfHealthyBudget}))
	}
	return errs
}

// validateAmount checks that v is a count that is not negative, or a percentage
// up to 100.
func validateAmount(v intstr.IntOrString, fldPath *field.Path) field.ErrorList {
	if v.Type == intstr.Int {
		return apivalidation.ValidateNonnegativeField(int64(v.IntVal), fldPath)
	}
	var errs field.ErrorList
	for _, msg := range validation.IsValidPercent(v.StrVal) {
		errs = append(errs, field.Invalid(fldPath, v, msg))
	}
	if n, err := intstr.GetScaledValueFromIntOrPercent(&v, 100, false); err == nil && n > 100 {
		errs = append(errs, field.Invalid(fldPath, v, "must not be greater than 100%"))
	}
	return errs
}

func validateStatus(s *v1.PodDisruptionBudgetStatus) field.ErrorList {
	at := field.NewPath("status")
	errs := metav1validation.ValidateConditions(s.Conditions, at.Child("conditions"))
	errs = append(errs, apivalidation.ValidateNonnegativeField(int64(s.DisruptionsAllowed), at.Child("disruptionsAllowed"))...)
	errs = append(errs, apivalidation.ValidateNonnegativeField(int64(s.CurrentHealthy), at.Child("currentHealthy"))...)
	errs = append(errs, apivalidation.ValidateNonnegativeField(int64(s.DesiredHealthy), at.Child("desiredHealthy"))...)
	return append(errs, apivalidation.ValidateNonnegativeField(int64(s.ExpectedPods), at.Child("expectedPods"))...)
}
