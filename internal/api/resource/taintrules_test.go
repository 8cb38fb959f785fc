package resource

import (
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"keelson.dev/keelson/internal/api/rowtest"
)

func TestTaintRules(t *testing.T) {
	const added = "effect: NoSchedule, timeAdded: 2026-01-02T03:04:05Z"
	rule := func(taint string) string {
		return `{metadata: {name: r}, spec: {taint: {key: example.com/sick, ` + taint + `}}}`
	}
	at := func(seconds string) func(*testing.T, runtime.Object) {
		return func(t *testing.T, o runtime.Object) {
			t.Helper()
			got := o.(*v1.DeviceTaintRule)
			if added := got.Spec.Taint.TimeAdded.UTC().Format(time.RFC3339); added != seconds && (seconds != "now" || time.Since(got.Spec.Taint.TimeAdded.Time) > time.Minute) {
				t.Errorf("the taint was added at %s, want %s", added, seconds)
			}
		}
	}
	conditions := strings.Repeat(`{type: T, status: "True", reason: R, lastTransitionTime: "2026-01-02T03:04:05Z", message: ""}, `, 9)
	for i := range 9 {
		conditions = strings.Replace(conditions, "type: T,", "type: T"+string(rune('0'+i))+",", 1)
	}
	rowtest.Run(t, rowtest.Find(t, Resources(), "devicetaintrules"),
		rowtest.Case{Name: "new", Object: rule("effect: None"), Check: func(t *testing.T, o runtime.Object) {
			at("now")(t, o)
			if g := o.(*v1.DeviceTaintRule).Generation; g != 1 {
				t.Errorf("generation %d", g)
			}
		}},
		rowtest.Case{Name: "selector", Object: `{metadata: {name: r}, spec: {deviceSelector: {driver: D_, pool: "", device: A}, taint: {key: "a b", value: "c d"}}}`, Errors: []string{
			`spec.deviceSelector.driver: Invalid value: "D_": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')`,
			`spec.deviceSelector.pool: Required value`,
			`spec.deviceSelector.device: Invalid value: "A": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')`,
			`spec.taint.key: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')`,
			`spec.taint.value: Invalid value: "c d": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')`,
			`spec.taint.effect: Required value`}},
		rowtest.Case{Name: "odd effect", Object: rule(`effect: Odd`), Errors: []string{
			`spec.taint.effect: Unsupported value: "Odd": supported values: "NoExecute", "NoSchedule", "None"`}},
		rowtest.Case{Name: "odd effect that was", Object: rule(`effect: Odd`), Update: `{metadata: {labels: {a: b}}}`},
		rowtest.Case{Name: "another effect", Object: rule(added), Update: `{spec: {taint: {effect: NoExecute}}}`, Check: at("now")},
		rowtest.Case{Name: "another effect and time", Object: rule(added), Update: `{spec: {taint: {effect: NoExecute, timeAdded: "2026-01-02T03:04:06Z"}}}`, Check: at("2026-01-02T03:04:06Z")},
		rowtest.Case{Name: "another value", Object: rule(added), Update: `{spec: {taint: {value: v}}}`, Check: at("2026-01-02T03:04:05Z")},
		rowtest.Case{Name: "status leaves the spec", Object: rule(added), Update: `{status: {conditions: []}}`},
		rowtest.Case{Name: "too many conditions", Object: rule(added), Status: `{conditions: [` + conditions + `]}`, Errors: []string{
			`status.conditions: Too many: 9: must have at most 8 items`}},
	)
}
