package flowcontrol

import (
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"
	"k8s.io/apiserver/pkg/util/shufflesharding"
	"k8s.io/utils/ptr"
)

const (
	maxQueues = 10 * 1000 * 1000
	// maxEntropyBits is the size of shuffle sharding's hash value.
	maxEntropyBits = 60
)

var verbs = []string{"create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"}

func invalid(fldPath *field.Path, value any, messages []string) field.ErrorList {
	var errs field.ErrorList
	for _, msg := range messages {
		errs = append(errs, field.Invalid(fldPath, value, msg))
	}
	return errs
}

func validateFlowSchema(s *v1.FlowSchema) field.ErrorList {
	at, spec := field.NewPath("spec"), &s.Spec
	var errs field.ErrorList
	precedence := func(wrong bool, msg string) {
		if wrong {
			errs = append(errs, field.Invalid(at.Child("matchingPrecedence"), spec.MatchingPrecedence, msg))
		}
	}
	precedence(spec.MatchingPrecedence <= 0, "must be a positive value")
	precedence(spec.MatchingPrecedence > v1.FlowSchemaMaxMatchingPrecedence, fmt.Sprintf("must not be greater than %v", v1.FlowSchemaMaxMatchingPrecedence))
	precedence(spec.MatchingPrecedence == 1 && s.Name != v1.FlowSchemaNameExempt, "only the schema named 'exempt' may have matchingPrecedence 1")
	methods := []v1.FlowDistinguisherMethodType{v1.FlowDistinguisherMethodByNamespaceType, v1.FlowDistinguisherMethodByUserType}
	if m := spec.DistinguisherMethod; m != nil && !slices.Contains(methods, m.Type) {
		errs = append(errs, field.NotSupported(at.Child("distinguisherMethod", "type"), m, methods))
	}
	level := at.Child("priorityLevelConfiguration", "name")
	if name := spec.PriorityLevelConfiguration.Name; name == "" {
		errs = append(errs, field.Required(level, "must reference a priority level"))
	} else {
		errs = append(errs, invalid(level, name, apivalidation.NameIsDNSSubdomain(name, false))...)
	}
	for i := range spec.Rules {
		errs = append(errs, validateRule(&spec.Rules[i], at.Child("rules").Index(i))...)
	}
	for _, m := range bootstrap.MandatoryFlowSchemas {
		if m.Name == s.Name && !equality.Semantic.DeepEqual(m.Spec, *spec) {
			errs = append(errs, field.Invalid(at, *spec, fmt.Sprintf("spec of '%s' must equal the fixed value", s.Name)))
		}
	}
	return append(errs, validateConditions(s.Status.Conditions, func(c v1.FlowSchemaCondition) string { return string(c.Type) })...)
}

func validateRule(r *v1.PolicyRulesWithSubjects, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(r.Subjects) == 0 {
		errs = append(errs, field.Required(fldPath.Child("subjects"), "subjects must contain at least one value"))
	}
	for i := range r.Subjects {
		errs = append(errs, validateSubject(&r.Subjects[i], fldPath.Child("subjects").Index(i))...)
	}
	if len(r.ResourceRules) == 0 && len(r.NonResourceRules) == 0 {
		errs = append(errs, field.Required(fldPath, "at least one of resourceRules and nonResourceRules has to be non-empty"))
	}
	for i := range r.ResourceRules {
		errs = append(errs, validateResourceRule(&r.ResourceRules[i], fldPath.Child("resourceRules").Index(i))...)
	}
	for i := range r.NonResourceRules {
		errs = append(errs, validateNonResourceRule(&r.NonResourceRules[i], fldPath.Child("nonResourceRules").Index(i))...)
	}
	return errs
}

// validateSubject checks that the field of the subject's kind is set, and no
// other.
func validateSubject(s *v1.Subject, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	kinds := []v1.SubjectKind{v1.SubjectKindGroup, v1.SubjectKindServiceAccount, v1.SubjectKindUser}
	if !slices.Contains(kinds, s.Kind) {
		return field.ErrorList{field.NotSupported(fldPath.Child("kind"), s.Kind, kinds)}
	}
	for _, f := range []struct {
		name string
		kind v1.SubjectKind
		set  bool
		of   func(*field.Path) field.ErrorList
	}{
		{"serviceAccount", v1.SubjectKindServiceAccount, s.ServiceAccount != nil, func(p *field.Path) field.ErrorList { return validateServiceAccount(s.ServiceAccount, p) }},
		{"user", v1.SubjectKindUser, s.User != nil, func(p *field.Path) field.ErrorList { return validateSubjectName(s.User.Name, p) }},
		{"group", v1.SubjectKindGroup, s.Group != nil, func(p *field.Path) field.ErrorList { return validateSubjectName(s.Group.Name, p) }},
	} {
		at := fldPath.Child(f.name)
		switch {
		case f.kind == s.Kind && f.set:
			errs = append(errs, f.of(at)...)
		case f.kind == s.Kind:
			errs = append(errs, field.Required(at, fmt.Sprintf("%s is required when subject kind is '%s'", f.name, f.kind)))
		case f.set:
			errs = append(errs, field.Forbidden(at, fmt.Sprintf("%s is forbidden when subject kind is not '%s'", f.name, f.kind)))
		}
	}
	return errs
}

