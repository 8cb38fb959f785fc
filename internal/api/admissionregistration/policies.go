package admissionregistration

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	v1 "k8s.io/api/admissionregistration/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/api/validation/path"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/util/jsonpath"
	"k8s.io/utils/ptr"
)

const (
	maxAuditAnnotations    = 20
	maxValueExpressionSize = 5 << 10
)

var (
	identifier = regexp.MustCompile(`^[_a-zA-Z][_a-zA-Z0-9]*$`)
	// reserved words are no identifiers.
	reserved = sets.New("true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if",
		"import", "let", "loop", "package", "namespace", "return", "var", "void", "while")
)

func validateValidatingPolicy(p, old *v1.ValidatingAdmissionPolicy) field.ErrorList {
	at, s := field.NewPath("spec"), &p.Spec
	stored := sets.New[string]()
	if old != nil {
		for _, v := range old.Spec.Validations {
			stored.Insert(v.Expression, v.MessageExpression)
		}
		for _, a := range old.Spec.AuditAnnotations {
			stored.Insert(a.ValueExpression, strings.TrimSpace(a.ValueExpression))
		}
		storeCommon(stored, old.Spec.Variables, old.Spec.MatchConditions)
	}
	errs, c := validatePolicy(s.FailurePolicy, s.ParamKind, s.MatchConstraints, s.MatchConditions, s.Variables, stored, at)
	if len(s.Validations) == 0 && len(s.AuditAnnotations) == 0 {
		const one = "validations or auditAnnotations must contain at least one item"
		errs = append(errs, field.Required(at.Child("validations"), one), field.Required(at.Child("auditAnnotations"), one))
		return errs
	}
	for i := range s.Validations {
		errs = append(errs, validateValidation(&s.Validations[i], c, at.Child("validations").Index(i))...)
	}
	audit := at.Child("auditAnnotations")
	if len(s.AuditAnnotations) > maxAuditAnnotations {
		errs = append(errs, field.Invalid(audit, s.AuditAnnotations, fmt.Sprintf("must not have more than %d auditAnnotations", maxAuditAnnotations)))
	}
	keys := sets.New[string]()
	for i, a := range s.AuditAnnotations {
		errs = append(errs, validateAuditAnnotation(p.Name, a, c, audit.Index(i))...)
		if keys.Has(a.Key) {
			errs = append(errs, field.Duplicate(audit.Index(i).Child("key"), a.Key))
		}
		keys.Insert(a.Key)
	}
	return errs
}

func storeCommon(stored sets.Set[string], variables []v1.Variable, conditions []v1.MatchCondition) {
	for _, v := range variables {
		stored.Insert(v.Expression)
	}
	for _, m := range conditions {
		stored.Insert(m.Expression, strings.TrimSpace(m.Expression))
	}
}

// validatePolicy checks what the two kinds of policies share, and returns a
// compiler that knows the policy's variables.
func validatePolicy(failure *v1.FailurePolicyType, kind *v1.ParamKind, match *v1.MatchResources, conditions []v1.MatchCondition, variables []v1.Variable, stored sets.Set[string], fldPath *field.Path) (field.ErrorList, *compiler) {
	var errs field.ErrorList
	c := newCompiler(kind != nil, stored)
	if failure == nil {
		errs = append(errs, field.Required(fldPath.Child("failurePolicy"), ""))
	}
	errs = append(errs, oneOf(failure, fldPath.Child("failurePolicy"), v1.Fail, v1.Ignore)...)
	if kind != nil {
		errs = append(errs, validateParamKind(kind, fldPath.Child("paramKind"))...)
	}
	at := fldPath.Child("matchConstraints")
	if match == nil {
		errs = append(errs, field.Required(at, ""))
	} else {
		errs = append(errs, validateMatchResources(match, at)...)
		if len(match.ResourceRules) == 0 {
			errs = append(errs, field.Required(at.Child("resourceRules"), ""))
		}
	}
	errs = append(errs, validateMatchConditions(conditions, c, fldPath.Child("matchConditions"))...)
	for i, v := range variables {
		at := fldPath.Child("variables").Index(i)
		switch {
		case strings.TrimSpace(v.Name) == "":
			errs = append(errs, field.Required(at.Child("name"), "name is not specified"))
		case !identifier.MatchString(v.Name) || reserved.Has(v.Name):
			errs = append(errs, field.Invalid(at.Child("name"), v.Name, "name is not a valid CEL identifier"))
		}
		if strings.TrimSpace(v.Expression) == "" {
			errs = append(errs, field.Required(at.Child("expression"), "expression is not specified"))
		} else {
			errs = append(errs, c.define(v, at.Child("expression"))...)
		}
	}
	return errs, c
}

