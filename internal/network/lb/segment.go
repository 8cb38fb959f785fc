package lb

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/ndp"
	"github.com/vishvananda/netlink"
	"golang.org/x/net/ipv6"
)

// NewSegments returns the Ethernet networks of this process's network namespace. An
// address belongs to the network of the interface whose prefix contains it, else to
// that of the default route.
func NewSegments() Segments { return &segments{at: map[segmentKey]*segment{}} }

type segments struct {
	mu sync.Mutex
	at map[segmentKey]*segment
}

// segmentKey identifies an interface with its present hardware address: one that
// gets another is a new segment.
type segmentKey struct {
	index    int
	hardware string
	four     bool
}

// Answer implements Segments.
func (s *segments) Answer(addrs []netip.Addr) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	want := map[segmentKey][]netip.Addr{}
	links := map[segmentKey]net.Interface{}
	var errs []error
	if len(addrs) > 0 {
		all, err := ethernets()
		if err != nil {
			return err
		}
		for _, a := range addrs {
			on, err := all.of(a)
			if err != nil {
				errs = append(errs, err)
			}
			for _, l := range on {
				k := segmentKey{l.Index, l.HardwareAddr.String(), a.Is4()}
				want[k], links[k] = append(want[k], a), l
			}
		}
	}
	for k, seg := range s.at {
		if _, still := want[k]; !still {
			seg.close()
			delete(s.at, k)
		}
	}
	for k, addrs := range want {
		seg := s.at[k]
		if seg != nil && seg.ended() {
			seg.close() // the socket has failed, for instance because the interface was down
			seg = nil
		}
		if seg == nil {
			link := links[k]
			var err error
			if seg, err = listen(&link, k.four); err != nil {
				delete(s.at, k)
				errs = append(errs, fmt.Errorf("interface %s: %w", link.Name, err))
				continue
			}
			s.at[k] = seg
		}
		if err := seg.answer(addrs); err != nil {
			errs = append(errs, fmt.Errorf("interface %s: %w", links[k].Name, err))
		}
	}
	return errors.Join(errs...)
}

// Tell implements Segments.
func (s *segments) Tell(addrs []netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, seg := range s.at {
		for _, a := range addrs {
			if seg.has(a) {
				_ = seg.tell(a) // an earlier announcement succeeded; this one repeats it
			}
		}
	}
}

// Close implements Segments.
func (s *segments) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, seg := range s.at {
		seg.close()
		delete(s.at, k)
	}
}

// link is a network interface with its addresses.
type link struct {
	net.Interface
	prefixes []netip.Prefix
}

type links []link

// ethernets returns the Ethernet interfaces that are up.
func ethernets() (out links, err error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("the machine's interfaces: %w", err)
	}
	for _, i := range all {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0 || i.Flags&net.FlagBroadcast == 0 || len(i.HardwareAddr) != 6 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue // it has gone meanwhile
		}
		l := link{Interface: i}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				l.prefixes = append(l.prefixes, p)
			}
		}
		out = append(out, l)
	}
	return out, nil
}

// of returns the interfaces on whose network the address is.
func (all links) of(a netip.Addr) (out []net.Interface, err error) {
	for _, l := range all {
		if slices.ContainsFunc(l.prefixes, func(p netip.Prefix) bool { return p.Masked().Contains(a) }) {
			out = append(out, l.Interface)
		}
	}
	if len(out) > 0 {
		return out, nil
	}
	family := netlink.FAMILY_V6
	if a.Is4() {
		family = netlink.FAMILY_V4
	}
	routes, err := netlink.RouteList(nil, family)
	if err != nil {
		return nil, fmt.Errorf("the machine's routes: %w", err)
	}
	for _, r := range routes {
		if r.Dst != nil {
			if ones, _ := r.Dst.Mask.Size(); ones > 0 {
				continue
			}
		}
		for _, l := range all {
			if l.Index == r.LinkIndex {
				out = append(out, l.Interface)
			}
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no interface of the machine is on the network of %s, and it has no default route over Ethernet: give the address of one of its networks to --load-balancer-addresses, or leave the machine out by the label node.kubernetes.io/exclude-from-external-load-balancers", a)
	}
	return out, nil
}

// segment is the network of one interface, in one family.
type segment struct {
	link *net.Interface
	arp  *arp.Client
	ndp  *ndp.Conn

	mu    sync.Mutex
	addrs map[netip.Addr]bool
	dead  bool
}

// listen opens a socket for the ARP or NDP requests of a network.
func listen(link *net.Interface, four bool) (*segment, error) {
	s := &segment{link: link, addrs: map[netip.Addr]bool{}}
	var err error
	if four {
		if s.arp, err = arp.Dial(link); err != nil {
			return nil, fmt.Errorf("ARP: %w", err)
		}
		go s.serve(s.arpOnce)
		return s, nil
	}
	if s.ndp, _, err = ndp.Listen(link, ndp.LinkLocal); err != nil {
		return nil, fmt.Errorf("NDP: %w", err)
	}
	var f ipv6.ICMPFilter
	f.SetAll(true)
	f.Accept(ipv6.ICMPTypeNeighborSolicitation)
	if err := s.ndp.SetICMPFilter(&f); err != nil {
		return nil, errors.Join(fmt.Errorf("NDP: %w", err), s.ndp.Close())
	}
	go s.serve(s.ndpOnce)
	return s, nil
}

func (s *segment) close() {
	if s.arp != nil {
		s.arp.Close()
	} else {
		s.ndp.Close()
	}
}

func (s *segment) ended() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dead
}

