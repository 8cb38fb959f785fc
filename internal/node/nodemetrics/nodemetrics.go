package nodemetrics

import (
	"context"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Metrics holds the metrics of one agent.
type Metrics struct {
	// Registry has what /metrics shows, Probes what /metrics/probes does, and SLIs what
	// /metrics/slis does.
	Registry, Probes, SLIs *prometheus.Registry

	operations, operationErrors, evictions, preemptions, imagesRemoved, startedPods, startedContainers, startErrors *prometheus.CounterVec
	operationTime, evictionAge                                                                                      *prometheus.HistogramVec
	pods                                                                                                            *podMetrics
	requests                                                                                                        *prometheus.CounterVec
	requestTime                                                                                                     *prometheus.HistogramVec
	inFlight                                                                                                        *prometheus.GaugeVec
	pluginRegistrations                                                                                             *prometheus.CounterVec
	pluginAllocations                                                                                               *prometheus.HistogramVec
	podResources                                                                                                    *prometheus.CounterVec
	shutdownBegan, shutdownFinished                                                                                 prometheus.Gauge
	sandboxTime                                                                                                     *prometheus.HistogramVec
	sandboxErrors, startedPodsErrors                                                                                *prometheus.CounterVec
	// podResourcesOf and podResourcesErrors are by method.
	podResourcesOf, podResourcesErrors map[string]*prometheus.CounterVec
	probes                             *prometheus.CounterVec
	probeTime                          *prometheus.HistogramVec
	health                             *prometheus.GaugeVec
	checks                             *prometheus.CounterVec
	restarted                          *prometheus.CounterVec
	cleaned, notCleaned                prometheus.Gauge
}

// New makes the metrics of the agent of a node.
func New(node string) *Metrics {
	m := &Metrics{Registry: prometheus.NewRegistry(), Probes: prometheus.NewRegistry(), SLIs: prometheus.NewRegistry()}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Subsystem: "kubelet", Name: name, Help: help}, labels)
		m.Registry.MustRegister(c)
		return c
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Subsystem: "kubelet", Name: name, Help: help, Buckets: buckets}, labels)
		m.Registry.MustRegister(h)
		return h
	}
	m.operations = counter("runtime_operations_total", "Cumulative number of runtime operations by operation type.", "operation_type")
	m.operationErrors = counter("runtime_operations_errors_total", "Cumulative number of runtime operation errors by operation type.", "operation_type")
	m.operationTime = histogram("runtime_operations_duration_seconds", "Duration in seconds of runtime operations. Broken down by operation type.",
		prometheus.ExponentialBuckets(.005, 2.5, 14), "operation_type")
	m.sandboxTime = histogram("run_podsandbox_duration_seconds", "Duration in seconds of the run_podsandbox operations. Broken down by RuntimeClass.Handler.",
		[]float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}, "runtime_handler")
	m.sandboxErrors = counter("run_podsandbox_errors_total", "Cumulative number of the run_podsandbox operation errors by RuntimeClass.Handler.", "runtime_handler")
	m.startedPodsErrors = counter("started_pods_errors_total", "Cumulative number of errors when starting pods")
	m.startedPodsErrors.WithLabelValues()
	m.evictions = counter("evictions", "Cumulative number of pod evictions by eviction signal", "eviction_signal")
	m.preemptions = counter("preemptions", "Cumulative number of pod preemptions by preemption resource", "preemption_signal")
	m.evictionAge = histogram("eviction_stats_age_seconds", "Time between when stats are collected, and when pod is evicted based on those stats by eviction signal",
		prometheus.DefBuckets, "eviction_signal")
	m.imagesRemoved = counter("image_garbage_collected_total", "Total number of images garbage collected by the kubelet, whether through disk usage or image age.", "reason")
	m.startedPods = counter("started_pods_total", "Cumulative number of pods started")
	m.startedPods.WithLabelValues()
	m.startedContainers = counter("started_containers_total", "Cumulative number of containers started", "container_type")
	m.startErrors = counter("started_containers_errors_total", "Cumulative number of errors when starting containers", "container_type", "code")
	m.pods = newPodMetrics(m.Registry)
	m.pluginRegistrations = counter("device_plugin_registration_total", "Cumulative number of device plugin registrations. Broken down by resource name.", "resource_name")
	m.pluginAllocations = histogram("device_plugin_alloc_duration_seconds", "Duration in seconds to serve a device plugin Allocation request. Broken down by resource name.",
		prometheus.DefBuckets, "resource_name")
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Subsystem: "kubelet", Name: name, Help: help})
		m.Registry.MustRegister(g)
		return g
	}
	m.shutdownBegan = gauge("graceful_shutdown_start_time_seconds", "Last graceful shutdown start time since unix epoch in seconds")
	m.shutdownFinished = gauge("graceful_shutdown_end_time_seconds", "Last graceful shutdown end time since unix epoch in seconds")
	m.cleaned = gauge("orphan_pod_cleaned_volumes", "The total number of orphaned Pods whose volumes were cleaned in the last periodic sweep.")
	m.notCleaned = gauge("orphan_pod_cleaned_volumes_errors", "The number of orphaned Pods whose volumes failed to be cleaned in the last periodic sweep.")
	m.restarted = counter("restarted_pods_total", "Number of pods that have been restarted because they were deleted and recreated with the same UID while the kubelet was watching them (common for static pods, extremely uncommon for API pods)", "static")
	m.restarted.WithLabelValues("")
	m.restarted.WithLabelValues("true")
	m.podResources = counter("pod_resources_endpoint_requests_total", "Cumulative number of requests to the PodResource endpoint. Broken down by server api version.", "server_api_version")
	m.podResourcesOf = map[string]*prometheus.CounterVec{}
	m.podResourcesErrors = map[string]*prometheus.CounterVec{}
	for method, name := range map[string]string{"List": "list", "GetAllocatableResources": "get_allocatable", "Get": "get"} {
		m.podResourcesOf[method] = counter("pod_resources_endpoint_requests_"+name, "Number of requests to the PodResource "+method+" endpoint. Broken down by server api version.", "server_api_version")
		m.podResourcesErrors[method] = counter("pod_resources_endpoint_errors_"+name, "Number of requests to the PodResource "+method+" endpoint which returned error. Broken down by server api version.", "server_api_version")
	}
	m.requests = counter("http_requests_total", "Number of the http requests received since the server started", "long_running", "method", "path", "server_type")
	m.requestTime = histogram("http_requests_duration_seconds", "Duration in seconds to serve http requests", prometheus.DefBuckets, "long_running", "method", "path", "server_type")
	m.inFlight = prometheus.NewGaugeVec(prometheus.GaugeOpts{Subsystem: "kubelet", Name: "http_inflight_requests", Help: "Number of the inflight http requests"},
		[]string{"long_running", "method", "path", "server_type"})
	name := prometheus.NewGaugeVec(prometheus.GaugeOpts{Subsystem: "kubelet", Name: "node_name", Help: "The node's name. The count is always 1."}, []string{"node"})
	name.WithLabelValues(node).Set(1)
	m.Registry.MustRegister(m.inFlight, name, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	m.probes = prometheus.NewCounterVec(prometheus.CounterOpts{Subsystem: "prober", Name: "probe_total",
		Help: "Cumulative number of a liveness, readiness or startup probe for a container by result."},
		[]string{"probe_type", "result", "container", "pod", "namespace", "pod_uid"})
	m.probeTime = prometheus.NewHistogramVec(prometheus.HistogramOpts{Subsystem: "prober", Name: "probe_duration_seconds",
		Help: "Duration in seconds for a probe response."}, []string{"probe_type", "container", "pod", "namespace"})
	m.Probes.MustRegister(m.probes, m.probeTime)
	m.health = prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "kubernetes", Name: "healthcheck", Help: "This metric records the result of a single healthcheck."}, []string{"name", "type"})
	m.checks = prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "kubernetes", Name: "healthchecks_total", Help: "This metric records the results of all healthcheck."}, []string{"name", "type", "status"})
	m.SLIs.MustRegister(m.health, m.checks)
	return m
}