func validateParamKind(k *v1.ParamKind, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	at := fldPath.Child("apiVersion")
	if k.APIVersion == "" {
		errs = append(errs, field.Required(at, ""))
	} else if gv, err := schema.ParseGroupVersion(k.APIVersion); err != nil {
		errs = append(errs, field.Invalid(at, k.APIVersion, err.Error()))
	} else {
		if msgs := validation.IsDNS1123Subdomain(gv.Group); gv.Group != "" && len(msgs) > 0 {
			errs = append(errs, field.Invalid(at, gv.Group, strings.Join(msgs, ",")))
		}
		if gv.Version == "" {
			errs = append(errs, field.Invalid(at, k.APIVersion, "version must be specified"))
		} else if msgs := validation.IsDNS1035Label(gv.Version); len(msgs) > 0 {
			errs = append(errs, field.Invalid(at, gv.Version, strings.Join(msgs, ",")))
		}
	}
	if k.Kind == "" {
		return append(errs, field.Required(fldPath.Child("kind"), ""))
	}
	if msgs := validation.IsDNS1035Label(strings.ToLower(k.Kind)); len(msgs) > 0 {
		errs = append(errs, field.Invalid(fldPath.Child("kind"), k.Kind, "may have mixed case, but should otherwise match: "+strings.Join(msgs, ",")))
	}
	return errs
}

func validateMatchResources(m *v1.MatchResources, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	selector := func(s *metav1.LabelSelector, name string) {
		if s == nil {
			errs = append(errs, field.Required(fldPath.Child(name), ""))
		} else {
			errs = append(errs, validateSelector(s, false, fldPath.Child(name))...)
		}
	}
	selector(m.NamespaceSelector, "namespaceSelector")
	selector(m.ObjectSelector, "objectSelector")
	rules := func(list []v1.NamedRuleWithOperations, name string) {
		for i := range list {
			at := fldPath.Child(name).Index(i)
			errs = append(errs, validateRule(&list[i].RuleWithOperations, at)...)
			seen := sets.New[string]()
			for j, n := range list[i].ResourceNames {
				at := at.Child("resourceNames").Index(j)
				for _, msg := range path.ValidatePathSegmentName(n, false) {
					errs = append(errs, field.Invalid(at, n, msg))
				}
				if seen.Has(n) {
					errs = append(errs, field.Duplicate(at, n))
				}
				seen.Insert(n)
			}
		}
	}
	rules(m.ResourceRules, "resourceRules")
	rules(m.ExcludeResourceRules, "excludeResourceRules")
	if m.MatchPolicy == nil {
		errs = append(errs, field.Required(fldPath.Child("matchPolicy"), ""))
	}
	return append(errs, oneOf(m.MatchPolicy, fldPath.Child("matchPolicy"), v1.Equivalent, v1.Exact)...)
}

func validateValidation(v *v1.Validation, c *compiler, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	if strings.TrimSpace(v.Expression) == "" {
		errs = append(errs, field.Required(fldPath.Child("expression"), "expression is not specified"))
	} else {
		errs = append(errs, c.check(&expression{text: v.Expression, returns: givesBool}, false, fldPath.Child("expression"))...)
	}
	message, trimmed := fldPath.Child("message"), strings.TrimSpace(v.Message)
	switch {
	case v.Message != "" && trimmed == "":
		errs = append(errs, field.Invalid(message, v.Message, "message must be non-empty if specified"))
	case strings.ContainsAny(trimmed, "\n\r"):
		errs = append(errs, field.Invalid(message, v.Message, "message must not contain line breaks"))
	}
	if v.MessageExpression != "" {
		at := fldPath.Child("messageExpression")
		if strings.TrimSpace(v.MessageExpression) == "" {
			errs = append(errs, field.Invalid(at, v.MessageExpression, "must be non-empty if specified"))
		} else {
			errs = append(errs, c.message(&expression{text: v.MessageExpression, returns: givesString}, at)...)
		}
	}
	return append(errs, oneOf(v.Reason, fldPath.Child("reason"), metav1.StatusReasonForbidden, metav1.StatusReasonInvalid, metav1.StatusReasonRequestEntityTooLarge)...)
}

