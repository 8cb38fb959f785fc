package definitions

import "strings"

// ownWords returns the words, as wordsOf gives them, for the types of metrics.k8s.io, whose
// package has none that are linked.
func ownWords(name string) map[string]string {
	_, rest, ok := strings.Cut(name, "io.k8s.metrics.pkg.apis.metrics.")
	if !ok {
		return nil
	}
	_, kind, _ := strings.Cut(rest, ".")
	const (
		metadata  = "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata"
		timestamp = "The time at which the interval ended that the usage was measured over."
		window    = "The length of the interval that the usage was measured over, which ended at timestamp."
	)
	types := "More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds"
	object := map[string]string{
		"apiVersion": "The version of the schema of this object.", "kind": "The kind of this object. " + types,
		"metadata": metadata, "timestamp": timestamp, "window": window,
	}
	switch kind {
	case "NodeMetrics":
		object[""] = "NodeMetrics is what a node has used of its resources."
		object["usage"] = "What the node used: cpu in cores, as the mean over the window; memory as the working set in bytes, at the timestamp."
	case "PodMetrics":
		object[""] = "PodMetrics is what the containers of a pod have used of their node's resources."
		object["containers"] = "The usage of each container, over the same interval."
	case "ContainerMetrics":
		return map[string]string{"": "ContainerMetrics is what a container has used of its node's resources.", "name": "The container's name, as the pod's spec has it.",
			"usage": "What the container used: cpu in cores, as the mean over the window; memory as the working set in bytes, at the timestamp."}
	case "NodeMetricsList", "PodMetricsList":
		object[""] = kind + " is a list of " + strings.TrimSuffix(kind, "List") + "."
		object["metadata"], object["items"] = "Standard list metadata. "+types, "The objects of the list."
	}
	return object
}
