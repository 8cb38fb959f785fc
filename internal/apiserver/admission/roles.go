package admission

import (
	"context"
	"errors"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	genericrequest "k8s.io/apiserver/pkg/endpoints/request"
)

// Grants checks the rights that a user holds.
type Grants interface {
	Covers(u user.Info, namespace string, rules []rbacv1.PolicyRule) error
	Rules(ref rbacv1.RoleRef, namespace string) ([]rbacv1.PolicyRule, error)
}

// roleEscalation refuses to grant rights that the user does not hold, unless the user
// may "escalate" the role or "bind" it. Upstream checks it in the roles' storage.
type roleEscalation struct {
	grants     Grants
	authorizer authorizer.Authorizer
}

func newRoleEscalation(e *Environment) *plain {
	r := roleEscalation{e.Grants, e.Authorizer}
	f := onRequest(r.validate)
	f.concerns = func(a admission.Attributes) bool { return a.GetResource().Group == rbacv1.GroupName }
	return validates(f, admission.Create, admission.Update)
}

// may asks whether the request's user may verb the named role.
func (r roleEscalation) may(ctx context.Context, a admission.Attributes, verb, resource, namespace, name string) bool {
	d, _, _ := r.authorizer.Authorize(ctx, authorizer.AttributesRecord{
		User: a.GetUserInfo(), Verb: verb, Namespace: namespace, APIGroup: rbacv1.GroupName, APIVersion: "*", Resource: resource, Name: name, ResourceRequest: true})
	return d == authorizer.DecisionAllow
}

// fullAuthority holds the rules of a user with all rights.
var fullAuthority = []rbacv1.PolicyRule{
	{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}},
	{Verbs: []string{"*"}, NonResourceURLs: []string{"*"}},
}

// validate checks all rules of a role with every change of it, and not those that the change adds: a label is enough to have a
// role aggregated into another.
func (r roleEscalation) validate(ctx context.Context, a admission.Attributes) error {
	if onlyCollection(a.GetObject(), a.GetOldObject()) {
		return nil
	}
	if a.GetUserInfo() == nil {
		return admission.NewForbidden(a, errors.New("no user on request"))
	}
	// A role that is yet to be created has no name to be allowed to escalate.
	name := a.GetName()
	if info, ok := genericrequest.RequestInfoFrom(ctx); ok {
		name = info.Name
	}
	var err error
	switch o := a.GetObject().(type) {
	case *rbacv1.Role:
		if r.may(ctx, a, "escalate", "roles", o.Namespace, name) {
			return nil
		}
		err = r.grants.Covers(a.GetUserInfo(), o.Namespace, o.Rules)
	case *rbacv1.ClusterRole:
		if r.may(ctx, a, "escalate", "clusterroles", "", name) {
			return nil
		}
		old, _ := a.GetOldObject().(*rbacv1.ClusterRole)
		err = r.grants.Covers(a.GetUserInfo(), "", o.Rules)
		// An aggregation rule gathers any role, and restores rules that a user
		// removes.
		if err == nil && (aggregates(o) || aggregates(old)) && r.grants.Covers(a.GetUserInfo(), "", fullAuthority) != nil {
			err = errors.New("must have cluster-admin privileges to use the aggregationRule")
		}
	case *rbacv1.RoleBinding:
		err = r.binding(ctx, a, o.RoleRef, o.Namespace)
	case *rbacv1.ClusterRoleBinding:
		err = r.binding(ctx, a, o.RoleRef, "")
	}
	if err == nil || apierrors.IsNotFound(err) {
		return err
	}
	return apierrors.NewForbidden(a.GetResource().GroupResource(), a.GetName(), err)
}

func aggregates(o *rbacv1.ClusterRole) bool {
	return o != nil && o.AggregationRule != nil && len(o.AggregationRule.ClusterRoleSelectors) > 0
}

// onlyCollection reports whether a change is one of owners and finalizers alone, which
// the garbage collector makes: it grants nothing.
func onlyCollection(obj, old runtime.Object) bool {
	if obj == nil || old == nil {
		return false
	}
	same := obj.DeepCopyObject()
	acc, err := meta.Accessor(same)
	if err != nil {
		return false
	}
	oldAcc, err := meta.Accessor(old)
	if err != nil {
		return false
	}
	acc.SetOwnerReferences(oldAcc.GetOwnerReferences())
	acc.SetFinalizers(oldAcc.GetFinalizers())
	acc.SetManagedFields(oldAcc.GetManagedFields()) // which follow from the change
	acc.SetSelfLink(oldAcc.GetSelfLink())
	return equality.Semantic.DeepEqual(same, old)
}

// binding checks that the user holds the rules of the role that is bound, or
// may bind it.
func (r roleEscalation) binding(ctx context.Context, a admission.Attributes, ref rbacv1.RoleRef, namespace string) error {
	resource := "clusterroles"
	if ref.Kind == "Role" {
		resource = "roles"
	}
	if r.may(ctx, a, "bind", resource, namespace, ref.Name) {
		return nil
	}
	rules, err := r.grants.Rules(ref, namespace)
	if err != nil {
		return err
	}
	return r.grants.Covers(a.GetUserInfo(), namespace, rules)
}
