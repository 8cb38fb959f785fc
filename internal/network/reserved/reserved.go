package reserved

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// Config configures Addresses. The caller starts the informers, of which any may be nil.
type Config struct {
	// NodeName is the name of this node.
	NodeName string
	// Services are ranges of the Services' addresses, beside those of ServiceCIDRs.
	Services []netip.Prefix
	// Nodes has all nodes, ServiceCIDRs all ranges of the Services' addresses, and
	// EndpointSlices that of the API server.
	Nodes, ServiceCIDRs, EndpointSlices cache.SharedIndexInformer
}

// Addresses are the reserved addresses. A nil pointer reserves none.
type Addresses struct {
	Config
	mu sync.Mutex
	// cidrs are the ranges of ServiceCIDRs, and nodes the properties of Nodes, by name.
	cidrs map[string][]netip.Prefix
	nodes map[string]node
	// owners counts the nodes that have an address.
	owners map[netip.Addr]int
	// servers are the API server's endpoints.
	servers []netip.AddrPort
	changed []func()
}

// node holds a node's own addresses, the ranges of its pods, and the port of its kubelet.
type node struct {
	addresses []netip.Addr
	pods      []netip.Prefix
	kubelet   uint16
}

func (n node) equal(o node) bool {
	return slices.Equal(n.addresses, o.addresses) && slices.Equal(n.pods, o.pods) && n.kubelet == o.kubelet
}

// New makes the set of reserved addresses, which follows the informers.
func New(c Config) (*Addresses, error) {
	a := &Addresses{Config: c, cidrs: map[string][]netip.Prefix{}, nodes: map[string]node{}, owners: map[netip.Addr]int{}}
	return a, errors.Join(a.follow(c.Nodes, a.setNode), a.follow(c.ServiceCIDRs, a.setRange), a.follow(c.EndpointSlices, a.setServers))
}

// follow calls set with each object that is there or is gone.
func (a *Addresses) follow(i cache.SharedIndexInformer, set func(obj any, there bool) (changed bool)) error {
	if i == nil {
		return nil
	}
	do := func(obj any, there bool) {
		a.mu.Lock()
		changed := set(obj, there)
		told := slices.Clone(a.changed)
		a.mu.Unlock()
		for _, f := range told {
			if changed {
				f()
			}
		}
	}
	_, err := i.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { do(obj, true) },
		UpdateFunc: func(_, obj any) { do(obj, true) },
		DeleteFunc: func(obj any) {
			if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = gone.Obj
			}
			do(obj, false)
		},
	})
	return err
}

func (a *Addresses) setNode(obj any, there bool) bool {
	n, ok := obj.(*v1.Node)
	if !ok {
		return false
	}
	now := node{pods: prefixes(n.Spec.PodCIDRs), kubelet: uint16(n.Status.DaemonEndpoints.KubeletEndpoint.Port)}
	for _, x := range n.Status.Addresses {
		if ip, err := netip.ParseAddr(x.Address); err == nil && (x.Type == v1.NodeInternalIP || x.Type == v1.NodeExternalIP) {
			now.addresses = append(now.addresses, ip.Unmap())
		}
	}
	was := a.nodes[n.Name]
	if a.nodes[n.Name] = now; !there {
		now = node{}
		delete(a.nodes, n.Name)
	}
	for _, ip := range now.addresses {
		a.owners[ip]++
	}
	for _, ip := range was.addresses {
		if a.owners[ip]--; a.owners[ip] == 0 {
			delete(a.owners, ip)
		}
	}
	return !was.equal(now)
}

func (a *Addresses) setRange(obj any, there bool) bool {
	s, ok := obj.(*networkingv1.ServiceCIDR)
	if !ok {
		return false
	}
	was := a.cidrs[s.Name]
	if a.cidrs[s.Name] = prefixes(s.Spec.CIDRs); !there {
		delete(a.cidrs, s.Name)
	}
	return !slices.Equal(was, a.cidrs[s.Name])
}

