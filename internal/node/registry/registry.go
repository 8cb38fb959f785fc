// Package registry keeps images that are pushed to a node, in a folder, and serves them
// to the node's runtime: a registry for a cluster that has no other. It may import statefile.
package registry

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/registry"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/internal/node/statefile"
)

// maxManifest bounds a manifest, in bytes, as registries do.
const maxManifest = 4 << 20

// Registry is a registry whose images outlive it.
type Registry struct {
	handler http.Handler
	dir     string // of the manifests
	mu      sync.Mutex
}

// manifest is one that was pushed, as its file has it.
type manifest struct {
	Path, ContentType string
	Body              []byte
}

// New opens the registry in a folder.
func New(dir string) (*Registry, error) {
	r := &Registry{dir: filepath.Join(dir, "manifests")}
	blobs := filepath.Join(dir, "blobs")
	for _, d := range []string{r.dir, blobs} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, err
		}
	}
	r.handler = registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithBlobHandler(registry.NewDiskBlobHandler(blobs)))
	return r, r.restore()
}

// restore gives the manifests that were kept to the handler, which keeps them in
// memory only: an index after the manifests that it names.
func (r *Registry) restore() error {
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return err
	}
	var left []manifest
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), statefile.Damaged) {
			continue
		}
		m, damaged, err := statefile.Recover[manifest](filepath.Join(r.dir, e.Name()))
		switch {
		case err != nil:
			return fmt.Errorf("registry: %w", err)
		case damaged:
			klog.Background().Info("The registry has lost an image: push it again", "file", e.Name())
		case m != nil:
			left = append(left, *m)
		}
	}
	for {
		var failed []manifest
		for _, m := range left {
			if status := r.put(m); status != http.StatusCreated {
				failed = append(failed, m)
			}
		}
		if len(failed) == 0 || len(failed) == len(left) { // those lack what they name
			return nil
		}
		left = failed
	}
}

func (r *Registry) put(m manifest) int {
	req, err := http.NewRequest(http.MethodPut, m.Path, bytes.NewReader(m.Body)) //nolint:noctx // nothing is sent
	if err != nil {
		return http.StatusBadRequest
	}
	req.Header.Set("Content-Type", m.ContentType)
	a := &answer{header: http.Header{}}
	r.handler.ServeHTTP(a, req)
	return a.code
}

// ServeHTTP implements http.Handler.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if !strings.Contains(req.URL.Path, "/manifests/") || req.Method != http.MethodPut && req.Method != http.MethodDelete {
		r.handler.ServeHTTP(w, req)
		return
	}
	// One at a time, so that the files match the handler's manifests.
	r.mu.Lock()
	defer r.mu.Unlock()
	m := manifest{Path: req.URL.Path, ContentType: req.Header.Get("Content-Type")}
	if req.Method == http.MethodPut {
		var err error
		if m.Body, err = io.ReadAll(http.MaxBytesReader(w, req.Body, maxManifest)); err != nil {
			http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
			return
		}
		req.Body = io.NopCloser(bytes.NewReader(m.Body))
	}
	a := &answer{header: http.Header{}}
	r.handler.ServeHTTP(a, req)
	var err error
	switch a.code {
	case http.StatusCreated:
		err = r.keep(m)
	case http.StatusAccepted: // deleted
		if err = os.Remove(r.file(m.Path)); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	maps.Copy(w.Header(), a.header)
	w.WriteHeader(a.code)
	_, _ = w.Write(a.body.Bytes())
}

func (r *Registry) file(path string) string {
	return filepath.Join(r.dir, base64.RawURLEncoding.EncodeToString([]byte(path)))
}

func (r *Registry) keep(m manifest) error {
	return statefile.Write(r.file(m.Path), &m)
}

// answer records the response of a handler.
type answer struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(code int) {
	if a.code == 0 {
		a.code = code
	}
}

func (a *answer) Write(b []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(b)
}
