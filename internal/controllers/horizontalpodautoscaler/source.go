package horizontalpodautoscaler

import (
	"context"
	"errors"
	"fmt"
	"time"

	v2 "k8s.io/api/autoscaling/v2"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	customv1beta2 "k8s.io/metrics/pkg/apis/custom_metrics/v1beta2"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	resourceclient "k8s.io/metrics/pkg/client/clientset/versioned/typed/metrics/v1beta1"
	customclient "k8s.io/metrics/pkg/client/custom_metrics"
	externalclient "k8s.io/metrics/pkg/client/external_metrics"
)

// source has the clients of the metrics' APIs. All values are in thousandths.
type source struct {
	resource resourceclient.PodMetricsesGetter
	custom   customclient.CustomMetricsClient
	external externalclient.ExternalMetricsClient
}

// sample is a pod's value of a metric.
type sample struct {
	value  int64
	at     time.Time
	window time.Duration
}

// samples are by the pods' names.
type samples map[string]sample

// defaultWindow is the time over which a custom metric is measured that does not
// say it.
const defaultWindow = time.Minute

// resources returns what the selected pods use of a resource, or one of their
// containers if it is named. A pod that is not known in full is left out.
func (s *source) resources(ctx context.Context, resource v1.ResourceName, namespace string, selector labels.Selector, container string) (samples, error) {
	list, err := s.resource.PodMetricses(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector.String()})
	if err != nil {
		return nil, fmt.Errorf("unable to fetch metrics from resource metrics API: %w", err)
	}
	if len(list.Items) == 0 {
		return nil, errors.New("no metrics returned from resource metrics API")
	}
	out := make(samples, len(list.Items))
	for i := range list.Items {
		m := &list.Items[i]
		if value, ok := usage(m, resource, container); ok {
			out[m.Name] = sample{value, m.Timestamp.Time, m.Window.Duration}
		}
	}
	return out, nil
}

func usage(m *metricsv1beta1.PodMetrics, resource v1.ResourceName, container string) (sum int64, ok bool) {
	for i := range m.Containers {
		c := &m.Containers[i]
		if container != "" && c.Name != container {
			continue
		}
		q, known := c.Usage[resource]
		if !known {
			return 0, false
		}
		sum, ok = sum+q.MilliValue(), true
	}
	return sum, ok
}

// pods returns a custom metric of the selected pods.
func (s *source) pods(metric v2.MetricIdentifier, namespace string, selector labels.Selector) (samples, error) {
	of, err := metav1.LabelSelectorAsSelector(metric.Selector)
	if err != nil {
		return nil, err
	}
	list, err := s.custom.NamespacedMetrics(namespace).GetForObjects(schema.GroupKind{Kind: "Pod"}, selector, metric.Name, of)
	if err != nil {
		return nil, fmt.Errorf("unable to fetch metrics from custom metrics API: %w", err)
	}
	if len(list.Items) == 0 {
		return nil, errors.New("no metrics returned from custom metrics API")
	}
	out := make(samples, len(list.Items))
	for i := range list.Items {
		m := &list.Items[i]
		window := defaultWindow
		if m.WindowSeconds != nil {
			window = time.Duration(*m.WindowSeconds) * time.Second
		}
		out[m.DescribedObject.Name] = sample{m.Value.MilliValue(), m.Timestamp.Time, window}
	}
	return out, nil
}

// object returns a custom metric of an object.
func (s *source) object(metric v2.MetricIdentifier, namespace string, ref *v2.CrossVersionObjectReference) (int64, error) {
	of, err := metav1.LabelSelectorAsSelector(metric.Selector)
	if err != nil {
		return 0, err
	}
	var m *customv1beta2.MetricValue
	kind := schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind).GroupKind()
	if kind == (schema.GroupKind{Kind: "Namespace"}) {
		// It is the autoscaler's own, whatever is named.
		m, err = s.custom.RootScopedMetrics().GetForObject(kind, namespace, metric.Name, of)
	} else {
		m, err = s.custom.NamespacedMetrics(namespace).GetForObject(kind, ref.Name, metric.Name, of)
	}
	if err != nil {
		return 0, fmt.Errorf("unable to fetch metrics from custom metrics API: %w", err)
	}
	return m.Value.MilliValue(), nil
}

// outside returns the sum of the values of an external metric.
func (s *source) outside(metric v2.MetricIdentifier, namespace string) (int64, error) {
	of, err := metav1.LabelSelectorAsSelector(metric.Selector)
	if err != nil {
		return 0, err
	}
	list, err := s.external.NamespacedMetrics(namespace).List(metric.Name, of)
	if err != nil {
		return 0, fmt.Errorf("unable to fetch metrics from external metrics API: %w", err)
	}
	if len(list.Items) == 0 {
		return 0, errors.New("no metrics returned from external metrics API")
	}
	sum := int64(0)
	for i := range list.Items {
		sum = saturated(sum, list.Items[i].Value.MilliValue())
	}
	return sum, nil
}
