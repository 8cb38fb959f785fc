package podnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Link is the machine's end of the tunnel.
const Link = "keelson-vxlan"

// vni and port are the network identifier and the port of the tunnel. The port is
// the kernel's traditional default, which firewalls of clusters open for other
// overlays, too.
const vni, port = 0x4b5353, 8472

// protocol marks the routes of this package (rtnetlink(7), rtm_protocol).
const protocol netlink.RouteProtocol = 0x4b

// Netlink returns the network of this process's namespace. pods is the name of the link
// of the machine's pods, which is never the way to another node.
func Netlink(pods string) Kernel { return &kernel{pods: pods} }

type kernel struct {
	pods string
	// socket is the one for requests, opened by the first.
	socket *netlink.Handle
	// generation is the generation of nftables at which all firewalls were found to
	// let pods through; dropped is the reason why one does not.
	generation uint32
	dropped    error
	// bridge is the index that the pods' link was last found at by the one that follows
	// changes.
	bridge int
}

// requests returns what requests to the kernel are sent by.
func (k *kernel) requests() (*netlink.Handle, error) {
	if k.socket == nil {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return nil, fmt.Errorf("asking the kernel about the machine's network: %w", err)
		}
		k.socket = h
	}
	return k.socket, nil
}

func ip(a netip.Addr) net.IP { return a.AsSlice() }

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), ones), ok
}

// Way implements Kernel.
func (k *kernel) Way(a netip.Addr) (Way, error) {
	h, err := k.requests()
	if err != nil {
		return Way{}, err
	}
	routes, err := h.RouteGet(ip(a))
	if errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) || err == nil && len(routes) == 0 {
		return Way{}, errors.New("there is no route to it")
	}
	if err != nil {
		return Way{}, fmt.Errorf("the route to %s: %w", a, err)
	}
	r := routes[0]
	if r.Type == unix.RTN_LOCAL {
		return k.own(a)
	}
	l, err := h.LinkByIndex(r.LinkIndex)
	if err != nil {
		return Way{}, fmt.Errorf("the route to %s: %w", a, err)
	}
	attrs := l.Attrs()
	if attrs.Name == k.pods || attrs.Name == Link {
		return Way{}, fmt.Errorf("its route is that of the pods, over %s", attrs.Name)
	}
	// On links without hardware addresses (tunnels, WireGuard) a next hop has no
	// effect: packets are delivered by their own destination.
	segment := attrs.EncapType == "ether" && attrs.RawFlags&unix.IFF_NOARP == 0 && attrs.RawFlags&unix.IFF_BROADCAST != 0
	return Way{Link: attrs.Index, MTU: attrs.MTU, Direct: len(r.Gw) == 0 && r.Via == nil && segment}, nil
}

// own returns the way of one of the machine's addresses: the link that has it.
func (k *kernel) own(a netip.Addr) (Way, error) {
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return Way{}, err
	}
	for _, x := range addrs {
		if !x.IP.Equal(ip(a)) {
			continue
		}
		l, err := netlink.LinkByIndex(x.LinkIndex)
		if err != nil {
			return Way{}, err
		}
		if l.Attrs().Flags&net.FlagLoopback == 0 {
			return Way{Link: x.LinkIndex, MTU: l.Attrs().MTU, Local: true}, nil
		}
	}
	return Way{Local: true}, nil
}

// IPv6 implements Kernel.
func (k *kernel) IPv6() bool {
	b, err := os.ReadFile("/proc/sys/net/ipv6/conf/all/disable_ipv6")
	return err == nil && strings.TrimSpace(string(b)) == "0"
}

