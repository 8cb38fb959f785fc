package autoscaling

import (
	"fmt"
	"strings"
	"time"

	v1 "k8s.io/api/autoscaling/v1"
	v2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/row"
)

// metricsShown is how many metrics a table row has.
const metricsShown = 2

// Resources returns the rows of autoscaling/v2 and, converted to it for
// storage, of autoscaling/v1.
func Resources() []*api.Resource { return []*api.Resource{autoscalers(), autoscalersV1()} }

// common returns the fields that the rows of the two versions share.
func common() api.Resource {
	spec, status := v2.HorizontalPodAutoscalerSpec{}.SwaggerDoc(), v2.HorizontalPodAutoscalerStatus{}.SwaggerDoc()
	return api.Resource{
		ShortNames: []string{"hpa"},
		Categories: []string{"all"},
		Namespaced: true,
		Columns: []metav1.TableColumnDefinition{
			row.Name(),
			row.String("Reference", spec["scaleTargetRef"]),
			row.String("Targets", spec["metrics"]),
			row.String("MinPods", spec["minReplicas"]),
			row.String("MaxPods", spec["maxReplicas"]),
			row.String("Replicas", status["currentReplicas"]),
			row.Age(),
		},
	}
}

func autoscalers() *api.Resource {
	r := common()
	return row.New[v2.HorizontalPodAutoscalerList](v2.SchemeGroupVersion, r, row.Kind[*v2.HorizontalPodAutoscaler]{
		Generation:           true,
		Spec:                 func(a *v2.HorizontalPodAutoscaler) any { return &a.Spec },
		Status:               func(a *v2.HorizontalPodAutoscaler) any { return &a.Status },
		Default:              setDefaults,
		Validate:             func(a *v2.HorizontalPodAutoscaler) field.ErrorList { return validate(a, nil) },
		ValidateUpdate:       validate,
		ValidateStatusUpdate: func(a, _ *v2.HorizontalPodAutoscaler) field.ErrorList { return validateStatus(&a.Status) },
		Cells:                cells,
	})
}

func autoscalersV1() *api.Resource {
	r := common()
	r.Hub = &api.Hub{Resource: v2.SchemeGroupVersion.WithResource("horizontalpodautoscalers"), ToHub: toHub, FromHub: fromHub}
	check := func(a, old *v1.HorizontalPodAutoscaler) field.ErrorList {
		hub, err := toV2(a)
		if err != nil {
			return field.ErrorList{field.Invalid(field.NewPath("metadata", "annotations"), a.Annotations, err.Error())}
		}
		var oldHub *v2.HorizontalPodAutoscaler
		if old != nil {
			if oldHub, err = toV2(old); err != nil {
				return field.ErrorList{field.InternalError(field.NewPath("metadata", "annotations"), err)}
			}
		}
		return validate(hub, oldHub)
	}
	return row.New[v1.HorizontalPodAutoscalerList](v1.SchemeGroupVersion, r, row.Kind[*v1.HorizontalPodAutoscaler]{
		Generation: true,
		Spec:       func(a *v1.HorizontalPodAutoscaler) any { return &a.Spec },
		Status:     func(a *v1.HorizontalPodAutoscaler) any { return &a.Status },
		Default: func(a *v1.HorizontalPodAutoscaler) {
			if a.Spec.MinReplicas == nil {
				a.Spec.MinReplicas = new(int32(1))
			}
		},
		// Some of v2's spec and status is in annotations of v1, and follows
		// the same rules as the rest of the two.
		PrepareForCreate: func(a *v1.HorizontalPodAutoscaler) { a.Annotations = without(a.Annotations, statusAnnotations) },
		PrepareForUpdate: func(a, old *v1.HorizontalPodAutoscaler) {
			a.Annotations = restored(a.Annotations, old.Annotations, statusAnnotations)
		},
		PrepareStatusUpdate: func(a, old *v1.HorizontalPodAutoscaler) {
			a.Annotations = restored(a.Annotations, old.Annotations, specAnnotations)
		},
		Validate:       func(a *v1.HorizontalPodAutoscaler) field.ErrorList { return check(a, nil) },
		ValidateUpdate: check,
		ValidateStatusUpdate: func(a, _ *v1.HorizontalPodAutoscaler) field.ErrorList {
			return validateStatus(&v2.HorizontalPodAutoscalerStatus{CurrentReplicas: a.Status.CurrentReplicas, DesiredReplicas: a.Status.DesiredReplicas})
		},
		Cells: func(a *v1.HorizontalPodAutoscaler, now time.Time) []any {
			hub, err := toV2(a)
			if err != nil {
				// A row of a table cannot fail; the rest of it is still true.
				plain := a.DeepCopy()
				plain.Annotations = nil
				hub, _ = toV2(plain)
			}
			return cells(hub, now)
		},
	})
}

