package convert

import (
	"maps"
	"slices"
	"strconv"

	v1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/internal/node/cgroup"
	"keelson.dev/keelson/internal/node/podspec"
	"keelson.dev/keelson/internal/node/restart"
)

// Resources converts a container's requests and limits to CRI. A container
// without a limit has the pod's.
func (c *Converter) Resources(pod *v1.Pod, spec *v1.Container) *runtimeapi.LinuxContainerResources {
	limits := maps.Clone(spec.Resources.Limits)
	if of := Inherited(pod, spec); len(of) > 0 {
		if limits == nil {
			limits = v1.ResourceList{}
		}
		maps.Copy(limits, of)
	}
	request := spec.Resources.Requests.Cpu()
	if request.IsZero() {
		request = spec.Resources.Limits.Cpu()
	}
	r := &runtimeapi.LinuxContainerResources{
		OomScoreAdj: oomScore(pod, spec, c.Memory), CpuShares: int64(cgroup.Shares(request.MilliValue())),
		MemoryLimitInBytes: limits.Memory().Value(),
	}
	if q := cgroup.Quota(limits.Cpu().MilliValue()); q > 0 {
		r.CpuPeriod, r.CpuQuota = cgroup.Period, q
	}
	for size, bytes := range cgroup.HugePages(spec.Resources.Limits) {
		r.HugepageLimits = append(r.HugepageLimits, &runtimeapi.HugepageLimit{PageSize: cgroup.PageName(size), Limit: uint64(bytes)})
	}
	slices.SortFunc(r.HugepageLimits, func(a, b *runtimeapi.HugepageLimit) int { return len(a.PageSize) - len(b.PageSize) })
	swap := c.Shares.Cgroups.Swap()
	if !c.Shares.Cgroups.V2 {
		if swap {
			r.MemorySwapLimitInBytes = r.MemoryLimitInBytes // the sum of memory and swap
		}
		return r
	}
	allocatable := c.Allocatable()
	p, high := c.Shares.Memory.Container(podspec.QOS(pod), spec.Resources.Requests.Memory().Value(), limits.Memory().Value(), allocatable.Memory().Value())
	r.Unified = cgroup.Unified(p, high)
	r.Unified["memory.oom.group"] = "1"
	if swap {
		r.Unified["memory.swap.max"] = strconv.FormatInt(c.swapLimit(pod, spec), 10)
	}
	return r
}

// Inherited returns the limits that a container has from its pod, because it has none of its own; nil
// if there are none.
func Inherited(pod *v1.Pod, spec *v1.Container) (out v1.ResourceList) {
	if pod.Spec.Resources == nil {
		return nil
	}
	for _, n := range []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory} {
		own := spec.Resources.Limits[n]
		if q, ok := pod.Spec.Resources.Limits[n]; ok && own.IsZero() {
			if out == nil {
				out = v1.ResourceList{}
			}
			out[n] = q
		}
	}
	return out
}

// swapLimit returns how much swap the container can use, in bytes: none unless its pod is
// burstable and not critical, and it may use more memory than it requests.
func (c *Converter) swapLimit(pod *v1.Pod, spec *v1.Container) int64 {
	request, limit := spec.Resources.Requests.Memory(), spec.Resources.Limits.Memory()
	critical := pod.Spec.Priority != nil && *pod.Spec.Priority >= systemCritical
	if c.Swap == 0 || c.Memory == 0 || podspec.QOS(pod) != v1.PodQOSBurstable || critical || request.IsZero() || request.Cmp(*limit) == 0 {
		return 0
	}
	return int64(float64(request.Value()) / float64(c.Memory) * float64(c.Swap))
}

const (
	// systemCritical is the least priority of critical pods.
	systemCritical = 2_000_000_000
	oomGuaranteed  = -997
	oomBestEffort  = 1000
	// criticalPriority is the priority of system-node-critical pods.
	criticalPriority = 2_000_001_000
)

// oomScore returns how soon a container is killed when the machine's memory is used
// up: the smaller the part of the memory that it asks for, the sooner.
func oomScore(pod *v1.Pod, c *v1.Container, total int64) int64 {
	if p := pod.Spec.Priority; p != nil && *p >= criticalPriority {
		return oomGuaranteed
	}
	switch podspec.QOS(pod) {
	case v1.PodQOSGuaranteed:
		return oomGuaranteed
	case v1.PodQOSBestEffort:
		return oomBestEffort
	}
	return oomBurstable(pod, c, total)
}

// oomBurstable returns the score of a container of a burstable pod on a machine with
// so much memory, in bytes. The pod's request beyond those of its containers counts
// for each of them alike, and a sidecar lives as long as the container that asks for
// the least.
func oomBurstable(pod *v1.Pod, c *v1.Container, total int64) int64 {
	if total == 0 {
		return oomBestEffort - 1
	}
	rest := int64(0)
	if resourcehelper.IsPodLevelRequestsSet(pod) {
		own, n := int64(0), int64(0)
		for _, k := range podspec.Containers(pod) {
			if !podspec.IsEphemeral(pod, k.Name) && (restart.Sidecar(k) || !podspec.IsInit(pod, k.Name)) {
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
	if restart.Sidecar(c) && podspec.IsInit(pod, c.Name) {
		least := int64(0)
		for i := range pod.Spec.Containers {
			least = max(least, score(&pod.Spec.Containers[i]))
		}
		out = min(out, least)
	}
	return min(max(out, oomBestEffort+oomGuaranteed), oomBestEffort-1)
}

// sandboxResources returns the sums of the containers' resources and the pod's
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
