package scheduling

import (
	"testing"

	v1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"keelson.dev/keelson/internal/api/rowtest"
)

func TestPriorityClasses(t *testing.T) {
	const reserved = "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: "
	rowtest.Run(t, Resources()[0], []rowtest.Case{
		{Name: "defaults", Object: `{metadata: {name: c}, value: 1000000000}`, Check: func(t *testing.T, obj runtime.Object) {
			if c := obj.(*v1.PriorityClass); *c.PreemptionPolicy != "PreemptLowerPriority" || c.Generation != 1 {
				t.Errorf("the class is %+v", c)
			}
		}},
		{Name: "too high", Object: `{metadata: {name: c}, value: 1000000001, preemptionPolicy: Odd}`, Errors: []string{
			"value: Forbidden: maximum allowed value of a user defined priority is 1000000000",
			`preemptionPolicy: Unsupported value: "Odd": supported values: "PreemptLowerPriority", "Never"`}},
		{Name: "built in", Object: `{metadata: {name: system-node-critical}, value: 2000001000}`},
		{Name: "nearly built in", Object: `{metadata: {name: system-node-critical}, value: 5}`, Errors: []string{
			reserved + "value of system-node-critical PriorityClass must be 2000001000"}},
		{Name: "built in by default", Object: `{metadata: {name: system-cluster-critical}, value: 2000000000, globalDefault: true}`, Errors: []string{
			reserved + "globalDefault of system-cluster-critical PriorityClass must be false"}},
		{Name: "not built in", Object: `{metadata: {name: system-mine}, value: 5}`, Errors: []string{reserved + "system-mine is not a known system priority class"}},
		{Name: "another value", Object: `{metadata: {name: c}, value: 5}`, Update: `{value: 6, preemptionPolicy: Never, description: d}`, Errors: []string{
			"value: Forbidden: may not be changed in an update.", `preemptionPolicy: Invalid value: "Never": field is immutable`}},
		{Name: "another description", Object: `{metadata: {name: c}, value: 5}`, Update: `{description: d, globalDefault: true}`},
	}...)
}
