package apiserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"k8s.io/apiserver/pkg/authentication/request/headerrequest"
)

// errAddress is upstream's answer to a request for an address that must not be
// proxied to.
var errAddress = errors.New("address not allowed")

// Dialer returns a function that dials TCP, except to addresses for which refuse
// returns an error. refuse gets the address after the name was resolved, so that a name
// cannot resolve to another address between the check and the connection.
func Dialer(timeout time.Duration, refuse func(netip.AddrPort) error) func(ctx context.Context, network, address string) (net.Conn, error) {
	d := &net.Dialer{Timeout: timeout, KeepAlive: 30 * time.Second, Control: func(_, address string, _ syscall.RawConn) error {
		a, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("%w: %w", errAddress, err)
		}
		return refuse(a)
	}}
	return d.DialContext
}

// RefuseOwn returns a function that returns an error for the API server's own addresses:
// a request that it passes on must not come back with the server's identity, or in a
// loop.
func RefuseOwn(own func(netip.AddrPort) bool) func(netip.AddrPort) error {
	return func(a netip.AddrPort) error {
		if own != nil && own(netip.AddrPortFrom(a.Addr().Unmap(), a.Port())) {
			return fmt.Errorf("%w: %s is the API server's own", errAddress, a)
		}
		return nil
	}
}

// proxied returns an error if requests must not be passed on to a, by upstream's rule:
// not to addresses that mean something else on this machine than in the cluster.
func (s *Server) proxied(a netip.AddrPort) error {
	if !a.Addr().Unmap().IsGlobalUnicast() {
		return errAddress
	}
	return RefuseOwn(s.Own)(a)
}

// newBackends makes the transport to the backends of proxies. It does not check their
// certificates, as upstream does not.
func (s *Server) newBackends() http.RoundTripper {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.Proxy = nil
	t.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // see above
	t.DialContext = Dialer(30*time.Second, s.proxied)
	return t
}

// forget removes the credentials and the names of users from the header of an
// authenticated request: a backend needs neither, and must not trust the latter.
func forget(h http.Header) {
	delete(h, "Authorization")
	type list = headerrequest.StaticStringSlice
	for name := range h {
		if len(name) < len(remotePrefix) || !strings.EqualFold(name[:len(remotePrefix)], remotePrefix) {
			continue
		}
		headerrequest.ClearAuthenticationHeaders(h, list{"X-Remote-User"}, list{"X-Remote-Uid"}, list{"X-Remote-Group"}, list{"X-Remote-Extra-"})
		return
	}
}

// remotePrefix begins the names of headers that name users.
const remotePrefix = "X-Remote-"
