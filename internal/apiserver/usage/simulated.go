package usage

import (
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metricsv1 "k8s.io/metrics/pkg/apis/metrics/v1"
)

// The load of a simulated pod is in its annotations. Each container of the pod uses
//
//	keelson.dev/usage-cpu: 250m
//	keelson.dev/usage-memory: 64Mi
//
// and one container, web, in place of that
//
//	keelson.dev/usage-cpu.web: "1"
//	keelson.dev/usage-memory.web: 1Gi
//
// A pod without annotations uses nothing; a quantity that cannot be read, or is
// below 0, is as if it were not there.
const (
	AnnotationCPU    = "keelson.dev/usage-cpu"
	AnnotationMemory = "keelson.dev/usage-memory"
)

// simulated returns the usage of the containers of a simulated pod that runs.
func simulated(pod *v1.Pod) []metricsv1.ContainerMetrics {
	out := make([]metricsv1.ContainerMetrics, 0, len(pod.Spec.Containers))
	add := func(name string) {
		out = append(out, metricsv1.ContainerMetrics{Name: name, Usage: v1.ResourceList{
			v1.ResourceCPU:    annotated(pod, AnnotationCPU, name, resource.DecimalSI),
			v1.ResourceMemory: annotated(pod, AnnotationMemory, name, resource.BinarySI),
		}})
	}
	for i := range pod.Spec.InitContainers {
		if c := &pod.Spec.InitContainers[i]; c.RestartPolicy != nil && *c.RestartPolicy == v1.ContainerRestartPolicyAlways {
			add(c.Name)
		}
	}
	for i := range pod.Spec.Containers {
		add(pod.Spec.Containers[i].Name)
	}
	return out
}

func annotated(pod *v1.Pod, key, container string, format resource.Format) resource.Quantity {
	for _, k := range []string{key + "." + container, key} {
		if q, err := resource.ParseQuantity(strings.TrimSpace(pod.Annotations[k])); err == nil && q.Sign() >= 0 {
			return q
		}
	}
	return *resource.NewQuantity(0, format)
}
