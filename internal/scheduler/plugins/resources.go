package plugins

import (
	"context"
	"maps"
	"math"
	"sort"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"

	fw "keelson.dev/keelson/internal/scheduler/framework"
)

// requestsKey is where the requests of the pod in its cycle are.
const requestsKey = "requests"

type requests struct{ *fw.PodRequests }

// Clone implements framework.StateData: nothing changes it.
func (r requests) Clone() fw.StateData { return r }

// Requests holds the requests of a cycle's pod, computed once.
func Requests(state *fw.CycleState, pod *v1.Pod) *fw.PodRequests {
	if r, ok := state.Read(requestsKey).(requests); ok {
		return r.PodRequests
	}
	r := fw.NewPodRequests(pod, false)
	state.Write(requestsKey, requests{r})
	return r
}

// NodeResourcesFit keeps pods to nodes with room for what they request, and
// prefers the least allocated (or, with Most, the most).
type NodeResourcesFit struct {
	fw.Local
	Most bool
	// Backed, if set, reports whether DynamicResources gives devices for an
	// extended resource that a node does not have itself.
	Backed func(v1.ResourceName) bool
}

// backed reports whether the node need not have the resource.
func (f NodeResourcesFit) backed(name v1.ResourceName, have int64) bool {
	return have == 0 && f.Backed != nil && f.Backed(name)
}

// Name implements framework.Plugin.
func (NodeResourcesFit) Name() string { return "NodeResourcesFit" }

