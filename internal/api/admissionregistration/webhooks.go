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
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/utils/ptr"
)

const maxMatchConditions = 64

// reviewVersions are the versions of AdmissionReview that the server speaks.
var reviewVersions = []string{"v1", "v1beta1"}

// hook is a webhook of either kind, as the validation sees it.
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

// tolerated are the faults that a stored configuration has, and may keep.
type tolerated struct{ sideEffects, reviewVersions, names, labelValues, conditions bool }

func validateWebhooks(list, old []hook) field.ErrorList {
	var errs field.ErrorList
	var may tolerated
	seen, stored := sets.New[string](), sets.New[string]()
	if old != nil {
		may = faults(old)
		may.conditions = slices.EqualFunc(list, old, func(a, b hook) bool { return slices.Equal(a.MatchConditions, b.MatchConditions) })
	}
	for _, w := range old {
		for _, c := range w.MatchConditions {
			stored.Insert(c.Expression, strings.TrimSpace(c.Expression))
		}
	}
	for i, w := range list {
		at := field.NewPath("webhooks").Index(i)
		errs = append(errs, validateWebhook(w, may, stored, at)...)
		errs = append(errs, validateReviewVersions(w.AdmissionReviewVersions, may.reviewVersions, at.Child("admissionReviewVersions"))...)
		if w.Name != "" && seen.Has(w.Name) && !may.names {
			errs = append(errs, field.Duplicate(at.Child("name"), w.Name))
		}
		seen.Insert(w.Name)
	}
	return errs
}

func faults(list []hook) (may tolerated) {
	names := sets.New[string]()
	for _, w := range list {
		may.sideEffects = may.sideEffects || w.SideEffects == nil || !slices.Contains(harmless, *w.SideEffects)
		may.reviewVersions = may.reviewVersions || len(w.AdmissionReviewVersions) > 0 &&
			!slices.ContainsFunc(w.AdmissionReviewVersions, func(v string) bool { return slices.Contains(reviewVersions, v) })
		may.names = may.names || names.Has(w.Name)
		names.Insert(w.Name)
		may.labelValues = may.labelValues || len(validateSelector(w.NamespaceSelector, false, nil))+len(validateSelector(w.ObjectSelector, false, nil)) > 0
	}
	return may
}

