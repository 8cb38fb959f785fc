package admissionregistration

import (
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const maxMatchConditions = 64

// reviewVersions are those of AdmissionReview that the server speaks.
var reviewVersions = []string{"v1", "v1beta1"}

// hook is what the validation looks at of a webhook of either kind.
type hook struct {
	*v1.ValidatingWebhook
	reinvocation *v1.ReinvocationPolicyType
}

func validatingHooks(c *v1.ValidatingWebhookConfiguration) []hook {
	list := make([]hook, len(c.Webhooks))
	for i := range c.Webhooks {
		list[i].ValidatingWebhook = &c.Webhooks[i]
	}
	return list
}

func mutatingHooks(c *v1.MutatingWebhookConfiguration) []hook {
	list := make([]hook, len(c.Webhooks))
	for i := range c.Webhooks {
		w := &c.Webhooks[i]
		list[i] = hook{
			ValidatingWebhook: &v1.ValidatingWebhook{
				Name: w.Name, ClientConfig: w.ClientConfig, Rules: w.Rules, FailurePolicy: w.FailurePolicy, MatchPolicy: w.MatchPolicy,
				NamespaceSelector: w.NamespaceSelector, ObjectSelector: w.ObjectSelector, SideEffects: w.SideEffects,
				TimeoutSeconds: w.TimeoutSeconds, AdmissionReviewVersions: w.AdmissionReviewVersions, MatchConditions: w.MatchConditions,
			},
			reinvocation: w.ReinvocationPolicy,
		}
	}
	return list
}

func validateWebhooks(list, old []hook) field.ErrorList {
	var errs field.ErrorList
	seen, stored := sets.New[string](), sets.New[string]()
	for _, w := range old {
		for _, c := range w.MatchConditions {
			stored.Insert(c.Expression)
		}
	}
	for i, w := range list {
		at := field.NewPath("webhooks").Index(i)
		errs = append(errs, validateReviewVersions(w.AdmissionReviewVersions, at.Child("admissionReviewVersions"))...)
		errs = append(errs, validateWebhook(w, stored, at)...)
		if w.Name != "" && seen.Has(w.Name) {
			errs = append(errs, field.Duplicate(at.Child("name"), w.Name))
		}
		seen.Insert(w.Name)
	}
	return errs
}

func validateReviewVersions(list []string, fldPath *field.Path) field.ErrorList {
	if len(list) == 0 {
		return field.ErrorList{field.Required(fldPath, "must specify one of "+strings.Join(reviewVersions, ", "))}
	}
	var errs field.ErrorList
	seen, known := sets.New[string](), false
	for i, v := range list {
		if seen.Has(v) {
			errs = append(errs, field.Invalid(fldPath.Index(i), v, "duplicate version"))
			continue
		}
		seen.Insert(v)
		for _, msg := range validation.IsDNS1035Label(v) {
			errs = append(errs, field.Invalid(fldPath.Index(i), v, msg))
		}
		known = known || slices.Contains(reviewVersions, v)
	}
	if len(errs) == 0 && !known {
		errs = append(errs, field.Invalid(fldPath, list, "must include at least one of "+strings.Join(reviewVersions, ", ")))
	}
	return errs
}

// oneOf checks a choice, if it was made.
func oneOf[T ~string](v *T, fldPath *field.Path, all ...T) field.ErrorList {
	if v == nil || slices.Contains(all, *v) {
		return nil
	}
	return field.ErrorList{field.NotSupported(fldPath, *v, all)}
}

func validateWebhook(w hook, stored sets.Set[string], fldPath *field.Path) field.ErrorList {
	errs := validation.IsFullyQualifiedName(fldPath.Child("name"), w.Name)
	for i := range w.Rules {
		errs = append(errs, validateRule(&w.Rules[i], fldPath.Child("rules").Index(i))...)
	}
	errs = append(errs, oneOf(w.FailurePolicy, fldPath.Child("failurePolicy"), v1.Fail, v1.Ignore)...)
	errs = append(errs, oneOf(w.MatchPolicy, fldPath.Child("matchPolicy"), v1.Equivalent, v1.Exact)...)
	if w.SideEffects == nil {
		errs = append(errs, field.Required(fldPath.Child("sideEffects"), "must specify one of None, NoneOnDryRun"))
	}
	errs = append(errs, oneOf(w.SideEffects, fldPath.Child("sideEffects"), v1.SideEffectClassNone, v1.SideEffectClassNoneOnDryRun)...)
	if t := w.TimeoutSeconds; t != nil && (*t > 30 || *t < 1) {
		errs = append(errs, field.Invalid(fldPath.Child("timeoutSeconds"), *t, "the timeout value must be between 1 and 30 seconds"))
	}
	errs = append(errs, validateSelector(w.NamespaceSelector, fldPath.Child("namespaceSelector"))...)
	errs = append(errs, validateSelector(w.ObjectSelector, fldPath.Child("objectSelector"))...)
	errs = append(errs, oneOf(w.reinvocation, fldPath.Child("reinvocationPolicy"), v1.IfNeededReinvocationPolicy, v1.NeverReinvocationPolicy)...)

	errs = append(errs, validateClient(&w.ClientConfig, fldPath.Child("clientConfig"))...)
	if len(w.MatchConditions) > 0 {
		errs = append(errs, validateMatchConditions(w.MatchConditions, newCompiler(false, stored), fldPath.Child("matchConditions"))...)
	}
	return errs
}

func validateSelector(s *metav1.LabelSelector, fldPath *field.Path) field.ErrorList {
	return metav1validation.ValidateLabelSelector(s, metav1validation.LabelSelectorValidationOptions{}, fldPath)
}

func validateMatchConditions(list []v1.MatchCondition, c *compiler, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(list) > maxMatchConditions {
		errs = append(errs, field.TooMany(fldPath, len(list), maxMatchConditions))
	}
	seen := sets.New[string]()
	for i, m := range list {
		at := fldPath.Index(i)
		if strings.TrimSpace(m.Expression) == "" {
			errs = append(errs, field.Required(at.Child("expression"), ""))
		} else {
			errs = append(errs, c.check(&expression{text: m.Expression, returns: givesBool}, false, at.Child("expression"))...)
		}
		if m.Name == "" {
			errs = append(errs, field.Required(at.Child("name"), ""))
			continue
		}
		for _, msg := range validation.IsQualifiedName(m.Name) {
			errs = append(errs, field.Invalid(at.Child("name"), m.Name, msg))
		}
		if seen.Has(m.Name) {
			errs = append(errs, field.Duplicate(at.Child("name"), m.Name))
		}
		seen.Insert(m.Name)
	}
	return errs
}

func validateRule(r *v1.RuleWithOperations, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	all := []v1.OperationType{v1.OperationAll, v1.Connect, v1.Create, v1.Delete, v1.Update}
	at := fldPath.Child("operations")
	if len(r.Operations) == 0 {
		errs = append(errs, field.Required(at, ""))
	}
	if len(r.Operations) > 1 && slices.Contains(r.Operations, v1.OperationAll) {
		errs = append(errs, field.Invalid(at, r.Operations, "if '*' is present, must not specify other operations"))
	}
	for i, o := range r.Operations {
		if !slices.Contains(all, o) {
			errs = append(errs, field.NotSupported(at.Index(i), o, all))
		}
	}
	names := func(list []string, child, what string, mayBeEmpty bool) {
		at := fldPath.Child(child)
		if len(list) == 0 {
			errs = append(errs, field.Required(at, ""))
		}
		if len(list) > 1 && slices.Contains(list, "*") {
			errs = append(errs, field.Invalid(at, list, "if '*' is present, must not specify other "+what))
		}
		for i, v := range list {
			if v == "" && !mayBeEmpty {
				errs = append(errs, field.Required(at.Index(i), ""))
			}
		}
	}
	names(r.APIGroups, "apiGroups", "API groups", true)
	names(r.APIVersions, "apiVersions", "API versions", false)
	errs = append(errs, validateResources(r.Resources, fldPath.Child("resources"))...)
	return append(errs, oneOf(r.Scope, fldPath.Child("scope"), v1.AllScopes, v1.ClusterScope, v1.NamespacedScope)...)
}

// validateResources refuses names that a wildcard in the same list covers.
func validateResources(list []string, fldPath *field.Path) field.ErrorList {
	if len(list) == 0 {
		return field.ErrorList{field.Required(fldPath, "")}
	}
	var errs field.ErrorList
	if len(list) > 1 && slices.Contains(list, "*/*") {
		return field.ErrorList{field.Invalid(fldPath, list, "if '*/*' is present, must not specify other resources")}
	}
	withAll, ofAll := sets.New[string](), sets.New[string]()
	for i, name := range list {
		if name == "" {
			errs = append(errs, field.Required(fldPath.Index(i), ""))
			continue
		}
		if name == "*" {
			continue
		}
		resource, sub, ok := strings.Cut(name, "/")
		if withAll.Has(resource) {
			errs = append(errs, field.Invalid(fldPath.Index(i), name, fmt.Sprintf("if '%s/*' is present, must not specify %s", resource, name)))
		}
		if ofAll.Has(sub) && ok {
			errs = append(errs, field.Invalid(fldPath.Index(i), name, fmt.Sprintf("if '*/%s' is present, must not specify %s", sub, name)))
		}
		if ok && sub == "*" {
			withAll.Insert(resource)
		}
		if ok && resource == "*" {
			ofAll.Insert(sub)
		}
	}
	if len(list) > 1 && slices.Contains(list, "*") {
		if slices.ContainsFunc(list, func(n string) bool { return n != "*" && !strings.Contains(n, "/") }) {
			errs = append(errs, field.Invalid(fldPath, list, "if '*' is present, must not specify other resources without subresources"))
		}
	}
	return errs
}
