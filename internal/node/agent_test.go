package node

import (
	"slices"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
)

func TestExpand(t *testing.T) {
	values := map[string]string{"A": "1", "B": "$(A)"}
	for in, want := range map[string]string{
		"plain": "plain", "$(A)": "1", "x$(A)y$(B)": "x1y$(A)", "$$(A)": "$(A)", "$(NONE)": "$(NONE)", "$(A": "$(A", "$": "$", "a$b": "a$b", "$$$(A)": "$1",
	} {
		if got := expand(in, values); got != want {
			t.Errorf("%q gives %q, want %q", in, got, want)
		}
	}
}

func TestPortsConflict(t *testing.T) {
	pod := func(ip string, port int32, p v1.Protocol) *v1.Pod {
		return &v1.Pod{Spec: v1.PodSpec{Containers: []v1.Container{{Ports: []v1.ContainerPort{{HostIP: ip, HostPort: port, Protocol: p}}}}}}
	}
	mine := pod("10.0.0.1", 80, v1.ProtocolTCP)
	for _, c := range []struct {
		other *v1.Pod
		want  bool
	}{
		{pod("10.0.0.1", 80, v1.ProtocolTCP), true}, {pod("10.0.0.2", 80, v1.ProtocolTCP), false}, {pod("", 80, v1.ProtocolTCP), true},
		{pod("0.0.0.0", 80, v1.ProtocolTCP), true}, {pod("10.0.0.1", 80, v1.ProtocolUDP), false}, {pod("10.0.0.1", 81, v1.ProtocolTCP), false}, {pod("", 0, v1.ProtocolTCP), false},
	} {
		if got := portsConflict(mine, c.other); got != c.want {
			t.Errorf("%+v: %v", c.other.Spec.Containers[0].Ports[0], got)
		}
	}
}

func TestBackoff(t *testing.T) {
	b, now := &backoff{}, time.Unix(1000, 0)
	if b.wait(now, now) != 0 {
		t.Error("the first restart waits")
	}
	var pauses []time.Duration
	for range 7 {
		b.next(now)
		pauses = append(pauses, b.pause)
		now = now.Add(b.pause)
	}
	want := []time.Duration{10 * time.Second, 20 * time.Second, 40 * time.Second, 80 * time.Second, 160 * time.Second, 300 * time.Second, 300 * time.Second}
	if !slices.Equal(pauses, want) {
		t.Errorf("pauses: %v", pauses)
	}
	if b.next(now.Add(time.Hour)); b.pause != 10*time.Second {
		t.Errorf("after an hour without a failure: %v", b.pause)
	}
}

// TestAllocation: a pod's allocated resources outlive the agent, and an
// interrupted write does not lose them.
func TestAllocation(t *testing.T) {
	a := &Agent{Config: Config{RootDir: t.TempDir(), Clock: clock.RealClock{}}}
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u"}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c",
		Resources: v1.ResourceRequirements{Requests: v1.ResourceList{v1.ResourceCPU: resource.MustParse("1")}}}}}}
	first := newWorker(a, p)
	if err := first.allocate(p); err != nil {
		t.Fatal(err)
	}
	if err := first.actuated(p, "id", &p.Spec.Containers[0].Resources, nil); err != nil {
		t.Fatal(err)
	}
	wants := p.DeepCopy()
	wants.Spec.Containers[0].Resources.Requests[v1.ResourceCPU] = resource.MustParse("2")
	next := newWorker(a, wants)
	if err := next.allocate(wants); err != nil {
		t.Fatal(err)
	}
	if q := next.allocated(wants).Spec.Containers[0].Resources.Requests[v1.ResourceCPU]; q.String() != "1" {
		t.Errorf("the pod runs with %s", q.String())
	}
	if _, ok := next.resizing.given.Actuated["id"]; !ok {
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
