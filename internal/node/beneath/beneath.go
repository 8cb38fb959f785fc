package beneath

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// ErrKind is the error of a file that is neither a regular one nor a folder, ErrOutside that of a path
// that leads out of its folder.
var (
	ErrKind    = errors.New("is not a regular file")
	ErrOutside = errors.New("leads out of its folder")
)

// attempts bounds how often a path is resolved anew because something was moved meanwhile.
const attempts = 128

// Dir is a folder.
type Dir struct{ fd int }

// Open opens a folder of the machine.
func Open(path string) (*Dir, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return &Dir{fd}, nil
}

// Close closes the folder.
func (d *Dir) Close() error { return unix.Close(d.fd) }

// Stat returns what the kernel tells of the folder.
func (d *Dir) Stat() (st unix.Stat_t, err error) {
	err = unix.Fstat(d.fd, &st)
	return st, err
}

// Find returns a descriptor of what is at a path below the folder, which is good for its path only
// (open(2), O_PATH). Links are followed unless flags has O_NOFOLLOW for the last one, or resolve
// RESOLVE_NO_SYMLINKS for all. With RESOLVE_NO_XDEV the error of a mount is EXDEV.
func (d *Dir) Find(path string, flags, resolve uint64) (int, error) {
	how := &unix.OpenHow{Flags: flags | unix.O_PATH | unix.O_CLOEXEC, Resolve: resolve | unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS}
	for n := 0; ; n++ {
		fd, err := unix.Openat2(d.fd, path, how)
		if (errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR)) && n < attempts {
			continue // something was moved meanwhile
		}
		if errors.Is(err, unix.EXDEV) && resolve&unix.RESOLVE_NO_XDEV == 0 {
			err = ErrOutside
		}
		return fd, err
	}
}

// Open opens the regular file or folder at a path below the folder for reading.
func (d *Dir) Open(path string) (*os.File, error) { return d.open(path, 0, 0) }

func (d *Dir) open(path string, flags, resolve uint64) (*os.File, error) {
	fd, err := d.Find(path, flags, resolve)
	if err == nil {
		var f *os.File
		f, err = Reopen(fd, path)
		if unix.Close(fd); err == nil {
			return f, nil
		}
	}
	return nil, &fs.PathError{Op: "open", Path: path, Err: err}
}

// Reopen opens the regular file or folder of a descriptor from Find for reading: the same one that
// was looked at, whatever is at its path by now.
func Reopen(fd int, path string) (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if kind := st.Mode & unix.S_IFMT; kind != unix.S_IFREG && kind != unix.S_IFDIR {
		return nil, ErrKind
	}
	// Without O_NONBLOCK it would be waited for a process that has a lease on the file (fcntl(2)).
	f, err := unix.Open(Path(fd), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(f), path), nil
}

// Readlink returns where the link leads that a descriptor from Find is of.
func Readlink(fd int) (string, error) {
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", b)
	return string(b[:max(n, 0)]), err
}

// Path returns the path that leads to what a descriptor is of, whatever is at the path that it was
// opened by.
func Path(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// OpenFile opens the regular file at a path below the folder dir for reading.
func OpenFile(dir, path string) (*os.File, error) {
	d, err := Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	f, err := d.Open(path)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, f.Close(), &fs.PathError{Op: "open", Path: path, Err: ErrKind})
	}
	return f, nil
}

// ReadFile reads the regular file at a path below the folder dir, of at most limit bytes.
func ReadFile(dir, path string, limit int64) ([]byte, error) {
	f, err := OpenFile(dir, path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("is larger than %d bytes", limit)
	}
	return b, err
}