func (a *Addresses) setServers(obj any, there bool) bool {
	s, ok := obj.(*discoveryv1.EndpointSlice)
	if !ok || !OfServers(s) {
		return false
	}
	was := a.servers
	if a.servers = nil; there {
		a.servers = Endpoints(s)
	}
	return !slices.Equal(was, a.servers)
}

// OfServers reports whether a slice has the endpoints of the API server.
func OfServers(s *discoveryv1.EndpointSlice) bool {
	return s.Namespace == metav1.NamespaceDefault && s.Name == "kubernetes"
}

// Endpoints returns the addresses of a slice, each with each port.
func Endpoints(s *discoveryv1.EndpointSlice) (out []netip.AddrPort) {
	for i := range s.Endpoints {
		for _, x := range s.Endpoints[i].Addresses {
			ip, err := netip.ParseAddr(x)
			for _, p := range s.Ports {
				if err == nil && p.Port != nil {
					out = append(out, netip.AddrPortFrom(ip.Unmap(), uint16(*p.Port)))
				}
			}
		}
	}
	return out
}

func prefixes(all []string) (out []netip.Prefix) {
	for _, s := range all {
		if p, err := netip.ParsePrefix(s); err == nil {
			out = append(out, p.Masked())
		}
	}
	return out
}

// OnChange has f called after each change of the reserved addresses. f must not block.
func (a *Addresses) OnChange(f func()) {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.changed = append(a.changed, f)
}

// Why returns why a Service may not have a port of an address as an external one, "" if it may.
func (a *Addresses) Why(at netip.AddrPort) string {
	ip := at.Addr().Unmap()
	if ip.IsUnspecified() || ip.IsLoopback() || ip.IsLinkLocalUnicast() || ip.IsMulticast() {
		return "it is no address of one machine in the network"
	}
	if a == nil {
		return ""
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	holds := func(r netip.Prefix) bool { return r.Contains(ip) }
	if slices.ContainsFunc(a.Services, holds) {
		return "it is in the range of the Services' own addresses, where it may be another's"
	}
	for name, all := range a.cidrs {
		if slices.ContainsFunc(all, holds) {
			return fmt.Sprintf("it is in the range of the Services' own addresses (ServiceCIDR %s), where it may be another's", name)
		}
	}
	own := a.nodes[a.NodeName]
	mine := slices.Contains(own.addresses, ip)
	if mine && own.kubelet == at.Port() && own.kubelet != 0 {
		return "it is the kubelet's"
	}
	for name, n := range a.nodes {
		if slices.ContainsFunc(n.pods, holds) {
			return fmt.Sprintf("it is in the range of the pods of the node %s", name)
		}
	}
	for _, s := range a.servers {
		if s.Addr() == ip && (!mine || s.Port() == at.Port()) {
			return "it is the API server's"
		}
	}
	return ""
}

// OfNodes is the type of the condition of a Service whose load balancer is the nodes
// themselves, at their own addresses. It is in the status, which no user of a Service writes.
const OfNodes = "keelson.dev/LoadBalancerOfNodes"

// Served reports whether this node serves an address of a Service's load balancer for all of
// the cluster's packets: not where it is another node's own. A node tells its addresses
// itself. So that none takes a load balancer away by telling that it has its address,
// this counts only where the load balancer is the nodes.
func (a *Addresses) Served(s *v1.Service, ip netip.Addr) bool {
	return !meta.IsStatusConditionTrue(s.Status.Conditions, OfNodes) || !a.Elsewhere(ip)
}

// Elsewhere reports whether an address is of another node and not of this one. That node knows
// which of its ports are free for Services.
func (a *Addresses) Elsewhere(ip netip.Addr) bool {
	if a == nil {
		return false
	}
	ip = ip.Unmap()
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.owners[ip] > 0 && !slices.Contains(a.nodes[a.NodeName].addresses, ip)
}
