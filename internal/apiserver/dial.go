package apiserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"

	"k8s.io/apiserver/pkg/authentication/request/headerrequest"
)

// errAddress is upstream's answer to a request for an address that is not proxied.
var errAddress = errors.New("address not allowed")

// Dialer dials TCP, but to addresses that refuse gives an error for. It is asked about
// what is dialled in the end, so that no name can stand for something else by then.
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

// RefuseOwn returns an error for the addresses that the API server itself is reached at:
// what it passes on must not come back to it under an identity of its own, or for ever.
func RefuseOwn(own func(netip.AddrPort) bool) func(netip.AddrPort) error {
	return func(a netip.AddrPort) error {
		if own != nil && own(netip.AddrPortFrom(a.Addr().Unmap(), a.Port())) {
			return fmt.Errorf("%w: %s is the API server's own", errAddress, a)
		}
		return nil
	}
}

// proxied is an error if requests may not be passed on to a, by upstream's rule: not to
// addresses that mean something else on this machine than in the cluster.
func (s *Server) proxied(a netip.AddrPort) error {
	if !a.Addr().Unmap().IsGlobalUnicast() {
		return errAddress
	}
	return RefuseOwn(s.Own)(a)
}

// newBackends makes the transport to the backends of proxies. It does not check their
// certificates: the API server does not judge what a pod serves.
func (s *Server) newBackends() http.RoundTripper {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.Proxy = nil
	t.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // see above
	t.DialContext = Dialer(30*time.Second, s.proxied)
	return t
}

// forget removes the credentials and the names of users from the header of an
// authenticated request: a backend does not need them, and must not trust them.
func forget(h http.Header) {
	h.Del("Authorization")
	type list = headerrequest.StaticStringSlice
	headerrequest.ClearAuthenticationHeaders(h, list{"X-Remote-User"}, list{"X-Remote-Uid"}, list{"X-Remote-Group"}, list{"X-Remote-Extra-"})
}
