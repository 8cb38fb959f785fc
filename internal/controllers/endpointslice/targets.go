package endpointslice

import (
	"slices"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	utilnet "k8s.io/utils/net"
)

// serving is a pod behind a Service, with the numbers of its ports: one for each of
// the Service's, 0 for a named port that the pod does not have.
type serving struct {
	pod   *v1.Pod
	ports []int32
}

// targets returns the pods that have an address and are not over, each with the
// Service's ports as it has them: a named target port may be another number on each.
func targets(svc *v1.Service, pods []*v1.Pod) []serving {
	same, named := make([]int32, len(svc.Spec.Ports)), false
	for i := range svc.Spec.Ports {
		p := &svc.Spec.Ports[i]
		if named = named || p.TargetPort.Type == intstr.String; !named {
			same[i], _ = portOf(nil, p)
		}
	}
	out := make([]serving, 0, len(pods))
	for _, p := range pods {
		if p.Status.PodIP == "" && len(p.Status.PodIPs) == 0 || p.Status.Phase == v1.PodSucceeded || p.Status.Phase == v1.PodFailed {
			continue
		}
		ports := same
		if named {
			ports = make([]int32, len(svc.Spec.Ports))
			for i := range svc.Spec.Ports {
				ports[i], _ = portOf(p, &svc.Spec.Ports[i])
			}
		}
		out = append(out, serving{p, ports})
	}
	return out
}

// portOf returns the number of a Service's port on a pod.
func portOf(p *v1.Pod, sp *v1.ServicePort) (int32, bool) {
	if sp.TargetPort.Type == intstr.Int {
		if n := sp.TargetPort.IntVal; n != 0 {
			return n, true
		}
		return sp.Port, true
	}
	of := func(containers []v1.Container) (int32, bool) {
		for i := range containers {
			for _, cp := range containers[i].Ports {
				if cp.Name == sp.TargetPort.StrVal && cp.Protocol == sp.Protocol {
					return cp.ContainerPort, true
				}
			}
		}
		return 0, false
	}
	if n, ok := of(p.Spec.Containers); ok {
		return n, true
	}
	// Of the other containers only those that go on running have ports.
	return of(slices.DeleteFunc(slices.Clone(p.Spec.InitContainers), func(c v1.Container) bool {
		return c.RestartPolicy == nil || *c.RestartPolicy != v1.ContainerRestartPolicyAlways
	}))
}

// key names the numbers of ports.
func key(ports []int32) string {
	var b strings.Builder
	for _, n := range ports {
		b.WriteString(strconv.Itoa(int(n)))
		b.WriteByte(',')
	}
	return b.String()
}

// addressesOf returns a pod's addresses of a family.
func addressesOf(p *v1.Pod, family v1.IPFamily) (out []string) {
	ips := p.Status.PodIPs
	if len(ips) == 0 {
		ips = []v1.PodIP{{IP: p.Status.PodIP}}
	}
	for _, ip := range ips {
		if parsed := utilnet.ParseIPSloppy(ip.IP); parsed != nil && utilnet.IsIPv6(parsed) == (family == v1.IPv6Protocol) {
			out = append(out, parsed.String())
		}
	}
	return out
}

// families returns the families of a Service's addresses; an API server that does not
// know of them leaves them out.
func families(svc *v1.Service) []v1.IPFamily {
	switch {
	case len(svc.Spec.IPFamilies) > 0:
		return svc.Spec.IPFamilies
	case utilnet.IsIPv6String(svc.Spec.ClusterIP):
		return []v1.IPFamily{v1.IPv6Protocol}
	case headless(svc):
		return []v1.IPFamily{v1.IPv4Protocol, v1.IPv6Protocol}
	}
	return []v1.IPFamily{v1.IPv4Protocol}
}

func headless(svc *v1.Service) bool {
	return svc.Spec.ClusterIP == v1.ClusterIPNone || svc.Spec.ClusterIP == ""
}

func ready(p *v1.Pod) bool {
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == v1.PodReady {
			return p.Status.Conditions[i].Status == v1.ConditionTrue
		}
	}
	return false
}

func hostname(svc *v1.Service, p *v1.Pod) *string {
	if p.Spec.Hostname != "" && p.Spec.Subdomain == svc.Name {
		return &p.Spec.Hostname
	}
	return nil
}

func ref(p *v1.Pod) *v1.ObjectReference {
	return &v1.ObjectReference{Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: p.UID}
}
