package serving

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keelson.dev/keelson/test/harness"
)

// certificate writes one that calls itself name into dir, and returns its files.
func certificate(t *testing.T, dir, file, name string, sans ...string) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: sans, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, file+".crt"), filepath.Join(dir, file+".key")
	for path, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(path+".new", pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

// shown returns the common name of the certificate that a server with s shows to a
// client that asks for name.
func shown(t *testing.T, address, name string) string {
	t.Helper()
	c, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, ServerName: name})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].Subject.CommonName
}

// always returns what tls.Config.GetCertificate may be.
func always(c tls.Certificate) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &c, nil }
}

func TestCertificates(t *testing.T) {
	dir := t.TempDir()
	first, firstKey := certificate(t, dir, "first", "first")
	named, namedKey := certificate(t, dir, "named", "named", "in.the.certificate", "*.wild.test", "both.test")
	flagged, flaggedKey := certificate(t, dir, "flagged", "flagged", "not.asked.for")
	s := &Selection{CertFile: first, KeyFile: firstKey, SNICertKeys: []string{named + "," + namedKey, flagged + "," + flaggedKey + ":*.flag.test,both.test,127.0.0.1"}}
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(http.NotFoundHandler())
	srv.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	if err := s.Certificates(t.Context(), nil, srv.TLS); err != nil {
		t.Fatal(err)
	}
	l := tls.NewListener(srv.Listener, srv.TLS)
	srv.Listener = l
	srv.Start()
	t.Cleanup(srv.Close)
	address := l.Addr().String()
	for name, want := range map[string]string{
		"elsewhere.test": "first", "in.the.certificate": "named", "IN.the.Certificate": "named", "a.wild.test": "named", "a.b.wild.test": "first", "a.flag.test": "flagged",
		"both.test": "flagged", "not.asked.for": "first", "": "flagged",
	} {
		if got := shown(t, address, name); got != want {
			t.Errorf("%q is shown %s, want %s", name, got, want)
		}
	}
	certificate(t, dir, "first", "renewed")
	harness.Eventually(t, "the changed certificate to be shown", func() bool { return shown(t, address, "elsewhere.test") == "renewed" })
}

// TestCertDir checks that a certificate is made in the folder, and served from there
// the next time.
func TestCertDir(t *testing.T) {
	dir := t.TempDir()
	own, err := tls.LoadX509KeyPair(certificate(t, dir, "own", "own"))
	if err != nil {
		t.Fatal(err)
	}
	other, err := tls.LoadX509KeyPair(certificate(t, dir, "other", "other"))
	if err != nil {
		t.Fatal(err)
	}
	s := &Selection{CertDir: filepath.Join(dir, "made")}
	for _, c := range []tls.Certificate{own, other} {
		config := &tls.Config{MinVersion: tls.VersionTLS12}
		if err := s.Certificates(t.Context(), always(c), config); err != nil {
			t.Fatal(err)
		}
		got, err := config.GetCertificate(&tls.ClientHelloInfo{ServerName: "x"})
		if err != nil || got.Leaf.Subject.CommonName != "own" {
			t.Errorf("served %v, %v", got, err)
		}
	}
	if err := os.Remove(filepath.Join(s.CertDir, "apiserver.key")); err != nil {
		t.Fatal(err)
	}
	if err := s.Certificates(t.Context(), always(own), &tls.Config{MinVersion: tls.VersionTLS12}); err == nil || !strings.Contains(err.Error(), "apiserver.key") {
		t.Errorf("a certificate without its key: %v", err)
	}
}

func TestOwnCertificate(t *testing.T) {
	dir := t.TempDir()
	own, err := tls.LoadX509KeyPair(certificate(t, dir, "own", "own"))
	if err != nil {
		t.Fatal(err)
	}
	named, namedKey := certificate(t, dir, "named", "named")
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	s := &Selection{SNICertKeys: []string{named + "," + namedKey + ":api.test"}}
	if err := s.Certificates(t.Context(), always(own), c); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"api.test": "named", "other.test": "own"} {
		got, err := c.GetCertificate(&tls.ClientHelloInfo{ServerName: name})
		if err != nil || got.Leaf.Subject.CommonName != want {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
	if err := (&Selection{CertFile: filepath.Join(dir, "none"), KeyFile: namedKey}).Certificates(t.Context(), always(own), c); err == nil {
		t.Error("a file that is not there is taken")
	}
}

func TestCORS(t *testing.T) {
	s := &Selection{CORSOrigins: []string{`//console\.test(:|$)`}}
	h := s.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	for _, c := range []struct {
		method, origin, allowed string
		code                    int
	}{
		{"OPTIONS", "https://console.test", "https://console.test", http.StatusNoContent},
		{"GET", "https://console.test:8443", "https://console.test:8443", http.StatusTeapot},
		{"GET", "https://console.test.evil", "", http.StatusTeapot},
		{"GET", "", "", http.StatusTeapot},
	} {
		req, w := httptest.NewRequest(c.method, "/", nil), httptest.NewRecorder()
		if c.origin != "" {
			req.Header.Set("Origin", c.origin)
		}
		h.ServeHTTP(w, req)
		if got := w.Header().Get("Access-Control-Allow-Origin"); got != c.allowed || w.Code != c.code {
			t.Errorf("%s from %q: %d, allowed %q", c.method, c.origin, w.Code, got)
		}
	}
}
