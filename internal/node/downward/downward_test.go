package downward

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestValues(t *testing.T) {
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "n", UID: "u", Labels: map[string]string{"b": "2", "a": "1"}, Annotations: map[string]string{"x/y": "z"}}}
	for path, want := range map[string]string{
		"metadata.name": "p", "metadata.uid": "u", "metadata.labels": "a=\"1\"\nb=\"2\"", "metadata.labels['a']": "1", "metadata.annotations['x/y']": "z",
	} {
		if got, err := Field(p, path); err != nil || got != want {
			t.Errorf("%s is %q, %v", path, got, err)
		}
	}
	if _, err := Field(p, "spec.image"); err == nil {
		t.Error("a field that does not exist has a value")
	}
	if _, err := Resource(p, &v1.Container{}, &v1.ResourceFieldSelector{Resource: "limits.example.com/gpu"}, nil); err == nil {
		t.Error("a resource that has no field has a value")
	}
	c := &v1.Container{Resources: v1.ResourceRequirements{Requests: v1.ResourceList{v1.ResourceCPU: resource.MustParse("250m")}, Limits: v1.ResourceList{v1.ResourceMemory: resource.MustParse("64Mi")}}}
	node := v1.ResourceList{v1.ResourceCPU: resource.MustParse("4")}
	for _, r := range []struct{ resource, divisor, want string }{
		{"requests.cpu", "0", "1"}, {"requests.cpu", "1m", "250"}, {"limits.memory", "1Mi", "64"}, {"limits.memory", "0", "67108864"}, {"limits.cpu", "1", "4"}, {"requests.hugepages-2Mi", "1Mi", "0"},
	} {
		got, err := Resource(p, c, &v1.ResourceFieldSelector{Resource: r.resource, Divisor: resource.MustParse(r.divisor)}, node)
		if err != nil || got != r.want {
			t.Errorf("%s / %s = %q, %v, want %s", r.resource, r.divisor, got, err, r.want)
		}
	}
	// The pod's own limit is that of a container without one.
	p.Spec.Resources = &v1.ResourceRequirements{Limits: v1.ResourceList{v1.ResourceCPU: resource.MustParse("2"), v1.ResourceMemory: resource.MustParse("1Gi")}}
	for field, want := range map[string]string{"limits.cpu": "2", "limits.memory": "67108864", "requests.cpu": "1"} {
		if got, err := Resource(p, c, &v1.ResourceFieldSelector{Resource: field}, node); err != nil || got != want {
			t.Errorf("%s of a pod with limits = %q, %v, want %s", field, got, err, want)
		}
	}
}
