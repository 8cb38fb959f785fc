package seed

import (
	v1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/apiserver/authz"
	"keelson.dev/keelson/internal/apiserver/priority"
)

// Objects returns the objects of every new cluster: namespaces, priority classes,
// the policy of RBAC, flow schemas and priority levels, and the ServiceCIDR of
// the ranges.
func Objects(ranges ...string) ([]runtime.Object, error) {
	var objs []runtime.Object
	for _, ns := range []string{metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic, v1.NamespaceNodeLease} {
		objs = append(objs, &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}})
	}
	class := func(name, description string, value int32) *schedulingv1.PriorityClass {
		return &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Value: value, Description: description, PreemptionPolicy: ptr.To(v1.PreemptLowerPriority)}
	}
	objs = append(objs,
		class("system-cluster-critical", "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.", 2_000_000_000),
		class("system-node-critical", "Used for system critical pods that must not be moved from their current node.", 2_000_001_000),
		&networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: ranges}})
	objs = append(objs, priority.Objects()...)
	policy, err := policyObjects()
	return append(objs, policy...), err
}

// policyObjects returns the policy of RBAC, with the rules of aggregated roles.
func policyObjects() ([]runtime.Object, error) {
	policy := authz.Bootstrap()
	var roles []*rbacv1.ClusterRole
	for _, o := range policy {
		if r, ok := o.(*rbacv1.ClusterRole); ok {
			roles = append(roles, r)
		}
	}
	// view goes into edit, and edit into admin, so the order is from the parts up.
	for _, name := range []string{"view", "edit", "admin"} {
		for _, r := range roles {
			if r.Name == name {
				rules, err := authz.Aggregate(r, roles)
				if err != nil {
					return nil, err
				}
				r.Rules = rules
			}
		}
	}
	return policy, nil
}