func validateSubjectName(name string, fldPath *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(fldPath.Child("name"), "")}
	}
	return nil
}

func validateServiceAccount(s *v1.ServiceAccountSubject, fldPath *field.Path) field.ErrorList {
	errs := validateSubjectName(s.Name, fldPath)
	if s.Name != "" && s.Name != v1.NameAll {
		errs = append(errs, invalid(fldPath.Child("name"), s.Name, apivalidation.ValidateServiceAccountName(s.Name, false))...)
	}
	if s.Namespace == "" {
		return append(errs, field.Required(fldPath.Child("namespace"), "must specify namespace for service account"))
	}
	return append(errs, invalid(fldPath.Child("namespace"), s.Namespace, apivalidation.ValidateNamespaceName(s.Namespace, false))...)
}

// alone checks a list in which "*" may only be by itself.
func alone(list []string, fldPath *field.Path, empty, others string) field.ErrorList {
	switch {
	case len(list) == 0:
		return field.ErrorList{field.Required(fldPath, empty)}
	case len(list) > 1 && slices.Contains(list, "*"):
		return field.ErrorList{field.Invalid(fldPath, list, "if '*' is present, must not specify other "+others)}
	}
	return nil
}

func validateVerbs(list []string, fldPath *field.Path) field.ErrorList {
	errs := alone(list, fldPath, "verbs must contain at least one value", "verbs")
	if len(list) > 0 && !slices.Contains(list, v1.VerbAll) && !sets.New(verbs...).HasAll(list...) {
		errs = append(errs, field.NotSupported(fldPath, list, verbs))
	}
	return errs
}

func validateResourceRule(r *v1.ResourcePolicyRule, fldPath *field.Path) field.ErrorList {
	errs := validateVerbs(r.Verbs, fldPath.Child("verbs"))
	errs = append(errs, alone(r.APIGroups, fldPath.Child("apiGroups"), "resource rules must supply at least one api group", "api groups")...)
	errs = append(errs, alone(r.Resources, fldPath.Child("resources"), "resource rules must supply at least one resource", "resources")...)
	at := fldPath.Child("namespaces")
	if len(r.Namespaces) == 0 && r.ClusterScope {
		return errs
	}
	errs = append(errs, alone(r.Namespaces, at, "resource rules that are not cluster scoped must supply at least one namespace", "namespaces")...)
	if slices.Contains(r.Namespaces, v1.NamespaceEvery) {
		return errs
	}
	for i, ns := range r.Namespaces {
		for _, msg := range apivalidation.ValidateNamespaceName(ns, false) {
			errs = append(errs, field.Invalid(at.Index(i), ns, "each member of this list must be '*' or a DNS-1123 label; "+msg))
		}
	}
	return errs
}

func validateNonResourceRule(r *v1.NonResourcePolicyRule, fldPath *field.Path) field.ErrorList {
	errs := validateVerbs(r.Verbs, fldPath.Child("verbs"))
	at := fldPath.Child("nonResourceURLs")
	errs = append(errs, alone(r.NonResourceURLs, at, "nonResourceURLs must contain at least one value", "non-resource URLs")...)
	if slices.Contains(r.NonResourceURLs, v1.NonResourceAll) {
		return errs
	}
	for i, url := range r.NonResourceURLs {
		if msg := checkURL(url); msg != "" {
			errs = append(errs, field.Invalid(at.Index(i), url, msg))
		}
	}
	return errs
}

// checkURL returns what is wrong with a path, which may end in "/*".
func checkURL(url string) string {
	stars := strings.Count(url, "*")
	switch {
	case url == "":
		return "must not be empty"
	case url == "/":
		return ""
	case !strings.HasPrefix(url, "/"):
		return "must start with slash"
	case strings.Contains(url, " "):
		return "must not contain white-space"
	case strings.Contains(url, "//"):
		return "must not contain double slash"
	case stars > 1 || stars == 1 && !strings.HasSuffix(url, "/*"):
		return "wildcard can only do suffix matching"
	}
	return ""
}

func validateConditions[C any](list []C, typeOf func(C) string) field.ErrorList {
	var errs field.ErrorList
	seen := sets.New[string]()
	for i, c := range list {
		at, t := field.NewPath("status", "conditions").Index(i).Child("type"), typeOf(c)
		if seen.Has(t) {
			errs = append(errs, field.Duplicate(at, t))
		}
		seen.Insert(t)
		if t == "" {
			errs = append(errs, field.Required(at, "must not be empty"))
		}
	}
	return errs
}

