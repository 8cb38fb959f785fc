package apps

import (
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"

	"keelson.dev/keelson/internal/api"
)

const template = "selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}"

// check creates an object of the row, or with change updates it, and compares
// the messages of its validation.
func check(t *testing.T, r *api.Resource, spec, change string, want ...string) {
	t.Helper()
	is := r.New()
	old := r.New()
	for _, text := range []string{"{metadata: {name: x}, spec: {" + template + "}}", spec} {
		for _, o := range []any{is, old} {
			if err := yaml.UnmarshalStrict([]byte(text), o); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
		}
	}
	var errs field.ErrorList
	r.Default(old)
	if change == "" {
		errs = r.Validate(old)
	} else {
		if err := yaml.UnmarshalStrict([]byte(change), is); err != nil {
			t.Fatalf("%s: %v", change, err)
		}
		r.Default(is)
		r.PrepareForUpdate(is, old)
		errs = r.ValidateUpdate(is, old)
	}
	var got []string
	for _, e := range errs {
		got = append(got, e.Error())
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s %s %s:\n got %q\nwant %q", r.Kind, spec, change, got, want)
	}
}

func TestValidation(t *testing.T) {
	d, rs, sts, ds := deployments(), replicaSets(), statefulSets(), daemonSets()
	for _, r := range []*api.Resource{d, rs, sts, ds} {
		check(t, r, "{}", "")
		check(t, r, "spec: {selector: {matchLabels: {a: c}}}", "", "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`")
		check(t, r, "spec: {template: {spec: {restartPolicy: Never}}}", "", `spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"`)
	}
	check(t, d, "spec: {replicas: -1, progressDeadlineSeconds: 5, minReadySeconds: 5}", "",
		"spec.replicas: Invalid value: -1: must be greater than or equal to 0", "spec.progressDeadlineSeconds: Invalid value: 5: must be greater than minReadySeconds")
	check(t, d, "spec: {strategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 0}}}", "",
		"spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0")
	check(t, d, "spec: {strategy: {type: Recreate, rollingUpdate: {maxSurge: 1}}}", "",
		"spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'")
	check(t, d, "{}", "spec: {selector: {matchLabels: {c: d}}, template: {metadata: {labels: {c: d}}}}",
		`spec.selector: Invalid value: {"matchLabels":{"a":"b","c":"d"}}: field is immutable`)
	check(t, sts, "spec: {template: {spec: {activeDeadlineSeconds: 1}}}", "", "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in StatefulSet is not Supported")
	check(t, sts, "spec: {ordinals: {start: -1}, persistentVolumeClaimRetentionPolicy: {whenDeleted: Odd}, updateStrategy: {rollingUpdate: {partition: -1}}}", "",
		"spec.ordinals.start: Invalid value: -1: must be greater than or equal to 0",
		`spec.persistentVolumeClaimRetentionPolicy.whenDeleted: Unsupported value: "Odd": supported values: "Retain", "Delete"`,
		"spec.updateStrategy.rollingUpdate.partition: Invalid value: -1: must be greater than or equal to 0")
	check(t, sts, "{}", "spec: {serviceName: other}",
		"spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden")
	check(t, sts, "{}", "spec: {replicas: 5, minReadySeconds: 1}")
	check(t, ds, "spec: {updateStrategy: {rollingUpdate: {maxUnavailable: 1, maxSurge: 1}}}", "",
		"spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero")
}
