package peer

import (
	"reflect"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestReduce checks that a pod keeps the fields that network policies read, and nothing else.
func TestReduce(t *testing.T) {
	ports := []v1.ContainerPort{{Name: "http", ContainerPort: 80}}
	always := v1.ContainerRestartPolicyAlways
	full := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "p", Labels: map[string]string{"a": "b"}, Annotations: map[string]string{"large": "text", v1.MirrorPodAnnotationKey: "x"},
			ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "m"}}},
		Spec: v1.PodSpec{NodeName: "other", HostNetwork: true, SchedulerName: "s",
			Containers:     []v1.Container{{Name: "c", Image: "i", Ports: ports, Env: []v1.EnvVar{{Name: "PASSWORD", Value: "secret"}}}, {Name: "portless"}},
			InitContainers: []v1.Container{{Name: "sidecar", Ports: ports, RestartPolicy: &always, Args: []string{"--token=secret"}}}},
		Status: v1.PodStatus{Phase: v1.PodRunning, PodIPs: []v1.PodIP{{IP: "10.0.0.1"}}, Message: "m"},
	}
	want := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "p", Labels: map[string]string{"a": "b"}, Annotations: map[string]string{v1.MirrorPodAnnotationKey: "x"}},
		Spec: v1.PodSpec{NodeName: "other", HostNetwork: true, Containers: []v1.Container{{Ports: ports}},
			InitContainers: []v1.Container{{Ports: ports, RestartPolicy: &always}}},
		Status: v1.PodStatus{Phase: v1.PodRunning, PodIPs: []v1.PodIP{{IP: "10.0.0.1"}}},
	}
	if got := Reduce(full); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
