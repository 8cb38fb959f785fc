package imagetest

import (
	"archive/tar"
	"bytes"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

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
// test, and returns its reference. It is at the same address on other machines, in each
// of which a function of machines calls the function that it is given (lab.Machine.In).
func Push(t testing.TB, img v1.Image, repository string, machines ...func(func() error) error) string {
	t.Helper()
	s := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(s.Close)
	at := s.Listener.Addr().String()
	for _, in := range machines {
		var l net.Listener
		if err := in(func() (err error) {
			l, err = net.Listen("tcp", at)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		there := &http.Server{Handler: s.Config.Handler, ReadHeaderTimeout: time.Minute}
		go func() { _ = there.Serve(l) }()
		t.Cleanup(func() { there.Close() })
	}
	ref, err := name.ParseReference(at + "/" + repository)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		t.Fatal(err)
	}
	return ref.String()
}

// Busybox pushes an image of this machine's busybox, which has a file /data/text beside
// the programs, and returns its reference.
func Busybox(t testing.TB, machines ...func(func() error) error) string {
	t.Helper()
	const program = "/bin/busybox"
	data, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	applets, err := exec.Command(program, "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	l := NewLayer(t)
	l.Dir("/tmp", 0o1777)
	l.File(program, 0o755, data)
	for name := range strings.FieldsSeq(string(applets)) {
		if name != "busybox" {
			l.Link("/bin/"+name, "busybox")
		}
	}
	l.File("/etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"))
	l.File("/etc/group", 0o644, []byte("root:x:0:\nnobody:x:65534:\n"))
	l.File("/data/text", 0o644, []byte("of the image\n"))
	return Push(t, l.Image(v1.Config{Cmd: []string{"sh", "-c", "echo the default of the image"}, Env: []string{"PATH=/bin"}}), "busybox:1", machines...)
}
