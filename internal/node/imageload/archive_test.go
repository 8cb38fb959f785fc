package imageload

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func randomImage(t *testing.T) v1.Image {
	t.Helper()
	i, err := random.Image(100, 1)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// saved returns an archive as docker save makes it.
func saved(t *testing.T, tags ...string) []byte {
	t.Helper()
	all := map[name.Tag]v1.Image{}
	for _, tag := range tags {
		parsed, err := name.NewTag(tag)
		if err != nil {
			t.Fatal(err)
		}
		all[parsed] = randomImage(t)
	}
	var b bytes.Buffer
	if err := tarball.MultiWrite(all, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// packed returns a folder as an archive.
func packed(t *testing.T, dir string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// laidOut returns an archive of an OCI layout with what add puts into it.
func laidOut(t *testing.T, add func(layout.Path) error) []byte {
	t.Helper()
	dir := t.TempDir()
	p, err := layout.Write(dir, empty.Index)
	if err == nil {
		err = add(p)
	}
	if err != nil {
		t.Fatal(err)
	}
	return packed(t, dir)
}

func called(key, value string) layout.Option {
	return layout.WithAnnotations(map[string]string{key: value})
}

func TestRead(t *testing.T) {
	zipped := func(b []byte) []byte {
		var out bytes.Buffer
		z := gzip.NewWriter(&out)
		if _, err := z.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	several := func(arch ...string) v1.ImageIndex {
		index := v1.ImageIndex(empty.Index)
		for _, a := range arch {
			index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: randomImage(t), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: a}}})
		}
		return index
	}
	for what, c := range map[string]struct {
		archive []byte
		want    string
		err     string
	}{
		"docker":             {saved(t, "web:1", "registry.example.com/a/b:2"), "docker.io/library/web:1 registry.example.com/a/b:2", ""},
		"docker, compressed": {zipped(saved(t, "web:1")), "docker.io/library/web:1", ""},
		"OCI": {laidOut(t, func(p layout.Path) error {
			return p.AppendImage(randomImage(t), called(wholeName, "docker.io/library/web:1"))
		}), "docker.io/library/web:1", ""},
		"OCI, by its own name": {laidOut(t, func(p layout.Path) error { return p.AppendImage(randomImage(t), called(refName, "web:1")) }), "docker.io/library/web:1", ""},
		"OCI, of several machines": {laidOut(t, func(p layout.Path) error {
			return p.AppendIndex(several("z80", runtime.GOARCH), called(refName, "web:1"))
		}), "docker.io/library/web:1", ""},
		"OCI, of other machines": {laidOut(t, func(p layout.Path) error { return p.AppendIndex(several("z80"), called(refName, "web:1")) }), "", "it is for linux/z80, and not for linux/" + runtime.GOARCH},
		"OCI with a tag alone":   {laidOut(t, func(p layout.Path) error { return p.AppendImage(randomImage(t), called(refName, "latest")) }), "", `is called "latest"`},
		"OCI without an image":   {laidOut(t, func(layout.Path) error { return nil }), "", "the archive has no image"},
		"another archive":        {packed(t, t.TempDir()), "", "neither a manifest.json"},
		"no archive":             {[]byte(strings.Repeat("no archive", 100)), "", "cannot be read"},
	} {
		dir := t.TempDir()
		file, err := spool(bytes.NewReader(c.archive), dir)
		var images []named
		if err == nil {
			images, err = read(file, dir)
		}
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: error %v, want %q", what, err, c.err)
		}
		got := map[string]bool{}
		for _, n := range images {
			got[Name(n.tag)] = true
			if _, err := n.image.Digest(); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		for w := range strings.FieldsSeq(c.want) {
			if !got[w] {
				t.Errorf("%s: no %s in %v", what, w, got)
			}
		}
	}
}

// TestUnpack checks that no file of an archive leaves the folder.
func TestUnpack(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "../escaped", Mode: 0o600}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "a.tar")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unpack(file, filepath.Join(dir, "in")); err == nil {
		t.Error("no error")
	}
	if _, err := os.Stat(filepath.Join(dir, "escaped")); err == nil {
		t.Error("the file is there")
	}
}
