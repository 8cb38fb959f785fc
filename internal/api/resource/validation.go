package resource

import (
	"encoding/json"
	"fmt"
	"strings"

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
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/api/podspec"
)

func invalid(fldPath *field.Path, value any, messages []string) field.ErrorList {
	var errs field.ErrorList
	for _, msg := range messages {
		errs = append(errs, field.Invalid(fldPath, value, msg))
	}
	return errs
}

// validateDriver checks that name is one that a CSI driver could have.
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

func validateClass(c *v1.DeviceClass) field.ErrorList { return validateClassSpec(&c.Spec, nil) }

func validateClassUpdate(c, old *v1.DeviceClass) field.ErrorList {
	return validateClassSpec(&c.Spec, &old.Spec)
}

func validateClassSpec(s, old *v1.DeviceClassSpec) field.ErrorList {
	at, was := field.NewPath("spec"), ptr.Deref(old, v1.DeviceClassSpec{})
	errs := validateSelectors(s.Selectors, equality.Semantic.DeepEqual(s.Selectors, was.Selectors), at.Child("selectors"))
	stored := equality.Semantic.DeepEqual(s.Config, was.Config)
	errs = append(errs, each(s.Config, v1.DeviceConfigMaxSize, at.Child("config"), func(c *v1.DeviceClassConfiguration, at *field.Path) field.ErrorList {
		return validateConfiguration(&c.DeviceConfiguration, stored, at)
	})...)
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
	return validateRaw(c.Opaque.Parameters.Raw, stored, v1.OpaqueParametersMaxLength, at.Child("parameters"))
}

// validateRaw checks that opaque data is at least a JSON object. Stored data
// may be larger, as it was before there was a limit.
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
	names := requestNames(d)
	errs = append(errs, each(d.Constraints, v1.DeviceConstraintsMaxSize, at.Child("constraints"), func(c *v1.DeviceConstraint, at *field.Path) field.ErrorList {
		errs := validateRequestRefs(c.Requests, names, at.Child("requests"))
		if c.MatchAttribute == nil && c.DistinctAttribute == nil {
			errs = append(errs, field.Required(at, `exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set`))
		}
		return errs
	})...)
	return append(errs, each(d.Config, v1.DeviceConfigMaxSize, at.Child("config"), func(c *v1.DeviceClaimConfiguration, at *field.Path) field.ErrorList {
		errs := validateRequestRefs(c.Requests, names, at.Child("requests"))
		return append(errs, validateConfiguration(&c.DeviceConfiguration, false, at)...)
	})...)
}

// each checks the items of a list, unless there are too many: of that the rules
// that the types declare complain.
func each[T any](list []T, most int, fldPath *field.Path, check func(item *T, at *field.Path) field.ErrorList) (errs field.ErrorList) {
	for i := range list {
		if len(list) <= most {
			errs = append(errs, check(&list[i], fldPath.Index(i))...)
		}
	}
	return errs
}

// few is each, of a list that no declared rule bounds.
func few[T any](list []T, most int, fldPath *field.Path, check func(item *T, at *field.Path) field.ErrorList) field.ErrorList {
	if len(list) > most {
		return field.ErrorList{field.TooMany(fldPath, len(list), most)}
	}
	return each(list, most, fldPath, check)
}

// unique wants the items of a list to have different keys; of a list that is
// too long nothing more is said.
func unique[T any, K comparable](list []T, most int, fldPath *field.Path, key func(item *T) K) (errs field.ErrorList) {
	seen := sets.New[K]()
	for i := range list {
		k := key(&list[i])
		if seen.Has(k) && len(list) <= most {
			errs = append(errs, field.Duplicate(fldPath.Index(i), k))
		}
		seen.Insert(k)
	}
	return errs
}

func itself(s *string) string { return *s }

// requestNames returns how requests may be referred to: name, and name/sub.
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
	return each(list, v1.DeviceRequestsMaxSize, fldPath, func(r *string, at *field.Path) field.ErrorList { return validateRequestRef(*r, names, at) })
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
		e, at := r.Exactly, fldPath.Child("exactly")
		if e.DeviceClassName == "" {
			errs = append(errs, field.Required(at.Child("deviceClassName"), ""))
		} else {
			errs = append(errs, invalid(at.Child("deviceClassName"), e.DeviceClassName, apivalidation.NameIsDNSSubdomain(e.DeviceClassName, false))...)
		}
		return append(errs, validateWish(e.Selectors, e.AllocationMode, e.Count, e.Tolerations, at)...)
	}
	return append(errs, each(r.FirstAvailable, v1.FirstAvailableDeviceRequestMaxSize, fldPath.Child("firstAvailable"), func(sub *v1.DeviceSubRequest, at *field.Path) field.ErrorList {
		errs := validateLabel(sub.Name, at.Child("name"))
		return append(errs, validateWish(sub.Selectors, sub.AllocationMode, sub.Count, sub.Tolerations, at)...)
	})...)
}

func validateLabel(name string, fldPath *field.Path) field.ErrorList {
	return invalid(fldPath, name, validation.IsDNS1123Label(name))
}

func validateWish(selectors []v1.DeviceSelector, mode v1.DeviceAllocationMode, count int64, tolerations []v1.DeviceToleration, fldPath *field.Path) field.ErrorList {
	errs := validateSelectors(selectors, false, fldPath.Child("selectors"))
	switch {
	case mode == v1.DeviceAllocationModeAll && count != 0:
		errs = append(errs, field.Invalid(fldPath.Child("count"), count, "must not be specified when allocationMode is 'All'"))
	case mode == v1.DeviceAllocationModeExactCount && count <= 0:
		errs = append(errs, field.Invalid(fldPath.Child("count"), count, "must be greater than zero"))
	}
	return append(errs, each(tolerations, len(tolerations), fldPath.Child("tolerations"), validateToleration)...)
}

func validateToleration(t *v1.DeviceToleration, fldPath *field.Path) field.ErrorList {
	switch at := fldPath.Child("value"); {
	case t.Operator == v1.DeviceTolerationOpExists && t.Value != "":
		return field.ErrorList{field.Invalid(at, t.Value, "must be empty for operator `Exists`")}
	case t.Operator == v1.DeviceTolerationOpEqual:
		return invalid(at, t.Value, validation.IsValidLabelValue(t.Value))
	}
	return nil
}

// validateName checks that name is id or domain/id, where id is a C identifier.
// A name with more parts is not checked, as upstream does not check it.
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
