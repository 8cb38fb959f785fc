package proxy

import (
	"errors"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Conntrack gives the kernel's flows, in this process's network namespace.
func Conntrack() Flows { return conntrack{} }

type conntrack struct{}

// Forget implements Flows.
func (conntrack) Forget(ipv6 bool, stale func(Flow) bool) (int, error) {
	family := netlink.InetFamily(unix.AF_INET)
	if ipv6 {
		family = unix.AF_INET6
	}
	n, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, filter(stale))
	if errors.Is(err, unix.ENOENT) {
		err = nil // it ended by itself meanwhile
	}
	return int(n), err
}

type filter func(Flow) bool

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (f filter) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	return flow.Forward.Protocol == unix.IPPROTO_UDP && f(Flow{
		To:      addrPort(flow.Forward.DstIP, flow.Forward.DstPort),
		Answers: addrPort(flow.Reverse.SrcIP, flow.Reverse.SrcPort),
	})
}

func addrPort(ip net.IP, port uint16) netip.AddrPort {
	a, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(a.Unmap(), port)
}
