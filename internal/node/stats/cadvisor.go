package stats

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"keelson.dev/keelson/internal/node/cri"
	"keelson.dev/keelson/internal/node/hardware"
)

// group is the labels that say which cgroup a metric of cAdvisor's is of: those
// of the machine and of all pods have an ID only.
var group = []string{"container", "id", "image", "name", "namespace", "pod"}

func grouped(name, help string, more ...string) *prometheus.Desc {
	return desc(name, help, append(append([]string{}, group...), more...)...)
}

// The metrics of /metrics/cadvisor, by cAdvisor's names: all that a kubelet has except
// those that are 0 there (container_cpu_load_average_10s, and what a block device tells only
// of itself: merged requests, and times) and those of NVM.
var (
	caCPU         = grouped("container_cpu_usage_seconds_total", "Cumulative cpu time consumed in seconds.", "cpu")
	caUser        = grouped("container_cpu_user_seconds_total", "Cumulative user cpu time consumed in seconds.")
	caSystem      = grouped("container_cpu_system_seconds_total", "Cumulative system cpu time consumed in seconds.")
	caPeriods     = grouped("container_cpu_cfs_periods_total", "Number of elapsed enforcement period intervals.")
	caThrottled   = grouped("container_cpu_cfs_throttled_periods_total", "Number of throttled period intervals.")
	caStalled     = grouped("container_cpu_cfs_throttled_seconds_total", "Total time duration the container has been throttled.")
	caUsage       = grouped("container_memory_usage_bytes", "Current memory usage in bytes, including all memory regardless of when it was accessed")
	caWorkingSet  = grouped("container_memory_working_set_bytes", "Current working set in bytes.")
	caRSS         = grouped("container_memory_rss", "Size of RSS in bytes.")
	caCache       = grouped("container_memory_cache", "Number of bytes of page cache memory.")
	caMapped      = grouped("container_memory_mapped_file", "Size of memory mapped files in bytes.")
	caSwap        = grouped("container_memory_swap", "Container swap usage in bytes.")
	caKernel      = grouped("container_memory_kernel_usage", "Size of kernel memory allocated in bytes.")
	caPeak        = grouped("container_memory_max_usage_bytes", "Maximum memory usage recorded in bytes")
	caFailures    = grouped("container_memory_failcnt", "Number of memory usage hits limits")
	caFaults      = grouped("container_memory_failures_total", "Cumulative count of memory allocation failures.", "failure_type", "scope")
	caOOM         = grouped("container_oom_events_total", "Count of out of memory events observed for the container")
	caThreads     = grouped("container_threads", "Number of threads running inside the container")
	caThreadsMax  = grouped("container_threads_max", "Maximum number of threads allowed inside the container, infinity if value is zero")
	caProcesses   = grouped("container_processes", "Number of processes running inside the container.")
	caShares      = grouped("container_spec_cpu_shares", "CPU share of the container.")
	caPeriod      = grouped("container_spec_cpu_period", "CPU period of the container.")
	caQuota       = grouped("container_spec_cpu_quota", "CPU quota of the container.")
	caLimit       = grouped("container_spec_memory_limit_bytes", "Memory limit for the container.")
	caStart       = grouped("container_start_time_seconds", "Start time of the container since unix epoch in seconds.")
	caSeen        = grouped("container_last_seen", "Last time a container was seen by the exporter")
	caFsUsage     = grouped("container_fs_usage_bytes", "Number of bytes that are consumed by the container on this filesystem.", "device")
	caFsLimit     = grouped("container_fs_limit_bytes", "Number of bytes that can be consumed by the container on this filesystem.", "device")
	caFsInodes    = grouped("container_fs_inodes_total", "Number of Inodes", "device")
	caFsInodesCan = grouped("container_fs_inodes_free", "Number of available Inodes", "device")
	caRx          = grouped("container_network_receive_bytes_total", "Cumulative count of bytes received", "interface")
	caRxErrors    = grouped("container_network_receive_errors_total", "Cumulative count of errors encountered while receiving", "interface")
	caTx          = grouped("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", "interface")
	caTxErrors    = grouped("container_network_transmit_errors_total", "Cumulative count of errors encountered while transmitting", "interface")
	caRxPackets   = grouped("container_network_receive_packets_total", "Cumulative count of packets received", "interface")
	caRxDropped   = grouped("container_network_receive_packets_dropped_total", "Cumulative count of packets dropped while receiving", "interface")
	caTxPackets   = grouped("container_network_transmit_packets_total", "Cumulative count of packets transmitted", "interface")
	caTxDropped   = grouped("container_network_transmit_packets_dropped_total", "Cumulative count of packets dropped while transmitting", "interface")
	caActiveFile  = grouped("container_memory_total_active_file_bytes", "Current total active file in bytes.")
	caIdleFile    = grouped("container_memory_total_inactive_file_bytes", "Current total inactive file in bytes.")
	caReservation = grouped("container_spec_memory_reservation_limit_bytes", "Memory reservation limit for the container.")
	caSwapLimit   = grouped("container_spec_memory_swap_limit_bytes", "Memory swap limit for the container.")
	caDescriptors = grouped("container_file_descriptors", "Number of open file descriptors for the container.")
	caSockets     = grouped("container_sockets", "Number of open sockets for the container.")
	caTasks       = grouped("container_tasks_state", "Number of tasks in given state", "state")
	caUlimits     = grouped("container_ulimits_soft", "Soft ulimit values for the container root process. Unlimited if -1, except priority and nice", "ulimit")
	caBlkio       = grouped("container_blkio_device_usage_total", "Blkio Device bytes usage", "device", "major", "minor", "operation")
	caReadBytes   = grouped("container_fs_reads_bytes_total", "Cumulative count of bytes read", "device")
	caReads       = grouped("container_fs_reads_total", "Cumulative count of reads completed", "device")
	caWriteBytes  = grouped("container_fs_writes_bytes_total", "Cumulative count of bytes written", "device")
	caWrites      = grouped("container_fs_writes_total", "Cumulative count of writes completed", "device")
	caCPUWaiting  = grouped("container_pressure_cpu_waiting_seconds_total", "Total time duration tasks in the container have waited due to CPU congestion.")
	caCPUStalled  = grouped("container_pressure_cpu_stalled_seconds_total", "Total time duration no tasks in the container could make progress due to CPU congestion.")
	caMemWaiting  = grouped("container_pressure_memory_waiting_seconds_total", "Total time duration tasks in the container have waited due to memory congestion.")
	caMemStalled  = grouped("container_pressure_memory_stalled_seconds_total", "Total time duration no tasks in the container could make progress due to memory congestion.")
	caIOWaiting   = grouped("container_pressure_io_waiting_seconds_total", "Total time duration tasks in the container have waited due to IO congestion.")
	caIOStalled   = grouped("container_pressure_io_stalled_seconds_total", "Total time duration no tasks in the container could make progress due to IO congestion.")
	caError       = desc("container_scrape_error", "1 if there was an error while getting container metrics, 0 otherwise")
	machineCores  = desc("machine_cpu_cores", "Number of logical CPU cores.")
	machineMemory = desc("machine_memory_bytes", "Amount of memory installed on the machine.")
	machineSwap   = desc("machine_swap_bytes", "Amount of swap memory available on the machine.")
	machinePhys   = desc("machine_cpu_physical_cores", "Number of physical CPU cores.")
	machineSocket = desc("machine_cpu_sockets", "Number of CPU sockets.")
	machineError  = desc("machine_scrape_error", "1 if there was an error while getting machine metrics, 0 otherwise.")
)

