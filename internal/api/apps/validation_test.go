package apps

import (
	"strings"
	"testing"

	v1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/rowtest"
)

// with returns a controller with more of a spec, and more after it.
func with(spec string, more ...string) string {
	return `{metadata: {name: x, generation: 1}, spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}, ` +
		spec + `}` + strings.Join(more, "") + `}`
}

func generation(want int64) func(*testing.T, runtime.Object) {
	return func(t *testing.T, obj runtime.Object) {
		t.Helper()
		if acc, err := meta.Accessor(obj); err != nil || acc.GetGeneration() != want {
			t.Errorf("generation %d, want %d (%v)", acc.GetGeneration(), want, err)
		}
	}
}

func TestAllKinds(t *testing.T) {
	const badLabel = `{metadata: {name: x}, spec: {selector: {matchLabels: {a: c}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}}`
	const never = `{metadata: {name: x}, spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}}}`
	const duplicate = `{metadata: {name: x, generation: 1}, spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i, env: [{name: V}, {name: V}]}]}}}}`
	const hidden = `spec.template.spec.containers[0].env[1]: hides previous definition of "V", which may be dropped when using apply`
	for _, r := range []*api.Resource{deployments(), replicaSets(), statefulSets(), daemonSets()} {
		t.Run(r.Kind, func(t *testing.T) {
			rowtest.Run(t, r, []rowtest.Case{
				{Name: "valid", Object: with(``), Check: generation(1)},
				{Name: "selector of others", Object: badLabel, Errors: []string{
					"spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`"}},
				{Name: "never restarted", Object: never, Errors: []string{`spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"`}},
				{Name: "duplicate variable", Object: duplicate, Warnings: []string{hidden}},
				{Name: "label of the whole", Object: duplicate, Update: `{metadata: {labels: {c: d}}}`, Check: generation(1)},
				{Name: "change of the whole", Object: duplicate, Update: `{spec: {minReadySeconds: 1}}`, Warnings: []string{hidden}, Check: generation(2)},
				{Name: "negative seconds", Object: with(`minReadySeconds: -1`), Errors: []string{"spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0"}},
			}...)
			if r.Kind == "StatefulSet" {
				return
			}
			rowtest.Run(t, r, rowtest.Case{Name: "another selector", Object: with(``),
				Update: `{spec: {selector: {matchLabels: {a: null, c: d}}, template: {metadata: {labels: {c: d}}}}}`,
				Errors: []string{`spec.selector: Invalid value: {"matchLabels":{"c":"d"}}: field is immutable`}})
		})
	}
}

