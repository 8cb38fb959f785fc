package proxy

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestOwnPorts checks that a program of the machine keeps its port until it ends,
// even if a Service has the port at an address of the node.
func TestOwnPorts(t *testing.T) {
	busy := &Sockets{map[Key]bool{}, map[Key]bool{{Proto: v1.ProtocolTCP, Port: 80}: true}}
	free := &Sockets{}
	now := free
	var told []string
	k := &fake{pods: podRange, local: []netip.Addr{netip.MustParseAddr(machine)}}
	r := newRig(t, Config{IPv4: k, NoHealthChecks: true, Listening: func() (*Sockets, error) { return now, nil },
		PortInUse: func(s *v1.Service, at netip.AddrPort, proto v1.Protocol) {
			told = append(told, fmt.Sprintf("%s %s/%s", s.Name, at, proto))
		}})
	r.set(&v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "here"}, Status: v1.NodeStatus{Addresses: []v1.NodeAddress{
		{Type: v1.NodeInternalIP, Address: machine}, {Type: v1.NodeExternalIP, Address: "203.0.113.1"}}}})
	s := service("web", "10.96.0.1", func(s *v1.Service) {
		s.Spec.Type = v1.ServiceTypeLoadBalancer
		s.Status.LoadBalancer.Ingress = []v1.LoadBalancerIngress{{IP: "203.0.113.1"}, {IP: "192.0.2.2"}}
	})
	r.set(s, slice("web", "web", ep("10.244.0.2", onHere)))
	check := func(own string) {
		t.Helper()
		if r.inspect(t.Context()) {
			if err := r.Sync(); err != nil {
				t.Fatal(err)
			}
		}
		for to, want := range map[string]string{machine: own, "203.0.113.1": own, "192.0.2.2": "10.244.0.2:8080 masquerade", "10.96.0.1": "10.244.0.2:8080 masquerade"} {
			if got := k.packet(outside, to, 80, v1.ProtocolTCP).in(); got != want {
				t.Errorf("to %s: %q, want %q", to, got, want)
			}
		}
	}
	r.sync()
	check("10.244.0.2:8080 masquerade")
	now = busy
	check("")
	check("")
	if !slices.Equal(told, []string{"web 192.0.2.1:80/TCP"}) {
		t.Errorf("told of %q", told)
	}
	now = free
	check("10.244.0.2:8080 masquerade")
	now = busy
	check("")
	// A program that is the Service's endpoint is not reported.
	told = nil
	r.set(slice("web", "web", ep(machine, func(e *discoveryv1.Endpoint) { e.NodeName = nil })))
	s = s.DeepCopy()
	s.Spec.Ports[0].Port = 8080
	r.set(s)
	r.sync()
	if len(told) > 0 || k.packet(outside, machine, 8080, v1.ProtocolTCP).in() != "" {
		t.Errorf("told of %q", told)
	}
	r.remove(s)
	r.sync()
	if len(r.tables[0].own) > 0 {
		t.Errorf("left: %v", r.tables[0].own)
	}
}

func TestListening(t *testing.T) {
	var l net.ListenConfig
	for _, network := range []string{"tcp4", "tcp6", "tcp"} {
		at := map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0", "tcp": ":0"}[network]
		a, err := l.Listen(t.Context(), network, at)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		u, err := l.ListenPacket(t.Context(), "udp"+network[3:], a.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		s, err := Listening()
		if err != nil {
			t.Fatal(err)
		}
		here := a.Addr().(*net.TCPAddr).AddrPort()
		for _, proto := range []v1.Protocol{v1.ProtocolTCP, v1.ProtocolUDP} {
			if !s.Has(Key{Addr: here.Addr(), Proto: proto, Port: here.Port()}) {
				t.Errorf("%s %s is not found", proto, here)
			}
			other := Key{Addr: netip.MustParseAddr("192.0.2.1"), Proto: proto, Port: here.Port()}
			if got, want := s.Has(other), network == "tcp"; got != want {
				t.Errorf("%+v: %t, want %t", other, got, want)
			}
		}
	}
}

// TestUnsupported checks that a Service gets one event for a protocol that the
// kernel does not support.
func TestUnsupported(t *testing.T) {
	var told []string
	r := newRig(t, Config{IPv4: &fake{}, NoHealthChecks: true, Follows: func(p v1.Protocol) bool { return p != v1.ProtocolSCTP },
		Unsupported: func(s *v1.Service, p v1.Protocol) { told = append(told, s.Name+" "+string(p)) }})
	s := service("dgram", "10.96.0.1", func(s *v1.Service) { s.Spec.Ports[0].Protocol = v1.ProtocolSCTP })
	r.set(s, service("web", "10.96.0.2"))
	r.sync()
	r.set(s, slice("dgram", "dgram", ep("10.244.0.2")))
	r.sync()
	if !slices.Equal(told, []string{"dgram SCTP"}) {
		t.Errorf("told of %q", told)
	}
}
