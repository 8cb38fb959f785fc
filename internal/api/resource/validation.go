package resource

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	v1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/dynamic-resource-allocation/cel"

	"keelson.dev/keelson/internal/api/podspec"
)

func invalid(fldPath *field.Path, value any, messages []string) field.ErrorList {
	var errs field.ErrorList
	for _, msg := range messages {
		errs = append(errs, field.Invalid(fldPath, value, msg))
	}
	return errs
}

// validateDriver: the names of drivers are those of CSI drivers.
func validateDriver(name string, fldPath *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(fldPath, "")}
	}
	return podspec.ValidateDriverName(name, fldPath)
}

func validatePool(name string, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	if name == "" {
		return field.ErrorList{field.Required(fldPath, "")}
	}
	if len(name) > v1.PoolNameMaxLength {
		errs = append(errs, field.TooLong(fldPath, "", v1.PoolNameMaxLength))
	}
	for _, part := range strings.Split(name, "/") {
		errs = append(errs, invalid(fldPath, part, validation.IsDNS1123Subdomain(part))...)
	}
	return errs
}

func validateClass(c *v1.DeviceClass) field.ErrorList { return validateClassOver(c, false, false) }

func validateClassUpdate(c, old *v1.DeviceClass) field.ErrorList {
	return validateClassOver(c, equality.Semantic.DeepEqual(c.Spec.Selectors, old.Spec.Selectors), equality.Semantic.DeepEqual(c.Spec.Config, old.Spec.Config))
}

func validateClassOver(c *v1.DeviceClass, storedSelectors, storedConfig bool) field.ErrorList {
	at := field.NewPath("spec")
	errs := validateSelectors(c.Spec.Selectors, storedSelectors, at.Child("selectors"))
	errs = append(errs, each(c.Spec.Config, v1.DeviceConfigMaxSize, at.Child("config"), func(c *v1.DeviceClassConfiguration, at *field.Path) field.ErrorList {
		return validateConfiguration(&c.DeviceConfiguration, storedConfig, at)
	})...)
	if name := c.Spec.ExtendedResourceName; name != nil && !podspec.IsExtendedResource(corev1.ResourceName(*name)) {
		errs = append(errs, field.Invalid(at.Child("extendedResourceName"), *name, "must be a valid extended resource name"))
	}
	return errs
}

func validateSelectors(list []v1.DeviceSelector, stored bool, fldPath *field.Path) field.ErrorList {
	return each(list, v1.DeviceSelectorsMaxSize, fldPath, func(s *v1.DeviceSelector, at *field.Path) field.ErrorList {
		if at = at.Child("cel"); s.CEL == nil {
			return field.ErrorList{field.Required(at, "")}
		}
		return compile(s.CEL.Expression, stored, at.Child("expression"))
	})
}

// compile checks the expression of a selector with the compiler that the
// scheduler evaluates it with; a stored one may use what this release no
// longer lets new ones use.
func compile(text string, stored bool, fldPath *field.Path) field.ErrorList {
	if len(text) > v1.CELSelectorExpressionMaxLength {
		return field.ErrorList{field.TooLong(fldPath, "", v1.CELSelectorExpressionMaxLength)}
	}
	mode := environment.NewExpressions
	if stored {
		mode = environment.StoredExpressions
	}
	result := cel.GetCompiler(cel.Features{EnableConsumableCapacity: true}).CompileCELExpression(text, cel.Options{EnvType: &mode})
	switch err := result.Error; {
	case err == nil && result.MaxCost > v1.CELSelectorExpressionMaxCost:
		return field.ErrorList{field.Forbidden(fldPath, "too complex, exceeds cost limit")}
	case err == nil:
		return nil
	case err.Type == apiservercel.ErrorTypeRequired:
		return field.ErrorList{field.Required(fldPath, err.Detail)}
	case err.Type == apiservercel.ErrorTypeInvalid:
		return field.ErrorList{field.Invalid(fldPath, text, err.Detail)}
	default:
		return field.ErrorList{field.InternalError(fldPath, err)}
	}
}

