package nodemetrics

import (
	"math"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// podMetrics are those of the course of pods and their images.
type podMetrics struct {
	start, startTotal, startSLI, statusSync   prometheus.Histogram
	sync                                      *prometheus.HistogramVec
	relist, relistInterval                    prometheus.Histogram
	relistSeen                                prometheus.Gauge
	pull                                      *prometheus.HistogramVec
	orphaned                                  prometheus.Counter
	volumesAsked, volumesMounted, volumesFail prometheus.Counter
	infeasible, accepted                      *prometheus.CounterVec
	containers, workerStart                   prometheus.Histogram
	resize                                    *prometheus.HistogramVec
	userns, usernsErrors                      prometheus.Counter

	mu         sync.Mutex
	lastRelist time.Time
}

// startBuckets are those of the times that pods take to start, in seconds.
var startBuckets = []float64{0.5, 1, 2, 3, 4, 5, 6, 8, 10, 20, 30, 45, 60, 120, 180, 240, 300, 360, 480, 600, 900, 1200, 1800, 2700, 3600}

// sizes are the classes of images by their size in bytes.
var sizes = []struct {
	most  uint64
	class string
}{{10 << 20, "0-10MB"}, {100 << 20, "10MB-100MB"}, {500 << 20, "100MB-500MB"}, {1 << 30, "500MB-1GB"}, {5 << 30, "1GB-5GB"}, {10 << 30, "5GB-10GB"},
	{20 << 30, "10GB-20GB"}, {30 << 30, "20GB-30GB"}, {40 << 30, "30GB-40GB"}, {60 << 30, "40GB-60GB"}, {100 << 30, "60GB-100GB"}, {math.MaxUint64, "GT100GB"}}

func newPodMetrics(r prometheus.Registerer) *podMetrics {
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Subsystem: "kubelet", Name: name, Help: help, Buckets: buckets}, labels)
		r.MustRegister(h)
		return h
	}
	one := func(name, help string, buckets []float64) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Subsystem: "kubelet", Name: name, Help: help, Buckets: buckets})
		r.MustRegister(h)
		return h
	}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Subsystem: "kubelet", Name: name, Help: help})
		r.MustRegister(c)
		return c
	}
	m := &podMetrics{
		start:          one("pod_start_duration_seconds", "Duration in seconds from kubelet seeing a pod for the first time to the pod starting to run", startBuckets),
		startTotal:     one("pod_start_total_duration_seconds", "Duration in seconds to start a pod since creation, including time to pull images and run init containers, measured from pod creation timestamp to when all its containers are reported as started and observed via watch", startBuckets),
		startSLI:       one("pod_start_sli_duration_seconds", "Duration in seconds to start a pod, excluding time to pull images and run init containers, measured from pod creation timestamp to when all its containers are reported as started and observed via watch", startBuckets),
		statusSync:     one("pod_status_sync_duration_seconds", "Duration in seconds to sync a pod status update. Measures time from detection of a change to pod status until the API is successfully updated for that pod, even if multiple intevening changes to pod status occur.", []float64{0.010, 0.050, 0.100, 0.500, 1, 5, 10, 20, 30, 45, 60}),
		sync:           histogram("pod_worker_duration_seconds", "Duration in seconds to sync a single pod. Broken down by operation type: create, update, or sync", prometheus.DefBuckets, "operation_type"),
		relist:         one("pleg_relist_duration_seconds", "Duration in seconds for relisting pods in PLEG.", prometheus.DefBuckets),
		relistInterval: one("pleg_relist_interval_seconds", "Interval in seconds between relisting in PLEG.", prometheus.DefBuckets),
		relistSeen:     prometheus.NewGauge(prometheus.GaugeOpts{Subsystem: "kubelet", Name: "pleg_last_seen_seconds", Help: "Timestamp in seconds when PLEG was last seen active."}),
		pull:           histogram("image_pull_duration_seconds", "Duration in seconds to pull an image.", []float64{1, 5, 10, 20, 30, 60, 180, 300, 600, 900, 1200, 1800, 2700, 3600}, "image_size_in_bytes"),
		orphaned:       counter("orphaned_runtime_pods_total", "Number of pods that have been detected in the container runtime without being already known to the pod worker. This typically indicates the kubelet was restarted while a pod was force deleted in the API or in the local configuration, which is unusual."),
		volumesAsked:   counter("image_volume_requested_total", "Number of requested image volumes."),
		volumesMounted: counter("image_volume_mounted_succeed_total", "Number of successful image volume mounts."),
		volumesFail:    counter("image_volume_mounted_errors_total", "Number of failed image volume mounts."),
		infeasible:     prometheus.NewCounterVec(prometheus.CounterOpts{Subsystem: "kubelet", Name: "pod_infeasible_resizes_total", Help: "Number of infeasible resizes for pods."}, []string{"reason_detail"}),
		accepted:       prometheus.NewCounterVec(prometheus.CounterOpts{Subsystem: "kubelet", Name: "pod_deferred_accepted_resizes_total", Help: "Cumulative number of resizes that were accepted after being deferred."}, []string{"retry_trigger"}),
		containers:     one("containers_per_pod_count", "The number of containers per pod.", prometheus.ExponentialBuckets(1, 2, 5)),
		workerStart:    one("pod_worker_start_duration_seconds", "Duration in seconds from kubelet seeing a pod to starting a worker.", prometheus.DefBuckets),
		resize:         histogram("pod_resize_duration_milliseconds", "Duration in milliseconds to actuate a pod resize", prometheus.ExponentialBuckets(10, 2, 15), "success"),
		userns:         counter("started_user_namespaced_pods_total", "Cumulative number of pods with user namespaces started. This metric will only be collected on Linux."),
		usernsErrors:   counter("started_user_namespaced_pods_errors_total", "Cumulative number of errors when starting pods with user namespaces. This metric will only be collected on Linux."),
	}
	r.MustRegister(m.relistSeen, m.infeasible, m.accepted)
	return m
}

