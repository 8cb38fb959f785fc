package controlplane

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"keelson.dev/keelson/internal/apiserver"
	"keelson.dev/keelson/internal/apiserver/inprocess"
	"keelson.dev/keelson/internal/trace"
)

// TestExemplars finds the trace of a write in the metrics, if it is one that is sampled:
// clients get it that ask for OpenMetrics, and only they.
func TestExemplars(t *testing.T) {
	c := boot(t, Options{NoDrain: true})
	if w := ask(c, "POST", "/api/v1/namespaces/default/secrets", `{"metadata":{"name":"untraced"}}`); w.Code != http.StatusCreated {
		t.Fatal(w.Body)
	}
	c.Trace.Sample(func(trace.TraceID) bool { return true })
	if w := ask(c, "POST", "/api/v1/namespaces/default/configmaps", `{"metadata":{"name":"traced"}}`); w.Code != http.StatusCreated {
		t.Fatal(w.Body)
	}
	steps := c.Trace.Way(c.Trace.Find("configmaps", "default", "traced"))
	if len(steps) != 1 || !steps[0].Context.IsValid() {
		t.Fatalf("the steps are %+v", steps)
	}
	scrape := func(accept string) string {
		req := httptest.NewRequest(http.MethodGet, "/metrics", nil)
		req.Header.Set("Accept", accept)
		w := httptest.NewRecorder()
		c.Server.ServeHTTP(w, req.WithContext(apiserver.WithUser(req.Context(), inprocess.Admin)))
		if w.Code != http.StatusOK {
			t.Fatal(w.Body)
		}
		return w.Body.String()
	}
	open, plain := scrape("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"), scrape("text/plain;version=0.0.4")
	found := false
	for line := range strings.Lines(open) {
		if strings.Contains(line, `resource="secrets"`) && strings.Contains(line, "trace_id") {
			t.Errorf("a trace that is not sampled: %s", line)
		}
		if series, exemplar, ok := strings.Cut(line, " # "); ok && strings.HasPrefix(series, "apiserver_request_duration_seconds_bucket{") && strings.Contains(series, `resource="configmaps"`) {
			found = found || strings.Contains(exemplar, `trace_id="`+steps[0].TraceID.String()+`"`) && strings.Contains(exemplar, `span_id="`+steps[0].SpanID.String()+`"`)
		}
	}
	if !found || !strings.HasSuffix(open, "# EOF\n") {
		t.Errorf("no exemplar of trace %s in\n%s", steps[0].TraceID, open)
	}
	if strings.Contains(plain, "trace_id") || strings.Contains(plain, "# EOF") {
		t.Error("the plain text has exemplars")
	}
	// A counter keeps its name, be it that OpenMetrics wants another.
	for _, text := range []string{open, plain} {
		if !strings.Contains(text, "\nauthentication_attempts{") {
			t.Error("authentication_attempts has another name")
		}
	}
}
