package images

import (
	"archive/tar"
	"bytes"
	"embed"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Host is the registry host of the built-in images.
const Host = "keelson.local"

// Pause is the image of pods' sandboxes.
const Pause = Host + "/pause:1"

//go:embed all:bin
var bin embed.FS

// Registry serves the built-in images.
type Registry struct {
	listener net.Listener
	server   *http.Server

	once  sync.Once
	err   error
	repos map[string]*image
	blobs map[string][]byte
}

type image struct {
	manifest []byte
	digest   string
}

// Serve starts a registry on loopback, and adds it to hostsDir, where containerd
// has the configuration of its registries.
func Serve(hostsDir string) (*Registry, error) {
	for _, name := range []string{"pause", "demo"} {
		if _, err := bin.ReadFile("bin/" + name); err != nil {
			return nil, errors.New("this binary was built without its images: build it with make")
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &Registry{listener: l}
	r.server = &http.Server{Handler: r} //nolint:gosec // loopback, for the runtime only
	dir := filepath.Join(hostsDir, Host)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		l.Close()
		return nil, err
	}
	url := "http://" + l.Addr().String()
	if err := os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(fmt.Sprintf("server = %q\n\n[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", url, url)), 0o644); err != nil {
		l.Close()
		return nil, err
	}
	go r.server.Serve(l) //nolint:errcheck // ends with Close
	return r, nil
}

// Close ends the registry.
func (r *Registry) Close() error { return r.server.Close() }

// build makes the images, when the first is asked for.
func (r *Registry) build() {
	r.repos, r.blobs = map[string]*image{}, map[string][]byte{}
	for _, name := range []string{"pause", "demo"} {
		data, err := bin.ReadFile("bin/" + name)
		if err == nil {
			err = r.add(name, data)
		}
		if err != nil {
			r.err = err
			return
		}
	}
}

func (r *Registry) add(name string, program []byte) error {
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, d := range []string{"tmp/", "etc/", "bin/"} {
		mode := int64(0o755)
		if d == "tmp/" {
			mode = 0o1777
		}
		if err := tw.WriteHeader(&tar.Header{Name: d, Typeflag: tar.TypeDir, Mode: mode}); err != nil {
			return err
		}
	}
	files := map[string][]byte{"etc/passwd": []byte("root:x:0:0:root:/:/bin/" + name + "\nnobody:x:65534:65534:nobody:/:/bin/" + name + "\n")}
	files["bin/"+name] = program
	for _, path := range []string{"etc/passwd", "bin/" + name} {
		if err := tw.WriteHeader(&tar.Header{Name: path, Mode: 0o755, Size: int64(len(files[path]))}); err != nil {
			return err
		}
		if _, err := tw.Write(files[path]); err != nil {
			return err
		}
	}
	if err := tw.Close(); err != nil {
		return err
	}
	img, err := mutate.AppendLayers(mutate.MediaType(mutate.ConfigMediaType(empty.Image, types.OCIConfigJSON), types.OCIManifestSchema1), static.NewLayer(buf.Bytes(), types.OCIUncompressedLayer))
	if err != nil {
		return err
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		return err
	}
	cfg = cfg.DeepCopy()
	cfg.OS, cfg.Architecture = "linux", runtime.GOARCH
	cfg.Config = v1.Config{Entrypoint: []string{"/bin/" + name}, Env: []string{"PATH=/bin"}, WorkingDir: "/"}
	if img, err = mutate.ConfigFile(img, cfg); err != nil {
		return err
	}
	manifest, err := img.RawManifest()
	if err != nil {
		return err
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return err
	}
	m, err := img.Manifest()
	if err != nil {
		return err
	}
	digest, err := img.Digest()
	if err != nil {
		return err
	}
	r.repos[name] = &image{manifest, digest.String()}
	r.blobs[m.Config.Digest.String()] = config
	r.blobs[m.Layers[0].Digest.String()] = buf.Bytes()
	return nil
}

// ServeHTTP implements the pull half of the OCI distribution API.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.once.Do(r.build)
	if r.err != nil {
		http.Error(w, r.err.Error(), http.StatusInternalServerError)
		return
	}
	path := strings.TrimPrefix(req.URL.Path, "/v2/")
	if path == "" {
		return
	}
	parts := strings.Split(path, "/")
	if len(parts) == 3 {
		img := r.repos[parts[0]]
		switch {
		case img == nil:
		case parts[1] == "manifests" && (!strings.HasPrefix(parts[2], "sha256:") || parts[2] == img.digest):
			w.Header().Set("Content-Type", string(types.OCIManifestSchema1))
			w.Header().Set("Docker-Content-Digest", img.digest)
			w.Header().Set("Content-Length", fmt.Sprint(len(img.manifest)))
			if req.Method != http.MethodHead {
				w.Write(img.manifest)
			}
			return
		case parts[1] == "blobs" && r.blobs[parts[2]] != nil:
			w.Header().Set("Content-Type", "application/octet-stream")
			w.Header().Set("Content-Length", fmt.Sprint(len(r.blobs[parts[2]])))
			if req.Method != http.MethodHead {
				w.Write(r.blobs[parts[2]])
			}
			return
		}
	}
	http.NotFound(w, req)
}
