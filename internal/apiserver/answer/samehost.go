package answer

import (
	"compress/flate"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// SameHost returns rt, but refuses redirects to another host than the one that was
// asked: the client to which the answer is passed on would take them for the API
// server's (CVE-2022-3172). Pages in HTML, whose links are rewritten, are bounded.
func SameHost(rt http.RoundTripper) http.RoundTripper { return sameHost{rt} }

type sameHost struct{ http.RoundTripper }

// WrappedRoundTripper implements net.RoundTripperWrapper: connections that are upgraded
// are dialled as the inner transport does.
func (t sameHost) WrappedRoundTripper() http.RoundTripper { return t.RoundTripper }

// maxHTML is the size, in bytes, up to which the links of a page are rewritten: the
// page has to be in memory for that.
const maxHTML = 32 << 20

// RoundTrip implements http.RoundTripper.
func (t sameHost) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.RoundTripper.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if kind, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";"); strings.TrimSpace(kind) == "text/html" {
		return resp, boundHTML(resp)
	}
	if resp.StatusCode < 300 || resp.StatusCode > 399 {
		return resp, nil
	}
	location := resp.Header.Get("Location")
	if location == "" {
		return resp, nil
	}
	// The reference is resolved as the client will do it, so that "//host" is seen as well.
	if u, err := req.URL.Parse(location); err == nil && (u.Host == req.URL.Host || u.Host == req.Host) && (u.Scheme == "http" || u.Scheme == "https") {
		return resp, nil
	}
	resp.Body.Close()
	const text = "the backend attempted to redirect this request, which is not permitted"
	return &http.Response{
		Status: "502 Bad Gateway", StatusCode: http.StatusBadGateway, Proto: resp.Proto, ProtoMajor: resp.ProtoMajor, ProtoMinor: resp.ProtoMinor,
		Header: http.Header{"Content-Type": {"text/plain; charset=utf-8"}}, Body: io.NopCloser(strings.NewReader(text)), ContentLength: int64(len(text)), Request: req,
	}, nil
}

// boundHTML bounds a page that is rewritten. One that is compressed is first made plain:
// the rewriting would decompress a page of any size.
func boundHTML(resp *http.Response) error {
	var plain io.Reader = resp.Body
	switch resp.Header.Get("Content-Encoding") {
	case "gzip":
		z, err := gzip.NewReader(resp.Body)
		if err != nil {
			return fmt.Errorf("reading the backend's page: %w", err)
		}
		plain = z
	case "deflate":
		plain = flate.NewReader(resp.Body)
	case "":
	default:
		return nil // it is not rewritten
	}
	resp.Header.Del("Content-Encoding")
	resp.Header.Del("Content-Length")
	resp.ContentLength = -1
	resp.Body = struct {
		io.Reader
		io.Closer
	}{&page{plain, maxHTML}, resp.Body}
	return nil
}

// page is a reader that fails after left bytes.
type page struct {
	io.Reader
	left int
}

func (p *page) Read(b []byte) (int, error) {
	if p.left <= 0 {
		return 0, fmt.Errorf("the backend's page is larger than %d bytes", maxHTML)
	}
	n, err := p.Reader.Read(b[:min(len(b), p.left)])
	p.left -= n
	return n, err
}
