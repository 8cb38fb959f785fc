package manager

import (
	"slices"
	"testing"

	rbac "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/internal/apiserver/authz"
)

// rulesOf returns the rules of the roles that an account of kube-system has somewhere.
func rulesOf(account string) (rules []rbac.PolicyRule) {
	roles := map[string][]rbac.PolicyRule{}
	for _, o := range authz.Bootstrap() {
		switch r := o.(type) {
		case *rbac.ClusterRole:
			roles["/"+r.Name] = r.Rules
		case *rbac.Role:
			roles[r.Namespace+"/"+r.Name] = r.Rules
		}
	}
	for _, o := range authz.Bootstrap() {
		var subjects []rbac.Subject
		key := ""
		switch b := o.(type) {
		case *rbac.ClusterRoleBinding:
			subjects, key = b.Subjects, "/"+b.RoleRef.Name
		case *rbac.RoleBinding:
			subjects, key = b.Subjects, b.Namespace+"/"+b.RoleRef.Name
		}
		if slices.ContainsFunc(subjects, func(s rbac.Subject) bool {
			return s.Kind == rbac.ServiceAccountKind && s.Namespace == metav1.NamespaceSystem && s.Name == account
		}) {
			rules = append(rules, roles[key]...)
		}
	}
	return rules
}

// TestEventsAreAllowed checks that the account by which each controller's events are
// written is the controller's own, and may write them.
func TestEventsAreAllowed(t *testing.T) {
	components := map[string]string{}
	for i := range table {
		row := &table[i]
		if other, ok := components[row.Component()]; ok && other != row.Identity {
			t.Errorf("events of %q are written by %q and %q", row.Component(), other, row.Identity)
		}
		components[row.Component()] = row.Identity
		if row.Identity == "tokens-controller" {
			continue // it acts as the controller manager itself, and writes none
		}
		for _, verb := range []string{"create", "patch", "update"} {
			for _, group := range []string{"", "events.k8s.io"} {
				if !slices.ContainsFunc(rulesOf(row.Identity), func(r rbac.PolicyRule) bool {
					return slices.Contains(r.Verbs, verb) && slices.Contains(r.APIGroups, group) && slices.Contains(r.Resources, "events")
				}) {
					t.Errorf("%s: its account %q may not %s events of %q", row.Name, row.Identity, verb, group)
				}
			}
		}
	}
}
