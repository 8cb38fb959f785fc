package lb

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
)

// Pool is the Balancer that assigns addresses of ranges, for which one of the
// nodes answers.
type Pool struct {
	ranges []Range
	slices cache.Indexer
	held   map[netip.Addr]types.NamespacedName
}

// NewPool makes a balancer. endpointSlices is the indexer of an informer with the
// index index.ByService. services are those that have addresses from before.
func NewPool(all []Range, endpointSlices cache.Indexer, services []*v1.Service) *Pool {
	p := &Pool{ranges: all, slices: endpointSlices, held: map[netip.Addr]types.NamespacedName{}}
	for _, s := range services {
		for _, a := range addressesOf(s) {
			if _, taken := p.held[a]; !taken && p.has(a) {
				p.held[a] = types.NamespacedName{Namespace: s.Namespace, Name: s.Name}
			}
		}
	}
	return p
}

// addressesOf returns the addresses of the Service's load balancer.
func addressesOf(s *v1.Service) (out []netip.Addr) {
	for _, in := range s.Status.LoadBalancer.Ingress {
		if a, err := netip.ParseAddr(in.IP); err == nil {
			out = append(out, a)
		}
	}
	return out
}

func (p *Pool) has(a netip.Addr) bool {
	return slices.ContainsFunc(p.ranges, func(r Range) bool { return r.Contains(a) })
}

// Ensure implements Balancer.
func (p *Pool) Ensure(_ context.Context, s *v1.Service, nodes []*v1.Node) (*Balanced, error) {
	name := types.NamespacedName{Namespace: s.Namespace, Name: s.Name}
	var addrs []netip.Addr
	theirs := map[netip.Addr]bool{}
	for _, n := range nodes {
		for _, x := range n.Status.Addresses {
			if a, err := netip.ParseAddr(x.Address); err == nil {
				theirs[a.Unmap()] = true
			}
		}
	}
	for i, f := range families(s) {
		a, err := p.choose(s, name, f, theirs)
		if err != nil {
			if i > 0 && (s.Spec.IPFamilyPolicy == nil || *s.Spec.IPFamilyPolicy != v1.IPFamilyPolicyRequireDualStack) {
				break // one family suffices
			}
			return nil, err
		}
		addrs = append(addrs, a)
	}
	for a, by := range p.held {
		if by == name && !slices.Contains(addrs, a) {
			delete(p.held, a)
		}
	}
	for _, a := range addrs {
		p.held[a] = name
	}
	out := &Balanced{Status: ingress(addrs), Annotations: map[string]string{AnnouncedBy: ""}}
	if able := rank(s, serving(s, nodes, p.slices)); len(able) > 0 {
		out.Annotations[AnnouncedBy] = able[0].Name
	}
	return out, nil
}

// choose assigns an address of a family to the Service: the one that it asks for,
// else the one that it has, else the first free one. Those that a node says that it has are
// taken last: it may be wrong.
func (p *Pool) choose(s *v1.Service, name types.NamespacedName, f v1.IPFamily, theirs map[netip.Addr]bool) (netip.Addr, error) {
	if s.Spec.LoadBalancerIP != "" {
		a, err := netip.ParseAddr(s.Spec.LoadBalancerIP)
		if err != nil {
			return a, fmt.Errorf("spec.loadBalancerIP: %w", err)
		}
		if of(a, f) {
			switch by, taken := p.held[a]; {
			case !p.has(a):
				return a, fmt.Errorf("spec.loadBalancerIP %s is not among the addresses of --load-balancer-addresses", a)
			case taken && by != name:
				return a, fmt.Errorf("spec.loadBalancerIP %s is the address of the Service %s", a, by)
			}
			return a, nil
		}
	}
	// The least of the addresses that it has, since the order of the map is random.
	var has netip.Addr
	for a, by := range p.held {
		if by == name && of(a, f) && (!has.IsValid() || a.Less(has)) {
			has = a
		}
	}
	if has.IsValid() {
		return has, nil
	}
	any := false
	var doubtful netip.Addr
	for _, r := range p.ranges {
		if !of(r.First, f) {
			continue
		}
		any = true
		// At most one address is taken per Service, and each node has few, so that the
		// search ends soon.
		for a := r.First; a.IsValid() && r.Contains(a); a = a.Next() {
			switch _, taken := p.held[a]; {
			case taken:
			case !theirs[a]:
				return a, nil
			case !doubtful.IsValid():
				doubtful = a
			}
		}
	}
	if doubtful.IsValid() {
		return doubtful, nil
	}
	if !any {
		return netip.Addr{}, fmt.Errorf("there are no %s addresses among those of --load-balancer-addresses", f)
	}
	return netip.Addr{}, fmt.Errorf("all %s addresses of --load-balancer-addresses are in use: delete a Service, or give more", f)
}

// Delete implements Balancer.
func (p *Pool) Delete(_ context.Context, s *v1.Service) error {
	name := types.NamespacedName{Namespace: s.Namespace, Name: s.Name}
	for a, by := range p.held {
		if by == name {
			delete(p.held, a)
		}
	}
	return nil
}
