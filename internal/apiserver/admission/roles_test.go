package admission

import (
	"context"
	"errors"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	genericrequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/component-helpers/auth/rbac/validation"
)

// holds has the rules that every user holds, and the rules of every role.
type holds struct{ own, role []rbacv1.PolicyRule }

func (h holds) Covers(_ user.Info, _ string, rules []rbacv1.PolicyRule) error {
	if ok, _ := validation.Covers(h.own, rules); !ok {
		return errors.New("attempting to grant RBAC permissions not currently held")
	}
	return nil
}

func (h holds) Rules(ref rbacv1.RoleRef, _ string) ([]rbacv1.PolicyRule, error) {
	if ref.Name == "none" {
		return nil, apierrors.NewNotFound(rbacv1.Resource("roles"), "none")
	}
	return h.role, nil
}

// TestRoleEscalation checks that a change of a role or binding needs all
// permissions that it grants, whichever fields have changed, except those that
// the garbage collector changes.
func TestRoleEscalation(t *testing.T) {
	pods := []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"get"}}}
	secrets := []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"get"}}}
	meta := metav1.ObjectMeta{Name: "r", Namespace: "ns"}
	labelled := func(m metav1.ObjectMeta) metav1.ObjectMeta { m.Labels = map[string]string{"a": "b"}; return m }
	annotated := func(m metav1.ObjectMeta) metav1.ObjectMeta { m.Annotations = map[string]string{"a": "b"}; return m }
	held := func(m metav1.ObjectMeta) metav1.ObjectMeta { m.Finalizers = []string{"a/b"}; return m }
	owned := func(m metav1.ObjectMeta) metav1.ObjectMeta {
		m.OwnerReferences, m.ManagedFields = []metav1.OwnerReference{{Name: "o"}}, []metav1.ManagedFieldsEntry{{Manager: "gc"}}
		return m
	}
	role := func(m metav1.ObjectMeta, rules []rbacv1.PolicyRule) *rbacv1.Role {
		return &rbacv1.Role{ObjectMeta: m, Rules: rules}
	}
	cluster := func(m metav1.ObjectMeta, rules []rbacv1.PolicyRule, selectors ...metav1.LabelSelector) *rbacv1.ClusterRole {
		m.Namespace = ""
		r := &rbacv1.ClusterRole{ObjectMeta: m, Rules: rules}
		if selectors != nil {
			r.AggregationRule = &rbacv1.AggregationRule{ClusterRoleSelectors: selectors}
		}
		return r
	}
	subject := []rbacv1.Subject{{Kind: "User", Name: "u"}}
	binding := func(m metav1.ObjectMeta, role string, s ...rbacv1.Subject) *rbacv1.RoleBinding {
		return &rbacv1.RoleBinding{ObjectMeta: m, RoleRef: rbacv1.RoleRef{Kind: "Role", Name: role}, Subjects: s}
	}
	clusterBinding := func(m metav1.ObjectMeta, s ...rbacv1.Subject) *rbacv1.ClusterRoleBinding {
		m.Namespace = ""
		return &rbacv1.ClusterRoleBinding{ObjectMeta: m, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "r"}, Subjects: s}
	}
	any1 := metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}
	const grants, aggregation = "not currently held", "must have cluster-admin privileges to use the aggregationRule"
	for _, c := range []struct {
		name     string
		own      []rbacv1.PolicyRule
		old, obj runtime.Object
		may      string // verb resource namespace/name that is allowed
		create   bool   // the request has no name
		want     string
	}{
		{name: "role of what is held", own: pods, obj: role(meta, pods)},
		{name: "role of more", own: pods, obj: role(meta, secrets), want: grants},
		{name: "a label", own: pods, old: role(meta, secrets), obj: role(labelled(meta), secrets), want: grants},
		{name: "an annotation", own: pods, old: role(meta, secrets), obj: role(annotated(meta), secrets), want: grants},
		{name: "a finalizer", own: pods, old: role(meta, secrets), obj: role(held(meta), secrets)},
		{name: "an owner", own: pods, old: role(owned(meta), secrets), obj: role(meta, secrets)},
		{name: "an owner and a label", own: pods, old: role(owned(meta), secrets), obj: role(labelled(meta), secrets), want: grants},
		{name: "fewer rules, still more than held", own: pods, old: role(meta, append(secrets, pods...)), obj: role(meta, secrets), want: grants},
		{name: "allowed to escalate", own: pods, old: role(meta, pods), obj: role(meta, secrets), may: "escalate roles ns/r"},
		{name: "allowed to escalate another", own: pods, old: role(meta, pods), obj: role(meta, secrets), may: "escalate roles ns/other", want: grants},
		{name: "allowed to escalate a role of that name, before it exists", own: pods, obj: role(meta, secrets), may: "escalate roles ns/r", create: true, want: grants},
		{name: "allowed to escalate all", own: pods, obj: role(meta, secrets), may: "escalate roles ns/", create: true},

		{name: "cluster role of more", own: pods, obj: cluster(meta, secrets), want: grants},
		{name: "a cluster role's label", own: pods, old: cluster(meta, secrets), obj: cluster(labelled(meta), secrets), want: grants},
		{name: "a cluster role's owner", own: pods, old: cluster(meta, secrets), obj: cluster(owned(meta), secrets)},
		{name: "aggregation without all", own: pods, obj: cluster(meta, nil, any1), want: aggregation},
		{name: "aggregation with all", own: fullAuthority, obj: cluster(meta, nil, any1)},
		{name: "aggregation with all resources", own: fullAuthority[:1], obj: cluster(meta, nil, any1), want: aggregation},
		{name: "aggregation that ends", own: pods, old: cluster(meta, pods, any1), obj: cluster(meta, pods), want: aggregation},
		{name: "aggregation that begins", own: pods, old: cluster(meta, pods), obj: cluster(meta, pods, any1), want: aggregation},
		{name: "a label of one that aggregates", own: pods, old: cluster(meta, pods, any1), obj: cluster(labelled(meta), pods, any1), want: aggregation},
		{name: "aggregation of more", own: pods, obj: cluster(meta, secrets, any1), want: grants},
		{name: "aggregation of nothing", own: pods, obj: &rbacv1.ClusterRole{Rules: pods, AggregationRule: &rbacv1.AggregationRule{}}},
		{name: "allowed to escalate cluster roles", own: pods, obj: cluster(meta, secrets, any1), may: "escalate clusterroles /r"},

		{name: "binding of what is not held", own: pods, obj: binding(meta, "r", subject...), want: grants},
		{name: "binding of what is held", own: secrets, obj: binding(meta, "r", subject...)},
		{name: "a binding's label", own: pods, old: binding(meta, "r", subject...), obj: binding(labelled(meta), "r", subject...), want: grants},
		{name: "a binding's finalizer", own: pods, old: binding(held(meta), "r", subject...), obj: binding(meta, "r", subject...)},
		{name: "allowed to bind", own: pods, obj: binding(meta, "r", subject...), may: "bind roles ns/r"},
		{name: "binding of no role", own: pods, obj: binding(meta, "none", subject...), want: `"none" not found`},
		{name: "cluster binding of what is not held", own: pods, obj: clusterBinding(meta, subject...), want: grants},
		{name: "a cluster binding's label", own: pods, old: clusterBinding(meta, subject...), obj: clusterBinding(labelled(meta), subject...), want: grants},
		{name: "allowed to bind in the cluster", own: pods, obj: clusterBinding(meta, subject...), may: "bind clusterroles /r"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRoleEscalation(&Environment{Grants: holds{c.own, secrets}, Authorizer: authorizer.AuthorizerFunc(func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
				if a.GetVerb()+" "+a.GetResource()+" "+a.GetNamespace()+"/"+a.GetName() == c.may && a.GetAPIGroup() == rbacv1.GroupName {
					return authorizer.DecisionAllow, "", nil
				}
				return authorizer.DecisionNoOpinion, "", nil
			})})
			op, info := admission.Update, &genericrequest.RequestInfo{Name: "r"}
			if c.old == nil {
				op = admission.Create
			}
			if c.create {
				info.Name = ""
			}
			a := admission.NewAttributesRecord(c.obj, c.old, rbacv1.SchemeGroupVersion.WithKind("X"), "ns", "r", rbacv1.SchemeGroupVersion.WithResource("x"), "", op, nil, false, &user.DefaultInfo{Name: "u"})
			err := r.Validate(genericrequest.WithRequestInfo(t.Context(), info), a, nil)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}
