package downward

import (
	"maps"
	"strings"

	v1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
	"k8s.io/kubectl/pkg/util/fieldpath"
	"k8s.io/kubectl/pkg/util/resource"
)

// Field reads one of the fields of a pod that do not depend on its node.
func Field(pod *v1.Pod, path string) (string, error) {
	switch path {
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	}
	return fieldpath.ExtractFieldPathAsString(pod, path)
}

// Resource reads a request or limit of a container of a pod, in units of the selector's
// divisor and rounded up; what the container does not limit is what the pod is limited to as a
// whole, or else what the node has.
func Resource(pod *v1.Pod, c *v1.Container, r *v1.ResourceFieldSelector, node v1.ResourceList) (string, error) {
	text, limit := strings.CutPrefix(r.Resource, "limits.")
	name := v1.ResourceName(text)
	if set := c.Resources.Limits[name]; limit && set.IsZero() {
		if has, ok := node[name]; ok {
			if whole := pod.Spec.Resources; whole != nil && resourcehelper.IsSupportedPodLevelResource(name) {
				if q := whole.Limits[name]; !q.IsZero() {
					has = q
				}
			}
			limited := v1.Container{Resources: v1.ResourceRequirements{Limits: maps.Clone(c.Resources.Limits)}}
			if limited.Resources.Limits == nil {
				limited.Resources.Limits = v1.ResourceList{}
			}
			limited.Resources.Limits[name] = has
			c = &limited
		}
	}
	return resource.ExtractContainerResourceValue(r, c)
}
