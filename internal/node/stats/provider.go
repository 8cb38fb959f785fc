package stats

import (
	"bufio"
	"context"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/api/podspec"
	"keelson.dev/keelson/internal/node/cri"
)

// Runtime has the calls to the CRI runtime; a *cri.Client is one.
type Runtime interface {
	runtimeapi.RuntimeServiceClient
	runtimeapi.ImageServiceClient
}

var _ Runtime = (*cri.Client)(nil)

// Config configures a Provider.
type Config struct {
	Node    string
	Runtime Runtime
	// RootDir is the node's folder: pods/<uid>/volumes/<plug-in>/<name> are
	// below it.
	RootDir string
	// Pods are the node's pods with their status.
	Pods func() []*v1.Pod
	// Mounted is where a volume of a pod is on the machine; nil looks for a folder
	// of the volume's name.
	Mounted func(pod types.UID, volume string) (path string, ok bool)
	// Measured returns the figures that a volume's driver has of it, nil for none.
	Measured func(pod types.UID, volume string) *statsapi.FsStats
	// LogDir is the folder of a pod's logs.
	LogDir func(*v1.Pod) string
	// PodsCgroup is the cgroup of all pods and Cgroup that of one, below the
	// root of each hierarchy.
	PodsCgroup string
	Cgroup     func(*v1.Pod) string
	Clock      clock.PassiveClock
}

// Provider measures a node.
type Provider struct {
	Config
	cg    cgroups
	sizes sizes
	start time.Time

	mu    sync.Mutex
	rates map[string]sample
}

// New makes a provider.
func New(c Config) *Provider {
	return &Provider{Config: c, cg: newCgroups("/sys/fs/cgroup"), sizes: sizes{clock: c.Clock}, start: c.Clock.Now(), rates: map[string]sample{}}
}

// sample is a cgroup's CPU time at a moment.
type sample struct {
	at    time.Time
	usage uint64
	rate  *uint64 // nanocores, up to then
}

// minInterval is the least time that a rate is taken over.
const minInterval = 2 * time.Second

// rate returns how much of a core has been used since it was asked for last, in
// nanocores; nil the first time.
func (p *Provider) rate(key string, usage uint64, at time.Time) *uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	old, ok := p.rates[key]
	switch {
	case !ok || usage < old.usage:
		p.rates[key] = sample{at, usage, nil}
	case at.Sub(old.at) >= minInterval:
		r := uint64(float64(usage-old.usage) / at.Sub(old.at).Seconds())
		p.rates[key] = sample{at, usage, &r}
	}
	return p.rates[key].rate
}

// forget drops the samples of what is no more.
func (p *Provider) forget(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for k, s := range p.rates {
		if now.Sub(s.at) > 10*stale {
			delete(p.rates, k)
		}
	}
}

// Summary measures everything.
func (p *Provider) Summary(ctx context.Context) (*statsapi.Summary, error) {
	return p.summary(ctx, true)
}

// CPUAndMemory measures no disks and networks.
func (p *Provider) CPUAndMemory(ctx context.Context) (*statsapi.Summary, error) {
	return p.summary(ctx, false)
}

func (p *Provider) summary(ctx context.Context, all bool) (*statsapi.Summary, error) {
	now := p.Clock.Now()
	containers, err := p.Runtime.ListContainerStats(ctx, &runtimeapi.ListContainerStatsRequest{})
	if err != nil {
		return nil, err
	}
	byPod := map[string][]*runtimeapi.ContainerStats{}
	for _, c := range containers.Stats {
		if uid := c.GetAttributes().GetLabels()[cri.PodUIDLabel]; uid != "" {
			byPod[uid] = append(byPod[uid], c)
		}
	}
	out := &statsapi.Summary{Node: p.node(now, all), Pods: []statsapi.PodStats{}}
	if all {
		out.Node.Runtime = p.images(ctx, now)
	}
	for _, pod := range p.Pods() {
		if pod.Status.Phase == v1.PodSucceeded || pod.Status.Phase == v1.PodFailed {
			continue
		}
		s := p.pod(pod, byPod[string(pod.UID)], now)
		if all {
			p.disks(pod, &s, now)
			if !pod.Spec.HostNetwork {
				s.Network = p.podNetwork(pod, byPod[string(pod.UID)], now)
			}
		}
		out.Pods = append(out.Pods, s)
	}
	slices.SortFunc(out.Pods, func(a, b statsapi.PodStats) int {
		return strings.Compare(a.PodRef.Namespace+"/"+a.PodRef.Name, b.PodRef.Namespace+"/"+b.PodRef.Name)
	})
	p.sizes.forget()
	p.forget(now)
	return out, nil
}

