// Command release packs binaries: for each architecture an archive and a Debian
// package, and the checksums of all of them.
//
//	release -version 1.2.3 -depends "containerd, runc" -out dist amd64=keelson-amd64 arm64=keelson-arm64
package main

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/goreleaser/nfpm/v2"
	"github.com/goreleaser/nfpm/v2/deb"
	"github.com/goreleaser/nfpm/v2/files"
)

// release holds the fields that all packages of a release share.
type release struct {
	version, out, root string
	depends            []string
	// date is the time of every file, so that the same input gives the same
	// packages.
	date time.Time
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "release: "+err.Error())
		os.Exit(1)
	}
}

func run() error {
	var r release
	var depends, date string
	flag.StringVar(&r.version, "version", "", "version, beginning with a digit")
	flag.StringVar(&depends, "depends", "", "Debian packages that a node needs, separated by spaces")
	flag.StringVar(&date, "date", "", "date of the files, RFC 3339")
	flag.StringVar(&r.out, "out", "dist", "folder to write to")
	flag.StringVar(&r.root, "root", "..", "folder of README.md and LICENSE")
	flag.Parse()
	r.depends = strings.Fields(depends)
	var err error
	if r.date, err = time.Parse(time.RFC3339, date); err != nil {
		return fmt.Errorf("-date: %w", err)
	}
	if err := os.MkdirAll(r.out, 0o755); err != nil {
		return err
	}
	var made []string
	for _, arg := range flag.Args() {
		arch, binary, ok := strings.Cut(arg, "=")
		if !ok {
			return fmt.Errorf("%q: give architecture=binary", arg)
		}
		for _, pack := range []func(arch, binary string) (string, error){r.archive, r.debian} {
			name, err := pack(arch, binary)
			if err != nil {
				return err
			}
			made = append(made, name)
		}
	}
	return r.sums(made)
}

// create makes the file name of the release with what f writes.
func (r *release) create(name string, f func(io.Writer) error) (string, error) {
	file, err := os.Create(filepath.Join(r.out, name))
	if err != nil {
		return "", err
	}
	if err := errors.Join(f(file), file.Close()); err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return name, nil
}

// archive packs the binary, the licence and the first words.
func (r *release) archive(arch, binary string) (string, error) {
	top := "keelson-" + r.version + "-linux-" + arch
	return r.create(top+".tar.gz", func(w io.Writer) error {
		z := gzip.NewWriter(w)
		t := tar.NewWriter(z)
		for _, f := range []struct {
			from, as string
			mode     int64
		}{{binary, "keelson", 0o755}, {filepath.Join(r.root, "README.md"), "README.md", 0o644}, {filepath.Join(r.root, "LICENSE"), "LICENSE", 0o644}} {
			data, err := os.ReadFile(f.from)
			if err != nil {
				return err
			}
			h := &tar.Header{Name: top + "/" + f.as, Mode: f.mode, Size: int64(len(data)), ModTime: r.date}
			if err := t.WriteHeader(h); err != nil {
				return err
			}
			if _, err := t.Write(data); err != nil {
				return err
			}
		}
		return errors.Join(t.Close(), z.Close())
	})
}

// debian makes a Debian package, which brings what a node needs.
func (r *release) debian(arch, binary string) (string, error) {
	file := func(from, to string, mode os.FileMode) *files.Content {
		return &files.Content{Source: from, Destination: to, FileInfo: &files.ContentFileInfo{Mode: mode, MTime: r.date}}
	}
	info := nfpm.WithDefaults(&nfpm.Info{
		Name: "keelson", Arch: arch, Platform: "linux", Version: r.version, VersionSchema: "none", Section: "admin", Priority: "optional", MTime: r.date,
		Maintainer: "The Keelson authors <keelson@keelson.dev>", License: "Apache-2.0", Homepage: "https://keelson.dev",
		Description: "Kubernetes in one binary\nAPI server, store, controllers, scheduler and node agent: keelson up starts a cluster.",
		Overridables: nfpm.Overridables{Depends: r.depends, Contents: files.Contents{
			file(binary, "/usr/bin/keelson", 0o755),
			file(filepath.Join(r.root, "README.md"), "/usr/share/doc/keelson/README.md", 0o644),
			file(filepath.Join(r.root, "LICENSE"), "/usr/share/doc/keelson/copyright", 0o644),
		}},
	})
	if err := nfpm.PrepareForPackager(info, "deb"); err != nil {
		return "", err
	}
	return r.create(deb.Default.ConventionalFileName(info), func(w io.Writer) error { return deb.Default.Package(info, w) })
}

// sums writes SHA256SUMS, which sha256sum -c reads.
func (r *release) sums(names []string) error {
	slices.Sort(names)
	_, err := r.create("SHA256SUMS", func(w io.Writer) error {
		for _, name := range names {
			f, err := os.Open(filepath.Join(r.out, name))
			if err != nil {
				return err
			}
			h := sha256.New()
			_, err = io.Copy(h, f)
			if err := errors.Join(err, f.Close()); err != nil {
				return err
			}
			if _, err := fmt.Fprintf(w, "%x  %s\n", h.Sum(nil), name); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}
