package autoscaling

import (
	"encoding/json"
	"fmt"
	"maps"

	v1 "k8s.io/api/autoscaling/v1"
	v2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
)

// What v1 has no field for is in annotations of its objects.
const (
	metricsAnnotation    = "autoscaling.alpha.kubernetes.io/metrics"
	behaviorAnnotation   = "autoscaling.alpha.kubernetes.io/behavior"
	currentAnnotation    = "autoscaling.alpha.kubernetes.io/current-metrics"
	conditionsAnnotation = "autoscaling.alpha.kubernetes.io/conditions"
)

var (
	specAnnotations   = []string{metricsAnnotation, behaviorAnnotation}
	statusAnnotations = []string{currentAnnotation, conditionsAnnotation}
)

// without returns a copy of all without keys.
func without(all map[string]string, keys []string) map[string]string {
	out := maps.Clone(all)
	for _, k := range keys {
		delete(out, k)
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// restored returns a copy of all in which keys are as in old.
func restored(all, old map[string]string, keys []string) map[string]string {
	out := without(all, keys)
	for _, k := range keys {
		if v, ok := old[k]; ok {
			if out == nil {
				out = map[string]string{}
			}
			out[k] = v
		}
	}
	return out
}

func toHub(obj runtime.Object) (runtime.Object, error) {
	return toV2(obj.(*v1.HorizontalPodAutoscaler))
}

func toV2(a *v1.HorizontalPodAutoscaler) (*v2.HorizontalPodAutoscaler, error) {
	in := a.DeepCopy()
	out := &v2.HorizontalPodAutoscaler{
		ObjectMeta: in.ObjectMeta,
		Spec: v2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: v2.CrossVersionObjectReference(in.Spec.ScaleTargetRef),
			MinReplicas:    in.Spec.MinReplicas,
			MaxReplicas:    in.Spec.MaxReplicas,
		},
		Status: v2.HorizontalPodAutoscalerStatus{
			ObservedGeneration: in.Status.ObservedGeneration,
			LastScaleTime:      in.Status.LastScaleTime,
			CurrentReplicas:    in.Status.CurrentReplicas,
			DesiredReplicas:    in.Status.DesiredReplicas,
		},
	}
	if err := decode(in.Annotations, metricsAnnotation, func(list []v1.MetricSpec) {
		for i := range list {
			out.Spec.Metrics = append(out.Spec.Metrics, metricToV2(&list[i]))
		}
	}); err != nil {
		return nil, err
	}
	if target := in.Spec.TargetCPUUtilizationPercentage; target != nil {
		out.Spec.Metrics = append(out.Spec.Metrics, v2.MetricSpec{
			Type: v2.ResourceMetricSourceType,
			Resource: &v2.ResourceMetricSource{
				Name:   corev1.ResourceCPU,
				Target: v2.MetricTarget{Type: v2.UtilizationMetricType, AverageUtilization: target},
			},
		})
	}
	if err := decode(in.Annotations, behaviorAnnotation, func(b *behavior) { out.Spec.Behavior = b.toV2() }); err != nil {
		return nil, err
	}
	if err := decode(in.Annotations, currentAnnotation, func(list []v1.MetricStatus) {
		for i := range list {
			out.Status.CurrentMetrics = append(out.Status.CurrentMetrics, statusToV2(&list[i]))
		}
	}); err != nil {
		return nil, err
	}
	if out.Status.CurrentMetrics == nil && in.Status.CurrentCPUUtilizationPercentage != nil {
		out.Status.CurrentMetrics = []v2.MetricStatus{{
			Type: v2.ResourceMetricSourceType,
			Resource: &v2.ResourceMetricStatus{
				Name:    corev1.ResourceCPU,
				Current: v2.MetricValueStatus{AverageUtilization: in.Status.CurrentCPUUtilizationPercentage},
			},
		}}
	}
	if err := decode(in.Annotations, conditionsAnnotation, func(list []v1.HorizontalPodAutoscalerCondition) {
		for _, c := range list {
			out.Status.Conditions = append(out.Status.Conditions, v2.HorizontalPodAutoscalerCondition{
				Type: v2.HorizontalPodAutoscalerConditionType(c.Type), Status: c.Status, LastTransitionTime: c.LastTransitionTime,
				Reason: c.Reason, Message: c.Message, ObservedGeneration: c.ObservedGeneration,
			})
		}
	}); err != nil {
		return nil, err
	}
	out.Annotations = without(without(in.Annotations, specAnnotations), statusAnnotations)
	setDefaults(out)
	return out, nil
}

func fromHub(hub runtime.Object) (runtime.Object, error) {
	in := hub.(*v2.HorizontalPodAutoscaler).DeepCopy()
	out := &v1.HorizontalPodAutoscaler{
		ObjectMeta: in.ObjectMeta,
		Spec: v1.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: v1.CrossVersionObjectReference(in.Spec.ScaleTargetRef),
			MinReplicas:    in.Spec.MinReplicas,
			MaxReplicas:    in.Spec.MaxReplicas,
		},
		Status: v1.HorizontalPodAutoscalerStatus{
			ObservedGeneration: in.Status.ObservedGeneration,
			LastScaleTime:      in.Status.LastScaleTime,
			CurrentReplicas:    in.Status.CurrentReplicas,
			DesiredReplicas:    in.Status.DesiredReplicas,
		},
	}
	out.Annotations = without(without(in.Annotations, specAnnotations), statusAnnotations)
	var others []v1.MetricSpec
	for i := range in.Spec.Metrics {
		m := &in.Spec.Metrics[i]
		if m.Type == v2.ResourceMetricSourceType && m.Resource != nil && m.Resource.Name == corev1.ResourceCPU && m.Resource.Target.AverageUtilization != nil {
			if out.Spec.TargetCPUUtilizationPercentage == nil {
				out.Spec.TargetCPUUtilizationPercentage = m.Resource.Target.AverageUtilization
			}
			continue
		}
		others = append(others, metricFromV2(m))
	}
	// The status keeps even what has a field, for its absolute value.
	var current []v1.MetricStatus
	for i := range in.Status.CurrentMetrics {
		m := &in.Status.CurrentMetrics[i]
		if m.Type == v2.ResourceMetricSourceType && m.Resource != nil && m.Resource.Name == corev1.ResourceCPU && m.Resource.Current.AverageUtilization != nil {
			out.Status.CurrentCPUUtilizationPercentage = m.Resource.Current.AverageUtilization
		}
		current = append(current, statusFromV2(m))
	}
	var conditions []v1.HorizontalPodAutoscalerCondition
	for _, c := range in.Status.Conditions {
		conditions = append(conditions, v1.HorizontalPodAutoscalerCondition{
			Type: v1.HorizontalPodAutoscalerConditionType(c.Type), Status: c.Status, LastTransitionTime: c.LastTransitionTime,
			Reason: c.Reason, Message: c.Message, ObservedGeneration: c.ObservedGeneration,
		})
	}
	for _, a := range []struct {
		key   string
		value any
		has   bool
	}{
		{metricsAnnotation, others, len(others) > 0},
		{behaviorAnnotation, behaviorFromV2(in.Spec.Behavior), in.Spec.Behavior != nil},
		{currentAnnotation, current, len(current) > 0},
		{conditionsAnnotation, conditions, len(conditions) > 0},
	} {
		if !a.has {
			continue
		}
		text, err := json.Marshal(a.value)
		if err != nil {
			return nil, fmt.Errorf("annotation %s: %w", a.key, err)
		}
		if out.Annotations == nil {
			out.Annotations = map[string]string{}
		}
		out.Annotations[a.key] = string(text)
	}
	return out, nil
}

