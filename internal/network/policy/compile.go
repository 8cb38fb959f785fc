package policy

import (
	"net/netip"
	"slices"

	v1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// spec is a NetworkPolicy in a form that is easier to evaluate.
type spec struct {
	subjects labels.Selector
	// isolates reports whether the policy isolates the pods that it selects, in
	// each direction.
	isolates [2]bool
	allows   [2][]allowance
}

// Directions.
const (
	in = iota
	out
)

// allowance is an ingress or egress rule of a policy.
type allowance struct {
	// anyPeer and anyPort report whether the rule names no peers, or no ports.
	anyPeer, anyPort bool
	groups           []groupOf
	ranges           []span
	ports            []port
}

// groupOf selects the pods of a peer.
type groupOf struct {
	// namespace is the only namespace, if namespaces are not selected by labels.
	namespace  string
	namespaces labels.Selector
	pods       labels.Selector
}

// key returns a key that is equal for equal selections, and for no others: there is no bar in
// selectors, while keys of labels may have slashes.
func (g *groupOf) key() string {
	if g.namespaces == nil {
		return "pods/" + g.namespace + "|" + g.pods.String()
	}
	return "pods/|" + g.namespaces.String() + "|" + g.pods.String()
}

// port is an entry of a rule's ports: a protocol, with a name, or with a range of
// numbers, or with neither.
type port struct {
	proto       v1.Protocol
	name        string
	first, last uint16
}

// span is a range of addresses of one family, both ends included.
type span struct{ first, last netip.Addr }

// String formats the span as first-last.
func (s span) String() string { return s.first.String() + "-" + s.last.String() }

func compile(p *networkingv1.NetworkPolicy) (*spec, error) {
	s := &spec{}
	var err error
	if s.subjects, err = metav1.LabelSelectorAsSelector(&p.Spec.PodSelector); err != nil {
		return nil, err
	}
	s.isolates[in] = len(p.Spec.PolicyTypes) == 0 || slices.Contains(p.Spec.PolicyTypes, networkingv1.PolicyTypeIngress)
	s.isolates[out] = slices.Contains(p.Spec.PolicyTypes, networkingv1.PolicyTypeEgress) ||
		len(p.Spec.PolicyTypes) == 0 && len(p.Spec.Egress) > 0
	if s.isolates[in] {
		for i := range p.Spec.Ingress {
			a, err := allow(p.Namespace, p.Spec.Ingress[i].From, p.Spec.Ingress[i].Ports)
			if err != nil {
				return nil, err
			}
			s.allows[in] = append(s.allows[in], a)
		}
	}
	if s.isolates[out] {
		for i := range p.Spec.Egress {
			a, err := allow(p.Namespace, p.Spec.Egress[i].To, p.Spec.Egress[i].Ports)
			if err != nil {
				return nil, err
			}
			s.allows[out] = append(s.allows[out], a)
		}
	}
	return s, nil
}

func allow(namespace string, peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort) (allowance, error) {
	a := allowance{anyPeer: len(peers) == 0, anyPort: len(ports) == 0}
	for i := range peers {
		p := &peers[i]
		if p.IPBlock != nil {
			spans, err := block(p.IPBlock)
			if err != nil {
				return a, err
			}
			a.ranges = append(a.ranges, spans...)
			continue
		}
		g := groupOf{namespace: namespace, pods: labels.Everything()}
		var err error
		if p.PodSelector != nil {
			if g.pods, err = metav1.LabelSelectorAsSelector(p.PodSelector); err != nil {
				return a, err
			}
		}
		if p.NamespaceSelector != nil {
			g.namespace = ""
			if g.namespaces, err = metav1.LabelSelectorAsSelector(p.NamespaceSelector); err != nil {
				return a, err
			}
		}
		a.groups = append(a.groups, g)
	}
	a.ranges = union(a.ranges)
	for i := range ports {
		p := port{proto: v1.ProtocolTCP}
		if ports[i].Protocol != nil {
			p.proto = *ports[i].Protocol
		}
		if n := ports[i].Port; n != nil {
			if n.Type == intstr.String {
				p.name = n.StrVal
			} else {
				p.first, p.last = uint16(n.IntVal), uint16(n.IntVal)
				if ports[i].EndPort != nil {
					p.last = uint16(*ports[i].EndPort)
				}
			}
		}
		a.ports = append(a.ports, p)
	}
	return a, nil
}

// block returns the addresses of an IPBlock, without its exceptions.
func block(b *networkingv1.IPBlock) ([]span, error) {
	p, err := netip.ParsePrefix(b.CIDR)
	if err != nil {
		return nil, err
	}
	left := []span{spanOf(p)}
	for _, text := range b.Except {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, err
		}
		left = without(left, spanOf(p))
	}
	return left, nil
}

func spanOf(p netip.Prefix) span {
	p = p.Masked()
	last := p.Addr().AsSlice()
	for i := p.Bits(); i < len(last)*8; i++ {
		last[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(last)
	return span{p.Addr(), a}
}

// without returns the spans without the addresses of x.
func without(all []span, x span) (left []span) {
	for _, s := range all {
		if s.first.Is4() != x.first.Is4() || s.last.Less(x.first) || x.last.Less(s.first) {
			left = append(left, s)
			continue
		}
		if s.first.Less(x.first) {
			left = append(left, span{s.first, x.first.Prev()})
		}
		if x.last.Less(s.last) {
			left = append(left, span{x.last.Next(), s.last})
		}
	}
	return left
}

// union sorts the spans, and joins those that overlap or touch.
func union(all []span) (out []span) {
	slices.SortFunc(all, func(a, b span) int { return a.first.Compare(b.first) })
	for _, s := range all {
		if n := len(out); n > 0 && out[n-1].first.Is4() == s.first.Is4() {
			last := &out[n-1]
			if next := last.last.Next(); !next.IsValid() || !next.Less(s.first) {
				if last.last.Less(s.last) {
					last.last = s.last
				}
				continue
			}
		}
		out = append(out, s)
	}
	return out
}

// isolating returns a policy with the same pods and types that allows nothing. It
// selects all pods of its namespace if the selector is invalid.
func isolating(p *networkingv1.NetworkPolicy) *spec {
	s, err := compile(&networkingv1.NetworkPolicy{Spec: networkingv1.NetworkPolicySpec{PodSelector: p.Spec.PodSelector, PolicyTypes: p.Spec.PolicyTypes}})
	if err != nil {
		return &spec{subjects: labels.Everything(), isolates: [2]bool{true, true}}
	}
	return s
}
