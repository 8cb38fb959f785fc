package cgroup

import (
	"math"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
)

const (
	minShares    = 2
	maxShares    = 262144
	sharesPerCPU = 1024
	// Period is the time that a quota is for, in microseconds.
	Period   = 100_000
	minQuota = 1000
	pageSize = 4096
)

// Unlimited is the value of a limit that there is none of.
const Unlimited = -1

// Resources are the settings of a cgroup. A field that is 0 (an empty map)
// stays as it is; Unlimited takes a limit away.
type Resources struct {
	// CPUShares is the weight of cgroup v1, in 1024ths of a CPU.
	CPUShares uint64
	// CPUQuota is the CPU time in each Period, in microseconds.
	CPUQuota int64
	// Memory is the limit, in bytes.
	Memory int64
	// Pids is the limit of the processes.
	Pids int64
	// HugePages are limits in bytes by page size in bytes. With OnlyPages, pages
	// of other sizes cannot be used at all.
	HugePages map[int64]int64
	OnlyPages bool
	// Protection is memory that is not reclaimed; cgroup v2 only.
	Protection Protection
}

// Protection is memory, in bytes, that the kernel never reclaims (Min), or not
// while there is other memory to reclaim (Low).
type Protection struct{ Min, Low int64 }

// Shares turns thousandths of a CPU into the weight of cgroup v1.
func Shares(milliCPU int64) uint64 {
	return uint64(min(max(milliCPU*sharesPerCPU/1000, minShares), maxShares))
}

// Quota turns thousandths of a CPU into the time in each Period; 0 is no limit.
func Quota(milliCPU int64) int64 {
	if milliCPU == 0 {
		return 0
	}
	return max(milliCPU*Period/1000, minQuota)
}

// Weight turns the weight of cgroup v1 (2 to 262144, 1024 by default) into that
// of v2 (1 to 10000, 100 by default), by the curve through these three points
// that runc and crun use.
func Weight(shares uint64) uint64 {
	switch {
	case shares == 0:
		return 0
	case shares <= minShares:
		return 1
	case shares >= maxShares:
		return 10000
	}
	l := math.Log2(float64(shares))
	return uint64(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34)))
}

// ForPod returns the settings for a pod of this class: from the sums of its
// containers' requests and limits, or from the pod's own.
func ForPod(pod *v1.Pod, class v1.PodQOSClass, m Memory) Resources {
	requests := resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})
	limits := resourcehelper.PodLimits(pod, resourcehelper.PodResourcesOptions{})
	cpuLimited, memoryLimited := true, true
	for _, containers := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			r := containers[i].Resources.Limits
			cpuLimited = cpuLimited && !r.Cpu().IsZero()
			memoryLimited = memoryLimited && !r.Memory().IsZero()
		}
	}
	if pod.Spec.Resources != nil {
		cpuLimited = cpuLimited || !pod.Spec.Resources.Limits.Cpu().IsZero()
		memoryLimited = memoryLimited || !pod.Spec.Resources.Limits.Memory().IsZero()
	}
	out := Resources{CPUShares: minShares, CPUQuota: Unlimited, Memory: Unlimited, HugePages: HugePages(requests), OnlyPages: true}
	if class == v1.PodQOSBestEffort {
		return out
	}
	out.CPUShares = Shares(requests.Cpu().MilliValue())
	if q := Quota(limits.Cpu().MilliValue()); q > 0 && (cpuLimited || class == v1.PodQOSGuaranteed) {
		out.CPUQuota = q
	}
	if b := limits.Memory().Value(); b > 0 && (memoryLimited || class == v1.PodQOSGuaranteed) {
		out.Memory = b
	}
	out.Protection = m.protect(class, requests.Memory().Value())
	return out
}

// HugePages returns the amounts of huge pages in a list, by page size, in bytes.
func HugePages(list v1.ResourceList) map[int64]int64 {
	var out map[int64]int64
	for name, q := range list {
		text, ok := strings.CutPrefix(string(name), v1.ResourceHugePagesPrefix)
		if !ok {
			continue
		}
		size, err := resource.ParseQuantity(text)
		if err != nil || size.Value() <= 0 {
			continue // the API takes no such name
		}
		if out == nil {
			out = map[int64]int64{}
		}
		out[size.Value()] += q.Value()
	}
	return out
}