func (s *segment) has(a netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addrs[a]
}

// answer makes the segment answer for these addresses, and announces the new
// ones.
func (s *segment) answer(addrs []netip.Addr) error {
	s.mu.Lock()
	was := s.addrs
	s.addrs = map[netip.Addr]bool{}
	for _, a := range addrs {
		s.addrs[a] = true
	}
	now := maps.Clone(s.addrs)
	s.mu.Unlock()
	if s.ndp != nil {
		// Several addresses may share a solicited-node multicast group.
		groups := func(all map[netip.Addr]bool) map[netip.Addr]bool {
			out := map[netip.Addr]bool{}
			for a := range all {
				if g, err := ndp.SolicitedNodeMulticast(a); err == nil {
					out[g] = true
				}
			}
			return out
		}
		had, want := groups(was), groups(now)
		for g := range had {
			if !want[g] {
				_ = s.ndp.LeaveGroup(g) // requests for the address are not answered anyway
			}
		}
		for g := range want {
			if had[g] {
				continue
			}
			if err := s.ndp.JoinGroup(g); err != nil {
				return fmt.Errorf("NDP: %w", err)
			}
		}
	}
	var errs []error
	for a := range now {
		if !was[a] {
			errs = append(errs, s.tell(a))
		}
	}
	return errors.Join(errs...)
}

// tell announces the address on the network: by gratuitous ARP (RFC 5227), both as
// a request and as a reply, since some hosts accept only one of them, or by an
// unsolicited advertisement (RFC 4861).
func (s *segment) tell(a netip.Addr) error {
	if s.arp != nil {
		for _, op := range []arp.Operation{arp.OperationRequest, arp.OperationReply} {
			p, err := arp.NewPacket(op, s.link.HardwareAddr, a, ethernet.Broadcast, a)
			if err == nil {
				err = s.arp.WriteTo(p, ethernet.Broadcast)
			}
			if err != nil {
				return fmt.Errorf("ARP: %w", err)
			}
		}
		return nil
	}
	if err := s.ndp.WriteTo(s.advertisement(a, false), nil, allNodes); err != nil {
		return fmt.Errorf("NDP: %w", err)
	}
	return nil
}

// allNodes is the multicast group of all nodes of a network.
var allNodes = netip.MustParseAddr("ff02::1")

func (s *segment) advertisement(a netip.Addr, solicited bool) ndp.Message {
	return &ndp.NeighborAdvertisement{Solicited: solicited, Override: true, TargetAddress: a,
		Options: []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Target, Addr: s.link.HardwareAddr}}}
}

// serve answers requests until the socket is closed.
func (s *segment) serve(once func() error) {
	for {
		if err := once(); err != nil {
			s.mu.Lock()
			s.dead = true
			s.mu.Unlock()
			return
		}
	}
}

// arpOnce answers one ARP request. After an error serve ends.
func (s *segment) arpOnce() error {
	p, _, err := s.arp.Read()
	if err != nil {
		return err
	}
	if p.Operation == arp.OperationRequest && p.SenderIP != p.TargetIP && s.has(p.TargetIP) {
		_ = s.arp.Reply(p, s.link.HardwareAddr, p.TargetIP) // the host repeats its request
	}
	return nil
}

// ndpOnce answers one neighbour solicitation. After an error serve ends.
func (s *segment) ndpOnce() error {
	m, _, from, err := s.ndp.ReadFrom()
	if err != nil {
		return err
	}
	q, ok := m.(*ndp.NeighborSolicitation)
	if !ok || !s.has(q.TargetAddress) {
		return nil
	}
	to, solicited := from, true
	if from.IsUnspecified() { // duplicate address detection of a host that wants the address
		to, solicited = allNodes, false
	}
	_ = s.ndp.WriteTo(s.advertisement(q.TargetAddress, solicited), nil, to) // the host repeats its request
	return nil
}
