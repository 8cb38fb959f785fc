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

// oracle evaluates packets by the API's documentation of NetworkPolicies,
// without the package's data structures.
type oracle struct {
	node       string
	pods       map[string]*v1.Pod // by namespace/name
	namespaces map[string]*v1.Namespace
	policies   map[string]*networkingv1.NetworkPolicy
}

// podOf returns the pod that has the address.
func (o *oracle) podOf(a netip.Addr) *v1.Pod {
	for _, p := range o.pods {
		if p.Spec.HostNetwork || p.Status.Phase == v1.PodSucceeded || p.Status.Phase == v1.PodFailed {
			continue
		}
		for _, ip := range p.Status.PodIPs {
			if ip.IP == a.String() {
				return p
			}
		}
	}
	return nil
}

func (o *oracle) allows(p packet) bool {
	if p.from == p.to {
		return true
	}
	from, to := o.podOf(p.from), o.podOf(p.to)
	return o.direction(from, networkingv1.PolicyTypeEgress, p, to, p.to, to) && o.direction(to, networkingv1.PolicyTypeIngress, p, from, p.from, to)
}

// direction reports whether a pod's policies of one type allow a peer. Port
// names are resolved in the pod that the packet goes to.
func (o *oracle) direction(subject *v1.Pod, t networkingv1.PolicyType, p packet, peer *v1.Pod, peerAddr netip.Addr, dest *v1.Pod) bool {
	if subject == nil || subject.Spec.NodeName != o.node {
		return true
	}
	isolated := false
	for _, pol := range o.policies {
		if pol.Namespace != subject.Namespace || !slices.Contains(pol.Spec.PolicyTypes, t) || !matches(&pol.Spec.PodSelector, subject.Labels) {
			continue
		}
		isolated = true
		if t == networkingv1.PolicyTypeIngress {
			for _, r := range pol.Spec.Ingress {
				if o.peers(pol, r.From, peer, peerAddr) && ports(r.Ports, p, dest) {
					return true
				}
			}
			continue
		}
		for _, r := range pol.Spec.Egress {
			if o.peers(pol, r.To, peer, peerAddr) && ports(r.Ports, p, dest) {
				return true
			}
		}
	}
	return !isolated
}

func matches(s *metav1.LabelSelector, l map[string]string) bool {
	sel, err := metav1.LabelSelectorAsSelector(s)
	return err == nil && sel.Matches(labels.Set(l))
}

func (o *oracle) peers(pol *networkingv1.NetworkPolicy, all []networkingv1.NetworkPolicyPeer, peer *v1.Pod, addr netip.Addr) bool {
	for _, x := range all {
		if x.IPBlock != nil {
			if netip.MustParsePrefix(x.IPBlock.CIDR).Contains(addr) && !slices.ContainsFunc(x.IPBlock.Except, func(e string) bool { return netip.MustParsePrefix(e).Contains(addr) }) {
				return true
			}
			continue
		}
		if peer == nil {
			continue
		}
		ok := peer.Namespace == pol.Namespace
		if x.NamespaceSelector != nil {
			ns := o.namespaces[peer.Namespace]
			ok = ns != nil && matches(x.NamespaceSelector, ns.Labels)
		}
		if ok && (x.PodSelector == nil || matches(x.PodSelector, peer.Labels)) {
			return true
		}
	}
	return len(all) == 0
}

func ports(all []networkingv1.NetworkPolicyPort, p packet, dest *v1.Pod) bool {
	for _, x := range all {
		if *x.Protocol != p.proto {
			continue
		}
		switch {
		case x.Port == nil:
			return true
		case x.Port.Type == intstr.Int:
			last := x.Port.IntVal
			if x.EndPort != nil {
				last = *x.EndPort
			}
			if x.Port.IntVal <= int32(p.port) && int32(p.port) <= last {
				return true
			}
		case dest != nil:
			for _, c := range dest.Spec.Containers {
				for _, cp := range c.Ports {
					if cp.Name == x.Port.StrVal && cp.Protocol == p.proto && cp.ContainerPort == int32(p.port) {
						return true
					}
				}
			}
		}
	}
	return len(all) == 0
}
