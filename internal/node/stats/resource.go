package stats

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// desc describes a metric.
func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// The metrics of /metrics/resource, for autoscalers and the scheduler's users
// (https://kubernetes.io/docs/reference/instrumentation/node-metrics/).
var (
	nodeCPU         = desc("node_cpu_usage_seconds_total", "Cumulative cpu time consumed by the node in core-seconds")
	nodeMemory      = desc("node_memory_working_set_bytes", "Current working set of the node in bytes")
	nodeSwap        = desc("node_swap_usage_bytes", "Current swap usage of the node in bytes. Reported only on non-windows systems")
	containerCPU    = desc("container_cpu_usage_seconds_total", "Cumulative cpu time consumed by the container in core-seconds", "container", "pod", "namespace")
	containerMemory = desc("container_memory_working_set_bytes", "Current working set of the container in bytes", "container", "pod", "namespace")
	containerSwap   = desc("container_swap_usage_bytes", "Current amount of the container swap usage in bytes. Reported only on non-windows systems", "container", "pod", "namespace")
	containerStart  = desc("container_start_time_seconds", "Start time of the container since unix epoch in seconds", "container", "pod", "namespace")
	podCPU          = desc("pod_cpu_usage_seconds_total", "Cumulative cpu time consumed by the pod in core-seconds", "pod", "namespace")
	podMemory       = desc("pod_memory_working_set_bytes", "Current working set of the pod in bytes", "pod", "namespace")
	podSwap         = desc("pod_swap_usage_bytes", "Current amount of the pod swap usage in bytes. Reported only on non-windows systems", "pod", "namespace")
	scrapeError     = desc("resource_scrape_error", "1 if there was an error while getting container metrics, 0 otherwise")
)

// collector makes metrics of what a function measures, for each request anew.
type collector func(ctx context.Context, out chan<- prometheus.Metric)

// Describe implements prometheus.Collector; the metrics are described as they come.
func (c collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c(ctx, out)
}

// metrics writes metrics to a channel.
type metrics chan<- prometheus.Metric

// put writes one, with the time that it was measured at where that is known. A
// value that was not measured is left out.
func (m metrics) put(d *prometheus.Desc, t prometheus.ValueType, v *uint64, unit float64, at metav1.Time, labels ...string) {
	if v == nil {
		return
	}
	c := prometheus.MustNewConstMetric(d, t, float64(*v)*unit, labels...)
	if !at.IsZero() {
		c = prometheus.NewMetricWithTimestamp(at.Time, c)
	}
	m <- c
}

// nano is a nanosecond in seconds.
const nano = 1e-9

// Resources has the metrics of /metrics/resource.
func (p *Provider) Resources() prometheus.Collector {
	return collector(func(ctx context.Context, out chan<- prometheus.Metric) {
		s, err := p.CPUAndMemory(ctx)
		failed := uint64(0)
		if err != nil {
			failed = 1
		} else {
			resources(metrics(out), s)
		}
		metrics(out).put(scrapeError, prometheus.GaugeValue, &failed, 1, metav1.Time{})
	})
}

func resources(out metrics, s *statsapi.Summary) {
	put := func(c *statsapi.CPUStats, m *statsapi.MemoryStats, w *statsapi.SwapStats, cpu, memory, swap *prometheus.Desc, labels ...string) {
		if c != nil {
			out.put(cpu, prometheus.CounterValue, c.UsageCoreNanoSeconds, nano, c.Time, labels...)
		}
		if m != nil {
			out.put(memory, prometheus.GaugeValue, m.WorkingSetBytes, 1, m.Time, labels...)
		}
		if w != nil {
			out.put(swap, prometheus.GaugeValue, w.SwapUsageBytes, 1, w.Time, labels...)
		}
	}
	put(s.Node.CPU, s.Node.Memory, s.Node.Swap, nodeCPU, nodeMemory, nodeSwap)
	for i := range s.Pods {
		p := &s.Pods[i]
		put(p.CPU, p.Memory, p.Swap, podCPU, podMemory, podSwap, p.PodRef.Name, p.PodRef.Namespace)
		for j := range p.Containers {
			c := &p.Containers[j]
			put(c.CPU, c.Memory, c.Swap, containerCPU, containerMemory, containerSwap, c.Name, p.PodRef.Name, p.PodRef.Namespace)
			if !c.StartTime.IsZero() {
				start := uint64(c.StartTime.Unix())
				out.put(containerStart, prometheus.GaugeValue, &start, 1, metav1.Time{}, c.Name, p.PodRef.Name, p.PodRef.Namespace)
			}
		}
	}
}

// The kubelet's own metrics of volumes and logs.
var (
	volumeCapacity   = desc("kubelet_volume_stats_capacity_bytes", "Capacity in bytes of the volume", "namespace", "persistentvolumeclaim")
	volumeAvailable  = desc("kubelet_volume_stats_available_bytes", "Number of available bytes in the volume", "namespace", "persistentvolumeclaim")
	volumeUsed       = desc("kubelet_volume_stats_used_bytes", "Number of used bytes in the volume", "namespace", "persistentvolumeclaim")
	volumeInodes     = desc("kubelet_volume_stats_inodes", "Maximum number of inodes in the volume", "namespace", "persistentvolumeclaim")
	volumeInodesFree = desc("kubelet_volume_stats_inodes_free", "Number of free inodes in the volume", "namespace", "persistentvolumeclaim")
	volumeInodesUsed = desc("kubelet_volume_stats_inodes_used", "Number of used inodes in the volume", "namespace", "persistentvolumeclaim")
	logUsed          = desc("kubelet_container_log_filesystem_used_bytes", "Bytes used by the container's logs on the filesystem.", "uid", "namespace", "pod", "container")
)

// Disks has the metrics of volumes and logs in /metrics.
func (p *Provider) Disks() prometheus.Collector {
	return collector(func(ctx context.Context, out chan<- prometheus.Metric) {
		s, err := p.Summary(ctx)
		if err != nil {
			return
		}
		disks(metrics(out), s)
	})
}

func disks(out metrics, s *statsapi.Summary) {
	claims := map[statsapi.PVCReference]bool{}
	for i := range s.Pods {
		p := &s.Pods[i]
		for j := range p.Containers {
			if c := &p.Containers[j]; c.Logs != nil {
				out.put(logUsed, prometheus.GaugeValue, c.Logs.UsedBytes, 1, metav1.Time{}, p.PodRef.UID, p.PodRef.Namespace, p.PodRef.Name, c.Name)
			}
		}
		for j := range p.VolumeStats {
			v := &p.VolumeStats[j]
			if v.PVCRef == nil || claims[*v.PVCRef] {
				continue // pods may share a claim
			}
			claims[*v.PVCRef] = true
			for _, m := range []struct {
				d *prometheus.Desc
				v *uint64
			}{{volumeCapacity, v.CapacityBytes}, {volumeAvailable, v.AvailableBytes}, {volumeUsed, v.UsedBytes},
				{volumeInodes, v.Inodes}, {volumeInodesFree, v.InodesFree}, {volumeInodesUsed, v.InodesUsed}} {
				out.put(m.d, prometheus.GaugeValue, m.v, 1, metav1.Time{}, v.PVCRef.Namespace, v.PVCRef.Name)
			}
		}
	}
}
