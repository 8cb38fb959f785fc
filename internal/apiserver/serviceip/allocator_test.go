package serviceip

import (
	"net/netip"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
)

func service(name string, t v1.ServiceType, ip string, ports ...int32) *v1.Service {
	s := &v1.Service{Spec: v1.ServiceSpec{Type: t, ClusterIP: ip}}
	s.Name = name
	if ip != "" {
		s.Spec.ClusterIPs = []string{ip}
	}
	for i, p := range ports {
		s.Spec.Ports = append(s.Spec.Ports, v1.ServicePort{Port: int32(80 + i), NodePort: p, Protocol: v1.ProtocolTCP})
	}
	return s
}

func TestReserve(t *testing.T) {
	held := service("held", v1.ServiceTypeNodePort, "10.0.0.5", 30001)
	a, err := New(netip.MustParsePrefix("10.0.0.0/24"), 30000, 30002, []*v1.Service{held})
	if err != nil {
		t.Fatal(err)
	}
	reserve := func(s, old *v1.Service, commit bool) error {
		t.Helper()
		var done func(bool)
		var err error
		if old == nil {
			done, err = a.Reserve(t.Context(), s, nil, false)
		} else {
			done, err = a.Reserve(t.Context(), s, old, false)
		}
		if err == nil {
			done(commit)
		}
		return err
	}
	for _, c := range []struct {
		name string
		s    *v1.Service
		want string
	}{
		{"taken", service("a", v1.ServiceTypeClusterIP, "10.0.0.5"), "failed to allocate IP 10.0.0.5: provided IP is already allocated"},
		{"outside", service("a", v1.ServiceTypeClusterIP, "10.1.0.5"), "failed to allocate IP 10.1.0.5: the provided IP (10.1.0.5) is not in the valid range. The range of valid IPs is 10.0.0.0/24"},
		{"port taken", service("a", v1.ServiceTypeNodePort, "", 30001), "spec.ports[0].nodePort: Invalid value: 30001: provided port is already allocated"},
		{"port outside", service("a", v1.ServiceTypeNodePort, "", 80), "provided port is not in the valid range. The range of valid ports is 30000-30002"},
	} {
		if err := reserve(c.s, nil, true); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
	}
	// A write that is not committed gives back what it took.
	dropped := service("dropped", v1.ServiceTypeNodePort, "10.0.0.9", 30002)
	for range 2 {
		if err := reserve(dropped.DeepCopy(), nil, false); err != nil {
			t.Fatal(err)
		}
	}
	s := service("s", v1.ServiceTypeNodePort, "", 0, 0)
	if err := reserve(s, nil, true); err != nil {
		t.Fatal(err)
	}
	ip := netip.MustParseAddr(s.Spec.ClusterIP)
	if !a.cidr.Contains(ip) || ip.As4()[3] < 17 || s.Spec.IPFamilies[0] != v1.IPv4Protocol {
		t.Errorf("given: %+v", s.Spec)
	}
	if p := s.Spec.Ports; p[0].NodePort == p[1].NodePort || p[0].NodePort == 30001 || p[1].NodePort == 30001 {
		t.Errorf("ports: %+v", p)
	}
	if err := reserve(service("full", v1.ServiceTypeNodePort, "", 0), nil, true); err == nil || !strings.Contains(err.Error(), "range is full") {
		t.Errorf("no port is left: %v", err)
	}
	// A change of type frees the ports.
	plain := s.DeepCopy()
	plain.Spec.Type = v1.ServiceTypeClusterIP
	for i := range plain.Spec.Ports {
		plain.Spec.Ports[i].NodePort = 0
	}
	if err := reserve(plain, s, true); err != nil {
		t.Fatal(err)
	}
	if err := reserve(service("next", v1.ServiceTypeNodePort, "", s.Spec.Ports[0].NodePort), nil, true); err != nil {
		t.Errorf("a freed port: %v", err)
	}
	a.Release(plain)
	if err := reserve(service("again", v1.ServiceTypeClusterIP, plain.Spec.ClusterIP), nil, true); err != nil {
		t.Errorf("a released address: %v", err)
	}
}
