package serviceip

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/utils/ptr"
)

var (
	ipv4     = []v1.IPFamily{v1.IPv4Protocol}
	fourSix  = []v1.IPFamily{v1.IPv4Protocol, v1.IPv6Protocol}
	sixFour  = []v1.IPFamily{v1.IPv6Protocol, v1.IPv4Protocol}
	ipv6     = []v1.IPFamily{v1.IPv6Protocol}
	bothCIDR = []string{"10.0.0.0/24", "fd00::/112"}
)

// TestFamilies has Services ask for families in all ways, of clusters of one and two.
func TestFamilies(t *testing.T) {
	const single, prefer, require = v1.IPFamilyPolicySingleStack, v1.IPFamilyPolicyPreferDualStack, v1.IPFamilyPolicyRequireDualStack
	spec := func(policy v1.IPFamilyPolicy, families []v1.IPFamily, ips ...string) v1.ServiceSpec {
		s := v1.ServiceSpec{Type: v1.ServiceTypeClusterIP, IPFamilies: slices.Clone(families), ClusterIPs: ips, Selector: map[string]string{"a": "b"}, Ports: []v1.ServicePort{{Port: 80}}}
		if policy != "" {
			s.IPFamilyPolicy = ptr.To(policy)
		}
		if len(ips) > 0 {
			s.ClusterIP = ips[0]
		}
		return s
	}
	bare := func(s v1.ServiceSpec) v1.ServiceSpec { s.Selector = nil; return s }
	for _, c := range []struct {
		name     string
		clusters []v1.IPFamily
		old      *v1.ServiceSpec
		spec     v1.ServiceSpec
		families []v1.IPFamily
		policy   v1.IPFamilyPolicy
		ips      string // the beginnings of the addresses
		err      string
	}{
		{name: "says nothing", clusters: fourSix, spec: spec("", nil), families: ipv4, policy: single, ips: "10.0.0."},
		{name: "the other is first", clusters: sixFour, spec: spec("", nil), families: ipv6, policy: single, ips: "fd00::"},
		{name: "the second family alone", clusters: fourSix, spec: spec("", ipv6), families: ipv6, policy: single, ips: "fd00::"},
		{name: "prefers both", clusters: fourSix, spec: spec(prefer, nil), families: fourSix, policy: prefer, ips: "10.0.0. fd00::"},
		{name: "prefers both, there is one", clusters: ipv4, spec: spec(prefer, nil), families: ipv4, policy: prefer, ips: "10.0.0."},
		{name: "requires both, IPv6 first", clusters: fourSix, spec: spec(require, ipv6), families: sixFour, policy: require, ips: "fd00:: 10.0.0."},
		{name: "requires both, there is one", clusters: ipv4, spec: spec(require, nil), err: "this cluster is not configured for dual-stack services"},
		{name: "a family that there is not", clusters: ipv4, spec: spec("", ipv6), err: "not configured on this cluster"},
		{name: "two families, no policy", clusters: fourSix, spec: spec("", fourSix), err: "must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified"},
		{name: "two addresses, one family's policy", clusters: fourSix, spec: spec(single, nil, "10.0.0.9", "fd00::9"), err: "must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs are specified"},
		{name: "by its addresses", clusters: fourSix, spec: spec(require, nil, "fd00::9", "10.0.0.9"), families: sixFour, policy: require, ips: "fd00::9 10.0.0.9"},
		{name: "by one address", clusters: fourSix, spec: spec(prefer, nil, "fd00::9"), families: sixFour, policy: prefer, ips: "fd00::9 10.0.0."},
		{name: "an address of a family that there is not", clusters: ipv4, spec: spec("", nil, "fd00::9"), err: "IPv6 is not configured on this cluster"},
		{name: "an address out of the range", clusters: fourSix, spec: spec(require, nil, "10.0.0.9", "fd01::9"), err: "failed to allocate IP fd01::9: the provided network does not match the current range"},
		{name: "headless", clusters: fourSix, spec: spec("", nil, "None"), families: ipv4, policy: single, ips: "None"},
		{name: "headless, both", clusters: fourSix, spec: spec(prefer, nil, "None"), families: fourSix, policy: prefer, ips: "None"},
		{name: "headless without a selector", clusters: ipv4, spec: bare(spec("", nil, "None")), families: fourSix, policy: require, ips: "None"},
		{name: "gets the second", clusters: fourSix, old: ptr.To(spec(single, ipv4, "10.0.0.7")), spec: spec(prefer, ipv4, "10.0.0.7"), families: fourSix, policy: prefer, ips: "10.0.0.7 fd00::"},
		{name: "gives the second up", clusters: fourSix, old: ptr.To(spec(require, fourSix, "10.0.0.7", "fd00::7")), spec: spec(single, fourSix, "10.0.0.7", "fd00::7"), families: ipv4, policy: single, ips: "10.0.0.7"},
		{name: "gives the second address up without a policy", clusters: fourSix, old: ptr.To(spec(require, fourSix, "10.0.0.7", "fd00::7")), spec: spec("", fourSix, "10.0.0.7"), err: "must be 'SingleStack' to release the secondary cluster IP"},
		{name: "preferred both before there were two", clusters: fourSix, old: ptr.To(spec(prefer, ipv4, "10.0.0.7")), spec: spec(prefer, ipv4, "10.0.0.7"), families: ipv4, policy: prefer, ips: "10.0.0.7"},
		{name: "was a name", clusters: fourSix, old: &v1.ServiceSpec{Type: v1.ServiceTypeExternalName}, spec: spec("", nil), families: ipv4, policy: single, ips: "10.0.0."},
	} {
		o := newObjects(bothCIDR...)
		a := New(o, c.clusters, 30000, 30010, nil)
		s := &v1.Service{Spec: c.spec}
		s.Name = "s"
		var old *v1.Service
		if c.old != nil {
			old = &v1.Service{Spec: *c.old}
			old.Name = "s"
			for _, ip := range addresses(old) {
				if err := o.Create(t.Context(), newAddress(ip, old)); err != nil {
					t.Fatal(err)
				}
			}
		}
		var done func(bool)
		var err error
		if old == nil {
			done, err = a.Reserve(t.Context(), s, nil, false)
		} else {
			done, err = a.Reserve(t.Context(), s, old, false)
		}
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v, want %q", c.name, err, c.err)
			}
			if held := len(o.held) - len(addresses(old)); held != 0 {
				t.Errorf("%s: %d addresses are held after the failure", c.name, held)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		done(true)
		if !slices.Equal(s.Spec.IPFamilies, c.families) || *s.Spec.IPFamilyPolicy != c.policy {
			t.Errorf("%s: %v, %s; want %v, %s", c.name, s.Spec.IPFamilies, *s.Spec.IPFamilyPolicy, c.families, c.policy)
		}
		want := strings.Fields(c.ips)
		if len(want) != len(s.Spec.ClusterIPs) || s.Spec.ClusterIP != s.Spec.ClusterIPs[0] {
			t.Errorf("%s: the addresses are %v, want %s", c.name, s.Spec.ClusterIPs, c.ips)
			continue
		}
		for i, ip := range s.Spec.ClusterIPs {
			if !strings.HasPrefix(ip, want[i]) {
				t.Errorf("%s: the addresses are %v, want %s", c.name, s.Spec.ClusterIPs, c.ips)
			}
		}
		if len(o.held) != len(addresses(s)) {
			t.Errorf("%s: %d are held, the Service has %v", c.name, len(o.held), s.Spec.ClusterIPs)
		}
		for _, ip := range addresses(s) {
			if h := o.held[ip.String()]; h == nil || h.Labels[networkingv1.LabelIPAddressFamily] != string(familyOf(ip)) {
				t.Errorf("%s: %s is held as %v", c.name, ip, h)
			}
		}
	}
}

