package controlplane

import (
	"net"
	"net/netip"
	"slices"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/internal/apiserver/certs"
	"keelson.dev/keelson/internal/apiserver/token"
	"keelson.dev/keelson/internal/component"
)

// proxyClient returns the client certificate that this server shows to the servers it
// passes requests on to.
func (c *Instance) proxyClient() (certs.Pair, error) {
	if c.API.ProxyClientCertFile == "" {
		return c.Certs.FrontProxy.ClientCert(frontProxyClient, nil)
	}
	return certs.ReadPair(c.API.ProxyClientCertFile, c.API.ProxyClientKeyFile)
}

// advertised returns the address that the API server is advertised by.
func (c *Instance) advertised() netip.Addr {
	if c.FollowsAddress {
		return component.Address()
	}
	return c.Advertise
}

// externalURL returns the URL by which others reach the API server now.
func (c *Instance) externalURL() string {
	_, port, err := net.SplitHostPort(c.Address)
	if err != nil {
		return token.Issuer // it listens for this process only
	}
	host := c.API.ExternalHostname
	if host == "" {
		host = net.JoinHostPort(c.advertised().String(), port)
	} else if _, _, err := net.SplitHostPort(host); err != nil {
		host = net.JoinHostPort(host, port)
	}
	return "https://" + host
}

// own reports whether a is an address of this API server or of one that shares its store:
// its port at an address of this machine or at the one it is advertised by, or what the
// Service kubernetes stands for.
func (c *Instance) own(a netip.AddrPort) bool {
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