// validateAuditAnnotation checks an audit annotation, whose key in the audit
// log is policy/key.
func validateAuditAnnotation(policy string, a v1.AuditAnnotation, c *compiler, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	if name := policy + "/" + a.Key; policy == "" {
		errs = append(errs, field.Invalid(fldPath.Child("key"), a.Key, "requires metadata.name be non-empty"))
	} else {
		for _, msg := range validation.IsQualifiedName(name) {
			errs = append(errs, field.Invalid(fldPath.Child("key"), name, msg))
		}
	}
	at := fldPath.Child("valueExpression")
	switch text := strings.TrimSpace(a.ValueExpression); {
	case text == "":
		errs = append(errs, field.Required(at, "valueExpression is not specified"))
	case len(text) > maxValueExpressionSize:
		errs = append(errs, field.Required(at, fmt.Sprintf("must not exceed %d bytes in length", maxValueExpressionSize)))
	default:
		errs = append(errs, c.check(&expression{text: text, returns: givesNote}, false, at)...)
	}
	return errs
}

func validatePolicyStatus(s *v1.ValidatingAdmissionPolicyStatus, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	if s.TypeChecking != nil {
		for i, w := range s.TypeChecking.ExpressionWarnings {
			at := fldPath.Child("typeChecking", "expressionWarnings").Index(i)
			if w.Warning == "" {
				errs = append(errs, field.Required(at.Child("warning"), ""))
			}
			if ref := strings.TrimSpace(w.FieldRef); ref == "" {
				errs = append(errs, field.Required(at.Child("fieldRef"), ""))
			} else if err := jsonpath.New("spec").Parse("{" + ref + "}"); err != nil {
				errs = append(errs, field.Invalid(at.Child("fieldRef"), ref, fmt.Sprintf("invalid JSONPath: %v", err)))
			}
		}
	}
	return append(errs, metav1validation.ValidateConditions(s.Conditions, fldPath.Child("conditions"))...)
}

func validateValidatingBinding(b *v1.ValidatingAdmissionPolicyBinding) field.ErrorList {
	at := field.NewPath("spec")
	errs := validateBinding(b.Spec.PolicyName, b.Spec.ParamRef, b.Spec.MatchResources, at)
	actions := at.Child("validationActions")
	all := []v1.ValidationAction{v1.Audit, v1.Deny, v1.Warn}
	seen := sets.New[v1.ValidationAction]()
	for i, a := range b.Spec.ValidationActions {
		if !slices.Contains(all, a) {
			errs = append(errs, field.NotSupported(actions.Index(i), a, all))
		}
		if seen.Has(a) {
			errs = append(errs, field.Duplicate(actions.Index(i), a))
		}
		seen.Insert(a)
	}
	if seen.HasAll(v1.Deny, v1.Warn) {
		errs = append(errs, field.Invalid(actions, b.Spec.ValidationActions, "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)"))
	}
	return errs
}

func validateBinding(policy string, ref *v1.ParamRef, match *v1.MatchResources, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	if policy == "" {
		errs = append(errs, field.Required(fldPath.Child("policyName"), ""))
	} else {
		for _, msg := range apivalidation.NameIsDNSSubdomain(policy, false) {
			errs = append(errs, field.Invalid(fldPath.Child("policyName"), policy, msg))
		}
	}
	if ref != nil {
		errs = append(errs, validateParamRef(ref, fldPath.Child("paramRef"))...)
	}
	if match != nil {
		errs = append(errs, validateMatchResources(match, fldPath.Child("matchResources"))...)
	}
	return errs
}

