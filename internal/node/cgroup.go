package node

import (
	"context"
	"path/filepath"
	"slices"

	v1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/internal/node/cgroup"
	"keelson.dev/keelson/internal/node/cri"
)

// cgroupDriver gives the runtime's cgroup driver, if the runtime reports it.
func cgroupDriver(ctx context.Context, c *cri.Client) cgroup.Driver {
	r, err := c.RuntimeConfig(ctx, &runtimeapi.RuntimeConfigRequest{})
	if err == nil && r.GetLinux().GetCgroupDriver() == runtimeapi.CgroupDriver_SYSTEMD {
		return cgroup.Systemd
	}
	return cgroup.Cgroupfs
}

// podCgroup is the parent of the cgroups of the pod's containers.
func (a *Agent) podCgroup(pod *v1.Pod) cgroup.Name {
	return cgroup.Pods(a.CgroupRoot).Class(qosClass(pod)).Pod(string(pod.UID))
}

func (a *Agent) podResources(pod *v1.Pod) cgroup.Resources {
	r := cgroup.ForPod(pod, qosClass(pod), a.MemoryQoS)
	r.Pids = a.PodPidsLimit
	return r
}

// applyPodCgroup gives the pod its share of the machine, and its class that of
// all pods in it.
func (a *Agent) applyPodCgroup(ctx context.Context, pod *v1.Pod, r cgroup.Resources) error {
	a.applyClasses(ctx)
	return a.Cgroups.Apply(a.podCgroup(pod), r)
}

// applyClasses gives all pods together what the node has for them, and the
// classes what their pods ask for. A limit below what is in use waits for the
// next pod that comes or goes.
func (a *Agent) applyClasses(ctx context.Context) {
	a.classes.Lock()
	defer a.classes.Unlock()
	var sum cgroup.Sum
	for _, pod := range a.Pods() {
		if !terminal(pod.Status.Phase) {
			sum.Add(pod, qosClass(pod))
		}
	}
	all := cgroup.Pods(a.CgroupRoot)
	for _, c := range []struct {
		name cgroup.Name
		r    cgroup.Resources
	}{
		{all, sum.Node(a.status.forPods, a.MemoryQoS)},
		{all.Class(v1.PodQOSBurstable), sum.Burstable(a.MemoryQoS)},
		{all.Class(v1.PodQOSBestEffort), sum.BestEffort()},
	} {
		if err := a.Cgroups.Apply(c.name, c.r); err != nil {
			klog.FromContext(ctx).Error(err, "Giving a class of pods its share of the machine failed", "cgroup", c.name)
		}
	}
}

// removePodCgroup removes what the runtime left of the pod's cgroup.
func (a *Agent) removePodCgroup(ctx context.Context, pod *v1.Pod) {
	if err := a.Cgroups.Remove(a.podCgroup(pod)); err != nil {
		klog.FromContext(ctx).V(2).Info("A cgroup of the pod is left until the next sweep", "err", err)
	}
	a.applyClasses(ctx)
}

// sweepCgroups removes the cgroups of pods that no longer exist.
func (a *Agent) sweepCgroups(ctx context.Context) {
	for uid, name := range a.Cgroups.PodUIDs(cgroup.Pods(a.CgroupRoot)) {
		if a.known(uid) {
			continue
		}
		if err := a.Cgroups.Remove(name); err != nil {
			klog.FromContext(ctx).V(2).Info("Removing a cgroup failed", "cgroup", name, "err", err)
		}
	}
}

// linuxResources turns a container's requests and limits into the runtime's.
// Without a limit of its own it has the pod's.
func (w *worker) linuxResources(pod *v1.Pod, c *v1.Container) *runtimeapi.LinuxContainerResources {
	limits := c.Resources.Limits.DeepCopy()
	if pod.Spec.Resources != nil {
		for _, n := range []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory} {
			if own := limits[n]; own.IsZero() {
				if q, ok := pod.Spec.Resources.Limits[n]; ok {
					if limits == nil {
						limits = v1.ResourceList{}
					}
					limits[n] = q
				}
			}
		}
	}
	request := c.Resources.Requests.Cpu()
	if request.IsZero() {
		request = c.Resources.Limits.Cpu()
	}
	r := &runtimeapi.LinuxContainerResources{
		OomScoreAdj: w.a.oomScore(pod, c), CpuShares: int64(cgroup.Shares(request.MilliValue())),
		MemoryLimitInBytes: limits.Memory().Value(),
	}
	if q := cgroup.Quota(limits.Cpu().MilliValue()); q > 0 {
		r.CpuPeriod, r.CpuQuota = cgroup.Period, q
	}
	for size, bytes := range cgroup.HugePages(c.Resources.Limits) {
		r.HugepageLimits = append(r.HugepageLimits, &runtimeapi.HugepageLimit{PageSize: cgroup.PageName(size), Limit: uint64(bytes)})
	}
	slices.SortFunc(r.HugepageLimits, func(a, b *runtimeapi.HugepageLimit) int { return len(a.PageSize) - len(b.PageSize) })
	swap := w.a.Cgroups.Swap()
	if !w.a.Cgroups.V2 {
		if swap {
			r.MemorySwapLimitInBytes = r.MemoryLimitInBytes // memory and swap together
		}
		return r
	}
	allocatable := w.a.status.allocatable()
	p, high := w.a.MemoryQoS.Container(qosClass(pod), c.Resources.Requests.Memory().Value(), limits.Memory().Value(), allocatable.Memory().Value())
	r.Unified = cgroup.Unified(p, high)
	r.Unified["memory.oom.group"] = "1"
	if swap {
		r.Unified["memory.swap.max"] = "0"
	}
	return r
}

