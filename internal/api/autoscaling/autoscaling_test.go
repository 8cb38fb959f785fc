package autoscaling

import (
	"testing"
	"time"

	v1 "k8s.io/api/autoscaling/v1"
	v2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"

	"keelson.dev/keelson/internal/api/rowtest"
)

const ref = `scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: d}`

func TestValidation(t *testing.T) {
	for name, c := range map[string]struct {
		spec string
		want []string
	}{
		"cpu by default": {ref + `, maxReplicas: 3`, nil},
		"no limit": {ref, []string{
			`spec.maxReplicas: Required value`,
			"spec.maxReplicas: Invalid value: 0: must be greater than or equal to `minReplicas`"}},
		"negative": {ref + `, minReplicas: -2, maxReplicas: -1`, []string{
			`spec.minReplicas: Invalid value: -2: must be greater than or equal to 0`, `spec.maxReplicas: Invalid value: -1: must be greater than or equal to 1`}},
		"container": {ref + `, maxReplicas: 1, metrics: [{type: ContainerResource, containerResource: {name: cpus, container: C, target: {type: AverageValue, averageValue: 1}}}, {type: ContainerResource, containerResource: {target: {type: Odd}}}]`, []string{
			`spec.metrics[0].containerResource.name: Invalid value: "cpus": must be a standard resource type or fully qualified`,
			`spec.metrics[0].containerResource.name: Invalid value: "cpus": must be a standard resource for containers`,
			`spec.metrics[0].containerResource.container: Invalid value: "C": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')`,
			`spec.metrics[1].containerResource.name: Required value: must specify a resource name`,
			`spec.metrics[1].containerResource.container: Required value: must specify a container`,
			`spec.metrics[1].containerResource.target.type: Invalid value: "Odd": must be either Utilization, Value, or AverageValue`,
			`spec.metrics[1].containerResource.target.averageUtilization: Required value: must set either a target raw value or a target utilization`}},
		"targets": {ref + `, maxReplicas: 1, metrics: [{type: Pods, pods: {metric: {name: m}, target: {type: AverageValue, averageValue: 0}}}, {type: External, external: {metric: {}, target: {type: Value, value: -1, averageValue: 1}}}]`, []string{
			`spec.metrics[0].pods.target.averageValue: Invalid value: "0": must be positive`,
			`spec.metrics[1].external.metric.name: Required value: must specify a metric name`,
			`spec.metrics[1].external.target.value: Invalid value: "-1": must be positive`,
			`spec.metrics[1].external.target.value: Forbidden: may not set both a target value for metric and a per-pod target`}},
		"no target": {`maxReplicas: 1`, []string{
			`spec.scaleTargetRef.kind: Required value`, `spec.scaleTargetRef.name: Required value`,
			`spec.scaleTargetRef.apiVersion: Invalid value: "": apiVersion must specify API group`}},
		"controller of the core group": {`maxReplicas: 1, scaleTargetRef: {apiVersion: v1, kind: ReplicationController, name: rc}`, nil},
		"zero on the pods' own metric": {ref + `, minReplicas: 0, maxReplicas: 1`, []string{
			`spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to zero replicas`}},
		"zero on an external metric": {ref + `, minReplicas: 0, maxReplicas: 1, metrics: [{type: External, external: {metric: {name: queue}, target: {type: Value, value: 5}}}]`, nil},
		"metric without its source": {ref + `, maxReplicas: 1, metrics: [{type: Pods, resource: {name: cpu, target: {type: Utilization, averageUtilization: 1}}}]`, []string{
			`spec.metrics[0].pods: Required value: must populate information for the given metric source`}},
		"metric with two sources": {ref + `, maxReplicas: 1, metrics: [{type: Pods, pods: {metric: {name: m}, target: {type: AverageValue, averageValue: 1}}, resource: {}}]`, []string{
			`spec.metrics[0].resource: Forbidden: must populate the given metric source only`}},
		"two targets": {ref + `, maxReplicas: 1, metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 1, averageValue: 1}}}]`, []string{
			`spec.metrics[0].resource.target.averageValue: Forbidden: may not set both a target raw value and a target utilization`}},
		"behavior": {ref + `, maxReplicas: 1, behavior: {scaleUp: {stabilizationWindowSeconds: 3601, policies: [{type: Pods, value: 0, periodSeconds: 1801}]}, scaleDown: {tolerance: "-1"}}`, []string{
			`spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600`,
			`spec.behavior.scaleUp.policies[0].value: Invalid value: 0: must be greater than zero`,
			`spec.behavior.scaleUp.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800`,
			`spec.behavior.scaleDown.tolerance: Invalid value: "-1": must be greater or equal to zero`}},
	} {
		t.Run(name, func(t *testing.T) {
			r := autoscalers()
			rowtest.Expect(t, r.Validate(rowtest.Object(t, r, `{spec: {`+c.spec+`}}`)), c.want...)
		})
	}
}

func TestUpdateKeepsABadReference(t *testing.T) {
	for _, r := range Resources() {
		old := rowtest.Object(t, r, `{spec: {scaleTargetRef: {kind: Deployment, name: d}, maxReplicas: 1}}`)
		rowtest.Expect(t, r.Validate(old), `spec.scaleTargetRef.apiVersion: Invalid value: "": apiVersion must specify API group`)
		rowtest.Expect(t, r.ValidateUpdate(old, old))
	}
}

func TestGeneration(t *testing.T) {
	r := autoscalers()
	old := rowtest.Object(t, r, `{spec: {`+ref+`, maxReplicas: 1}}`).(*v2.HorizontalPodAutoscaler)
	r.PrepareForCreate(old)
	next := old.DeepCopy()
	next.Spec.MaxReplicas = 2
	r.PrepareForUpdate(next, old)
	if old.Generation != 1 || next.Generation != 2 {
		t.Errorf("generations are %d and %d", old.Generation, next.Generation)
	}
}

