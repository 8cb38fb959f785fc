package podnet

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
)

// Node holds the fields of a Node that a plan depends on.
type Node struct {
	Name    string
	Created time.Time
	// Ranges are its pods' ranges, Addresses its InternalIPs.
	Ranges    []netip.Prefix
	Addresses []netip.Addr
}

// nodeOf reads a Node. Invalid ranges and addresses are left out.
func nodeOf(o *v1.Node) Node {
	n := Node{Name: o.Name, Created: o.CreationTimestamp.Time, Ranges: Ranges(o)}
	for _, a := range o.Status.Addresses {
		if a.Type != v1.NodeInternalIP {
			continue
		}
		if ip, err := netip.ParseAddr(a.Address); err == nil {
			n.Addresses = append(n.Addresses, ip.Unmap())
		}
	}
	return n
}

// Ranges returns the pods' ranges of a Node.
func Ranges(o *v1.Node) (out []netip.Prefix) {
	for _, s := range o.Spec.PodCIDRs {
		if p, err := netip.ParsePrefix(s); err == nil {
			out = append(out, p.Masked())
		}
	}
	return out
}

// address returns the first address of a family.
func (n *Node) address(four bool) (netip.Addr, bool) {
	i := slices.IndexFunc(n.Addresses, func(a netip.Addr) bool { return a.Is4() == four })
	if i < 0 {
		return netip.Addr{}, false
	}
	return n.Addresses[i], true
}

// Way is the machine's route to an address.
type Way struct {
	// Link is the index of the link that packets leave by, MTU the link's.
	Link, MTU int
	// Direct reports whether the address is on the link's own segment, so that it
	// can be the next hop of other packets.
	Direct bool
	// Local reports whether the address is the machine's own.
	Local bool
}

// State holds the routes and the tunnel by which the machine's pods reach the
// others.
type State struct {
	// Routes lead to the ranges of nodes on the same segment.
	Routes []Route
	// Tunnel leads to the ranges of other nodes; nil without such.
	Tunnel *Tunnel
}

// Route is a route to a range through a neighbour.
type Route struct {
	To   netip.Prefix
	Via  netip.Addr
	Link int
}

// Tunnel is the machine's end of the VXLAN.
type Tunnel struct {
	// Local is the machine's address that packets are sent from, over Link.
	Local netip.Addr
	Link  int
	MAC   [6]byte
	MTU   int
	// Addresses are the link's own, the source addresses of the machine's packets to
	// pods.
	Addresses []netip.Addr
	Ends      []End
}

// End is a node at the other side.
type End struct {
	Node   netip.Addr
	MAC    [6]byte
	Ranges []netip.Prefix
}

// Trouble is a problem with reaching a node.
type Trouble struct {
	Reason string
	Err    error
}

// Reasons of events.
const (
	Overlap     = "PodCIDROverlap"
	Services    = "ServiceCIDROverlap"
	Unreachable = "PodCIDRUnreachable"
	NoIPv6      = "IPv6NotAvailable"
	NoRange     = "PodCIDRNotAssigned"
	Failed      = "FailedToConnectPods"
	Forwarding  = "ForwardingIsDropped"
)

// overhead returns the bytes that VXLAN adds to a packet: the outer IP and UDP
// headers, its own, and the inner Ethernet header.
func overhead(outer netip.Addr) int {
	if outer.Is4() {
		return 50
	}
	return 70
}

// fallbackMTU is the MTU of Ethernet, for links that report none.
const fallbackMTU = 1500

// Plan is the configuration of a machine for its pods' network.
type Plan struct {
	State
	// Own are this node's ranges, All are those of the whole cluster.
	Own, All []netip.Prefix
	// MTU is the largest packet that reaches every pod.
	MTU int
	// Troubles are sorted.
	Troubles []Trouble
}

// MAC returns the hardware address of a node's end of the tunnel: a locally
// administered address.
func MAC(node string) (mac [6]byte) {
	sum := sha256.Sum256([]byte("keelson vxlan " + node))
	copy(mac[:], sum[:])
	mac[0] = mac[0]&^1 | 2
	return mac
}