// Checked counts a check of the agent's health, which has succeeded.
func (m *Metrics) Checked(name string) {
	m.health.WithLabelValues(name, "healthz").Set(1)
	m.checks.WithLabelValues(name, "healthz", "success").Inc()
}

// VolumesCleaned tells of how many pods that the node does not have the volumes were taken
// down by the last sweep, and of how many not.
func (m *Metrics) VolumesCleaned(done, failed int) {
	m.cleaned.Set(float64(done))
	m.notCleaned.Set(float64(failed))
}

// StaticRestarted counts a static pod that was wanted no more, and then again.
func (m *Metrics) StaticRestarted() { m.restarted.WithLabelValues("true").Inc() }

// Evicted counts an eviction.
func (m *Metrics) Evicted(signal string) { m.evictions.WithLabelValues(signal).Inc() }

// Preempted counts a pod that made room for another one, which lacked the resource.
func (m *Metrics) Preempted(resource string) { m.preemptions.WithLabelValues(resource).Inc() }

// EvictionAge observes how old, in seconds, the stats of an eviction were.
func (m *Metrics) EvictionAge(signal string, seconds float64) {
	m.evictionAge.WithLabelValues(signal).Observe(seconds)
}

// ImageRemoved counts an image that was removed, for space or age.
func (m *Metrics) ImageRemoved(reason string) { m.imagesRemoved.WithLabelValues(reason).Inc() }

// PluginRegistered counts a registration of a device plug-in.
func (m *Metrics) PluginRegistered(resource string) {
	m.pluginRegistrations.WithLabelValues(resource).Inc()
}

// PluginAllocated observes how long a device plug-in took to allocate devices.
func (m *Metrics) PluginAllocated(resource string, took time.Duration) {
	m.pluginAllocations.WithLabelValues(resource).Observe(took.Seconds())
}

