package horizontalpodautoscaler

import (
	"context"
	"errors"
	"fmt"

	v2 "k8s.io/api/autoscaling/v2"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/labels"
)

// question is the input for each metric of an autoscaler.
type question struct {
	hpa      *v2.HorizontalPodAutoscaler
	selector labels.Selector
	pods     []*v1.Pod
	// spec and status are how many replicas are wanted, and how many there are.
	spec, status int32
	within       tolerances
}

// answer is how many replicas a metric asks for, with its name in messages and its
// status.
type answer struct {
	replicas int32
	name     string
	status   v2.MetricStatus
}

// failure is the failure of a metric: the reason and the error of the condition
// ScalingActive and of an event, and the whole error.
type failure struct {
	reason string
	cause  error
	error
}

// milli returns a quantity of n thousandths.
func milli(n int64) *resource.Quantity { return resource.NewMilliQuantity(n, resource.DecimalSI) }

// amount returns a quantity of a resource, in the form of the metrics' API.
func amount(name v1.ResourceName, n int64) *resource.Quantity {
	if name == v1.ResourceMemory {
		return resource.NewMilliQuantity(n, resource.BinarySI)
	}
	return milli(n)
}

// ask returns the answer of one metric.
func (c *controller) ask(ctx context.Context, q question, m *v2.MetricSpec) (answer, *failure) {
	switch m.Type {
	case v2.ObjectMetricSourceType:
		a, err := c.object(q, m.Object)
		return a, failed("FailedGetObjectMetric", err, "failed to get object metric value: %w")
	case v2.PodsMetricSourceType:
		a, err := c.podMetric(q, m.Pods)
		return a, failed("FailedGetPodsMetric", err, "failed to get pods metric value: %w")
	case v2.ResourceMetricSourceType:
		a, status, err := c.resource(ctx, q, m.Resource.Name, "", &m.Resource.Target)
		a.status = v2.MetricStatus{Type: m.Type, Resource: &v2.ResourceMetricStatus{Name: m.Resource.Name, Current: status}}
		return a, failed("FailedGetResourceMetric", err, "failed to get "+string(m.Resource.Name)+" resource metric value: %w")
	case v2.ContainerResourceMetricSourceType:
		r := m.ContainerResource
		a, status, err := c.resource(ctx, q, r.Name, r.Container, &r.Target)
		a.status = v2.MetricStatus{Type: m.Type, ContainerResource: &v2.ContainerResourceMetricStatus{Name: r.Name, Container: r.Container, Current: status}}
		return a, failed("FailedGetContainerResourceMetric", err, "failed to get "+r.Container+" container metric value: %w")
	case v2.ExternalMetricSourceType:
		a, err := c.external(q, m.External)
		return a, failed("FailedGetExternalMetric", err, "failed to get "+m.External.Metric.Name+" external metric value: %w")
	}
	return answer{}, failed("InvalidMetricSourceType", fmt.Errorf("unknown metric source type %q", string(m.Type)), "%w")
}

// failed returns the failure for an error, nil without one. The event and condition of a
// failure to get a metric do not repeat the outer part of the error.
func failed(reason string, err error, format string) *failure {
	if err == nil {
		return nil
	}
	cause := err
	var inner *told
	if errors.As(err, &inner) {
		cause = inner.error
	}
	return &failure{reason, cause, fmt.Errorf(format, err)} //nolint:govet // the format is one of the above
}

// told is the part of an error that events and conditions tell.
type told struct{ error }

// Unwrap returns the error itself.
func (t *told) Unwrap() error { return t.error }

func (c *controller) resource(ctx context.Context, q question, name v1.ResourceName, container string, t *v2.MetricTarget) (answer, v2.MetricValueStatus, error) {
	var status v2.MetricValueStatus
	if t.AverageValue == nil && t.AverageUtilization == nil {
		return answer{}, status, errors.New("invalid resource metric source: neither an average utilization target nor an average value (usage) target was set")
	}
	what := "utilization"
	if t.AverageValue != nil {
		what = "usage"
	}
	m, err := c.source.resources(ctx, name, q.hpa.Namespace, q.selector, container)
	if err != nil {
		return answer{}, status, fmt.Errorf("failed to get %s %s: unable to get metrics for resource %s: %w", name, what, name, err)
	}
	if t.AverageValue != nil {
		want := t.AverageValue.MilliValue()
		n, got, err := replicas(q.pods, m, q.spec, target{resource: name, of: averaging(want), assumed: func(string) int64 { return want }, within: q.within, starts: c.starts()}, c.clock.Now())
		if err != nil {
			return answer{}, status, fmt.Errorf("failed to get %s %s: %w", name, what, err)
		}
		return answer{replicas: n, name: fmt.Sprintf("%s resource", name)}, v2.MetricValueStatus{AverageValue: amount(name, got.average)}, nil
	}
	n, got, err := replicas(q.pods, m, q.spec, utilization(q.pods, name, container, *t.AverageUtilization, q.within, c.starts()), c.clock.Now())
	if err != nil {
		return answer{}, status, fmt.Errorf("failed to get %s %s: %w", name, what, err)
	}
	kind := "resource"
	if container != "" {
		kind = "container resource"
	}
	return answer{replicas: n, name: fmt.Sprintf("%s %s utilization (percentage of request)", name, kind)},
		v2.MetricValueStatus{AverageUtilization: &got.percent, AverageValue: amount(name, got.average)}, nil
}

