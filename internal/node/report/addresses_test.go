package report

import (
	"net"
	"reflect"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestAddresses(t *testing.T) {
	name := v1.NodeAddress{Type: v1.NodeHostName, Address: "n"}
	own := []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: "192.0.2.1"}, name}
	given := []v1.NodeAddress{{Type: v1.NodeExternalIP, Address: "203.0.113.1"}}
	one := []net.IP{net.ParseIP("192.0.2.1")}
	for what, c := range map[string]struct {
		external bool
		ips      []net.IP
		has      []v1.NodeAddress
		want     []v1.NodeAddress
	}{
		"no cloud":                         {ips: one, want: own},
		"no cloud, with others' addresses": {ips: one, has: given, want: own},
		"a cloud that has yet to come":     {external: true, want: []v1.NodeAddress{name}},
		"a cloud that is asked for one":    {external: true, ips: one, want: own},
		"a cloud that has given some":      {external: true, ips: one, has: given, want: given},
	} {
		s := &Reporter{Config: Config{Hostname: "n", External: c.external, NodeIPs: func() []net.IP { return c.ips }}}
		if got := s.addresses(c.has); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v, want %v", what, got, c.want)
		}
	}
}

func TestAnnotate(t *testing.T) {
	two := []net.IP{net.ParseIP("192.0.2.1"), net.ParseIP("2001:db8::1")}
	for what, c := range map[string]struct {
		external bool
		ips      []net.IP
		old, now string
		changed  bool
	}{
		"no cloud":                     {ips: two},
		"no cloud any more":            {ips: two, old: "192.0.2.1", changed: true},
		"a cloud":                      {external: true},
		"a cloud, addresses":           {external: true, ips: two, now: "192.0.2.1,2001:db8::1", changed: true},
		"a cloud, the same addresses":  {external: true, ips: two, old: "192.0.2.1,2001:db8::1", now: "192.0.2.1,2001:db8::1"},
		"a cloud, addresses no longer": {external: true, old: "192.0.2.1", changed: true},
	} {
		n := &v1.Node{}
		if c.old != "" {
			n.ObjectMeta = metav1.ObjectMeta{Annotations: map[string]string{providedIP: c.old}}
		}
		s := &Reporter{Config: Config{External: c.external, NodeIPs: func() []net.IP { return c.ips }}}
		if changed := s.annotate(n); changed != c.changed || n.Annotations[providedIP] != c.now {
			t.Errorf("%s: %q, changed %v; want %q, %v", what, n.Annotations[providedIP], changed, c.now, c.changed)
		}
	}
}

func TestHostIPs(t *testing.T) {
	node := func(all ...string) *v1.Node {
		n := &v1.Node{}
		for i := 0; i < len(all); i += 2 {
			n.Status.Addresses = append(n.Status.Addresses, v1.NodeAddress{Type: v1.NodeAddressType(all[i]), Address: all[i+1]})
		}
		return n
	}
	for what, c := range map[string]struct {
		node *v1.Node
		want string
	}{
		"none":               {node("Hostname", "n"), "[]"},
		"internal first":     {node("ExternalIP", "203.0.113.1", "InternalIP", "192.0.2.1"), "[192.0.2.1]"},
		"external alone":     {node("ExternalIP", "203.0.113.1"), "[203.0.113.1]"},
		"one of each family": {node("InternalIP", "192.0.2.1", "InternalIP", "192.0.2.2", "ExternalIP", "2001:db8::1", "ExternalIP", "2001:db8::2"), "[192.0.2.1 2001:db8::1]"},
	} {
		got := "["
		for i, ip := range HostIPs(c.node) {
			if i > 0 {
				got += " "
			}
			got += ip.String()
		}
		if got += "]"; got != c.want {
			t.Errorf("%s: %s, want %s", what, got, c.want)
		}
	}
}
