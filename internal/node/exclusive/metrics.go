package exclusive

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	v1 "k8s.io/api/core/v1"

	"keelson.dev/keelson/internal/node/topology"
)

// metrics are a kubelet's of what containers have for themselves.
type metrics struct {
	requests, errors prometheus.Counter
	duration         prometheus.Histogram
}

// register makes the metrics, and registers them.
func (m *Manager) register(r prometheus.Registerer) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Subsystem: "kubelet", Name: name, Help: help})
	}
	m.metrics = metrics{
		requests: counter("topology_manager_admission_requests_total", "The number of admission requests where resources have to be aligned."),
		errors:   counter("topology_manager_admission_errors_total", "The number of admission request failures where resources could not be aligned."),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{Subsystem: "kubelet", Name: "topology_manager_admission_duration_ms",
			Help: "Duration in milliseconds to serve a pod admission request.", Buckets: prometheus.ExponentialBuckets(.05, 2, 15)}),
	}
	gauge := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Subsystem: "kubelet", Name: name, Help: help}, f)
	}
	if r != nil {
		r.MustRegister(m.metrics.requests, m.metrics.errors, m.metrics.duration,
			gauge("cpu_manager_shared_pool_size_millicores", "The size of the shared CPU pool for non-guaranteed QoS pods, in millicores.", func() float64 { return float64(m.CPUs.Shared().Size()) * 1000 }),
			gauge("cpu_manager_exclusive_cpu_allocation_count", "The total number of CPUs exclusively allocated to containers running on this node", func() float64 { return float64(m.CPUs.Given()) }))
	}
}

// Admit gives the containers of a pod what each is to have for itself. The error is a
// topology.Refused where a policy or a provider does not want that; then the pod has
// nothing.
func (m *Manager) Admit(pod *v1.Pod) error {
	m.metrics.requests.Inc()
	begun := time.Now()
	err := m.Manager.Admit(pod)
	m.metrics.duration.Observe(float64(time.Since(begun)) / float64(time.Millisecond))
	if refused := (*topology.Refused)(nil); errors.As(err, &refused) && refused.Reason == topology.NotAligned {
		m.metrics.errors.Inc()
	}
	return err
}
