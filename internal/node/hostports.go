package node

import (
	"net/netip"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// HostPort is a port of the machine that leads to a pod.
type HostPort struct {
	Protocol v1.Protocol
	// HostIP is the machine's address; the zero Addr stands for all.
	HostIP netip.Addr
	Port   int32
	Pod    netip.AddrPort
}

// HostPorts maps ports of the machine to pods.
type HostPorts interface {
	// Set gives the pod these ports, in place of those it had. None takes
	// them away.
	Set(pod types.UID, ports []HostPort) error
}

// mapHostPorts has the pod's host ports lead to its sandbox.
func (w *worker) mapHostPorts(pod *v1.Pod, obs *observed) error {
	sandbox := obs.ready()
	if w.a.HostPorts == nil || pod.Spec.HostNetwork || sandbox == nil || w.sandbox.mapped == sandbox.Id {
		return nil
	}
	var ports []HostPort
	for _, ip := range obs.ips() {
		to, err := netip.ParseAddr(ip)
		if err != nil {
			return err
		}
		for _, c := range containersOf(pod) {
			for _, p := range c.Ports {
				if p.HostPort == 0 {
					continue
				}
				host, _ := netip.ParseAddr(p.HostIP) // validated by the API; empty is all
				if host.IsUnspecified() {
					host = netip.Addr{}
				}
				if host.IsValid() && host.Is4() != to.Is4() {
					continue
				}
				ports = append(ports, HostPort{p.Protocol, host, p.HostPort, netip.AddrPortFrom(to, uint16(p.ContainerPort))})
			}
		}
	}
	if len(ports) > 0 {
		if err := w.a.HostPorts.Set(w.uid, ports); err != nil {
			return err
		}
	}
	w.sandbox.mapped = sandbox.Id
	return nil
}

func (w *worker) unmapHostPorts() error {
	if w.a.HostPorts == nil {
		return nil
	}
	return w.a.HostPorts.Set(w.uid, nil)
}
