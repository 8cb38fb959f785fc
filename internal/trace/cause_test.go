package trace

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestBetweenProcesses sends a cause from a client's context to a handler's.
func TestBetweenProcesses(t *testing.T) {
	var got Cause
	var found bool
	s := httptest.NewServer(Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got, found = CauseFrom(r.Context())
	})))
	defer s.Close()
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "0f6b5b53-0f43-4e63-9c49-4a1c2f3f2b7a", ResourceVersion: "12"}}
	for _, c := range []struct {
		name string
		ctx  context.Context
		rt   http.RoundTripper
		head string
		want Cause
	}{
		{"a cause", WithCause(t.Context(), pod), Transport(http.DefaultTransport), "", Cause{pod.UID, "12"}},
		{"no cause", t.Context(), Transport(http.DefaultTransport), "", Cause{}},
		{"by hand", t.Context(), http.DefaultTransport, "a@7", Cause{"a", "7"}},
		{"not a cause", t.Context(), http.DefaultTransport, "a", Cause{}},
		{"without end", t.Context(), http.DefaultTransport, strings.Repeat("a", 1000) + "@7", Cause{}},
	} {
		r, err := http.NewRequestWithContext(c.ctx, http.MethodPost, s.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.head != "" {
			r.Header.Set(Header, c.head)
		}
		resp, err := c.rt.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got != c.want || found != (c.want != Cause{}) {
			t.Errorf("%s: the handler has %v (%v), want %v", c.name, got, found, c.want)
		}
	}
}
