package apiserver

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"keelson.dev/keelson/internal/api"
)

// metrics are the server's own, under upstream's names.
type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	watches  *prometheus.GaugeVec
}

func newMetrics(reg *prometheus.Registry) *metrics {
	labels := []string{"verb", "group", "version", "resource", "subresource", "scope"}
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apiserver_request_total",
			Help: "Counter of apiserver requests broken out for each verb, group, version, resource, scope, subresource and HTTP response code.",
		}, append(labels[:len(labels):len(labels)], "code")),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "apiserver_request_duration_seconds",
			Help:    "Response latency distribution in seconds for each verb, group, version, resource, subresource and scope.",
			Buckets: []float64{0.001, 0.005, 0.025, 0.1, 0.5, 1, 5, 30, 60},
		}, labels),
		watches: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "apiserver_longrunning_requests",
			Help: "Gauge of all active long-running apiserver requests broken out by verb, group, version and resource.",
		}, []string{"verb", "group", "version", "resource"}),
	}
	reg.MustRegister(m.requests, m.duration, m.watches)
	return m
}

func (m *metrics) observe(r *call, took time.Duration) {
	i := r.info
	if !i.IsResourceRequest || r.row == nil {
		return
	}
	verb := map[string]string{"get": "GET", "list": "LIST", "watch": "WATCH", "create": "POST", "update": "PUT", "patch": "PATCH", "delete": "DELETE", "deletecollection": "DELETECOLLECTION"}[i.Verb]
	scope := "cluster"
	switch {
	case i.Name != "":
		scope = "resource"
	case i.Namespace != "":
		scope = "namespace"
	}
	m.requests.WithLabelValues(verb, i.APIGroup, i.APIVersion, i.Resource, i.Subresource, scope, strconv.Itoa(r.code)).Inc()
	if verb != "WATCH" {
		m.duration.WithLabelValues(verb, i.APIGroup, i.APIVersion, i.Resource, i.Subresource, scope).Observe(took.Seconds())
	}
}

func (m *metrics) watching(row *api.Resource, n float64) {
	m.watches.WithLabelValues("WATCH", row.Group, row.Version, row.Resource).Add(n)
}