// TestBlocks checks the ends of ranges: no network's address, no broadcast.
func TestBlocks(t *testing.T) {
	for _, c := range []struct {
		cidr        string
		first, last string // none where empty
		out         []string
	}{
		{"10.0.0.0/24", "10.0.0.1", "10.0.0.254", []string{"10.0.0.0", "10.0.0.255", "fd00::1"}},
		{"10.0.0.8/30", "10.0.0.9", "10.0.0.10", []string{"10.0.0.8", "10.0.0.11"}},
		{"10.0.0.1/32", "", "", []string{"10.0.0.1"}},
		{"fd00::/120", "fd00::1", "fd00::ff", []string{"fd00::", "fd00::100"}},
		{"fd00:0:0:5::/64", "fd00:0:0:5::1", "fd00::5:3fff:ffff:ffff:ffff", []string{"fd00:0:0:5::"}},
		{"fd00::/48", "fd00::1", "fd00::3fff:ffff:ffff:ffff", nil},
	} {
		b := block{netip.MustParsePrefix(c.cidr)}
		bands := b.bands()
		if c.first == "" {
			if bands[0][0] < bands[0][1] {
				t.Errorf("%s gives out %v", c.cidr, bands)
			}
		} else if first, last := b.at(bands[1][0]), b.at(bands[0][1]-1); first.String() != c.first || last.String() != c.last || !b.has(first) || !b.has(last) {
			t.Errorf("%s: %s to %s, want %s to %s", c.cidr, first, last, c.first, c.last)
		}
		for _, ip := range c.out {
			if b.has(netip.MustParseAddr(ip)) {
				t.Errorf("%s has %s", c.cidr, ip)
			}
		}
	}
}
