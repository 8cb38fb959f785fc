package join

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"sync"

	"k8s.io/klog/v2"

	"keelson.dev/keelson/internal/node/statefile"
)

// Servers are the addresses, host:port, by which a machine that has joined reaches the API
// server: those that it was given, and those of the Service default/kubernetes, which it
// learns while it is connected and keeps in a file. Requests go to one of them, as long as it
// answers, and then to the next. Each has to show a certificate of its name or address under
// the cluster's authority.
type Servers struct {
	file string

	mu   sync.Mutex
	kept kept
	at   string // where requests go now
}

// kept is the content of the file. Last is the address that answered last.
type kept struct {
	Given, Learned []string
	Last           string
}

// OpenServers returns the servers of a machine that has joined. server is the URL of the
// kubeconfig. If it has a path, there are no others: it is that of a proxy, whose place none
// takes.
func (c *Client) OpenServers(server string) (*Servers, error) {
	s := &Servers{file: filepath.Join(c.Dir, "servers")}
	was, _, err := statefile.Recover[kept](s.file)
	if err != nil {
		return nil, fmt.Errorf("the addresses of the API server: %w", err)
	}
	if was != nil {
		s.kept = *was
	}
	given := c.Servers
	if len(given) == 0 && len(s.kept.Given) == 0 {
		given = []string{server}
	}
	if len(given) > 0 {
		had := s.kept.Given
		s.kept.Given = nil
		for _, x := range given {
			at, path, err := address(x)
			if err != nil {
				return nil, err
			}
			if path && len(given) > 1 {
				return nil, fmt.Errorf("--server %s: the URL has a path, so that it is that of a proxy: give no other", x)
			}
			if path {
				return nil, nil
			}
			s.kept.Given = append(s.kept.Given, at)
		}
		if !slices.Equal(had, s.kept.Given) {
			s.kept.Last = "" // those that are given anew come first
		}
	}
	if s.at = s.kept.Last; s.at == "" {
		s.at = s.kept.Given[0]
	}
	return s, s.keep()
}

// address returns the address of a URL, with its port, and whether the URL has a path.
func address(server string) (at string, path bool, err error) {
	u, err := url.Parse(server)
	if err != nil {
		return "", false, err
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	return net.JoinHostPort(u.Hostname(), port), u.Path != "" && u.Path != "/", nil
}

// keep writes the file. The caller holds mu, or is alone.
func (s *Servers) keep() error {
	if err := statefile.Write(s.file, &s.kept); err != nil {
		return fmt.Errorf("keeping the addresses of the API server: %w", err)
	}
	return nil
}

// Learn takes the addresses of the API server that the cluster has now, in place of those
// that it had before. None are no news: there is a server that has told.
func (s *Servers) Learn(addresses []string) {
	if s == nil || len(addresses) == 0 {
		return
	}
	addresses = slices.Compact(slices.Sorted(slices.Values(addresses)))
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Equal(s.kept.Learned, addresses) {
		return
	}
	s.kept.Learned = addresses
	if err := s.keep(); err != nil {
		klog.Background().Error(err, "The API server's addresses are not known to the next process")
	}
}

// all returns the addresses in the order in which they are tried.
func (s *Servers) all() []string {
	out := slices.Clone(s.kept.Given)
	for _, a := range s.kept.Learned {
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// failed has requests go to the address after this one, if they go to this one.
func (s *Servers) failed(at string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.all()
	if at != s.at || len(all) == 1 && all[0] == at {
		return
	}
	s.at = all[(slices.Index(all, at)+1)%len(all)] // the first, if it is none of them anymore
	klog.Background().Info("The API server does not answer; trying its next address", "address", at, "next", s.at, "err", err)
}

// answered remembers the address that has answered.
func (s *Servers) answered(at string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept.Last == at || s.at != at {
		return
	}
	s.kept.Last = at
	if err := s.keep(); err != nil {
		klog.Background().Error(err, "The API server's address is not known to the next process")
	}
}

// now returns where requests go, and to how many addresses they may go.
func (s *Servers) now() (at string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n = len(s.all())
	if !slices.Contains(s.all(), s.at) {
		n++
	}
	return s.at, n
}

// Dial returns a function that dials, and notes which servers do not answer. A request may
// end before the kernel gives up.
func (s *Servers) Dial(dial func(ctx context.Context, network, address string) (net.Conn, error)) func(ctx context.Context, network, address string) (net.Conn, error) {
	if s == nil {
		return dial
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil && !errors.Is(ctx.Err(), context.Canceled) {
			s.failed(address, err)
		}
		return c, err
	}
}

// Transport returns a transport that sends requests to a server that answers, through next,
// whose connections Dial has opened. A request that no server has got is sent to each.
func (s *Servers) Transport(next http.RoundTripper) http.RoundTripper {
	if s == nil {
		return next
	}
	return &serversTransport{s, next}
}

type serversTransport struct {
	servers *Servers
	next    http.RoundTripper
}

// WrappedRoundTripper implements net.RoundTripperWrapper of apimachinery, by which clients
// find the transport that has the connections.
func (t *serversTransport) WrappedRoundTripper() http.RoundTripper { return t.next }

// RoundTrip implements http.RoundTripper.
func (t *serversTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	body := req.Body
	at, n := t.servers.now()
	for tried := 1; ; tried++ {
		sent := req.Clone(req.Context())
		sent.URL.Host, sent.Host, sent.Body = at, "", body
		resp, err := t.next.RoundTrip(sent)
		if err == nil {
			t.servers.answered(at)
			return resp, nil
		}
		if !unsent(err) {
			return nil, err
		}
		var dialed *net.OpError
		if !errors.As(err, &dialed) { // else Dial has noted it
			t.servers.failed(at, err)
		}
		if tried >= n || req.Context().Err() != nil {
			return nil, err
		}
		if body, err = again(req); err != nil {
			return nil, err
		}
		at, _ = t.servers.now()
	}
}

// again returns the body of a request once more.
func again(req *http.Request) (io.ReadCloser, error) {
	switch {
	case req.Body == nil || req.Body == http.NoBody:
		return req.Body, nil
	case req.GetBody == nil:
		return nil, errors.New("the API server does not answer, and the request cannot be sent again")
	}
	return req.GetBody()
}

// unsent reports whether no server can have got the request: there was no connection, or
// what answered has not shown to be the cluster's.
func unsent(err error) bool {
	var op *net.OpError
	var certificate *tls.CertificateVerificationError
	var header tls.RecordHeaderError
	return errors.As(err, &op) && op.Op == "dial" || errors.As(err, &certificate) || errors.As(err, &header)
}
