package daemonset

import (
	"maps"
	"slices"
	"strconv"

	apps "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1helpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/internal/controllers"
)

// generationLabel is the label of generation.
const generationLabel = "pod-template-generation"

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

// withTolerations adds the tolerations of daemon pods to those of a pod.
func withTolerations(spec *v1.PodSpec) {
	for _, t := range tolerations(spec.HostNetwork) {
		same := func(o v1.Toleration) bool { return o.MatchToleration(&t) }
		if i := slices.IndexFunc(spec.Tolerations, same); i >= 0 {
			spec.Tolerations[i] = t
		} else {
			spec.Tolerations = append(spec.Tolerations, t)
		}
	}
}

// newPod makes the set's pod for a node.
func newPod(ds *apps.DaemonSet, hash, node string) *v1.Pod {
	pod := controllers.PodFromTemplate(&ds.Spec.Template, ds, metav1.NewControllerRef(ds, gvk))
	pod.Labels = maps.Clone(pod.Labels)
	if pod.Labels == nil {
		pod.Labels = map[string]string{}
	}
	if g := generation(ds); g != nil {
		pod.Labels[generationLabel] = strconv.FormatInt(*g, 10)
	}
	pod.Labels[apps.ControllerRevisionHashLabelKey] = hash
	withTolerations(&pod.Spec)
	bindTo(&pod.Spec, node)
	return pod
}

// bindTo requires that a pod is bound to a node, in place of what its template
// requires: whether the node is one of those has been seen to.
func bindTo(spec *v1.PodSpec, node string) {
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

// nodeOf returns the node that a daemon pod is bound to, or is for.
func nodeOf(pod *v1.Pod) string {
	if pod.Spec.NodeName != "" {
		return pod.Spec.NodeName
	}
	if a := pod.Spec.Affinity; a != nil && a.NodeAffinity != nil && a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		for _, term := range a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
			for _, f := range term.MatchFields {
				if f.Key == metav1.ObjectNameField && f.Operator == v1.NodeSelectorOpIn && len(f.Values) == 1 {
					return f.Values[0]
				}
			}
		}
	}
	return ""
}

// wanted returns the function that reports whether a set is to have a pod on a node,
// and whether one that is there may stay.
func wanted(ds *apps.DaemonSet) func(*v1.Node) (run, stay bool) {
	t := &ds.Spec.Template.Spec
	pod := &v1.Pod{Spec: v1.PodSpec{NodeSelector: t.NodeSelector, Affinity: t.Affinity, HostNetwork: t.HostNetwork, Tolerations: slices.Clone(t.Tolerations)}}
	withTolerations(&pod.Spec)
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
