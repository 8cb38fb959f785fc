package registry

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"keelson.dev/keelson/internal/node/statefile"
)

// open serves the registry in a folder.
func open(t *testing.T, dir string) (host string, end func()) {
	t.Helper()
	r, err := New(dir)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(r)
	return strings.TrimPrefix(s.URL, "http://"), s.Close
}

func TestRegistryAfterRestart(t *testing.T) {
	dir := t.TempDir()
	host, end := open(t, dir)
	ref := func(host, n string) name.Reference {
		r, err := name.ParseReference(host + "/" + n)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	image, err := random.Image(100, 2)
	if err != nil {
		t.Fatal(err)
	}
	index, err := random.Index(100, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"web:1", "a/b/web:gone"} {
		if err := remote.Write(ref(host, n), image); err != nil {
			t.Fatal(err)
		}
	}
	if err := remote.WriteIndex(ref(host, "index:1"), index); err != nil {
		t.Fatal(err)
	}
	if err := remote.Delete(ref(host, "a/b/web:gone")); err != nil {
		t.Fatal(err)
	}
	end()

	host, end = open(t, dir)
	defer end()
	got, err := remote.Image(ref(host, "web:1"))
	if err != nil {
		t.Fatal(err)
	}
	want, _ := image.Digest()
	if d, err := got.Digest(); err != nil || d != want {
		t.Errorf("digest %v %v, want %v", d, err, want)
	}
	layers, err := got.Layers()
	if err != nil || len(layers) != 2 {
		t.Fatalf("%d layers, %v", len(layers), err)
	}
	for _, l := range layers {
		r, err := l.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
	}
	if _, err := remote.Index(ref(host, "index:1")); err != nil {
		t.Error(err)
	}
	if _, err := remote.Image(ref(host, "a/b/web:gone")); err == nil {
		t.Error("the deleted image is there")
	}
}

// TestDamaged checks that a manifest that a loss of power has torn keeps no registry from
// starting, again and again.
func TestDamaged(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "manifests", "x")
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := New(dir); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(file + statefile.Damaged); err != nil {
		t.Error(err)
	}
}