// plan returns how the machine of the node self reaches the pods of all nodes. way
// returns the machine's route to an address. occupied are the ranges for which the
// machine has other routes, and services those of the Services' addresses. Of overlapping
// ranges, the one of the older Node is used.
func plan(self Node, nodes []Node, occupied, services []netip.Prefix, ipv6 bool, way func(netip.Addr) (Way, error)) Plan {
	var p Plan
	trouble := func(reason, format string, args ...any) {
		p.Troubles = append(p.Troubles, Trouble{reason, fmt.Errorf(format, args...)})
	}
	for _, r := range self.Ranges {
		if r.Addr().Is6() && !ipv6 {
			trouble(NoIPv6, "IPv6 is switched off on this machine, so that pods get no address of %s: set the sysctls net.ipv6.conf.all.disable_ipv6 and net.ipv6.conf.default.disable_ipv6 to 0", r)
			continue
		}
		if i := slices.IndexFunc(occupied, within(r)); i >= 0 {
			trouble(Overlap, "the machine has a route to %s, which is not its pods' and overlaps their range %s: give the cluster another --cluster-cidr, or the machine another network", occupied[i], r)
		}
		p.Own = append(p.Own, r)
	}
	for _, r := range services {
		for _, o := range occupied {
			if within(r)(o) && !o.IsSingleIP() { // a single address may be a Service's, which something on the machine announces
				trouble(Services, "the machine has a route to %s, which overlaps the range %s of the Services' addresses: a machine there is not reached if a Service has its address; give the cluster another --service-cidr, or the machine another network", o, r)
				break
			}
		}
	}
	p.All = slices.Clone(p.Own)
	var local Way
	mtu := 0
	smaller := func(n int) {
		if mtu == 0 || n < mtu {
			mtu = n
		}
	}
	for _, a := range self.Addresses {
		if w, err := way(a); err == nil && w.Link != 0 {
			if local.Link == 0 {
				local = w
			}
			smaller(w.MTU)
		}
	}
	nodes = slices.Clone(nodes)
	slices.SortFunc(nodes, func(a, b Node) int { return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Name, b.Name)) })
	older := func(n *Node) bool {
		return cmp.Or(n.Created.Compare(self.Created), cmp.Compare(n.Name, self.Name)) < 0
	}
	var outer netip.Addr // the address of the machine's end of the tunnel
	if len(self.Addresses) > 0 {
		outer = self.Addresses[0]
	}
	var taken disjoint
	for _, r := range p.Own {
		taken.add(r)
	}
	for i := range nodes {
		n := &nodes[i]
		if n.Name == self.Name {
			continue
		}
		var far []netip.Prefix
		for _, r := range n.Ranges {
			if other, ok := taken.overlapping(r); ok {
				keeps := "not reached"
				if slices.Contains(p.Own, other) && older(n) {
					keeps = "that of the older Node, and not reached from here"
				}
				trouble(Overlap, "the range %s of node %s overlaps %s, which another node has: it is %s; delete one of the Nodes, so that it gets another range", r, n.Name, other, keeps)
				continue
			}
			if j := slices.IndexFunc(append(slices.Clone(self.Addresses), n.Addresses...), r.Contains); j >= 0 {
				trouble(Overlap, "the range %s of node %s has addresses of nodes in it, and is not reached: give another --cluster-cidr", r, n.Name)
				continue
			}
			if j := slices.IndexFunc(occupied, within(r)); j >= 0 {
				trouble(Overlap, "the machine has a route to %s, which is not that of node %s and overlaps its range %s, which is not reached: give the cluster another --cluster-cidr, or the machine another network", occupied[j], n.Name, r)
				continue
			}
			taken.add(r)
			if r.Addr().Is6() && !ipv6 {
				continue
			}
			p.All = append(p.All, r)
			if via, ok := n.address(r.Addr().Is4()); ok {
				w, err := way(via)
				if err == nil && w.Direct {
					p.Routes = append(p.Routes, Route{r, via, w.Link})
					smaller(w.MTU)
					continue
				}
			}
			far = append(far, r)
		}
		if len(far) == 0 {
			continue
		}
		to, ok := n.address(outer.Is4())
		if !ok || !outer.IsValid() {
			trouble(Unreachable, "node %s has no InternalIP of the family of this node's, %s: its pods are not reached", n.Name, outer)
			continue
		}
		w, err := way(to)
		switch {
		case err == nil && w.Local:
			err = errors.New("it is an address of this machine")
		case err == nil && w.Link == 0:
			err = errors.New("there is no route to it")
		}
		if err != nil {
			trouble(Unreachable, "node %s at %s: %w: its pods are not reached until there is a route", n.Name, to, err)
			continue
		}
		if p.Tunnel == nil {
			p.Tunnel = &Tunnel{Local: outer, Link: w.Link, MAC: MAC(self.Name)}
			for _, r := range p.Own {
				p.Tunnel.Addresses = append(p.Tunnel.Addresses, r.Addr())
			}
		}
		p.Tunnel.Ends = append(p.Tunnel.Ends, End{to, MAC(n.Name), far})
		p.Tunnel.MTU = min(cmp.Or(p.Tunnel.MTU, w.MTU), w.MTU)
	}
	if mtu == 0 {
		mtu = fallbackMTU
	}
	if p.Tunnel != nil {
		p.Tunnel.MTU -= overhead(outer)
		smaller(p.Tunnel.MTU)
	}
	p.MTU = mtu
	return p
}

// disjoint holds ranges of which none overlaps another, in order of their addresses.
type disjoint []netip.Prefix

// place returns where a range is, or belongs.
func (d disjoint) place(r netip.Prefix) int {
	i, _ := slices.BinarySearchFunc(d, r, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	return i
}

// overlapping returns the first one that overlaps r: it begins no later than any
// other after r's beginning, or is the last before that.
func (d disjoint) overlapping(r netip.Prefix) (netip.Prefix, bool) {
	i := d.place(r)
	for _, o := range d[max(0, i-1):min(len(d), i+1)] {
		if o.Overlaps(r) {
			return o, true
		}
	}
	return netip.Prefix{}, false
}

func (d *disjoint) add(r netip.Prefix) { *d = slices.Insert(*d, d.place(r), r) }

// within returns a function that reports whether a route to a range takes packets from
// r: a wider one does not, since the kernel prefers the narrowest.
func within(r netip.Prefix) func(netip.Prefix) bool {
	return func(o netip.Prefix) bool { return o.Bits() >= r.Bits() && r.Contains(o.Addr()) }
}