func TestDeployments(t *testing.T) {
	strategy := func(s string) string { return with(`strategy: {` + s + `}`) }
	rowtest.Run(t, deployments(), []rowtest.Case{
		{Name: "no selector", Object: `{metadata: {name: x}, spec: {template: {spec: {containers: [{name: c, image: i}]}}}}`, Errors: []string{
			"spec.selector: Required value", "spec.template.metadata.labels: Invalid value: null: `selector` does not match template `labels`"}},
		{Name: "empty selector", Object: `{metadata: {name: x}, spec: {selector: {}, template: {spec: {containers: [{name: c, image: i}]}}}}`, Errors: []string{
			"spec.selector: Invalid value: {}: empty selector is invalid for deployment"}},
		{Name: "counts", Object: with(`replicas: -1, revisionHistoryLimit: -1, progressDeadlineSeconds: 5, minReadySeconds: 5`), Errors: []string{
			"spec.replicas: Invalid value: -1: must be greater than or equal to 0", "spec.revisionHistoryLimit: Invalid value: -1: must be greater than or equal to 0",
			"spec.progressDeadlineSeconds: Invalid value: 5: must be greater than minReadySeconds"}},
		{Name: "deadline", Object: `{metadata: {name: x}, spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {activeDeadlineSeconds: 1, containers: [{name: c, image: i}]}}}}`, Errors: []string{
			"spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported"}},
		{Name: "no way to roll", Object: strategy(`rollingUpdate: {maxSurge: 0, maxUnavailable: 0%}`), Errors: []string{
			"spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0"}},
		{Name: "more than all", Object: strategy(`rollingUpdate: {maxSurge: 200%, maxUnavailable: 101%}`), Errors: []string{
			`spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "101%": must not be greater than 100%`}},
		{Name: "no amounts", Object: strategy(`rollingUpdate: {maxSurge: -1, maxUnavailable: x}`), Errors: []string{
			`spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "x": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')`,
			`spec.strategy.rollingUpdate.maxSurge: Invalid value: -1: must be greater than or equal to 0`}},
		{Name: "recreate", Object: strategy(`type: Recreate, rollingUpdate: {maxSurge: 1}`), Errors: []string{
			"spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"}},
		{Name: "odd", Object: strategy(`type: Odd`), Errors: []string{`spec.strategy: Unsupported value: {"Type":"Odd","RollingUpdate":null}: supported values: "Recreate", "RollingUpdate"`}},
		{Name: "dotted name", Object: strings.Replace(with(``), "name: x,", "name: a.b,", 1), Warnings: []string{
			`metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [must not contain dots]`}},
		{Name: "annotated", Object: with(``), Update: `{metadata: {annotations: {a: b}}}`, Check: generation(2)},
		{Name: "labels through the status", Object: strings.Replace(with(``), "name: x,", "name: x, labels: {a: b},", 1), Status: `{replicas: 1}`, Check: func(t *testing.T, obj runtime.Object) {
			if d := obj.(*v1.Deployment); d.Labels["a"] != "b" || d.Generation != 1 || d.Status.Replicas != 1 {
				t.Errorf("%+v", d)
			}
		}},
		{Name: "status", Object: with(``, `, status: {collisionCount: 2}`), Status: `{replicas: 1, updatedReplicas: 2, readyReplicas: 2, availableReplicas: 3, unavailableReplicas: -1, terminatingReplicas: -1, observedGeneration: -1, collisionCount: 1}`, Errors: []string{
			"status.updatedReplicas: Invalid value: 2: cannot be greater than status.replicas", "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas",
			"status.availableReplicas: Invalid value: 3: cannot be greater than status.replicas", "status.availableReplicas: Invalid value: 3: cannot be greater than readyReplicas",
			"status.unavailableReplicas: Invalid value: -1: must be greater than or equal to 0", "status.terminatingReplicas: Invalid value: -1: must be greater than or equal to 0",
			"status.observedGeneration: Invalid value: -1: must be greater than or equal to 0", "status.collisionCount: Invalid value: 1: cannot be decremented"}},
	}...)
}

func TestReplicaSets(t *testing.T) {
	rowtest.Run(t, replicaSets(), []rowtest.Case{
		{Name: "empty selector", Object: `{metadata: {name: x}, spec: {selector: {}, template: {spec: {containers: [{name: c, image: i}]}}}}`, Errors: []string{
			"spec.selector: Invalid value: {}: empty selector is invalid for deployment"}},
		{Name: "annotated", Object: with(``), Update: `{metadata: {annotations: {a: b}}}`, Check: generation(1)},
		{Name: "status", Object: with(``), Status: `{replicas: 1, fullyLabeledReplicas: 2, readyReplicas: -1, availableReplicas: 0}`, Errors: []string{
			"status.fullyLabeledReplicas: Invalid value: 2: cannot be greater than status.replicas", "status.readyReplicas: Invalid value: -1: must be greater than or equal to 0",
			"status.availableReplicas: Invalid value: 0: cannot be greater than readyReplicas"}},
	}...)
}

