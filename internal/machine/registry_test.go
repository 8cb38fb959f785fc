package machine

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

// TestRegistryNamed checks that a page whose name leads to this machine does not reach the
// registry through a browser of this machine.
func TestRegistryNamed(t *testing.T) {
	s := httptest.NewServer(named("registry.test", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusCreated) })))
	defer s.Close()
	for host, want := range map[string]int{
		"localhost:5000": 201, "LOCALHOST": 201, "127.0.0.1:5000": 201, "[::1]:5000": 201, "[::1]": 201, "192.0.2.1:5000": 201, "registry.test:5000": 201,
		"page.example": 403, "page.example:5000": 403, "localhost.page.example:5000": 403, "127.0.0.1.page.example": 403,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, s.URL+"/v2/web/manifests/1", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		resp, err := s.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %s, want %d", host, resp.Status, want)
		}
	}
}
