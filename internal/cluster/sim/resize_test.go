package sim

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestResize(t *testing.T) {
	of := func(cpu, memory string) v1.ResourceRequirements {
		return v1.ResourceRequirements{Requests: v1.ResourceList{v1.ResourceCPU: resource.MustParse(cpu), v1.ResourceMemory: resource.MustParse(memory)}}
	}
	now := metav1.Now()
	p := &v1.Pod{Spec: v1.PodSpec{Containers: []v1.Container{
		{Name: "c", Resources: of("1", "1Gi"), ResizePolicy: []v1.ContainerResizePolicy{{ResourceName: v1.ResourceCPU, RestartPolicy: v1.NotRequired}, {ResourceName: v1.ResourceMemory, RestartPolicy: v1.RestartContainer}}},
		{Name: "none"}}},
		Status: v1.PodStatus{ContainerStatuses: []v1.ContainerStatus{{Name: "c", State: v1.ContainerState{Running: &v1.ContainerStateRunning{}}}, {Name: "none"}}}}
	for _, c := range []struct {
		cpu, memory string
		changed     bool
		restarts    int32
	}{
		{"1", "1Gi", true, 0}, {"1", "1Gi", false, 0}, {"1000m", "1024Mi", false, 0}, {"2", "1Gi", true, 0}, {"2", "2Gi", true, 1}, {"1", "1Gi", true, 2},
	} {
		p.Spec.Containers[0].Resources = of(c.cpu, c.memory)
		if got := resize(p, &now); got != c.changed {
			t.Errorf("%v: changed %v", c, got)
		}
		s := p.Status.ContainerStatuses[0]
		if s.RestartCount != c.restarts || s.Resources.Requests.Cpu().Cmp(resource.MustParse(c.cpu)) != 0 || s.AllocatedResources.Memory().Cmp(resource.MustParse(c.memory)) != 0 {
			t.Errorf("%v: %+v", c, s)
		}
	}
	if s := p.Status.ContainerStatuses[1]; s.Resources != nil {
		t.Errorf("a container that asks for nothing has %v", s.Resources)
	}
}
