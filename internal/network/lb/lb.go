package lb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/internal/network/index"
)

// Balancer makes the load balancers of Services. Its methods are not called
// concurrently.
type Balancer interface {
	// Ensure makes a load balancer for the Service that sends to these nodes, or
	// updates the one that it has. It is called again when the Service, its
	// endpoints or the nodes change.
	Ensure(ctx context.Context, s *v1.Service, nodes []*v1.Node) (*Balanced, error)
	// Delete deletes the Service's load balancer, if it has one.
	Delete(ctx context.Context, s *v1.Service) error
}

// Balanced is the result of a load balancer for its Service.
type Balanced struct {
	Status v1.LoadBalancerStatus
	// OfNodes says that the addresses are the nodes' own.
	OfNodes bool
	// Annotations are set on the Service.
	Annotations map[string]string
}

// The classes of Services (spec.loadBalancerClass) that select a balancer of
// this package.
const (
	ClassNodes = "keelson.dev/nodes"
	ClassPool  = "keelson.dev/pool"
)

// AnnouncedBy is the annotation that names the node that answers for the addresses
// of a Service's load balancer.
const AnnouncedBy = "keelson.dev/announced-by"

// Options configure the load balancers of a cluster.
type Options struct {
	// Mode says which Services get load balancers.
	Mode Mode
	// Addresses holds the ranges of the pool. If there are any, Services without
	// a class get their addresses from the pool.
	Addresses []Range
}

// Mode says which Services of the type LoadBalancer are left to another
// implementation.
type Mode string

const (
	// Builtin is none but those with another's class; it is the mode where there is
	// none.
	Builtin Mode = "builtin"
	// Classes is all but those with a class of this package.
	Classes Mode = "classes"
	// None is all.
	None Mode = "none"
)

// AddFlags adds the flags of the options.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	fs.Var(&o.Mode, "load-balancer", "implementation of Services of the type LoadBalancer: builtin, classes to leave those without the class "+ClassNodes+" or "+ClassPool+" to another one (a cloud controller manager, MetalLB), or none to leave all to it (default of keelson server: builtin, with --cloud-provider external classes)")
	fs.Var((*ranges)(&o.Addresses), "load-balancer-addresses", "addresses for Services of the type LoadBalancer, as 192.0.2.0/28 or 192.0.2.10-192.0.2.20, for which the nodes answer on their network (default: such Services get the nodes' own addresses)")
}

// Set implements pflag.Value.
func (m *Mode) Set(s string) error {
	if !slices.Contains([]Mode{Builtin, Classes, None}, Mode(s)) {
		return errors.New("give builtin, classes or none")
	}
	*m = Mode(s)
	return nil
}

// String implements pflag.Value.
func (m *Mode) String() string { return string(cmp.Or(*m, Builtin)) }

// Type implements pflag.Value.
func (m *Mode) Type() string { return "string" }

// Range is a range of addresses of one family, both ends included.
type Range struct{ First, Last netip.Addr }

// ParseRange reads a range: a prefix, two addresses with a dash, or one address. The
// first and the last address of an IPv4 prefix with more than two addresses are left
// out: they are the network's and the broadcast address.
func ParseRange(s string) (r Range, err error) {
	switch first, last, dash := strings.Cut(s, "-"); {
	case dash:
		if r.First, err = netip.ParseAddr(strings.TrimSpace(first)); err == nil {
			r.Last, err = netip.ParseAddr(strings.TrimSpace(last))
		}
	case strings.Contains(s, "/"):
		var p netip.Prefix
		if p, err = netip.ParsePrefix(s); err != nil {
			break
		}
		p = p.Masked()
		end := p.Addr().AsSlice()
		for i := p.Bits(); i < len(end)*8; i++ {
			end[i/8] |= 0x80 >> (i % 8)
		}
		r.First = p.Addr()
		r.Last, _ = netip.AddrFromSlice(end)
		if p.Addr().Is4() && p.Bits() < 31 {
			r.First, r.Last = r.First.Next(), r.Last.Prev()
		}
	default:
		r.First, err = netip.ParseAddr(s)
		r.Last = r.First
	}
	switch {
	case err != nil:
		return Range{}, fmt.Errorf("%w: give a range like 192.0.2.0/28 or 192.0.2.10-192.0.2.20", err)
	case r.First.Is4() != r.Last.Is4() || r.Last.Less(r.First):
		return Range{}, fmt.Errorf("%s: the first address is not before the last", s)
	}
	return r, nil
}

