package controlplane

import (
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"keelson.dev/keelson/internal/apiserver"
	"keelson.dev/keelson/internal/apiserver/inprocess"
)

func boot(t testing.TB, o Options) *Instance {
	t.Helper()
	o.Progress = func(step string, took time.Duration) { t.Logf("%-16s %s", step, took) }
	c, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// ask sends a request to the API server, without a network between.
func ask(c *Instance, method, path, body string) *httptest.ResponseRecorder {
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "bench/1")
	w := httptest.NewRecorder()
	c.Server.ServeHTTP(w, req.WithContext(apiserver.WithUser(req.Context(), inprocess.Admin)))
	return w
}

// TestBusyPort starts a server at an address at which another program listens.
func TestBusyPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := Start(t.Context(), Options{Listen: l.Addr().String()})
	if err == nil {
		_ = c.Stop()
		t.Fatal("it has started")
	}
	for _, want := range []string{l.Addr().String(), "address already in use", "choose another address with --listen"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("there is no %q in: %v", want, err)
		}
	}
}
