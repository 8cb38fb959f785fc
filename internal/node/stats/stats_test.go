package stats

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/grpc"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
)

// tree writes files below a folder.
func tree(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCgroups(t *testing.T) {
	v1Dir, v2Dir := t.TempDir(), t.TempDir()
	tree(t, v1Dir, map[string]string{
		"cpuacct/p/cpuacct.usage": "5000000000\n", "cpuacct/p/cpuacct.stat": "user 300\nsystem 100\n",
		"cpu/p/cpu.stat": "nr_periods 10\nnr_throttled 2\nthrottled_time 7000\n", "cpu/p/cpu.shares": "512\n", "cpu/p/cpu.cfs_quota_us": "50000\n", "cpu/p/cpu.cfs_period_us": "100000\n",
		"memory/p/memory.usage_in_bytes": "1000\n", "memory/p/memory.stat": "cache 1\ntotal_cache 600\ntotal_rss 300\ntotal_inactive_file 400\ntotal_pgfault 7\ntotal_pgmajfault 2\n",
		"memory/p/memory.limit_in_bytes": "4096\n", "memory/p/memory.failcnt": "3\n", "memory/p/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
		"memory/q/memory.usage_in_bytes": "100\n", "memory/q/memory.stat": "total_inactive_file 400\n", "memory/q/memory.limit_in_bytes": "9223372036854771712\n",
		"memory/p/abc123/memory.usage_in_bytes": "1\n", "pids/p/pids.current": "12\n", "pids/p/cgroup.procs": "1\n2\n", "pids/p/abc123/cgroup.procs": "3\n",
	})
	tree(t, v2Dir, map[string]string{
		"cgroup.controllers": "cpu memory\n",
		"p/cpu.stat":         "usage_usec 5000000\nuser_usec 3000000\nsystem_usec 1000000\nnr_periods 10\nnr_throttled 2\nthrottled_usec 7\n",
		"p/cpu.weight":       "20\n", "p/cpu.max": "50000 100000\n", "p/memory.current": "1000\n", "p/memory.max": "4096\n", "p/memory.events": "max 3\noom_kill 1\n",
		"p/memory.stat": "anon 300\nfile 600\ninactive_file 400\npgfault 7\npgmajfault 2\n", "p/pids.current": "12\n",
		"q/memory.stat": "anon 60\nfile 40\n", "q/memory.max": "max\n", "q/cpu.stat": "usage_usec 1\n", "q/cpu.max": "max 100000\n",
	})
	for version, dir := range map[string]string{"v1": v1Dir, "v2": v2Dir} {
		c := newCgroups(dir)
		if c.v2 != (version == "v2") {
			t.Errorf("%s: taken for the other version", version)
		}
		got, ok := c.cpu("p")
		if !ok || got.usage != 5e9 || got.user != 3e9 || got.system != 1e9 || got.periods != 10 || got.throttled != 2 || got.stalled != 7000 || got.quota != 50000 || got.period != 100000 || got.shares < 500 || got.shares > 512 {
			t.Errorf("%s: cpu %+v, %t", version, got, ok)
		}
		m, ok := c.memory("p")
		if !ok || m.usage != 1000 || m.workingSet != 600 || m.rss != 300 || m.cache != 600 || m.limit != 4096 || m.faults != 7 || m.majorFaults != 2 || m.failures != 3 || m.oom != 1 {
			t.Errorf("%s: memory %+v, %t", version, m, ok)
		}
		if m, ok := c.memory("q"); !ok || m.usage != 100 || m.limit != 0 {
			t.Errorf("%s: memory without a limit %+v, %t", version, m, ok)
		}
		if n, ok := c.pids("p"); !ok || n != 12 {
			t.Errorf("%s: %d processes and threads, %t", version, n, ok)
		}
		if _, ok := c.memory("none"); ok {
			t.Errorf("%s: a cgroup that is not there has memory", version)
		}
	}
	c := newCgroups(v1Dir)
	if n := c.tasks("p").processes; n != 3 {
		t.Errorf("%d processes", n)
	}
	if got, ok := c.child("p", "abc123"); !ok || got != "p/abc123" {
		t.Errorf("the container's cgroup: %q, %t", got, ok)
	}
}

func TestDiskUsage(t *testing.T) {
	dir := t.TempDir()
	empty := diskUsage(dir)
	tree(t, dir, map[string]string{"a": strings.Repeat("x", 1<<20), "sub/b": strings.Repeat("x", 1<<20)})
	if err := os.Link(filepath.Join(dir, "a"), filepath.Join(dir, "again")); err != nil {
		t.Fatal(err)
	}
	sparse, err := os.Create(filepath.Join(dir, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	if err := sparse.Truncate(1 << 30); err != nil {
		t.Fatal(err)
	}
	sparse.Close()
	got := diskUsage(dir)
	if n := got.bytes - empty.bytes; n < 2<<20 || n > 2<<20+64<<10 {
		t.Errorf("%d bytes, want 2 Mi: of two files, one with two names, and one that is a hole", n)
	}
	if n := got.inodes - empty.inodes; n != 4 {
		t.Errorf("%d inodes, want those of three files and a folder", n)
	}
}

// TestSizes checks that a folder is not added up again before some time.
func TestSizes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := sizes{clock: clock.RealClock{}}
		before := s.of(dir)
		tree(t, dir, map[string]string{"a": strings.Repeat("x", 1<<20)})
		if got := s.of(dir); got.used != before.used {
			t.Error("added up twice at once")
		}
		time.Sleep(fresh)
		if got := s.of(dir); got.bytes < before.bytes+1<<20 {
			t.Errorf("%d bytes after a while", got.bytes)
		}
		time.Sleep(3 * stale)
		s.forget()
		if len(s.known) != 0 {
			t.Error("remembered for ever")
		}
	})
}

