package agent

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"keelson.dev/keelson/internal/flagvalue"
	"keelson.dev/keelson/internal/node/backoff"
	"keelson.dev/keelson/internal/node/cgroup"
	"keelson.dev/keelson/internal/node/logs"
	"keelson.dev/keelson/internal/node/pullrecord"
	"keelson.dev/keelson/internal/node/report"
	"keelson.dev/keelson/internal/trace/otlp"
)

// AddFlags adds the flags of the node, except those of Eviction, ImageGC, Exclusive
// and Network.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	o.LogMaxSize = logs.DefaultMaxSize
	fs.StringVar(&o.Name, "node-name", "", "name of this machine's node (default: the machine's)")
	fs.IntVar(&o.Port, "node-port", 10250, "port of the node's HTTP server")
	fs.Var((*size)(&o.LogMaxSize), "container-log-max-size", "size at which a container's log is rotated")
	fs.IntVar(&o.LogMaxFiles, "container-log-max-files", logs.DefaultMaxFiles, "how many log files a container has, with the one being written; at least 2")
	fs.StringVar((*string)(&o.CgroupDriver), "cgroup-driver", "", "driver of the pods' cgroups, which must be the runtime's: cgroupfs or systemd (default: the runtime's, else cgroupfs)")
	fs.StringSliceVar(&o.AllowedUnsafeSysctls, "allowed-unsafe-sysctls", nil, "kernel parameters that pods of this machine may set beside the safe ones: names, or beginnings of names that end in *")
	fs.Int64Var(&o.MaxPods, "max-pods", 110, "number of pods that can run on the node")
	fs.Var((*reservation)(&o.KubeReserved), "kube-reserved", "resources reserved for Kubernetes' components, like cpu=200m,memory=500Mi,ephemeral-storage=1Gi")
	fs.Var((*reservation)(&o.SystemReserved), "system-reserved", "resources reserved for the rest of the machine, like cpu=200m,memory=500Mi,ephemeral-storage=1Gi")
	fs.Int64Var(&o.PodPidsLimit, "pod-max-pids", 0, "number of processes that a pod may have; no limit where it is 0 or -1")
	fs.StringVar(&o.Tracing, "tracing", "", `collector that the node sends what it does to as spans of OpenTelemetry, by gRPC without TLS, in JSON as in a KubeletConfiguration: {"endpoint":"localhost:4317","samplingRatePerMillion":1000000}`)
	fs.StringVar(&o.ResolvConf, "resolv-conf", "/etc/resolv.conf", "resolver configuration for pods that use the machine's")
	fs.StringToStringVar(&o.Labels, "node-labels", nil, "labels of the node, like zone=a,disk=fast")
	fs.Var((*taints)(&o.Taints), "register-with-taints", "taints that the node is registered with, like key=value:NoSchedule, comma separated")
	fs.StringVar(&o.ProviderID, "provider-id", "", "identifier of the machine at its provider, spec.providerID of the node")
	flagvalue.WordVar(fs, &o.ExternalCloud, "cloud-provider", "external", "there is no built-in cloud provider: give external, and run the cloud's own controller manager",
		"external: a cloud's controller manager gives the nodes their addresses and initializes them, and load balancers to Services without a class")
	fs.StringVar(&o.CredentialConfig, "image-credential-provider-config", "", "file with the plug-ins that have credentials for images (CredentialProviderConfig v1)")
	fs.StringVar(&o.CredentialBin, "image-credential-provider-bin-dir", "", "folder of the programs of these plug-ins")
	fs.StringVar(&o.Storage, "storage", Builtin, "driver of volumes on this machine's disk, for the StorageClass "+localClass+": builtin, or none")
	fs.StringVar(&o.Logs, "pod-logs-dir", "", "folder of the logs of pods (default: node/logs in --data-dir)")
	fs.BoolVar(&o.SeccompDefault, "seccomp-default", false, "give containers without a seccomp profile the runtime's")
	fs.IntVar(&o.MaxImages, "node-status-max-images", report.DefaultMaxImages, "how many images the node's status has; -1 is all")
	fs.Int64Var(&o.PodsPerCore, "pods-per-core", 0, "number of pods that can run on the node for each CPU, no more than --max-pods; 0 is no such limit")
	fs.DurationVar(&o.LogPeriod, "container-log-monitor-interval", 10*time.Second, "how often the size of containers' logs is looked at; at least 3 seconds")
	fs.IntVar(&o.MaxPulls, "max-parallel-image-pulls", 0, "how many images are pulled at one time; 0 is no limit")
	fs.StringVar(&o.VerifyPulls, "image-pull-credentials-verification-policy", pullrecord.NeverVerifyPreloadedImages, "images of the node that a pod needs the credentials for: "+strings.Join(pullrecord.Policies, ", "))
	fs.StringSliceVar(&o.VerifyPullsExcept, "preloaded-images-verification-allowlist", nil, "repositories that NeverVerifyAllowlistedImages needs none for, like registry.example.com/base/*")
	fs.DurationVar(&o.MaxRestartPause, "max-container-restart-period", backoff.Max, "longest pause before a container that crashes is started again, from 1s to 5m")
	fs.StringVar(&o.Swap, "memory-swap-behavior", NoSwap, "who uses swap, on cgroup v2: NoSwap, or LimitedSwap for burstable pods, in proportion to the memory that they request")
	fs.Float64Var(&o.MemoryQoS.Throttling, "memory-throttling-factor", 0.9, "part of the memory between a container's request and its limit after which it is slowed down, on cgroup v2; 0 slows none down")
	fs.StringVar((*string)(&o.MemoryQoS.Reservation), "memory-reservation-policy", string(cgroup.NoReservation), "whose requested memory is protected, on cgroup v2: None, or TieredReservation for that of Guaranteed and burstable pods")
	o.Server.AddFlags(fs)
	o.Shutdown.AddFlags(fs)
	fs.StringVar(&o.StaticPods, "pod-manifest-path", "", "folder of the manifests of static pods, or one manifest (default: manifests in --data-dir)")
	fs.StringVar(&o.StaticPodURL, "manifest-url", "", "URL of the manifests of other static pods: a Pod, or a PodList")
	fs.StringSliceVar(&o.StaticPodHeaders, "manifest-url-header", nil, "headers of requests for --manifest-url, each a name, a colon and a value")
}

