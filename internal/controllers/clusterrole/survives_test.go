package clusterrole

import (
	"strings"
	"testing"

	v1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/internal/controllers/controllertest"
)

// TestSurvives checks that a role has in the end the rules of the roles that it selects,
// among them one that is made of others itself.
func TestSurvives(t *testing.T) {
	rule := func(verb string) v1.PolicyRule { return v1.PolicyRule{Verbs: []string{verb}} }
	role := func(name, label string, verbs ...string) *v1.ClusterRole {
		r := &v1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{label: ""}}}
		for _, v := range verbs {
			r.Rules = append(r.Rules, rule(v))
		}
		return r
	}
	of := func(name, label, selects string) *v1.ClusterRole {
		r := role(name, label)
		r.AggregationRule = &v1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: selects, Operator: metav1.LabelSelectorOpExists}}}}}
		return r
	}
	controllertest.Trial{
		Seeds: 200, Controllers: []controllertest.Constructor{New},
		World: []controllertest.Object{of("all", "x", "to-all"), of("some", "to-all", "to-some"), role("a", "to-some", "get")},
		Actions: []controllertest.Action{
			controllertest.Creates(role("b", "to-some", "list"), role("c", "to-all", "watch")),
			controllertest.Edits("", "a", func(r *v1.ClusterRole) { r.Rules = []v1.PolicyRule{rule("create")} }),
			controllertest.Then(controllertest.Removes[*v1.ClusterRole]("", "b"), controllertest.Edits("", "c", func(r *v1.ClusterRole) { r.Labels = nil })),
			controllertest.Edits("", "some", func(r *v1.ClusterRole) { r.Rules = nil }),
		},
		End: controllertest.Are("", func(r *v1.ClusterRole) string {
			if r.AggregationRule == nil {
				return ""
			}
			var verbs []string
			for i := range r.Rules {
				verbs = append(verbs, r.Rules[i].Verbs...)
			}
			return r.Name + ": " + strings.Join(verbs, " ")
		}, "all: create", "some: create"),
	}.Survives(t)
}
