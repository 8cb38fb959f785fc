package report

import (
	"net"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// Uninitialized is the taint of a Node that a cloud's controller manager has yet to
// initialize. That takes it away.
var Uninitialized = v1.Taint{Key: "node.cloudprovider.kubernetes.io/uninitialized", Value: "true", Effect: v1.TaintEffectNoSchedule}

// providedIP is the annotation by which a node asks a cloud's controller manager for
// these of the machine's addresses.
const providedIP = "alpha.kubernetes.io/provided-node-ip"

// addresses returns those of the Node, which has these. What a cloud's controller
// manager has given stays.
func (s *Reporter) addresses(has []v1.NodeAddress) (out []v1.NodeAddress) {
	if s.External && len(has) > 0 {
		return has
	}
	for _, ip := range s.NodeIPs() {
		out = append(out, v1.NodeAddress{Type: v1.NodeInternalIP, Address: ip.String()})
	}
	return append(out, v1.NodeAddress{Type: v1.NodeHostName, Address: s.Hostname})
}

// annotate sets the annotation of the addresses that were asked for, or takes an old
// one away, and reports whether that has changed the Node.
func (s *Reporter) annotate(n *v1.Node) (changed bool) {
	old, had := n.Annotations[providedIP]
	ips := s.NodeIPs()
	if !s.External || len(ips) == 0 {
		delete(n.Annotations, providedIP)
		return had
	}
	all := make([]string, 0, len(ips))
	for _, ip := range ips {
		all = append(all, ip.String())
	}
	now := strings.Join(all, ",")
	if n.Annotations == nil {
		n.Annotations = map[string]string{}
	}
	n.Annotations[providedIP] = now
	return now != old
}

// HostIPs returns the addresses that pods of the Node have for their host: the first
// internal one, or else external one, and the first of the other family.
func HostIPs(n *v1.Node) (out []net.IP) {
	for _, t := range []v1.NodeAddressType{v1.NodeInternalIP, v1.NodeExternalIP} {
		for _, a := range n.Status.Addresses {
			ip := net.ParseIP(a.Address)
			if a.Type != t || ip == nil {
				continue
			}
			if len(out) == 0 || len(out) == 1 && (out[0].To4() == nil) != (ip.To4() == nil) {
				out = append(out, ip)
			}
		}
	}
	return out
}