// node measures the machine, and what its system containers use: all pods, and
// this process, which is the kubelet.
func (p *Provider) node(now time.Time, all bool) statsapi.NodeStats {
	out := statsapi.NodeStats{NodeName: p.Node, StartTime: metav1.NewTime(bootTime())}
	total := MemTotal()
	out.CPU, out.Memory, out.Swap = p.measure("", total, now)
	out.IO = p.io("", now)
	if pods, mem, swap := p.measure(p.PodsCgroup, total, now); pods != nil || mem != nil {
		out.SystemContainers = append(out.SystemContainers, statsapi.ContainerStats{Name: statsapi.SystemContainerPods, StartTime: metav1.NewTime(p.start), CPU: pods, Memory: mem, Swap: swap})
	} else {
		// Without a pod there is no cgroup of pods yet, and they use nothing.
		out.SystemContainers = append(out.SystemContainers, statsapi.ContainerStats{Name: statsapi.SystemContainerPods, StartTime: metav1.NewTime(p.start),
			CPU:    &statsapi.CPUStats{Time: metav1.NewTime(now), UsageNanoCores: ptr.To[uint64](0), UsageCoreNanoSeconds: ptr.To[uint64](0)},
			Memory: &statsapi.MemoryStats{Time: metav1.NewTime(now), AvailableBytes: ptr.To(total), UsageBytes: ptr.To[uint64](0), WorkingSetBytes: ptr.To[uint64](0), RSSBytes: ptr.To[uint64](0)}})
	}
	if c := p.self(now); c != nil {
		out.SystemContainers = append(out.SystemContainers, *c)
	}
	if !all {
		return out
	}
	if f, ok := fileSystem(p.RootDir, now); ok {
		out.Fs = f
	}
	out.Network = network(interfaces("/proc/net/dev"), "", now)
	out.Rlimit = rlimit(now)
	return out
}

// measure reads a cgroup; what it may use is the machine's where it has no limit
// of its own.
func (p *Provider) measure(cgroup string, total uint64, now time.Time) (*statsapi.CPUStats, *statsapi.MemoryStats, *statsapi.SwapStats) {
	var c *statsapi.CPUStats
	if m, ok := p.cg.cpu(cgroup); ok {
		c = &statsapi.CPUStats{Time: metav1.NewTime(now), UsageCoreNanoSeconds: ptr.To(m.usage), UsageNanoCores: p.rate("/"+cgroup, m.usage, now), PSI: p.cg.pressure(cgroup, pressureCPU)}
	}
	m, ok := p.cg.memory(cgroup)
	if !ok {
		return c, nil, nil
	}
	mem := &statsapi.MemoryStats{Time: metav1.NewTime(now), UsageBytes: ptr.To(m.usage), WorkingSetBytes: ptr.To(m.workingSet),
		RSSBytes: ptr.To(m.rss), PageFaults: ptr.To(m.faults), MajorPageFaults: ptr.To(m.majorFaults), PSI: p.cg.pressure(cgroup, pressureMemory)}
	if limit := m.limit; cgroup == "" {
		mem.AvailableBytes = ptr.To(less(total, m.workingSet))
	} else if limit > 0 {
		mem.AvailableBytes = ptr.To(less(limit, m.workingSet))
	} else if cgroup == p.PodsCgroup {
		mem.AvailableBytes = ptr.To(less(total, m.workingSet))
	}
	return c, mem, &statsapi.SwapStats{Time: metav1.NewTime(now), SwapUsageBytes: ptr.To(m.swap)}
}