// Occupied implements Kernel.
func (k *kernel) Occupied() ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netlink.RouteList(nil, family)
		if err != nil {
			if family == netlink.FAMILY_V6 && !k.IPv6() {
				continue
			}
			return nil, fmt.Errorf("the routes: %w", err)
		}
		for _, r := range routes {
			p, ok := prefixOf(r.Dst)
			if !ok || p.Bits() == 0 || r.Protocol == protocol || p.Addr().IsLinkLocalUnicast() || p.Addr().IsMulticast() {
				continue
			}
			if l, err := netlink.LinkByIndex(r.LinkIndex); err == nil && (l.Attrs().Name == k.pods || l.Attrs().Name == Link) {
				continue
			}
			out = append(out, p.Masked())
		}
	}
	return out, nil
}

// Apply implements Kernel.
func (k *kernel) Apply(s State) error {
	tunnel, err := k.tunnel(s.Tunnel)
	if err != nil {
		return err
	}
	want := map[netip.Prefix]netlink.Route{}
	for _, r := range s.Routes {
		want[r.To] = netlink.Route{Dst: ipNet(r.To), Gw: ip(r.Via), LinkIndex: r.Link, Protocol: protocol}
	}
	if s.Tunnel != nil {
		for _, e := range s.Tunnel.Ends {
			for _, r := range e.Ranges {
				// The next hop is an address that only identifies the other end.
				want[r] = netlink.Route{Dst: ipNet(r), Gw: ip(r.Addr()), LinkIndex: tunnel, Protocol: protocol, Flags: int(netlink.FLAG_ONLINK)}
			}
		}
	}
	have, err := k.routes()
	if err != nil {
		return err
	}
	h, err := k.requests()
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range have {
		p, _ := prefixOf(r.Dst)
		w, ok := want[p]
		if ok && w.LinkIndex == r.LinkIndex && w.Gw.Equal(r.Gw) {
			delete(want, p)
		} else if !ok {
			if err := h.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
				errs = append(errs, fmt.Errorf("the route to %s that is no more: %w", p, err))
			}
		}
	}
	for p, r := range want {
		if err := h.RouteReplace(&r); err != nil {
			errs = append(errs, fmt.Errorf("a route to %s over %s: %w", p, r.Gw, err))
		}
	}
	return errors.Join(errs...)
}

// routes returns the routes made by this package.
func (k *kernel) routes() ([]netlink.Route, error) {
	var out []netlink.Route
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netlink.RouteListFiltered(family, &netlink.Route{Protocol: protocol}, netlink.RT_FILTER_PROTOCOL)
		if err != nil && (family == netlink.FAMILY_V4 || k.IPv6()) {
			return nil, fmt.Errorf("the routes: %w", err)
		}
		out = append(out, routes...)
	}
	return out, nil
}

