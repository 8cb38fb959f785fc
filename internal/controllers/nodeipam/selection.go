package nodeipam

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/spf13/pflag"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/flagvalue"
)

// Selection configures which ranges nodes get, under the names of
// kube-controller-manager's flags.
type Selection struct {
	// NoAllocation leaves nodes without ranges.
	NoAllocation bool
	// ClusterCIDRs are the ranges to give from, one of a family at most.
	ClusterCIDRs []string
	// MaskSize is the length of the mask of a node's range, where there is one
	// ClusterCIDR; MaskSizeIPv4 and MaskSizeIPv6 are where there are two. 0 is 24 of
	// IPv4 and 64 of IPv6.
	MaskSize, MaskSizeIPv4, MaskSizeIPv6 int
}

// AddFlags adds the flags.
func (s *Selection) AddFlags(fs *pflag.FlagSet) {
	flagvalue.NotVar(fs, &s.NoAllocation, "allocate-node-cidrs", "give each Node ranges of pods' addresses, spec.podCIDRs")
	fs.StringSliceVar(&s.ClusterCIDRs, "cluster-cidr", s.ClusterCIDRs, "ranges that the nodes' ranges of pods' addresses are taken from: one, or one of each family, comma separated (default of keelson server: 10.244.0.0/16, or a larger one for many --sim-nodes)")
	fs.IntVar(&s.MaskSize, "node-cidr-mask-size", s.MaskSize, "length of the mask of a node's range, with one --cluster-cidr (default: 24 for IPv4, 64 for IPv6)")
	fs.IntVar(&s.MaskSizeIPv4, "node-cidr-mask-size-ipv4", s.MaskSizeIPv4, "length of the mask of a node's range of IPv4 in a dual-stack cluster (default 24)")
	fs.IntVar(&s.MaskSizeIPv6, "node-cidr-mask-size-ipv6", s.MaskSizeIPv6, "length of the mask of a node's range of IPv6 in a dual-stack cluster (default 64)")
}

// The masks of nodes' ranges where none are given, upstream's.
const defaultIPv4, defaultIPv6 = 24, 64

// Ranges returns what the selection says, none where nodes are to get none.
func (s *Selection) Ranges() ([]controllers.PodRange, error) {
	if s.NoAllocation {
		return nil, nil
	}
	var out []controllers.PodRange
	for _, c := range s.ClusterCIDRs {
		p, err := netip.ParsePrefix(c)
		if err != nil {
			return nil, fmt.Errorf("--cluster-cidr %q: %w: give a range like 10.244.0.0/16", c, err)
		}
		out = append(out, controllers.PodRange{Cluster: p.Masked()})
	}
	switch {
	case len(out) == 0:
		return nil, errors.New("--allocate-node-cidrs: there is no range to give from: give --cluster-cidr")
	case len(out) > 2:
		return nil, fmt.Errorf("--cluster-cidr: %d ranges: there can be one of IPv4 and one of IPv6", len(out))
	case len(out) == 2 && out[0].Cluster.Addr().Is4() == out[1].Cluster.Addr().Is4():
		return nil, errors.New("--cluster-cidr: two ranges of one family: give one of IPv4 and one of IPv6")
	case len(out) == 2 && s.MaskSize != 0:
		return nil, errors.New("usage of --node-cidr-mask-size is not allowed with dual-stack clusters: give --node-cidr-mask-size-ipv4 and --node-cidr-mask-size-ipv6")
	case s.MaskSize != 0 && (s.MaskSizeIPv4 != 0 || s.MaskSizeIPv6 != 0):
		return nil, errors.New("usage of --node-cidr-mask-size-ipv4 and --node-cidr-mask-size-ipv6 is not allowed if --node-cidr-mask-size is set")
	}
	for i := range out {
		four := out[i].Cluster.Addr().Is4()
		if len(out) == 1 && (four && s.MaskSizeIPv6 != 0 || !four && s.MaskSizeIPv4 != 0) {
			return nil, fmt.Errorf("--node-cidr-mask-size: the mask that is given is not of the family of --cluster-cidr %s", out[i].Cluster)
		}
		out[i].NodeBits = defaultIPv6
		own := s.MaskSizeIPv6
		if four {
			out[i].NodeBits, own = defaultIPv4, s.MaskSizeIPv4
		}
		if own != 0 || s.MaskSize != 0 {
			out[i].NodeBits = max(own, s.MaskSize)
		}
		if _, err := newPool(out[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Complete fills in a range with room for that many nodes where none is given.
func (s *Selection) Complete(nodes int) {
	if s.NoAllocation || len(s.ClusterCIDRs) > 0 {
		return
	}
	if nodes < 1<<(defaultIPv4-16)-1 {
		s.ClusterCIDRs = []string{"10.244.0.0/16"}
		return
	}
	// So many are simulated, and their addresses reach nothing.
	s.ClusterCIDRs = []string{"10.128.0.0/9"}
	if s.MaskSize == 0 && s.MaskSizeIPv4 == 0 {
		for s.MaskSize = defaultIPv4; nodes >= 1<<(s.MaskSize-9)-1 && s.MaskSize-9 < maxBits; {
			s.MaskSize++
		}
	}
}