func cells(a *v2.HorizontalPodAutoscaler, now time.Time) []any {
	least := "<unset>"
	if a.Spec.MinReplicas != nil {
		least = fmt.Sprint(*a.Spec.MinReplicas)
	}
	return []any{
		a.Name, a.Spec.ScaleTargetRef.Kind + "/" + a.Spec.ScaleTargetRef.Name,
		metrics(a.Spec.Metrics, a.Status.CurrentMetrics), least,
		int64(a.Spec.MaxReplicas), int64(a.Status.CurrentReplicas), row.Created(a, now),
	}
}

func metrics(specs []v2.MetricSpec, statuses []v2.MetricStatus) string {
	if len(specs) == 0 {
		return "<none>"
	}
	var list []string
	for i := range specs {
		var status v2.MetricStatus
		if i < len(statuses) {
			status = statuses[i]
		}
		list = append(list, metric(&specs[i], &status))
	}
	if n := len(list) - metricsShown; n > 0 {
		return fmt.Sprintf("%s + %d more...", strings.Join(list[:metricsShown], ", "), n)
	}
	return strings.Join(list, ", ")
}

// metric writes current/target of one metric.
func metric(spec *v2.MetricSpec, status *v2.MetricStatus) string {
	switch spec.Type {
	case v2.ExternalMetricSourceType:
		if spec.External == nil {
			break
		}
		var current v2.MetricValueStatus
		if status.External != nil {
			current = status.External.Current
		}
		return valueOrAverage(&spec.External.Target, &current)
	case v2.ObjectMetricSourceType:
		if spec.Object == nil {
			break
		}
		var current v2.MetricValueStatus
		if status.Object != nil {
			current = status.Object.Current
		}
		return valueOrAverage(&spec.Object.Target, &current)
	case v2.PodsMetricSourceType:
		if spec.Pods == nil {
			break
		}
		var current v2.MetricValueStatus
		if status.Pods != nil {
			current = status.Pods.Current
		}
		return quantity(current.AverageValue) + "/" + quantity(spec.Pods.Target.AverageValue)
	case v2.ResourceMetricSourceType:
		if spec.Resource == nil {
			break
		}
		var current v2.MetricValueStatus
		if status.Resource != nil {
			current = status.Resource.Current
		}
		return string(spec.Resource.Name) + ": " + usage(&spec.Resource.Target, &current)
	case v2.ContainerResourceMetricSourceType:
		if spec.ContainerResource == nil {
			break
		}
		var current v2.MetricValueStatus
		if status.ContainerResource != nil {
			current = status.ContainerResource.Current
		}
		return string(spec.ContainerResource.Name) + ": " + usage(&spec.ContainerResource.Target, &current)
	}
	return "<unknown type>"
}

func quantity(q *resource.Quantity) string {
	if q == nil {
		return "<unknown>"
	}
	return q.String()
}

func valueOrAverage(target *v2.MetricTarget, current *v2.MetricValueStatus) string {
	if target.AverageValue != nil {
		return quantity(current.AverageValue) + "/" + target.AverageValue.String() + " (avg)"
	}
	return quantity(current.Value) + "/" + quantity(target.Value)
}

func usage(target *v2.MetricTarget, current *v2.MetricValueStatus) string {
	if target.AverageValue != nil {
		return quantity(current.AverageValue) + "/" + target.AverageValue.String()
	}
	percent := func(p *int32, unset string) string {
		if p == nil {
			return unset
		}
		return fmt.Sprintf("%d%%", *p)
	}
	return percent(current.AverageUtilization, "<unknown>") + "/" + percent(target.AverageUtilization, "<auto>")
}