func TestBehaviorDefaults(t *testing.T) {
	a := rowtest.Object(t, autoscalers(), `{spec: {`+ref+`, maxReplicas: 1, behavior: {scaleDown: {selectPolicy: Disabled}}}}`).(*v2.HorizontalPodAutoscaler)
	up, down := a.Spec.Behavior.ScaleUp, a.Spec.Behavior.ScaleDown
	if *up.StabilizationWindowSeconds != 0 || *up.SelectPolicy != "Max" || len(up.Policies) != 2 {
		t.Errorf("scale up is %+v", up)
	}
	if down.StabilizationWindowSeconds != nil || *down.SelectPolicy != "Disabled" || len(down.Policies) != 1 {
		t.Errorf("scale down is %+v", down)
	}
}

// What v1 has no field for survives a round through it.
func TestRoundThroughV1(t *testing.T) {
	hub := rowtest.Object(t, autoscalers(), `
metadata: {name: a, annotations: {mine: kept}}
spec:
  `+ref+`
  minReplicas: 2
  maxReplicas: 5
  metrics:
  - {type: Pods, pods: {metric: {name: qps, selector: {matchLabels: {a: b}}}, target: {type: AverageValue, averageValue: "10"}}}
  - {type: Object, object: {describedObject: {kind: Service, name: s}, metric: {name: hits}, target: {type: Value, value: 1k}}}
  - {type: External, external: {metric: {name: queue}, target: {type: AverageValue, averageValue: "30"}}}
  - {type: ContainerResource, containerResource: {name: memory, container: c, target: {type: Utilization, averageUtilization: 60}}}
  - {type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 70}}}
  behavior: {scaleDown: {stabilizationWindowSeconds: 60, tolerance: 50m}}
status:
  currentReplicas: 3
  desiredReplicas: 4
  currentMetrics:
  - {type: Resource, resource: {name: cpu, current: {averageUtilization: 55, averageValue: 550m}}}
  conditions:
  - {type: AbleToScale, status: "True", reason: ReadyForNewScale, message: m}
`)
	mid, err := fromHub(hub)
	if err != nil {
		t.Fatal(err)
	}
	a := mid.(*v1.HorizontalPodAutoscaler)
	if *a.Spec.TargetCPUUtilizationPercentage != 70 || *a.Status.CurrentCPUUtilizationPercentage != 55 || a.Annotations["mine"] != "kept" {
		t.Errorf("v1 is %+v", a)
	}
	if got, want := a.Annotations[conditionsAnnotation], `[{"type":"AbleToScale","status":"True","lastTransitionTime":null,"reason":"ReadyForNewScale","message":"m"}]`; got != want {
		t.Errorf("the conditions are\n%s, want\n%s", got, want)
	}
	back, err := toHub(mid)
	if err != nil {
		t.Fatal(err)
	}
	if !equality.Semantic.DeepEqual(back, hub) {
		t.Errorf("came back as\n%+v, was\n%+v", back, hub)
	}
}

func TestV1KeepsStatusAndSpecApart(t *testing.T) {
	r := autoscalersV1()
	old := rowtest.Object(t, r, `{metadata: {annotations: {`+conditionsAnnotation+`: "[]", `+metricsAnnotation+`: "[]"}}, spec: {`+ref+`, maxReplicas: 3}}`)
	with := func(key, value string) *v1.HorizontalPodAutoscaler {
		a := old.DeepCopyObject().(*v1.HorizontalPodAutoscaler)
		a.Annotations[key] = value
		return a
	}
	created := with(currentAnnotation, "x")
	r.PrepareForCreate(created)
	if _, ok := created.Annotations[currentAnnotation]; ok {
		t.Error("a new object may bring a status in an annotation")
	}
	updated := with(conditionsAnnotation, "x")
	r.PrepareForUpdate(updated, old)
	if updated.Annotations[conditionsAnnotation] != "[]" {
		t.Error("an update changes the status in an annotation")
	}
	status := with(metricsAnnotation, "x")
	r.Status.PrepareForUpdate(status, old)
	if status.Annotations[metricsAnnotation] != "[]" {
		t.Error("a status update changes the spec in an annotation")
	}
	rowtest.Expect(t, r.Validate(old))
	if errs := r.Validate(with(metricsAnnotation, "{")); len(errs) != 1 {
		t.Errorf("errors of an unreadable annotation are %v", errs)
	}
}

func TestTable(t *testing.T) {
	a := rowtest.Object(t, autoscalers(), `
spec:
  `+ref+`
  maxReplicas: 5
  metrics:
  - {type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 70}}}
  - {type: External, external: {metric: {name: queue}, target: {type: AverageValue, averageValue: "30"}}}
  - {type: Pods, pods: {metric: {name: qps}, target: {type: AverageValue, averageValue: "10"}}}
status: {currentMetrics: [{type: Resource, resource: {name: cpu, current: {averageUtilization: 55}}}]}
`)
	const want = "cpu: 55%/70%, <unknown>/30 (avg) + 1 more..."
	v1, err := fromHub(a)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		cells func(runtime.Object, time.Time) []any
		obj   runtime.Object
	}{{autoscalers().Cells, a}, {autoscalersV1().Cells, v1}} {
		got := c.cells(c.obj, time.Now())
		if got[1] != "Deployment/d" || got[3] != "1" {
			t.Errorf("cells are %v", got)
		}
	}
	if got := autoscalers().Cells(a, time.Now())[2]; got != want {
		t.Errorf("targets are %q, want %q", got, want)
	}
}
