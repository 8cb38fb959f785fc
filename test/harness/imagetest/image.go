package imagetest

import (
	"archive/tar"
	"bytes"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Layer collects the files of an image.
type Layer struct {
	testing.TB
	buf  bytes.Buffer
	tar  *tar.Writer
	seen map[string]bool
}

// NewLayer makes an empty layer.
func NewLayer(t testing.TB) *Layer {
	l := &Layer{TB: t, seen: map[string]bool{}}
	l.tar = tar.NewWriter(&l.buf)
	return l
}

// Dir adds a folder, and its parents.
func (l *Layer) Dir(path string, mode int64) {
	path = strings.Trim(path, "/")
	if path == "." || path == "" || l.seen[path] {
		return
	}
	l.Dir(filepath.Dir(path), 0o755)
	l.seen[path] = true
	if err := l.tar.WriteHeader(&tar.Header{Name: path + "/", Typeflag: tar.TypeDir, Mode: mode}); err != nil {
		l.Fatal(err)
	}
}

// File adds a file, unless it is there.
func (l *Layer) File(path string, mode int64, data []byte) {
	path = strings.Trim(path, "/")
	if l.seen[path] {
		return
	}
	l.Dir(filepath.Dir(path), 0o755)
	l.seen[path] = true
	if err := l.tar.WriteHeader(&tar.Header{Name: path, Mode: mode, Size: int64(len(data))}); err != nil {
		l.Fatal(err)
	}
	if _, err := l.tar.Write(data); err != nil {
		l.Fatal(err)
	}
}

// Link adds a symbolic link.
func (l *Layer) Link(path, target string) {
	path = strings.Trim(path, "/")
	l.Dir(filepath.Dir(path), 0o755)
	l.seen[path] = true
	if err := l.tar.WriteHeader(&tar.Header{Name: path, Typeflag: tar.TypeSymlink, Linkname: target, Mode: 0o777}); err != nil {
		l.Fatal(err)
	}
}

// Copy adds a file of this machine, under the same path.
func (l *Layer) Copy(path string) { l.CopyAs(path, path) }

// CopyAs adds a file of this machine, at the path as.
func (l *Layer) CopyAs(path, as string) {
	data, err := os.ReadFile(path) // through links
	if err != nil {
		l.Fatal(err)
	}
	l.File(as, 0o755, data)
}

// Libraries adds the shared libraries of the program at path.
func (l *Layer) Libraries(path string) {
	out, err := exec.Command("ldd", path).Output()
	if err != nil {
		l.Fatalf("ldd %s: %v", path, err)
	}
	for line := range strings.Lines(string(out)) {
		for _, word := range strings.Fields(line) {
			if strings.HasPrefix(word, "/") {
				l.Copy(word)
			}
		}
	}
}

// Image returns an image of the layer alone.
func (l *Layer) Image(config v1.Config) v1.Image {
	if err := l.tar.Close(); err != nil {
		l.Fatal(err)
	}
	data := l.buf.Bytes()
	content, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
	if err != nil {
		l.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, content)
	if err != nil {
		l.Fatal(err)
	}
	if img, err = mutate.ConfigFile(img, withConfig(l, img, config)); err != nil {
		l.Fatal(err)
	}
	return img
}

func withConfig(t testing.TB, img v1.Image, config v1.Config) *v1.ConfigFile {
	f, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	f = f.DeepCopy()
	f.OS, f.Architecture, f.Config = "linux", runtime.GOARCH, config
	return f
}

// Push puts the image into a registry on loopback that lives as long as the
// test, and returns its reference.
func Push(t testing.TB, img v1.Image, repository string) string {
	s := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(s.Close)
	ref, err := name.ParseReference(strings.TrimPrefix(s.URL, "http://") + "/" + repository)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		t.Fatal(err)
	}
	return ref.String()
}
