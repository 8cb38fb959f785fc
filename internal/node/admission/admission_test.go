package admission

import (
	"testing"

	v1 "k8s.io/api/core/v1"
)

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
