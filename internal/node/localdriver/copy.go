package localdriver

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"keelson.dev/keelson/internal/node/beneath"
)

// copyDir copies what is in the folder from, which the containers of pods may change meanwhile, to the
// folder to, which nothing else writes to: with owners, permissions, extended attributes, times of
// change and hard links. What is mounted in it is not copied.
func copyDir(to, from string) error {
	d, err := beneath.Open(from)
	if err != nil {
		return err
	}
	defer d.Close()
	c := &copier{to: to, links: map[inode]string{}}
	return d.Walk(false, c.entry)
}

type inode struct{ dev, ino uint64 }

type copier struct {
	to string
	// links are the copies of files with several names.
	links map[inode]string
}

// entry copies a file or folder. What has taken its place since is copied for it. It is fs.SkipDir
// unless the copy is a folder: a link that was copied must not be written through.
func (c *copier) entry(e *beneath.Entry) error {
	fd, err := e.Find()
	if beneath.Gone(err) {
		return fs.SkipDir
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	path := filepath.Join(c.to, e.Path)
	kind := st.Mode & unix.S_IFMT
	id := inode{st.Dev, st.Ino}
	if first := c.links[id]; first != "" {
		err = os.Link(first, path)
	} else {
		err = c.make(path, fd, kind, &st)
	}
	if errors.Is(err, fs.ErrExist) && e.Path != "." {
		return fs.SkipDir // it was renamed meanwhile, and is found again
	}
	if err != nil && e.Path != "." {
		return err
	}
	if c.links[id] == "" {
		if err := describe(path, fd, &st); err != nil {
			return err
		}
	}
	if kind == unix.S_IFDIR {
		return nil
	}
	if st.Nlink > 1 {
		c.links[id] = path
	}
	return fs.SkipDir
}

// make makes a file or folder of this kind, with the content of the descriptor's.
func (c *copier) make(path string, fd int, kind uint32, st *unix.Stat_t) error {
	switch kind {
	case unix.S_IFDIR:
		return os.Mkdir(path, 0o700)
	case unix.S_IFLNK:
		to, err := beneath.Readlink(fd)
		if err != nil {
			return err
		}
		return os.Symlink(to, path)
	case unix.S_IFREG:
		from, err := beneath.Reopen(fd, path)
		if err != nil {
			return &fs.PathError{Op: "open", Path: path, Err: err}
		}
		defer from.Close()
		return copyFile(path, from, st.Size)
	}
	return unix.Mknod(path, st.Mode, int(st.Rdev))
}

// describe gives a copy the owner, the permissions, the extended attributes and the time of change of
// the descriptor's.
func describe(path string, fd int, st *unix.Stat_t) error {
	if err := os.Lchown(path, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Chmod(path, st.Mode&0o7777); err != nil {
			return &fs.PathError{Op: "chmod", Path: path, Err: err}
		}
	}
	if err := copyAttributes(path, beneath.Path(fd)); err != nil {
		return &fs.PathError{Op: "setxattr", Path: path, Err: err}
	}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &fs.PathError{Op: "utimensat", Path: path, Err: err}
	}
	return nil
}

// copyAttributes copies the extended attributes (xattr(7)).
func copyAttributes(to, from string) error {
	names, err := grown(func(b []byte) (int, error) { return unix.Listxattr(from, b) })
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, name := range strings.Split(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		value, err := grown(func(b []byte) (int, error) { return unix.Getxattr(from, name, b) })
		if errors.Is(err, unix.ENODATA) {
			continue // it went meanwhile
		}
		if err != nil {
			return err
		}
		if err := unix.Lsetxattr(to, name, value, 0); err != nil {
			return err
		}
	}
	return nil
}

// attributesMax is the greatest size, in bytes, of an extended attribute and of all their names.
const attributesMax = 64 << 10

// grown returns what a call reads into a buffer that is large enough.
func grown(read func([]byte) (int, error)) ([]byte, error) {
	b := make([]byte, 256)
	n, err := read(b)
	if errors.Is(err, unix.ERANGE) {
		b = make([]byte, attributesMax)
		n, err = read(b)
	}
	return b[:max(n, 0)], err
}

// copyFile makes a file with the first size bytes of another one: shared by both where the file system
// can (FICLONE, ioctl_ficlone(2)), and without its holes where not.
func copyFile(path string, from *os.File, size int64) (err error) {
	to, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	if unix.IoctlFileClone(int(to.Fd()), int(from.Fd())) == nil {
		return nil
	}
	// A file that grows meanwhile has no end.
	for at := int64(0); at < size; {
		data, err := from.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) || err == nil && data >= size {
			break // all that follows is a hole
		}
		if err != nil {
			return err
		}
		hole, err := from.Seek(data, unix.SEEK_HOLE)
		if errors.Is(err, unix.ENXIO) {
			break // it is shorter now
		}
		if err != nil {
			return err
		}
		at = min(hole, size)
		if _, err := from.Seek(data, io.SeekStart); err != nil {
			return err
		}
		if _, err := to.Seek(data, io.SeekStart); err != nil {
			return err
		}
		if _, err := io.CopyN(to, from, at-data); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
	return to.Truncate(size)
}
