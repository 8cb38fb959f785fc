// Package registry keeps images that are pushed to a node, in a folder, and serves them
// to the node's runtime: a registry for a cluster that has no other. It may import statefile.
package registry

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
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
	handler http.Handler // of all but blobs
	blobs   *blobs
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
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return nil, err
	}
	var err error
	if r.blobs, err = newBlobs(dir); err != nil {
		return nil, err
	}
	r.handler = registry.New(registry.Logger(log.New(io.Discard, "", 0)))
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
			if file := filepath.Join(r.dir, e.Name()); file != r.file(m.Path) { // of a former version
				if err := os.Rename(file, r.file(m.Path)); err != nil {
					return fmt.Errorf("registry: %w", err)
				}
			}
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
	name, service, target := split(req.URL.Path)
	if service != "" && (len(name) > maxName || !namePattern.MatchString(name)) {
		fail(w, &problem{http.StatusBadRequest, "NAME_INVALID", fmt.Sprintf("the name of a repository is of lower case letters, digits, separators and slashes, %d characters at most", maxName)})
		return
	}
	if service == "blobs" {
		if err := r.blobs.serve(w, req, name, target); err != nil {
			fail(w, err)
		}
		return
	}
	if service != "manifests" || req.Method != http.MethodPut && req.Method != http.MethodDelete {
		r.handler.ServeHTTP(w, req)
		return
	}
	if !tagPattern.MatchString(target) && !digestPattern.MatchString(target) {
		fail(w, &problem{http.StatusBadRequest, "MANIFEST_INVALID", "the reference is neither a tag nor a digest of sha256"})
		return
	}
	// One at a time, so that the files match the handler's manifests.
	r.mu.Lock()
	defer r.mu.Unlock()
	m := manifest{Path: req.URL.Path, ContentType: req.Header.Get("Content-Type")}
	if req.Method == http.MethodPut {
		var err error
		if m.Body, err = io.ReadAll(http.MaxBytesReader(w, req.Body, maxManifest)); err != nil {
			var large *http.MaxBytesError
			if errors.As(err, &large) {
				fail(w, &problem{http.StatusRequestEntityTooLarge, "SIZE_INVALID", fmt.Sprintf("a manifest has %d bytes at most", maxManifest)})
			} else {
				fail(w, &problem{http.StatusBadRequest, "MANIFEST_INVALID", err.Error()})
			}
			return
		}
		if sum := sha256.Sum256(m.Body); digestPattern.MatchString(target) && target != "sha256:"+hex.EncodeToString(sum[:]) {
			fail(w, &problem{http.StatusBadRequest, "DIGEST_INVALID", "the manifest has another digest"})
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
		fail(w, err)
		return
	}
	maps.Copy(w.Header(), a.header)
	w.WriteHeader(a.code)
	_, _ = w.Write(a.body.Bytes())
}

// split returns the parts of a path /v2/<name>/<service>/<target>; service is empty if it is
// another. An upload's target begins with uploads/.
func split(path string) (name, service, target string) {
	rest, is := strings.CutPrefix(path, "/v2/")
	if !is {
		return "", "", ""
	}
	for _, service := range []string{"/blobs/uploads", "/blobs/", "/manifests/", "/tags/", "/referrers/"} {
		i := strings.LastIndex(rest, service)
		if i < 0 {
			continue
		}
		if service == "/blobs/uploads" {
			if end := rest[i+len(service):]; end != "" && end[0] != '/' {
				continue
			}
			return rest[:i], "blobs", rest[i+len("/blobs/"):]
		}
		if strings.Contains(rest[i+len(service):], "/") {
			continue
		}
		return rest[:i], strings.Trim(service, "/"), rest[i+len(service):]
	}
	return "", "", ""
}

// file returns the file of a manifest. A name and a tag together are longer than a file's
// name may be.
func (r *Registry) file(path string) string {
	sum := sha256.Sum256([]byte(path))
	return filepath.Join(r.dir, hex.EncodeToString(sum[:]))
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
