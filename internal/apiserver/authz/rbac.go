package authz

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/labels"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	informers "k8s.io/client-go/informers/rbac/v1"
	listers "k8s.io/client-go/listers/rbac/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/component-helpers/auth/rbac/validation"
)

// RBAC authorizes by roles and bindings.
type RBAC struct {
	roles        listers.RoleLister
	clusterRoles listers.ClusterRoleLister
	bindings     cache.Indexer
	clusterBinds cache.Indexer
}

var (
	_ authorizer.Authorizer   = (*RBAC)(nil)
	_ authorizer.RuleResolver = (*RBAC)(nil)
)

const bySubject = "subject"

// NewRBAC makes an authorizer on the informers of the group; it indexes their
// bindings by subject, so it has to be made before they start.
func NewRBAC(i informers.Interface) (*RBAC, error) {
	rb, crb := i.RoleBindings().Informer(), i.ClusterRoleBindings().Informer()
	err := errors.Join(
		rb.AddIndexers(cache.Indexers{bySubject: func(o any) ([]string, error) {
			b := o.(*v1.RoleBinding)
			return subjectKeys(b.Subjects, b.Namespace, b.Namespace+"|"), nil
		}}),
		crb.AddIndexers(cache.Indexers{bySubject: func(o any) ([]string, error) {
			return subjectKeys(o.(*v1.ClusterRoleBinding).Subjects, "", ""), nil
		}}),
	)
	return &RBAC{roles: i.Roles().Lister(), clusterRoles: i.ClusterRoles().Lister(), bindings: rb.GetIndexer(), clusterBinds: crb.GetIndexer()}, err
}

// subjectKeys returns the names that a binding's subjects go by: users as u:name,
// groups as g:name; a service account is its user name.
func subjectKeys(subjects []v1.Subject, namespace, prefix string) []string {
	out := make([]string, 0, len(subjects))
	for _, s := range subjects {
		switch s.Kind {
		case v1.UserKind:
			out = append(out, prefix+"u:"+s.Name)
		case v1.GroupKind:
			out = append(out, prefix+"g:"+s.Name)
		case v1.ServiceAccountKind:
			ns := s.Namespace
			if ns == "" {
				ns = namespace
			}
			if ns != "" {
				out = append(out, prefix+"u:"+serviceaccount.MakeUsername(ns, s.Name))
			}
		}
	}
	return out
}

// bound is how a user has a role.
type bound struct {
	role      v1.RoleRef
	namespace string // of the binding; empty for a cluster's
	binding   string
	subject   string // u:name or g:name
}

// String returns upstream's text for the binding.
func (b bound) String() string {
	kind, binding := "ClusterRoleBinding", b.binding
	if b.namespace != "" {
		kind, binding = "RoleBinding", b.binding+"/"+b.namespace
	}
	subject := "User \""
	if name, ok := strings.CutPrefix(b.subject, "g:"); ok {
		subject = "Group \"" + name
	} else if ns, name, err := serviceaccount.SplitUsername(b.subject[2:]); err == nil {
		subject = "ServiceAccount \"" + name + "/" + ns
	} else {
		subject += b.subject[2:]
	}
	return kind + " \"" + binding + "\" of " + b.role.Kind + " \"" + b.role.Name + "\" to " + subject + "\""
}