// ShutdownBegan tells when the machine's last shutdown began.
func (m *Metrics) ShutdownBegan(t time.Time) { m.shutdownBegan.Set(float64(t.UnixNano()) / 1e9) }

// ShutdownFinished tells when the pods had ended before that.
func (m *Metrics) ShutdownFinished(t time.Time) { m.shutdownFinished.Set(float64(t.UnixNano()) / 1e9) }

// PodResources counts a call of a method of the pod resources' service, and its error.
func (m *Metrics) PodResources(method string, err error) {
	m.podResources.WithLabelValues("v1").Inc()
	if c := m.podResourcesOf[method]; c != nil {
		c.WithLabelValues("v1").Inc()
	}
	if c := m.podResourcesErrors[method]; c != nil && err != nil {
		c.WithLabelValues("v1").Inc()
	}
}

// Probe counts a probe of a container: its kind ("Liveness", "Readiness",
// "Startup") and its result ("successful", "failed", "unknown").
func (m *Metrics) Probe(kind, result, container, pod, namespace, uid string, took time.Duration) {
	m.probes.WithLabelValues(kind, result, container, pod, namespace, uid).Inc()
	m.probeTime.WithLabelValues(kind, container, pod, namespace).Observe(took.Seconds())
}

// Forget drops the metrics of a pod's probes.
func (m *Metrics) Forget(namespace, pod, uid string) {
	m.probes.DeletePartialMatch(prometheus.Labels{"pod_uid": uid})
	m.probeTime.DeletePartialMatch(prometheus.Labels{"pod": pod, "namespace": namespace})
}

// Request counts a request to the agent's server; what it returns is called when
// the request has been answered.
func (m *Metrics) Request(method, path string, longRunning bool) (done func()) {
	l := []string{"false", method, path, "readwrite"}
	if longRunning {
		l[0] = "true"
	}
	m.requests.WithLabelValues(l...).Inc()
	m.inFlight.WithLabelValues(l...).Inc()
	begun := time.Now()
	return func() {
		m.inFlight.WithLabelValues(l...).Dec()
		m.requestTime.WithLabelValues(l...).Observe(time.Since(begun).Seconds())
	}
}

// Calls counts the calls of a connection to a CRI runtime.
func (m *Metrics) Calls() grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		begun := time.Now()
		err := invoke(ctx, method, req, reply, cc, opts...)
		op := operation(method)
		m.operations.WithLabelValues(op).Inc()
		m.operationTime.WithLabelValues(op).Observe(time.Since(begun).Seconds())
		if err != nil {
			m.operationErrors.WithLabelValues(op).Inc()
		}
		switch {
		case op == "run_podsandbox":
			r, _ := req.(*runtimeapi.RunPodSandboxRequest)
			m.sandbox(r.GetRuntimeHandler(), time.Since(begun), err)
			if r.GetConfig().GetLinux().GetSecurityContext().GetNamespaceOptions().GetUsernsOptions().GetMode() == runtimeapi.NamespaceMode_POD &&
				r.GetConfig().GetLinux().GetSecurityContext().GetNamespaceOptions().GetUsernsOptions() != nil {
				if err != nil {
					m.pods.usernsErrors.Inc()
				} else {
					m.pods.userns.Inc()
				}
			}
		case op == "start_container" && err == nil:
			m.startedContainers.WithLabelValues("container").Inc()
		case op == "start_container":
			m.startErrors.WithLabelValues("container", "StartError").Inc()
		}
		return err
	}
}

// sandbox counts the start of a sandbox.
func (m *Metrics) sandbox(handler string, took time.Duration, err error) {
	m.sandboxTime.WithLabelValues(handler).Observe(took.Seconds())
	if err == nil {
		m.startedPods.WithLabelValues().Inc()
		return
	}
	m.sandboxErrors.WithLabelValues(handler).Inc()
	m.startedPodsErrors.WithLabelValues().Inc()
}

// operations are the kubelet's names of CRI's calls, where they are not made by
// the rule.
var operations = map[string]string{
	"RunPodSandbox": "run_podsandbox", "StopPodSandbox": "stop_podsandbox", "RemovePodSandbox": "remove_podsandbox",
	"PodSandboxStatus": "podsandbox_status", "ListPodSandbox": "list_podsandbox", "PodSandboxStats": "podsandbox_stats", "ListPodSandboxStats": "list_podsandbox_stats",
	"UpdateContainerResources": "update_container", "ImageFsInfo": "image_fs_info", "UpdateRuntimeConfig": "update_runtime_config",
}

// operation names a call of CRI as the kubelet's metrics do.
func operation(method string) string {
	name := method[strings.LastIndexByte(method, '/')+1:]
	if op, ok := operations[name]; ok {
		return op
	}
	var b strings.Builder
	for i, r := range name {
		if r >= 'A' && r <= 'Z' {
			if i > 0 {
				b.WriteByte('_')
			}
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}
