package autoscaling

import (
	"errors"
	"fmt"
	"slices"

	v2 "k8s.io/api/autoscaling/v2"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/api/validation/path"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/internal/api/podspec"
)

const (
	maxPeriodSeconds = 1800
	maxWindowSeconds = 3600
)

// validate checks a new object, or with old the change of it: what references
// had wrong already is let be.
func validate(a, old *v2.HorizontalPodAutoscaler) field.ErrorList {
	at, s := field.NewPath("spec"), &a.Spec
	var errs field.ErrorList
	if s.MinReplicas != nil && s.MaxReplicas < *s.MinReplicas {
		errs = append(errs, field.Invalid(at.Child("maxReplicas"), s.MaxReplicas, "must be greater than or equal to `minReplicas`"))
	}
	// The only kind that scales in the core group, whose name is empty.
	target := versionRules{allowNoGroup: s.ScaleTargetRef.Kind == "ReplicationController"}
	described := versionRules{allowNoGroup: true}
	if old != nil {
		was := old.Spec.ScaleTargetRef
		target.allowInvalid = was.APIVersion == s.ScaleTargetRef.APIVersion && was.Kind == s.ScaleTargetRef.Kind
		for _, m := range old.Spec.Metrics {
			if m.Object != nil && described.check(m.Object.DescribedObject) != nil {
				described.allowInvalid = true
			}
		}
	}
	errs = append(errs, validateReference(s.ScaleTargetRef, target, at.Child("scaleTargetRef"))...)
	errs = append(errs, validateMetrics(s.Metrics, s.MinReplicas, described, at.Child("metrics"))...)
	if b := s.Behavior; b != nil {
		errs = append(errs, validateRules(b.ScaleUp, at.Child("behavior", "scaleUp"))...)
		errs = append(errs, validateRules(b.ScaleDown, at.Child("behavior", "scaleDown"))...)
	}
	return errs
}

func validateStatus(s *v2.HorizontalPodAutoscalerStatus) field.ErrorList {
	errs := apivalidation.ValidateNonnegativeField(int64(s.CurrentReplicas), field.NewPath("status", "currentReplicas"))
	return append(errs, apivalidation.ValidateNonnegativeField(int64(s.DesiredReplicas), field.NewPath("status", "desiredReplicas"))...)
}

// versionRules say which apiVersions a reference may have.
type versionRules struct{ allowInvalid, allowNoGroup bool }

func (r versionRules) check(ref v2.CrossVersionObjectReference) error {
	if r.allowInvalid {
		return nil
	}
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err == nil && gv.Group == "" && !r.allowNoGroup {
		err = errors.New("apiVersion must specify API group")
	}
	return err
}

func validateReference(ref v2.CrossVersionObjectReference, rules versionRules, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	segment := func(value, child string) {
		if value == "" {
			errs = append(errs, field.Required(fldPath.Child(child), ""))
			return
		}
		for _, msg := range path.IsValidPathSegmentName(value) {
			errs = append(errs, field.Invalid(fldPath.Child(child), value, msg))
		}
	}
	segment(ref.Kind, "kind")
	segment(ref.Name, "name")
	if err := rules.check(ref); err != nil {
		errs = append(errs, field.Invalid(fldPath.Child("apiVersion"), ref.APIVersion, err.Error()))
	}
	return errs
}

func validateMetrics(list []v2.MetricSpec, minReplicas *int32, described versionRules, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	outside := false
	for i := range list {
		errs = append(errs, validateMetric(&list[i], described, fldPath.Index(i))...)
		// A metric of the pods themselves has no value without pods.
		outside = outside || list[i].Type == v2.ObjectMetricSourceType || list[i].Type == v2.ExternalMetricSourceType
	}
	if minReplicas != nil && *minReplicas == 0 && !outside {
		errs = append(errs, field.Forbidden(fldPath, "must specify at least one Object or External metric to support scaling to zero replicas"))
	}
	return errs
}

