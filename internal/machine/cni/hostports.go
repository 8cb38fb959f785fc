package cni

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"keelson.dev/keelson/internal/node/hostport"
)

// Set implements hostport.Mapper: host ports are mapped to pods by maps of nftables, so
// that a packet takes one lookup, however many ports there are. Each change writes the
// whole maps in one transaction.
func (d *Default) Set(pod types.UID, ports []hostport.Port) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	was := d.ports[pod]
	if len(ports)+len(was) == 0 {
		return nil
	}
	next := maps.Clone(d.ports)
	if next == nil {
		next = map[types.UID][]hostport.Port{}
	}
	if next[pod] = ports; len(ports) == 0 {
		delete(next, pod)
	}
	// route_localnet allows packets from 127.0.0.1 to a pod and back.
	if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+bridge+"/route_localnet", []byte("1"), 0o644); err != nil && len(ports) > 0 {
		return fmt.Errorf("host ports: %w", err)
	}
	if err := nft(d.script(next)); err != nil {
		return fmt.Errorf("host ports: %w", err)
	}
	d.ports = next
	return forget(slices.Concat(was, ports))
}

// script returns the script that fills the maps and sets of each family. If two pods
// want the same port, the one with the lesser UID has it until it ends.
func (d *Default) script(pods map[types.UID][]hostport.Port) string {
	var b strings.Builder
	for _, four := range []bool{true, false} {
		if !slices.ContainsFunc(d.last.Own, func(r netip.Prefix) bool { return r.Addr().Is4() == four }) {
			continue
		}
		family := "ip"
		if !four {
			family = "ip6"
		}
		for _, m := range elements(four, pods) {
			fmt.Fprintf(&b, "flush %s %s %s %s\n", m.kind, family, table, m.name)
			if len(m.elements) > 0 {
				fmt.Fprintf(&b, "add element %s %s %s { %s }\n", family, table, m.name, strings.Join(m.elements, ", "))
			}
		}
	}
	return b.String()
}

// content is the content of a map or set of nftables.
type content struct {
	kind, name string
	elements   []string
}

// elements returns the elements of the maps of a family.
func elements(four bool, pods map[types.UID][]hostport.Port) []content {
	all, one, itself := content{kind: "map", name: "hostports"}, content{kind: "map", name: "hostipports"}, content{kind: "set", name: "hairpin"}
	taken := map[string]bool{}
	for _, uid := range slices.Sorted(maps.Keys(pods)) {
		for _, p := range pods[uid] {
			key := fmt.Sprintf("%s . %d", strings.ToLower(string(p.Protocol)), p.Port)
			to, list := fmt.Sprintf("%s . %d", p.Pod.Addr(), p.Pod.Port()), &all
			if p.HostIP.IsValid() {
				key, list = p.HostIP.String()+" . "+key, &one
			}
			if p.Pod.Addr().Is4() != four || p.HostIP.IsValid() && p.HostIP.Is4() != four || taken[key] {
				continue
			}
			taken[key] = true
			list.elements = append(list.elements, key+" : "+to)
			// A pod that sends to its own host port.
			if pair := fmt.Sprintf("%[1]s . %[1]s", p.Pod.Addr()); !slices.Contains(itself.elements, pair) {
				itself.elements = append(itself.elements, pair)
			}
		}
	}
	return []content{all, one, itself}
}

// forget deletes the connection tracking entries of these ports: the kernel
// would keep sending a flow of UDP, which has no end, to the old address.
func forget(ports []hostport.Port) error {
	for _, p := range ports {
		if p.Protocol != v1.ProtocolUDP {
			continue
		}
		f := &netlink.ConntrackFilter{}
		if err := f.AddProtocol(unix.IPPROTO_UDP); err != nil {
			return err
		}
		if err := f.AddPort(netlink.ConntrackOrigDstPort, uint16(p.Port)); err != nil {
			return err
		}
		family := netlink.InetFamily(netlink.FAMILY_V4)
		if p.Pod.Addr().Is6() {
			family = netlink.FAMILY_V6
		}
		if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, f); err != nil {
			return fmt.Errorf("host ports: forgetting flows to port %d: %w", p.Port, err)
		}
	}
	return nil
}
