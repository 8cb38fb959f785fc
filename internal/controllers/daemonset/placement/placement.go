package placement

import (
	"slices"

	apps "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1helpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"
)

// tolerations returns the tolerations of every daemon pod: it runs before its
// node is ready, and stays when the node is no longer ready.
func tolerations(hostNetwork bool) []v1.Toleration {
	out := []v1.Toleration{
		{Key: v1.TaintNodeNotReady, Operator: v1.TolerationOpExists, Effect: v1.TaintEffectNoExecute},
		{Key: v1.TaintNodeUnreachable, Operator: v1.TolerationOpExists, Effect: v1.TaintEffectNoExecute},
		{Key: v1.TaintNodeDiskPressure, Operator: v1.TolerationOpExists, Effect: v1.TaintEffectNoSchedule},
		{Key: v1.TaintNodeMemoryPressure, Operator: v1.TolerationOpExists, Effect: v1.TaintEffectNoSchedule},
		{Key: v1.TaintNodePIDPressure, Operator: v1.TolerationOpExists, Effect: v1.TaintEffectNoSchedule},
		{Key: v1.TaintNodeUnschedulable, Operator: v1.TolerationOpExists, Effect: v1.TaintEffectNoSchedule},
	}
	if hostNetwork {
		out = append(out, v1.Toleration{Key: v1.TaintNodeNetworkUnavailable, Operator: v1.TolerationOpExists, Effect: v1.TaintEffectNoSchedule})
	}
	return out
}

// Tolerate adds the tolerations of daemon pods to those of a pod.
func Tolerate(spec *v1.PodSpec) {
	for _, t := range tolerations(spec.HostNetwork) {
		same := func(o v1.Toleration) bool { return o.MatchToleration(&t) }
		if i := slices.IndexFunc(spec.Tolerations, same); i >= 0 {
			spec.Tolerations[i] = t
		} else {
			spec.Tolerations = append(spec.Tolerations, t)
		}
	}
}

// BindTo requires that a pod is bound to a node, in place of what its template
// requires: whether the node is one of those has been seen to.
func BindTo(spec *v1.PodSpec, node string) {
	if spec.Affinity == nil {
		spec.Affinity = &v1.Affinity{}
	}
	if spec.Affinity.NodeAffinity == nil {
		spec.Affinity.NodeAffinity = &v1.NodeAffinity{}
	}
	spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution = &v1.NodeSelector{NodeSelectorTerms: []v1.NodeSelectorTerm{{
		MatchFields: []v1.NodeSelectorRequirement{{Key: metav1.ObjectNameField, Operator: v1.NodeSelectorOpIn, Values: []string{node}}},
	}}}
}

// Wanted returns the function that reports whether a set is to have a pod on a node,
// and whether one that is there may stay.
func Wanted(ds *apps.DaemonSet) func(*v1.Node) (run, stay bool) {
	t := &ds.Spec.Template.Spec
	pod := &v1.Pod{Spec: v1.PodSpec{NodeSelector: t.NodeSelector, Affinity: t.Affinity, HostNetwork: t.HostNetwork, Tolerations: slices.Clone(t.Tolerations)}}
	Tolerate(&pod.Spec)
	affinity := nodeaffinity.GetRequiredNodeAffinity(pod)
	return func(node *v1.Node) (run, stay bool) {
		if t.NodeName != "" && t.NodeName != node.Name {
			return false, false
		}
		if fits, err := affinity.Match(node); err != nil || !fits {
			return false, false
		}
		untolerated := func(effects ...v1.TaintEffect) bool {
			_, found := corev1helpers.FindMatchingUntoleratedTaint(klog.Background(), node.Spec.Taints, pod.Spec.Tolerations,
				func(t *v1.Taint) bool { return slices.Contains(effects, t.Effect) }, true)
			return found
		}
		return !untolerated(v1.TaintEffectNoExecute, v1.TaintEffectNoSchedule), !untolerated(v1.TaintEffectNoExecute)
	}
}

// Pod returns the pod that a set would have on a node, nil if it would have none there.
func Pod(ds *apps.DaemonSet, node *v1.Node) *v1.Pod {
	if run, _ := Wanted(ds)(node); !run || ds.DeletionTimestamp != nil {
		return nil
	}
	pod := &v1.Pod{ObjectMeta: *ds.Spec.Template.ObjectMeta.DeepCopy(), Spec: *ds.Spec.Template.Spec.DeepCopy()}
	pod.Namespace, pod.Name = ds.Namespace, ds.Name+"-"+node.Name
	Tolerate(&pod.Spec)
	BindTo(&pod.Spec, node.Name)
	return pod
}