func validatePriorityLevel(p *v1.PriorityLevelConfiguration) field.ErrorList {
	at, s := field.NewPath("spec"), &p.Spec
	var errs field.ErrorList
	if (p.Name == v1.PriorityLevelConfigurationNameExempt) != (s.Type == v1.PriorityLevelEnablementExempt) {
		errs = append(errs, field.Invalid(at.Child("type"), s.Type, "type must be 'Exempt' if and only if `name` is 'exempt'"))
	}
	switch s.Type {
	case "", v1.PriorityLevelEnablementExempt, v1.PriorityLevelEnablementLimited:
	default:
		errs = append(errs, field.NotSupported(at.Child("type"), s.Type, []v1.PriorityLevelEnablement{v1.PriorityLevelEnablementExempt, v1.PriorityLevelEnablementLimited}))
	}
	if e := s.Exempt; e != nil && s.Type == v1.PriorityLevelEnablementExempt {
		errs = append(errs, validateShares(e.NominalConcurrencyShares, e.LendablePercent, at.Child("exempt"))...)
	}
	if s.Limited != nil && s.Type == v1.PriorityLevelEnablementLimited {
		errs = append(errs, validateLimited(s.Limited, at.Child("limited"))...)
	}
	for _, m := range bootstrap.MandatoryPriorityLevelConfigurations {
		if m.Name != p.Name {
			continue
		}
		want, is, msg := m.Spec, *s, "spec of '%s' must equal the fixed value"
		if p.Name == v1.PriorityLevelConfigurationNameExempt {
			// How many seats it counts as using is for the user to say.
			want.Exempt, is.Exempt, msg = nil, nil, "spec of '%s' except the 'spec.exempt' field must equal the fixed value"
		}
		if !equality.Semantic.DeepEqual(want, is) {
			errs = append(errs, field.Invalid(at, *s, fmt.Sprintf(msg, p.Name)))
		}
	}
	return append(errs, validateConditions(p.Status.Conditions, func(c v1.PriorityLevelConfigurationCondition) string { return string(c.Type) })...)
}

func validateShares(shares, lendable *int32, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	if n := ptr.Deref(shares, 0); n < 0 {
		errs = append(errs, field.Invalid(fldPath.Child("nominalConcurrencyShares"), n, "must be a non-negative integer"))
	}
	if n := ptr.Deref(lendable, 0); n < 0 || n > 100 {
		errs = append(errs, field.Invalid(fldPath.Child("lendablePercent"), n, "must be between 0 and 100, inclusive"))
	}
	return errs
}

func validateLimited(l *v1.LimitedPriorityLevelConfiguration, fldPath *field.Path) field.ErrorList {
	errs := validateShares(l.NominalConcurrencyShares, l.LendablePercent, fldPath)
	if n := ptr.Deref(l.BorrowingLimitPercent, 0); n < 0 {
		errs = append(errs, field.Invalid(fldPath.Child("borrowingLimitPercent"), n, "if specified, must be a non-negative integer"))
	}
	at, response := fldPath.Child("limitResponse"), &l.LimitResponse
	switch response.Type {
	case "", v1.LimitResponseTypeReject, v1.LimitResponseTypeQueue:
	default:
		errs = append(errs, field.NotSupported(at.Child("type"), response.Type, []v1.LimitResponseType{v1.LimitResponseTypeQueue, v1.LimitResponseTypeReject}))
	}
	if response.Queuing != nil && response.Type == v1.LimitResponseTypeQueue {
		errs = append(errs, validateQueuing(response.Queuing, at.Child("queuing"))...)
	}
	return errs
}

func validateQueuing(q *v1.QueuingConfiguration, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	if q.QueueLengthLimit <= 0 {
		errs = append(errs, field.Invalid(fldPath.Child("queueLengthLimit"), q.QueueLengthLimit, "must be positive"))
	}
	if q.Queues <= 0 {
		errs = append(errs, field.Invalid(fldPath.Child("queues"), q.Queues, "must be positive"))
	} else if q.Queues > maxQueues {
		errs = append(errs, field.Invalid(fldPath.Child("queues"), q.Queues, fmt.Sprintf("must not be greater than %d", maxQueues)))
	}
	hand := fldPath.Child("handSize")
	switch {
	case q.HandSize <= 0:
		errs = append(errs, field.Invalid(hand, q.HandSize, "must be positive"))
	case q.HandSize > q.Queues:
		errs = append(errs, field.Invalid(hand, q.HandSize, fmt.Sprintf("should not be greater than queues (%d)", q.Queues)))
	default:
		if bits := shufflesharding.RequiredEntropyBits(int(q.Queues), int(q.HandSize)); bits > maxEntropyBits {
			errs = append(errs, field.Invalid(hand, q.HandSize, fmt.Sprintf("required entropy bits of deckSize %d and handSize %d should not be greater than %d", q.Queues, q.HandSize, maxEntropyBits)))
		}
	}
	return errs
}
