package volume

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"
)

// Buckets are those of the times that operations on volumes take, in seconds.
var Buckets = []float64{.1, .25, .5, 1, 2.5, 5, 10, 15, 25, 50, 120, 300, 600}

// Metrics observes operations on volumes.
type Metrics struct{ operations *prometheus.HistogramVec }

// NewMetrics makes the metrics, which r shows.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "storage_operation_duration_seconds", Help: "Storage operation duration", Buckets: Buckets},
		[]string{"volume_plugin", "operation_name", "status", "migrated"})}
	r.MustRegister(m.operations)
	return m
}

// done observes an operation, unless m is nil.
func (m *Metrics) done(plugin, operation string, migrated bool, took time.Duration, err error) {
	if m == nil {
		return
	}
	status := "success"
	if err != nil {
		status = "fail-unknown"
	}
	m.operations.WithLabelValues(plugin, operation, status, strconv.FormatBool(migrated)).Observe(took.Seconds())
}

// label returns the name of the volume's plug-in in the metrics: a CSI driver's has the
// driver's, too.
func (s *Spec) label(p Plugin) string {
	switch {
	case s.Persistent != nil && s.Persistent.Spec.CSI != nil:
		return p.Name() + ":" + s.Persistent.Spec.CSI.Driver
	case s.Persistent == nil && s.Volume.CSI != nil:
		return p.Name() + ":" + s.Volume.CSI.Driver
	}
	return p.Name()
}

// kind is what is known of a volume for the metrics: its plug-in, and whether it is ready.
type kind struct {
	plugin string
	ready  bool
}

// note takes what is known of a volume of a pod, which remains ready once it is.
func (m *Manager) note(uid types.UID, name string, k kind) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.pods[uid]
	if p == nil {
		return // its volumes are taken down
	}
	if p.kinds == nil {
		p.kinds = map[string]kind{}
	}
	k.ready = k.ready || p.kinds[name].ready
	p.kinds[name] = k
}

var total = prometheus.NewDesc("volume_manager_total_volumes", "Number of volumes in Volume Manager", []string{"plugin_name", "state"}, nil)

// Describe implements prometheus.Collector.
func (m *Manager) Describe(out chan<- *prometheus.Desc) { out <- total }

// Collect implements prometheus.Collector: it counts the volumes that pods are to have, and those
// that they have.
func (m *Manager) Collect(out chan<- prometheus.Metric) {
	wanted, ready := map[string]int{}, map[string]int{}
	m.mu.Lock()
	for _, p := range m.pods {
		for _, k := range p.kinds {
			wanted[k.plugin]++
			if k.ready {
				ready[k.plugin]++
			}
		}
	}
	m.mu.Unlock()
	for plugin := range wanted {
		out <- prometheus.MustNewConstMetric(total, prometheus.GaugeValue, float64(wanted[plugin]), plugin, "desired_state_of_world")
		out <- prometheus.MustNewConstMetric(total, prometheus.GaugeValue, float64(ready[plugin]), plugin, "actual_state_of_world")
	}
}
