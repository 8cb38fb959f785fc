package serviceresolver

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/utils/ptr"
)

func TestResolve(t *testing.T) {
	service := func(name string, spec v1.ServiceSpec) *v1.Service {
		return &v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Spec: spec}
	}
	slice := func(name string, ready bool) *discoveryv1.EndpointSlice {
		return &discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Namespace: "ns", Name: name + "-1", Labels: map[string]string{discoveryv1.LabelServiceName: name}},
			AddressType: discoveryv1.AddressTypeIPv4,
			Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"10.1.2.3"}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(ready)}}},
			Ports:       []discoveryv1.EndpointPort{{Name: ptr.To("https"), Port: ptr.To(int32(8443))}},
		}
	}
	ports := []v1.ServicePort{{Name: "https", Port: 443}}
	f := informers.NewSharedInformerFactory(nil, 0)
	r, err := New(f, func() string { return "127.0.0.1:6443" })
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []*v1.Service{
		service("up", v1.ServiceSpec{Type: v1.ServiceTypeClusterIP, ClusterIP: "10.96.0.9", Ports: ports}),
		service("down", v1.ServiceSpec{Type: v1.ServiceTypeClusterIP, ClusterIP: "10.96.0.10", Ports: ports}),
		service("headless", v1.ServiceSpec{Type: v1.ServiceTypeClusterIP, ClusterIP: v1.ClusterIPNone, Ports: ports}),
		service("simulated", v1.ServiceSpec{Type: v1.ServiceTypeClusterIP, ClusterIP: "10.96.0.11", Ports: ports}),
		service("unnamed", v1.ServiceSpec{Type: v1.ServiceTypeClusterIP, ClusterIP: "10.96.0.12", Ports: ports}),
		service("some", v1.ServiceSpec{Type: v1.ServiceTypeClusterIP, ClusterIP: "10.96.0.13", Ports: ports}),
		service("named", v1.ServiceSpec{Type: v1.ServiceTypeClusterIP, ClusterIP: "10.96.0.14", Ports: ports}),
		service("outside", v1.ServiceSpec{Type: v1.ServiceTypeExternalName, ExternalName: "hooks.example.com"}),
	} {
		if err := f.Core().V1().Services().Informer().GetIndexer().Add(o); err != nil {
			t.Fatal(err)
		}
	}
	// Endpoints of simulated pods, by the name of the node and by the pod's.
	for _, o := range []*v1.Node{
		{ObjectMeta: metav1.ObjectMeta{Name: "sim-0"}, Status: v1.NodeStatus{NodeInfo: v1.NodeSystemInfo{ContainerRuntimeVersion: "sim://1"}}},
		{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Status: v1.NodeStatus{NodeInfo: v1.NodeSystemInfo{ContainerRuntimeVersion: "containerd://2"}}},
	} {
		if err := f.Core().V1().Nodes().Informer().GetIndexer().Add(o); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Core().V1().Pods().Informer().GetIndexer().Add(&v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"}, Spec: v1.PodSpec{NodeName: "sim-0"}}); err != nil {
		t.Fatal(err)
	}
	simulated, unnamed, some, named := slice("simulated", true), slice("unnamed", true), slice("some", true), slice("named", true)
	simulated.Endpoints[0].NodeName = ptr.To("sim-0")
	unnamed.Endpoints[0].TargetRef = &v1.ObjectReference{Kind: "Pod", Namespace: "ns", Name: "p"}
	some.Endpoints = append([]discoveryv1.Endpoint{{Addresses: []string{"10.128.0.1"}, NodeName: ptr.To("sim-0")}}, some.Endpoints...)
	some.Endpoints[1].NodeName = ptr.To("n")
	named.AddressType, named.Endpoints[0].Addresses = discoveryv1.AddressTypeFQDN, []string{"evil.example"}
	for _, o := range []*discoveryv1.EndpointSlice{slice("up", true), slice("down", false), slice("headless", true), simulated, unnamed, some, named} {
		if err := f.Discovery().V1().EndpointSlices().Informer().GetIndexer().Add(o); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		namespace, name string
		port            int32
		want, err       string
	}{
		{"ns", "up", 443, "https://10.1.2.3:8443", ""},
		{"ns", "headless", 443, "https://10.1.2.3:8443", ""},
		{"ns", "outside", 9443, "https://hooks.example.com:9443", ""},
		{"default", "kubernetes", 443, "https://127.0.0.1:6443", ""},
		{"ns", "up", 80, "", `no service port 80 found for service "up"`},
		{"ns", "down", 443, "", `no endpoints available for service "down"`},
		{"ns", "simulated", 443, "", `no endpoints available for service "simulated": its pods are simulated, nothing listens at their addresses`},
		{"ns", "unnamed", 443, "", `no endpoints available for service "unnamed": its pods are simulated, nothing listens at their addresses`},
		{"ns", "some", 443, "https://10.1.2.3:8443", ""},
		{"ns", "named", 443, "", `no endpoints available for service "named"`},
		{"ns", "none", 443, "", `service "none" not found`},
	} {
		u, err := r.ResolveEndpoint(c.namespace, c.name, c.port)
		got, msg := "", ""
		if u != nil {
			got = u.String()
		}
		if err != nil {
			msg = err.Error()
		}
		if got != c.want || msg != c.err {
			t.Errorf("%s/%s:%d: got %q, %q; want %q, %q", c.namespace, c.name, c.port, got, msg, c.want, c.err)
		}
	}
}
