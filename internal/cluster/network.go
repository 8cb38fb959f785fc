package cluster

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/internal/machine"
	"keelson.dev/keelson/internal/network/proxy"
)

// Builtin and None say whether a part of the network is Keelson's own, or left to
// another implementation.
const (
	Builtin = "builtin"
	None    = "none"
)

// Network selects what a node serves of the cluster's network.
type Network struct {
	// Proxy is Builtin (also where empty) or None.
	Proxy string
	// NodePortAddresses are ranges of the machine's addresses on which node ports
	// are served, or "primary"; none is the node's primary addresses.
	NodePortAddresses []string
}

// Validate says what is wrong with it.
func (n *Network) Validate() error {
	if n.Proxy != "" && n.Proxy != Builtin && n.Proxy != None {
		return fmt.Errorf("--proxy %q: give %s or %s", n.Proxy, Builtin, None)
	}
	_, err := n.nodePortRanges()
	return err
}

func (n *Network) nodePortRanges() ([]netip.Prefix, error) {
	if len(n.NodePortAddresses) == 1 && n.NodePortAddresses[0] == "primary" {
		return nil, nil
	}
	var out []netip.Prefix
	for _, s := range n.NodePortAddresses {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("--nodeport-addresses %q: %w: give ranges like 192.0.2.0/24, or primary", s, err)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// startNetwork starts what serves Services on the machine.
func (c *Cluster) startNetwork(m *machine.Machine, o AgentOptions, client kubernetes.Interface) error {
	if o.Network.Proxy == None {
		return nil
	}
	pods := []netip.Prefix{m.PodCIDR()}
	cfg := proxy.Config{
		NodeName: o.Name, NodeIPs: []netip.Addr{c.Advertise}, Informers: c.Informers, Clock: c.Clock,
		IPv4: proxy.NewNetfilter(false, pods), Flows: proxy.Conntrack(),
	}
	if _, err := os.Stat("/proc/net/if_inet6"); err == nil { // else IPv6 is switched off
		cfg.IPv6 = proxy.NewNetfilter(true, pods)
	}
	ranges, err := o.Network.nodePortRanges()
	if err != nil {
		return err
	}
	if len(ranges) > 0 {
		cfg.NodePortAddresses = func() ([]netip.Addr, error) { return addressesIn(ranges) }
	}
	recorder := c.Recorder(client, "kube-proxy", o.Name)
	cfg.Problem = func(err error) {
		recorder.Eventf(&v1.ObjectReference{Kind: "Node", Name: o.Name, APIVersion: "v1"}, v1.EventTypeWarning, "FailedToSyncServices",
			"Services are not reachable as they should be: %v", err)
	}
	p, err := proxy.New(cfg)
	if err != nil {
		return fmt.Errorf("service proxy: %w", err)
	}
	c.wg.Go(func() {
		if err := p.Run(c.ctx); err != nil {
			klog.FromContext(c.ctx).Error(err, "The service proxy has ended")
		}
	})
	return nil
}

// addressesIn gives the machine's addresses in these ranges. Node ports are not
// served on loopback, as by upstream's nftables mode.
func addressesIn(ranges []netip.Prefix) ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, errors.Join(errors.New("the machine's addresses"), err)
	}
	var out []netip.Addr
	for _, a := range all {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		ip, ok := netip.AddrFromSlice(n.IP)
		if ip = ip.Unmap(); !ok || ip.IsLoopback() || ip.IsLinkLocalUnicast() {
			continue
		}
		for _, r := range ranges {
			if r.Contains(ip) {
				out = append(out, ip)
				break
			}
		}
	}
	return out, nil
}
