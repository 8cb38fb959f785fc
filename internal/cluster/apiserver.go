package cluster

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"

	"keelson.dev/keelson/internal/api/catalogue"
	"keelson.dev/keelson/internal/apiserver"
	"keelson.dev/keelson/internal/apiserver/authz"
	"keelson.dev/keelson/internal/apiserver/certs"
	"keelson.dev/keelson/internal/apiserver/token"
	"keelson.dev/keelson/internal/flagvalue"
)

// APIServer holds the settings of the API server beside the selections of its
// packages, under the names of upstream's flags.
type APIServer struct {
	// ExternalHostname is where others find it, host or host:port; by default the
	// address that it is advertised by.
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
	Kubelet       Kubelet
	// ProxyClientCertFile and ProxyClientKeyFile are what aggregated API servers and
	// webhooks know this one by, in place of the cluster's own front proxy.
	ProxyClientCertFile, ProxyClientKeyFile string
}

// Kubelet configures the connections to node agents.
type Kubelet struct {
	// CAFile has the authority of the certificates of kubelets; those of Keelson's own
	// agents are of the cluster's. CertFile and KeyFile are what both know this server by.
	CAFile, CertFile, KeyFile string
	// AddressTypes are tried in this order (default InternalIP, Hostname).
	AddressTypes []string
	// Timeout bounds the connection to one; 0 is ten seconds.
	Timeout time.Duration
}

// Validate returns an error for invalid settings.
func (a *APIServer) Validate() error {
	var errs []error
	if _, err := a.RuntimeConfig.Hidden(catalogue.Builtin()); err != nil {
		errs = append(errs, err)
	}
	for flag, d := range map[string]time.Duration{"event-ttl": a.EventTTL, "request-timeout": a.RequestTimeout, "kubelet-timeout": a.Kubelet.Timeout} {
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
	for _, t := range a.Kubelet.AddressTypes {
		if !slices.Contains([]v1.NodeAddressType{v1.NodeHostName, v1.NodeInternalIP, v1.NodeExternalIP, v1.NodeInternalDNS, v1.NodeExternalDNS}, v1.NodeAddressType(t)) {
			errs = append(errs, fmt.Errorf("--kubelet-preferred-address-types %q: there are Hostname, InternalDNS, InternalIP, ExternalDNS and ExternalIP", t))
		}
	}
	for _, f := range [][3]string{{"kubelet-client-certificate", a.Kubelet.CertFile, a.Kubelet.KeyFile}, {"proxy-client-cert-file", a.ProxyClientCertFile, a.ProxyClientKeyFile}} {
		if (f[1] == "") != (f[2] == "") {
			errs = append(errs, fmt.Errorf("--%s: a certificate and its key must be specified together", f[0]))
		}
	}
	return errors.Join(errs...)
}

func (a *APIServer) nodePorts() utilnet.PortRange {
	if a.NodePorts.Size == 0 {
		return utilnet.PortRange{Base: 30000, Size: 2768}
	}
	return a.NodePorts
}

// proxyClient gives the client certificate that this server shows to the servers it
// passes requests on to.
func (c *Cluster) proxyClient() (certs.Pair, error) {
	if c.API.ProxyClientCertFile == "" {
		return c.Certs.FrontProxy.ClientCert(frontProxyClient, nil)
	}
	return readPair(c.API.ProxyClientCertFile, c.API.ProxyClientKeyFile)
}

func readPair(certFile, keyFile string) (p certs.Pair, err error) {
	if p.Cert, err = os.ReadFile(certFile); err != nil {
		return p, err
	}
	p.Key, err = os.ReadFile(keyFile)
	return p, err
}

// verification is how the certificate of a node's server is checked.
type verification int

const (
	// byCluster wants one of the cluster's own authority: Keelson's agents have it.
	byCluster verification = iota
	// byFile wants one of the authority in CAFile.
	byFile
	// unverified takes any. Kubelets sign their certificates themselves unless they are
	// told otherwise, so upstream checks them only where CAFile is given.
	unverified
)

// verification is how the certificate of node's server is checked.
func (k *Kubelet) verification(node *v1.Node) verification {
	switch {
	case strings.HasSuffix(node.Status.NodeInfo.KubeletVersion, agentBuild):
		return byCluster
	case k.CAFile != "":
		return byFile
	}
	return unverified
}

// agentBuild ends the version that Keelson's agents report.
const agentBuild = "+keelson"

// transport is the way to node agents, whose certificates are checked by v. No
// connection is made to an address that refuse gives an error for.
func (k *Kubelet) transport(own *certs.Bundle, v verification, refuse func(netip.AddrPort) error) (http.RoundTripper, error) {
	var pair certs.Pair
	var err error
	if k.CertFile != "" {
		pair, err = readPair(k.CertFile, k.KeyFile)
	} else {
		pair, err = own.ClientCert(authz.KubeletClient, nil)
	}
	if err != nil {
		return nil, err
	}
	cert, err := pair.TLS()
	if err != nil {
		return nil, err
	}
	secure := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	switch v {
	case byCluster:
		secure.RootCAs = own.Pool()
	case byFile:
		pem, err := os.ReadFile(k.CAFile)
		if err != nil {
			return nil, fmt.Errorf("--kubelet-certificate-authority: %w", err)
		}
		if secure.RootCAs = x509.NewCertPool(); !secure.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("--kubelet-certificate-authority %s has no certificate in PEM", k.CAFile)
		}
	case unverified:
		secure.InsecureSkipVerify = true //nolint:gosec // as upstream, unless CAFile is given
	}
	timeout := k.Timeout
	if timeout == 0 {
		timeout = 10 * time.Second
	}
	return &http.Transport{
		TLSClientConfig: secure, TLSHandshakeTimeout: timeout,
		DialContext:         apiserver.Dialer(timeout, refuse),
		MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute,
	}, nil
}

