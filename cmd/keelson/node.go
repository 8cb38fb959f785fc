package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/api/resource"

	"keelson.dev/keelson/internal/cluster"
	"keelson.dev/keelson/internal/machine"
	"keelson.dev/keelson/internal/node/logs"
)

// nodeFlags are those of this machine's node.
type nodeFlags struct {
	none                   bool
	name, podCIDR, runtime string
	port                   int
	logMaxSize             string
	logMaxFiles            int
	unsafeSysctls          []string
	network                cluster.Network
}

func (f *nodeFlags) add(flags *pflag.FlagSet) {
	flags.BoolVar(&f.none, "no-node", false, "run no node on this machine")
	flags.StringVar(&f.name, "node-name", "", "name of this machine's node (default: the machine's)")
	flags.StringVar(&f.podCIDR, "pod-cidr", "10.244.0.0/24", "range of the addresses of this machine's pods")
	flags.StringVar(&f.runtime, "container-runtime-endpoint", "", "CRI socket of a running runtime (default: a private containerd)")
	flags.IntVar(&f.port, "node-port", 10250, "port of the node's HTTP server")
	flags.StringVar(&f.logMaxSize, "container-log-max-size", "10Mi", "size at which a container's log is rotated")
	flags.IntVar(&f.logMaxFiles, "container-log-max-files", logs.DefaultMaxFiles, "how many log files a container has, with the one being written; at least 2")
	flags.StringSliceVar(&f.unsafeSysctls, "allowed-unsafe-sysctls", nil, "kernel parameters that pods of this machine may set beside the safe ones: names, or beginnings of names that end in *")
	flags.StringVar(&f.network.Proxy, "proxy", cluster.Builtin, "what has Services' addresses lead to their endpoints: builtin, or none where something else does (kube-proxy, Cilium)")
	flags.StringVar(&f.network.DNS, "dns", cluster.Builtin, "what resolves names for pods, at the tenth address of the services' range: builtin, or none where CoreDNS is installed there")
	flags.StringSliceVar(&f.network.NodePortAddresses, "nodeport-addresses", nil, "ranges of the machine's addresses on which node ports are served (default: the node's primary addresses)")
}

// machine is what this machine's node runs on, nil if there is to be none.
func (f *nodeFlags) machine(dataDir string) (*machine.Machine, error) {
	if f.none || dataDir == "" {
		return nil, nil
	}
	cidr, err := netip.ParsePrefix(f.podCIDR)
	if err != nil {
		return nil, fmt.Errorf("--pod-cidr %q: %w: give a range like 10.244.0.0/24", f.podCIDR, err)
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("a node needs root to run containers: use sudo, or --no-node for a control plane alone")
	}
	dir, err := filepath.Abs(dataDir)
	if err != nil {
		return nil, err
	}
	return machine.New(dir, machine.Options{PodCIDR: cidr, Runtime: f.runtime}), nil
}

func (f *nodeFlags) options() (cluster.AgentOptions, error) {
	o := cluster.AgentOptions{Name: f.name, Port: f.port, LogMaxFiles: f.logMaxFiles, AllowedUnsafeSysctls: f.unsafeSysctls, Network: f.network}
	if err := f.network.Validate(); err != nil {
		return o, err
	}
	size, err := resource.ParseQuantity(f.logMaxSize)
	if err != nil || size.Value() <= 0 {
		return o, fmt.Errorf("--container-log-max-size %q: give a size like 10Mi", f.logMaxSize)
	}
	o.LogMaxSize = size.Value()
	if f.logMaxFiles < 2 {
		return o, fmt.Errorf("--container-log-max-files %d: at least 2 are needed, so that one can be rotated", f.logMaxFiles)
	}
	return o, nil
}
