package main

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"keelson.dev/keelson/internal/cluster"
	"keelson.dev/keelson/internal/machine"
	"keelson.dev/keelson/internal/node/cgroup"
	"keelson.dev/keelson/internal/node/eviction"
	"keelson.dev/keelson/internal/node/imagegc"
	"keelson.dev/keelson/internal/node/logs"
)

// nodeFlags are those of this machine's node.
type nodeFlags struct {
	none                   bool
	name, podCIDR, runtime string
	port                   int
	logMaxSize             string
	logMaxFiles            int
	maxPods                int64
	reserved               struct{ kube, system map[string]string }
	eviction               eviction.Settings
	imageGC                imagegc.Policy
	staticPods             string
	unsafeSysctls          []string
	cgroupDriver           string
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
	flags.StringVar(&f.cgroupDriver, "cgroup-driver", "", "what makes the cgroups of pods: cgroupfs or systemd, as the runtime does it (default: what the runtime says, else cgroupfs)")
	flags.StringSliceVar(&f.unsafeSysctls, "allowed-unsafe-sysctls", nil, "kernel parameters that pods of this machine may set beside the safe ones: names, or beginnings of names that end in *")
	flags.StringVar(&f.network.Proxy, "proxy", cluster.Builtin, "what has Services' addresses lead to their endpoints: builtin, or none where something else does (kube-proxy, Cilium)")
	flags.StringVar(&f.network.DNS, "dns", cluster.Builtin, "what resolves names for pods, at the tenth address of the services' range: builtin, or none where CoreDNS is installed there")
	flags.StringSliceVar(&f.network.NodePortAddresses, "nodeport-addresses", nil, "ranges of the machine's addresses on which node ports are served (default: the node's primary addresses)")
	flags.Int64Var(&f.maxPods, "max-pods", 110, "number of pods that can run on the node")
	flags.StringToStringVar(&f.reserved.kube, "kube-reserved", nil, "what is kept from pods for Kubernetes' components, like cpu=200m,memory=500Mi,ephemeral-storage=1Gi")
	flags.StringToStringVar(&f.reserved.system, "system-reserved", nil, "what is kept from pods for the rest of the machine, like cpu=200m,memory=500Mi,ephemeral-storage=1Gi")
	flags.Var(&thresholds{eviction.DefaultHard, '<', &f.eviction.Hard}, "eviction-hard", "what is to be left before pods are evicted at once, like memory.available<1Gi; empty for nothing")
	flags.Var(&thresholds{nil, '<', &f.eviction.Soft}, "eviction-soft", "what is to be left before pods are evicted after a grace period, like memory.available<1.5Gi")
	flags.Var(&thresholds{nil, '=', &f.eviction.SoftGrace}, "eviction-soft-grace-period", "how long less may be left, for each soft threshold, like memory.available=1m30s")
	flags.Var(&thresholds{nil, '=', &f.eviction.MinimumReclaim}, "eviction-minimum-reclaim", "how much more than its threshold has to be left for the pressure to be over, like imagefs.available=2Gi")
	flags.Int64Var(&f.eviction.MaxPodGrace, "eviction-max-pod-grace-period", 0, "the most, in seconds, that a pod is given to end where a soft threshold evicts it")
	flags.DurationVar(&f.eviction.Transition, "eviction-pressure-transition-period", eviction.DefaultTransition, "how long the node stays under pressure after its last cause")
	flags.IntVar(&f.imageGC.HighThreshold, "image-gc-high-threshold", imagegc.DefaultPolicy.HighThreshold, "percentage of the images' file system above which unused images are removed")
	flags.IntVar(&f.imageGC.LowThreshold, "image-gc-low-threshold", imagegc.DefaultPolicy.LowThreshold, "percentage of the images' file system down to which they are")
	flags.DurationVar(&f.imageGC.MinAge, "minimum-image-ttl-duration", imagegc.DefaultPolicy.MinAge, "how long an unused image is kept at least")
	flags.StringVar(&f.staticPods, "pod-manifest-path", "", "folder of the manifests of static pods, or one manifest (default: manifests in --data-dir)")
}

// thresholds is a flag of thresholds by signal, with upstream's separator.
type thresholds struct {
	standard  map[string]string
	separator byte
	to        *map[string]string
}

// String implements pflag.Value.
func (t *thresholds) String() string {
	if t.to == nil {
		return ""
	}
	m := *t.to
	if m == nil {
		m = t.standard
	}
	parts := make([]string, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, k+string(t.separator)+m[k])
	}
	return strings.Join(parts, ",")
}

// Set implements pflag.Value; what is set takes the place of all of the default.
func (t *thresholds) Set(s string) error {
	m := map[string]string{}
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		signal, value, ok := strings.Cut(part, string(t.separator))
		if !ok {
			return fmt.Errorf("malformed pair, expect string%cstring: %q", t.separator, part)
		}
		m[strings.TrimSpace(signal)] = strings.TrimSpace(value)
	}
	*t.to = m
	return nil
}

// Type implements pflag.Value.
func (t *thresholds) Type() string { return "mapStringString" }

// reservation reads amounts of the resources that can be reserved.
func reservation(flag string, m map[string]string) (v1.ResourceList, error) {
	out := v1.ResourceList{}
	for name, s := range m {
		switch v1.ResourceName(name) {
		case v1.ResourceCPU, v1.ResourceMemory, v1.ResourceEphemeralStorage:
		default:
			return nil, fmt.Errorf("--%s: cannot reserve %q resource: give cpu, memory or ephemeral-storage", flag, name)
		}
		q, err := resource.ParseQuantity(s)
		if err != nil {
			return nil, fmt.Errorf("--%s: failed to parse quantity %q for %q resource: %w", flag, s, name, err)
		}
		if q.Sign() < 0 {
			return nil, fmt.Errorf("--%s: resource quantity for %q cannot be negative: %v", flag, name, s)
		}
		out[v1.ResourceName(name)] = q
	}
	return out, nil
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

func (f *nodeFlags) options(dataDir string) (cluster.AgentOptions, error) {
	o := cluster.AgentOptions{Name: f.name, Port: f.port, LogMaxFiles: f.logMaxFiles, AllowedUnsafeSysctls: f.unsafeSysctls, CgroupDriver: cgroup.Driver(f.cgroupDriver),
		MaxPods: f.maxPods, Eviction: f.eviction, ImageGC: f.imageGC, StaticPods: f.staticPods, Network: f.network}
	if o.StaticPods == "" {
		o.StaticPods = filepath.Join(dataDir, "manifests")
	}
	if err := o.CgroupDriver.Validate(); err != nil {
		return o, fmt.Errorf("--cgroup-driver: %w", err)
	}
	var err error
	if o.StaticPods, err = filepath.Abs(o.StaticPods); err != nil {
		return o, err
	}
	if o.KubeReserved, err = reservation("kube-reserved", f.reserved.kube); err != nil {
		return o, err
	}
	if o.SystemReserved, err = reservation("system-reserved", f.reserved.system); err != nil {
		return o, err
	}
	if _, err := o.Eviction.Thresholds(); err != nil {
		return o, err
	}
	if err := errors.Join(o.ImageGC.Validate(), f.network.Validate()); err != nil {
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