// visit calls f with the rules of every role bound to u that holds in namespace,
// until f returns false. f also gets the binding and the name or group of u that
// it binds. Bindings and roles that were changed after the revision since, if that is not
// 0, are passed over.
func (r *RBAC) visit(u user.Info, namespace string, since int64, f func(rule v1.PolicyRule, by bound) bool) (errs []error) {
	seen := map[string]bool{}
	try := func(ref v1.RoleRef, ns, binding, subject string) bool {
		key := ref.Kind + "/" + ns + "/" + ref.Name
		if seen[key] {
			return true
		}
		seen[key] = true
		rules, version, err := r.rules(ref, ns)
		if err != nil {
			errs = append(errs, err)
			return true
		}
		if !unchanged(version, since) {
			return true
		}
		for i := range rules {
			if !f(rules[i], bound{ref, ns, binding, subject}) {
				return false
			}
		}
		return true
	}
	keys := make([]string, 0, 1+len(u.GetGroups()))
	keys = append(keys, "u:"+u.GetName())
	for _, g := range u.GetGroups() {
		keys = append(keys, "g:"+g)
	}
	for _, k := range keys {
		objs, _ := r.clusterBinds.ByIndex(bySubject, k)
		for _, o := range objs {
			b := o.(*v1.ClusterRoleBinding)
			if unchanged(b.ResourceVersion, since) && !try(b.RoleRef, "", b.Name, k) {
				return errs
			}
		}
	}
	if namespace == "" {
		return errs
	}
	for _, k := range keys {
		objs, _ := r.bindings.ByIndex(bySubject, namespace+"|"+k)
		for _, o := range objs {
			b := o.(*v1.RoleBinding)
			if unchanged(b.ResourceVersion, since) && !try(b.RoleRef, namespace, b.Name, k) {
				return errs
			}
		}
	}
	return errs
}

// rules returns the rules of a role, and its resourceVersion.
func (r *RBAC) rules(ref v1.RoleRef, namespace string) (rules []v1.PolicyRule, version string, err error) {
	if ref.Kind == "Role" {
		role, err := r.roles.Roles(namespace).Get(ref.Name)
		if err != nil {
			return nil, "", err
		}
		return role.Rules, role.ResourceVersion, nil
	}
	role, err := r.clusterRoles.Get(ref.Name)
	if err != nil {
		return nil, "", err
	}
	return role.Rules, role.ResourceVersion, nil
}

// Authorize implements authorizer.Authorizer.
func (r *RBAC) Authorize(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	u := a.GetUser()
	if u == nil {
		return authorizer.DecisionNoOpinion, "", nil
	}
	if slices.Contains(u.GetGroups(), user.SystemPrivilegedGroup) {
		return authorizer.DecisionAllow, "", nil
	}
	reason, allowed := "", false
	errs := r.visit(u, a.GetNamespace(), sinceFrom(ctx), func(rule v1.PolicyRule, by bound) bool {
		if allowed = allows(a, &rule); allowed {
			reason = "RBAC: allowed by " + by.String()
		}
		return !allowed
	})
	if allowed {
		return authorizer.DecisionAllow, reason, nil
	}
	if len(errs) > 0 {
		reason = fmt.Sprintf("RBAC: %v", utilerrors.NewAggregate(errs))
	}
	return authorizer.DecisionNoOpinion, reason, nil
}

func contains(list []string, wanted, all string) bool {
	for _, s := range list {
		if s == all || s == wanted {
			return true
		}
	}
	return false
}

func allows(a authorizer.Attributes, rule *v1.PolicyRule) bool {
	if !contains(rule.Verbs, a.GetVerb(), v1.VerbAll) {
		return false
	}
	if !a.IsResourceRequest() {
		for _, u := range rule.NonResourceURLs {
			if u == v1.NonResourceAll || u == a.GetPath() || strings.HasSuffix(u, "*") && strings.HasPrefix(a.GetPath(), strings.TrimRight(u, "*")) {
				return true
			}
		}
		return false
	}
	if !contains(rule.APIGroups, a.GetAPIGroup(), v1.APIGroupAll) {
		return false
	}
	resource, sub := a.GetResource(), a.GetSubresource()
	combined := resource
	if sub != "" {
		combined += "/" + sub
	}
	ok := contains(rule.Resources, combined, v1.ResourceAll) || sub != "" && slices.Contains(rule.Resources, "*/"+sub)
	return ok && (len(rule.ResourceNames) == 0 || slices.Contains(rule.ResourceNames, a.GetName()))
}

