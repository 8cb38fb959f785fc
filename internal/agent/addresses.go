package agent

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/internal/component"
	"keelson.dev/keelson/internal/machine"
	"keelson.dev/keelson/internal/network/podnet"
	"keelson.dev/keelson/internal/node"
	"keelson.dev/keelson/internal/reconcile"
)

// addresses computes the addresses of a node: the given ones, else the source address of
// the machine's default route, IPv4 before IPv6. If the node's pods have addresses of
// both families, the node has one of the other family, too. Addresses that were not given
// follow the machine.
type addresses struct {
	given []netip.Addr
	// machine returns the machine's address of a family, if it has one now.
	machine func(four bool) (netip.Addr, bool)
	// pods returns the ranges of the node's pods.
	pods func() []netip.Prefix

	mu   sync.Mutex
	last []netip.Addr
	// followed reports whether follow looks at the addresses when they may have changed.
	followed bool
}

// validateNodeIPs reports what is wrong with the addresses of --node-ip.
func validateNodeIPs(ips []netip.Addr) error {
	if len(ips) > 2 || len(ips) == 2 && ips[0].Is4() == ips[1].Is4() {
		return fmt.Errorf("--node-ip %v: must contain either a single IP or a dual-stack pair of IPs", ips)
	}
	for _, ip := range ips {
		if len(ips) == 2 && ip.IsUnspecified() {
			return fmt.Errorf("--node-ip %v: cannot include %s in a dual-stack pair", ips, ip)
		}
		if ip.IsLoopback() || ip.IsMulticast() || ip.IsLinkLocalUnicast() {
			return fmt.Errorf("--node-ip %s: other machines do not reach it: give an address of this machine on their network", ip)
		}
	}
	return nil
}

// now returns the current addresses. If the machine has none it returns the last ones:
// it may have the same again in a moment.
func (a *addresses) now() []netip.Addr {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := slices.DeleteFunc(slices.Clone(a.given), netip.Addr.IsUnspecified)
	if len(out) == 0 {
		// The unspecified address of a family asks for that one.
		four := len(a.given) == 0 || a.given[0].Is4()
		ip, ok := a.machine(four)
		if !ok {
			ip, ok = a.machine(!four)
		}
		switch {
		case ok:
			out = append(out, ip)
		case len(a.last) > 0:
			return slices.Clone(a.last)
		default:
			out = append(out, netip.MustParseAddr("127.0.0.1"))
		}
	}
	if len(out) == 1 && slices.ContainsFunc(a.pods(), func(r netip.Prefix) bool { return r.Addr().Is4() != out[0].Is4() }) {
		if ip, ok := a.machine(!out[0].Is4()); ok {
			out = append(out, ip)
		} else if i := slices.IndexFunc(a.last, func(l netip.Addr) bool { return l.Is4() != out[0].Is4() }); i >= 0 {
			out = append(out, a.last[i])
		}
	}
	a.last = out
	return slices.Clone(out)
}

// ips returns the addresses as net.IP: those that follow has last found, while it runs, or
// the current ones.
func (a *addresses) ips() (out []net.IP) {
	a.mu.Lock()
	all := a.last
	if !a.followed {
		all = nil
	}
	a.mu.Unlock()
	if all == nil {
		all = a.now()
	}
	for _, ip := range all {
		out = append(out, net.IP(ip.AsSlice()))
	}
	return out
}

// settle is the time between a change of the network and the next look at the addresses:
// a network that comes up changes several times.
const settle = 200 * time.Millisecond

// newAddresses returns the addresses of a node on the machine, some of which may be
// given.
func (h *host) newAddresses(given []netip.Addr, m *machine.Machine, o Options) *addresses {
	nodes := h.informers.Core().V1().Nodes().Lister()
	return &addresses{given: given, machine: component.AddressOf, pods: func() []netip.Prefix {
		if given := m.PodCIDRs(); len(given) > 0 {
			return given
		}
		if n, err := nodes.Get(o.Name); err == nil {
			return podnet.Ranges(n)
		}
		return nil
	}}
}

// followAddresses makes the agent report the node's addresses when they change, until the
// process ends.
func (h *host) followAddresses(agent *node.Agent, o Options) error {
	network, err := podnet.Netlink(machine.PodLink).Changes(h.Ctx)
	if err != nil {
		return err
	}
	ranges := make(chan struct{}, 1)
	changed := func(n *v1.Node) {
		if n.Name != o.Name {
			return
		}
		select {
		case ranges <- struct{}{}:
		default:
		}
	}
	reconcile.Handle(h.informers.Core().V1().Nodes().Informer(), changed, func(old, now *v1.Node) {
		if !slices.Equal(old.Spec.PodCIDRs, now.Spec.PodCIDRs) {
			changed(now)
		}
	}, reconcile.Ignore)
	h.Go(func() {
		h.addresses.follow(h.Ctx, network, ranges, h.clock.After, func() {
			h.reconnect()
			agent.NetworkChanged()
		})
	})
	return nil
}

// follow calls changed when the addresses have changed. It looks at them after changes of
// the network and of the pods' ranges.
func (a *addresses) follow(ctx context.Context, network, ranges <-chan struct{}, after func(time.Duration) <-chan time.Time, changed func()) {
	last := a.now()
	a.setFollowed(true)
	defer a.setFollowed(false)
	for {
		select {
		case <-network:
		case <-ranges:
		case <-ctx.Done():
			return
		}
		select {
		case <-after(settle):
		case <-ctx.Done():
			return
		}
		if now := a.now(); !slices.Equal(now, last) {
			klog.FromContext(ctx).Info("The node's addresses are others now", "were", last, "are", now)
			last = now
			changed()
		}
	}
}

func (a *addresses) setFollowed(now bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.followed = now
}