func validateConfiguration(c *v1.DeviceConfiguration, stored bool, fldPath *field.Path) field.ErrorList {
	at := fldPath.Child("opaque")
	if c.Opaque == nil {
		return field.ErrorList{field.Required(at, "")}
	}
	errs := validateDriver(c.Opaque.Driver, at.Child("driver"))
	return append(errs, validateRaw(c.Opaque.Parameters.Raw, stored, v1.OpaqueParametersMaxLength, at.Child("parameters"))...)
}

// validateRaw: opaque data is at least a JSON object. Stored data may be
// larger, as it was before there was a limit.
func validateRaw(raw []byte, stored bool, most int, fldPath *field.Path) field.ErrorList {
	var v any
	switch {
	case len(raw) == 0:
		return field.ErrorList{field.Required(fldPath, "")}
	case len(raw) > most && !stored:
		return field.ErrorList{field.TooLong(fldPath, "", most)}
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		return field.ErrorList{field.Invalid(fldPath, "<value omitted>", fmt.Sprintf("error parsing data as JSON: %v", err))}
	}
	if v == nil {
		return field.ErrorList{field.Required(fldPath, "")}
	}
	if _, ok := v.(map[string]any); !ok {
		return field.ErrorList{field.Invalid(fldPath, "<value omitted>", "must be a valid JSON object")}
	}
	return nil
}

func validateClaim(c *v1.ResourceClaim) field.ErrorList {
	return validateSpec(&c.Spec, field.NewPath("spec"))
}

func validateClaimUpdate(c, old *v1.ResourceClaim) field.ErrorList {
	// The spec cannot change, so it is as good as it was.
	return apivalidation.ValidateImmutableField(c.Spec, old.Spec, field.NewPath("spec"))
}

func validateTemplate(t *v1.ResourceClaimTemplate) field.ErrorList {
	at := field.NewPath("spec")
	errs := metav1validation.ValidateLabels(t.Spec.Labels, at.Child("metadata", "labels"))
	errs = append(errs, apivalidation.ValidateAnnotations(t.Spec.Annotations, at.Child("metadata", "annotations"))...)
	return append(errs, validateSpec(&t.Spec.Spec, at.Child("spec"))...)
}

func validateTemplateUpdate(t, old *v1.ResourceClaimTemplate) field.ErrorList {
	return apivalidation.ValidateImmutableField(t.Spec, old.Spec, field.NewPath("spec"))
}

func validateSpec(s *v1.ResourceClaimSpec, fldPath *field.Path) field.ErrorList {
	at, d := fldPath.Child("devices"), &s.Devices
	errs := each(d.Requests, v1.DeviceRequestsMaxSize, at.Child("requests"), validateRequest)
	errs = append(errs, unique(d.Requests, v1.DeviceRequestsMaxSize, at.Child("requests"), func(r *v1.DeviceRequest) string { return r.Name })...)
	names := requestNames(d)
	errs = append(errs, each(d.Constraints, v1.DeviceConstraintsMaxSize, at.Child("constraints"), func(c *v1.DeviceConstraint, at *field.Path) field.ErrorList {
		errs := validateRequestRefs(c.Requests, names, at.Child("requests"))
		switch {
		case c.MatchAttribute != nil:
			return append(errs, validateFullName(string(*c.MatchAttribute), at.Child("matchAttribute"))...)
		case c.DistinctAttribute != nil:
			return append(errs, validateFullName(string(*c.DistinctAttribute), at.Child("distinctAttribute"))...)
		}
		return append(errs, field.Required(at, `exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set`))
	})...)
	return append(errs, each(d.Config, v1.DeviceConfigMaxSize, at.Child("config"), func(c *v1.DeviceClaimConfiguration, at *field.Path) field.ErrorList {
		errs := validateRequestRefs(c.Requests, names, at.Child("requests"))
		return append(errs, validateConfiguration(&c.DeviceConfiguration, false, at)...)
	})...)
}

