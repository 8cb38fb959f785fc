package dns

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// linkName is the link that has the server's addresses. It is a bridge without
// ports: every kernel with a network for pods supports bridges.
const linkName = "keelson-dns"

// Link returns Links that add addresses to a link of their own, in this process's
// network namespace. They stay when the process ends; RemoveLink removes them.
func Link() Links { return link{} }

type link struct{}

// Add implements Links.
func (link) Add(addrs []netip.Addr) error {
	l, err := netlink.LinkByName(linkName)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		made := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: linkName}}
		if err := netlink.LinkAdd(made); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("dns: making link %s: %w", linkName, err)
		}
		l, err = netlink.LinkByName(linkName)
	}
	if err != nil {
		return fmt.Errorf("dns: link %s: %w", linkName, err)
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return fmt.Errorf("dns: link %s: %w", linkName, err)
	}
	have, err := netlink.AddrList(l, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("dns: link %s: %w", linkName, err)
	}
	want := map[string]bool{}
	for _, a := range addrs {
		x, err := netlink.ParseAddr(netip.PrefixFrom(a, a.BitLen()).String())
		if err != nil {
			return err
		}
		want[a.String()] = true
		x.Flags = unix.IFA_F_NODAD // no duplicate address detection: other nodes have the address, too
		if err := netlink.AddrReplace(l, x); err != nil {
			return fmt.Errorf("dns: address %s on link %s: %w", a, linkName, err)
		}
	}
	for _, x := range have {
		if !want[x.IP.String()] && !x.IP.IsLinkLocalUnicast() {
			if err := netlink.AddrDel(l, &x); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
				return fmt.Errorf("dns: address %s on link %s: %w", x.IP, linkName, err)
			}
		}
	}
	return nil
}

// RemoveLink removes the link and its addresses.
func RemoveLink() error {
	l, err := netlink.LinkByName(linkName)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return err
	}
	return netlink.LinkDel(l)
}
