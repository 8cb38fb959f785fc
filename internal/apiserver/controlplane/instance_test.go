package controlplane

import (
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