func validateParamRef(r *v1.ParamRef, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	if r.Name != "" {
		for _, msg := range path.ValidatePathSegmentName(r.Name, false) {
			errs = append(errs, field.Invalid(fldPath.Child("name"), r.Name, msg))
		}
		if r.Selector != nil {
			errs = append(errs, field.Forbidden(fldPath.Child("name"), "name and selector are mutually exclusive"))
		}
	}
	if r.Selector != nil {
		errs = append(errs, validateSelector(r.Selector, false, fldPath.Child("selector"))...)
		if r.Name != "" {
			errs = append(errs, field.Forbidden(fldPath.Child("selector"), "name and selector are mutually exclusive"))
		}
	}
	if r.Name == "" && r.Selector == nil {
		errs = append(errs, field.Required(fldPath, "one of name or selector must be specified"))
	}
	if ptr.Deref(r.ParameterNotFoundAction, "") == "" {
		return append(errs, field.Required(fldPath.Child("parameterNotFoundAction"), ""))
	}
	return append(errs, oneOf(r.ParameterNotFoundAction, fldPath.Child("parameterNotFoundAction"), v1.DenyAction, v1.AllowAction)...)
}

func validateMutatingPolicy(p, old *v1.MutatingAdmissionPolicy) field.ErrorList {
	at, s := field.NewPath("spec"), &p.Spec
	stored := sets.New[string]()
	if old != nil {
		for _, m := range old.Spec.Mutations {
			if m.ApplyConfiguration != nil {
				stored.Insert(m.ApplyConfiguration.Expression)
			}
			if m.JSONPatch != nil {
				stored.Insert(m.JSONPatch.Expression)
			}
		}
		storeCommon(stored, old.Spec.Variables, old.Spec.MatchConditions)
	}
	errs, c := validatePolicy(s.FailurePolicy, s.ParamKind, s.MatchConstraints, s.MatchConditions, s.Variables, stored, at)
	if len(s.Mutations) == 0 {
		errs = append(errs, field.Required(at.Child("mutations"), "mutations must contain at least one item"))
	}
	for i := range s.Mutations {
		errs = append(errs, validateMutation(&s.Mutations[i], c, at.Child("mutations").Index(i))...)
	}
	if s.ReinvocationPolicy == "" {
		return append(errs, field.Required(at.Child("reinvocationPolicy"), ""))
	}
	return append(errs, oneOf(&s.ReinvocationPolicy, at.Child("reinvocationPolicy"), v1.IfNeededReinvocationPolicy, v1.NeverReinvocationPolicy)...)
}

func validateMutation(m *v1.Mutation, c *compiler, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	apply, jsonPatch := fldPath.Child("applyConfiguration"), fldPath.Child("jsonPatch")
	switch m.PatchType {
	case "":
		return field.ErrorList{field.Required(fldPath.Child("patchType"), "")}
	case v1.PatchTypeApplyConfiguration:
		if m.JSONPatch != nil {
			errs = append(errs, field.Invalid(jsonPatch, "{jsonPatch}", "must not be specified when patchType is ApplyConfiguration"))
		}
		switch {
		case m.ApplyConfiguration == nil:
			errs = append(errs, field.Required(apply, "must be specified when patchType is ApplyConfiguration"))
		case strings.TrimSpace(m.ApplyConfiguration.Expression) == "":
			errs = append(errs, field.Required(apply.Child("expression"), "expression is not specified"))
		default:
			errs = append(errs, c.check(&expression{text: m.ApplyConfiguration.Expression, returns: givesObject}, true, apply.Child("expression"))...)
		}
	case v1.PatchTypeJSONPatch:
		if m.ApplyConfiguration != nil {
			errs = append(errs, field.Invalid(apply, "{applyConfiguration}", "must not be specified when patchType is JSONPatch"))
		}
		switch {
		case m.JSONPatch == nil:
			errs = append(errs, field.Required(jsonPatch, "must be specified when patchType is JSONPatch"))
		case strings.TrimSpace(m.JSONPatch.Expression) == "":
			errs = append(errs, field.Required(jsonPatch.Child("expression"), "expression is not specified"))
		default:
			errs = append(errs, c.check(&expression{text: m.JSONPatch.Expression, returns: givesPatches}, true, jsonPatch.Child("expression"))...)
		}
	default:
		errs = append(errs, field.NotSupported(fldPath.Child("patchType"), m.PatchType, []v1.PatchType{v1.PatchTypeApplyConfiguration, v1.PatchTypeJSONPatch}))
	}
	return errs
}
