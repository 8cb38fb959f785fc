package proxy

import (
	"net/netip"
	"slices"
	"strconv"
	"time"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"keelson.dev/keelson/internal/network/reserved"
)

// here holds the properties of the node that plans depend on.
type here struct {
	node, zone string
	family     discoveryv1.AddressType
	// nodePorts are the addresses of this node that node ports are served on.
	nodePorts []netip.Addr
	// own are the addresses of this node, with those at which packets to them
	// arrive; sockets are the ports that programs have there.
	own     map[netip.Addr]netip.Addr
	sockets *Sockets
	// reserved are the addresses that are not served as external ones.
	reserved *reserved.Addresses
}

// plan is the wanted content of the table for a Service.
type plan struct {
	chains map[string][]Rule
	// endpoints of the chains that have a Balance rule, which replace its First and
	// N.
	endpoints map[string][]netip.AddrPort
	affinity  map[string]bool // maps
	// live are the sets of chains' endpoints, by name.
	live map[string][]netip.AddrPort
	// udp has the serving endpoints of each UDP destination: flows to other
	// endpoints are to be forgotten.
	udp map[netip.AddrPort]map[netip.AddrPort]bool
	// elements are those of services, unserved, firewall, clusterIPs and hairpin. Those in
	// yielding are for external addresses, and yield to other Services' cluster addresses and
	// node ports.
	elements map[Place]Value
	yielding map[Place]bool
	// own are the external ports at addresses of this node, and whether a program has
	// them.
	own map[Key]bool
}

// health is the answer of a Service's health check.
type health struct {
	port  int32 // 0 means none
	local int   // endpoints on this node
}

// usable reports whether the Service has addresses that this proxy serves.
func usable(s *v1.Service) bool {
	_, others := s.Labels[otherProxy]
	return !others && s.Spec.Type != v1.ServiceTypeExternalName && s.Spec.ClusterIP != v1.ClusterIPNone && s.Spec.ClusterIP != ""
}

// otherProxy is the label of Services that another proxy serves.
const otherProxy = "service.kubernetes.io/service-proxy-name"

func (h *here) mine(ip string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(ip)
	return a, err == nil && a.Is4() == (h.family == discoveryv1.AddressTypeIPv4)
}

// planFor plans a Service. The health is that of the external traffic policy
// Local.
func planFor(s *v1.Service, all []*discoveryv1.EndpointSlice, h *here) (*plan, health) {
	p := &plan{chains: map[string][]Rule{}, endpoints: map[string][]netip.AddrPort{}, affinity: map[string]bool{},
		live: map[string][]netip.AddrPort{}, udp: map[netip.AddrPort]map[netip.AddrPort]bool{}, elements: map[Place]Value{}, yielding: map[Place]bool{}, own: map[Key]bool{}}
	var check health
	localHealth := map[netip.Addr]bool{}
	for i := range s.Spec.Ports {
		for _, a := range p.port(s, &s.Spec.Ports[i], all, h) {
			localHealth[a] = true
		}
	}
	if externalLocal(s) && s.Spec.Type == v1.ServiceTypeLoadBalancer {
		check = health{s.Spec.HealthCheckNodePort, len(localHealth)}
	}
	return p, check
}

// external reports whether a Service has external addresses.
func external(s *v1.Service) bool {
	return len(s.Spec.ExternalIPs) > 0 || len(s.Status.LoadBalancer.Ingress) > 0
}

// externalAddresses returns the external addresses of a Service, those of its load balancer
// included.
func externalAddresses(s *v1.Service) (out []netip.Addr) {
	texts := slices.Clone(s.Spec.ExternalIPs)
	for _, in := range s.Status.LoadBalancer.Ingress {
		texts = append(texts, in.IP)
	}
	for _, x := range texts {
		if a, err := netip.ParseAddr(x); err == nil {
			out = append(out, a)
		}
	}
	return out
}

func externalLocal(s *v1.Service) bool {
	return s.Spec.ExternalTrafficPolicy == v1.ServiceExternalTrafficPolicyLocal
}