// self measures this process, from /proc: it has no cgroup of its own.
func (p *Provider) self(now time.Time) *statsapi.ContainerStats {
	b, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return nil
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) < 22 {
		return nil
	}
	number := func(i int) uint64 { n, _ := strconv.ParseUint(f[i], 10, 64); return n }
	usage := (number(11) + number(12)) * tick // utime and stime (proc(5))
	rss := number(21) * uint64(os.Getpagesize())
	return &statsapi.ContainerStats{Name: statsapi.SystemContainerKubelet, StartTime: metav1.NewTime(p.start),
		CPU: &statsapi.CPUStats{Time: metav1.NewTime(now), UsageCoreNanoSeconds: ptr.To(usage), UsageNanoCores: p.rate("kubelet", usage, now)},
		Memory: &statsapi.MemoryStats{Time: metav1.NewTime(now), UsageBytes: ptr.To(rss), WorkingSetBytes: ptr.To(rss), RSSBytes: ptr.To(rss),
			PageFaults: ptr.To(number(7)), MajorPageFaults: ptr.To(number(9))}}
}

// images measures the file system of the runtime's images and containers.
func (p *Provider) images(ctx context.Context, now time.Time) *statsapi.RuntimeStats {
	r, err := p.Runtime.ImageFsInfo(ctx, &runtimeapi.ImageFsInfoRequest{})
	if err != nil {
		return nil
	}
	of := func(list []*runtimeapi.FilesystemUsage) *statsapi.FsStats {
		for _, f := range list {
			if out, ok := fileSystem(f.GetFsId().GetMountpoint(), now); ok {
				out.UsedBytes, out.InodesUsed = ptr.To(f.GetUsedBytes().GetValue()), ptr.To(f.GetInodesUsed().GetValue())
				return out
			}
		}
		return nil
	}
	out := &statsapi.RuntimeStats{ImageFs: of(r.ImageFilesystems), ContainerFs: of(r.ContainerFilesystems)}
	if out.ContainerFs == nil && out.ImageFs != nil {
		// A runtime that does not report a file system of containers has them beside the
		// images.
		c := *out.ImageFs
		out.ContainerFs = &c
	}
	return out
}

// DedicatedImageFs reports whether images are on another file system than the
// node's folder.
func DedicatedImageFs(s *statsapi.Summary) bool {
	if s.Node.Fs == nil || s.Node.Runtime == nil || s.Node.Runtime.ImageFs == nil {
		return false
	}
	a, b := s.Node.Fs, s.Node.Runtime.ImageFs
	return ptr.Deref(a.CapacityBytes, 0) != ptr.Deref(b.CapacityBytes, 0) || ptr.Deref(a.Inodes, 0) != ptr.Deref(b.Inodes, 0)
}

// pod measures a pod's CPU and memory.
func (p *Provider) pod(pod *v1.Pod, containers []*runtimeapi.ContainerStats, now time.Time) statsapi.PodStats {
	out := statsapi.PodStats{PodRef: statsapi.PodReference{Name: pod.Name, Namespace: pod.Namespace, UID: string(pod.UID)}, Containers: []statsapi.ContainerStats{}}
	if pod.Status.StartTime != nil {
		out.StartTime = *pod.Status.StartTime
	}
	cgroup := p.Cgroup(pod)
	out.CPU, out.Memory, out.Swap = p.measure(cgroup, 0, now)
	out.IO = p.io(cgroup, now)
	if n, ok := p.cg.pids(cgroup); ok {
		out.ProcessStats = &statsapi.ProcessStats{ProcessCount: ptr.To(n)}
	}
	for _, c := range newest(containers) {
		out.Containers = append(out.Containers, p.container(pod, c, now))
	}
	return out
}

