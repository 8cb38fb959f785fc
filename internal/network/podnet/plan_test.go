package podnet

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// machineWays returns the ways of a machine with 192.0.2.1/24 and 2001:db8::1/64 on
// link 2 and a default route.
func machineWays(a netip.Addr) (Way, error) {
	switch {
	case a == netip.MustParseAddr("192.0.2.1") || a == netip.MustParseAddr("2001:db8::1"):
		return Way{Link: 2, MTU: 1500, Local: true}, nil
	case netip.MustParsePrefix("192.0.2.0/24").Contains(a), netip.MustParsePrefix("2001:db8::/64").Contains(a):
		return Way{Link: 2, MTU: 1500, Direct: true}, nil
	case netip.MustParsePrefix("203.0.113.0/24").Contains(a):
		return Way{}, errors.New("there is no route to it")
	}
	return Way{Link: 2, MTU: 1500}, nil
}

func node(name string, age int, words ...string) Node {
	n := Node{Name: name, Created: time.Unix(1000, 0).Add(time.Duration(age) * time.Second)}
	for _, w := range words {
		if p, err := netip.ParsePrefix(w); err == nil {
			n.Ranges = append(n.Ranges, p)
		} else {
			n.Addresses = append(n.Addresses, netip.MustParseAddr(w))
		}
	}
	return n
}

// text formats a plan, one word for each part.
func text(p Plan) (out []string) {
	for _, r := range p.Routes {
		out = append(out, fmt.Sprintf("%s>%s/%d", r.To, r.Via, r.Link))
	}
	if t := p.Tunnel; t != nil {
		out = append(out, fmt.Sprintf("tunnel:%s/%d,mtu=%d,%v", t.Local, t.Link, t.MTU, t.Addresses))
		for _, e := range t.Ends {
			out = append(out, fmt.Sprintf("%v>>%s", e.Ranges, e.Node))
		}
	}
	return append(out, fmt.Sprint("mtu=", p.MTU), fmt.Sprint("all=", len(p.All)))
}