// each checks the items of a list, unless there are too many.
func each[T any](list []T, most int, fldPath *field.Path, check func(item *T, at *field.Path) field.ErrorList) (errs field.ErrorList) {
	if len(list) > most {
		return field.ErrorList{field.TooMany(fldPath, len(list), most)}
	}
	for i := range list {
		errs = append(errs, check(&list[i], fldPath.Index(i))...)
	}
	return errs
}

// unique wants the items of a list to have different keys; of a list that is
// too long nothing more is said.
func unique[T any, K comparable](list []T, most int, fldPath *field.Path, key func(item *T) K) (errs field.ErrorList) {
	if len(list) > most {
		return nil
	}
	seen := sets.New[K]()
	for i := range list {
		k := key(&list[i])
		if seen.Has(k) {
			errs = append(errs, field.Duplicate(fldPath.Index(i), list[i]))
		}
		seen.Insert(k)
	}
	return errs
}

func itself(s *string) string { return *s }

// requestNames gives how requests may be referred to: name, and name/sub.
func requestNames(d *v1.DeviceClaim) sets.Set[string] {
	names := sets.New[string]()
	for _, r := range d.Requests {
		names.Insert(r.Name)
		for _, sub := range r.FirstAvailable {
			names.Insert(r.Name + "/" + sub.Name)
		}
	}
	return names
}

func validateRequestRefs(list []string, names sets.Set[string], fldPath *field.Path) field.ErrorList {
	errs := each(list, v1.DeviceRequestsMaxSize, fldPath, func(r *string, at *field.Path) field.ErrorList { return validateRequestRef(*r, names, at) })
	return append(errs, unique(list, v1.DeviceRequestsMaxSize, fldPath, itself)...)
}

func validateRequestRef(ref string, names sets.Set[string], fldPath *field.Path) (errs field.ErrorList) {
	parts := strings.Split(ref, "/")
	if len(parts) <= 2 {
		for _, part := range parts {
			errs = append(errs, invalid(fldPath, part, validation.IsDNS1123Label(part))...)
		}
	}
	if !names.Has(ref) {
		errs = append(errs, field.Invalid(fldPath, ref, "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"))
	}
	return errs
}

func validateRequest(r *v1.DeviceRequest, fldPath *field.Path) field.ErrorList {
	errs := validateLabel(r.Name, fldPath.Child("name"))
	switch {
	case r.Exactly == nil && len(r.FirstAvailable) == 0:
		return append(errs, field.Required(fldPath, "exactly one of `exactly` or `firstAvailable` is required"))
	case r.Exactly != nil && len(r.FirstAvailable) > 0:
		return append(errs, field.Invalid(fldPath, nil, "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set"))
	case r.Exactly != nil:
		e := r.Exactly
		return append(errs, validateWish(e.DeviceClassName, e.Selectors, e.AllocationMode, e.Count, e.Tolerations, fldPath.Child("exactly"))...)
	}
	at := fldPath.Child("firstAvailable")
	errs = append(errs, each(r.FirstAvailable, v1.FirstAvailableDeviceRequestMaxSize, at, func(sub *v1.DeviceSubRequest, at *field.Path) field.ErrorList {
		errs := validateLabel(sub.Name, at.Child("name"))
		return append(errs, validateWish(sub.DeviceClassName, sub.Selectors, sub.AllocationMode, sub.Count, sub.Tolerations, at)...)
	})...)
	return append(errs, unique(r.FirstAvailable, v1.FirstAvailableDeviceRequestMaxSize, at, func(sub *v1.DeviceSubRequest) string { return sub.Name })...)
}

func validateLabel(name string, fldPath *field.Path) field.ErrorList {
	return invalid(fldPath, name, validation.IsDNS1123Label(name))
}

// validateRequiredLabel is for names that are fields of a newer kind.
func validateRequiredLabel(name string, fldPath *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(fldPath, "")}
	}
	return validateLabel(name, fldPath)
}

