package sim

import (
	"fmt"
	"net/netip"
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// addresses gives pods theirs: of their node's range, spec.podCIDRs, as long as it
// has one that no other pod has.
type addresses struct {
	mu    sync.Mutex
	nodes map[string]*taken
	// others is how many were given that are of no node's range.
	others uint32
}

// taken are the addresses of a node's pods.
type taken struct {
	by   map[netip.Addr]types.UID
	last netip.Addr
}

func (a *addresses) node(name string) *taken {
	t := a.nodes[name]
	if t == nil {
		if a.nodes == nil {
			a.nodes = map[string]*taken{}
		}
		t = &taken{by: map[netip.Addr]types.UID{}}
		a.nodes[name] = t
	}
	return t
}

// saw notes the addresses of a pod that there is.
func (a *addresses) saw(p *v1.Pod) {
	if len(p.Status.PodIPs) == 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, ip := range p.Status.PodIPs {
		if addr, err := netip.ParseAddr(ip.IP); err == nil {
			a.node(p.Spec.NodeName).by[addr] = p.UID
		}
	}
}

// gone gives the addresses of a pod back.
func (a *addresses) gone(p *v1.Pod) {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.nodes[p.Spec.NodeName]
	if t == nil {
		return
	}
	for _, ip := range p.Status.PodIPs {
		if addr, err := netip.ParseAddr(ip.IP); err == nil && t.by[addr] == p.UID {
			delete(t.by, addr)
		}
	}
}

// give gives the pod an address of each of its node's ranges.
func (a *addresses) give(p *v1.Pod, ranges []string) []v1.PodIP {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []v1.PodIP
	for _, s := range ranges {
		if r, err := netip.ParsePrefix(s); err == nil {
			if addr, ok := a.node(p.Spec.NodeName).next(r.Masked(), p.UID); ok {
				out = append(out, v1.PodIP{IP: addr.String()})
			}
		}
	}
	if len(out) == 0 {
		a.others++
		n := a.others
		out = []v1.PodIP{{IP: fmt.Sprintf("10.%d.%d.%d", 128+n>>16&0x7f, n>>8&0xff, n&0xff)}}
	}
	return out
}

// next takes the address after the last one that is free. The first two of a range
// are the network's and the gateway's.
func (t *taken) next(r netip.Prefix, uid types.UID) (netip.Addr, bool) {
	first := r.Addr().Next().Next()
	addr := t.last.Next()
	for range len(t.by) + 2 {
		if !r.Contains(addr) {
			addr = first
		}
		if _, used := t.by[addr]; !used && r.Contains(addr) {
			t.by[addr], t.last = uid, addr
			return addr, true
		}
		addr = addr.Next()
	}
	return netip.Addr{}, false
}
