package admission

import (
	"context"
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/component-base/metrics/legacyregistry"
)

// TestChain has the plug-ins called that a request concerns, in order, all that change
// before all that check, and each call measured under upstream's name.
func TestChain(t *testing.T) {
	var calls []string
	note := func(name string) func(context.Context, admission.Attributes, *v1.Pod) error {
		return func(context.Context, admission.Attributes, *v1.Pod) error {
			calls = append(calls, name)
			return nil
		}
	}
	c := newChain(
		named{"TestFirst", both(onObject(note("admit 1")), onObject(note("validate 1")), create)},
		named{"TestEphemeral", validates(onObject(note("ephemeral"), "ephemeralcontainers"), create, update)},
		named{"TestAny", validates(onRequest(func(context.Context, admission.Attributes) error { calls = append(calls, "any"); return nil }), create, remove)},
		named{"TestClaim", admits(either(onObject(func(context.Context, admission.Attributes, *v1.PersistentVolumeClaim) error {
			calls = append(calls, "claim")
			return nil
		}), onObject(note("admit 2"))), create)},
	)
	for _, r := range []struct {
		sub  string
		op   admission.Operation
		obj  runtime.Object
		want []string
	}{
		{"", create, &v1.Pod{}, []string{"admit 1", "admit 2", "validate 1", "any"}},
		{"", create, &v1.PersistentVolumeClaim{}, []string{"claim", "any"}},
		{"", update, &v1.Pod{}, nil},
		{"ephemeralcontainers", update, &v1.Pod{}, []string{"ephemeral"}},
		{"status", create, &v1.Pod{}, []string{"any"}},
		{"", remove, nil, []string{"any"}},
	} {
		calls = nil
		a := request(core("x"), r.sub, r.op, r.obj, nil)
		if err := c.Admit(t.Context(), a, nil); err != nil {
			t.Fatal(err)
		}
		if err := c.Validate(t.Context(), a, nil); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(calls, r.want) {
			t.Errorf("%s %T %q: called %q, want %q", r.op, r.obj, r.sub, calls, r.want)
		}
	}
	count := map[string]uint64{}
	families, err := legacyregistry.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "apiserver_admission_controller_admission_duration_seconds" && f.GetName() != "apiserver_admission_step_admission_duration_seconds" {
			continue
		}
		for _, m := range f.Metric {
			key := f.GetName()
			for _, l := range m.Label {
				key += " " + l.GetName() + "=" + l.GetValue()
			}
			count[key] = m.Histogram.GetSampleCount()
		}
	}
	for key, want := range map[string]uint64{
		"apiserver_admission_controller_admission_duration_seconds name=TestFirst operation=CREATE rejected=false type=admit":        1,
		"apiserver_admission_controller_admission_duration_seconds name=TestEphemeral operation=UPDATE rejected=false type=validate": 1,
		"apiserver_admission_controller_admission_duration_seconds name=TestAny operation=CREATE rejected=false type=validate":       3,
		"apiserver_admission_step_admission_duration_seconds operation=DELETE rejected=false type=admit":                             1,
	} {
		if count[key] != want {
			t.Errorf("%s: %d, want %d", key, count[key], want)
		}
	}
}