// Containers has the metrics of /metrics/cadvisor.
func (p *Provider) Containers() prometheus.Collector {
	return collector(func(ctx context.Context, out chan<- prometheus.Metric) {
		failed := uint64(0)
		if err := p.containers(ctx, metrics(out)); err != nil {
			failed = 1
		}
		metrics(out).put(caError, prometheus.GaugeValue, &failed, 1, metav1.Time{})
	})
}

func (p *Provider) containers(ctx context.Context, out metrics) error {
	s, err := p.Summary(ctx)
	if err != nil {
		return err
	}
	list, err := p.Runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{
		State: &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING}}})
	if err != nil {
		return err
	}
	now := metav1.NewTime(p.Clock.Now())
	n, total := uint64(cores()), MemTotal()
	out.put(machineCores, prometheus.GaugeValue, &n, 1, metav1.Time{})
	out.put(machineMemory, prometheus.GaugeValue, &total, 1, metav1.Time{})
	swap := SwapTotal()
	out.put(machineSwap, prometheus.GaugeValue, &swap, 1, metav1.Time{})
	failed := uint64(1)
	if m, err := hardware.Read("/sys", total); err == nil {
		failed = 0
		sockets, physical := map[int]bool{}, map[[2]int]bool{}
		for _, c := range m.CPUs {
			sockets[c.Socket], physical[[2]int{c.Socket, c.Core}] = true, true
		}
		n, s := uint64(len(physical)), uint64(len(sockets))
		out.put(machinePhys, prometheus.GaugeValue, &n, 1, metav1.Time{})
		out.put(machineSocket, prometheus.GaugeValue, &s, 1, metav1.Time{})
	}
	out.put(machineError, prometheus.GaugeValue, &failed, 1, metav1.Time{})
	p.cgroup(out, "", []string{"", "/", "", "", "", ""}, s.Node.StartTime, now)
	p.network(out, interfaces("/proc/net/dev"), []string{"", "/", "", "", "", ""}, now)
	p.cgroup(out, p.PodsCgroup, []string{"", "/" + p.PodsCgroup, "", "", "", ""}, metav1.NewTime(p.start), now)
	byPod := map[string][]*runtimeapi.Container{}
	for _, c := range list.Containers {
		byPod[c.Labels[cri.PodUIDLabel]] = append(byPod[c.Labels[cri.PodUIDLabel]], c)
	}
	stats := map[string]*statsapi.PodStats{}
	for i := range s.Pods {
		stats[s.Pods[i].PodRef.UID] = &s.Pods[i]
	}
	for _, pod := range p.Pods() {
		st := stats[string(pod.UID)]
		if st == nil {
			continue
		}
		cgroup := p.Cgroup(pod)
		labels := []string{"", "/" + cgroup, "", "", pod.Namespace, pod.Name}
		p.cgroup(out, cgroup, labels, st.StartTime, now)
		if !pod.Spec.HostNetwork {
			var ids []string
			for _, c := range byPod[string(pod.UID)] {
				ids = append(ids, c.Id)
			}
			p.network(out, p.podInterfaces(pod, ids), labels, now)
		}
		for _, c := range byPod[string(pod.UID)] {
			path, ok := p.cg.child(cgroup, c.Id)
			if !ok {
				continue
			}
			name := c.Labels[cri.ContainerNameLabel]
			labels := []string{name, "/" + path, c.GetImage().GetImage(), c.Id, pod.Namespace, pod.Name}
			p.cgroup(out, path, labels, metav1.NewTime(time.Unix(0, c.CreatedAt)), now)
			for i := range st.Containers {
				if k := &st.Containers[i]; k.Name == name && k.Rootfs != nil {
					l := append(append([]string{}, labels...), "") // of an overlay, which has no device
					out.put(caFsUsage, prometheus.GaugeValue, k.Rootfs.UsedBytes, 1, now, l...)
					out.put(caFsLimit, prometheus.GaugeValue, k.Rootfs.CapacityBytes, 1, now, l...)
					out.put(caFsInodes, prometheus.GaugeValue, k.Rootfs.Inodes, 1, now, l...)
					out.put(caFsInodesCan, prometheus.GaugeValue, k.Rootfs.InodesFree, 1, now, l...)
				}
			}
		}
	}
	return nil
}

