package apps

import (
	"strconv"
	"strings"

	v1 "k8s.io/api/apps/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/api/podspec"
)

func schemaParse(apiVersion string) (schema.GroupVersion, error) {
	return schema.ParseGroupVersion(apiVersion)
}

// lowerKind is a kind as tables name it: daemonset.apps.
func lowerKind(kind string, gv schema.GroupVersion) string {
	k := strings.ToLower(kind)
	if gv.Group != "" {
		k += "." + gv.Group
	}
	return k
}

func number(n int32) *intstr.IntOrString { return ptr.To(intstr.FromInt32(n)) }

func setDefaultsDeployment(d *v1.Deployment) {
	s := &d.Spec
	if s.Replicas == nil {
		s.Replicas = ptr.To[int32](1)
	}
	if s.Strategy.Type == "" {
		s.Strategy.Type = v1.RollingUpdateDeploymentStrategyType
	}
	if s.Strategy.Type == v1.RollingUpdateDeploymentStrategyType {
		if s.Strategy.RollingUpdate == nil {
			s.Strategy.RollingUpdate = &v1.RollingUpdateDeployment{}
		}
		if s.Strategy.RollingUpdate.MaxUnavailable == nil {
			s.Strategy.RollingUpdate.MaxUnavailable = ptr.To(intstr.FromString("25%"))
		}
		if s.Strategy.RollingUpdate.MaxSurge == nil {
			s.Strategy.RollingUpdate.MaxSurge = ptr.To(intstr.FromString("25%"))
		}
	}
	if s.RevisionHistoryLimit == nil {
		s.RevisionHistoryLimit = ptr.To[int32](10)
	}
	if s.ProgressDeadlineSeconds == nil {
		s.ProgressDeadlineSeconds = ptr.To[int32](600)
	}
	podspec.SetDefaultsPodTemplate(&s.Template)
}

func validateReplicas(n *int32, at *field.Path) (errs field.ErrorList) {
	if v := ptr.Deref(n, 0); v < 0 {
		errs = append(errs, field.Invalid(at.Child("replicas"), v, apivalidation.IsNegativeErrorMsg))
	}
	return errs
}

// validateSelector checks the selector of a controller of that kind, and that it selects what the template makes.
func validateSelector(s *metav1.LabelSelector, template map[string]string, kind string, at *field.Path) field.ErrorList {
	if s == nil {
		return field.ErrorList{field.Required(at.Child("selector"), "")}
	}
	errs := metav1validation.ValidateLabelSelector(s, metav1validation.LabelSelectorValidationOptions{}, at.Child("selector"))
	if len(s.MatchLabels)+len(s.MatchExpressions) == 0 {
		errs = append(errs, field.Invalid(at.Child("selector"), s, "empty selector is invalid for "+kind))
	}
	sel, err := metav1.LabelSelectorAsSelector(s)
	switch {
	case err != nil:
		errs = append(errs, field.Invalid(at.Child("selector"), s, "invalid label selector"))
	case !sel.Empty() && !sel.Matches(labels.Set(template)):
		errs = append(errs, field.Invalid(at.Child("template", "metadata", "labels"), template, "`selector` does not match template `labels`"))
	}
	return errs
}

func validateDeployment(d *v1.Deployment) field.ErrorList {
	at := field.NewPath("spec")
	s := &d.Spec
	errs := validateReplicas(s.Replicas, at)
	errs = append(errs, validateSelector(s.Selector, s.Template.Labels, "deployment", at)...)
	errs = append(errs, podspec.ValidatePodTemplateSpec(&s.Template, at.Child("template"))...)
	errs = append(errs, podspec.ValidateAlwaysRestart(&s.Template.Spec, "ReplicaSet", at.Child("template", "spec"))...)
	strategy := at.Child("strategy")
	switch s.Strategy.Type {
	case v1.RecreateDeploymentStrategyType:
		if s.Strategy.RollingUpdate != nil {
			errs = append(errs, field.Forbidden(strategy.Child("rollingUpdate"), "may not be specified when strategy `type` is 'Recreate'"))
		}
	case v1.RollingUpdateDeploymentStrategyType:
		if u := s.Strategy.RollingUpdate; u == nil {
			errs = append(errs, field.Required(strategy.Child("rollingUpdate"), "this should be defaulted and never be nil"))
		} else {
			errs = append(errs, validateRolling(u.MaxUnavailable, u.MaxSurge, strategy.Child("rollingUpdate"), false)...)
		}
	default:
		errs = append(errs, field.NotSupported(strategy, s.Strategy.Type, []v1.DeploymentStrategyType{v1.RecreateDeploymentStrategyType, v1.RollingUpdateDeploymentStrategyType}))
	}
	negative := func(name string, n int32) {
		if n < 0 {
			errs = append(errs, field.Invalid(at.Child(name), n, apivalidation.IsNegativeErrorMsg))
		}
	}
	negative("minReadySeconds", s.MinReadySeconds)
	negative("revisionHistoryLimit", ptr.Deref(s.RevisionHistoryLimit, 0))
	if p := s.ProgressDeadlineSeconds; p != nil {
		negative("progressDeadlineSeconds", *p)
		if *p <= s.MinReadySeconds {
			errs = append(errs, field.Invalid(at.Child("progressDeadlineSeconds"), *p, "must be greater than minReadySeconds"))
		}
	}
	return errs
}