// decode hands the annotation's value to use, if there is one.
func decode[T any](annotations map[string]string, key string, use func(T)) error {
	text, ok := annotations[key]
	if !ok {
		return nil
	}
	var v T
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		return fmt.Errorf("annotation %s: %w", key, err)
	}
	use(v)
	return nil
}

// behavior and the types below are the annotation's form of v2's behavior;
// its keys begin with capitals.
type behavior struct{ ScaleUp, ScaleDown *scalingRules }

type scalingRules struct {
	StabilizationWindowSeconds *int32
	SelectPolicy               *v2.ScalingPolicySelect
	Policies                   []scalingPolicy
	Tolerance                  *resource.Quantity
}

type scalingPolicy struct {
	Type          v2.HPAScalingPolicyType
	Value         int32
	PeriodSeconds int32
}

func (b *behavior) toV2() *v2.HorizontalPodAutoscalerBehavior {
	if b == nil {
		return nil
	}
	return &v2.HorizontalPodAutoscalerBehavior{ScaleUp: b.ScaleUp.toV2(), ScaleDown: b.ScaleDown.toV2()}
}

func (r *scalingRules) toV2() *v2.HPAScalingRules {
	if r == nil {
		return nil
	}
	out := &v2.HPAScalingRules{StabilizationWindowSeconds: r.StabilizationWindowSeconds, SelectPolicy: r.SelectPolicy, Tolerance: r.Tolerance}
	for _, p := range r.Policies {
		out.Policies = append(out.Policies, v2.HPAScalingPolicy(p))
	}
	return out
}