func validateMetric(m *v2.MetricSpec, described versionRules, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	all := []v2.MetricSourceType{
		v2.ContainerResourceMetricSourceType, v2.ExternalMetricSourceType, v2.ObjectMetricSourceType,
		v2.PodsMetricSourceType, v2.ResourceMetricSourceType,
	}
	if m.Type == "" {
		errs = append(errs, field.Required(fldPath.Child("type"), "must specify a metric source type"))
	}
	if !slices.Contains(all, m.Type) {
		errs = append(errs, field.NotSupported(fldPath.Child("type"), m.Type, all))
	}
	var present []string
	source := func(set bool, name string, check func(*field.Path) field.ErrorList) {
		if !set {
			return
		}
		if present = append(present, name); len(present) == 1 {
			errs = append(errs, check(fldPath.Child(name))...)
		}
	}
	source(m.Object != nil, "object", func(p *field.Path) field.ErrorList { return validateObject(m.Object, described, p) })
	source(m.External != nil, "external", func(p *field.Path) field.ErrorList { return validateExternal(m.External, p) })
	source(m.Pods != nil, "pods", func(p *field.Path) field.ErrorList { return validatePods(m.Pods, p) })
	source(m.Resource != nil, "resource", func(p *field.Path) field.ErrorList {
		return validateResource(string(m.Resource.Name), &m.Resource.Target, p)
	})
	source(m.ContainerResource != nil, "containerResource", func(p *field.Path) field.ErrorList {
		c := m.ContainerResource
		errs := validateResource(string(c.Name), &c.Target, p)
		if c.Name != "" {
			errs = append(errs, podspec.ValidateContainerResourceName(c.Name, p.Child("name"))...)
		}
		if c.Container == "" {
			return append(errs, field.Required(p.Child("container"), "must specify a container"))
		}
		for _, msg := range validation.IsDNS1123Label(c.Container) {
			errs = append(errs, field.Invalid(p.Child("container"), c.Container, msg))
		}
		return errs
	})
	expected := map[v2.MetricSourceType]string{
		v2.ObjectMetricSourceType: "object", v2.ExternalMetricSourceType: "external", v2.PodsMetricSourceType: "pods",
		v2.ResourceMetricSourceType: "resource", v2.ContainerResourceMetricSourceType: "containerResource",
	}[m.Type]
	if expected != "" && !slices.Contains(present, expected) {
		errs = append(errs, field.Required(fldPath.Child(expected), "must populate information for the given metric source"))
	}
	if len(present) != 1 {
		for _, name := range present {
			if name != expected {
				errs = append(errs, field.Forbidden(fldPath.Child(name), "must populate the given metric source only"))
			}
		}
	}
	return errs
}

func validateObject(s *v2.ObjectMetricSource, described versionRules, fldPath *field.Path) field.ErrorList {
	errs := validateReference(s.DescribedObject, described, fldPath.Child("describedObject"))
	errs = append(errs, validateIdentifier(&s.Metric, fldPath.Child("metric"))...)
	errs = append(errs, validateTarget(&s.Target, fldPath.Child("target"))...)
	if s.Target.Value == nil && s.Target.AverageValue == nil {
		errs = append(errs, field.Required(fldPath.Child("target", "averageValue"), "must set either a target value or averageValue"))
	}
	return errs
}

func validateExternal(s *v2.ExternalMetricSource, fldPath *field.Path) field.ErrorList {
	errs := validateIdentifier(&s.Metric, fldPath.Child("metric"))
	errs = append(errs, validateTarget(&s.Target, fldPath.Child("target"))...)
	if s.Target.Value == nil && s.Target.AverageValue == nil {
		errs = append(errs, field.Required(fldPath.Child("target", "averageValue"), "must set either a target value for metric or a per-pod target"))
	}
	if s.Target.Value != nil && s.Target.AverageValue != nil {
		errs = append(errs, field.Forbidden(fldPath.Child("target", "value"), "may not set both a target value for metric and a per-pod target"))
	}
	return errs
}

func validatePods(s *v2.PodsMetricSource, fldPath *field.Path) field.ErrorList {
	errs := validateIdentifier(&s.Metric, fldPath.Child("metric"))
	errs = append(errs, validateTarget(&s.Target, fldPath.Child("target"))...)
	if s.Target.AverageValue == nil {
		errs = append(errs, field.Required(fldPath.Child("target", "averageValue"), "must specify a positive target averageValue"))
	}
	return errs
}

