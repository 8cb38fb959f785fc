package plugins

import (
	"context"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	corev1helpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"

	fw "keelson.dev/keelson/internal/scheduler/framework"
)

// NodeName keeps a pod on the node it names.
type NodeName struct{ fw.Local }

// Name implements framework.Plugin.
func (NodeName) Name() string { return "NodeName" }

// Filter implements framework.FilterPlugin.
func (NodeName) Filter(_ context.Context, _ *fw.CycleState, pod *v1.Pod, n *fw.NodeInfo) *fw.Status {
	if pod.Spec.NodeName == "" || pod.Spec.NodeName == n.Node.Name {
		return nil
	}
	return fw.NewStatus(fw.UnschedulableAndUnresolvable, "node(s) didn't match the requested node name")
}

// EventsToRegister implements framework.EnqueueExtensions.
func (NodeName) EventsToRegister() []fw.EventHint { return []fw.EventHint{{Events: fw.NodeAdd}} }

// NodeUnschedulable keeps pods off cordoned nodes.
type NodeUnschedulable struct{ fw.Local }

// Name implements framework.Plugin.
func (NodeUnschedulable) Name() string { return "NodeUnschedulable" }

var unschedulable = &v1.Taint{Key: v1.TaintNodeUnschedulable, Effect: v1.TaintEffectNoSchedule}

func tolerates(pod *v1.Pod, t *v1.Taint) bool {
	return corev1helpers.TolerationsTolerateTaint(klog.Background(), pod.Spec.Tolerations, t, true)
}

// Filter implements framework.FilterPlugin.
func (NodeUnschedulable) Filter(_ context.Context, _ *fw.CycleState, pod *v1.Pod, n *fw.NodeInfo) *fw.Status {
	if !n.Node.Spec.Unschedulable || tolerates(pod, unschedulable) {
		return nil
	}
	return fw.NewStatus(fw.UnschedulableAndUnresolvable, "node(s) were unschedulable")
}

// EventsToRegister implements framework.EnqueueExtensions.
func (NodeUnschedulable) EventsToRegister() []fw.EventHint {
	return []fw.EventHint{
		{Events: fw.NodeAdd | fw.NodeUpdateTaint, Hint: func(_ *v1.Pod, _ fw.Event, _, o any) bool { return !o.(*v1.Node).Spec.Unschedulable }},
		{Events: fw.PodUpdateToleration},
	}
}

// TaintToleration keeps pods off nodes with taints that they do not tolerate,
// and prefers nodes with fewer of the PreferNoSchedule kind.
type TaintToleration struct{ fw.Local }

// Name implements framework.Plugin.
func (TaintToleration) Name() string { return "TaintToleration" }

func repels(t *v1.Taint) bool {
	return t.Effect == v1.TaintEffectNoSchedule || t.Effect == v1.TaintEffectNoExecute
}

// toleratesAll reports whether no taint of the node keeps the pod off it.
func toleratesAll(pod *v1.Pod, n *v1.Node) bool {
	if len(n.Spec.Taints) == 0 {
		return true
	}
	_, found := corev1helpers.FindMatchingUntoleratedTaint(klog.Background(), n.Spec.Taints, pod.Spec.Tolerations, repels, true)
	return !found
}

// Filter implements framework.FilterPlugin.
func (TaintToleration) Filter(_ context.Context, _ *fw.CycleState, pod *v1.Pod, n *fw.NodeInfo) *fw.Status {
	if toleratesAll(pod, n.Node) {
		return nil
	}
	return fw.NewStatus(fw.UnschedulableAndUnresolvable, "node(s) had untolerated taint(s)")
}

// Score implements framework.ScorePlugin.
func (TaintToleration) Score(_ context.Context, _ *fw.CycleState, pod *v1.Pod, n *fw.NodeInfo) (int64, *fw.Status) {
	var count int64
	for i := range n.Node.Spec.Taints {
		if t := &n.Node.Spec.Taints[i]; t.Effect == v1.TaintEffectPreferNoSchedule && !toleratesPreferred(pod, t) {
			count++
		}
	}
	return count, nil
}