// fakeRuntime is one that has these containers.
type fakeRuntime struct {
	Runtime
	stats []*runtimeapi.ContainerStats
}

func (r fakeRuntime) ListContainerStats(context.Context, *runtimeapi.ListContainerStatsRequest, ...grpc.CallOption) (*runtimeapi.ListContainerStatsResponse, error) {
	return &runtimeapi.ListContainerStatsResponse{Stats: r.stats}, nil
}

func (r fakeRuntime) ListContainers(context.Context, *runtimeapi.ListContainersRequest, ...grpc.CallOption) (*runtimeapi.ListContainersResponse, error) {
	out := &runtimeapi.ListContainersResponse{}
	for _, s := range r.stats {
		out.Containers = append(out.Containers, &runtimeapi.Container{Id: s.Attributes.Id, Labels: s.Attributes.Labels, Image: &runtimeapi.ImageSpec{Image: "img"}})
	}
	return out, nil
}

func (r fakeRuntime) ImageFsInfo(context.Context, *runtimeapi.ImageFsInfoRequest, ...grpc.CallOption) (*runtimeapi.ImageFsInfoResponse, error) {
	return &runtimeapi.ImageFsInfoResponse{ImageFilesystems: []*runtimeapi.FilesystemUsage{{FsId: &runtimeapi.FilesystemIdentifier{Mountpoint: "/"}, UsedBytes: &runtimeapi.UInt64Value{Value: 5}}}}, nil
}

