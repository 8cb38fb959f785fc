package proxy

import (
	"errors"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
)

// Conntrack returns the kernel's connection tracking, in this process's network
// namespace.
func Conntrack() Flows { return conntrack{} }

type conntrack struct{}

// Follows reports whether the kernel tracks connections of the protocol: support for
// SCTP is optional.
func Follows(p v1.Protocol) bool {
	const followed, sctp = "/proc/sys/net/netfilter/nf_conntrack_max", "/proc/sys/net/netfilter/nf_conntrack_sctp_timeout_established"
	if p != v1.ProtocolSCTP {
		return true
	}
	if _, err := os.Stat(followed); err != nil {
		return true // it tracks no connections yet, so that its support is unknown
	}
	_, err := os.Stat(sctp)
	return err == nil
}

// Forget implements Flows.
func (conntrack) Forget(ipv6 bool, stale func(Flow) bool) (int, error) {
	family := netlink.InetFamily(unix.AF_INET)
	if ipv6 {
		family = unix.AF_INET6
	}
	n, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, filter(stale))
	if errors.Is(err, unix.ENOENT) {
		err = nil // the flow has ended meanwhile
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
