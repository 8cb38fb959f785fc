package serving

import (
	"crypto/tls"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		name string
		s    Selection
		want string // part of the error; empty for none
	}{
		{"nothing", Selection{}, ""},
		{"everything", Selection{MinTLSVersion: "VersionTLS13", CipherSuites: []string{"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"},
			StrictTransport: []string{"max-age=31536000", "includeSubDomains", "preload"}, GoawayChance: 0.02}, ""},
		{"version", Selection{MinTLSVersion: "TLS9"}, "--tls-min-version"},
		{"suite", Selection{CipherSuites: []string{"ROT13"}}, "--tls-cipher-suites"},
		{"no suite for HTTP/2", Selection{CipherSuites: []string{"TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"}}, "HTTP/2 needs"},
		{"suites unused by 1.3", Selection{MinTLSVersion: "VersionTLS13", CipherSuites: []string{"TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"}}, ""},
		{"directive", Selection{StrictTransport: []string{"max-age=1", "forever"}}, "--strict-transport-security-directives invalid"},
		{"too often", Selection{GoawayChance: 0.03}, "--goaway-chance can not be less than 0 or greater than 0.02"},
		{"negative", Selection{GoawayChance: -0.01}, "--goaway-chance"},
		{"streams", Selection{MaxStreams: -1}, "--http2-max-streams-per-connection"},
		{"no number", Selection{GoawayChance: math.NaN()}, "--goaway-chance"},
	} {
		err := c.s.Validate()
		if (err != nil) != (c.want != "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

// serve answers each request with the client's address, which tells connections apart.
func serve(t *testing.T, s *Selection, wrap func(http.Handler) http.Handler) *httptest.Server {
	t.Helper()
	srv := httptest.NewUnstartedServer(wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.RemoteAddr) })))
	srv.EnableHTTP2 = true
	srv.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	if err := s.ConfigureTLS(srv.TLS); err != nil {
		t.Fatal(err)
	}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv
}

func get(t *testing.T, srv *httptest.Server) (string, *http.Response) {
	t.Helper()
	resp, err := srv.Client().Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body), resp
}

func TestTLS(t *testing.T) {
	s := &Selection{MinTLSVersion: "VersionTLS13", StrictTransport: []string{"max-age=31536000", "preload"}}
	srv := serve(t, s, s.Handler)
	_, resp := get(t, srv)
	if got, want := resp.Header.Get("Strict-Transport-Security"), "max-age=31536000; preload"; got != want {
		t.Errorf("Strict-Transport-Security: got %q, want %q", got, want)
	}
	srv.Client().Transport.(*http.Transport).CloseIdleConnections()
	c, err := tls.Dial("tcp", srv.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
	if err == nil {
		c.Close()
		t.Error("TLS 1.2 was accepted, wanted 1.3 at least")
	}
}

func TestGoaway(t *testing.T) {
	for _, away := range []bool{false, true} {
		srv := serve(t, &Selection{}, func(h http.Handler) http.Handler { return goaway(h, func() bool { return away }) })
		first, resp := get(t, srv)
		if resp.ProtoMajor != 2 {
			t.Fatalf("got %s, wanted HTTP/2", resp.Proto)
		}
		second, _ := get(t, srv)
		if (first != second) != away {
			t.Errorf("goaway %v: connections %s and %s", away, first, second)
		}
	}
}