// Sum is the sum of the requests of a node's pods, by class.
type Sum struct {
	BurstableCPU                      int64 // thousandths of a CPU
	GuaranteedMemory, BurstableMemory int64 // bytes
}

// Add counts a pod of this class in.
func (s *Sum) Add(pod *v1.Pod, class v1.PodQOSClass) {
	requests := resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})
	switch class {
	case v1.PodQOSGuaranteed:
		s.GuaranteedMemory += requests.Memory().Value()
	case v1.PodQOSBurstable:
		s.BurstableCPU += requests.Cpu().MilliValue()
		s.BurstableMemory += requests.Memory().Value()
	}
}

// Burstable returns the settings for the class of the burstable pods.
func (s *Sum) Burstable(m Memory) Resources {
	return Resources{CPUShares: Shares(s.BurstableCPU), Protection: m.protect(v1.PodQOSBurstable, s.BurstableMemory)}
}

// BestEffort returns the settings for the class of the pods without requests.
func (s *Sum) BestEffort() Resources { return Resources{CPUShares: minShares} }

// Node returns the settings for all pods together: the node's allocatable
// resources.
func (s *Sum) Node(allocatable v1.ResourceList, m Memory) Resources {
	out := Resources{CPUShares: Shares(allocatable.Cpu().MilliValue()), Memory: allocatable.Memory().Value(), HugePages: HugePages(allocatable)}
	out.Protection = Protection{m.protect(v1.PodQOSGuaranteed, s.GuaranteedMemory).Min, m.protect(v1.PodQOSBurstable, s.BurstableMemory).Low}
	if m.Reservation == TieredReservation {
		out.Protection.Low += s.GuaranteedMemory
	}
	return out
}

// Reservation is the policy for protecting the pods' memory requests.
type Reservation string

const (
	// NoReservation protects nothing; it is the default.
	NoReservation Reservation = "None"
	// TieredReservation protects guaranteed pods' memory always, and burstable
	// pods' as long as there is other memory to reclaim.
	TieredReservation Reservation = "TieredReservation"
)

// Memory is how the quality of service extends to memory on cgroup v2
// (https://kep.k8s.io/2570).
type Memory struct {
	Reservation Reservation
	// Throttling is the part of the memory between a container's request and
	// its limit after which it is slowed down; 0 slows none down.
	Throttling float64
}

func (m Memory) protect(class v1.PodQOSClass, request int64) Protection {
	switch {
	case m.Reservation != TieredReservation:
	case class == v1.PodQOSGuaranteed:
		return Protection{Min: request}
	case class == v1.PodQOSBurstable:
		return Protection{Low: request}
	}
	return Protection{}
}

// Container returns the settings of cgroup v2 for the memory of a container of a
// pod of this class: its request and limit (0 is none), and what the node has
// for pods, in bytes.
func (m Memory) Container(class v1.PodQOSClass, request, limit, allocatable int64) (p Protection, high int64) {
	p = m.protect(class, request)
	if m.Throttling == 0 || class == v1.PodQOSGuaranteed || request == limit && limit > 0 {
		return p, 0
	}
	top := limit
	if top == 0 {
		top = allocatable
	}
	high = int64(math.Floor((float64(request)+float64(top-request)*m.Throttling)/pageSize)) * pageSize
	if high <= request {
		high = 0
	}
	return p, high
}

// Max returns the larger of each limit and weight, under which a change from one to
// the other can be made step by step.
func Max(a, b Resources) Resources {
	larger := func(x, y int64) int64 {
		if x == Unlimited || y == Unlimited {
			return Unlimited
		}
		return max(x, y)
	}
	out := b
	out.CPUShares = max(a.CPUShares, b.CPUShares)
	out.CPUQuota, out.Memory = larger(a.CPUQuota, b.CPUQuota), larger(a.Memory, b.Memory)
	return out
}