func TestStatefulSets(t *testing.T) {
	const forbidden = "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
	const claim = `volumeClaimTemplates: [{metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}]`
	mounting := func(spec string) string {
		return strings.Replace(with(spec), `image: i`, `image: i, volumeMounts: [{name: data, mountPath: /data}]`, 1)
	}
	rowtest.Run(t, statefulSets(), []rowtest.Case{
		{Name: "with claims", Object: mounting(claim), Check: func(t *testing.T, obj runtime.Object) {
			s := obj.(*v1.StatefulSet).Spec
			if c := s.VolumeClaimTemplates[0]; c.APIVersion != "v1" || c.Kind != "PersistentVolumeClaim" || c.Status.Phase != "Pending" || *c.Spec.VolumeMode != "Filesystem" {
				t.Errorf("the claim is %+v", c)
			}
			if len(s.Template.Spec.Volumes) != 0 {
				t.Errorf("volumes %+v", s.Template.Spec.Volumes)
			}
		}},
		{Name: "claim of nothing", Object: mounting(`volumeClaimTemplates: [{metadata: {name: data}, spec: {accessModes: [Odd]}}]`), Errors: []string{
			`spec.volumeClaimTemplates[0].spec.accessModes: Unsupported value: "Odd": supported values: "ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"`,
			`spec.volumeClaimTemplates[0].spec.resources[storage]: Required value`}},
		{Name: "without a claim", Object: mounting(`serviceName: s`), Errors: []string{`spec.template.spec.containers[0].volumeMounts[0].name: Not found: "data"`}},
		{Name: "dotted name", Object: strings.Replace(with(``), "name: x,", "name: a.b,", 1), Errors: []string{`metadata.name: Invalid value: "a.b": must not contain dots`}},
		{Name: "service", Object: with(`serviceName: a.b`), Errors: []string{`spec.serviceName: Invalid value: "a.b": must not contain dots`}},
		{Name: "service of an older release", Object: with(`serviceName: a.b`), Update: `{spec: {replicas: 2}}`, Check: generation(2)},
		{Name: "template of an older release", Object: `{metadata: {name: x}, spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}}}}`, Update: `{spec: {replicas: 2}}`},
		{Name: "counts", Object: with(`replicas: -1, ordinals: {start: -1}, persistentVolumeClaimRetentionPolicy: {whenDeleted: Odd}, updateStrategy: {rollingUpdate: {partition: -1, maxUnavailable: 101%}}`), Errors: []string{
			"spec.replicas: Invalid value: -1: must be greater than or equal to 0", "spec.ordinals.start: Invalid value: -1: must be greater than or equal to 0",
			`spec.persistentVolumeClaimRetentionPolicy.whenDeleted: Unsupported value: "Odd": supported values: "Retain", "Delete"`,
			"spec.updateStrategy.rollingUpdate.partition: Invalid value: -1: must be greater than or equal to 0",
			`spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: "101%": must not be greater than 100%`}},
		{Name: "none unavailable", Object: with(`podManagementPolicy: Odd, updateStrategy: {rollingUpdate: {maxUnavailable: 0}}`), Errors: []string{
			"spec.podManagementPolicy: Invalid value: \"Odd\": must be 'OrderedReady' or 'Parallel'", "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: 0: cannot be 0"}},
		{Name: "on delete", Object: with(`updateStrategy: {type: OnDelete, rollingUpdate: {partition: 1}}`), Errors: []string{
			`spec.updateStrategy.rollingUpdate: Invalid value: {"partition":1}: only allowed for updateStrategy 'RollingUpdate'`}},
		{Name: "empty selector", Object: `{metadata: {name: x}, spec: {selector: {}, template: {spec: {containers: [{name: c, image: i}]}}}}`, Errors: []string{
			"spec.selector: Invalid value: {}: empty selector is invalid for statefulset"}},
		{Name: "what may change", Object: with(``), Update: `{spec: {replicas: 5, minReadySeconds: 1, revisionHistoryLimit: 3, ordinals: {start: 1}, updateStrategy: {type: OnDelete, rollingUpdate: null}}}`},
		{Name: "another service", Object: with(``), Update: `{spec: {serviceName: other}}`, Errors: []string{forbidden}},
		{Name: "another selector", Object: with(``), Update: `{spec: {selector: {matchLabels: {c: d}}, template: {metadata: {labels: {c: d}}}}}`, Errors: []string{forbidden}},
		{Name: "another claim", Object: with(``), Update: `{spec: {` + claim + `}}`, Errors: []string{forbidden}},
		{Name: "history without end", Object: with(`revisionHistoryLimit: -1, ` + strings.Replace(claim, "1Gi", "100m", 1)), Warnings: []string{
			`spec.volumeClaimTemplates[0].resources.requests[storage]: fractional byte value "100m" is invalid, must be an integer`,
			"spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended"}},
		{Name: "status", Object: with(``, `, status: {collisionCount: 2}`), Status: `{replicas: 1, readyReplicas: 2, currentReplicas: 2, updatedReplicas: 2, availableReplicas: 3, collisionCount: null}`, Errors: []string{
			"status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas", "status.currentReplicas: Invalid value: 2: cannot be greater than status.replicas",
			"status.updatedReplicas: Invalid value: 2: cannot be greater than status.replicas", "status.availableReplicas: Invalid value: 3: cannot be greater than status.replicas",
			"status.availableReplicas: Invalid value: 3: cannot be greater than status.readyReplicas", "status.collisionCount: Invalid value: 0: cannot be decremented"}},
	}...)
}