func behaviorFromV2(b *v2.HorizontalPodAutoscalerBehavior) *behavior {
	if b == nil {
		return nil
	}
	return &behavior{ScaleUp: rulesFromV2(b.ScaleUp), ScaleDown: rulesFromV2(b.ScaleDown)}
}

func rulesFromV2(r *v2.HPAScalingRules) *scalingRules {
	if r == nil {
		return nil
	}
	out := &scalingRules{StabilizationWindowSeconds: r.StabilizationWindowSeconds, SelectPolicy: r.SelectPolicy, Tolerance: r.Tolerance}
	for _, p := range r.Policies {
		out.Policies = append(out.Policies, scalingPolicy(p))
	}
	return out
}

// target returns v2's target of a v1 metric: an average wins over the value.
func target(value, average *resource.Quantity, utilization *int32) v2.MetricTarget {
	t := v2.MetricTarget{Type: v2.ValueMetricType, Value: value, AverageValue: average, AverageUtilization: utilization}
	switch {
	case utilization != nil:
		t.Type = v2.UtilizationMetricType
	case average != nil:
		t.Type = v2.AverageValueMetricType
	}
	return t
}

func metricToV2(m *v1.MetricSpec) v2.MetricSpec {
	out := v2.MetricSpec{Type: v2.MetricSourceType(m.Type)}
	if o := m.Object; o != nil {
		value := &o.TargetValue
		if value.IsZero() && o.AverageValue != nil {
			value = nil
		}
		out.Object = &v2.ObjectMetricSource{
			DescribedObject: v2.CrossVersionObjectReference(o.Target),
			Metric:          v2.MetricIdentifier{Name: o.MetricName, Selector: o.Selector},
			Target:          target(value, o.AverageValue, nil),
		}
	}
	if p := m.Pods; p != nil {
		out.Pods = &v2.PodsMetricSource{
			Metric: v2.MetricIdentifier{Name: p.MetricName, Selector: p.Selector},
			Target: target(nil, &p.TargetAverageValue, nil),
		}
	}
	if r := m.Resource; r != nil {
		out.Resource = &v2.ResourceMetricSource{Name: r.Name, Target: target(nil, r.TargetAverageValue, r.TargetAverageUtilization)}
	}
	if r := m.ContainerResource; r != nil {
		out.ContainerResource = &v2.ContainerResourceMetricSource{
			Name: r.Name, Container: r.Container, Target: target(nil, r.TargetAverageValue, r.TargetAverageUtilization),
		}
	}
	if e := m.External; e != nil {
		out.External = &v2.ExternalMetricSource{
			Metric: v2.MetricIdentifier{Name: e.MetricName, Selector: e.MetricSelector},
			Target: target(e.TargetValue, e.TargetAverageValue, nil),
		}
	}
	return out
}

func metricFromV2(m *v2.MetricSpec) v1.MetricSpec {
	out := v1.MetricSpec{Type: v1.MetricSourceType(m.Type)}
	if o := m.Object; o != nil {
		out.Object = &v1.ObjectMetricSource{
			Target:       v1.CrossVersionObjectReference(o.DescribedObject),
			MetricName:   o.Metric.Name,
			Selector:     o.Metric.Selector,
			TargetValue:  ptr.Deref(o.Target.Value, resource.Quantity{}),
			AverageValue: o.Target.AverageValue,
		}
	}
	if p := m.Pods; p != nil {
		out.Pods = &v1.PodsMetricSource{
			MetricName: p.Metric.Name, Selector: p.Metric.Selector,
			TargetAverageValue: ptr.Deref(p.Target.AverageValue, resource.Quantity{}),
		}
	}
	if r := m.Resource; r != nil {
		out.Resource = &v1.ResourceMetricSource{
			Name: r.Name, TargetAverageUtilization: r.Target.AverageUtilization, TargetAverageValue: r.Target.AverageValue,
		}
	}
	if r := m.ContainerResource; r != nil {
		out.ContainerResource = &v1.ContainerResourceMetricSource{
			Name: r.Name, Container: r.Container,
			TargetAverageUtilization: r.Target.AverageUtilization, TargetAverageValue: r.Target.AverageValue,
		}
	}
	if e := m.External; e != nil {
		out.External = &v1.ExternalMetricSource{
			MetricName: e.Metric.Name, MetricSelector: e.Metric.Selector,
			TargetValue: e.Target.Value, TargetAverageValue: e.Target.AverageValue,
		}
	}
	return out
}