// amount is a number, or a percentage of 100.
func amount(v *intstr.IntOrString) int {
	if v == nil {
		return 0
	}
	if v.Type == intstr.Int {
		return v.IntValue()
	}
	n, _ := strconv.Atoi(strings.TrimSuffix(v.StrVal, "%"))
	return n
}

func validateAmount(v *intstr.IntOrString, at *field.Path) (errs field.ErrorList) {
	if v == nil {
		return nil
	}
	if v.Type == intstr.String {
		for _, msg := range validation.IsValidPercent(v.StrVal) {
			errs = append(errs, field.Invalid(at, v, msg))
		}
		return errs
	}
	if v.IntValue() < 0 {
		errs = append(errs, field.Invalid(at, int64(v.IntValue()), apivalidation.IsNegativeErrorMsg))
	}
	return errs
}

func validateRolling(unavailable, surge *intstr.IntOrString, at *field.Path, exclusive bool) field.ErrorList {
	errs := append(validateAmount(unavailable, at.Child("maxUnavailable")), validateAmount(surge, at.Child("maxSurge"))...)
	switch {
	case amount(unavailable) == 0 && amount(surge) == 0:
		msg := "may not be 0 when `maxSurge` is 0"
		if exclusive {
			msg = "cannot be 0 when maxSurge is 0"
		}
		errs = append(errs, field.Invalid(at.Child("maxUnavailable"), unavailable, msg))
	case exclusive && amount(unavailable) != 0 && amount(surge) != 0:
		errs = append(errs, field.Invalid(at.Child("maxSurge"), surge, "may not be set when maxUnavailable is non-zero"))
	}
	if unavailable != nil && unavailable.Type == intstr.String && amount(unavailable) > 100 {
		errs = append(errs, field.Invalid(at.Child("maxUnavailable"), unavailable, "must not be greater than 100%"))
	}
	return errs
}

type count struct {
	name string
	n    int32
}

// counts checks the numbers of a status: none negative, none above the first.
func counts(at *field.Path, all count, parts ...count) (errs field.ErrorList) {
	for _, c := range append([]count{all}, parts...) {
		if c.n < 0 {
			errs = append(errs, field.Invalid(at.Child(c.name), c.n, apivalidation.IsNegativeErrorMsg))
		}
	}
	for _, c := range parts {
		if c.n > all.n {
			errs = append(errs, field.Invalid(at.Child(c.name), c.n, "cannot be greater than status."+all.name))
		}
	}
	return errs
}

func availableWithinReady(available, ready int32, at *field.Path) field.ErrorList {
	if available > ready {
		return field.ErrorList{field.Invalid(at.Child("availableReplicas"), available, "cannot be greater than readyReplicas")}
	}
	return nil
}

// validateCollisions: names once taken stay so.
func validateCollisions(is, was *int32, at *field.Path) field.ErrorList {
	if was != nil && ptr.Deref(is, 0) < *was {
		return field.ErrorList{field.Invalid(at.Child("collisionCount"), ptr.Deref(is, 0), "cannot be decremented")}
	}
	return nil
}

func validateRetention(p v1.PersistentVolumeClaimRetentionPolicyType, at *field.Path) field.ErrorList {
	if p != v1.RetainPersistentVolumeClaimRetentionPolicyType && p != v1.DeletePersistentVolumeClaimRetentionPolicyType {
		return field.ErrorList{field.NotSupported(at, p, []v1.PersistentVolumeClaimRetentionPolicyType{v1.RetainPersistentVolumeClaimRetentionPolicyType, v1.DeletePersistentVolumeClaimRetentionPolicyType})}
	}
	return nil
}

// validateUnavailable: some, but not more than all.
func validateUnavailable(v *intstr.IntOrString, at *field.Path) field.ErrorList {
	errs := validateAmount(v, at)
	if amount(v) == 0 {
		errs = append(errs, field.Invalid(at, v, "cannot be 0"))
	}
	if v.Type == intstr.String && amount(v) > 100 {
		errs = append(errs, field.Invalid(at, v, "must not be greater than 100%"))
	}
	return errs
}

func validateDeploymentStatus(s *v1.DeploymentStatus) field.ErrorList {
	at := field.NewPath("status")
	errs := availableWithinReady(s.AvailableReplicas, s.ReadyReplicas, at)
	return append(errs, counts(at, count{"replicas", s.Replicas}, count{"updatedReplicas", s.UpdatedReplicas},
		count{"readyReplicas", s.ReadyReplicas}, count{"availableReplicas", s.AvailableReplicas})...)
}
