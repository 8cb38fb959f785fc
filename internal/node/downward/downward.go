package downward

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// Field reads one of the fields of a pod that do not depend on its node.
func Field(pod *v1.Pod, path string) (string, error) {
	format := func(m map[string]string) string {
		var b strings.Builder
		for i, k := range slices.Sorted(maps.Keys(m)) {
			if i > 0 {
				b.WriteByte('\n')
			}
			fmt.Fprintf(&b, "%v=%q", k, m[k])
		}
		return b.String()
	}
	if field, key, ok := strings.Cut(strings.TrimSuffix(path, "']"), "['"); ok {
		switch field {
		case "metadata.annotations":
			return pod.Annotations[key], nil
		case "metadata.labels":
			return pod.Labels[key], nil
		}
	}
	switch path {
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "metadata.uid":
		return string(pod.UID), nil
	case "metadata.labels":
		return format(pod.Labels), nil
	case "metadata.annotations":
		return format(pod.Annotations), nil
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	}
	return "", fmt.Errorf("unsupported fieldPath: %v", path)
}

// Resource reads a request or limit of a container, in units of the selector's
// divisor and rounded up; what the container does not limit is what the node has.
func Resource(c *v1.Container, r *v1.ResourceFieldSelector, node v1.ResourceList) (string, error) {
	kind, res, _ := strings.Cut(r.Resource, ".")
	from := c.Resources.Limits
	if kind == "requests" {
		from = c.Resources.Requests
	}
	q, ok := from[v1.ResourceName(res)]
	if !ok && kind == "limits" {
		q = node[v1.ResourceName(res)]
	}
	divisor := r.Divisor
	d := divisor.MilliValue()
	if d == 0 {
		d = 1000
	}
	if res == "cpu" {
		return strconv.FormatInt((q.MilliValue()+d-1)/d, 10), nil
	}
	v := divisor.Value()
	if v == 0 {
		v = 1
	}
	return strconv.FormatInt((q.Value()+v-1)/v, 10), nil
}