// provider has a pod with one container, which was restarted.
func provider(t *testing.T) *Provider {
	t.Helper()
	root, cg := t.TempDir(), t.TempDir()
	tree(t, root, map[string]string{"pods/u/volumes/kubernetes.io~empty-dir/v/f": strings.Repeat("x", 1<<20), "logs/c/0.log": strings.Repeat("x", 1<<16)})
	tree(t, cg, map[string]string{
		"cpuacct/cpuacct.usage": "9000000000\n", "memory/memory.usage_in_bytes": "1000\n", "memory/memory.stat": "total_inactive_file 400\n",
		"cpuacct/kubepods/podu/cpuacct.usage": "5000000000\n", "memory/kubepods/podu/memory.usage_in_bytes": "700\n", "memory/kubepods/podu/memory.stat": "total_inactive_file 100\n",
		"cpuacct/kubepods/podu/new/cpuacct.usage": "4000000000\n", "memory/kubepods/podu/new/memory.usage_in_bytes": "500\n", "memory/kubepods/podu/new/memory.stat": "total_inactive_file 100\n",
		"pids/kubepods/podu/pids.current": "3\n",
	})
	stats := func(id string, attempt uint32) *runtimeapi.ContainerStats {
		return &runtimeapi.ContainerStats{Attributes: &runtimeapi.ContainerAttributes{Id: id, Metadata: &runtimeapi.ContainerMetadata{Name: "c", Attempt: attempt},
			Labels: map[string]string{"io.kubernetes.pod.uid": "u", "io.kubernetes.container.name": "c"}},
			WritableLayer: &runtimeapi.FilesystemUsage{UsedBytes: &runtimeapi.UInt64Value{Value: 1000}, InodesUsed: &runtimeapi.UInt64Value{Value: 2}}}
	}
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "u"}, Spec: v1.PodSpec{HostNetwork: true, Containers: []v1.Container{{Name: "c"}},
		Volumes: []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}}}}, Status: v1.PodStatus{Phase: v1.PodRunning,
		ContainerStatuses: []v1.ContainerStatus{{Name: "c", ContainerID: "containerd://new", State: v1.ContainerState{Running: &v1.ContainerStateRunning{StartedAt: metav1.Unix(100, 0)}}}}}}
	done := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "done", UID: "d"}, Status: v1.PodStatus{Phase: v1.PodSucceeded}}
	p := New(Config{Node: "n", Runtime: fakeRuntime{stats: []*runtimeapi.ContainerStats{stats("old", 0), stats("new", 1)}}, RootDir: root, Pods: func() []*v1.Pod { return []*v1.Pod{pod, done} },
		LogDir: func(*v1.Pod) string { return filepath.Join(root, "logs") }, PodsCgroup: "kubepods", Cgroup: func(p *v1.Pod) string { return "kubepods/pod" + string(p.UID) }, Clock: clock.RealClock{}})
	p.cg = newCgroups(cg)
	return p
}

