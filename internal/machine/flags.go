package machine

import (
	"fmt"
	"net/netip"

	"github.com/spf13/pflag"
)

// defaultPodCIDR is that of Options.PodCIDR.
var defaultPodCIDR = netip.MustParsePrefix("10.244.0.0/24")

// AddFlags adds the flags of what pods run on.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	o.PodCIDR = defaultPodCIDR
	fs.Var((*prefix)(&o.PodCIDR), "pod-cidr", "range of the addresses of this machine's pods")
	fs.StringVar(&o.Runtime, "container-runtime-endpoint", "", "CRI socket of a running runtime (default: a private containerd)")
}

// prefix is a flag of a range of addresses.
type prefix netip.Prefix

// Set implements pflag.Value.
func (p *prefix) Set(s string) error {
	v, err := netip.ParsePrefix(s)
	if err != nil {
		return fmt.Errorf("%w: give a range like %s", err, defaultPodCIDR)
	}
	*p = prefix(v)
	return nil
}

// String implements pflag.Value.
func (p *prefix) String() string { return netip.Prefix(*p).String() }

// Type implements pflag.Value.
func (p *prefix) Type() string { return "string" }
