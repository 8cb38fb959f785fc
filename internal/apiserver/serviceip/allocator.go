package serviceip

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/api/core"
)

// Allocator implements the API server's Reservation for Services.
type Allocator struct {
	cidr      netip.Prefix
	low, high int32 // node ports, inclusive

	mu    sync.Mutex
	ips   map[netip.Addr]bool
	ports map[portKey]int // uses: a Service may use one port for two protocols
}

type portKey struct {
	port     int32
	protocol v1.Protocol
}

// New makes an allocator for addresses in cidr (IPv4) and node ports between
// low and high, with what existing Services hold taken.
func New(cidr netip.Prefix, low, high int32, existing []*v1.Service) (*Allocator, error) {
	if !cidr.Addr().Is4() || cidr.Bits() > 30 {
		return nil, fmt.Errorf("service CIDR %s: an IPv4 range of at least four addresses is needed", cidr)
	}
	a := &Allocator{cidr: cidr.Masked(), low: low, high: high}
	a.Reset(existing)
	return a, nil
}

// Reset makes what existing Services hold the only things taken.
func (a *Allocator) Reset(existing []*v1.Service) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ips, a.ports = map[netip.Addr]bool{}, map[portKey]int{}
	for _, s := range existing {
		for _, ip := range addresses(s) {
			a.ips[ip] = true
		}
		for k := range nodePorts(s) {
			a.ports[k]++
		}
	}
}

// First is the address of the kubernetes Service.
func (a *Allocator) First() netip.Addr { return a.cidr.Addr().Next() }

// size is the number of addresses of the range.
func (a *Allocator) size() int { return 1 << (32 - a.cidr.Bits()) }

// at is the address n places into the range.
func (a *Allocator) at(n int) netip.Addr {
	b := a.cidr.Addr().As4()
	v := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	v += uint32(n)
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
}

// addresses are the cluster IPs that s holds.
func addresses(s *v1.Service) (out []netip.Addr) {
	if s == nil || s.Spec.Type == v1.ServiceTypeExternalName {
		return nil
	}
	for _, c := range s.Spec.ClusterIPs {
		if ip, err := netip.ParseAddr(c); err == nil {
			out = append(out, ip)
		}
	}
	return out
}

// nodePorts are the node ports that s holds.
func nodePorts(s *v1.Service) map[portKey]bool {
	out := map[portKey]bool{}
	if s == nil || s.Spec.Type != v1.ServiceTypeNodePort && s.Spec.Type != v1.ServiceTypeLoadBalancer {
		return out
	}
	for _, p := range s.Spec.Ports {
		if p.NodePort != 0 {
			out[portKey{p.NodePort, p.Protocol}] = true
		}
	}
	if s.Spec.HealthCheckNodePort != 0 {
		out[portKey{s.Spec.HealthCheckNodePort, v1.ProtocolTCP}] = true
	}
	return out
}

func invalid(s *v1.Service, errs ...*field.Error) error {
	return apierrors.NewInvalid(v1.SchemeGroupVersion.WithKind("Service").GroupKind(), s.Name, errs)
}