func TestSummary(t *testing.T) {
	s, err := provider(t).Summary(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s.Node.NodeName != "n" || *s.Node.CPU.UsageCoreNanoSeconds != 9e9 || *s.Node.Memory.WorkingSetBytes != 600 || s.Node.Fs == nil || *s.Node.Runtime.ImageFs.UsedBytes != 5 || s.Node.Rlimit == nil {
		t.Errorf("node: %+v", s.Node)
	}
	if DedicatedImageFs(s) != (*s.Node.Fs.CapacityBytes != *s.Node.Runtime.ImageFs.CapacityBytes) {
		t.Error("DedicatedImageFs does not follow the file systems")
	}
	if len(s.Pods) != 1 {
		t.Fatalf("%d pods, want the one that has not ended", len(s.Pods))
	}
	p := s.Pods[0]
	if p.PodRef != (statsapi.PodReference{Name: "p", Namespace: "ns", UID: "u"}) || *p.CPU.UsageCoreNanoSeconds != 5e9 || *p.Memory.WorkingSetBytes != 600 || *p.ProcessStats.ProcessCount != 3 {
		t.Errorf("pod: %+v", p)
	}
	if len(p.Containers) != 1 || *p.Containers[0].CPU.UsageCoreNanoSeconds != 4e9 || *p.Containers[0].Memory.WorkingSetBytes != 400 || p.Containers[0].StartTime.Unix() != 100 {
		t.Fatalf("containers: %+v", p.Containers)
	}
	v, logs, rootfs := p.VolumeStats[0], p.Containers[0].Logs, p.Containers[0].Rootfs
	if v.Name != "v" || *v.UsedBytes < 1<<20 || *logs.UsedBytes < 1<<16 || *rootfs.UsedBytes != 1000 {
		t.Errorf("disks: %+v, %+v, %+v", v, logs, rootfs)
	}
	if got, want := *p.EphemeralStorage.UsedBytes, *v.UsedBytes+*logs.UsedBytes+1000; got != want {
		t.Errorf("ephemeral storage: %d, want %d", got, want)
	}
}

// TestRate checks that how much of a core is used is known from the second time
// on.
func TestRate(t *testing.T) {
	p := &Provider{rates: map[string]sample{}}
	begin := time.Unix(0, 0)
	for _, c := range []struct {
		after time.Duration
		usage uint64
		want  *uint64
	}{{0, 1e9, nil}, {10 * time.Second, 6e9, ptr.To[uint64](5e8)}, {10*time.Second + minInterval/2, 9e9, ptr.To[uint64](5e8)}, {20 * time.Second, 1e9, nil}} {
		got := p.rate("x", c.usage, begin.Add(c.after))
		if (got == nil) != (c.want == nil) || got != nil && *got != *c.want {
			t.Errorf("after %s: %v, want %v", c.after, got, c.want)
		}
	}
}

func TestMetrics(t *testing.T) {
	p := provider(t)
	for _, c := range []struct {
		name string
		from prometheus.Collector
		want string
	}{
		{"container_memory_working_set_bytes", withoutTime{p.Resources()}, "# HELP container_memory_working_set_bytes Current working set of the container in bytes\n# TYPE container_memory_working_set_bytes gauge\n" +
			`container_memory_working_set_bytes{container="c",namespace="ns",pod="p"} 400` + "\n"},
		{"pod_cpu_usage_seconds_total", withoutTime{p.Resources()}, "# HELP pod_cpu_usage_seconds_total Cumulative cpu time consumed by the pod in core-seconds\n# TYPE pod_cpu_usage_seconds_total counter\n" +
			`pod_cpu_usage_seconds_total{namespace="ns",pod="p"} 5` + "\n"},
		{"container_start_time_seconds", withoutTime{p.Resources()}, "# HELP container_start_time_seconds Start time of the container since unix epoch in seconds\n# TYPE container_start_time_seconds gauge\n" +
			`container_start_time_seconds{container="c",namespace="ns",pod="p"} 100` + "\n"},
		{"resource_scrape_error", withoutTime{p.Resources()}, "# HELP resource_scrape_error 1 if there was an error while getting container metrics, 0 otherwise\n# TYPE resource_scrape_error gauge\nresource_scrape_error 0\n"},
		{"container_memory_working_set_bytes", withoutTime{p.Containers()}, "# HELP container_memory_working_set_bytes Current working set in bytes.\n# TYPE container_memory_working_set_bytes gauge\n" +
			`container_memory_working_set_bytes{container="",id="/",image="",name="",namespace="",pod=""} 600` + "\n" +
			`container_memory_working_set_bytes{container="",id="/kubepods/podu",image="",name="",namespace="ns",pod="p"} 600` + "\n" +
			`container_memory_working_set_bytes{container="c",id="/kubepods/podu/new",image="img",name="new",namespace="ns",pod="p"} 400` + "\n"},
	} {
		if err := testutil.CollectAndCompare(c.from, strings.NewReader(c.want), c.name); err != nil {
			t.Error(err)
		}
	}
}

// withoutTime leaves the times out, which cannot be compared.
type withoutTime struct{ prometheus.Collector }

func (w withoutTime) Collect(out chan<- prometheus.Metric) {
	in := make(chan prometheus.Metric)
	go func() {
		w.Collector.Collect(in)
		close(in)
	}()
	for m := range in {
		out <- timeless{m}
	}
}

type timeless struct{ prometheus.Metric }

func (m timeless) Write(out *dto.Metric) error {
	err := m.Metric.Write(out)
	out.TimestampMs = nil
	return err
}
