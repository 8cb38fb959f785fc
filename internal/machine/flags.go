package machine

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/spf13/pflag"
)

// AddFlags adds the flags of the runtime and the pods' network.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	fs.Var((*prefixes)(&o.PodCIDRs), "pod-cidr", "ranges of the addresses of this machine's pods, one of a family, comma separated (default: those of the Node, spec.podCIDRs)")
	fs.Var((*left)(&o.NoPodNetwork), "pod-network", "network of the pods where /etc/cni/net.d has no CNI configuration: builtin, or none to wait for one (of Calico, Cilium, Flannel)")
	fs.StringVar(&o.Registry, "registry", "", "address of a registry on this machine, as :5000: everyone who reaches the address can push images, which are localhost:5000/NAME for pods (default: none)")
	fs.StringVar(&o.RootDir, "root-dir", "", "folder of the node's pods and of the sockets of plug-ins (default: "+kubeletRoot+" for the default --data-dir where there is no kubelet, else node in --data-dir)")
	fs.StringVar(&o.Runtime, "container-runtime-endpoint", "", "CRI socket of a running runtime (default: a private containerd)")
}

// prefixes is the flag value of ranges of addresses.
type prefixes []netip.Prefix

// Set implements pflag.Value.
func (p *prefixes) Set(s string) error {
	var out prefixes
	for r := range strings.SplitSeq(s, ",") {
		v, err := netip.ParsePrefix(r)
		if err != nil {
			return fmt.Errorf("%w: give a range like 10.244.0.0/24", err)
		}
		out = append(out, v.Masked())
	}
	*p = out
	return nil
}

// String implements pflag.Value.
func (p *prefixes) String() string {
	var out []string
	for _, r := range *p {
		out = append(out, r.String())
	}
	return strings.Join(out, ",")
}

// Type implements pflag.Value.
func (p *prefixes) Type() string { return "strings" }

// left is the flag value of a part that may be left to another implementation:
// builtin or none.
type left bool

// Set implements pflag.Value.
func (l *left) Set(s string) error {
	if s != "builtin" && s != "none" {
		return errors.New("give builtin or none")
	}
	*l = s == "none"
	return nil
}

// String implements pflag.Value.
func (l *left) String() string {
	if *l {
		return "none"
	}
	return "builtin"
}

// Type implements pflag.Value.
func (l *left) Type() string { return "string" }
