package cgroup

import (
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func TestNumbers(t *testing.T) {
	for milli, want := range map[int64]uint64{0: 2, 1: 2, 100: 102, 500: 512, 1000: 1024, 1_000_000: 262144} {
		if got := Shares(milli); got != want {
			t.Errorf("shares of %dm: %d, want %d", milli, got, want)
		}
	}
	for milli, want := range map[int64]int64{0: 0, 1: 1000, 500: 50_000, 2500: 250_000} {
		if got := Quota(milli); got != want {
			t.Errorf("quota of %dm: %d, want %d", milli, got, want)
		}
	}
	for shares, want := range map[uint64]uint64{0: 0, 2: 1, 102: 17, 1024: 100, 2048: 174, 262144: 10000} {
		if got := Weight(shares); got != want {
			t.Errorf("weight of %d: %d, want %d", shares, got, want)
		}
	}
	for size, want := range map[int64]string{2 << 20: "2MB", 1 << 30: "1GB", 64 << 10: "64KB"} {
		if got := PageName(size); got != want {
			t.Errorf("page %d: %s", size, got)
		}
	}
}

func list(cpu, memory string) v1.ResourceList {
	out := v1.ResourceList{}
	if cpu != "" {
		out[v1.ResourceCPU] = resource.MustParse(cpu)
	}
	if memory != "" {
		out[v1.ResourceMemory] = resource.MustParse(memory)
	}
	return out
}

func container(requests, limits v1.ResourceList) v1.Container {
	return v1.Container{Resources: v1.ResourceRequirements{Requests: requests, Limits: limits}}
}

func TestForPod(t *testing.T) {
	always := v1.ContainerRestartPolicyAlways
	sidecar := container(list("100m", "32Mi"), list("100m", "32Mi"))
	sidecar.RestartPolicy = &always
	half := container(list("500m", "64Mi"), list("500m", "64Mi"))
	for _, c := range []struct {
		name  string
		spec  v1.PodSpec
		class v1.PodQOSClass
		want  Resources
	}{
		{"guaranteed", v1.PodSpec{Containers: []v1.Container{half, half}}, v1.PodQOSGuaranteed, Resources{CPUShares: 1024, CPUQuota: 100_000, Memory: 128 << 20}},
		{"with overhead", v1.PodSpec{Containers: []v1.Container{half}, Overhead: list("250m", "16Mi")}, v1.PodQOSGuaranteed, Resources{CPUShares: 768, CPUQuota: 75_000, Memory: 80 << 20}},
		{"with a sidecar", v1.PodSpec{Containers: []v1.Container{half}, InitContainers: []v1.Container{sidecar}}, v1.PodQOSGuaranteed, Resources{CPUShares: 614, CPUQuota: 60_000, Memory: 96 << 20}},
		{"burstable, limited", v1.PodSpec{Containers: []v1.Container{container(list("250m", ""), list("1", "1Gi"))}}, v1.PodQOSBurstable, Resources{CPUShares: 256, CPUQuota: 100_000, Memory: 1 << 30}},
		{"burstable, one without limits", v1.PodSpec{Containers: []v1.Container{half, container(list("250m", ""), nil)}}, v1.PodQOSBurstable, Resources{CPUShares: 768, CPUQuota: Unlimited, Memory: Unlimited}},
		{"best effort", v1.PodSpec{Containers: []v1.Container{{}}}, v1.PodQOSBestEffort, Resources{CPUShares: 2, CPUQuota: Unlimited, Memory: Unlimited}},
		{"of the pod itself", v1.PodSpec{Containers: []v1.Container{{}, container(list("100m", ""), nil)}, Resources: &v1.ResourceRequirements{Requests: list("1", "64Mi"), Limits: list("2", "128Mi")}},
			v1.PodQOSBurstable, Resources{CPUShares: 1024, CPUQuota: 200_000, Memory: 128 << 20}},
	} {
		got := ForPod(&v1.Pod{Spec: c.spec}, c.class, Memory{})
		if got.CPUShares != c.want.CPUShares || got.CPUQuota != c.want.CPUQuota || got.Memory != c.want.Memory {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
	pages := container(v1.ResourceList{"hugepages-2Mi": resource.MustParse("4Mi")}, v1.ResourceList{"hugepages-2Mi": resource.MustParse("4Mi")})
	if got := ForPod(&v1.Pod{Spec: v1.PodSpec{Containers: []v1.Container{pages}}}, v1.PodQOSBurstable, Memory{}).HugePages; !maps.Equal(got, map[int64]int64{2 << 20: 4 << 20}) {
		t.Errorf("huge pages: %v", got)
	}
}

func TestClasses(t *testing.T) {
	var s Sum
	s.Add(&v1.Pod{Spec: v1.PodSpec{Containers: []v1.Container{container(list("500m", "1Gi"), nil)}}}, v1.PodQOSBurstable)
	s.Add(&v1.Pod{Spec: v1.PodSpec{Containers: []v1.Container{container(list("250m", "1Gi"), nil)}}}, v1.PodQOSBurstable)
	s.Add(&v1.Pod{Spec: v1.PodSpec{Containers: []v1.Container{container(list("4", "2Gi"), list("4", "2Gi"))}}}, v1.PodQOSGuaranteed)
	if got := s.Burstable(Memory{}); got.CPUShares != 768 || got.Protection != (Protection{}) {
		t.Errorf("burstable: %+v", got)
	}
	tiered := Memory{Reservation: TieredReservation}
	if got := s.Burstable(tiered); got.Protection != (Protection{Low: 2 << 30}) {
		t.Errorf("burstable, memory protected: %+v", got)
	}
	if got := s.Node(list("8", "16Gi"), tiered); got.CPUShares != 8192 || got.Memory != 16<<30 || got.Protection.Min != 2<<30 {
		t.Errorf("all pods: %+v", got)
	}
	if got := s.BestEffort().CPUShares; got != 2 {
		t.Errorf("best effort: %d", got)
	}
}

func TestMemory(t *testing.T) {
	m := Memory{Reservation: TieredReservation, Throttling: 0.9}
	for _, c := range []struct {
		name           string
		class          v1.PodQOSClass
		request, limit int64
		want           Protection
		high           int64
	}{
		{"guaranteed", v1.PodQOSGuaranteed, 1 << 30, 1 << 30, Protection{Min: 1 << 30}, 0},
		{"burstable with a limit", v1.PodQOSBurstable, 256 << 20, 1 << 30, Protection{Low: 256 << 20}, 993210368},
		{"burstable without one", v1.PodQOSBurstable, 0, 0, Protection{}, 9663676416},
	} {
		p, high := m.Container(c.class, c.request, c.limit, 10<<30)
		if p != c.want || high != c.high {
			t.Errorf("%s: %+v and %d", c.name, p, high)
		}
	}
	if p, high := (Memory{}).Container(v1.PodQOSBurstable, 1, 2, 3); p != (Protection{}) || high != 0 {
		t.Error("memory is protected or throttled by default")
	}
}

func TestNames(t *testing.T) {
	n := Pods("").Class(v1.PodQOSBurstable).Pod("1-2-3")
	for _, c := range [][2]string{
		{n.Parent(Cgroupfs), "/kubepods/burstable/pod1-2-3"},
		{n.Path(Cgroupfs), "kubepods/burstable/pod1-2-3"},
		{n.Parent(Systemd), "kubepods-burstable-pod1_2_3.slice"},
		{n.Path(Systemd), "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2_3.slice"},
		{Pods("").Class(v1.PodQOSGuaranteed).Pod("u").Parent(Cgroupfs), "/kubepods/podu"},
		{Pods("/a").Parent(Systemd), "a-kubepods.slice"},
	} {
		if c[0] != c[1] {
			t.Errorf("%q, want %q", c[0], c[1])
		}
	}
}

// hierarchy returns a manager on a folder with the kernel's files of a
// hierarchy.
func hierarchy(t *testing.T, v2 bool, files ...string) *Manager {
	t.Helper()
	m := &Manager{FS: t.TempDir(), Driver: Cgroupfs, V2: v2}
	for _, f := range files {
		path := filepath.Join(m.FS, f)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func content(t *testing.T, m *Manager, files map[string]string) {
	t.Helper()
	for f, want := range files {
		b, err := os.ReadFile(filepath.Join(m.FS, f))
		if err != nil || string(b) != want {
			t.Errorf("%s: %q, %v, want %q", f, b, err, want)
		}
	}
}

func TestApplyV1(t *testing.T) {
	m := hierarchy(t, false, "cpu/kubepods/podu/cpu.shares", "cpu/kubepods/podu/cpu.cfs_period_us", "cpu/kubepods/podu/cpu.cfs_quota_us",
		"memory/kubepods/podu/memory.limit_in_bytes", "pids/x")
	n := Pods("").Pod("u")
	if err := m.Apply(n, Resources{CPUShares: 512, CPUQuota: 50_000, Memory: 64 << 20, HugePages: map[int64]int64{2 << 20: 0}}); err != nil {
		t.Fatal(err)
	}
	content(t, m, map[string]string{"cpu/kubepods/podu/cpu.shares": "512", "cpu/kubepods/podu/cpu.cfs_period_us": "100000",
		"cpu/kubepods/podu/cpu.cfs_quota_us": "50000", "memory/kubepods/podu/memory.limit_in_bytes": "67108864"})
	if _, err := os.Stat(filepath.Join(m.FS, "pids/kubepods/podu")); err != nil {
		t.Errorf("a hierarchy without the cgroup: %v", err)
	}
	if err := m.Apply(n, Resources{OnlyPages: true}); err != nil {
		t.Errorf("huge pages that the machine does not count: %v", err)
	}
	if err := m.Apply(n, Resources{HugePages: map[int64]int64{2 << 20: 2 << 20}}); err == nil {
		t.Error("a limit that cannot be set is passed over")
	}
	if got := m.PodUIDs(Pods("")); len(got) != 1 || got["u"].Path(Cgroupfs) != "kubepods/podu" {
		t.Errorf("pods: %v", got)
	}
}

func TestApplyV2(t *testing.T) {
	pod := "kubepods/burstable/podu/"
	m := hierarchy(t, true, "cgroup.subtree_control", "kubepods/cgroup.controllers", "kubepods/burstable/cgroup.controllers",
		pod+"cpu.weight", pod+"cpu.max", pod+"memory.max", pod+"memory.min", pod+"memory.low")
	if err := os.WriteFile(filepath.Join(m.FS, "cgroup.controllers"), []byte("cpu memory\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	n := Pods("").Class(v1.PodQOSBurstable).Pod("u")
	if err := m.Apply(n, Resources{CPUShares: 1024, CPUQuota: Unlimited, Memory: Unlimited, Protection: Protection{Low: 4096}}); err != nil {
		t.Fatal(err)
	}
	content(t, m, map[string]string{pod + "cpu.weight": "100", pod + "cpu.max": "max 100000", pod + "memory.max": "max", pod + "memory.min": "0", pod + "memory.low": "4096"})
	if b, err := os.ReadFile(filepath.Join(m.FS, "cgroup.subtree_control")); err != nil || !strings.HasPrefix(string(b), "+") {
		t.Errorf("controllers that are handed down: %q, %v", b, err)
	}
}

type recorded struct {
	slices  []string
	last    []property
	removed string
}

func (r *recorded) Apply(slice string, p []property) error {
	r.slices, r.last = append(r.slices, slice), p
	return nil
}
func (r *recorded) Remove(slice string) error { r.removed = slice; return nil }

func TestSystemd(t *testing.T) {
	m, r := hierarchy(t, true, "x"), &recorded{}
	m.Driver, m.slices = Systemd, r
	n := Pods("").Class(v1.PodQOSBurstable).Pod("1-2")
	dir := filepath.Join(m.FS, n.Path(Systemd))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"cpu.weight", "cpu.max", "memory.max"} {
		if err := os.WriteFile(filepath.Join(dir, f), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Apply(n, Resources{CPUShares: 1024, CPUQuota: 12_345, Memory: Unlimited}); err != nil {
		t.Fatal(err)
	}
	want := []property{{"CPUWeight", uint64(100)}, {"MemoryMax", uint64(math.MaxUint64)}, {"MemoryMin", uint64(0)}, {"MemoryLow", uint64(0)}, {"CPUQuotaPerSecUSec", uint64(130_000)}}
	if !slices.Equal(r.last, want) || r.slices[0] != "kubepods-burstable-pod1_2.slice" {
		t.Errorf("%v: %v, want %v", r.slices, r.last, want)
	}
	if got := m.PodUIDs(Pods("")); got["1-2"] == nil {
		t.Errorf("pods: %v", got)
	}
	if err := m.Remove(n); err != nil || r.removed != "kubepods-burstable-pod1_2.slice" {
		t.Errorf("removed %q, %v", r.removed, err)
	}
	if got := properties(Resources{CPUShares: 512, CPUQuota: Unlimited, Memory: 1 << 20}, false); !slices.Equal(got,
		[]property{{"CPUShares", uint64(512)}, {"MemoryLimit", uint64(1 << 20)}, {"CPUQuotaPerSecUSec", uint64(math.MaxUint64)}}) {
		t.Errorf("v1: %v", got)
	}
}
