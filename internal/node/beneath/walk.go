package beneath

import (
	"errors"
	"io"
	"io/fs"

	"golang.org/x/sys/unix"
)

const (
	// batch is how many names of a folder are read at a time.
	batch = 1024
	// longest is the longest path, in bytes, that is looked up in one piece: the kernel accepts
	// 4096 bytes, and folders can be nested deeper.
	longest = 3072
)

// Entry is a file or folder that Walk has come to.
type Entry struct {
	// Path is that below the folder which is walked, "." for that itself.
	Path string
	// Stat tells what was there when Walk came to it; a link is not followed.
	Stat unix.Stat_t
	// in and name are the folder it is in, and its name there.
	in   int
	name string
}

// Find returns a descriptor of the entry, as Dir.Find does; a link is not followed. What is there may
// be another one by now than Stat tells of.
func (e *Entry) Find() (int, error) {
	return unix.Openat(e.in, e.name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

// Walk calls visit for the folder and for all that is in it, a folder before what is in it. Links are
// not followed, and mounts only if mounts says so. What goes while it is looked for is left out, and so
// is what is in a folder for which visit returns fs.SkipDir; any other error ends the walk.
func (d *Dir) Walk(mounts bool, visit func(*Entry) error) error {
	st, err := d.Stat()
	if err != nil {
		return err
	}
	w := &walk{visit: visit, resolve: unix.RESOLVE_NO_SYMLINKS}
	if !mounts {
		w.resolve |= unix.RESOLVE_NO_XDEV
	}
	switch err := visit(&Entry{Path: ".", Stat: st, in: d.fd, name: "."}); {
	case errors.Is(err, fs.SkipDir):
		return nil
	case err != nil:
		return err
	}
	return w.folder(d, "", ".")
}

// Gone reports whether an error says that a file was removed, or swapped for something else, since
// Walk came to it.
func Gone(err error) bool {
	for _, e := range []error{fs.ErrNotExist, unix.ENOTDIR, unix.ELOOP, ErrKind} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// gone returns the error of a folder that is still there, and may be walked.
func gone(err error) error {
	if Gone(err) || errors.Is(err, unix.EXDEV) { // the latter is a mount
		return nil
	}
	return err
}

type walk struct {
	visit   func(*Entry) error
	resolve uint64
}

// folder visits what is in the folder path below d, which is at prefix of the folder that is walked.
// No descriptor is held while the folders in it are visited, which may be nested as deep as the file
// system allows.
func (w *walk) folder(d *Dir, prefix, path string) error {
	if len(path) > longest {
		fd, err := d.Find(path, unix.O_DIRECTORY, w.resolve)
		if err != nil {
			return gone(err)
		}
		in := &Dir{fd}
		defer in.Close()
		return w.folder(in, prefix+path+"/", ".")
	}
	within, err := w.files(d, prefix, path)
	if err != nil {
		return err
	}
	for _, name := range within {
		if err := w.folder(d, prefix, join(path, name)); err != nil {
			return err
		}
	}
	return nil
}

// files visits what is in a folder, and returns the names of the folders in it.
func (w *walk) files(d *Dir, prefix, path string) (folders []string, err error) {
	f, err := d.open(path, unix.O_DIRECTORY, w.resolve)
	if err != nil {
		return nil, gone(err)
	}
	defer f.Close()
	for {
		names, err := f.Readdirnames(batch)
		for _, name := range names {
			e := &Entry{Path: prefix + join(path, name), in: int(f.Fd()), name: name}
			if err := unix.Fstatat(e.in, name, &e.Stat, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				if Gone(err) {
					continue
				}
				return nil, &fs.PathError{Op: "stat", Path: e.Path, Err: err}
			}
			switch err := w.visit(e); {
			case errors.Is(err, fs.SkipDir):
			case err != nil:
				return nil, err
			case e.Stat.Mode&unix.S_IFMT == unix.S_IFDIR:
				folders = append(folders, name)
			}
		}
		if errors.Is(err, io.EOF) {
			return folders, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

func join(path, name string) string {
	if path == "." {
		return name
	}
	return path + "/" + name
}