// tunnel adds the tunnel, or replaces it if its settings differ, and returns the
// index of its link.
func (k *kernel) tunnel(t *Tunnel) (int, error) {
	l, err := netlink.LinkByName(Link)
	switch {
	case errors.As(err, &netlink.LinkNotFoundError{}):
		l = nil
	case err != nil:
		return 0, fmt.Errorf("link %s: %w", Link, err)
	}
	if l != nil {
		x, ok := l.(*netlink.Vxlan)
		if t == nil || !ok || x.VxlanId != vni || x.Port != port || x.VtepDevIndex != t.Link || !x.SrcAddr.Equal(ip(t.Local)) || x.Learning {
			if err := netlink.LinkDel(l); err != nil {
				return 0, fmt.Errorf("link %s: %w", Link, err)
			}
			l = nil
		}
	}
	if t == nil {
		return 0, nil
	}
	if l == nil {
		made := &netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: Link, MTU: t.MTU, HardwareAddr: t.MAC[:]}, VxlanId: vni, Port: port, VtepDevIndex: t.Link, SrcAddr: ip(t.Local)}
		if t.Local.Is6() {
			made.UDP6ZeroCSumRx = false
		}
		if err := netlink.LinkAdd(made); err != nil {
			if errors.Is(err, unix.EOPNOTSUPP) {
				return 0, errors.New("the kernel has no VXLAN, by which nodes of other networks are reached: load the module vxlan, or connect the nodes by one segment")
			}
			return 0, fmt.Errorf("making link %s: %w", Link, err)
		}
		if l, err = netlink.LinkByName(Link); err != nil {
			return 0, fmt.Errorf("link %s: %w", Link, err)
		}
		// The kernel must not configure addresses of this link by itself.
		_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+Link+"/accept_ra", []byte("0"), 0o644)
	}
	if l.Attrs().MTU != t.MTU {
		if err := netlink.LinkSetMTU(l, t.MTU); err != nil {
			return 0, fmt.Errorf("link %s: an MTU of %d: %w", Link, t.MTU, err)
		}
	}
	if !slices.Equal(l.Attrs().HardwareAddr, t.MAC[:]) {
		if err := netlink.LinkSetHardwareAddr(l, t.MAC[:]); err != nil {
			return 0, fmt.Errorf("link %s: %w", Link, err)
		}
	}
	if err := netlink.LinkSetUp(l); err != nil {
		if errors.Is(err, unix.EADDRINUSE) {
			return 0, fmt.Errorf("link %s: UDP port %d is in use: stop the program that uses it", Link, port)
		}
		return 0, fmt.Errorf("link %s: %w", Link, err)
	}
	return l.Attrs().Index, errors.Join(k.addresses(l, t), k.neighbours(l, t))
}

func (k *kernel) addresses(l netlink.Link, t *Tunnel) error {
	have, err := netlink.AddrList(l, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("addresses of link %s: %w", Link, err)
	}
	var errs []error
	for _, a := range t.Addresses {
		x := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(a, a.BitLen())), Flags: unix.IFA_F_NODAD}
		if !slices.ContainsFunc(have, func(h netlink.Addr) bool { return h.IP.Equal(x.IP) }) {
			errs = append(errs, netlink.AddrReplace(l, x))
		}
	}
	for _, h := range have {
		if !h.IP.IsLinkLocalUnicast() && !slices.ContainsFunc(t.Addresses, func(a netip.Addr) bool { return h.IP.Equal(ip(a)) }) {
			errs = append(errs, netlink.AddrDel(l, &h))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("addresses of link %s: %w", Link, err)
	}
	return nil
}

// neighbours writes the neighbour and forwarding entries of the tunnel's ends:
// the hardware address of each next hop, and the node's address behind it.
func (k *kernel) neighbours(l netlink.Link, t *Tunnel) error {
	index := l.Attrs().Index
	type key struct {
		bridge bool
		mac    [6]byte
		ip     string
	}
	want := map[key]netlink.Neigh{}
	for _, e := range t.Ends {
		want[key{true, e.MAC, e.Node.String()}] = netlink.Neigh{LinkIndex: index, Family: unix.AF_BRIDGE, State: netlink.NUD_PERMANENT | netlink.NUD_NOARP,
			Flags: netlink.NTF_SELF, IP: ip(e.Node), HardwareAddr: e.MAC[:]}
		for _, r := range e.Ranges {
			family := netlink.FAMILY_V4
			if r.Addr().Is6() {
				family = netlink.FAMILY_V6
			}
			want[key{false, e.MAC, r.Addr().String()}] = netlink.Neigh{LinkIndex: index, Family: family, State: netlink.NUD_PERMANENT, IP: ip(r.Addr()), HardwareAddr: e.MAC[:]}
		}
	}
	requests, err := k.requests()
	if err != nil {
		return err
	}
	var errs []error
	var stale []netlink.Neigh
	for _, family := range []int{unix.AF_BRIDGE, netlink.FAMILY_V4, netlink.FAMILY_V6} {
		have, err := requests.NeighList(index, family)
		if err != nil {
			if family == netlink.FAMILY_V6 && !k.IPv6() {
				continue
			}
			return fmt.Errorf("neighbours of link %s: %w", Link, err)
		}
		for _, h := range have {
			a, _ := netip.AddrFromSlice(h.IP)
			var mac [6]byte
			copy(mac[:], h.HardwareAddr)
			x := key{family == unix.AF_BRIDGE, mac, a.Unmap().String()}
			if _, ok := want[x]; ok && h.State&netlink.NUD_PERMANENT != 0 {
				delete(want, x)
			} else if h.State&netlink.NUD_PERMANENT != 0 {
				stale = append(stale, h)
			}
		}
	}
	for _, h := range stale {
		if err := requests.NeighDel(&h); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, err)
		}
	}
	for _, n := range want {
		errs = append(errs, requests.NeighSet(&n))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("neighbours of link %s: %w", Link, err)
	}
	return nil
}

