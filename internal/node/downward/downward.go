package downward

import (
	"maps"
	"strings"

	v1 "k8s.io/api/core/v1"
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

// Resource reads a request or limit of a container, in units of the selector's
// divisor and rounded up; what the container does not limit is what the node has.
func Resource(c *v1.Container, r *v1.ResourceFieldSelector, node v1.ResourceList) (string, error) {
	name, limit := strings.CutPrefix(r.Resource, "limits.")
	if set := c.Resources.Limits[v1.ResourceName(name)]; limit && set.IsZero() {
		if has, ok := node[v1.ResourceName(name)]; ok {
			whole := v1.Container{Resources: v1.ResourceRequirements{Limits: maps.Clone(c.Resources.Limits)}}
			if whole.Resources.Limits == nil {
				whole.Resources.Limits = v1.ResourceList{}
			}
			whole.Resources.Limits[v1.ResourceName(name)] = has
			c = &whole
		}
	}
	return resource.ExtractContainerResourceValue(r, c)
}
