package page

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"
)

// TestServe asks for files of a page in all their forms.
func TestServe(t *testing.T) {
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	if _, err := z.Write([]byte("script")); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	h, err := load(fstest.MapFS{".gitignore": file("*"), absent: file("none"), "index.html": file("<p>"), "assets/a-1.js.gz": file(zipped.String()),
		"assets/a-1.js.br": file("brotli"), "icon.svg": file("<svg/>")})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, method, path string
		header             [2]string
		code               int
		body               string
		want               map[string]string
	}{
		{"the page", "GET", "/dash/", [2]string{}, 200, "<p>", map[string]string{"Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-cache", "Content-Security-Policy": Policy, "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY"}},
		{"without the slash", "GET", "/dash", [2]string{}, 308, "", map[string]string{"Location": "dash/"}},
		{"a script", "GET", "/dash/assets/a-1.js", [2]string{}, 200, "script", map[string]string{"Content-Type": "text/javascript; charset=utf-8", "Cache-Control": "public, max-age=31536000, immutable", "Content-Encoding": "", "Vary": "Accept-Encoding"}},
		{"a script, small", "GET", "/dash/assets/a-1.js", [2]string{"Accept-Encoding", "gzip, deflate, br"}, 200, "brotli", map[string]string{"Content-Encoding": "br"}},
		{"a script, not in brotli", "GET", "/dash/assets/a-1.js", [2]string{"Accept-Encoding", "br;q=0, GZIP;q=0.5"}, 200, zipped.String(), map[string]string{"Content-Encoding": "gzip"}},
		{"only its head", "HEAD", "/dash/icon.svg", [2]string{}, 200, "", map[string]string{"Content-Length": "6", "Content-Type": "image/svg+xml"}},
		{"known", "GET", "/dash/icon.svg", [2]string{"If-None-Match", `"x", W/` + tag(h, "icon.svg")}, 304, "", nil},
		{"changed", "GET", "/dash/icon.svg", [2]string{"If-None-Match", `"x"`}, 200, "<svg/>", nil},
		{"no file", "GET", "/dash/none.js", [2]string{}, 404, "the page has no such file\n", map[string]string{"X-Content-Type-Options": "nosniff"}},
		{"a folder", "GET", "/dash/assets/", [2]string{}, 404, "the page has no such file\n", nil},
		{"above it", "GET", "/dash/../page.go", [2]string{}, 404, "the page has no such file\n", nil},
		{"above it, encoded", "GET", "/dash/%2e%2e/page.go", [2]string{}, 404, "the page has no such file\n", nil},
		{"a hidden file", "GET", "/dash/.gitignore", [2]string{}, 404, "the page has no such file\n", nil},
		{"a write", "POST", "/dash/", [2]string{}, 405, "the page can only be read\n", map[string]string{"Allow": "GET, HEAD"}},
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(t.Context(), c.method, c.path, nil)
		if c.header[0] != "" {
			r.Header.Set(c.header[0], c.header[1])
		}
		h.ServeHTTP(w, r)
		if w.Code != c.code || w.Body.String() != c.body {
			t.Errorf("%s: %d %q, want %d %q", c.name, w.Code, w.Body, c.code, c.body)
		}
		for k, want := range c.want {
			if got := w.Header().Get(k); got != want {
				t.Errorf("%s: %s is %q, want %q", c.name, k, got, want)
			}
		}
	}
}

func tag(h *handler, name string) string { return `"` + h.files[name].tag + `"` }

// TestLoad loads pages that are not as they should be.
func TestLoad(t *testing.T) {
	for name, c := range map[string]struct {
		files fstest.MapFS
		want  string
	}{
		"another kind of file": {fstest.MapFS{"a.exe": {}}, `no media type for ".exe"`},
		"damaged":              {fstest.MapFS{"a.js.gz": {Data: []byte("x")}}, "a.js is neither there as it is nor compressed"},
		"not built":            {fstest.MapFS{absent: {}}, ""},
	} {
		h, err := load(c.files)
		if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
		if c.want == "" && (err != nil || h.index != absent) {
			t.Errorf("%s: %v", name, err)
		}
	}
	w := httptest.NewRecorder()
	Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, Prefix, nil))
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "<html") {
		t.Errorf("this binary's page is %d %s", w.Code, w.Body)
	}
}
