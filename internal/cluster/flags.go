package cluster

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	utilnet "k8s.io/apimachinery/pkg/util/net"

	"keelson.dev/keelson/internal/controllers/manager"
	"keelson.dev/keelson/internal/flagvalue"
	"keelson.dev/keelson/internal/node/logs"
)

// AddFlags adds upstream's flags of the API server that are not of its packages'
// selections, nor of Kubelet.
func (a *APIServer) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&a.ExternalHostname, "external-hostname", "", "host name (or host:port) for the URLs of this server that others get, as OpenID discovery's (default: --advertise-address)")
	fs.StringToStringVar((*map[string]string)(&a.RuntimeConfig), "runtime-config", nil, "which versions of the API are served: api/all, api/ga, api/beta, api/alpha, group/version or group/version/resource, each =true or =false, comma separated")
	fs.DurationVar(&a.EventTTL, "event-ttl", time.Hour, "how long Events are kept")
	flagvalue.SecondsVar(fs, &a.MinRequestTimeout, "min-request-timeout", 30*time.Minute, "seconds that a watch lasts at least that asks for no other time; up to twice as long, at random; 0 ends none")
	fs.DurationVar(&a.RequestTimeout, "request-timeout", time.Minute, "how long a request may take that is no watch or stream; its timeout parameter can only shorten it")
	a.NodePorts = a.nodePorts()
	fs.Var(&portRange{&a.NodePorts}, "service-node-port-range", "ports of services of type NodePort")
	fs.Int32Var(&a.NodePort, "kubernetes-service-node-port", 0, "node port of the service kubernetes, which has none by default")
	fs.StringVar(&a.ProxyClientCertFile, "proxy-client-cert-file", "", "file with the certificate that aggregated API servers know this one by (default: one of the cluster's front proxy authority)")
	fs.StringVar(&a.ProxyClientKeyFile, "proxy-client-key-file", "", "file with the key of --proxy-client-cert-file")
	flagvalue.NotVar(fs, &a.NoProfiling, "profiling", "serve Go's profiles at /debug/pprof/, and the log level at /debug/flags/v")
	fs.StringVar(&a.DebugSocket, "debug-socket-path", "", "Unix socket that serves /debug/pprof/ and /debug/flags/v without authentication")
	flagvalue.NotVar(fs, &a.NoLogs, "enable-logs-handler", "serve the machine's /var/log at /logs")
	fs.StringSliceVar(&a.HiddenMetrics, "disabled-metrics", nil, "names of metrics to leave out of /metrics, comma separated")
}

// portRange is a flag of a range of ports.
type portRange struct{ *utilnet.PortRange }

// Set implements pflag.Value.
func (p *portRange) Set(s string) error {
	if err := p.PortRange.Set(s); err != nil {
		return fmt.Errorf("%w: give a range like 30000-32767", err)
	}
	return nil
}

// Type implements pflag.Value.
func (p *portRange) Type() string { return "string" }

// AddFlags adds upstream's flags of how the API server reaches node agents.
func (k *Kubelet) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&k.CAFile, "kubelet-certificate-authority", "", "certificates of the authority of kubelets' certificates, which are not verified without it; those of Keelson's own agents always are, by the cluster's authority")
	fs.StringVar(&k.CertFile, "kubelet-client-certificate", "", "file with the certificate that nodes know this server by (default: one of the cluster's authority)")
	fs.StringVar(&k.KeyFile, "kubelet-client-key", "", "file with the key of --kubelet-client-certificate")
	fs.StringSliceVar(&k.AddressTypes, "kubelet-preferred-address-types", nil, "types of the nodes' addresses to reach them by, in this order (default: InternalIP,Hostname)")
	fs.DurationVar(&k.Timeout, "kubelet-timeout", 10*time.Second, "how long connecting to a node may take")
}

// AddFlags adds the flags of the node, but for those of Eviction, ImageGC and
// Network.
func (o *AgentOptions) AddFlags(fs *pflag.FlagSet) {
	o.LogMaxSize = logs.DefaultMaxSize
	fs.StringVar(&o.Name, "node-name", "", "name of this machine's node (default: the machine's)")
	fs.IntVar(&o.Port, "node-port", 10250, "port of the node's HTTP server")
	fs.Var((*size)(&o.LogMaxSize), "container-log-max-size", "size at which a container's log is rotated")
	fs.IntVar(&o.LogMaxFiles, "container-log-max-files", logs.DefaultMaxFiles, "how many log files a container has, with the one being written; at least 2")
	fs.StringVar((*string)(&o.CgroupDriver), "cgroup-driver", "", "what makes the cgroups of pods: cgroupfs or systemd, as the runtime does it (default: what the runtime says, else cgroupfs)")
	fs.StringSliceVar(&o.AllowedUnsafeSysctls, "allowed-unsafe-sysctls", nil, "kernel parameters that pods of this machine may set beside the safe ones: names, or beginnings of names that end in *")
	fs.Int64Var(&o.MaxPods, "max-pods", 110, "number of pods that can run on the node")
	fs.Var((*reservation)(&o.KubeReserved), "kube-reserved", "what is kept from pods for Kubernetes' components, like cpu=200m,memory=500Mi,ephemeral-storage=1Gi")
	fs.Var((*reservation)(&o.SystemReserved), "system-reserved", "what is kept from pods for the rest of the machine, like cpu=200m,memory=500Mi,ephemeral-storage=1Gi")
	fs.StringVar(&o.StaticPods, "pod-manifest-path", "", "folder of the manifests of static pods, or one manifest (default: manifests in --data-dir)")
}

