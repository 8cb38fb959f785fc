package harness

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"keelson.dev/keelson/internal/network/nft"
)

// Traces is the network configuration of the process's network namespace, one
// key for each part.
type Traces map[string]bool

// Network returns the present configuration: interfaces with their addresses, rules
// of routing, routes, neighbours that stay, and the chains of nftables at hooks.
func Network(t testing.TB) Traces {
	t.Helper()
	out := Traces{}
	add := func(format string, args ...any) { out[fmt.Sprintf(format, args...)] = true }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	links, err := netlink.LinkList()
	must(err)
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
		add("interface %s", l.Attrs().Name)
	}
	for _, f := range []struct {
		name   string
		family int
		nft    nft.Family
	}{{"IPv4", unix.AF_INET, nft.IPv4}, {"IPv6", unix.AF_INET6, nft.IPv6}} {
		addrs, err := netlink.AddrList(nil, f.family)
		must(err)
		for _, a := range addrs {
			if a.IP.IsLinkLocalUnicast() {
				continue // of the kernel, which adds it after its interface
			}
			add("address %s of %s", a.IPNet, names[a.LinkIndex])
		}
		rules, err := netlink.RuleList(f.family)
		must(err)
		for _, r := range rules {
			add("%s rule %s", f.name, r)
		}
		routes, err := netlink.RouteListFiltered(f.family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
		must(err)
		for _, r := range routes {
			if r.Dst != nil && r.Dst.IP.IsLinkLocalUnicast() {
				continue // of the kernel, too
			}
			add("%s route to %s over %s, table %d", f.name, r.Dst, names[r.LinkIndex], r.Table)
		}
		for _, l := range links {
			neighbours, err := netlink.NeighList(l.Attrs().Index, f.family)
			must(err)
			for _, n := range neighbours {
				if n.State&unix.NUD_PERMANENT != 0 {
					add("neighbour %s on %s", n.IP, l.Attrs().Name)
				}
			}
		}
	}
	for _, family := range []nft.Family{nft.IPv4, nft.IPv6, nft.Inet} {
		bases, err := nft.Bases(family)
		must(err)
		for _, b := range bases {
			add("chain %s of table %s of nftables (family %d)", b.Chain, b.Table, family)
		}
	}
	return out
}

// More returns the traces in now that are not in before, sorted.
func (before Traces) More(now Traces) (left []string) {
	for _, x := range slices.Sorted(maps.Keys(now)) {
		if !before[x] {
			left = append(left, x)
		}
	}
	return left
}