func internalLocal(s *v1.Service) bool {
	return s.Spec.InternalTrafficPolicy != nil && *s.Spec.InternalTrafficPolicy == v1.ServiceInternalTrafficPolicyLocal
}

// port plans one port, and returns the addresses of this node's ready endpoints.
func (p *plan) port(s *v1.Service, sp *v1.ServicePort, sliced []*discoveryv1.EndpointSlice, h *here) []netip.Addr {
	all := endpointsOf(sliced, sp, h.family, h.node)
	c := choose(all, h.node, h.zone)
	name := sp.Name
	if name == "" {
		name = strconv.Itoa(int(sp.Port))
	}
	id := s.Namespace + "/" + s.Name + "/" + string(protocol(sp)) + "/" + name
	cluster, local := "cluster/"+id, "local/"+id
	proto := protocol(sp)

	var serving map[netip.AddrPort]bool
	if proto == v1.ProtocolUDP {
		serving = map[netip.AddrPort]bool{}
		for i := range all {
			if all[i].serving || all[i].ready {
				serving[all[i].addr] = true
			}
		}
	}

	// lead maps an address to a chain, or to a rejection or a drop.
	lead := func(a netip.Addr, port int32, chain string, served bool) {
		k := Key{Addr: a, Proto: proto, Port: uint16(port)}
		if serving != nil {
			p.udp[netip.AddrPortFrom(a, uint16(port))] = serving
		}
		if served {
			p.elements[Place{services, k}] = Value{Chain: chain}
			return
		}
		v := Value{} // dropped: there are endpoints on other nodes
		if !c.any {
			v.Chain = reject
		}
		p.elements[Place{unserved, k}] = v
	}

	usesCluster, usesLocal := false, false
	for _, ip := range clusterAddresses(s) {
		a, ok := h.mine(ip)
		if !ok {
			continue
		}
		p.elements[Place{clusterIPs, Key{Addr: a}}] = Value{}
		if internalLocal(s) {
			usesLocal = true
			lead(a, sp.Port, "internal/"+id, len(c.local) > 0)
		} else {
			usesCluster = true
			lead(a, sp.Port, cluster, len(c.cluster) > 0)
		}
	}
	if usesLocal {
		p.chains["internal/"+id] = []Rule{{When: NotFromPods, Do: Mark}, {Do: Goto, Chain: local}}
	}

	external := "external/" + id
	served := len(c.cluster) > 0
	if externalLocal(s) {
		served = len(c.local) > 0 || len(c.cluster) > 0 // clients in the cluster are sent to any node
	}
	outside := false
	expose := func(a netip.Addr, port int32) {
		outside = true
		lead(a, port, external, served)
		if externalLocal(s) && served && len(c.local) == 0 {
			p.elements[Place{unserved, Key{Addr: a, Proto: proto, Port: uint16(port)}}] = Value{}
		}
	}
	// serve serves the port at an external address, and reports at which addresses of this
	// machine its packets arrive.
	serve := func(a netip.Addr) (at []netip.Addr) {
		if h.reserved.Why(netip.AddrPortFrom(a, uint16(sp.Port))) != "" {
			return nil
		}
		at = []netip.Addr{a}
		if to, ours := h.own[a]; ours {
			k := Key{Addr: to, Proto: proto, Port: uint16(sp.Port)}
			if slices.ContainsFunc(all, func(e endpoint) bool { return e.addr == netip.AddrPortFrom(to, k.Port) }) {
				return nil // the program is the Service's own
			}
			if p.own[k] = h.sockets.Has(k); p.own[k] {
				return nil // a program of the machine keeps its port
			}
			if to != a {
				at = append(at, to)
			}
		}
		for _, x := range at {
			for _, set := range []string{services, unserved} {
				place := Place{set, Key{Addr: x, Proto: proto, Port: uint16(sp.Port)}}
				if _, other := p.elements[place]; !other {
					p.yielding[place] = true
				}
			}
			expose(x, sp.Port)
		}
		return at
	}
	if sp.NodePort != 0 {
		for _, a := range h.nodePorts {
			expose(a, sp.NodePort)
		}
	}
	for _, ip := range s.Spec.ExternalIPs {
		if a, ok := h.mine(ip); ok && !h.reserved.Elsewhere(a) {
			serve(a)
		}
	}
	if s.Spec.Type == v1.ServiceTypeLoadBalancer {
		for i := range s.Status.LoadBalancer.Ingress {
			in := &s.Status.LoadBalancer.Ingress[i]
			a, ok := h.mine(in.IP)
			if !ok || !h.reserved.Served(s, a) || in.IPMode != nil && *in.IPMode == v1.LoadBalancerIPModeProxy {
				continue
			}
			for _, x := range serve(a) {
				p.guard(s, sp, x, h)
			}
		}
	}
	if outside {
		usesCluster = true
		if externalLocal(s) {
			rules := []Rule{{When: FromPods, Do: Goto, Chain: cluster}, {When: FromLocal, Do: Mark}, {When: FromLocal, Do: Goto, Chain: cluster}}
			if len(c.local) > 0 {
				usesLocal = true
				rules = append(rules, Rule{Do: Goto, Chain: local})
			}
			p.chains[external] = rules
		} else {
			p.chains[external] = []Rule{{Do: Mark}, {Do: Goto, Chain: cluster}}
		}
	}
	if usesCluster {
		p.balance(s, id, cluster, c.cluster, true)
	}
	if usesLocal {
		p.balance(s, id, local, c.local, false)
	}
	for i := range all {
		if all[i].local || all[i].anywhere {
			p.elements[Place{hairpin, Key{Addr: all[i].addr.Addr()}}] = Value{}
		}
	}
	return c.ready
}

