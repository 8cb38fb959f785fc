package authz

import (
	"slices"
	"testing"

	v1 "k8s.io/api/rbac/v1"
)

// TestDescribe has the rules as component-helpers' validation breaks them down.
func TestDescribe(t *testing.T) {
	one := func(verb, group, resource string, names ...string) v1.PolicyRule {
		return v1.PolicyRule{Verbs: []string{verb}, APIGroups: []string{group}, Resources: []string{resource}, ResourceNames: names}
	}
	got := describe([]v1.PolicyRule{
		one("get", "", "secrets"), one("get", "", "pods"), one("list", "", "pods"), one("watch", "", "pods"),
		one("get", "", "pods", "a"), one("list", "", "pods", "a"), one("get", "", "pods", "b"), one("get", "apps", "pods"),
		{Verbs: []string{"get"}, NonResourceURLs: []string{"/metrics"}},
	})
	want := []string{
		`{APIGroups:[""], Resources:["pods"], ResourceNames:["a"], Verbs:["get" "list"]}`,
		`{APIGroups:[""], Resources:["pods"], ResourceNames:["b"], Verbs:["get"]}`,
		`{APIGroups:[""], Resources:["pods"], Verbs:["get" "list" "watch"]}`,
		`{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}`,
		`{APIGroups:["apps"], Resources:["pods"], Verbs:["get"]}`,
		`{NonResourceURLs:["/metrics"], Verbs:["get"]}`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("described as\n%q\nwant\n%q", got, want)
	}
}
