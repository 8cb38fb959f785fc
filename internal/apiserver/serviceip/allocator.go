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
)

// Allocator implements the API server's Reservation for Services.
type Allocator struct {
	objects   Objects
	clusters  []v1.IPFamily // the cluster's families, the one that is the default first
	low, high int32         // node ports, inclusive

	mu    sync.Mutex
	ports map[portKey]int // uses: a Service may use one port for two protocols
}

type portKey struct {
	port     int32
	protocol v1.Protocol
}

// New makes an allocator of the addresses of these families in objects' ranges and of
// node ports between low and high, of which those that existing Services hold are
// taken. A Service that asks for no family has the first.
func New(objects Objects, families []v1.IPFamily, low, high int32, existing []*v1.Service) *Allocator {
	a := &Allocator{objects: objects, clusters: families, low: low, high: high}
	a.Reset(existing)
	return a
}

// Reset makes the node ports that existing Services hold the only ones taken.
func (a *Allocator) Reset(existing []*v1.Service) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ports = map[portKey]int{}
	for _, s := range existing {
		for k := range nodePorts(s) {
			a.ports[k]++
		}
	}
}

// Ports reports whether s (or old, its former state, nil for none) has node ports, or
// may be given some.
func Ports(s, old *v1.Service) bool {
	return s.Spec.Type == v1.ServiceTypeNodePort || s.Spec.Type == v1.ServiceTypeLoadBalancer || len(nodePorts(old)) > 0
}

// addresses returns the cluster IPs that s holds.
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

// nodePorts returns the node ports that s holds.
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
func (a *Allocator) Reserve(ctx context.Context, o, was runtime.Object, dryRun bool) (func(bool), error) {
	s := o.(*v1.Service)
	var old *v1.Service
	if was != nil {
		old = was.(*v1.Service)
	}
	if err := a.families(s, old); err != nil {
		return nil, err
	}
	ports, err := a.takePorts(s, old)
	if err != nil {
		return nil, err
	}
	ips, err := a.addresses(ctx, s, old, dryRun)
	if err != nil {
		a.freePorts(ports)
		return nil, err
	}
	return func(committed bool) {
		if !committed || dryRun {
			a.freePorts(ports)
			if !dryRun {
				a.free(ctx, s, ips...)
			}
			return
		}
		if old == nil {
			return
		}
		now := addresses(s)
		a.free(ctx, old, slices.DeleteFunc(addresses(old), func(ip netip.Addr) bool { return slices.Contains(now, ip) })...)
		kept := nodePorts(s)
		var gone []portKey
		for k := range nodePorts(old) {
			if !kept[k] {
				gone = append(gone, k)
			}
		}
		a.freePorts(gone)
	}, nil
}

// takePorts takes the node ports that s needs beyond those of old.
func (a *Allocator) takePorts(s, old *v1.Service) (taken []portKey, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.nodePorts(s, old, &taken); err != nil {
		for _, k := range taken {
			a.release(k)
		}
		return nil, err
	}
	return taken, nil
}

func (a *Allocator) freePorts(ports []portKey) {
	if len(ports) == 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, k := range ports {
		a.release(k)
	}
}

func (a *Allocator) release(k portKey) {
	if a.ports[k]--; a.ports[k] <= 0 {
		delete(a.ports, k)
	}
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
	a.free(context.Background(), s, addresses(s)...)
	var ports []portKey
	for k := range nodePorts(s) {
		ports = append(ports, k)
	}
	a.freePorts(ports)
}
