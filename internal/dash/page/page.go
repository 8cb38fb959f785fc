// Package page has the built page of keelson dash and serves it. The page has no data in
// it: it asks the API, with its user's rights. It imports nothing of this module.
package page

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
)

// Prefix begins the paths below which an API server has the page.
const Prefix = "/dash/"

//go:embed all:dist
var dist embed.FS

// absent is what is served where the binary was built without the page.
const absent = "absent.html"

// Policy is the Content-Security-Policy of the page: everything from its own server, no
// inline scripts or styles, and in no frame.
const Policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; " +
	"connect-src 'self'; worker-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// types are the media types of the files, by extension.
var types = map[string]string{
	".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
	".svg": "image/svg+xml", ".png": "image/png", ".ico": "image/x-icon", ".woff2": "font/woff2", ".json": "application/json",
	".webmanifest": "application/manifest+json", ".txt": "text/plain; charset=utf-8", ".wasm": "application/wasm",
}

// The forms in which a file may be there beside its own, the smallest first.
var forms = []struct{ name, suffix string }{{"br", ".br"}, {"gzip", ".gz"}}

// file is a file of the page.
type file struct {
	plain []byte
	forms map[string][]byte // by Content-Encoding
	tag   string            // the ETag without quotes
}

// handler serves files by their path.
type handler struct {
	files map[string]*file
	index string
}

// Handler returns the handler of the paths below Prefix.
func Handler() http.Handler {
	return built()
}

var built = sync.OnceValue(func() *handler {
	sub, err := fs.Sub(dist, "dist")
	if err != nil {
		panic(err) // the directory is embedded
	}
	h, err := load(sub)
	if err != nil {
		panic(err) // embedded files can be read
	}
	return h
})

// Built reports whether this binary has the page.
func Built() bool { return built().index != absent }

// load reads the files of a built page.
func load(from fs.FS) (*handler, error) {
	h := &handler{files: map[string]*file{}, index: "index.html"}
	all := map[string][]byte{}
	if err := fs.WalkDir(from, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasPrefix(path.Base(name), ".") {
			return err
		}
		all[name], err = fs.ReadFile(from, name)
		return err
	}); err != nil {
		return nil, err
	}
	for name, data := range all {
		base, form := name, ""
		for _, f := range forms {
			if b, ok := strings.CutSuffix(name, f.suffix); ok {
				base, form = b, f.name
			}
		}
		if types[path.Ext(base)] == "" {
			return nil, fmt.Errorf("%s: no media type for %q", name, path.Ext(base))
		}
		f := h.files[base]
		if f == nil {
			f = &file{forms: map[string][]byte{}}
			h.files[base] = f
		}
		if form == "" {
			f.plain = data
		} else {
			f.forms[form] = data
		}
	}
	for name, f := range h.files {
		if f.plain == nil {
			r, err := gzip.NewReader(bytes.NewReader(f.forms["gzip"]))
			if err != nil {
				return nil, fmt.Errorf("%s is neither there as it is nor compressed by gzip: %w", name, err)
			}
			if f.plain, err = io.ReadAll(r); err != nil {
				return nil, fmt.Errorf("%s.gz: %w", name, err)
			}
		}
		sum := sha256.Sum256(f.plain)
		f.tag = base64.RawURLEncoding.EncodeToString(sum[:12])
	}
	if h.files[h.index] == nil {
		h.index = absent
	}
	return h, nil
}

// ServeHTTP implements http.Handler.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	head := w.Header()
	Harden(head)
	head.Set("Content-Security-Policy", Policy)
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		head.Set("Allow", "GET, HEAD")
		http.Error(w, "the page can only be read", http.StatusMethodNotAllowed)
		return
	}
	name, ok := strings.CutPrefix(r.URL.Path, Prefix)
	if !ok { // without the slash, the page's own links would be resolved wrongly
		head.Set("Location", path.Base(Prefix)+"/") // relative: there may be a proxy with a prefix
		w.WriteHeader(http.StatusPermanentRedirect)
		return
	}
	if name == "" {
		name = h.index
	}
	f := h.files[name]
	if f == nil {
		http.Error(w, "the page has no such file", http.StatusNotFound)
		return
	}
	head.Set("Content-Type", types[path.Ext(name)])
	head.Set("Cache-Control", "no-cache")
	if strings.HasPrefix(name, "assets/") { // their names have a hash of what is in them
		head.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	head.Set("Vary", "Accept-Encoding")
	body, tag := f.plain, f.tag
	for _, form := range forms {
		if data := f.forms[form.name]; data != nil && Accepts(r.Header.Get("Accept-Encoding"), form.name) {
			body, tag = data, tag+"-"+form.name
			head.Set("Content-Encoding", form.name)
			break
		}
	}
	tag = `"` + tag + `"`
	head.Set("ETag", tag)
	for t := range strings.SplitSeq(r.Header.Get("If-None-Match"), ",") {
		if strings.TrimPrefix(strings.TrimSpace(t), "W/") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	head.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodGet {
		_, _ = w.Write(body) // an error is the client's, who has gone
	}
}

// Harden sets the headers of answers that a browser must take for nothing else than what
// they are, and show in no other page.
func Harden(h http.Header) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
}

// Accepts reports whether an Accept-Encoding header has an encoding (RFC 9110, section 12.5.3).
func Accepts(header, encoding string) bool {
	for part := range strings.SplitSeq(header, ",") {
		name, params, _ := strings.Cut(part, ";")
		if !strings.EqualFold(strings.TrimSpace(name), encoding) {
			continue
		}
		if q, ok := strings.CutPrefix(strings.ReplaceAll(params, " ", ""), "q="); ok {
			v, err := strconv.ParseFloat(q, 64)
			return err == nil && v > 0
		}
		return true
	}
	return false
}
