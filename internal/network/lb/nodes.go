package lb

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
)

// nodesMax bounds the number of nodes whose addresses a Service gets.
const nodesMax = 100

// Nodes is the Balancer that uses the nodes' own addresses. A port belongs to the
// first Service that asks for it.
type Nodes struct {
	slices cache.Indexer
	// ports holds the Service that has each port.
	ports map[port]types.NamespacedName
}

type port struct {
	proto v1.Protocol
	port  int32
}

// NewNodes makes a balancer. endpointSlices is the indexer of an informer with the
// index index.ByService. services are those that have ports from before.
func NewNodes(endpointSlices cache.Indexer, services []*v1.Service) *Nodes {
	n := &Nodes{slices: endpointSlices, ports: map[port]types.NamespacedName{}}
	slices.SortFunc(services, func(a, b *v1.Service) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.UID, b.UID))
	})
	for _, s := range services {
		if len(s.Status.LoadBalancer.Ingress) > 0 {
			_ = n.take(s) // of two Services with the same port, the older one keeps it
		}
	}
	return n
}

// take reserves all ports of the Service, or none.
func (n *Nodes) take(s *v1.Service) error {
	name := types.NamespacedName{Namespace: s.Namespace, Name: s.Name}
	want := map[port]bool{}
	for _, p := range s.Spec.Ports {
		k := port{cmp.Or(p.Protocol, v1.ProtocolTCP), p.Port}
		if by, taken := n.ports[k]; taken && by != name {
			return fmt.Errorf("port %d/%s of the nodes is that of the Service %s: choose another port, or delete that Service", k.port, k.proto, by)
		}
		want[k] = true
	}
	n.give(name)
	for k := range want {
		n.ports[k] = name
	}
	return nil
}

func (n *Nodes) give(name types.NamespacedName) {
	for k, by := range n.ports {
		if by == name {
			delete(n.ports, k)
		}
	}
}

// Ensure implements Balancer.
func (n *Nodes) Ensure(_ context.Context, s *v1.Service, nodes []*v1.Node) (*Balanced, error) {
	if err := n.take(s); err != nil {
		return nil, err
	}
	chosen := serving(s, nodes, n.slices)
	if len(chosen) > nodesMax {
		chosen = rank(s, chosen)[:nodesMax]
	}
	slices.SortFunc(chosen, func(a, b *v1.Node) int { return cmp.Compare(a.Name, b.Name) })
	var addrs []netip.Addr
	for _, f := range families(s) {
		for _, node := range chosen {
			if a := addressOf(node, f); a.IsValid() && !slices.Contains(addrs, a) {
				addrs = append(addrs, a)
			}
		}
	}
	return &Balanced{Status: ingress(addrs), OfNodes: true}, nil
}

// addressOf returns the node's address of a family, the external one if it has one.
func addressOf(n *v1.Node, f v1.IPFamily) (out netip.Addr) {
	for _, t := range []v1.NodeAddressType{v1.NodeExternalIP, v1.NodeInternalIP} {
		for _, x := range n.Status.Addresses {
			if a, err := netip.ParseAddr(x.Address); err == nil && x.Type == t && of(a, f) {
				return a
			}
		}
	}
	return out
}

// Delete implements Balancer.
func (n *Nodes) Delete(_ context.Context, s *v1.Service) error {
	n.give(types.NamespacedName{Namespace: s.Namespace, Name: s.Name})
	return nil
}