// Reserve takes what obj needs beyond what old holds, and fills it in. What old
// held and obj no longer needs is freed once the write is committed.
func (a *Allocator) Reserve(_ context.Context, o, was runtime.Object, dryRun bool) (func(bool), error) {
	s := o.(*v1.Service)
	var old *v1.Service
	if was != nil {
		old = was.(*v1.Service)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	var ips []netip.Addr
	var ports []portKey
	undo := func() {
		for _, ip := range ips {
			delete(a.ips, ip)
		}
		for _, k := range ports {
			a.release(k)
		}
	}
	if err := a.families(s); err != nil {
		return nil, err
	}
	if err := a.address(s, old, &ips); err != nil {
		undo()
		return nil, err
	}
	if err := a.nodePorts(s, old, &ports); err != nil {
		undo()
		return nil, err
	}
	return func(committed bool) {
		a.mu.Lock()
		defer a.mu.Unlock()
		if !committed || dryRun {
			undo()
			return
		}
		if old == nil {
			return
		}
		now := addresses(s)
		for _, ip := range addresses(old) {
			if !slices.Contains(now, ip) {
				delete(a.ips, ip)
			}
		}
		kept := nodePorts(s)
		for k := range nodePorts(old) {
			if !kept[k] {
				a.release(k)
			}
		}
	}, nil
}

func (a *Allocator) release(k portKey) {
	if a.ports[k]--; a.ports[k] <= 0 {
		delete(a.ports, k)
	}
}

// families fills in the IP families: this cluster has IPv4.
func (a *Allocator) families(s *v1.Service) error {
	if s.Spec.Type == v1.ServiceTypeExternalName {
		return nil
	}
	if errs := core.ValidateClusterIPs(s); len(errs) > 0 {
		return invalid(s, errs...)
	}
	spec := field.NewPath("spec")
	if p := ptr.Deref(s.Spec.IPFamilyPolicy, ""); p == v1.IPFamilyPolicyRequireDualStack {
		return invalid(s, field.Invalid(spec.Child("ipFamilyPolicy"), p, "this cluster is not configured for dual-stack services"))
	}
	for i, f := range s.Spec.IPFamilies {
		if f == v1.IPv6Protocol {
			return invalid(s, field.Invalid(spec.Child("ipFamilies").Index(i), f, "not configured on this cluster"))
		}
	}
	if s.Spec.IPFamilyPolicy == nil {
		s.Spec.IPFamilyPolicy = ptr.To(v1.IPFamilyPolicySingleStack)
	}
	if len(s.Spec.IPFamilies) == 0 {
		s.Spec.IPFamilies = []v1.IPFamily{v1.IPv4Protocol}
	}
	return nil
}

func (a *Allocator) address(s, old *v1.Service, taken *[]netip.Addr) error {
	if s.Spec.Type == v1.ServiceTypeExternalName {
		return nil
	}
	if s.Spec.ClusterIP == v1.ClusterIPNone {
		return nil
	}
	held := addresses(old)
	if s.Spec.ClusterIP == "" {
		ip, ok := a.dynamic()
		if !ok {
			return apierrors.NewInternalError(fmt.Errorf("failed to allocate a serviceIP: range is full"))
		}
		a.ips[ip] = true
		*taken = append(*taken, ip)
		s.Spec.ClusterIP, s.Spec.ClusterIPs = ip.String(), []string{ip.String()}
		return nil
	}
	refuse := func(why string) error {
		return invalid(s, field.Invalid(field.NewPath("spec", "clusterIPs"), s.Spec.ClusterIPs, fmt.Sprintf("failed to allocate IP %s: %s", s.Spec.ClusterIP, why)))
	}
	ip, err := netip.ParseAddr(s.Spec.ClusterIP)
	switch {
	case err != nil:
		return invalid(s, field.Invalid(field.NewPath("spec", "clusterIPs").Index(0), s.Spec.ClusterIP, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"))
	case slices.Contains(held, ip):
		return nil
	case !a.cidr.Contains(ip) || ip == a.cidr.Addr() || ip == a.at(a.size()-1):
		return refuse(fmt.Sprintf("the provided IP (%v) is not in the valid range. The range of valid IPs is %s", ip, a.cidr))
	case a.ips[ip]:
		return refuse("provided IP is already allocated")
	}
	a.ips[ip] = true
	*taken = append(*taken, ip)
	return nil
}

// dynamic picks a free address, in the upper band if there is one: the lower
// is for those that are asked for by number. KEP-3070.
func (a *Allocator) dynamic() (netip.Addr, bool) {
	size := a.size()
	band := min(max(16, size/16), 256)
	if size < 32 {
		band = 0
	}
	search := func(from, to int) (netip.Addr, bool) {
		n := to - from
		if n <= 0 {
			return netip.Addr{}, false
		}
		start := rand.IntN(n)
		for i := range n {
			if ip := a.at(from + (start+i)%n); !a.ips[ip] {
				return ip, true
			}
		}
		return netip.Addr{}, false
	}
	if ip, ok := search(1+band, size-1); ok {
		return ip, true
	}
	return search(1, 1+band)
}

func (a *Allocator) nodePorts(s, old *v1.Service, taken *[]portKey) error {
	external := s.Spec.Type == v1.ServiceTypeNodePort || s.Spec.Type == v1.ServiceTypeLoadBalancer && ptr.Deref(s.Spec.AllocateLoadBalancerNodePorts, true)
	held := nodePorts(old)
	take := func(k portKey) {
		a.ports[k]++
		*taken = append(*taken, k)
	}
	var mine = map[int32]bool{}
	for i := range s.Spec.Ports {
		p, at := &s.Spec.Ports[i], field.NewPath("spec", "ports").Index(i).Child("nodePort")
		if p.NodePort == 0 {
			continue
		}
		if s.Spec.Type == v1.ServiceTypeClusterIP || s.Spec.Type == v1.ServiceTypeExternalName {
			continue // its validation refuses it
		}
		k := portKey{p.NodePort, p.Protocol}
		mine[p.NodePort] = true
		if held[k] {
			continue
		}
		if p.NodePort < a.low || p.NodePort > a.high {
			return invalid(s, field.Invalid(at, p.NodePort, fmt.Sprintf("provided port is not in the valid range. The range of valid ports is %d-%d", a.low, a.high)))
		}
		if a.ports[k] > 0 {
			return invalid(s, field.Invalid(at, p.NodePort, "provided port is already allocated"))
		}
		take(k)
	}
	free := func(protocol v1.Protocol) (int32, bool) {
		n := int(a.high-a.low) + 1
		start := rand.IntN(n)
		for i := range n {
			port := a.low + int32((start+i)%n)
			if a.ports[portKey{port, protocol}] == 0 && !mine[port] {
				return port, true
			}
		}
		return 0, false
	}
	if !external {
		return nil
	}
	// One number serves the same port in several protocols.
	byPort := map[int32]int32{}
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		if p.NodePort != 0 {
			byPort[p.Port] = p.NodePort
			continue
		}
		if n, ok := byPort[p.Port]; ok && a.ports[portKey{n, p.Protocol}] == 0 {
			p.NodePort = n
		} else {
			n, ok := free(p.Protocol)
			if !ok {
				return apierrors.NewInternalError(fmt.Errorf("failed to allocate a nodePort: range is full"))
			}
			p.NodePort = n
		}
		byPort[p.Port] = p.NodePort
		mine[p.NodePort] = true
		take(portKey{p.NodePort, p.Protocol})
	}
	if s.Spec.Type == v1.ServiceTypeLoadBalancer && s.Spec.ExternalTrafficPolicy == v1.ServiceExternalTrafficPolicyLocal {
		k := portKey{s.Spec.HealthCheckNodePort, v1.ProtocolTCP}
		switch {
		case k.port == 0:
			n, ok := free(v1.ProtocolTCP)
			if !ok {
				return apierrors.NewInternalError(fmt.Errorf("failed to allocate a healthCheckNodePort: range is full"))
			}
			s.Spec.HealthCheckNodePort = n
			take(portKey{n, v1.ProtocolTCP})
		case !held[k]:
			if a.ports[k] > 0 {
				return invalid(s, field.Invalid(field.NewPath("spec", "healthCheckNodePort"), k.port, "provided port is already allocated"))
			}
			take(k)
		}
	}
	return nil
}

// Release implements the API server's Reservation.
func (a *Allocator) Release(o runtime.Object) {
	s := o.(*v1.Service)
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, ip := range addresses(s) {
		delete(a.ips, ip)
	}
	for k := range nodePorts(s) {
		a.release(k)
	}
}