// cgroup writes what is measured of one.
func (p *Provider) cgroup(out metrics, path string, labels []string, start, now metav1.Time) {
	put := func(d *prometheus.Desc, t prometheus.ValueType, v uint64, unit float64, more ...string) {
		out.put(d, t, &v, unit, now, append(append([]string{}, labels...), more...)...)
	}
	const counter, gauge = prometheus.CounterValue, prometheus.GaugeValue
	if c, ok := p.cg.cpu(path); ok {
		put(caCPU, counter, c.usage, nano, "total")
		put(caUser, counter, c.user, nano)
		put(caSystem, counter, c.system, nano)
		put(caShares, gauge, c.shares, 1)
		put(caPeriod, gauge, uint64(c.period), 1)
		if c.quota > 0 {
			put(caQuota, gauge, uint64(c.quota), 1)
			put(caPeriods, counter, c.periods, 1)
			put(caThrottled, counter, c.throttled, 1)
			put(caStalled, counter, c.stalled, nano)
		}
	}
	if m, ok := p.cg.memory(path); ok {
		for _, v := range []struct {
			d *prometheus.Desc
			v uint64
		}{{caUsage, m.usage}, {caWorkingSet, m.workingSet}, {caRSS, m.rss}, {caCache, m.cache}, {caMapped, m.mapped},
			{caSwap, m.swap}, {caKernel, m.kernel}, {caPeak, m.peak}, {caLimit, m.limit}, {caActiveFile, m.activeFile}, {caIdleFile, m.inactiveFile},
			{caReservation, m.reservation}, {caSwapLimit, m.swapLimit}} {
			put(v.d, gauge, v.v, 1)
		}
		put(caFailures, counter, m.failures, 1)
		put(caOOM, counter, m.oom, 1)
		put(caFaults, counter, m.faults, 1, "pgfault", "hierarchy")
		put(caFaults, counter, m.majorFaults, 1, "pgmajfault", "hierarchy")
	}
	if n, ok := p.cg.pids(path); ok {
		put(caThreads, gauge, n, 1)
		put(caThreadsMax, gauge, p.cg.pidLimit(path), 1)
		if path != "" { // the machine's are not all pods'
			t := p.cg.tasks(path)
			put(caProcesses, gauge, t.processes, 1)
			put(caDescriptors, gauge, t.descriptors, 1)
			put(caSockets, gauge, t.sockets, 1)
			for s, n := range t.states {
				put(caTasks, gauge, n, 1, s)
			}
			if t.openFiles > 0 && labels[0] != "" {
				put(caUlimits, gauge, t.openFiles, 1, "max_open_files")
			}
		}
	}
	for _, d := range p.cg.blockIO(path) {
		put(caBlkio, counter, d.readBytes, 1, d.device, d.major, d.minor, "Read")
		put(caBlkio, counter, d.writeBytes, 1, d.device, d.major, d.minor, "Write")
		put(caReadBytes, counter, d.readBytes, 1, d.device)
		put(caWriteBytes, counter, d.writeBytes, 1, d.device)
		put(caReads, counter, d.reads, 1, d.device)
		put(caWrites, counter, d.writes, 1, d.device)
	}
	for _, r := range []struct {
		resource         string
		waiting, stalled *prometheus.Desc
	}{{pressureCPU, caCPUWaiting, caCPUStalled}, {pressureMemory, caMemWaiting, caMemStalled}, {pressureIO, caIOWaiting, caIOStalled}} {
		if s := p.cg.pressure(path, r.resource); s != nil {
			put(r.waiting, counter, s.Some.Total, nano)
			put(r.stalled, counter, s.Full.Total, nano)
		}
	}
	if !start.IsZero() {
		put(caStart, gauge, uint64(start.Unix()), 1)
	}
	put(caSeen, gauge, uint64(now.Unix()), 1)
}

func (p *Provider) network(out metrics, all []iface, labels []string, now metav1.Time) {
	for _, i := range all {
		l := append(append([]string{}, labels...), i.name)
		for _, v := range []struct {
			d *prometheus.Desc
			v uint64
		}{{caRx, i.rxBytes}, {caRxErrors, i.rxErrors}, {caRxPackets, i.rxPackets}, {caRxDropped, i.rxDropped},
			{caTx, i.txBytes}, {caTxErrors, i.txErrors}, {caTxPackets, i.txPackets}, {caTxDropped, i.txDropped}} {
			out.put(v.d, prometheus.CounterValue, &v.v, 1, now, l...)
		}
	}
}
