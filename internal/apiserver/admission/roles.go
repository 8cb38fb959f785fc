package admission

import (
	"context"
	"errors"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// Grants says what a user holds.
type Grants interface {
	Covers(u user.Info, namespace string, rules []rbacv1.PolicyRule) error
	Rules(ref rbacv1.RoleRef, namespace string) ([]rbacv1.PolicyRule, error)
}

// RoleEscalation lets nobody grant what they do not hold, unless they may
// "escalate" the role or "bind" it. Upstream checks it in the roles' storage.
type RoleEscalation struct {
	*admission.Handler
	Grants     Grants
	Authorizer authorizer.Authorizer
}

// NewRoleEscalation makes the plug-in.
func NewRoleEscalation(g Grants, a authorizer.Authorizer) *RoleEscalation {
	return &RoleEscalation{admission.NewHandler(admission.Create, admission.Update), g, a}
}

func (r *RoleEscalation) may(ctx context.Context, a admission.Attributes, verb, resource, name string) bool {
	d, _, _ := r.Authorizer.Authorize(ctx, authorizer.AttributesRecord{
		User: a.GetUserInfo(), Verb: verb, Namespace: a.GetNamespace(), APIGroup: rbacv1.GroupName, APIVersion: "v1", Resource: resource, Name: name, ResourceRequest: true})
	return d == authorizer.DecisionAllow
}

// Validate implements admission.ValidationInterface.
func (r *RoleEscalation) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if a.GetResource().Group != rbacv1.GroupName {
		return nil
	}
	var err error
	switch o := a.GetObject().(type) {
	case *rbacv1.Role:
		if old, ok := a.GetOldObject().(*rbacv1.Role); ok && equality.Semantic.DeepEqual(old.Rules, o.Rules) || r.may(ctx, a, "escalate", "roles", o.Name) {
			return nil
		}
		err = r.Grants.Covers(a.GetUserInfo(), o.Namespace, o.Rules)
	case *rbacv1.ClusterRole:
		if old, ok := a.GetOldObject().(*rbacv1.ClusterRole); ok && equality.Semantic.DeepEqual(old.Rules, o.Rules) && equality.Semantic.DeepEqual(old.AggregationRule, o.AggregationRule) ||
			r.may(ctx, a, "escalate", "clusterroles", o.Name) {
			return nil
		}
		rules := o.Rules
		if o.AggregationRule != nil {
			// What will be aggregated is not known: only who holds everything may.
			rules = []rbacv1.PolicyRule{{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}}, {Verbs: []string{"*"}, NonResourceURLs: []string{"*"}}}
		}
		err = r.Grants.Covers(a.GetUserInfo(), "", rules)
	case *rbacv1.RoleBinding:
		if old, ok := a.GetOldObject().(*rbacv1.RoleBinding); ok && equality.Semantic.DeepEqual(old.Subjects, o.Subjects) && old.RoleRef == o.RoleRef {
			return nil
		}
		err = r.binding(ctx, a, o.RoleRef, o.Namespace)
	case *rbacv1.ClusterRoleBinding:
		if old, ok := a.GetOldObject().(*rbacv1.ClusterRoleBinding); ok && equality.Semantic.DeepEqual(old.Subjects, o.Subjects) && old.RoleRef == o.RoleRef {
			return nil
		}
		err = r.binding(ctx, a, o.RoleRef, "")
	}
	if err != nil {
		if apierrors.IsNotFound(err) {
			return err
		}
		return apierrors.NewForbidden(a.GetResource().GroupResource(), a.GetName(), err)
	}
	return nil
}

func (r *RoleEscalation) binding(ctx context.Context, a admission.Attributes, ref rbacv1.RoleRef, namespace string) error {
	resource := "clusterroles"
	if ref.Kind == "Role" {
		resource = "roles"
	}
	if a.GetUserInfo() == nil {
		return errors.New("no user on request")
	}
	if r.may(ctx, a, "bind", resource, ref.Name) {
		return nil
	}
	rules, err := r.Grants.Rules(ref, namespace)
	if err != nil {
		return err
	}
	return r.Grants.Covers(a.GetUserInfo(), namespace, rules)
}