// Validate returns an error for invalid values of flags.
func (o *Options) Validate() error {
	var errs []error
	if err := o.CgroupDriver.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("--cgroup-driver: %w", err))
	}
	if o.Tracing != "" {
		if _, err := otlp.ParseConfig(o.Tracing); err != nil {
			errs = append(errs, err)
		}
	}
	if o.LogMaxFiles < 2 {
		errs = append(errs, fmt.Errorf("--container-log-max-files %d: at least 2 are needed, so that one can be rotated", o.LogMaxFiles))
	}
	if (o.CredentialConfig == "") != (o.CredentialBin == "") {
		errs = append(errs, errors.New("--image-credential-provider-config and --image-credential-provider-bin-dir are needed together"))
	}
	if o.Storage != "" && o.Storage != Builtin && o.Storage != None {
		errs = append(errs, fmt.Errorf("--storage %q: there are builtin and none", o.Storage))
	}
	if o.LogPeriod != 0 && o.LogPeriod < 3*time.Second {
		errs = append(errs, fmt.Errorf("--container-log-monitor-interval %v: give at least 3s", o.LogPeriod))
	}
	if o.VerifyPulls != "" && !slices.Contains(pullrecord.Policies, o.VerifyPulls) {
		errs = append(errs, fmt.Errorf("--image-pull-credentials-verification-policy %q: there are %s", o.VerifyPulls, strings.Join(pullrecord.Policies, ", ")))
	}
	if d := o.MaxRestartPause; d != 0 && (d < time.Second || d > backoff.Max) {
		errs = append(errs, fmt.Errorf("--max-container-restart-period %v: give a time from 1s to 5m", d))
	}
	if o.Swap != "" && o.Swap != NoSwap && o.Swap != LimitedSwap {
		errs = append(errs, fmt.Errorf("--memory-swap-behavior %q: there are NoSwap and LimitedSwap", o.Swap))
	}
	if f := o.MemoryQoS.Throttling; f < 0 || f > 1 {
		errs = append(errs, fmt.Errorf("--memory-throttling-factor %v: give a number from 0 to 1", f))
	}
	if r := o.MemoryQoS.Reservation; r != "" && r != cgroup.NoReservation && r != cgroup.TieredReservation {
		errs = append(errs, fmt.Errorf("--memory-reservation-policy %q: there are None and TieredReservation", r))
	}
	if o.MaxPulls < 0 || o.PodsPerCore < 0 || o.MaxImages < -1 {
		errs = append(errs, errors.New("--max-parallel-image-pulls and --pods-per-core are not negative, and --node-status-max-images is at least -1"))
	}
	_, headerErr := o.staticPodHeader()
	_, err := o.Eviction.Thresholds()
	return errors.Join(append(errs, headerErr, err, o.ImageGC.Validate(), o.Exclusive.Validate(), o.Shutdown.Validate(), o.Network.Validate())...)
}

// The behaviours of swap.
const (
	NoSwap      = "NoSwap"
	LimitedSwap = "LimitedSwap"
)

// size is the flag value of a number of bytes.
type size int64

