package reserved

import (
	"net/netip"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func machine(name, pods string, addrs ...string) *v1.Node {
	n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.NodeSpec{PodCIDRs: strings.Split(pods, ",")},
		Status: v1.NodeStatus{DaemonEndpoints: v1.NodeDaemonEndpoints{KubeletEndpoint: v1.DaemonEndpoint{Port: 10250}}}}
	for _, a := range addrs {
		n.Status.Addresses = append(n.Status.Addresses, v1.NodeAddress{Type: v1.NodeInternalIP, Address: a})
	}
	return n
}

func TestWhy(t *testing.T) {
	a, err := New(Config{NodeName: "here", Services: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}})
	if err != nil {
		t.Fatal(err)
	}
	added := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "added"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.97.0.0/24", "fd01::/112"}}}
	servers := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "kubernetes"},
		Ports:     []discoveryv1.EndpointPort{{Port: ptr.To[int32](6443)}},
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"192.0.2.1"}}, {Addresses: []string{"192.0.2.9"}}}}
	forged := servers.DeepCopy()
	forged.Namespace = "other"
	forged.Endpoints[0].Addresses[0] = "203.0.113.9"
	for i, changed := range []bool{
		a.setRange(added, true), a.setServers(servers, true), a.setNode(machine("here", "10.244.0.0/24,fd02::/64", "192.0.2.1", "2001:db8::1"), true),
		a.setNode(machine("there", "10.244.1.0/24,fd02:0:0:1::/64", "192.0.2.2"), true),
	} {
		if !changed {
			t.Errorf("change %d is none", i)
		}
	}
	if a.setServers(forged, true) || a.setRange(added, true) || a.setNode(machine("there", "10.244.1.0/24,fd02:0:0:1::/64", "192.0.2.2"), true) {
		t.Error("what is no change is one")
	}
	check := func(want map[string]string) {
		t.Helper()
		for at, want := range want {
			if got := a.Why(netip.MustParseAddrPort(at)); want == "" && got != "" || !strings.Contains(got, want) {
				t.Errorf("%s: %q, want %q", at, got, want)
			}
		}
	}
	check(map[string]string{
		"10.96.0.7:80": "range of the Services'", "[::ffff:10.96.0.7]:80": "range of the Services'", "10.97.0.1:80": "ServiceCIDR added", "[fd01::1]:80": "ServiceCIDR added",
		"10.244.0.1:80": "pods of the node here", "10.244.1.77:80": "pods of the node there", "[fd02:0:0:1::5]:80": "pods of the node there",
		"192.0.2.1:6443": "the API server's", "192.0.2.1:443": "", "192.0.2.1:10250": "the kubelet's", "[2001:db8::1]:10250": "the kubelet's", "[2001:db8::1]:6443": "",
		"192.0.2.9:6443": "the API server's", "192.0.2.9:22": "the API server's",
		"127.0.0.1:80": "no address of one machine", "[::1]:80": "no address", "169.254.169.254:80": "no address", "[fe80::1]:80": "no address", "0.0.0.0:80": "no address", "224.0.0.1:80": "no address",
		"203.0.113.9:443": "", "[2001:db8:9::9]:443": "",
	})
	for ip, want := range map[string]bool{"192.0.2.1": false, "192.0.2.2": true, "::ffff:192.0.2.2": true, "203.0.113.9": false} {
		if got := a.Elsewhere(netip.MustParseAddr(ip)); got != want {
			t.Errorf("%s is elsewhere: %v", ip, got)
		}
	}
	if !a.setRange(added, false) || !a.setServers(servers, false) || !a.setNode(machine("there", "10.244.1.0/24", "192.0.2.2"), false) {
		t.Error("what goes is no change")
	}
	check(map[string]string{"10.97.0.1:80": "", "10.244.1.77:80": "", "192.0.2.1:6443": "", "192.0.2.9:22": "", "10.96.0.7:80": "range of the Services'"})
	if a.Elsewhere(netip.MustParseAddr("192.0.2.2")) || len(a.owners) != 2 {
		t.Errorf("a node that is gone has addresses: %v", a.owners)
	}
	var none *Addresses
	if none.Why(netip.MustParseAddrPort("10.96.0.7:80")) != "" || none.Elsewhere(netip.MustParseAddr("192.0.2.2")) {
		t.Error("there are reserved addresses where none are known")
	}
}