// host is the address of node to use, empty if it has none of the types.
func (k *Kubelet) host(node *v1.Node) string {
	types := k.AddressTypes
	if len(types) == 0 {
		types = []string{string(v1.NodeInternalIP), string(v1.NodeHostName)}
	}
	for _, t := range types {
		for _, a := range node.Status.Addresses {
			if string(a.Type) == t {
				return a.Address
			}
		}
	}
	return ""
}

// externalURL is the API server's as others reach it.
func (c *Cluster) externalURL() string {
	_, port, err := net.SplitHostPort(c.Address)
	if err != nil {
		return token.Issuer // it listens for this process only
	}
	host := c.API.ExternalHostname
	if host == "" {
		host = net.JoinHostPort(c.Advertise.String(), port)
	} else if _, _, err := net.SplitHostPort(host); err != nil {
		host = net.JoinHostPort(host, port)
	}
	return "https://" + host
}

// own reports whether a is an address of this API server or of one that shares its store:
// its port at an address of this machine or at the one it is advertised by, or what the
// Service kubernetes stands for.
func (c *Cluster) own(a netip.AddrPort) bool {
	port, err := portOf(c.Address)
	if err != nil {
		return false // it listens for this process only
	}
	if a.Port() == 443 && a.Addr() == c.ServiceCIDR.Masked().Addr().Next() {
		return true
	}
	slice, err := c.Informers.Discovery().V1().EndpointSlices().Lister().EndpointSlices(metav1.NamespaceDefault).Get("kubernetes")
	if err == nil && slices.ContainsFunc(slice.Ports, func(p discoveryv1.EndpointPort) bool { return p.Port != nil && *p.Port == int32(a.Port()) }) &&
		slices.ContainsFunc(slice.Endpoints, func(e discoveryv1.Endpoint) bool { return slices.Contains(e.Addresses, a.Addr().String()) }) {
		return true
	}
	if int(a.Port()) != port {
		return false
	}
	if a.Addr().IsLoopback() || a.Addr().IsUnspecified() || a.Addr() == c.Advertise.Unmap() {
		return true
	}
	local, err := net.InterfaceAddrs()
	return err != nil || slices.ContainsFunc(local, func(l net.Addr) bool {
		p, err := netip.ParsePrefix(l.String())
		return err == nil && p.Addr().Unmap() == a.Addr().WithZone("")
	})
}
