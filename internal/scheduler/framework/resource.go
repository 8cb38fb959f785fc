package framework

import (
	"maps"

	v1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
)

// What a container that requests nothing counts for when nodes are scored, so
// that such pods spread too.
const (
	DefaultMilliCPURequest int64 = 100
	DefaultMemoryRequest   int64 = 200 * 1024 * 1024
)

// Resource is an amount of each compute resource.
type Resource struct {
	MilliCPU, Memory, EphemeralStorage int64
	// AllowedPodNumber is set on a node's allocatable only.
	AllowedPodNumber int
	// Scalar holds extended resources and huge pages.
	Scalar map[v1.ResourceName]int64
}

// NewResource reads a resource list.
func NewResource(rl v1.ResourceList) Resource {
	var r Resource
	for name, q := range rl {
		switch name {
		case v1.ResourceCPU:
			r.MilliCPU = q.MilliValue()
		case v1.ResourceMemory:
			r.Memory = q.Value()
		case v1.ResourcePods:
			r.AllowedPodNumber = int(q.Value())
		case v1.ResourceEphemeralStorage:
			r.EphemeralStorage = q.Value()
		default:
			if r.Scalar == nil {
				r.Scalar = map[v1.ResourceName]int64{}
			}
			r.Scalar[name] = q.Value()
		}
	}
	return r
}

// Add adds sign times o.
func (r *Resource) Add(o *Resource, sign int64) {
	r.MilliCPU += sign * o.MilliCPU
	r.Memory += sign * o.Memory
	r.EphemeralStorage += sign * o.EphemeralStorage
	if len(o.Scalar) > 0 && r.Scalar == nil {
		r.Scalar = make(map[v1.ResourceName]int64, len(o.Scalar))
	}
	for k, v := range o.Scalar {
		r.Scalar[k] += sign * v
	}
}

// Clone copies the amounts.
func (r Resource) Clone() Resource {
	r.Scalar = maps.Clone(r.Scalar)
	return r
}

// Equal compares two amounts.
func (r Resource) Equal(o Resource) bool {
	return r.MilliCPU == o.MilliCPU && r.Memory == o.Memory && r.EphemeralStorage == o.EphemeralStorage &&
		r.AllowedPodNumber == o.AllowedPodNumber && maps.Equal(r.Scalar, o.Scalar)
}

// Holds reports whether all that want asks for is there.
func (r Resource) Holds(want *Resource) bool {
	if want.MilliCPU > r.MilliCPU || want.Memory > r.Memory || want.EphemeralStorage > r.EphemeralStorage {
		return false
	}
	for k, v := range want.Scalar {
		if v > r.Scalar[k] {
			return false
		}
	}
	return true
}

// PodRequests are a pod's requests of a node, read once from its spec.
type PodRequests struct {
	// Requested is the sum of the pod's requests.
	Requested Resource
	// NonZeroCPU and NonZeroMemory replace missing requests by the defaults.
	NonZeroCPU, NonZeroMemory int64
}

var nonZeroDefaults = v1.ResourceList{
	v1.ResourceCPU:    *newMilli(DefaultMilliCPURequest),
	v1.ResourceMemory: *newBytes(DefaultMemoryRequest),
}

// NewPodRequests computes a pod's requests: the larger of its containers' sum
// and its init containers, with sidecars, pod-level requests and overhead.
// status also takes into account what the node has allocated during a resize.
func NewPodRequests(pod *v1.Pod, status bool) *PodRequests {
	opts := resourcehelper.PodResourcesOptions{UseStatusResources: status, InPlacePodLevelResourcesVerticalScalingEnabled: status}
	req := &PodRequests{Requested: NewResource(resourcehelper.PodRequests(pod, opts))}
	if everyContainerRequests(pod) {
		req.NonZeroCPU, req.NonZeroMemory = req.Requested.MilliCPU, req.Requested.Memory
		return req
	}
	opts.NonMissingContainerRequests = nonZeroDefaults
	nz := resourcehelper.PodRequests(pod, opts)
	req.NonZeroCPU, req.NonZeroMemory = nz.Cpu().MilliValue(), nz.Memory().Value()
	return req
}

// everyContainerRequests reports whether no default applies, which spares the
// second pass over the containers.
func everyContainerRequests(pod *v1.Pod) bool {
	for _, list := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if _, ok := list[i].Resources.Requests[v1.ResourceCPU]; !ok {
				return false
			}
			if _, ok := list[i].Resources.Requests[v1.ResourceMemory]; !ok {
				return false
			}
		}
	}
	return true
}