// Validate reports what is wrong with options that flags have filled in.
func (o *AgentOptions) Validate() error {
	var errs []error
	if err := o.CgroupDriver.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("--cgroup-driver: %w", err))
	}
	if o.LogMaxFiles < 2 {
		errs = append(errs, fmt.Errorf("--container-log-max-files %d: at least 2 are needed, so that one can be rotated", o.LogMaxFiles))
	}
	_, err := o.Eviction.Thresholds()
	return errors.Join(append(errs, err, o.ImageGC.Validate(), o.Network.Validate())...)
}

// size is a flag of a number of bytes.
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

// reservation is a flag of amounts of the resources that can be reserved. What is
// given again is added to what was given before.
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
	fs.StringVar(&n.Proxy, "proxy", Builtin, "what has Services' addresses lead to their endpoints: builtin, or none where something else does (kube-proxy, Cilium)")
	fs.StringVar(&n.DNS, "dns", Builtin, "what resolves names for pods, at the tenth address of the services' range: builtin, or none where CoreDNS is installed there")
	fs.StringVar(&n.Policies, "network-policy", Builtin, "what enforces network policies: builtin, or none where something else does (Calico, Cilium)")
	fs.StringSliceVar(&n.NodePortAddresses, "nodeport-addresses", nil, "ranges of the machine's addresses on which node ports are served (default: the node's primary addresses)")
}

// AddFlags adds the flags of how the component reaches the API server.
func (o *Component) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.Kubeconfig, "kubeconfig", "", "kubeconfig of the API server and of the identity that the component acts as (default: the service account of the pod that it runs in)")
	fs.StringVar(&o.Master, "master", "", "URL of the API server, in place of the kubeconfig's")
	fs.Float32Var(&o.QPS, "kube-api-qps", 0, "requests a second to the API server; 0 is no limit")
	fs.IntVar(&o.Burst, "kube-api-burst", 0, "how many requests may exceed --kube-api-qps for a moment")
}

// AddFlags adds upstream's flags of leader election.
func (e *Election) AddFlags(fs *pflag.FlagSet) {
	fs.BoolVar(&e.LeaderElect, "leader-elect", true, "of several processes, let the one that holds the component's Lease work")
	fs.DurationVar(&e.LeaseDuration, "leader-elect-lease-duration", 0, "how long the others wait after the last renewal (default 15s)")
	fs.DurationVar(&e.RenewDeadline, "leader-elect-renew-deadline", 0, "how long the holder tries to renew before it ends (default 10s)")
	fs.DurationVar(&e.RetryPeriod, "leader-elect-retry-period", 0, "how long to wait between tries (default 2s)")
	fs.StringVar(&e.Namespace, "leader-elect-resource-namespace", "", "namespace of the Lease (default kube-system)")
}

// AddFlags adds kube-controller-manager's flags, but for those of Component and
// Election.
func (o *ControllerManager) AddFlags(fs *pflag.FlagSet) {
	fs.StringSliceVar(&o.Controllers, "controllers", nil, "controllers to run: '*' is all, 'foo' is that one, '-foo' leaves it out. There are: "+strings.Join(manager.Names(), ", "))
	o.NodeIPAM.NoAllocation = true // upstream's default
	o.NodeIPAM.AddFlags(fs)
	fs.StringSliceVar(&o.ServiceCIDRs, "service-cluster-ip-range", nil, "ranges of the Services' addresses, which --allocate-node-cidrs leaves out")
	fs.BoolVar(&o.UseServiceAccountCredentials, "use-service-account-credentials", false, "let each controller act as its own service account of kube-system")
	fs.StringVar(&o.RootCAFile, "root-ca-file", "", "bundle in PEM that is published to each namespace (default: the kubeconfig's authority)")
	fs.StringVar(&o.ClusterSigningCertFile, "cluster-signing-cert-file", "", "certificate in PEM of the authority that signs requests for certificates; without it none is signed")
	fs.StringVar(&o.ClusterSigningKeyFile, "cluster-signing-key-file", "", "its key in PEM")
	fs.StringVar(&o.ServiceAccountPrivateKeyFile, "service-account-private-key-file", "", "key in PEM that signs the tokens in Secrets of service accounts; without it they get none")
}
