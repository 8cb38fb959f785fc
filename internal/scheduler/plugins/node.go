package plugins

import (
	"context"
	"fmt"

	v1 "k8s.io/api/core/v1"
	corev1helpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"

	fw "keelson.dev/keelson/internal/scheduler/framework"
)

// NodeName keeps a pod on the node it names.
type NodeName struct{}

// Name implements framework.Plugin.
func (NodeName) Name() string { return "NodeName" }

var errNodeName = "node(s) didn't match the requested node name"

// Filter implements framework.FilterPlugin.
func (NodeName) Filter(_ context.Context, _ *fw.CycleState, pod *v1.Pod, n *fw.NodeInfo) *fw.Status {
	if pod.Spec.NodeName == "" || pod.Spec.NodeName == n.Node.Name {
		return nil
	}
	return fw.NewStatus(fw.UnschedulableAndUnresolvable, errNodeName)
}

// NodeUnschedulable keeps pods off cordoned nodes.
type NodeUnschedulable struct{}

// Name implements framework.Plugin.
func (NodeUnschedulable) Name() string { return "NodeUnschedulable" }

// Filter implements framework.FilterPlugin.
func (NodeUnschedulable) Filter(_ context.Context, _ *fw.CycleState, pod *v1.Pod, n *fw.NodeInfo) *fw.Status {
	if !n.Node.Spec.Unschedulable {
		return nil
	}
	taint := &v1.Taint{Key: v1.TaintNodeUnschedulable, Effect: v1.TaintEffectNoSchedule}
	if corev1helpers.TolerationsTolerateTaint(klog.Background(), pod.Spec.Tolerations, taint, true) {
		return nil
	}
	return fw.NewStatus(fw.UnschedulableAndUnresolvable, "node(s) were unschedulable")
}

// EventsToRegister implements framework.EnqueueExtensions.
func (NodeUnschedulable) EventsToRegister() []fw.EventHint {
	return []fw.EventHint{{Events: fw.NodeAdd | fw.NodeUpdateTaint}}
}

// TaintToleration keeps pods off nodes with taints that they do not tolerate,
// and prefers nodes with fewer of the PreferNoSchedule kind.
type TaintToleration struct{}

// Name implements framework.Plugin.
func (TaintToleration) Name() string { return "TaintToleration" }

// Filter implements framework.FilterPlugin.
func (TaintToleration) Filter(_ context.Context, _ *fw.CycleState, pod *v1.Pod, n *fw.NodeInfo) *fw.Status {
	if len(n.Node.Spec.Taints) == 0 {
		return nil
	}
	taint, found := corev1helpers.FindMatchingUntoleratedTaint(klog.Background(), n.Node.Spec.Taints, pod.Spec.Tolerations, func(t *v1.Taint) bool {
		return t.Effect == v1.TaintEffectNoSchedule || t.Effect == v1.TaintEffectNoExecute
	}, true)
	if !found {
		return nil
	}
	return fw.NewStatus(fw.UnschedulableAndUnresolvable, fmt.Sprintf("node(s) had untolerated taint {%s: %s}", taint.Key, taint.Value))
}

// Score implements framework.ScorePlugin.
func (TaintToleration) Score(_ context.Context, _ *fw.CycleState, pod *v1.Pod, n *fw.NodeInfo) (int64, *fw.Status) {
	var count int64
	for i := range n.Node.Spec.Taints {
		t := &n.Node.Spec.Taints[i]
		if t.Effect == v1.TaintEffectPreferNoSchedule && !corev1helpers.TolerationsTolerateTaint(klog.Background(), pod.Spec.Tolerations, t, true) {
			count++
		}
	}
	return count, nil
}

// NormalizeScore implements framework.ScoreNormalizer.
func (TaintToleration) NormalizeScore(_ context.Context, _ *fw.CycleState, _ *v1.Pod, _ []*fw.NodeInfo, scores []int64) {
	normalize(scores, true)
}

// EventsToRegister implements framework.EnqueueExtensions.
func (TaintToleration) EventsToRegister() []fw.EventHint {
	return []fw.EventHint{{Events: fw.NodeAdd | fw.NodeUpdateTaint}}
}

// normalize brings scores to 0..MaxNodeScore, the best at the top.
func normalize(scores []int64, reverse bool) {
	var most int64
	for _, s := range scores {
		most = max(most, s)
	}
	for i := range scores {
		if most == 0 {
			if reverse {
				scores[i] = fw.MaxNodeScore
			}
			continue
		}
		scores[i] = scores[i] * fw.MaxNodeScore / most
		if reverse {
			scores[i] = fw.MaxNodeScore - scores[i]
		}
	}
}

// NodeAffinity keeps pods to the nodes that they select.
type NodeAffinity struct{}

// Name implements framework.Plugin.
func (NodeAffinity) Name() string { return "NodeAffinity" }

func selects(pod *v1.Pod) bool {
	a := pod.Spec.Affinity
	return len(pod.Spec.NodeSelector) > 0 || a != nil && a.NodeAffinity != nil && a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil
}

// Filter implements framework.FilterPlugin.
func (NodeAffinity) Filter(_ context.Context, _ *fw.CycleState, pod *v1.Pod, n *fw.NodeInfo) *fw.Status {
	if !selects(pod) {
		return nil
	}
	if ok, _ := nodeaffinity.GetRequiredNodeAffinity(pod).Match(n.Node); ok {
		return nil
	}
	return fw.NewStatus(fw.UnschedulableAndUnresolvable, "node(s) didn't match Pod's node affinity/selector")
}

// Score implements framework.ScorePlugin.
func (NodeAffinity) Score(_ context.Context, _ *fw.CycleState, pod *v1.Pod, n *fw.NodeInfo) (int64, *fw.Status) {
	a := pod.Spec.Affinity
	if a == nil || a.NodeAffinity == nil || len(a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution) == 0 {
		return 0, nil
	}
	terms, err := nodeaffinity.NewPreferredSchedulingTerms(a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	if err != nil {
		return 0, fw.AsStatus(err)
	}
	return terms.Score(n.Node), nil
}

// NormalizeScore implements framework.ScoreNormalizer.
func (NodeAffinity) NormalizeScore(_ context.Context, _ *fw.CycleState, _ *v1.Pod, _ []*fw.NodeInfo, scores []int64) {
	normalize(scores, false)
}

// EventsToRegister implements framework.EnqueueExtensions.
func (NodeAffinity) EventsToRegister() []fw.EventHint {
	return []fw.EventHint{{Events: fw.NodeAdd | fw.NodeUpdateLabel}}
}

// NodePorts keeps two pods from one host port.
type NodePorts struct{}

// Name implements framework.Plugin.
func (NodePorts) Name() string { return "NodePorts" }

// Filter implements framework.FilterPlugin.
func (NodePorts) Filter(_ context.Context, _ *fw.CycleState, pod *v1.Pod, n *fw.NodeInfo) *fw.Status {
	if len(n.Ports) == 0 {
		return nil
	}
	if n.PortsConflict(fw.HostPorts(pod)) {
		return fw.NewStatus(fw.Unschedulable, "node(s) didn't have free ports for the requested pod ports")
	}
	return nil
}

// EventsToRegister implements framework.EnqueueExtensions.
func (NodePorts) EventsToRegister() []fw.EventHint {
	return []fw.EventHint{{Events: fw.NodeAdd | fw.AssignedPodDelete}}
}
