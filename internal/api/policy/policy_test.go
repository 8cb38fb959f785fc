package policy

import (
	"testing"

	v1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"keelson.dev/keelson/internal/api/rowtest"
)

func TestPodDisruptionBudgets(t *testing.T) {
	budget := func(spec string) string { return `{metadata: {name: b, generation: 1}, spec: {` + spec + `}}` }
	expressions := func(want int) func(*testing.T, runtime.Object) {
		return func(t *testing.T, obj runtime.Object) {
			if s := obj.(*v1.PodDisruptionBudget).Spec.Selector; len(s.MatchExpressions) != want {
				t.Errorf("the selector is %+v", s)
			}
		}
	}
	rowtest.Run(t, Resources()[0], []rowtest.Case{
		{Name: "empty", Object: budget(``)},
		{Name: "selects everything", Object: budget(`selector: {}`)},
		{Name: "percentage", Object: budget(`minAvailable: 50%, unhealthyPodEvictionPolicy: AlwaysAllow`)},
		{Name: "both", Object: budget(`minAvailable: 1, maxUnavailable: 50%`), Errors: []string{
			`spec: Invalid value: {"MinAvailable":1,"Selector":null,"MaxUnavailable":"50%","UnhealthyPodEvictionPolicy":null}: minAvailable and maxUnavailable cannot be both set`}},
		{Name: "amounts", Object: budget(`minAvailable: 101%`), Errors: []string{`spec.minAvailable: Invalid value: "101%": must not be greater than 100%`}},
		{Name: "negative", Object: budget(`maxUnavailable: -1`), Errors: []string{`spec.maxUnavailable: Invalid value: -1: must be greater than or equal to 0`}},
		{Name: "policy", Object: budget(`unhealthyPodEvictionPolicy: Odd`), Errors: []string{
			`spec.unhealthyPodEvictionPolicy: Unsupported value: "Odd": supported values: "AlwaysAllow", "IfHealthyBudget"`}},
		{Name: "bad value that was", Object: budget(`selector: {matchExpressions: [{key: a, operator: In, values: ["-"]}]}`), Update: `{spec: {minAvailable: 2}}`},
		{Name: "v1beta1's nothing", Object: budget(`selector: {matchExpressions: [{key: pdb.kubernetes.io/deprecated-v1beta1-empty-selector-match, operator: Exists}]}`), Check: expressions(1)},
		{Name: "v1beta1's mark", Object: budget(`selector: {matchLabels: {a: b}, matchExpressions: [{key: pdb.kubernetes.io/deprecated-v1beta1-empty-selector-match, operator: Exists}]}`), Check: expressions(0)},
		{Name: "status", Object: budget(``), Status: `{disruptionsAllowed: -1, currentHealthy: -1, desiredHealthy: -1, expectedPods: -1, conditions: [{type: A, status: Odd, reason: R, lastTransitionTime: "2026-01-01T00:00:00Z"}]}`, Errors: []string{
			"status.disruptionsAllowed: Invalid value: -1: must be greater than or equal to 0", "status.currentHealthy: Invalid value: -1: must be greater than or equal to 0",
			"status.desiredHealthy: Invalid value: -1: must be greater than or equal to 0", "status.expectedPods: Invalid value: -1: must be greater than or equal to 0",
			`status.conditions[0].status: Unsupported value: "Odd": supported values: "False", "True", "Unknown"`}},
	}...)
}