// Changes implements Kernel.
func (k *kernel) Changes(ctx context.Context) (<-chan struct{}, error) {
	links, addrs, routes := make(chan netlink.LinkUpdate), make(chan netlink.AddrUpdate), make(chan netlink.RouteUpdate)
	out := make(chan struct{}, 1)
	done := ctx.Done()
	// Lost messages count as a change.
	tell := func() {
		select {
		case out <- struct{}{}:
		default:
		}
	}
	failed := func(error) { tell() }
	if err := errors.Join(
		netlink.LinkSubscribeWithOptions(links, done, netlink.LinkSubscribeOptions{ErrorCallback: failed}),
		netlink.AddrSubscribeWithOptions(addrs, done, netlink.AddrSubscribeOptions{ErrorCallback: failed}),
		netlink.RouteSubscribeWithOptions(routes, done, netlink.RouteSubscribeOptions{ErrorCallback: failed})); err != nil {
		return nil, fmt.Errorf("changes of the machine's network: %w", err)
	}
	go func() {
		known := map[int]look{}
		for links != nil || addrs != nil || routes != nil {
			select {
			case u, ok := <-links:
				if !ok {
					links = nil
					continue
				}
				a := u.Attrs()
				now, was := look{a.Name, a.MTU, a.RawFlags, a.EncapType}, known[a.Index]
				if u.Header.Type == unix.RTM_DELLINK {
					delete(known, a.Index)
				} else if known[a.Index] = now; now == was {
					continue // what pods' links do to the bridge that they are ports of
				}
				if !k.ofPods(a) {
					tell()
				}
			case u, ok := <-addrs:
				if !ok {
					addrs = nil
				} else if !u.LinkAddress.IP.IsLinkLocalUnicast() { // each link of a pod has one
					tell()
				}
			case u, ok := <-routes:
				if !ok {
					routes = nil
				} else if own := u.Type == unix.RTM_NEWROUTE && u.Protocol == protocol; !own && !local(u.Dst) {
					tell()
				}
			}
		}
	}()
	return out, nil
}

// local reports whether the destination of a route is that of packets that stay on their
// link: each link of a pod has such routes.
func local(to *net.IPNet) bool {
	return to != nil && (to.IP.IsLinkLocalUnicast() || to.IP.IsMulticast())
}

// look is what a Way depends on of a link.
type look struct {
	name  string
	mtu   int
	flags uint32
	encap string
}

// ofPods reports whether a link is a port of the pods' bridge.
func (k *kernel) ofPods(a *netlink.LinkAttrs) bool {
	if a.MasterIndex == 0 || a.MasterIndex == k.bridge {
		return a.MasterIndex != 0
	}
	b, err := netlink.LinkByIndex(a.MasterIndex)
	if err != nil || b.Attrs().Name != k.pods {
		return false
	}
	k.bridge = a.MasterIndex
	return true
}

// Remove removes what the Network with that link of pods has made: the tunnel, the
// routes, and the rules in firewalls.
func Remove(pods string) error {
	k := &kernel{pods: pods}
	return errors.Join(k.Apply(State{}), k.unaccept())
}