// newest keeps of each name the container that was made last.
func newest(containers []*runtimeapi.ContainerStats) []*runtimeapi.ContainerStats {
	last := map[string]*runtimeapi.ContainerStats{}
	for _, c := range containers {
		name := c.GetAttributes().GetLabels()[cri.ContainerNameLabel]
		if old := last[name]; old == nil || old.GetAttributes().GetMetadata().GetAttempt() < c.GetAttributes().GetMetadata().GetAttempt() {
			last[name] = c
		}
	}
	out := make([]*runtimeapi.ContainerStats, 0, len(last))
	for _, c := range last {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b *runtimeapi.ContainerStats) int {
		return strings.Compare(a.GetAttributes().GetLabels()[cri.ContainerNameLabel], b.GetAttributes().GetLabels()[cri.ContainerNameLabel])
	})
	return out
}

func (p *Provider) container(pod *v1.Pod, c *runtimeapi.ContainerStats, now time.Time) statsapi.ContainerStats {
	id := c.GetAttributes().GetId()
	out := statsapi.ContainerStats{Name: c.GetAttributes().GetLabels()[cri.ContainerNameLabel], StartTime: started(pod, id)}
	if cgroup, ok := p.cg.child(p.Cgroup(pod), id); ok {
		out.CPU, out.Memory, out.Swap = p.measure(cgroup, 0, now)
		out.IO = p.io(cgroup, now)
	}
	at := func(nanos int64) metav1.Time { return metav1.NewTime(time.Unix(0, nanos)) }
	if u := c.GetCpu(); out.CPU == nil && u != nil {
		usage := u.GetUsageCoreNanoSeconds().GetValue()
		out.CPU = &statsapi.CPUStats{Time: at(u.Timestamp), UsageCoreNanoSeconds: &usage, UsageNanoCores: p.rate(id, usage, time.Unix(0, u.Timestamp))}
		if n := u.GetUsageNanoCores(); n != nil {
			out.CPU.UsageNanoCores = ptr.To(n.Value)
		}
	}
	if m := c.GetMemory(); out.Memory == nil && m != nil {
		out.Memory = &statsapi.MemoryStats{Time: at(m.Timestamp), WorkingSetBytes: number(m.WorkingSetBytes), AvailableBytes: number(m.AvailableBytes),
			UsageBytes: number(m.UsageBytes), RSSBytes: number(m.RssBytes), PageFaults: number(m.PageFaults), MajorPageFaults: number(m.MajorPageFaults)}
	}
	if f := c.GetWritableLayer(); f != nil {
		out.Rootfs = &statsapi.FsStats{Time: at(f.Timestamp), UsedBytes: ptr.To(f.GetUsedBytes().GetValue()), InodesUsed: ptr.To(f.GetInodesUsed().GetValue())}
		if fs, ok := fileSystem(f.GetFsId().GetMountpoint(), now); ok {
			fs.UsedBytes, fs.InodesUsed, fs.Time = out.Rootfs.UsedBytes, out.Rootfs.InodesUsed, out.Rootfs.Time
			out.Rootfs = fs
		}
	}
	return out
}

func number(n *runtimeapi.UInt64Value) *uint64 {
	if n == nil {
		return nil
	}
	return ptr.To(n.Value)
}

// started returns when the container was started, by its pod's status.
func started(pod *v1.Pod, id string) metav1.Time {
	for _, s := range slices.Concat(pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses, pod.Status.EphemeralContainerStatuses) {
		if s.State.Running != nil && strings.HasSuffix(s.ContainerID, "://"+id) {
			return s.State.Running.StartedAt
		}
	}
	return metav1.Time{}
}

