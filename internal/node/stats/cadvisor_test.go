package stats

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// pressures returns a cgroup's files of the pressure on all resources.
func pressures(path string) map[string]string {
	out := map[string]string{}
	for i, r := range []string{"cpu", "memory", "io"} {
		out[path+r+".pressure"] = fmt.Sprintf("some avg10=%d.50 avg60=0.25 avg300=0.10 total=2000000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1000000\n", i+1)
	}
	return out
}

// TestPressure checks what is read of the kernel's figures, and that there are none in
// cgroup v1.
func TestPressure(t *testing.T) {
	v1, v2 := t.TempDir(), t.TempDir()
	tree(t, v1, pressures("p/"))
	tree(t, v2, map[string]string{"cgroup.controllers": "io\n", "q/io.pressure": ""})
	tree(t, v2, pressures("p/"))
	if got := newCgroups(v1).pressure("p", pressureIO); got != nil {
		t.Errorf("cgroup v1: %+v", got)
	}
	c := newCgroups(v2)
	want := statsapi.PSIStats{Some: statsapi.PSIData{Total: 2e9, Avg10: 3.5, Avg60: .25, Avg300: .1}, Full: statsapi.PSIData{Total: 1e9}}
	if got := c.pressure("p", pressureIO); got == nil || *got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for _, path := range []string{"q", "none"} {
		if got := c.pressure(path, pressureIO); got != nil {
			t.Errorf("%s: %+v", path, got)
		}
	}
}

// TestBlockIO checks what cgroups have read and written, by device.
func TestBlockIO(t *testing.T) {
	v1, v2 := t.TempDir(), t.TempDir()
	tree(t, v1, map[string]string{
		"blkio/p/blkio.throttle.io_service_bytes_recursive": "999:0 Read 4096\n999:0 Write 8192\n999:0 Sync 1\n999:0 Total 12288\nTotal 12288\n",
		"blkio/p/blkio.throttle.io_serviced_recursive":      "999:0 Read 1\n999:0 Write 2\nTotal 3\n",
	})
	tree(t, v2, map[string]string{"cgroup.controllers": "io\n", "p/io.stat": "999:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n999:1\n"})
	want := []blockIO{{major: "999", minor: "0", readBytes: 4096, writeBytes: 8192, reads: 1, writes: 2}}
	for version, dir := range map[string]string{"v1": v1, "v2": v2} {
		if got := newCgroups(dir).blockIO("p"); !slices.Equal(got, want) {
			t.Errorf("%s: %+v, want %+v", version, got, want)
		}
	}
}

// TestTasks checks what is counted of a process, with this one as that.
func TestTasks(t *testing.T) {
	dir := t.TempDir()
	tree(t, dir, map[string]string{"pids/p/cgroup.procs": fmt.Sprintf("%d\n4194305\n", os.Getpid())})
	got := newCgroups(dir).tasks("p")
	running := got.states["running"] + got.states["sleeping"] + got.states["uninterruptible"]
	if got.processes != 2 || got.descriptors < 3 || got.openFiles == 0 || running != 1 {
		t.Errorf("%+v", got)
	}
}

// cadvisorMetrics are those of a kubelet of v1.37 that cgroups, /proc and the runtime can tell,
// with the labels beside container, id, image, name, namespace and pod
// (https://github.com/google/cadvisor/blob/master/docs/storage/prometheus.md).
const cadvisorMetrics = `
container_blkio_device_usage_total device major minor operation
container_cpu_cfs_periods_total
container_cpu_cfs_throttled_periods_total
container_cpu_cfs_throttled_seconds_total
container_cpu_system_seconds_total
container_cpu_usage_seconds_total cpu
container_cpu_user_seconds_total
container_file_descriptors
container_fs_inodes_free device
container_fs_inodes_total device
container_fs_limit_bytes device
container_fs_reads_bytes_total device
container_fs_reads_total device
container_fs_usage_bytes device
container_fs_writes_bytes_total device
container_fs_writes_total device
container_last_seen
container_memory_cache
container_memory_failcnt
container_memory_failures_total failure_type scope
container_memory_kernel_usage
container_memory_mapped_file
container_memory_max_usage_bytes
container_memory_rss
container_memory_swap
container_memory_total_active_file_bytes
container_memory_total_inactive_file_bytes
container_memory_usage_bytes
container_memory_working_set_bytes
container_network_receive_bytes_total interface
container_network_receive_errors_total interface
container_network_receive_packets_dropped_total interface
container_network_receive_packets_total interface
container_network_transmit_bytes_total interface
container_network_transmit_errors_total interface
container_network_transmit_packets_dropped_total interface
container_network_transmit_packets_total interface
container_oom_events_total
container_pressure_cpu_stalled_seconds_total
container_pressure_cpu_waiting_seconds_total
container_pressure_io_stalled_seconds_total
container_pressure_io_waiting_seconds_total
container_pressure_memory_stalled_seconds_total
container_pressure_memory_waiting_seconds_total
container_processes
container_sockets
container_spec_cpu_period
container_spec_cpu_quota
container_spec_cpu_shares
container_spec_memory_limit_bytes
container_spec_memory_reservation_limit_bytes
container_spec_memory_swap_limit_bytes
container_start_time_seconds
container_tasks_state state
container_threads
container_threads_max
container_ulimits_soft ulimit
`

// TestCAdvisor checks that /metrics/cadvisor has the metrics and labels of a kubelet, for
// a container and its pod.
func TestCAdvisor(t *testing.T) {
	p := provider(t)
	dir := t.TempDir()
	for _, path := range []string{"", "kubepods/podu/", "kubepods/podu/new/"} {
		files := map[string]string{path + "cgroup.controllers": "cpu io memory\n", path + "cpu.stat": "usage_usec 1\n", path + "cpu.max": "1000 100000\n", path + "cpu.weight": "1\n",
			path + "memory.stat": "anon 1\n", path + "memory.current": "1\n", path + "pids.current": "1\n", path + "cgroup.procs": fmt.Sprintf("%d\n", os.Getpid()),
			path + "io.stat": "999:0 rbytes=1 wbytes=1 rios=1 wios=1\n"}
		maps.Copy(files, pressures(path))
		tree(t, dir, files)
	}
	p.cg = newCgroups(dir)
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(p.Containers())
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]map[string]bool{}
	for _, f := range families {
		for _, m := range f.Metric {
			var labels []string
			of := ""
			for _, l := range m.Label {
				switch n := l.GetName(); {
				case n == "container":
					of = l.GetValue()
				case !slices.Contains(group, n):
					labels = append(labels, n)
				}
			}
			name := strings.Join(append([]string{f.GetName()}, labels...), " ")
			if got[name] == nil {
				got[name] = map[string]bool{}
			}
			got[name][of] = true
		}
	}
	for name := range strings.Lines(strings.TrimPrefix(cadvisorMetrics, "\n")) {
		name = strings.TrimSpace(name)
		of := "c"
		if strings.Contains(name, "_network_") {
			of = "" // it is the pod's, and in this test the machine's
		}
		if strings.Contains(name, "_fs_") && !strings.Contains(name, "reads") && !strings.Contains(name, "writes") && !strings.Contains(name, "usage") {
			continue // the runtime of this test tells no file system
		}
		if !got[name][of] {
			t.Errorf("%s is missing", name)
		}
	}
	for _, name := range []string{"machine_cpu_cores", "machine_cpu_physical_cores", "machine_cpu_sockets", "machine_memory_bytes", "machine_swap_bytes", "machine_scrape_error", "container_scrape_error"} {
		if got[name] == nil {
			t.Errorf("%s is missing", name)
		}
	}
}
