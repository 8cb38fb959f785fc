package horizontalpodautoscaler

import (
	"time"

	v2 "k8s.io/api/autoscaling/v2"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the controller's own, under upstream's names.
type metrics struct {
	reconciliations, computations       *prometheus.CounterVec
	reconciliationTime, computationTime *prometheus.HistogramVec
	count                               prometheus.Gauge
	desired                             *prometheus.GaugeVec
}

// Values of the labels action and error.
const (
	none      = "none"
	scaleUp   = "scale_up"
	scaleDown = "scale_down"
	specError = "spec"
	internal  = "internal"
)

// newMetrics makes the metrics, and registers them unless r is nil.
func newMetrics(r prometheus.Registerer) *metrics {
	const subsystem = "horizontal_pod_autoscaler_controller"
	const labels = " The label 'action' should be either 'scale_down', 'scale_up', or 'none'. Also, the label 'error' should be either 'spec', 'internal', or 'none'."
	buckets := prometheus.ExponentialBuckets(0.001, 2, 15)
	m := &metrics{
		reconciliations: prometheus.NewCounterVec(prometheus.CounterOpts{Subsystem: subsystem, Name: "reconciliations_total",
			Help: "Number of reconciliations of HPA controller." + labels}, []string{"action", "error"}),
		reconciliationTime: prometheus.NewHistogramVec(prometheus.HistogramOpts{Subsystem: subsystem, Name: "reconciliation_duration_seconds",
			Help: "The time(seconds) that the HPA controller takes to reconcile once." + labels, Buckets: buckets}, []string{"action", "error"}),
		computations: prometheus.NewCounterVec(prometheus.CounterOpts{Subsystem: subsystem, Name: "metric_computation_total",
			Help: "Number of metric computations." + labels}, []string{"action", "error", "metric_type"}),
		computationTime: prometheus.NewHistogramVec(prometheus.HistogramOpts{Subsystem: subsystem, Name: "metric_computation_duration_seconds",
			Help: "The time(seconds) that the HPA controller takes to calculate one metric." + labels, Buckets: buckets}, []string{"action", "error", "metric_type"}),
		count: prometheus.NewGauge(prometheus.GaugeOpts{Subsystem: subsystem, Name: "num_horizontal_pod_autoscalers", Help: "Current number of controlled HPA objects."}),
		desired: prometheus.NewGaugeVec(prometheus.GaugeOpts{Subsystem: subsystem, Name: "desired_replicas", Help: "Current desired replica count for HPA objects."},
			[]string{"namespace", "hpa_name"}),
	}
	if r != nil {
		r.MustRegister(m.reconciliations, m.reconciliationTime, m.computations, m.computationTime, m.count, m.desired)
	}
	return m
}

// action returns the label of a change.
func action(from, to int32) string {
	switch {
	case to > from:
		return scaleUp
	case to < from:
		return scaleDown
	}
	return none
}

func (m *metrics) reconciled(action, failure string, took time.Duration) {
	m.reconciliations.WithLabelValues(action, failure).Inc()
	m.reconciliationTime.WithLabelValues(action, failure).Observe(took.Seconds())
}

func (m *metrics) computed(action, failure string, kind v2.MetricSourceType, took time.Duration) {
	m.computations.WithLabelValues(action, failure, string(kind)).Inc()
	m.computationTime.WithLabelValues(action, failure, string(kind)).Observe(took.Seconds())
}
