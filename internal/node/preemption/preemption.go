// Package preemption chooses the pods that make room on a node for a pod that it must run: a static
// one, or one of a system priority
// (https://kubernetes.io/docs/tasks/administer-cluster/guaranteed-scheduling-critical-addon-pods/).
package preemption

import (
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"

	"keelson.dev/keelson/internal/node/eviction"
	"keelson.dev/keelson/internal/node/podspec"
)

// The reason, message and condition of pods that make room.
const (
	Reason    = "Preempting"
	Message   = "Preempted in order to admit critical pod"
	Condition = "Pod was preempted by Kubelet to accommodate a critical pod."
)

// Lack is how much of a resource is missing: thousandths of CPUs, else what the resource is
// counted in.
type Lack struct {
	Resource v1.ResourceName
	Amount   int64
}

// Request returns how much of a resource a pod requests, in the units of Lack.
func Request(pod *v1.Pod, name v1.ResourceName) int64 {
	if name == v1.ResourcePods {
		return 1
	}
	q := resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})[name]
	if name == v1.ResourceCPU {
		return q.MilliValue()
	}
	return q.Value()
}

// Preemptable reports whether a pod may be ended for another one: it is not critical and that is, or
// is of a lower priority.
func Preemptable(by, pod *v1.Pod) bool {
	if eviction.IsCritical(by) && !eviction.IsCritical(pod) {
		return true
	}
	return by.Spec.Priority != nil && pod.Spec.Priority != nil && *by.Spec.Priority > *pod.Spec.Priority
}

// Choose returns those of the pods whose end frees what another pod lacks: as few Guaranteed ones as
// the end of all others allows, then as few Burstable ones, then as few BestEffort ones. The error says
// what is still missing if all of them ended.
func Choose(by *v1.Pod, pods []*v1.Pod, lacks []Lack) ([]*v1.Pod, error) {
	classes := map[v1.PodQOSClass][]*v1.Pod{}
	for _, p := range pods {
		if Preemptable(by, p) {
			classes[podspec.QOS(p)] = append(classes[podspec.QOS(p)], p)
		}
	}
	bestEffort, burstable, guaranteed := classes[v1.PodQOSBestEffort], classes[v1.PodQOSBurstable], classes[v1.PodQOSGuaranteed]
	if left := less(lacks, bestEffort, burstable, guaranteed); len(left) > 0 {
		return nil, fmt.Errorf("no set of running pods found to reclaim resources: %v", text(left))
	}
	guaranteed = nearest(guaranteed, less(lacks, bestEffort, burstable))
	burstable = nearest(burstable, less(lacks, bestEffort, guaranteed))
	bestEffort = nearest(bestEffort, less(lacks, burstable, guaranteed))
	return slices.Concat(bestEffort, burstable, guaranteed), nil
}

// nearest returns those of the pods that free what is lacking, which all of them together do. It
// takes again and again the one after which the least is missing, of several the smallest one.
func nearest(pods []*v1.Pod, lacks []Lack) (out []*v1.Pod) {
	pods = slices.Clone(pods)
	for len(lacks) > 0 && len(pods) > 0 {
		best := 0
		for i := 1; i < len(pods); i++ {
			a, b := distance(lacks, pods[i]), distance(lacks, pods[best])
			if a < b || a == b && smaller(pods[i], pods[best]) {
				best = i
			}
		}
		out, lacks = append(out, pods[best]), less(lacks, pods[best:best+1])
		pods = slices.Delete(pods, best, best+1)
	}
	return out
}

// distance sums up the squares of the parts of what is lacking that would still be without the pod.
func distance(lacks []Lack, pod *v1.Pod) (sum float64) {
	for _, l := range lacks {
		if left := float64(l.Amount - Request(pod, l.Resource)); left > 0 {
			part := left / float64(l.Amount)
			sum += part * part
		}
	}
	return sum
}

// smaller reports whether a pod requests less memory than another one, or as much and less CPU.
func smaller(a, b *v1.Pod) bool {
	for _, name := range []v1.ResourceName{v1.ResourceMemory, v1.ResourceCPU} {
		if x, y := Request(a, name), Request(b, name); x != y {
			return x < y
		}
	}
	return false
}

// less returns what is lacking when the pods have ended.
func less(lacks []Lack, pods ...[]*v1.Pod) (out []Lack) {
	all := slices.Concat(pods...)
	for _, l := range lacks {
		for _, p := range all {
			l.Amount -= Request(p, l.Resource)
		}
		if l.Amount > 0 {
			out = append(out, l)
		}
	}
	return out
}

func text(lacks []Lack) string {
	var b strings.Builder
	for _, l := range lacks {
		fmt.Fprintf(&b, "(res: %v, q: %d), ", l.Resource, l.Amount)
	}
	return "[" + b.String() + "]"
}
