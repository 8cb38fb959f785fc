package pod

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/node/layout"
)

func TestAllocation(t *testing.T) {
	m := &Manager{Config: Config{Layout: layout.Layout{Root: t.TempDir()}, Clock: clock.RealClock{}}}
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u"}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c",
		Resources: v1.ResourceRequirements{Requests: v1.ResourceList{v1.ResourceCPU: resource.MustParse("1")}}}}}}
	first := newResizing(&base{Manager: m, uid: "u"}, nil)
	if err := first.allocate(p); err != nil {
		t.Fatal(err)
	}
	if err := first.actuated(p, "id", &p.Spec.Containers[0], nil); err != nil {
		t.Fatal(err)
	}
	wants := p.DeepCopy()
	wants.Spec.Containers[0].Resources.Requests[v1.ResourceCPU] = resource.MustParse("2")
	next := newResizing(&base{Manager: m, uid: "u"}, nil)
	if err := next.allocate(wants); err != nil {
		t.Fatal(err)
	}
	if q := next.allocated(wants).Spec.Containers[0].Resources.Requests[v1.ResourceCPU]; q.String() != "1" {
		t.Errorf("the pod runs with %s", q.String())
	}
	if _, ok := next.given.Actuated["id"]; !ok {
		t.Error("what the container has is forgotten")
	}
	if next.allocated(p) != p {
		t.Error("a pod that has what it wants is copied")
	}
	has := &v1.ResourceRequirements{Requests: v1.ResourceList{v1.ResourceCPU: resource.MustParse("1")}}
	c := &wants.Spec.Containers[0]
	if restartsFor(c, has) {
		t.Error("a restart without a policy")
	}
	c.ResizePolicy = []v1.ContainerResizePolicy{{ResourceName: v1.ResourceMemory, RestartPolicy: v1.RestartContainer}, {ResourceName: v1.ResourceCPU, RestartPolicy: v1.NotRequired}}
	if restartsFor(c, has) {
		t.Error("a restart for another resource's policy")
	}
	if c.ResizePolicy[1].RestartPolicy = v1.RestartContainer; !restartsFor(c, has) {
		t.Error("no restart")
	}
}