func toleratesPreferred(pod *v1.Pod, taint *v1.Taint) bool {
	for i := range pod.Spec.Tolerations {
		t := &pod.Spec.Tolerations[i]
		if (t.Effect == "" || t.Effect == v1.TaintEffectPreferNoSchedule) && t.ToleratesTaint(klog.Background(), taint, true) {
			return true
		}
	}
	return false
}

// NormalizeScore implements framework.ScoreNormalizer.
func (TaintToleration) NormalizeScore(_ context.Context, _ *fw.CycleState, _ *v1.Pod, _ []*fw.NodeInfo, scores []int64) {
	normalize(scores, true)
}

// NormalizeByMax implements framework.MaxNormalizer.
func (TaintToleration) NormalizeByMax(score, most int64) int64 { return normalized(score, most, true) }

// EventsToRegister implements framework.EnqueueExtensions.
func (TaintToleration) EventsToRegister() []fw.EventHint {
	return []fw.EventHint{
		{Events: fw.NodeAdd | fw.NodeUpdateTaint, Hint: func(pod *v1.Pod, _ fw.Event, old, o any) bool {
			if n, ok := old.(*v1.Node); ok && toleratesAll(pod, n) {
				return false
			}
			return toleratesAll(pod, o.(*v1.Node))
		}},
		{Events: fw.PodUpdateToleration},
	}
}

// normalize brings scores to 0..MaxNodeScore, the best at the top.
func normalize(scores []int64, reverse bool) {
	var most int64
	for _, s := range scores {
		most = max(most, s)
	}
	for i := range scores {
		scores[i] = normalized(scores[i], most, reverse)
	}
}

func normalized(score, most int64, reverse bool) int64 {
	if most > 0 {
		score = score * fw.MaxNodeScore / most
	}
	if reverse {
		score = fw.MaxNodeScore - score
	}
	return score
}

// NodeAffinity keeps pods to the nodes that they select.
type NodeAffinity struct{ fw.Local }

// Name implements framework.Plugin.
func (NodeAffinity) Name() string { return "NodeAffinity" }

// required returns the required node affinity terms of a pod; nil without any.
func required(pod *v1.Pod) *v1.NodeSelector {
	if a := pod.Spec.Affinity; a != nil && a.NodeAffinity != nil {
		return a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution
	}
	return nil
}

func selects(pod *v1.Pod) bool { return len(pod.Spec.NodeSelector) > 0 || required(pod) != nil }

const (
	requiredKey  = "NodeAffinity/required"
	preferredKey = "NodeAffinity/preferred"
)

type requiredAffinity struct {
	nodeaffinity.RequiredNodeAffinity
}

// Clone implements framework.StateData: nothing changes it.
func (r requiredAffinity) Clone() fw.StateData { return r }

type preferredAffinity struct {
	*nodeaffinity.PreferredSchedulingTerms
}

// Clone implements framework.StateData: nothing changes it.
func (p preferredAffinity) Clone() fw.StateData { return p }

// PreFilter implements framework.PreFilterPlugin. Terms that name nodes, as a
// DaemonSet's do, spare a look at all others.
func (NodeAffinity) PreFilter(_ context.Context, state *fw.CycleState, pod *v1.Pod) (sets.Set[string], *fw.Status) {
	if !selects(pod) {
		return nil, fw.NewStatus(fw.Skip)
	}
	state.Write(requiredKey, requiredAffinity{nodeaffinity.GetRequiredNodeAffinity(pod)})
	sel := required(pod)
	if sel == nil {
		return nil, nil
	}
	var names sets.Set[string]
	for i := range sel.NodeSelectorTerms {
		// Terms are alternatives: one that names no node allows all.
		var term sets.Set[string]
		for _, r := range sel.NodeSelectorTerms[i].MatchFields {
			if r.Key != metav1.ObjectNameField || r.Operator != v1.NodeSelectorOpIn {
				continue
			}
			if these := sets.New(r.Values...); term == nil {
				term = these
			} else {
				term = term.Intersection(these)
			}
		}
		if term == nil {
			return nil, nil
		}
		names = names.Union(term)
	}
	if names != nil && names.Len() == 0 {
		return nil, fw.NewStatus(fw.UnschedulableAndUnresolvable, "pod affinity terms conflict")
	}
	return names, nil
}