// PodStarted observes the start of a pod: how long after the agent first saw it and after
// its creation all containers were reported as started, and how much of that the pulls of
// its images and its init containers took.
func (m *Metrics) PodStarted(sinceSeen, sinceCreation, excluded time.Duration) {
	m.pods.start.Observe(sinceSeen.Seconds())
	m.pods.startTotal.Observe(sinceCreation.Seconds())
	m.pods.startSLI.Observe(max(sinceCreation-excluded, 0).Seconds())
}

// StatusSynced observes how long the API did not have a pod's status.
func (m *Metrics) StatusSynced(took time.Duration) { m.pods.statusSync.Observe(took.Seconds()) }

// PodSynced observes how long an operation on a pod took: "create", "update" or "sync".
func (m *Metrics) PodSynced(operation string, took time.Duration) {
	m.pods.sync.WithLabelValues(operation).Observe(took.Seconds())
}

// Relisted observes that all pods were read from the runtime.
func (m *Metrics) Relisted(at time.Time, took time.Duration) {
	p := m.pods
	p.relist.Observe(took.Seconds())
	p.relistSeen.Set(float64(at.Unix()))
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.lastRelist.IsZero() {
		p.relistInterval.Observe(at.Sub(p.lastRelist).Seconds())
	}
	p.lastRelist = at
}

// ImagePulled observes how long the pull of an image of this size, in bytes, took.
func (m *Metrics) ImagePulled(size uint64, took time.Duration) {
	class := "N/A"
	for _, s := range sizes {
		if size > 0 && size <= s.most {
			class = s.class
			break
		}
	}
	m.pods.pull.WithLabelValues(class).Observe(took.Seconds())
}

// PodOrphaned counts a pod of the runtime that the node does not have.
func (m *Metrics) PodOrphaned() { m.pods.orphaned.Inc() }

// ImageVolume counts an image that a container mounts as a volume.
func (m *Metrics) ImageVolume(err error) {
	m.pods.volumesAsked.Inc()
	if err != nil {
		m.pods.volumesFail.Inc()
	} else {
		m.pods.volumesMounted.Inc()
	}
}

// ResizeInfeasible counts a resize that the node can never do.
func (m *Metrics) ResizeInfeasible(detail string) {
	m.pods.infeasible.WithLabelValues(detail).Inc()
}

// ResizeAccepted counts a resize that has waited, and why it was looked at again.
func (m *Metrics) ResizeAccepted(trigger string) {
	m.pods.accepted.WithLabelValues(trigger).Inc()
}

// PodAdded observes a pod's number of containers, and how long after the pod was first seen
// its worker has started.
func (m *Metrics) PodAdded(containers int, took time.Duration) {
	m.pods.containers.Observe(float64(containers))
	m.pods.workerStart.Observe(took.Seconds())
}

// Resized observes how long a resize took.
func (m *Metrics) Resized(took time.Duration, ok bool) {
	success := "true"
	if !ok {
		success = "false"
	}
	m.pods.resize.WithLabelValues(success).Observe(float64(took.Milliseconds()))
}
