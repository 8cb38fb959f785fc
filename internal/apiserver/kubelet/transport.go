package kubelet

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"keelson.dev/keelson/internal/apiserver"
	"keelson.dev/keelson/internal/apiserver/authz"
	"keelson.dev/keelson/internal/apiserver/certs"
	"keelson.dev/keelson/internal/version"
)

// Transport reaches node agents by their address and port, as the API server's own
// client. It implements apiserver.NodeTransport.
type Transport struct {
	options *Options
	certs   *certs.Bundle
	own     func(netip.AddrPort) bool
	mu      sync.Mutex
	ways    map[verification]http.RoundTripper
}

// New makes the transport of a server with these certificates, whose own addresses
// are those that own reports.
func New(o *Options, c *certs.Bundle, own func(netip.AddrPort) bool) *Transport {
	return &Transport{options: o, certs: c, own: own, ways: map[verification]http.RoundTripper{}}
}

// agentPort is where a node's server is whose status does not say it.
const agentPort = 10250

// Node implements apiserver.NodeTransport.
func (n *Transport) Node(_ context.Context, node *v1.Node, unchecked bool) (*url.URL, http.RoundTripper, error) {
	host := n.options.host(node)
	if host == "" {
		return nil, nil, apierrors.NewServiceUnavailable(fmt.Sprintf("no preferred addresses found; known addresses: %v", node.Status.Addresses))
	}
	port := cmp.Or(node.Status.DaemonEndpoints.KubeletEndpoint.Port, agentPort)
	v := n.options.verification(node)
	if unchecked {
		v = unverified
	}
	rt, err := n.transport(v)
	return &url.URL{Scheme: "https", Host: net.JoinHostPort(host, strconv.Itoa(int(port)))}, rt, err
}

func (n *Transport) transport(v verification) (http.RoundTripper, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if rt := n.ways[v]; rt != nil {
		return rt, nil
	}
	rt, err := n.options.transport(n.certs, v, apiserver.RefuseOwn(n.own))
	if err == nil {
		n.ways[v] = rt
	}
	return rt, err
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

// verification returns how the certificate of node's server is checked.
func (o *Options) verification(node *v1.Node) verification {
	switch {
	case strings.HasSuffix(node.Status.NodeInfo.KubeletVersion, version.Build):
		return byCluster
	case o.CAFile != "":
		return byFile
	}
	return unverified
}

// transport returns the way to node agents, whose certificates are checked by v. No
// connection is made to an address that refuse gives an error for.
func (o *Options) transport(own *certs.Bundle, v verification, refuse func(netip.AddrPort) error) (http.RoundTripper, error) {
	var pair certs.Pair
	var err error
	if o.CertFile != "" {
		pair, err = certs.ReadPair(o.CertFile, o.KeyFile)
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
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("--kubelet-certificate-authority: %w", err)
		}
		if secure.RootCAs = x509.NewCertPool(); !secure.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("--kubelet-certificate-authority %s has no certificate in PEM", o.CAFile)
		}
	case unverified:
		secure.InsecureSkipVerify = true //nolint:gosec // as upstream, unless CAFile is given
	}
	timeout := o.Timeout
	if timeout == 0 {
		timeout = 10 * time.Second
	}
	return &http.Transport{
		TLSClientConfig: secure, TLSHandshakeTimeout: timeout,
		DialContext:         apiserver.Dialer(timeout, refuse),
		MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute,
	}, nil
}

// host returns the address of node to use, empty if it has none of the types.
func (o *Options) host(node *v1.Node) string {
	types := o.AddressTypes
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