// Filter implements framework.FilterPlugin.
func (NodeAffinity) Filter(_ context.Context, state *fw.CycleState, pod *v1.Pod, n *fw.NodeInfo) *fw.Status {
	r, ok := state.Read(requiredKey).(requiredAffinity)
	if !ok {
		r.RequiredNodeAffinity = nodeaffinity.GetRequiredNodeAffinity(pod)
	}
	if ok, _ := r.Match(n.Node); ok {
		return nil
	}
	return fw.NewStatus(fw.UnschedulableAndUnresolvable, "node(s) didn't match Pod's node affinity/selector")
}

// PreScore implements framework.PreScorePlugin.
func (NodeAffinity) PreScore(_ context.Context, state *fw.CycleState, pod *v1.Pod, _ []*fw.NodeInfo) *fw.Status {
	a := pod.Spec.Affinity
	if a == nil || a.NodeAffinity == nil || len(a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution) == 0 {
		return fw.NewStatus(fw.Skip)
	}
	terms, err := nodeaffinity.NewPreferredSchedulingTerms(a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	if err != nil {
		return fw.AsStatus(err)
	}
	state.Write(preferredKey, preferredAffinity{terms})
	return nil
}

// Score implements framework.ScorePlugin.
func (NodeAffinity) Score(_ context.Context, state *fw.CycleState, _ *v1.Pod, n *fw.NodeInfo) (int64, *fw.Status) {
	if terms, ok := state.Read(preferredKey).(preferredAffinity); ok {
		return terms.Score(n.Node), nil
	}
	return 0, nil
}

// NormalizeScore implements framework.ScoreNormalizer.
func (NodeAffinity) NormalizeScore(_ context.Context, _ *fw.CycleState, _ *v1.Pod, _ []*fw.NodeInfo, scores []int64) {
	normalize(scores, false)
}

// NormalizeByMax implements framework.MaxNormalizer.
func (NodeAffinity) NormalizeByMax(score, most int64) int64 { return normalized(score, most, false) }

// EventsToRegister implements framework.EnqueueExtensions.
func (NodeAffinity) EventsToRegister() []fw.EventHint {
	return []fw.EventHint{{Events: fw.NodeAdd | fw.NodeUpdateLabel, Hint: func(pod *v1.Pod, _ fw.Event, old, o any) bool {
		r := nodeaffinity.GetRequiredNodeAffinity(pod)
		if n, ok := old.(*v1.Node); ok {
			if matched, _ := r.Match(n); matched {
				return false
			}
		}
		matched, _ := r.Match(o.(*v1.Node))
		return matched
	}}}
}

// NodePorts keeps two pods from one host port.
type NodePorts struct{ fw.Local }

// Name implements framework.Plugin.
func (NodePorts) Name() string { return "NodePorts" }

const portsKey = "NodePorts"

type hostPorts []fw.HostPort

// Clone implements framework.StateData: nothing changes it.
func (p hostPorts) Clone() fw.StateData { return p }

// PreFilter implements framework.PreFilterPlugin.
func (NodePorts) PreFilter(_ context.Context, state *fw.CycleState, pod *v1.Pod) (sets.Set[string], *fw.Status) {
	ports := fw.HostPorts(pod)
	if len(ports) == 0 {
		return nil, fw.NewStatus(fw.Skip)
	}
	state.Write(portsKey, hostPorts(ports))
	return nil, nil
}

// Filter implements framework.FilterPlugin.
func (NodePorts) Filter(_ context.Context, state *fw.CycleState, _ *v1.Pod, n *fw.NodeInfo) *fw.Status {
	if ports, ok := state.Read(portsKey).(hostPorts); ok && n.PortsConflict(ports) {
		return fw.NewStatus(fw.Unschedulable, "node(s) didn't have free ports for the requested pod ports")
	}
	return nil
}

// EventsToRegister implements framework.EnqueueExtensions.
func (NodePorts) EventsToRegister() []fw.EventHint {
	return []fw.EventHint{
		{Events: fw.NodeAdd},
		{Events: fw.AssignedPodDelete, Hint: func(pod *v1.Pod, _ fw.Event, old, _ any) bool {
			n := fw.NodeInfo{}
			n.AddPod(fw.NewPodInfo(old.(*v1.Pod)))
			return n.PortsConflict(fw.HostPorts(pod))
		}},
	}
}
