package imageload

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// named is an image under a name that a pod can say.
type named struct {
	tag   name.Tag
	image v1.Image
}

// spool copies an archive, unpacked if it was compressed by gzip, to a file in dir.
func spool(r io.Reader, dir string) (string, error) {
	b := bufio.NewReader(r)
	r = b
	if magic, err := b.Peek(2); err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
		z, err := gzip.NewReader(b)
		if err != nil {
			return "", err
		}
		r = z
	}
	f, err := os.Create(filepath.Join(dir, "archive.tar"))
	if err != nil {
		return "", err
	}
	_, err = io.Copy(f, r)
	return f.Name(), errors.Join(err, f.Close())
}

// read returns the images of an archive. It may unpack it into dir.
func read(archive, dir string) ([]named, error) {
	files, err := names(archive)
	if err != nil {
		return nil, fmt.Errorf("the archive cannot be read: %w", err)
	}
	switch {
	case files["manifest.json"]:
		return docker(archive)
	case files["index.json"]:
		return oci(archive, filepath.Join(dir, "layout"))
	}
	return nil, errors.New("the archive has neither a manifest.json, as docker save makes it, nor an index.json, as OCI layouts have it")
}

// names returns the files at the archive's root.
func names(archive string) (map[string]bool, error) {
	out := map[string]bool{}
	err := each(archive, func(name string, _ *tar.Header, _ io.Reader) error {
		out[name] = true
		return nil
	})
	return out, err
}

// each calls f with each file of an archive, under its clean relative path.
func each(archive string, f func(name string, h *tar.Header, r io.Reader) error) error {
	file, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer file.Close()
	for t := tar.NewReader(file); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := f(path.Clean(h.Name), h, t); err != nil {
			return err
		}
	}
}

func docker(archive string) (out []named, err error) {
	open := func() (io.ReadCloser, error) { return os.Open(archive) }
	manifest, err := tarball.LoadManifest(open)
	if err != nil {
		return nil, err
	}
	for _, d := range manifest {
		for _, t := range d.RepoTags {
			tag, err := name.NewTag(t)
			if err != nil {
				return nil, err
			}
			image, err := tarball.Image(open, &tag)
			if err != nil {
				return nil, fmt.Errorf("image %s: %w", t, err)
			}
			out = append(out, named{tag, image})
		}
	}
	if len(out) == 0 {
		return nil, errors.New("no image of the archive has a name: save it by its name and tag, as in docker save web:1")
	}
	return out, nil
}

// The annotations by which the images of a layout have names: containerd's with the
// whole name, and OCI's, which may be the tag alone.
const (
	wholeName = "io.containerd.image.name"
	refName   = "org.opencontainers.image.ref.name"
)

func oci(archive, dir string) (out []named, err error) {
	if err := unpack(archive, dir); err != nil {
		return nil, err
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	for _, d := range manifest.Manifests {
		full := d.Annotations[wholeName]
		if full == "" {
			full = d.Annotations[refName]
		}
		tag, err := name.NewTag(full)
		if err != nil || !strings.ContainsAny(full, "/:") {
			return nil, fmt.Errorf("an image of the archive is called %q, which is no name with a tag: give it one by the annotation %s or %s", full, wholeName, refName)
		}
		image, err := imageOf(index, d)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", full, err)
		}
		out = append(out, named{tag, image})
	}
	if len(out) == 0 {
		return nil, errors.New("the archive has no image")
	}
	return out, nil
}

// imageOf returns the image that a descriptor of the index is of: for this machine, where
// it is of several.
func imageOf(index v1.ImageIndex, d v1.Descriptor) (v1.Image, error) {
	if !d.MediaType.IsIndex() {
		return index.Image(d.Digest)
	}
	several, err := index.ImageIndex(d.Digest)
	if err != nil {
		return nil, err
	}
	manifest, err := several.IndexManifest()
	if err != nil {
		return nil, err
	}
	var has []string
	for _, d := range manifest.Manifests {
		if d.Platform == nil || d.Platform.OS == "linux" && d.Platform.Architecture == runtime.GOARCH {
			return imageOf(several, d)
		}
		has = append(has, d.Platform.String())
	}
	return nil, fmt.Errorf("it is for %s, and not for linux/%s", strings.Join(has, ", "), runtime.GOARCH)
}

// unpack writes the files of a layout to dir, and nothing beside it.
func unpack(archive, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return each(archive, func(name string, h *tar.Header, r io.Reader) error {
		if h.Typeflag != tar.TypeReg {
			return nil
		}
		if err := root.MkdirAll(path.Dir(name), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		f, err := root.Create(name)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, r)
		return errors.Join(err, f.Close())
	})
}