// disks measures the pod's volumes and logs, and the ephemeral storage among
// them and its containers.
func (p *Provider) disks(pod *v1.Pod, s *statsapi.PodStats, now time.Time) {
	total := used{}
	for i := range s.Containers {
		c := &s.Containers[i]
		k := p.sizes.of(filepath.Join(p.LogDir(pod), c.Name))
		if c.Logs = usedOn(filepath.Join(p.LogDir(pod), c.Name), k); c.Logs != nil {
			total.bytes, total.inodes = total.bytes+k.bytes, total.inodes+k.inodes
		}
		if c.Rootfs != nil {
			total.bytes, total.inodes = total.bytes+*c.Rootfs.UsedBytes, total.inodes+*c.Rootfs.InodesUsed
		}
	}
	// What its containers write to /etc/hosts and to their termination messages is on the
	// node's disk, too.
	for _, name := range []string{"etc-hosts", "containers"} {
		k := p.sizes.of(filepath.Join(p.RootDir, "pods", string(pod.UID), name))
		total.bytes, total.inodes = total.bytes+k.bytes, total.inodes+k.inodes
	}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		st := statsapi.VolumeStats{Name: v.Name}
		claim := podspec.ClaimName(pod, v)
		if claim != "" && p.Measured != nil {
			if f := p.Measured(pod.UID, v.Name); f != nil {
				st.FsStats, st.PVCRef = *f, &statsapi.PVCReference{Name: claim, Namespace: pod.Namespace}
				s.VolumeStats = append(s.VolumeStats, st)
				continue
			}
		}
		dir := p.volume(pod, v.Name)
		if dir == "" || v.HostPath != nil {
			continue
		}
		if claim != "" {
			f, ok := fileSystem(dir, now)
			if !ok {
				continue
			}
			st.FsStats, st.PVCRef = *f, &statsapi.PVCReference{Name: claim, Namespace: pod.Namespace}
		} else {
			k := p.sizes.of(dir)
			f := usedOn(dir, k)
			if f == nil {
				continue
			}
			st.FsStats = *f
			if isLocalEphemeral(v) {
				total.bytes, total.inodes = total.bytes+k.bytes, total.inodes+k.inodes
			}
		}
		s.VolumeStats = append(s.VolumeStats, st)
	}
	if f, ok := fileSystem(p.RootDir, now); ok {
		f.UsedBytes, f.InodesUsed = ptr.To(total.bytes), ptr.To(total.inodes)
		s.EphemeralStorage = f
	}
}

// isLocalEphemeral reports whether what is in a volume counts as ephemeral
// storage of the pod.
func isLocalEphemeral(v *v1.Volume) bool {
	return v.ConfigMap != nil || v.EmptyDir != nil && v.EmptyDir.Medium == v1.StorageMediumDefault
}

// volume returns the folder of a pod's volume, empty if it has none.
func (p *Provider) volume(pod *v1.Pod, name string) string {
	if p.Mounted != nil {
		if path, ok := p.Mounted(pod.UID, name); ok {
			return path
		}
	}
	dirs, _ := filepath.Glob(filepath.Join(p.RootDir, "pods", string(pod.UID), "volumes", "*"))
	for _, d := range dirs {
		if info, err := os.Stat(filepath.Join(d, name)); err == nil && info.IsDir() {
			return filepath.Join(d, name)
		}
	}
	return ""
}

// podNetwork reads the counters in the network namespace of one of the pod's
// processes.
func (p *Provider) podNetwork(pod *v1.Pod, containers []*runtimeapi.ContainerStats, now time.Time) *statsapi.NetworkStats {
	var ids []string
	for _, c := range containers {
		ids = append(ids, c.GetAttributes().GetId())
	}
	return network(p.podInterfaces(pod, ids), "eth0", now)
}

// podInterfaces returns the interfaces in the network namespace of one of the processes of
// the pod's containers.
func (p *Provider) podInterfaces(pod *v1.Pod, containers []string) []iface {
	for _, id := range containers {
		cgroup, ok := p.cg.child(p.Cgroup(pod), id)
		if !ok {
			continue
		}
		s, ok := p.cg.read("memory", cgroup, "cgroup.procs")
		if !ok {
			continue
		}
		for _, pid := range strings.Fields(s) {
			if all := interfaces("/proc/" + pid + "/net/dev"); all != nil {
				return all
			}
		}
	}
	return nil
}

