package daemonset

import (
	"maps"
	"strconv"

	apps "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/controllers/daemonset/placement"
)

// generationLabel is the label of generation.
const generationLabel = "pod-template-generation"

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
	placement.Tolerate(&pod.Spec)
	placement.BindTo(&pod.Spec, node)
	return pod
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