func TestDaemonSets(t *testing.T) {
	counted := func(want string) func(*testing.T, runtime.Object) {
		return func(t *testing.T, obj runtime.Object) {
			if got := obj.(*v1.DaemonSet).Annotations[v1.DeprecatedTemplateGeneration]; got != want {
				t.Errorf("the template's generation is %q, want %q", got, want)
			}
		}
	}
	third := strings.Replace(with(``), "name: x,", `name: x, annotations: {deprecated.daemonset.template.generation: "3"},`, 1)
	rowtest.Run(t, daemonSets(), []rowtest.Case{
		{Name: "first template", Object: with(``), Check: counted("1")},
		{Name: "restored", Object: third, Check: counted("3")},
		{Name: "another template", Object: third, Update: `{metadata: {annotations: null}, spec: {template: {metadata: {labels: {c: d}}}}}`, Check: counted("4")},
		{Name: "the same template", Object: third, Update: `{metadata: {annotations: {deprecated.daemonset.template.generation: "9"}}, spec: {minReadySeconds: 1}}`, Check: counted("3")},
		{Name: "limits", Object: with(`revisionHistoryLimit: -1, updateStrategy: {rollingUpdate: {maxUnavailable: 1, maxSurge: 101%}}`), Errors: []string{
			"spec.revisionHistoryLimit: Invalid value: -1: must be greater than or equal to 0",
			`spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: "101%": must not be greater than 100%`,
			`spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: "101%": may not be set when maxUnavailable is non-zero`}},
		{Name: "no way to roll", Object: with(`updateStrategy: {rollingUpdate: {maxUnavailable: 0}}`), Errors: []string{
			"spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0"}},
		{Name: "odd", Object: with(`updateStrategy: {type: Odd}`), Errors: []string{`spec.updateStrategy: Unsupported value: {"Type":"Odd","RollingUpdate":null}: supported values: "RollingUpdate", "OnDelete"`}},
		{Name: "status", Object: with(``, `, status: {collisionCount: 2}`), Status: `{numberReady: -1, numberUnavailable: -1, collisionCount: 1}`, Errors: []string{
			"status.numberReady: Invalid value: -1: must be greater than or equal to 0", "status.numberUnavailable: Invalid value: -1: must be greater than or equal to 0",
			"status.collisionCount: Invalid value: 1: cannot be decremented"}},
	}...)
}

func TestControllerRevisions(t *testing.T) {
	rowtest.Run(t, controllerRevisions(), []rowtest.Case{
		{Name: "valid", Object: `{metadata: {name: x}, revision: 1, data: {a: b}}`},
		{Name: "nothing", Object: `{metadata: {name: x}, revision: -1}`, Errors: []string{"data: Required value: data is mandatory", "revision: Invalid value: -1: must be greater than or equal to 0"}},
		{Name: "no object", Object: `{metadata: {name: x}, revision: 1, data: [1]}`, Errors: []string{"data: Required value: data must be a valid JSON object"}},
		{Name: "another revision", Object: `{metadata: {name: x}, revision: 1, data: {a: b}}`, Update: `{revision: 2}`},
		{Name: "other data", Object: `{metadata: {name: x}, revision: 1, data: {a: b}}`, Update: `{data: {a: c}}`, Errors: []string{`data: Invalid value: {"a":"c"}: field is immutable`}},
	}...)
}