func validateReviewVersions(list []string, any bool, fldPath *field.Path) field.ErrorList {
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
	if !known && !any {
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

// The kinds of side effects that a dry run can do with.
var harmless = []v1.SideEffectClass{v1.SideEffectClassNone, v1.SideEffectClassNoneOnDryRun}

func validateWebhook(w hook, may tolerated, stored sets.Set[string], fldPath *field.Path) field.ErrorList {
	errs := validation.IsFullyQualifiedName(fldPath.Child("name"), w.Name)
	for i := range w.Rules {
		errs = append(errs, validateRule(&w.Rules[i], fldPath.Child("rules").Index(i))...)
	}
	errs = append(errs, oneOf(w.FailurePolicy, fldPath.Child("failurePolicy"), v1.Fail, v1.Ignore)...)
	errs = append(errs, oneOf(w.MatchPolicy, fldPath.Child("matchPolicy"), v1.Equivalent, v1.Exact)...)
	effects := harmless
	if may.sideEffects {
		effects = append(slices.Clone(harmless), v1.SideEffectClassSome, v1.SideEffectClassUnknown)
	}
	if w.SideEffects == nil {
		errs = append(errs, field.Required(fldPath.Child("sideEffects"), "must specify one of "+joined(effects)))
	}
	errs = append(errs, oneOf(w.SideEffects, fldPath.Child("sideEffects"), effects...)...)
	if t := w.TimeoutSeconds; t != nil && (*t > 30 || *t < 1) {
		errs = append(errs, field.Invalid(fldPath.Child("timeoutSeconds"), *t, "the timeout value must be between 1 and 30 seconds"))
	}
	errs = append(errs, validateSelector(w.NamespaceSelector, may.labelValues, fldPath.Child("namespaceSelector"))...)
	errs = append(errs, validateSelector(w.ObjectSelector, may.labelValues, fldPath.Child("objectSelector"))...)
	errs = append(errs, oneOf(w.reinvocation, fldPath.Child("reinvocationPolicy"), v1.IfNeededReinvocationPolicy, v1.NeverReinvocationPolicy)...)

	errs = append(errs, validateClient(&w.ClientConfig, fldPath.Child("clientConfig"))...)
	if len(w.MatchConditions) > 0 && !may.conditions {
		errs = append(errs, validateMatchConditions(w.MatchConditions, newCompiler(false, stored), fldPath.Child("matchConditions"))...)
	}
	return errs
}

// validateSelector lets values be that are no label values, with badValues.
func validateSelector(s *metav1.LabelSelector, badValues bool, fldPath *field.Path) field.ErrorList {
	return metav1validation.ValidateLabelSelector(s, metav1validation.LabelSelectorValidationOptions{AllowInvalidLabelValueInSelector: badValues}, fldPath)
}

func validateClient(c *v1.WebhookClientConfig, fldPath *field.Path) field.ErrorList {
	switch s := c.Service; {
	case (c.URL == nil) == (s == nil):
		return field.ErrorList{field.Required(fldPath, "exactly one of url or service is required")}
	case c.URL != nil:
		return webhook.ValidateWebhookURL(fldPath.Child("url"), *c.URL, true)
	default:
		return webhook.ValidateWebhookService(fldPath.Child("service"), s.Namespace, s.Name, s.Path, ptr.Deref(s.Port, defaultPort))
	}
}

func validateMatchConditions(list []v1.MatchCondition, c *compiler, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(list) > maxMatchConditions {
		errs = append(errs, field.TooMany(fldPath, len(list), maxMatchConditions))
	}
	seen := sets.New[string]()
	for i, m := range list {
		at := fldPath.Index(i)
		if text := strings.TrimSpace(m.Expression); text == "" {
			errs = append(errs, field.Required(at.Child("expression"), ""))
		} else {
			errs = append(errs, c.check(&expression{text: text, returns: givesBool}, false, at.Child("expression"))...)
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

func joined[T ~string](list []T) string {
	texts := make([]string, len(list))
	for i := range list {
		texts[i] = string(list[i])
	}
	return strings.Join(texts, ", ")
}

// validateResources refuses names that a wildcard before them covers.
func validateResources(list []string, fldPath *field.Path) field.ErrorList {
	if len(list) == 0 {
		return field.ErrorList{field.Required(fldPath, "")}
	}
	var errs field.ErrorList
	withAll, ofAll := sets.New[string](), sets.New[string]()
	// Of names without a subresource upstream looks at the last one only.
	plain := false
	for i, name := range list {
		if name == "" {
			errs = append(errs, field.Required(fldPath.Index(i), ""))
			continue
		}
		resource, sub, ok := strings.Cut(name, "/")
		if !ok {
			plain = name != "*"
			continue
		}
		if withAll.Has(resource) {
			errs = append(errs, field.Invalid(fldPath.Index(i), name, fmt.Sprintf("if '%s/*' is present, must not specify %s", resource, name)))
		}
		if ofAll.Has(sub) {
			errs = append(errs, field.Invalid(fldPath.Index(i), name, fmt.Sprintf("if '*/%s' is present, must not specify %s", sub, name)))
		}
		if sub == "*" {
			withAll.Insert(resource)
		}
		if resource == "*" {
			ofAll.Insert(sub)
		}
	}
	if len(list) > 1 && slices.Contains(list, "*/*") {
		errs = append(errs, field.Invalid(fldPath, list, "if '*/*' is present, must not specify other resources"))
	}
	if plain && slices.Contains(list, "*") {
		errs = append(errs, field.Invalid(fldPath, list, "if '*' is present, must not specify other resources without subresources"))
	}
	return errs
}
