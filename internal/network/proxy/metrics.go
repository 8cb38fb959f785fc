package proxy

import (
	"sync"

	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
)

// The metrics have the names of upstream's kube-proxy.
const subsystem = "kubeproxy"

var (
	syncDuration = metrics.NewHistogram(&metrics.HistogramOpts{Subsystem: subsystem, Name: "sync_proxy_rules_duration_seconds",
		Help: "SyncProxyRules latency in seconds", Buckets: metrics.ExponentialBuckets(0.001, 2, 15), StabilityLevel: metrics.ALPHA})
	programming = metrics.NewHistogram(&metrics.HistogramOpts{Subsystem: subsystem, Name: "network_programming_duration_seconds",
		Help: "In Cluster Network Programming Latency in seconds", Buckets: metrics.ExponentialBuckets(0.001, 2, 19), StabilityLevel: metrics.ALPHA})
	lastSync = metrics.NewGauge(&metrics.GaugeOpts{Subsystem: subsystem, Name: "sync_proxy_rules_last_timestamp_seconds",
		Help: "The last time proxy rules were successfully synced", StabilityLevel: metrics.ALPHA})
	lastQueued = metrics.NewGauge(&metrics.GaugeOpts{Subsystem: subsystem, Name: "sync_proxy_rules_last_queued_timestamp_seconds",
		Help: "The last time a sync of proxy rules was queued", StabilityLevel: metrics.ALPHA})
	endpointChanges = metrics.NewCounter(&metrics.CounterOpts{Subsystem: subsystem, Name: "sync_proxy_rules_endpoint_changes_total",
		Help: "Cumulative proxy rules Endpoint changes", StabilityLevel: metrics.ALPHA})
	serviceChanges = metrics.NewCounter(&metrics.CounterOpts{Subsystem: subsystem, Name: "sync_proxy_rules_service_changes_total",
		Help: "Cumulative proxy rules Service changes", StabilityLevel: metrics.ALPHA})
	syncFailures = metrics.NewCounterVec(&metrics.CounterOpts{Subsystem: subsystem, Name: "sync_proxy_rules_nftables_sync_failures_total",
		Help: "Cumulative proxy nftables sync failures", StabilityLevel: metrics.ALPHA}, []string{"ip_family"})
	healthzTotal = metrics.NewCounterVec(&metrics.CounterOpts{Subsystem: subsystem, Name: "proxy_healthz_total",
		Help: "Cumulative proxy healthz HTTP status", StabilityLevel: metrics.ALPHA}, []string{"code"})
	livezTotal = metrics.NewCounterVec(&metrics.CounterOpts{Subsystem: subsystem, Name: "proxy_livez_total",
		Help: "Cumulative proxy livez HTTP status", StabilityLevel: metrics.ALPHA}, []string{"code"})
)

var registerMetrics = sync.OnceFunc(func() {
	legacyregistry.MustRegister(syncDuration, programming, lastSync, lastQueued, endpointChanges, serviceChanges, syncFailures, healthzTotal, livezTotal)
})
