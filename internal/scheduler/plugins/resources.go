package plugins

import (
	"context"
	"math"
	"sort"
	"strings"

	v1 "k8s.io/api/core/v1"

	fw "keelson.dev/keelson/internal/scheduler/framework"
)

// requestsKey is where the requests of the pod in its cycle are.
const requestsKey = "requests"

type requests struct{ *fw.PodRequests }

// Clone implements framework.StateData: nothing changes it.
func (r requests) Clone() fw.StateData { return r }

func requestsOf(state *fw.CycleState, pod *v1.Pod) *fw.PodRequests {
	if r, ok := state.Read(requestsKey).(requests); ok {
		return r.PodRequests
	}
	r := fw.NewPodRequests(pod, false)
	state.Write(requestsKey, requests{r})
	return r
}

// NodeResourcesFit keeps pods to nodes with room for what they request, and
// prefers the least allocated (or, with Most, the most).
type NodeResourcesFit struct{ Most bool }

// Name implements framework.Plugin.
func (NodeResourcesFit) Name() string { return "NodeResourcesFit" }

// Filter implements framework.FilterPlugin.
func (NodeResourcesFit) Filter(_ context.Context, state *fw.CycleState, pod *v1.Pod, n *fw.NodeInfo) *fw.Status {
	r := requestsOf(state, pod)
	var reasons []string
	hopeless := false
	if len(n.Pods)+1 > n.Allocatable.AllowedPodNumber {
		reasons = append(reasons, "Too many pods")
		hopeless = n.Allocatable.AllowedPodNumber == 0
	}
	short := func(name string, want, used, have int64) {
		if want > 0 && want > have-used {
			reasons = append(reasons, "Insufficient "+name)
			hopeless = hopeless || want > have
		}
	}
	short("cpu", r.Requested.MilliCPU, n.Requested.MilliCPU, n.Allocatable.MilliCPU)
	short("memory", r.Requested.Memory, n.Requested.Memory, n.Allocatable.Memory)
	short("ephemeral-storage", r.Requested.EphemeralStorage, n.Requested.EphemeralStorage, n.Allocatable.EphemeralStorage)
	if len(r.Requested.Scalar) > 0 {
		names := make([]string, 0, len(r.Requested.Scalar))
		for k := range r.Requested.Scalar {
			names = append(names, string(k))
		}
		sort.Strings(names)
		for _, k := range names {
			short(k, r.Requested.Scalar[v1.ResourceName(k)], n.Requested.Scalar[v1.ResourceName(k)], n.Allocatable.Scalar[v1.ResourceName(k)])
		}
	}
	switch {
	case len(reasons) == 0:
		return nil
	case hopeless:
		return fw.NewStatus(fw.UnschedulableAndUnresolvable, reasons...)
	}
	return fw.NewStatus(fw.Unschedulable, reasons...)
}

// Score implements framework.ScorePlugin.
func (f NodeResourcesFit) Score(_ context.Context, state *fw.CycleState, pod *v1.Pod, n *fw.NodeInfo) (int64, *fw.Status) {
	r := requestsOf(state, pod)
	part := func(used, have int64) int64 {
		if have == 0 || used > have {
			return 0
		}
		if f.Most {
			return used * fw.MaxNodeScore / have
		}
		return (have - used) * fw.MaxNodeScore / have
	}
	cpu := part(n.NonZeroCPU+r.NonZeroCPU, n.Allocatable.MilliCPU)
	memory := part(n.NonZeroMemory+r.NonZeroMemory, n.Allocatable.Memory)
	return (cpu + memory) / 2, nil
}

// EventsToRegister implements framework.EnqueueExtensions.
func (NodeResourcesFit) EventsToRegister() []fw.EventHint {
	return []fw.EventHint{{Events: fw.NodeAdd | fw.NodeUpdateAllocatable | fw.AssignedPodDelete | fw.AssignedPodScaleDown | fw.PodUpdate}}
}

// BalancedAllocation prefers nodes whose CPU and memory are used alike.
type BalancedAllocation struct{}

// Name implements framework.Plugin.
func (BalancedAllocation) Name() string { return "NodeResourcesBalancedAllocation" }

// Score implements framework.ScorePlugin.
func (BalancedAllocation) Score(_ context.Context, state *fw.CycleState, pod *v1.Pod, n *fw.NodeInfo) (int64, *fw.Status) {
	r := requestsOf(state, pod)
	if r.Requested.MilliCPU == 0 && r.Requested.Memory == 0 {
		return 0, nil // best effort: nothing to balance
	}
	part := func(used, have int64) float64 {
		if have == 0 {
			return 1
		}
		return math.Min(1, float64(used)/float64(have))
	}
	cpu := part(n.Requested.MilliCPU+r.Requested.MilliCPU, n.Allocatable.MilliCPU)
	memory := part(n.Requested.Memory+r.Requested.Memory, n.Allocatable.Memory)
	return int64((1 - math.Abs(cpu-memory)/2) * float64(fw.MaxNodeScore)), nil
}

// Image sizes between which ImageLocality scores, upstream's.
const (
	minImage = 23 << 20
	maxImage = 1000 << 20
)

// ImageLocality prefers nodes that have the pod's images.
type ImageLocality struct{ View fw.View }

// Name implements framework.Plugin.
func (ImageLocality) Name() string { return "ImageLocality" }

// Score implements framework.ScorePlugin.
func (l ImageLocality) Score(_ context.Context, _ *fw.CycleState, pod *v1.Pod, n *fw.NodeInfo) (int64, *fw.Status) {
	if len(n.Node.Status.Images) == 0 {
		return 0, nil
	}
	total := len(l.View.Nodes())
	var sum int64
	count := int64(0)
	each := func(cs []v1.Container) {
		for i := range cs {
			count++
			if s := l.View.Image(NormalizeImage(cs[i].Image)); s != nil && s.Nodes.Has(n.Node.Name) {
				sum += int64(float64(s.Size) * float64(s.Nodes.Len()) / float64(total))
			}
		}
	}
	each(pod.Spec.InitContainers)
	each(pod.Spec.Containers)
	most := maxImage * count
	sum = min(max(sum, minImage), most)
	if most <= minImage {
		return 0, nil
	}
	return fw.MaxNodeScore * (sum - minImage) / (most - minImage), nil
}

// NormalizeImage adds the tag that an image name without one means.
func NormalizeImage(name string) string {
	if strings.LastIndex(name, ":") <= strings.LastIndex(name, "/") {
		name += ":latest"
	}
	return name
}
