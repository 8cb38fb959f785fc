package controlplane

import (
	"errors"
	"fmt"
	"time"

	utilnet "k8s.io/apimachinery/pkg/util/net"

	"keelson.dev/keelson/internal/api/catalogue"
	"keelson.dev/keelson/internal/apiserver/kubelet"
	"keelson.dev/keelson/internal/flagvalue"
)

// API holds the settings of the API server beside the selections of its
// packages, under the names of upstream's flags.
type API struct {
	// ExternalHostname is where clients reach it, host or host:port; by default
	// the address that it is advertised by.
	ExternalHostname string
	RuntimeConfig    catalogue.RuntimeConfig
	// EventTTL, MinRequestTimeout and RequestTimeout: 0 stands for upstream's. With
	// flagvalue.Never for a MinRequestTimeout no watch ends by itself.
	EventTTL, MinRequestTimeout, RequestTimeout time.Duration
	// NodePorts is the range of Services' node ports (default 30000-32767).
	NodePorts utilnet.PortRange
	// NodePort makes the Service kubernetes one of type NodePort, with this port.
	NodePort int32
	// NoProfiling leaves out /debug/pprof and /debug/flags; NoLogs leaves out /logs.
	NoProfiling, NoLogs bool
	// DebugSocket is the path of a Unix socket that serves the former.
	DebugSocket string
	// HiddenMetrics are left out of /metrics.
	HiddenMetrics []string
	Kubelet       kubelet.Options
	// ProxyClientCertFile and ProxyClientKeyFile are the client certificate for
	// aggregated API servers and webhooks, in place of the cluster's own front
	// proxy's.
	ProxyClientCertFile, ProxyClientKeyFile string
}

// Validate returns an error for invalid settings.
func (a *API) Validate() error {
	var errs []error
	if _, err := a.RuntimeConfig.Hidden(catalogue.Builtin()); err != nil {
		errs = append(errs, err)
	}
	for flag, d := range map[string]time.Duration{"event-ttl": a.EventTTL, "request-timeout": a.RequestTimeout} {
		if d < 0 {
			errs = append(errs, fmt.Errorf("--%s can not be a negative value", flag))
		}
	}
	if a.MinRequestTimeout < 0 && a.MinRequestTimeout != flagvalue.Never {
		errs = append(errs, errors.New("--min-request-timeout can not be a negative value"))
	}
	ports := a.nodePorts()
	if p := int(a.NodePort); p < 0 || p > 0 && !ports.Contains(p) {
		errs = append(errs, fmt.Errorf("--kubernetes-service-node-port %d is not in the range of --service-node-port-range, %s", p, ports.String()))
	}
	if (a.ProxyClientCertFile == "") != (a.ProxyClientKeyFile == "") {
		errs = append(errs, errors.New("--proxy-client-cert-file: a certificate and its key must be specified together"))
	}
	return errors.Join(append(errs, a.Kubelet.Validate())...)
}

func (a *API) nodePorts() utilnet.PortRange {
	if a.NodePorts.Size == 0 {
		return utilnet.PortRange{Base: 30000, Size: 2768}
	}
	return a.NodePorts
}