func (c *controller) podMetric(q question, m *v2.PodsMetricSource) (answer, error) {
	got, err := c.source.pods(m.Metric, q.hpa.Namespace, q.selector)
	if err != nil {
		return answer{}, fmt.Errorf("unable to get metric %s: %w", m.Metric.Name, err)
	}
	if m.Target.AverageValue == nil {
		return answer{}, errors.New("invalid pods metric source: no average value target was set")
	}
	want := m.Target.AverageValue.MilliValue()
	n, known, err := replicas(q.pods, got, q.spec, target{of: averaging(want), assumed: func(string) int64 { return want }, within: q.within, starts: c.starts()}, c.clock.Now())
	if err != nil {
		return answer{}, err
	}
	return answer{n, "pods metric " + m.Metric.Name, v2.MetricStatus{Type: v2.PodsMetricSourceType,
		Pods: &v2.PodsMetricStatus{Metric: m.Metric, Current: v2.MetricValueStatus{AverageValue: milli(known.average)}}}}, nil
}

func (c *controller) object(q question, m *v2.ObjectMetricSource) (answer, error) {
	status := func(v v2.MetricValueStatus) v2.MetricStatus {
		return v2.MetricStatus{Type: v2.ObjectMetricSourceType, Object: &v2.ObjectMetricStatus{Metric: m.Metric, DescribedObject: m.DescribedObject, Current: v}}
	}
	value := func() (int64, error) {
		v, err := c.source.object(m.Metric, q.hpa.Namespace, &m.DescribedObject)
		if err != nil {
			return 0, fmt.Errorf("unable to get metric %s on %s %s/%s: %w", m.Metric.Name, m.DescribedObject.Kind, q.hpa.Namespace, m.DescribedObject.Name, err)
		}
		return v, nil
	}
	switch {
	case m.Target.Type == v2.ValueMetricType && m.Target.Value != nil:
		v, err := value()
		if err != nil {
			return answer{}, err
		}
		n, err := byValue(v, m.Target.Value.MilliValue(), q.spec, q.pods, q.within)
		if err != nil {
			return answer{}, err
		}
		return answer{n, m.DescribedObject.Kind + " metric " + m.Metric.Name, status(v2.MetricValueStatus{Value: milli(v)})}, nil
	case m.Target.Type == v2.AverageValueMetricType && m.Target.AverageValue != nil:
		v, err := value()
		if err != nil {
			return answer{}, fmt.Errorf("failed to get %s object metric: %w", m.Metric.Name, &told{err})
		}
		n, each := byAverage(v, m.Target.AverageValue.MilliValue(), q.status, q.within)
		return answer{n, externalName(m.Metric), status(v2.MetricValueStatus{AverageValue: milli(each)})}, nil
	}
	return answer{}, errors.New("invalid object metric source: neither a value target nor an average value target was set")
}

// externalName returns how messages name an external metric, and, as upstream's do, one of
// an object whose target is an average.
func externalName(m v2.MetricIdentifier) string {
	return fmt.Sprintf("external metric %s(%+v)", m.Name, m.Selector)
}

func (c *controller) external(q question, m *v2.ExternalMetricSource) (answer, error) {
	status := func(v v2.MetricValueStatus) v2.MetricStatus {
		return v2.MetricStatus{Type: v2.ExternalMetricSourceType, External: &v2.ExternalMetricStatus{Metric: m.Metric, Current: v}}
	}
	value := func() (int64, error) {
		v, err := c.source.outside(m.Metric, q.hpa.Namespace)
		if err != nil {
			return 0, fmt.Errorf("unable to get external metric %s/%s/%+v: %w", q.hpa.Namespace, m.Metric.Name, m.Metric.Selector, err)
		}
		return v, nil
	}
	switch {
	case m.Target.AverageValue != nil:
		v, err := value()
		if err != nil {
			return answer{}, fmt.Errorf("failed to get %s external metric: %w", m.Metric.Name, &told{err})
		}
		n, each := byAverage(v, m.Target.AverageValue.MilliValue(), q.status, q.within)
		return answer{n, externalName(m.Metric), status(v2.MetricValueStatus{AverageValue: milli(each)})}, nil
	case m.Target.Value != nil:
		v, err := value()
		if err == nil {
			var n int32
			if n, err = byValue(v, m.Target.Value.MilliValue(), q.spec, q.pods, q.within); err == nil {
				return answer{n, externalName(m.Metric), status(v2.MetricValueStatus{Value: milli(v)})}, nil
			}
		}
		return answer{}, fmt.Errorf("failed to get external metric %s: %w", m.Metric.Name, &told{err})
	}
	return answer{}, errors.New("invalid external metric source: neither a value target nor an average value target was set")
}
