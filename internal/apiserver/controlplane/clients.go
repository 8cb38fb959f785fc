package controlplane

import (
	"errors"
	"net"
	"net/http"
	"net/netip"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"keelson.dev/keelson/internal/apiserver/certs"
	"keelson.dev/keelson/internal/apiserver/inprocess"
)

// Config returns a client configuration for u, without a network between.
func (c *Instance) Config(u user.Info) *rest.Config {
	// The server may not exist yet: parts of it have this client.
	return inprocess.Config(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { c.Server.ServeHTTP(w, req) }), u)
}

// Client returns an in-process client of u.
func (c *Instance) Client(u user.Info) kubernetes.Interface {
	return kubernetes.NewForConfigOrDie(c.Config(u))
}

// URL returns the URL by which local clients reach the server.
func (c *Instance) URL() string {
	host, port, _ := net.SplitHostPort(c.Address)
	if ip, err := netip.ParseAddr(host); err != nil || ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "https://" + net.JoinHostPort(host, port)
}

// Kubeconfig returns an administrator's configuration called name.
func (c *Instance) Kubeconfig(name string) (*clientcmdapi.Config, error) {
	pair, err := c.Certs.ClientCert(inprocess.Admin.Name, []string{user.SystemPrivilegedGroup})
	if err != nil {
		return nil, err
	}
	return certs.Kubeconfig(name, c.URL(), c.Certs.CAPEM, pair), nil
}

// RESTConfig returns an administrator's configuration over TLS.
func (c *Instance) RESTConfig() (*rest.Config, error) {
	if c.Address == "" {
		return nil, errors.New("the API server does not listen")
	}
	pair, err := c.Certs.ClientCert(inprocess.Admin.Name, []string{user.SystemPrivilegedGroup})
	if err != nil {
		return nil, err
	}
	return &rest.Config{Host: c.URL(), TLSClientConfig: rest.TLSClientConfig{CAData: c.Certs.CAPEM, CertData: pair.Cert, KeyData: pair.Key}}, nil
}

// LegacyToken returns what makes the tokens that are in secrets; nil where an external
// signer has the keys, which signs none.
func (c *Instance) LegacyToken() func(*v1.ServiceAccount, *v1.Secret) (string, error) {
	if c.Tokens.SigningEndpoint != "" {
		return nil
	}
	return c.tokens.Legacy
}