// Filter implements framework.FilterPlugin.
func (f NodeResourcesFit) Filter(_ context.Context, state *fw.CycleState, pod *v1.Pod, n *fw.NodeInfo) *fw.Status {
	r := Requests(state, pod)
	var reasons []string
	hopeless := false
	if len(n.Pods)+1 > n.Allocatable.AllowedPodNumber {
		reasons = append(reasons, "Too many pods")
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
			if f.backed(v1.ResourceName(k), n.Allocatable.Scalar[v1.ResourceName(k)]) {
				continue
			}
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
	r := Requests(state, pod)
	var sum, weights int64
	add := func(used, have int64) {
		if have == 0 {
			return
		}
		weights++
		switch {
		case f.Most:
			sum += min(used, have) * fw.MaxNodeScore / have
		case used <= have:
			sum += (have - used) * fw.MaxNodeScore / have
		}
	}
	add(n.NonZeroCPU+r.NonZeroCPU, n.Allocatable.MilliCPU)
	add(n.NonZeroMemory+r.NonZeroMemory, n.Allocatable.Memory)
	if weights == 0 {
		return 0, nil
	}
	return sum / weights, nil
}

// EventsToRegister implements framework.EnqueueExtensions.
func (f NodeResourcesFit) EventsToRegister() []fw.EventHint {
	return []fw.EventHint{
		{Events: fw.AssignedPodDelete | fw.AssignedPodScaleDown | fw.PodUpdateScaleDown},
		{Events: fw.DeviceClassChange, Hint: func(pod *v1.Pod, _ fw.Event, _, _ any) bool {
			for name := range fw.NewPodRequests(pod, false).Requested.Scalar {
				if f.Backed != nil && f.Backed(name) {
					return true
				}
			}
			return false
		}},
		{Events: fw.NodeAdd | fw.NodeUpdateAllocatable, Hint: func(pod *v1.Pod, _ fw.Event, old, o any) bool {
			r, is := fw.NewPodRequests(pod, false), fw.NewResource(o.(*v1.Node).Status.Allocatable)
			maps.DeleteFunc(r.Requested.Scalar, func(k v1.ResourceName, _ int64) bool { return f.backed(k, is.Scalar[k]) })
			if !is.Holds(&r.Requested) {
				return false // not even without any other pod
			}
			n, ok := old.(*v1.Node)
			return !ok || grew(fw.NewResource(n.Status.Allocatable), is, &r.Requested)
		}},
	}
}

// grew reports whether there is more of anything that want asks for.
func grew(was, is fw.Resource, want *fw.Resource) bool {
	if is.AllowedPodNumber > was.AllowedPodNumber || want.MilliCPU > 0 && is.MilliCPU > was.MilliCPU || want.Memory > 0 && is.Memory > was.Memory ||
		want.EphemeralStorage > 0 && is.EphemeralStorage > was.EphemeralStorage {
		return true
	}
	for k, v := range want.Scalar {
		if v > 0 && is.Scalar[k] > was.Scalar[k] {
			return true
		}
	}
	return false
}

// BalancedAllocation prefers nodes whose CPU and memory the pod brings closer
// to being used alike.
type BalancedAllocation struct{ fw.Local }

// Name implements framework.Plugin.
func (BalancedAllocation) Name() string { return "NodeResourcesBalancedAllocation" }

// PreScore implements framework.PreScorePlugin.
func (BalancedAllocation) PreScore(_ context.Context, state *fw.CycleState, pod *v1.Pod, _ []*fw.NodeInfo) *fw.Status {
	if r := Requests(state, pod); r.Requested.MilliCPU == 0 && r.Requested.Memory == 0 {
		return fw.NewStatus(fw.Skip) // nothing to balance
	}
	return nil
}

// Score implements framework.ScorePlugin.
func (BalancedAllocation) Score(_ context.Context, state *fw.CycleState, pod *v1.Pod, n *fw.NodeInfo) (int64, *fw.Status) {
	r := Requests(state, pod)
	without := balance(n, 0, 0)
	with := balance(n, r.Requested.MilliCPU, r.Requested.Memory)
	return fw.MaxNodeScore/2 + (fw.MaxNodeScore/2+with-without)/2, nil
}

// balance returns how alike CPU and memory of the node are used with so much more
// of them.
func balance(n *fw.NodeInfo, cpu, memory int64) int64 {
	if n.Allocatable.MilliCPU == 0 || n.Allocatable.Memory == 0 {
		return fw.MaxNodeScore // one resource is always alike
	}
	part := func(used, have int64) float64 { return math.Min(1, float64(used)/float64(have)) }
	deviation := math.Abs((part(n.Requested.MilliCPU+cpu, n.Allocatable.MilliCPU) - part(n.Requested.Memory+memory, n.Allocatable.Memory)) / 2)
	return int64((1 - deviation) * float64(fw.MaxNodeScore))
}

// Image sizes between which ImageLocality scores, upstream's.
const (
	minImage = 23 << 20
	maxImage = 1000 << 20
)

// ImageLocality prefers nodes that have the pod's images.
type ImageLocality struct {
	fw.Local
	View fw.View
}

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
				sum += int64(float64(s.Size) * (float64(s.Nodes.Len()) / float64(total)))
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

// Known describes all that Score reads of other nodes: what they have of the
// pod's images. Scores of two times when it is equal are equal.
func (l ImageLocality) Known(pod *v1.Pod) string {
	var b []byte
	each := func(cs []v1.Container) {
		for i := range cs {
			if s := l.View.Image(NormalizeImage(cs[i].Image)); s != nil {
				b = strconv.AppendInt(append(b, '|'), int64(i), 10)
				b = strconv.AppendInt(append(b, ':'), s.Size, 10)
				b = strconv.AppendInt(append(b, '*'), int64(s.Nodes.Len()), 10)
			}
		}
	}
	each(pod.Spec.InitContainers)
	each(pod.Spec.Containers)
	if len(b) > 0 {
		b = strconv.AppendInt(append(b, '/'), int64(len(l.View.Nodes())), 10)
	}
	return string(b)
}

// NormalizeImage adds the tag that an image name without one means.
func NormalizeImage(name string) string {
	if strings.LastIndex(name, ":") <= strings.LastIndex(name, "/") {
		name += ":latest"
	}
	return name
}