// Contains reports whether the address is in the range.
func (r Range) Contains(a netip.Addr) bool {
	return a.Is4() == r.First.Is4() && !a.Less(r.First) && !r.Last.Less(a)
}

// ranges is the flag value of ranges. The flag can be repeated.
type ranges []Range

// Set implements pflag.Value.
func (v *ranges) Set(s string) error {
	for part := range strings.SplitSeq(s, ",") {
		r, err := ParseRange(strings.TrimSpace(part))
		if err != nil {
			return err
		}
		*v = append(*v, r)
	}
	return nil
}

// String implements pflag.Value.
func (v *ranges) String() string {
	parts := make([]string, 0, len(*v))
	for _, r := range *v {
		parts = append(parts, r.First.String()+"-"+r.Last.String())
	}
	return strings.Join(parts, ",")
}

// Type implements pflag.Value.
func (v *ranges) Type() string { return "ranges" }

// serving returns the nodes that can serve the Service: those that are Ready
// and, with the external traffic policy Local, have a ready endpoint.
func serving(s *v1.Service, nodes []*v1.Node, slices cache.Indexer) (out []*v1.Node) {
	var local map[string]bool
	if s.Spec.ExternalTrafficPolicy == v1.ServiceExternalTrafficPolicyLocal {
		local = map[string]bool{}
		for _, slice := range index.Of(slices, s.Namespace, s.Name) {
			for i := range slice.Endpoints {
				if e := &slice.Endpoints[i]; e.NodeName != nil && ready(e) {
					local[*e.NodeName] = true
				}
			}
		}
	}
	for _, n := range nodes {
		if Ready(n) && (local == nil || local[n.Name]) {
			out = append(out, n)
		}
	}
	return out
}

func ready(e *discoveryv1.Endpoint) bool { return e.Conditions.Ready == nil || *e.Conditions.Ready }

// Ready reports whether the node is Ready.
func Ready(n *v1.Node) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == v1.NodeReady {
			return c.Status == v1.ConditionTrue
		}
	}
	return false
}

// rank orders nodes for a Service by rendezvous hashing: the first node stays
// first as long as it is there, whichever others come and go.
func rank(s *v1.Service, nodes []*v1.Node) []*v1.Node {
	score := func(n *v1.Node) uint64 {
		h := fnv.New64a()
		fmt.Fprintf(h, "%s %s", s.UID, n.Name)
		x := h.Sum64() // the upper bits of FNV differ little for similar names
		x ^= x >> 33
		x *= 0xff51afd7ed558ccd
		return x ^ x>>33
	}
	out := slices.Clone(nodes)
	slices.SortFunc(out, func(a, b *v1.Node) int { return cmp.Or(cmp.Compare(score(a), score(b)), cmp.Compare(a.Name, b.Name)) })
	return out
}

// families returns the IP families of the Service.
func families(s *v1.Service) []v1.IPFamily {
	if len(s.Spec.IPFamilies) > 0 {
		return s.Spec.IPFamilies
	}
	return []v1.IPFamily{v1.IPv4Protocol}
}

func of(a netip.Addr, f v1.IPFamily) bool { return a.Is4() == (f == v1.IPv4Protocol) }

func ingress(addrs []netip.Addr) v1.LoadBalancerStatus {
	var out v1.LoadBalancerStatus
	for _, a := range addrs {
		vip := v1.LoadBalancerIPModeVIP
		out.Ingress = append(out.Ingress, v1.LoadBalancerIngress{IP: a.String(), IPMode: &vip})
	}
	return out
}
