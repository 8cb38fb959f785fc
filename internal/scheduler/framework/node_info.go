package framework

import (
	"maps"
	"slices"

	v1 "k8s.io/api/core/v1"
)

// HostPort is a port that a pod takes on its node's own addresses.
type HostPort struct {
	Protocol v1.Protocol
	IP       string
	Port     int32
}

// conflicts reports whether two pods cannot both have their port: the wildcard
// address takes the port on all addresses.
func (p HostPort) conflicts(o HostPort) bool {
	return p.Port == o.Port && p.Protocol == o.Protocol && (p.IP == o.IP || p.IP == anyIP || o.IP == anyIP)
}

// NodeInfo is a node with the pods on it, and sums over them.
type NodeInfo struct {
	Node *v1.Node
	Pods []*PodInfo
	// WithAffinity and WithRequiredAntiAffinity count the pods that have
	// inter-pod terms, and required anti-affinity terms.
	WithAffinity, WithRequiredAntiAffinity int
	Requested                              Resource
	NonZeroCPU, NonZeroMemory              int64
	Allocatable                            Resource
	// Ports maps each taken host port to its number of holders.
	Ports map[HostPort]int
	// Claims counts the pods on the node by the claims ("namespace/name") they use.
	Claims map[string]int
	// Generation grows whenever anything about the node changes.
	Generation int64
}

// SetNode replaces the node object.
func (n *NodeInfo) SetNode(node *v1.Node) {
	n.Node = node
	n.Allocatable = NewResource(node.Status.Allocatable)
}

// AddPod puts a pod on the node.
func (n *NodeInfo) AddPod(p *PodInfo) {
	n.Pods = append(n.Pods, p)
	n.account(p, 1)
}

// RemovePod takes a pod off the node and reports whether it was there.
func (n *NodeInfo) RemovePod(pod *v1.Pod) bool {
	for i, p := range n.Pods {
		if p.Pod.UID == pod.UID && p.Pod.Name == pod.Name && p.Pod.Namespace == pod.Namespace {
			last := len(n.Pods) - 1
			n.Pods[i], n.Pods[last] = n.Pods[last], nil
			n.Pods = n.Pods[:last]
			n.account(p, -1)
			return true
		}
	}
	return false
}

func (n *NodeInfo) account(p *PodInfo, sign int) {
	n.Requested.Add(&p.Requests.Requested, int64(sign))
	n.NonZeroCPU += int64(sign) * p.Requests.NonZeroCPU
	n.NonZeroMemory += int64(sign) * p.Requests.NonZeroMemory
	if a := p.Affinity; a != nil {
		n.WithAffinity += sign
		if len(a.RequiredAnti) > 0 {
			n.WithRequiredAntiAffinity += sign
		}
	}
	for _, c := range p.Claims {
		if n.Claims == nil {
			n.Claims = map[string]int{}
		}
		if n.Claims[c] += sign; n.Claims[c] <= 0 {
			delete(n.Claims, c)
		}
	}
	for _, hp := range p.Ports {
		if n.Ports == nil {
			n.Ports = map[HostPort]int{}
		}
		if n.Ports[hp] += sign; n.Ports[hp] <= 0 {
			delete(n.Ports, hp)
		}
	}
}

// PortsConflict reports whether any of the wanted ports is taken.
func (n *NodeInfo) PortsConflict(wanted []HostPort) bool {
	for _, w := range wanted {
		for have := range n.Ports {
			if w.conflicts(have) {
				return true
			}
		}
	}
	return false
}

// Clone copies the node's sums and its list of pods, for a what-if.
func (n *NodeInfo) Clone() *NodeInfo {
	out := *n
	out.Pods = slices.Clone(n.Pods)
	out.Requested = n.Requested.Clone()
	out.Ports, out.Claims = maps.Clone(n.Ports), maps.Clone(n.Claims)
	return &out
}

// HostPorts lists the host ports of a pod's containers, sidecars included.
func HostPorts(pod *v1.Pod) []HostPort {
	var out []HostPort
	add := func(c *v1.Container) {
		for _, p := range c.Ports {
			if p.HostPort <= 0 {
				continue
			}
			hp := HostPort{Protocol: p.Protocol, IP: p.HostIP, Port: p.HostPort}
			if hp.IP == "" {
				hp.IP = anyIP
			}
			if hp.Protocol == "" {
				hp.Protocol = v1.ProtocolTCP
			}
			out = append(out, hp)
		}
	}
	for i := range pod.Spec.Containers {
		add(&pod.Spec.Containers[i])
	}
	for i := range pod.Spec.InitContainers {
		if c := &pod.Spec.InitContainers[i]; c.RestartPolicy != nil && *c.RestartPolicy == v1.ContainerRestartPolicyAlways {
			add(c)
		}
	}
	return out
}

const anyIP = "0.0.0.0"
