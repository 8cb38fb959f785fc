package proxy

import (
	"net/netip"
	"slices"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// endpoint is an endpoint of a Service's port.
type endpoint struct {
	addr                        netip.AddrPort
	ready, serving, terminating bool
	local                       bool // on this node
	anywhere                    bool // its node is not known
	hints                       *discoveryv1.EndpointHints
}

func (e *endpoint) rank() (n int) {
	for i, is := range []bool{e.terminating, e.serving, e.ready, e.local} {
		if is {
			n |= 1 << i
		}
	}
	return n
}

func yes(b *bool, otherwise bool) bool {
	if b == nil {
		return otherwise
	}
	return *b
}

// endpointsOf returns the endpoints that the slices have for a Service's port, in
// the family of addresses. Of endpoints with the same address, that of the highest
// rank is used.
func endpointsOf(all []*discoveryv1.EndpointSlice, p *v1.ServicePort, family discoveryv1.AddressType, node string) []endpoint {
	n := 0
	for _, s := range all {
		n += len(s.Endpoints)
	}
	out := make([]endpoint, 0, n)
	seen := make(map[netip.AddrPort]int, n)
	for _, s := range all {
		if s.AddressType != family {
			continue
		}
		port := portOf(s, p)
		if port == 0 {
			continue
		}
		for i := range s.Endpoints {
			e := &s.Endpoints[i]
			if len(e.Addresses) == 0 {
				continue
			}
			ip, err := netip.ParseAddr(e.Addresses[0]) // only the first address is used
			if err != nil {
				continue
			}
			ready := yes(e.Conditions.Ready, true)
			x := endpoint{
				addr:  netip.AddrPortFrom(ip, port),
				ready: ready, serving: yes(e.Conditions.Serving, ready), terminating: yes(e.Conditions.Terminating, false),
				local: e.NodeName != nil && *e.NodeName == node, anywhere: e.NodeName == nil, hints: e.Hints,
			}
			at, dup := seen[x.addr]
			switch {
			case !dup:
				seen[x.addr] = len(out)
				out = append(out, x)
			case x.rank() > out[at].rank():
				out[at] = x
			}
		}
	}
	return out
}

// portOf returns the number that a slice has for a Service's port, 0 if none.
func portOf(s *discoveryv1.EndpointSlice, p *v1.ServicePort) uint16 {
	for i := range s.Ports {
		sp := &s.Ports[i]
		name, proto := "", v1.ProtocolTCP
		if sp.Name != nil {
			name = *sp.Name
		}
		if sp.Protocol != nil {
			proto = *sp.Protocol
		}
		if name == p.Name && proto == protocol(p) && sp.Port != nil {
			return uint16(*sp.Port)
		}
	}
	return 0
}

func protocol(p *v1.ServicePort) v1.Protocol {
	if p.Protocol == "" {
		return v1.ProtocolTCP
	}
	return p.Protocol
}

// chosen are the endpoints that traffic is sent to with the policies Cluster and
// Local. Each falls back to endpoints that are terminating and still serving.
type chosen struct {
	cluster, local []netip.AddrPort
	// any reports whether there is an endpoint on any node.
	any bool
	// ready are the ready endpoints on this node, for the health check.
	ready []netip.Addr
}

// choose applies the policies and hints to a port's endpoints, as upstream's
// v1.37 does.
func choose(all []endpoint, node, zone string) chosen {
	var c chosen
	hinted := topology(all, node, zone)
	var terminating, localTerminating []netip.AddrPort
	for i := range all {
		e := &all[i]
		switch {
		case e.ready:
			if hinted(e) {
				c.cluster = append(c.cluster, e.addr)
			}
			if e.local {
				c.local = append(c.local, e.addr)
				c.ready = append(c.ready, e.addr.Addr())
			}
			c.any = true
		case e.serving && e.terminating:
			terminating = append(terminating, e.addr)
			if e.local {
				localTerminating = append(localTerminating, e.addr)
			}
			c.any = true
		}
	}
	if len(c.cluster) == 0 {
		c.cluster = terminating
	}
	if len(c.local) == 0 {
		c.local = localTerminating
	}
	return c
}

// topology returns a filter for the ready endpoints that are for clients on this
// node. Hints are used only if all ready endpoints have them and one is for this
// node or zone; hints for nodes come before those for zones.
func topology(all []endpoint, node, zone string) func(*endpoint) bool {
	forNode := func(e *endpoint) bool {
		return slices.ContainsFunc(e.hints.ForNodes, func(n discoveryv1.ForNode) bool { return n.Name == node })
	}
	forZone := func(e *endpoint) bool {
		return slices.ContainsFunc(e.hints.ForZones, func(z discoveryv1.ForZone) bool { return z.Name == zone })
	}
	nodes, zones := true, zone != ""
	nodeHere, zoneHere := false, false
	for i := range all {
		e := &all[i]
		if !e.ready {
			continue
		}
		nodes = nodes && e.hints != nil && len(e.hints.ForNodes) > 0
		zones = zones && e.hints != nil && len(e.hints.ForZones) > 0
		if !nodes && !zones {
			break
		}
		nodeHere = nodeHere || nodes && forNode(e)
		zoneHere = zoneHere || zones && forZone(e)
	}
	switch {
	case nodes && nodeHere:
		return forNode
	case zones && zoneHere:
		return forZone
	}
	return func(*endpoint) bool { return true }
}