func TestPlan(t *testing.T) {
	self := node("self", 5, "10.0.0.0/24", "192.0.2.1")
	dual := node("self", 5, "10.0.0.0/24", "fd00::/64", "192.0.2.1", "2001:db8::1")
	for _, c := range []struct {
		name     string
		self     Node
		nodes    []Node
		occupied string
		noIPv6   bool
		want     []string
		troubles []string
	}{
		{name: "alone", self: self, want: []string{"mtu=1500", "all=1"}},
		{name: "a neighbour", self: self, nodes: []Node{self, node("a", 1, "10.0.1.0/24", "192.0.2.2")},
			want: []string{"10.0.1.0/24>192.0.2.2/2", "mtu=1500", "all=2"}},
		{name: "behind a router", self: self, nodes: []Node{node("a", 1, "10.0.1.0/24", "192.0.2.2"), node("b", 2, "10.0.2.0/24", "198.51.100.2")},
			want: []string{"10.0.1.0/24>192.0.2.2/2", "tunnel:192.0.2.1/2,mtu=1450,[10.0.0.0]", "[10.0.2.0/24]>>198.51.100.2", "mtu=1450", "all=3"}},
		{name: "dual stack", self: dual, nodes: []Node{node("a", 1, "10.0.1.0/24", "fd00:0:0:1::/64", "192.0.2.2", "2001:db8::2"), node("b", 2, "10.0.2.0/24", "fd00:0:0:2::/64", "198.51.100.2")},
			want: []string{"10.0.1.0/24>192.0.2.2/2", "fd00:0:0:1::/64>2001:db8::2/2", "tunnel:192.0.2.1/2,mtu=1450,[10.0.0.0 fd00::]",
				"[10.0.2.0/24 fd00:0:0:2::/64]>>198.51.100.2", "mtu=1450", "all=6"}},
		{name: "a neighbour of one family", self: dual, nodes: []Node{node("a", 1, "10.0.1.0/24", "fd00:0:0:1::/64", "192.0.2.2")},
			want: []string{"10.0.1.0/24>192.0.2.2/2", "tunnel:192.0.2.1/2,mtu=1450,[10.0.0.0 fd00::]", "[fd00:0:0:1::/64]>>192.0.2.2", "mtu=1450", "all=4"}},
		{name: "over IPv6", self: node("self", 5, "fd00::/64", "2001:db8::1"), nodes: []Node{node("b", 2, "fd00:0:0:2::/64", "2001:db8:1::2")},
			want: []string{"tunnel:2001:db8::1/2,mtu=1430,[fd00::]", "[fd00:0:0:2::/64]>>2001:db8:1::2", "mtu=1430", "all=2"}},
		{name: "without IPv6", self: dual, noIPv6: true, nodes: []Node{node("a", 1, "10.0.1.0/24", "fd00:0:0:1::/64", "192.0.2.2")},
			want: []string{"10.0.1.0/24>192.0.2.2/2", "mtu=1500", "all=2"}, troubles: []string{"IPv6NotAvailable IPv6 is switched off"}},
		{name: "a range of another node", self: self, nodes: []Node{node("a", 1, "10.0.0.0/16", "192.0.2.2"), node("b", 2, "10.0.1.0/24", "192.0.2.3")},
			want: []string{"10.0.1.0/24>192.0.2.3/2", "mtu=1500", "all=2"}, troubles: []string{"PodCIDROverlap the range 10.0.0.0/16 of node a overlaps 10.0.0.0/24"}},
		{name: "of two others", self: self, nodes: []Node{node("young", 3, "10.0.1.0/25", "192.0.2.2"), node("old", 2, "10.0.1.0/24", "192.0.2.3")},
			want: []string{"10.0.1.0/24>192.0.2.3/2", "mtu=1500", "all=2"}, troubles: []string{"PodCIDROverlap the range 10.0.1.0/25 of node young"}},
		{name: "a range of the nodes", self: self, nodes: []Node{node("a", 1, "192.0.0.0/16", "192.0.2.2")},
			want: []string{"mtu=1500", "all=1"}, troubles: []string{"PodCIDROverlap the range 192.0.0.0/16 of node a has addresses of nodes"}},
		{name: "a network of the machine", self: self, occupied: "10.0.0.0/25", nodes: []Node{node("a", 1, "10.0.1.0/24", "192.0.2.2")},
			want: []string{"10.0.1.0/24>192.0.2.2/2", "mtu=1500", "all=2"}, troubles: []string{"PodCIDROverlap the machine has a route to 10.0.0.0/25"}},
		{name: "a network of the machine in another's", self: self, occupied: "10.0.1.128/25", nodes: []Node{node("a", 1, "10.0.1.0/24", "192.0.2.2")},
			want: []string{"mtu=1500", "all=1"}, troubles: []string{"PodCIDROverlap the machine has a route to 10.0.1.128/25"}},
		{name: "a network of the machine in the Services' range", self: self, occupied: "10.96.7.0/24", nodes: []Node{node("a", 1, "10.0.1.0/24", "192.0.2.2")},
			want: []string{"10.0.1.0/24>192.0.2.2/2", "mtu=1500", "all=2"}, troubles: []string{"ServiceCIDROverlap the machine has a route to 10.96.7.0/24, which overlaps the range 10.96.0.0/16"}},
		{name: "an address of a Service", self: self, occupied: "10.96.0.10/32", nodes: []Node{node("a", 1, "10.0.1.0/24", "192.0.2.2")},
			want: []string{"10.0.1.0/24>192.0.2.2/2", "mtu=1500", "all=2"}},
		{name: "a wider network of the machine", self: self, occupied: "10.0.0.0/8", nodes: []Node{node("a", 1, "10.0.1.0/24", "192.0.2.2")},
			want: []string{"10.0.1.0/24>192.0.2.2/2", "mtu=1500", "all=2"}},
		{name: "no address", self: self, nodes: []Node{node("a", 1, "10.0.1.0/24")},
			want: []string{"mtu=1500", "all=2"}, troubles: []string{"PodCIDRUnreachable node a has no InternalIP"}},
		{name: "no route", self: self, nodes: []Node{node("a", 1, "10.0.1.0/24", "203.0.113.9")},
			want: []string{"mtu=1500", "all=2"}, troubles: []string{"PodCIDRUnreachable node a at 203.0.113.9: there is no route"}},
		{name: "the machine's address", self: self, nodes: []Node{node("a", 1, "10.0.1.0/24", "192.0.2.1")},
			want: []string{"mtu=1500", "all=2"}, troubles: []string{"PodCIDRUnreachable node a at 192.0.2.1: it is an address of this machine"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var occupied []netip.Prefix
			if c.occupied != "" {
				occupied = append(occupied, netip.MustParsePrefix(c.occupied))
			}
			p := plan(c.self, c.nodes, occupied, []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}, !c.noIPv6, machineWays)
			if got := text(p); !slices.Equal(got, c.want) {
				t.Errorf("\n%q, want\n%q", got, c.want)
			}
			for i, x := range p.Troubles {
				if got := x.Reason + " " + x.Err.Error(); i >= len(c.troubles) || !strings.HasPrefix(got, c.troubles[i]) {
					t.Errorf("trouble: %s", got)
				}
			}
			if len(p.Troubles) != len(c.troubles) {
				t.Errorf("%d troubles, want %q", len(p.Troubles), c.troubles)
			}
		})
	}
}

func TestMAC(t *testing.T) {
	seen := map[[6]byte]string{}
	for i := range 10_000 {
		name := fmt.Sprint("node-", i)
		m := MAC(name)
		if m[0]&3 != 2 {
			t.Fatalf("%s: %x is no locally administered address of one station", name, m)
		}
		if other, ok := seen[m]; ok {
			t.Fatalf("%s and %s have the same", name, other)
		}
		seen[m] = name
	}
}
