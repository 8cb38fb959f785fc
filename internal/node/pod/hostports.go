package pod

import (
	"net/netip"

	v1 "k8s.io/api/core/v1"

	"keelson.dev/keelson/internal/node/hostport"
	"keelson.dev/keelson/internal/node/podspec"
)

// mapPorts maps the pod's host ports to its sandbox.
func (sb *sandbox) mapPorts(pod *v1.Pod, obs *observed) error {
	now := obs.ready()
	if sb.HostPorts == nil || pod.Spec.HostNetwork || now == nil || sb.mapped == now.Id {
		return nil
	}
	var ports []hostport.Port
	for _, ip := range obs.ips() {
		to, err := netip.ParseAddr(ip)
		if err != nil {
			return err
		}
		for _, c := range podspec.Containers(pod) {
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
				ports = append(ports, hostport.Port{Protocol: p.Protocol, HostIP: host, Port: p.HostPort, Pod: netip.AddrPortFrom(to, uint16(p.ContainerPort))})
			}
		}
	}
	if len(ports) > 0 {
		if err := sb.HostPorts.Set(sb.uid, ports); err != nil {
			return err
		}
	}
	sb.mapped = now.Id
	return nil
}

func (sb *sandbox) unmapPorts() error {
	if sb.HostPorts == nil {
		return nil
	}
	return sb.HostPorts.Set(sb.uid, nil)
}
