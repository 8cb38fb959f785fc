package answer

import (
	"bytes"
	"fmt"
	"io"
	"net/http"

	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/rest"

	"keelson.dev/keelson/internal/trace"
)

const (
	// MaxBytes is the greatest size of an answer: several times that of an object.
	MaxBytes = 16 << 20
	// growth is how many times larger than its request an answer may be besides: a
	// webhook that converts a list is sent all of it, and answers with all of it.
	growth = 4
)

// InProcess is the RemoteAddr of requests by clients in this process, which hold
// all of an answer in memory, whichever server it comes from.
const InProcess = "in-process"

// Bounded returns rt, of whose answers no more than most bytes can be read.
func Bounded(rt http.RoundTripper, most int64) http.RoundTripper {
	return &bounded{rt, func(req *http.Request, body io.ReadCloser) io.ReadCloser {
		return &reader{ReadCloser: body, of: req.URL.Host, left: most + growth*max(req.ContentLength, 0)}
	}}
}

// BoundedEvents returns rt, of whose answers no more than MaxBytes of a line can be
// read: a watch in JSON has no end, but a line is an event. Events in protobuf begin
// with their length, which clients check.
func BoundedEvents(rt http.RoundTripper) http.RoundTripper {
	return &bounded{rt, func(req *http.Request, body io.ReadCloser) io.ReadCloser {
		return &reader{ReadCloser: body, of: req.URL.Host, left: MaxBytes, lines: true}
	}}
}

type bounded struct {
	http.RoundTripper
	bound func(*http.Request, io.ReadCloser) io.ReadCloser
}

// WrappedRoundTripper implements net.RoundTripperWrapper.
func (b *bounded) WrappedRoundTripper() http.RoundTripper { return b.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b *bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(req)
	if err == nil {
		resp.Body = b.bound(req, resp.Body)
	}
	return resp, err
}

// reader reads at most left bytes, or as many of a line.
type reader struct {
	io.ReadCloser
	of    string
	left  int64
	lines bool
}

// Read implements io.Reader.
func (r *reader) Read(b []byte) (int, error) {
	n, err := r.ReadCloser.Read(b)
	r.left -= int64(n)
	if r.lines {
		if i := bytes.LastIndexByte(b[:n], '\n'); i >= 0 {
			r.left = MaxBytes - int64(n-i-1)
		}
	}
	if r.left < 0 {
		return 0, fmt.Errorf("the answer of %s is too large: is it the server that was meant?", r.of)
	}
	return n, err
}

// Config returns a copy of c for a client of which the answers are bounded.
func Config(c *rest.Config) *rest.Config {
	c = rest.CopyConfig(c)
	c.Wrap(func(rt http.RoundTripper) http.RoundTripper { return Bounded(rt, MaxBytes) })
	return c
}

// Webhooks returns delegate's configurations of webhooks, which are told of the trace that
// their requests are part of, with bounded answers.
func Webhooks(delegate webhook.AuthenticationInfoResolver) webhook.AuthenticationInfoResolver {
	bound := func(c *rest.Config, err error) (*rest.Config, error) {
		if err != nil {
			return nil, err
		}
		c = Config(c)
		c.Wrap(trace.Propagate)
		return c, nil
	}
	return &webhook.AuthenticationInfoResolverDelegator{
		ClientConfigForFunc: func(hostPort string) (*rest.Config, error) { return bound(delegate.ClientConfigFor(hostPort)) },
		ClientConfigForServiceFunc: func(name, namespace string, port int) (*rest.Config, error) {
			return bound(delegate.ClientConfigForService(name, namespace, port))
		},
	}
}
