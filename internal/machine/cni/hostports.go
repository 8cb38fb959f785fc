package cni

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"keelson.dev/keelson/internal/node/hostport"
)

// HostPorts maps host ports to pods of the default network by maps of nftables:
// a packet is looked up once, however many ports there are. Each change writes
// the whole maps in one transaction.
type HostPorts struct {
	mu   sync.Mutex
	pods map[types.UID][]hostport.Port
}

// Set implements hostport.Mapper.
func (h *HostPorts) Set(pod types.UID, ports []hostport.Port) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	was := h.pods[pod]
	if len(ports)+len(was) == 0 {
		return nil
	}
	next := maps.Clone(h.pods)
	if next == nil {
		next = map[types.UID][]hostport.Port{}
	}
	if next[pod] = ports; len(ports) == 0 {
		delete(next, pod)
	}
	// The way of packets from 127.0.0.1 to a pod and back.
	if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+bridge+"/route_localnet", []byte("1"), 0o644); err != nil && len(ports) > 0 {
		return fmt.Errorf("host ports: %w", err)
	}
	if err := nft(script(next)); err != nil {
		return fmt.Errorf("host ports: %w", err)
	}
	h.pods = next
	return forget(slices.Concat(was, ports))
}

// script fills the maps and the set. Where two pods want a port, the one with the lesser
// UID has it, until it goes.
func script(pods map[types.UID][]hostport.Port) string {
	var all, one, itself []string
	taken := map[string]bool{}
	for _, uid := range slices.Sorted(maps.Keys(pods)) {
		for _, p := range pods[uid] {
			key := fmt.Sprintf("%s . %d", strings.ToLower(string(p.Protocol)), p.Port)
			to, list := fmt.Sprintf("%s . %d", p.Pod.Addr(), p.Pod.Port()), &all
			if p.HostIP.IsValid() {
				key, list = p.HostIP.String()+" . "+key, &one
			}
			if !p.Pod.Addr().Is4() || taken[key] {
				continue
			}
			taken[key] = true
			*list = append(*list, key+" : "+to)
			// A pod that sends to its own host port.
			if pair := fmt.Sprintf("%[1]s . %[1]s", p.Pod.Addr()); !slices.Contains(itself, pair) {
				itself = append(itself, pair)
			}
		}
	}
	var b strings.Builder
	for name, elements := range map[string][]string{"map hostports": all, "map hostipports": one, "set hairpin": itself} {
		fmt.Fprintf(&b, "flush %s ip %s %s\n", name[:3], table, name[4:])
		if len(elements) > 0 {
			fmt.Fprintf(&b, "add element ip %s %s { %s }\n", table, name[4:], strings.Join(elements, ", "))
		}
	}
	return b.String()
}

// forget has the kernel look up these ports anew: a flow of UDP has no end at
// which it would.
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
		if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, netlink.FAMILY_V4, f); err != nil {
			return fmt.Errorf("host ports: forgetting flows to port %d: %w", p.Port, err)
		}
	}
	return nil
}