// Set implements pflag.Value.
func (v *size) Set(s string) error {
	q, err := resource.ParseQuantity(s)
	if err != nil || q.Value() <= 0 {
		return errors.New("give a size like 10Mi")
	}
	*v = size(q.Value())
	return nil
}

// String implements pflag.Value.
func (v *size) String() string { return resource.NewQuantity(int64(*v), resource.BinarySI).String() }

// Type implements pflag.Value.
func (v *size) Type() string { return "string" }

// reservation is the flag value of amounts of the resources that can be reserved.
// A repeated flag adds to the earlier ones.
type reservation v1.ResourceList

// Set implements pflag.Value.
func (r *reservation) Set(s string) error {
	out := reservation{}
	maps.Copy(out, *r)
	for pair := range strings.SplitSeq(s, ",") {
		if pair == "" {
			continue
		}
		name, amount, ok := strings.Cut(pair, "=")
		if !ok {
			return fmt.Errorf("%s must be formatted as key=value", pair)
		}
		switch v1.ResourceName(name) {
		case v1.ResourceCPU, v1.ResourceMemory, v1.ResourceEphemeralStorage:
		default:
			return fmt.Errorf("cannot reserve %q resource: give cpu, memory or ephemeral-storage", name)
		}
		q, err := resource.ParseQuantity(amount)
		if err != nil {
			return fmt.Errorf("failed to parse quantity %q for %q resource: %w", amount, name, err)
		}
		if q.Sign() < 0 {
			return fmt.Errorf("resource quantity for %q cannot be negative: %v", name, amount)
		}
		out[v1.ResourceName(name)] = q
	}
	*r = out
	return nil
}

// String implements pflag.Value.
func (r *reservation) String() string {
	parts := make([]string, 0, len(*r))
	for _, name := range slices.Sorted(maps.Keys(*r)) {
		q := (*r)[name]
		parts = append(parts, string(name)+"="+q.String())
	}
	return strings.Join(parts, ",")
}

// Type implements pflag.Value.
func (r *reservation) Type() string { return "stringToString" }

// AddFlags adds the flags of the node's part of the network.
func (n *Network) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&n.Proxy, "proxy", Builtin, "service proxy: builtin, or none to leave Services to another one (kube-proxy, Cilium)")
	fs.StringVar(&n.DNS, "dns", Builtin, "name server of pods, at the tenth address of the services' range: builtin, or none to leave the address to CoreDNS")
	fs.StringVar(&n.Policies, "network-policy", Builtin, "implementation of network policies: builtin, or none to leave them to another one (Calico, Cilium)")
	fs.StringVar(&n.ProxyHealthz, "proxy-healthz-bind-address", ":10256", "address at which load balancers of clouds ask whether Services are served here (/healthz, /livez), as kube-proxy's --healthz-bind-address; empty leaves it out")
	fs.StringSliceVar(&n.NodePortAddresses, "nodeport-addresses", nil, "ranges of the machine's addresses on which node ports are served (default: the node's primary addresses)")
}

// taints is the flag value of taints: key=value:effect, or key:effect.
type taints []v1.Taint

// Set implements pflag.Value; a repeated flag replaces the earlier ones.
func (t *taints) Set(s string) error {
	var out taints
	for part := range strings.SplitSeq(s, ",") {
		if part == "" {
			continue
		}
		name, effect, ok := strings.Cut(part, ":")
		key, value, _ := strings.Cut(name, "=")
		taint := v1.Taint{Key: key, Value: value, Effect: v1.TaintEffect(effect)}
		if effects := []v1.TaintEffect{v1.TaintEffectNoSchedule, v1.TaintEffectPreferNoSchedule, v1.TaintEffectNoExecute}; !ok || key == "" || !slices.Contains(effects, taint.Effect) {
			return fmt.Errorf("%q: give key=value:effect, with an effect of %v", part, effects)
		}
		out = append(out, taint)
	}
	*t = out
	return nil
}

// String implements pflag.Value.
func (t *taints) String() string {
	var out []string
	for i := range *t {
		out = append(out, (*t)[i].ToString())
	}
	return strings.Join(out, ",")
}

// Type implements pflag.Value.
func (t *taints) Type() string { return "strings" }

// staticPodHeader returns the headers of requests for manifests.
func (o *Options) staticPodHeader() (http.Header, error) {
	h := http.Header{}
	for _, text := range o.StaticPodHeaders {
		name, value, ok := strings.Cut(text, ":")
		if name = strings.TrimSpace(name); !ok || name == "" {
			return nil, fmt.Errorf("--manifest-url-header %q: give a name, a colon and a value", text)
		}
		h.Add(name, strings.TrimSpace(value))
	}
	return h, nil
}