func statusToV2(m *v1.MetricStatus) v2.MetricStatus {
	out := v2.MetricStatus{Type: v2.MetricSourceType(m.Type)}
	if o := m.Object; o != nil {
		out.Object = &v2.ObjectMetricStatus{
			DescribedObject: v2.CrossVersionObjectReference(o.Target),
			Metric:          v2.MetricIdentifier{Name: o.MetricName, Selector: o.Selector},
			Current:         v2.MetricValueStatus{Value: &o.CurrentValue, AverageValue: o.AverageValue},
		}
	}
	if p := m.Pods; p != nil {
		out.Pods = &v2.PodsMetricStatus{
			Metric:  v2.MetricIdentifier{Name: p.MetricName, Selector: p.Selector},
			Current: v2.MetricValueStatus{AverageValue: &p.CurrentAverageValue},
		}
	}
	if r := m.Resource; r != nil {
		out.Resource = &v2.ResourceMetricStatus{Name: r.Name, Current: v2.MetricValueStatus{
			AverageValue: &r.CurrentAverageValue, AverageUtilization: r.CurrentAverageUtilization,
		}}
	}
	if r := m.ContainerResource; r != nil {
		out.ContainerResource = &v2.ContainerResourceMetricStatus{Name: r.Name, Container: r.Container, Current: v2.MetricValueStatus{
			AverageValue: &r.CurrentAverageValue, AverageUtilization: r.CurrentAverageUtilization,
		}}
	}
	if e := m.External; e != nil {
		out.External = &v2.ExternalMetricStatus{
			Metric:  v2.MetricIdentifier{Name: e.MetricName, Selector: e.MetricSelector},
			Current: v2.MetricValueStatus{Value: &e.CurrentValue, AverageValue: e.CurrentAverageValue},
		}
	}
	return out
}

func statusFromV2(m *v2.MetricStatus) v1.MetricStatus {
	out := v1.MetricStatus{Type: v1.MetricSourceType(m.Type)}
	zero := resource.Quantity{}
	if o := m.Object; o != nil {
		out.Object = &v1.ObjectMetricStatus{
			Target: v1.CrossVersionObjectReference(o.DescribedObject), MetricName: o.Metric.Name, Selector: o.Metric.Selector,
			CurrentValue: ptr.Deref(o.Current.Value, zero), AverageValue: o.Current.AverageValue,
		}
	}
	if p := m.Pods; p != nil {
		out.Pods = &v1.PodsMetricStatus{
			MetricName: p.Metric.Name, Selector: p.Metric.Selector, CurrentAverageValue: ptr.Deref(p.Current.AverageValue, zero),
		}
	}
	if r := m.Resource; r != nil {
		out.Resource = &v1.ResourceMetricStatus{
			Name: r.Name, CurrentAverageUtilization: r.Current.AverageUtilization, CurrentAverageValue: ptr.Deref(r.Current.AverageValue, zero),
		}
	}
	if r := m.ContainerResource; r != nil {
		out.ContainerResource = &v1.ContainerResourceMetricStatus{
			Name: r.Name, Container: r.Container,
			CurrentAverageUtilization: r.Current.AverageUtilization, CurrentAverageValue: ptr.Deref(r.Current.AverageValue, zero),
		}
	}
	if e := m.External; e != nil {
		out.External = &v1.ExternalMetricStatus{
			MetricName: e.Metric.Name, MetricSelector: e.Metric.Selector,
			CurrentValue: ptr.Deref(e.Current.Value, zero), CurrentAverageValue: e.Current.AverageValue,
		}
	}
	return out
}
