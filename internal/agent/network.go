package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	v1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/internal/machine"
	"keelson.dev/keelson/internal/network/lb"
	"keelson.dev/keelson/internal/network/policy"
	"keelson.dev/keelson/internal/network/proxy"
	"keelson.dev/keelson/internal/network/reserved"
	"keelson.dev/keelson/internal/node"
)

// Builtin and None are the implementations of a part of the network: Keelson's
// own, or none, which leaves it to another.
const (
	Builtin = "builtin"
	None    = "none"
)

// Network selects the parts of the cluster's network that a node serves.
type Network struct {
	// Proxy is Builtin (also where empty) or None.
	Proxy string
	// DNS is Builtin (also where empty) or None. Pods ask the address of the
	// Service kube-dns either way.
	DNS string
	// Policies is the enforcement of NetworkPolicies: Builtin (also where empty) or
	// None.
	Policies string
	// ProxyHealthz is the address, with a port, at which the proxy's health is served;
	// "" leaves it out.
	ProxyHealthz string
	// NodePortAddresses are ranges of the machine's addresses on which node ports
	// are served, or "primary"; none is the node's primary addresses.
	NodePortAddresses []string
}

// Validate returns an error for invalid settings.
func (n *Network) Validate() error {
	for _, x := range [][2]string{{"proxy", n.Proxy}, {"dns", n.DNS}, {"network-policy", n.Policies}} {
		if x[1] != "" && x[1] != Builtin && x[1] != None {
			return fmt.Errorf("--%s %q: give %s or %s", x[0], x[1], Builtin, None)
		}
	}
	if n.ProxyHealthz != "" {
		if _, _, err := net.SplitHostPort(n.ProxyHealthz); err != nil {
			return fmt.Errorf("--proxy-healthz-bind-address %q: %w: give an address with a port, like 0.0.0.0:10256", n.ProxyHealthz, err)
		}
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

// startNetwork starts the service proxy, the name server and the announcer of
// addresses on the machine.
func (h *host) startNetwork(m *machine.Machine, agent *node.Agent, o Options) error {
	if o.Network.DNS != None {
		if err := h.startDNS(o); err != nil {
			return err
		}
	}
	nodes := h.nodes
	if nodes == nil {
		nodes = h.informers.Core().V1().Nodes().Informer()
	} else if m.OwnNetwork() || o.Network.Proxy != None { // else the node may not read them
		h.Go(func() { nodes.RunWithContext(h.Ctx) })
	}
	reserves := reserved.Config{NodeName: o.Name, Services: h.services, Nodes: nodes, ServiceCIDRs: h.cidrs}
	if o.Network.Proxy != None {
		reserves.EndpointSlices = h.informers.Discovery().V1().EndpointSlices().Informer()
	}
	var err error
	if h.reserved, err = reserved.New(reserves); err != nil {
		return fmt.Errorf("reserved addresses: %w", err)
	}
	if err := h.startAnnouncer(agent, o); err != nil {
		return err
	}
	return h.startPods(m, agent, nodes, o)
}

// startAnnouncer starts the announcer, which answers on the machine's networks
// for addresses of load balancers.
func (h *host) startAnnouncer(agent *node.Agent, o Options) error {
	a, err := lb.NewAnnouncer(lb.AnnouncerConfig{NodeName: o.Name, Services: h.informers.Core().V1().Services().Informer(), Segments: lb.NewSegments(), Clock: h.clock,
		Renewed: agent.Renewed, Reserved: h.reserved, Problem: h.problem("keelson-lb", o, "FailedToAnnounce", "Addresses of load balancers are not answered for")})
	if err != nil {
		return fmt.Errorf("load balancers: %w", err)
	}
	h.Go(func() { a.Run(h.Ctx) })
	return nil
}

// policies returns the controller of network policies, nil if they are left to
// another implementation.
func (h *host) policies(o Options) (*policy.Controller, error) {
	if o.Network.Policies == None {
		return nil, nil
	}
	pods := h.informers.Core().V1().Pods().Informer()
	if h.allPods != nil {
		pods = h.allPods
	}
	cfg := policy.Config{
		NodeName: o.Name, Pods: pods, Namespaces: h.informers.Core().V1().Namespaces().Informer(), Policies: h.informers.Networking().V1().NetworkPolicies().Informer(),
		IPv4: policy.NewNetfilter(false), Bridged: policy.Bridged, Clock: h.clock,
		Problem: h.problem("keelson-policy", o, "FailedToEnforcePolicies", "Network policies are not enforced as they should be"),
	}
	if _, err := os.Stat("/proc/net/if_inet6"); err == nil { // else IPv6 is switched off
		cfg.IPv6 = policy.NewNetfilter(true)
	}
	c, err := policy.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("network policies: %w", err)
	}
	return c, nil
}

// problem returns a function that records an event of the node.
func (h *host) problem(component string, o Options, reason, note string) func(error) {
	recorder := h.Recorder(h.client, component, o.Name)
	return func(err error) {
		recorder.Eventf(&v1.ObjectReference{Kind: "Node", Name: o.Name, APIVersion: "v1"}, v1.EventTypeWarning, reason, "%s: %v", note, err)
	}
}

// startProxy serves Services until ctx is done; pods are the ranges of the machine's
// pods.
func (h *host) startProxy(ctx context.Context, pods []netip.Prefix, o Options) error {
	cfg := proxy.Config{
		NodeName: o.Name, NodeIPs: h.addresses.now(), Informers: h.informers, Clock: h.clock,
		IPv4: proxy.NewNetfilter(false, pods), Flows: proxy.Conntrack(), Trace: h.trace("kube-proxy"),
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
	cfg.Listening = proxy.Listening
	recorder := h.Recorder(h.client, "kube-proxy", o.Name)
	cfg.HealthCheckFailed = func(s *v1.Service, port int32, err error) {
		recorder.Eventf(s, v1.EventTypeWarning, "FailedToStartServiceHealthcheck", "node %s failed to start healthcheck %q on port %d: %v", o.Name, s.Namespace+"/"+s.Name, port, err)
	}
	cfg.Healthz = o.Network.ProxyHealthz
	told := h.problem("kube-proxy", o, "FailedToServeHealthz", "Load balancers of clouds do not see that Services are served here")
	cfg.HealthzFailed = func(err error) {
		told(fmt.Errorf("%w: stop what listens there, or give another --proxy-healthz-bind-address", err))
	}
	cfg.Follows = proxy.Follows
	cfg.Unsupported = func(s *v1.Service, proto v1.Protocol) {
		recorder.Eventf(s, v1.EventTypeWarning, "ProtocolNotSupported", "the kernel of the node %s does not follow connections of %s, so that the Service's ports of it are not served there: use a kernel with CONFIG_NF_CT_PROTO_%s", o.Name, proto, proto)
	}
	cfg.Reserved = h.reserved
	cfg.NotServed = func(s *v1.Service, at netip.AddrPort, why string) {
		recorder.Eventf(s, v1.EventTypeWarning, "ExternalIPNotServed", "the node %s does not serve port %d of the external address %s: %s", o.Name, at.Port(), at.Addr(), why)
	}
	cfg.PortInUse = func(s *v1.Service, at netip.AddrPort, proto v1.Protocol) {
		recorder.Eventf(s, v1.EventTypeWarning, "PortInUse", "port %d/%s of %s is that of a program of the node %s, which keeps it: stop the program, or choose another port", at.Port(), proto, at.Addr(), o.Name)
	}
	cfg.Problem = h.problem("kube-proxy", o, "FailedToSyncServices", "Services are not reachable as they should be")
	p, err := proxy.New(cfg)
	if err != nil {
		return fmt.Errorf("service proxy: %w", err)
	}
	h.Go(func() {
		if err := p.Run(ctx); err != nil {
			klog.FromContext(ctx).Error(err, "The service proxy has ended")
		}
	})
	return nil
}

// addressesIn returns the machine's addresses in these ranges. Node ports are
// not served on loopback, as by upstream's nftables mode.
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