func clusterAddresses(s *v1.Service) []string {
	if len(s.Spec.ClusterIPs) > 0 {
		return s.Spec.ClusterIPs
	}
	return []string{s.Spec.ClusterIP}
}

// balance plans the chain that sends packets to one of these endpoints.
func (p *plan) balance(s *v1.Service, id, chain string, to []netip.AddrPort, mark bool) {
	var rules []Rule
	if mark {
		rules = append(rules, Rule{When: NotFromPods, Do: Mark})
	}
	if len(to) > 0 {
		p.endpoints[chain] = to
		if s.Spec.SessionAffinity == v1.ServiceAffinityClientIP {
			timeout := time.Duration(v1.DefaultClientIPServiceAffinitySeconds) * time.Second
			if c := s.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
				timeout = time.Duration(*c.ClientIP.TimeoutSeconds) * time.Second
			}
			affinity, live := "affinity/"+id, "live/"+chain
			p.affinity[affinity], p.live[live] = true, to
			rules = append(rules, Rule{Do: Stick, Affinity: affinity, Live: live, Timeout: timeout},
				Rule{Do: Balance, Affinity: affinity, Timeout: timeout})
		}
		// This rule also applies if the affinity map is full.
		rules = append(rules, Rule{Do: Balance})
	}
	p.chains[chain] = rules
}

// guard restricts a load balancer's address to its source ranges.
func (p *plan) guard(s *v1.Service, sp *v1.ServicePort, a netip.Addr, h *here) {
	chain := "firewall/" + s.Namespace + "/" + s.Name
	var rules []Rule
	local := false
	for _, text := range s.Spec.LoadBalancerSourceRanges {
		r, err := netip.ParsePrefix(text)
		if err != nil || r.Addr().Is4() != a.Is4() {
			continue
		}
		rules = append(rules, Rule{When: FromRange, Range: r.Masked(), Do: Return})
		for _, n := range h.nodePorts {
			local = local || r.Contains(n)
		}
	}
	if len(rules) == 0 {
		return
	}
	if local {
		// A platform may assign the balancer's address to the machine, whose packets to
		// it then have it as their source, too.
		rules = append(rules, Rule{When: FromRange, Range: netip.PrefixFrom(a, a.BitLen()), Do: Return})
		chain += "/" + a.String()
	}
	p.chains[chain] = append(rules, Rule{Do: Drop})
	p.elements[Place{firewall, Key{Addr: a, Proto: protocol(sp), Port: uint16(sp.Port)}}] = Value{Chain: chain}
}
