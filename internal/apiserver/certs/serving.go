package certs

import (
	"crypto/tls"
	"net"
	"net/netip"
	"sync"
)

// servingLimit bounds the certificates of a Serving.
const servingLimit = 32

// Serving has the certificates of the API server. Each names the SANs of Options and the
// machine's address that a client has connected to: so they follow the machine's
// addresses while the server runs, and disclose none to clients of another. They are
// replaced after two thirds of their life.
type Serving struct {
	authority *authority
	sans      []string

	mu sync.Mutex
	// certificates are by the address that they name beside the SANs; those for the SANs
	// alone, by the zero address.
	certificates map[netip.Addr]*tls.Certificate
}

func newServing(a *authority, sans []string) (*Serving, error) {
	s := &Serving{authority: a, sans: sans, certificates: map[netip.Addr]*tls.Certificate{}}
	_, err := s.forAddress(netip.Addr{})
	return s, err
}

// Certificate returns the certificate for a client, as tls.Config.GetCertificate does. The
// client may be nil.
func (s *Serving) Certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	var at netip.Addr
	if hello != nil && hello.Conn != nil {
		if a, ok := hello.Conn.LocalAddr().(*net.TCPAddr); ok {
			at = a.AddrPort().Addr().Unmap().WithZone("")
		}
	}
	return s.forAddress(at)
}

// forAddress returns a certificate that also names the address, unless that is one of
// loopback, of which there are many.
func (s *Serving) forAddress(at netip.Addr) (*tls.Certificate, error) {
	sans := s.sans
	if at.IsLoopback() {
		at = netip.Addr{}
	}
	if at.IsValid() {
		sans = append(sans[:len(sans):len(sans)], at.String())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.certificates[at]; c != nil {
		if life := c.Leaf.NotAfter.Sub(c.Leaf.NotBefore); s.authority.clock.Now().Before(c.Leaf.NotBefore.Add(life / 3 * 2)) {
			return c, nil
		}
	}
	pair, err := s.authority.ServingCert("kube-apiserver", sans)
	if err != nil {
		return nil, err
	}
	c, err := pair.TLS()
	if err != nil {
		return nil, err
	}
	if len(s.certificates) >= servingLimit {
		clear(s.certificates)
	}
	s.certificates[at] = &c
	return &c, nil
}
