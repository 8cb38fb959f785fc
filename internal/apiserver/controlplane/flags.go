package controlplane

import (
	"fmt"
	"time"

	"github.com/spf13/pflag"
	utilnet "k8s.io/apimachinery/pkg/util/net"

	"keelson.dev/keelson/internal/flagvalue"
)

// AddFlags adds upstream's flags of the API server that are not of its packages'
// selections, nor of kubelet.Options.
func (a *API) AddFlags(fs *pflag.FlagSet) {
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