const (
	oomGuaranteed = -997
	oomBestEffort = 1000
	// criticalPriority is the priority of system-node-critical pods.
	criticalPriority = 2_000_001_000
)

// oomScore is how soon a container is killed when the machine's memory is used
// up: the smaller the part of the memory that it asks for, the sooner.
func (a *Agent) oomScore(pod *v1.Pod, c *v1.Container) int64 {
	if p := pod.Spec.Priority; p != nil && *p >= criticalPriority {
		return oomGuaranteed
	}
	switch qosClass(pod) {
	case v1.PodQOSGuaranteed:
		return oomGuaranteed
	case v1.PodQOSBestEffort:
		return oomBestEffort
	}
	return oomBurstable(pod, c, a.status.memory())
}

// oomBurstable is the score of a container of a burstable pod on a machine with
// so much memory, in bytes. What the pod asks for beyond its containers counts
// for each of them alike, and a sidecar lives as long as the container that asks
// for the least.
func oomBurstable(pod *v1.Pod, c *v1.Container, total int64) int64 {
	if total == 0 {
		return oomBestEffort - 1
	}
	rest := int64(0)
	if resourcehelper.IsPodLevelRequestsSet(pod) {
		own, n := int64(0), int64(0)
		for _, k := range containersOf(pod) {
			if !isEphemeral(pod, k.Name) && (isSidecar(k) || !isInit(pod, k.Name)) {
				own += k.Resources.Requests.Memory().Value()
				n++
			}
		}
		rest = max(0, pod.Spec.Resources.Requests.Memory().Value()-own) / max(n, 1)
	}
	score := func(k *v1.Container) int64 {
		return oomBestEffort - oomBestEffort*(k.Resources.Requests.Memory().Value()+rest)/total
	}
	out := score(c)
	if isSidecar(c) && isInit(pod, c.Name) {
		least := int64(0)
		for i := range pod.Spec.Containers {
			least = max(least, score(&pod.Spec.Containers[i]))
		}
		out = min(out, least)
	}
	return min(max(out, oomBestEffort+oomGuaranteed), oomBestEffort-1)
}

func isInit(pod *v1.Pod, name string) bool {
	return slices.ContainsFunc(pod.Spec.InitContainers, func(c v1.Container) bool { return c.Name == name })
}

// sandboxResources are the sums of the containers' resources and the pod's
// overhead, for runtimes that size a machine by them.
func sandboxResources(pod *v1.Pod) (overhead, resources *runtimeapi.LinuxContainerResources) {
	convert := func(requests, limits v1.ResourceList) *runtimeapi.LinuxContainerResources {
		r := &runtimeapi.LinuxContainerResources{CpuShares: int64(cgroup.Shares(requests.Cpu().MilliValue())), MemoryLimitInBytes: limits.Memory().Value()}
		if q := cgroup.Quota(limits.Cpu().MilliValue()); q > 0 {
			r.CpuPeriod, r.CpuQuota = cgroup.Period, q
		}
		return r
	}
	o := resourcehelper.PodResourcesOptions{ExcludeOverhead: true}
	return convert(pod.Spec.Overhead, pod.Spec.Overhead), convert(resourcehelper.PodRequests(pod, o), resourcehelper.PodLimits(pod, o))
}

func qosClass(pod *v1.Pod) v1.PodQOSClass {
	if pod.Status.QOSClass != "" {
		return pod.Status.QOSClass
	}
	asked, guaranteed := false, true
	lists := []v1.ResourceRequirements{}
	if pod.Spec.Resources != nil {
		lists = append(lists, *pod.Spec.Resources)
	} else {
		for _, cs := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
			for i := range cs {
				lists = append(lists, cs[i].Resources)
			}
		}
	}
	for i := range lists {
		for _, n := range []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory} {
			req, lim := lists[i].Requests[n], lists[i].Limits[n]
			asked = asked || !req.IsZero() || !lim.IsZero()
			if lim.IsZero() || !req.IsZero() && req.Cmp(lim) != 0 {
				guaranteed = false
			}
		}
	}
	switch {
	case !asked:
		return v1.PodQOSBestEffort
	case guaranteed:
		return v1.PodQOSGuaranteed
	}
	return v1.PodQOSBurstable
}

// RemoveCgroups removes the cgroups of a node whose pods have all ended, with the
// root that was made for them.
func RemoveCgroups(driver, root string) error {
	m, err := cgroup.New(cgroup.Driver(driver))
	if err != nil {
		return err
	}
	if err := m.Remove(cgroup.Pods(root)); err != nil || root == "" {
		return err
	}
	return m.Remove(cgroup.Name{filepath.Clean(root)})
}
