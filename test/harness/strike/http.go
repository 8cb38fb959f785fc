package strike

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"
)

// ServeHTTP passes requests on to the server at the URL, over the transport, until the end of
// the test, and returns its own URL. The function about returns what a request with this
// body is about, "" for nothing that is held, and the name of the call.
func (p *Points) ServeHTTP(t testing.TB, to string, transport http.RoundTripper, about func(r *http.Request, body []byte) (subject, call string)) string {
	t.Helper()
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	type key struct{}
	x := &httputil.ReverseProxy{
		Transport: transport, FlushInterval: -1,
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(u) },
		ModifyResponse: func(r *http.Response) error {
			at, _ := r.Request.Context().Value(key{}).(Point)
			at.After = true
			return p.Pass(r.Request.Context(), at)
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, err.Error(), http.StatusBadGateway)
		},
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		subject, call := about(r, body)
		at := Point{Subject: subject, Call: call}
		if err := p.Pass(r.Context(), at); err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		x.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), key{}, at)))
	}))
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s.URL
}