func validateWish(class string, selectors []v1.DeviceSelector, mode v1.DeviceAllocationMode, count int64, tolerations []v1.DeviceToleration, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	if class == "" {
		errs = append(errs, field.Required(fldPath.Child("deviceClassName"), ""))
	} else {
		errs = append(errs, invalid(fldPath.Child("deviceClassName"), class, apivalidation.NameIsDNSSubdomain(class, false))...)
	}
	errs = append(errs, validateSelectors(selectors, false, fldPath.Child("selectors"))...)
	switch mode {
	case v1.DeviceAllocationModeAll:
		if count != 0 {
			errs = append(errs, field.Invalid(fldPath.Child("count"), count, "must not be specified when allocationMode is 'All'"))
		}
	case v1.DeviceAllocationModeExactCount:
		if count <= 0 {
			errs = append(errs, field.Invalid(fldPath.Child("count"), count, "must be greater than zero"))
		}
	default:
		errs = append(errs, field.NotSupported(fldPath.Child("allocationMode"), mode, []v1.DeviceAllocationMode{v1.DeviceAllocationModeAll, v1.DeviceAllocationModeExactCount}))
	}
	for i := range tolerations {
		errs = append(errs, validateToleration(&tolerations[i], fldPath.Child("tolerations").Index(i))...)
	}
	return errs
}

var effects = []v1.DeviceTaintEffect{v1.DeviceTaintEffectNoExecute, v1.DeviceTaintEffectNoSchedule, v1.DeviceTaintEffectNone}

func validateToleration(t *v1.DeviceToleration, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	if t.Key != "" {
		errs = append(errs, metav1validation.ValidateLabelName(t.Key, fldPath.Child("key"))...)
	}
	switch t.Operator {
	case v1.DeviceTolerationOpExists:
		if t.Value != "" {
			errs = append(errs, field.Invalid(fldPath.Child("value"), t.Value, "must be empty for operator `Exists`"))
		}
	case v1.DeviceTolerationOpEqual:
		errs = append(errs, invalid(fldPath.Child("value"), t.Value, validation.IsValidLabelValue(t.Value))...)
	case "":
		errs = append(errs, field.Required(fldPath.Child("operator"), ""))
	default:
		errs = append(errs, field.NotSupported(fldPath.Child("operator"), t.Operator, []v1.DeviceTolerationOperator{v1.DeviceTolerationOpEqual, v1.DeviceTolerationOpExists}))
	}
	if t.Effect != "" && !slices.Contains(effects, t.Effect) {
		errs = append(errs, field.NotSupported(fldPath.Child("effect"), t.Effect, effects))
	}
	return errs
}

// validateFullName: domain/id.
func validateFullName(name string, fldPath *field.Path) field.ErrorList {
	errs := validateName(name, fldPath)
	if !strings.Contains(name, "/") {
		errs = append(errs, field.Invalid(fldPath, name, "a fully qualified name must be a domain and a name separated by a slash"))
	}
	return errs
}

// validateName: id, or domain/id; id is a C identifier. A name of more parts
// is not looked at, as upstream does not.
func validateName(name string, fldPath *field.Path) (errs field.ErrorList) {
	parts := strings.Split(name, "/")
	switch {
	case len(parts) > 2:
		return nil
	case len(parts) == 1:
		return validateID(name, fldPath)
	case parts[0] == "":
		errs = append(errs, field.Invalid(fldPath, "", "the domain must not be empty"))
	default:
		errs = append(errs, validateDriver(parts[0], fldPath)...)
	}
	if parts[1] == "" {
		return append(errs, field.Invalid(fldPath, "", "the name must not be empty"))
	}
	return append(errs, validateID(parts[1], fldPath)...)
}

func validateID(id string, fldPath *field.Path) (errs field.ErrorList) {
	if len(id) > v1.DeviceMaxIDLength {
		errs = append(errs, field.TooLong(fldPath, "", v1.DeviceMaxIDLength))
	}
	return append(errs, invalid(fldPath, id, validation.IsCIdentifier(id))...)
}