// iface has the counters of a network interface.
type iface struct {
	name                                    string
	rxBytes, rxPackets, rxErrors, rxDropped uint64
	txBytes, txPackets, txErrors, txDropped uint64
}

// interfaces reads those of a network namespace from its net/dev (proc_pid_net(5)), without
// the loopback and the pods' ends. It is nil if the file cannot be read.
func interfaces(path string) []iface {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	out := []iface{}
	for s := bufio.NewScanner(f); s.Scan(); {
		name, counters, ok := strings.Cut(s.Text(), ":")
		c := strings.Fields(counters)
		if !ok || len(c) < 12 {
			continue // a heading
		}
		name = strings.TrimSpace(name)
		if name == "lo" || strings.HasPrefix(name, "veth") {
			continue
		}
		n := func(i int) uint64 { v, _ := strconv.ParseUint(c[i], 10, 64); return v }
		out = append(out, iface{name, n(0), n(1), n(2), n(3), n(8), n(9), n(10), n(11)})
	}
	return out
}

// network gives interfaces the form of the API; nil is none. The one of the name stands for
// all; "" is the first.
func network(all []iface, name string, now time.Time) *statsapi.NetworkStats {
	if all == nil {
		return nil
	}
	out := &statsapi.NetworkStats{Time: metav1.NewTime(now)}
	for _, f := range all {
		i := statsapi.InterfaceStats{Name: f.name, RxBytes: ptr.To(f.rxBytes), RxErrors: ptr.To(f.rxErrors), TxBytes: ptr.To(f.txBytes), TxErrors: ptr.To(f.txErrors)}
		if f.name == name || name == "" && out.Name == "" {
			out.InterfaceStats = i
		}
		out.Interfaces = append(out.Interfaces, i)
	}
	return out
}

// io returns the pressure on a cgroup's input and output, nil where it is not counted.
func (p *Provider) io(cgroup string, now time.Time) *statsapi.IOStats {
	s := p.cg.pressure(cgroup, pressureIO)
	if s == nil {
		return nil
	}
	return &statsapi.IOStats{Time: metav1.NewTime(now), PSI: s}
}

// rlimit returns the limit and the number of the machine's processes.
func rlimit(now time.Time) *statsapi.RlimitStats {
	read := func(path string) (int64, bool) {
		b, err := os.ReadFile(path)
		if err != nil {
			return 0, false
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		return n, err == nil
	}
	most, ok := read("/proc/sys/kernel/pid_max")
	if !ok {
		return nil
	}
	if threads, ok := read("/proc/sys/kernel/threads-max"); ok {
		most = min(most, threads)
	}
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return nil
	}
	// The fourth field is running/all (proc(5)).
	f := strings.Fields(string(b))
	if len(f) < 4 {
		return nil
	}
	_, all, _ := strings.Cut(f[3], "/")
	n, err := strconv.ParseInt(all, 10, 64)
	if err != nil {
		return nil
	}
	return &statsapi.RlimitStats{Time: metav1.NewTime(now), MaxPID: &most, NumOfRunningProcesses: &n}
}

// MemTotal returns the machine's memory in bytes, 0 if it is unknown.
func MemTotal() uint64 { return meminfo("MemTotal:") }

// SwapTotal returns the machine's swap in bytes.
func SwapTotal() uint64 { return meminfo("SwapTotal:") }

// meminfo returns a line of proc_meminfo(5) in bytes, 0 if there is none.
func meminfo(name string) uint64 {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for l := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(l, name); ok {
			n, _ := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(v), " kB"), 10, 64)
			return n << 10
		}
	}
	return 0
}

// bootTime returns when the machine was started.
func bootTime() time.Time {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return time.Time{}
	}
	return time.Unix(int64(table(b)["btime"]), 0)
}

// cores returns the number of the machine's processors.
func cores() int { return runtime.NumCPU() }