func validateResource(name string, target *v2.MetricTarget, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	if name == "" {
		errs = append(errs, field.Required(fldPath.Child("name"), "must specify a resource name"))
	}
	errs = append(errs, validateTarget(target, fldPath.Child("target"))...)
	if target.AverageUtilization == nil && target.AverageValue == nil {
		errs = append(errs, field.Required(fldPath.Child("target", "averageUtilization"), "must set either a target raw value or a target utilization"))
	}
	if target.AverageUtilization != nil && target.AverageValue != nil {
		errs = append(errs, field.Forbidden(fldPath.Child("target", "averageValue"), "may not set both a target raw value and a target utilization"))
	}
	return errs
}

func validateIdentifier(id *v2.MetricIdentifier, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	if id.Name == "" {
		return append(errs, field.Required(fldPath.Child("name"), "must specify a metric name"))
	}
	for _, msg := range path.IsValidPathSegmentName(id.Name) {
		errs = append(errs, field.Invalid(fldPath.Child("name"), id.Name, msg))
	}
	return append(errs, metav1validation.ValidateLabelSelector(id.Selector, metav1validation.LabelSelectorValidationOptions{}, fldPath.Child("selector"))...)
}

func validateTarget(t *v2.MetricTarget, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch t.Type {
	case v2.UtilizationMetricType, v2.ValueMetricType, v2.AverageValueMetricType:
	case "":
		errs = append(errs, field.Required(fldPath.Child("type"), "must specify a metric target type"))
		fallthrough
	default:
		errs = append(errs, field.Invalid(fldPath.Child("type"), t.Type, "must be either Utilization, Value, or AverageValue"))
	}
	if t.Value != nil && t.Value.Sign() != 1 {
		errs = append(errs, field.Invalid(fldPath.Child("value"), t.Value, "must be positive"))
	}
	if t.AverageValue != nil && t.AverageValue.Sign() != 1 {
		errs = append(errs, field.Invalid(fldPath.Child("averageValue"), t.AverageValue, "must be positive"))
	}
	if t.AverageUtilization != nil && *t.AverageUtilization < 1 {
		errs = append(errs, field.Invalid(fldPath.Child("averageUtilization"), t.AverageUtilization, "must be greater than 0"))
	}
	return errs
}

func validateRules(r *v2.HPAScalingRules, fldPath *field.Path) field.ErrorList {
	if r == nil {
		return nil
	}
	var errs field.ErrorList
	if w := r.StabilizationWindowSeconds; w != nil {
		if *w < 0 {
			errs = append(errs, field.Invalid(fldPath.Child("stabilizationWindowSeconds"), w, "must be greater than or equal to zero"))
		}
		if *w > maxWindowSeconds {
			errs = append(errs, field.Invalid(fldPath.Child("stabilizationWindowSeconds"), w, fmt.Sprintf("must be less than or equal to %v", maxWindowSeconds)))
		}
	}
	all := []v2.ScalingPolicySelect{v2.DisabledPolicySelect, v2.MaxChangePolicySelect, v2.MinChangePolicySelect}
	if r.SelectPolicy != nil && !slices.Contains(all, *r.SelectPolicy) {
		errs = append(errs, field.NotSupported(fldPath.Child("selectPolicy"), *r.SelectPolicy, all))
	}
	policies := fldPath.Child("policies")
	if len(r.Policies) == 0 {
		errs = append(errs, field.Required(policies, "must specify at least one Policy"))
	}
	types := []v2.HPAScalingPolicyType{v2.PercentScalingPolicy, v2.PodsScalingPolicy}
	for i, p := range r.Policies {
		at := policies.Index(i)
		if !slices.Contains(types, p.Type) {
			errs = append(errs, field.NotSupported(at.Child("type"), p.Type, types))
		}
		if p.Value <= 0 {
			errs = append(errs, field.Invalid(at.Child("value"), p.Value, "must be greater than zero"))
		}
		if p.PeriodSeconds <= 0 {
			errs = append(errs, field.Invalid(at.Child("periodSeconds"), p.PeriodSeconds, "must be greater than zero"))
		}
		if p.PeriodSeconds > maxPeriodSeconds {
			errs = append(errs, field.Invalid(at.Child("periodSeconds"), p.PeriodSeconds, fmt.Sprintf("must be less than or equal to %v", maxPeriodSeconds)))
		}
	}
	if r.Tolerance != nil && r.Tolerance.Sign() < 0 {
		errs = append(errs, field.Invalid(fldPath.Child("tolerance"), r.Tolerance, "must be greater or equal to zero"))
	}
	return errs
}