// RulesFor implements authorizer.RuleResolver.
func (r *RBAC) RulesFor(_ context.Context, u user.Info, namespace string) ([]authorizer.ResourceRuleInfo, []authorizer.NonResourceRuleInfo, bool, error) {
	var res []authorizer.ResourceRuleInfo
	var non []authorizer.NonResourceRuleInfo
	if slices.Contains(u.GetGroups(), user.SystemPrivilegedGroup) {
		res = append(res, &authorizer.DefaultResourceRuleInfo{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}})
		non = append(non, &authorizer.DefaultNonResourceRuleInfo{Verbs: []string{"*"}, NonResourceURLs: []string{"*"}})
	}
	errs := r.visit(u, namespace, 0, func(rule v1.PolicyRule, _ bound) bool {
		if len(rule.Resources) > 0 {
			res = append(res, &authorizer.DefaultResourceRuleInfo{Verbs: rule.Verbs, APIGroups: rule.APIGroups, Resources: rule.Resources, ResourceNames: rule.ResourceNames})
		}
		if len(rule.NonResourceURLs) > 0 {
			non = append(non, &authorizer.DefaultNonResourceRuleInfo{Verbs: rule.Verbs, NonResourceURLs: rule.NonResourceURLs})
		}
		return true
	})
	return res, non, false, utilerrors.NewAggregate(errs)
}

// Covers checks that u already has all of rules in namespace, so that granting
// them gives no one more than u has: upstream's escalation check.
func (r *RBAC) Covers(u user.Info, namespace string, rules []v1.PolicyRule) error {
	if slices.Contains(u.GetGroups(), user.SystemPrivilegedGroup) {
		return nil
	}
	var own []v1.PolicyRule
	errs := r.visit(u, namespace, 0, func(rule v1.PolicyRule, _ bound) bool {
		own = append(own, rule)
		return true
	})
	if ok, missing := validation.Covers(own, rules); !ok {
		msg := fmt.Sprintf("user %q (groups=%q) is attempting to grant RBAC permissions not currently held:\n%s", u.GetName(), u.GetGroups(), strings.Join(describe(missing), "\n"))
		if len(errs) > 0 {
			msg += fmt.Sprintf("; resolution errors: %v", errs)
		}
		return errors.New(msg)
	}
	return nil
}

// Rules returns the rules that a role reference stands for.
func (r *RBAC) Rules(ref v1.RoleRef, namespace string) ([]v1.PolicyRule, error) {
	rules, _, err := r.rules(ref, namespace)
	return rules, err
}

// Aggregate returns the union of the rules of the cluster roles that role's
// aggregation rule selects.
func Aggregate(role *v1.ClusterRole, all []*v1.ClusterRole) ([]v1.PolicyRule, error) {
	var out []v1.PolicyRule
	for i := range role.AggregationRule.ClusterRoleSelectors {
		sel, err := metaSelector(&role.AggregationRule.ClusterRoleSelectors[i])
		if err != nil {
			return nil, err
		}
		for _, c := range all {
			if c.Name == role.Name || !sel.Matches(labels.Set(c.Labels)) {
				continue
			}
			for _, rule := range c.Rules {
				if !slices.ContainsFunc(out, func(r v1.PolicyRule) bool { return equalRules(r, rule) }) {
					out = append(out, rule)
				}
			}
		}
	}
	return out, nil
}

// ConditionsAwareAuthorize implements authorizer.Authorizer.
func (r *RBAC) ConditionsAwareAuthorize(ctx context.Context, a authorizer.Attributes) authorizer.ConditionsAwareDecision {
	return authorizer.ConditionsAwareDecisionFromParts(r.Authorize(ctx, a))
}

// EvaluateConditions implements authorizer.Authorizer: RBAC has no conditions.
func (r *RBAC) EvaluateConditions(context.Context, authorizer.ConditionsAwareDecision, authorizer.ConditionsData) (authorizer.Decision, string, error) {
	return authorizer.DecisionDeny, "", authorizer.ErrorConditionEvaluationNotSupported
}
