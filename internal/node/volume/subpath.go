package volume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"keelson.dev/keelson/internal/node/beneath"
)

// SubPath makes a path in a volume ready to be mounted into a container, for
// its mount of this index: a folder if nothing is there. The path is resolved by
// the kernel within the volume, and what it leads to then is bound to a folder of
// the agent's, so that a container that swaps a link meanwhile gains nothing.
func (m *Manager) SubPath(uid types.UID, vol Mounted, name, container string, index int, path string) (string, error) {
	fd, err := openBeneath(vol.HostPath, path)
	if err != nil {
		return "", fmt.Errorf("subPath %q of volume %q: %w", path, name, err)
	}
	defer unix.Close(fd)
	target := filepath.Join(m.subPaths(uid), name, container, strconv.Itoa(index))
	if err := Detach(target); err != nil { // what an earlier run of the container had
		return "", err
	}
	if err := point(fd, target); err != nil {
		return "", err
	}
	if err := unix.Mount(beneath.Path(fd), target, "", unix.MS_BIND, ""); err != nil {
		return "", fmt.Errorf("subPath %q of volume %q: binding it to %s: %w", path, name, target, err)
	}
	return target, nil
}

func (m *Manager) subPaths(uid types.UID) string {
	return filepath.Join(m.Root, string(uid), "volume-subpaths")
}

// point makes the file or folder that fd is to be bound to.
func point(fd int, target string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return os.MkdirAll(target, 0o750)
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o750); err != nil {
		return err
	}
	f, err := os.OpenFile(target, os.O_CREATE|os.O_RDONLY, 0o640)
	if err != nil {
		return err
	}
	return f.Close()
}

// openBeneath opens a path below root, which no link in it may leave, and makes
// the folders that are not there, with root's permissions. The descriptor is for the path only (O_PATH).
func openBeneath(root, path string) (int, error) {
	clean := filepath.Clean(path)
	if filepath.IsAbs(clean) || clean == ".." || strings.HasPrefix(clean, "../") {
		return -1, errors.New("must be a relative path without '..'")
	}
	dir, err := beneath.Open(root)
	if err != nil {
		return -1, err
	}
	defer dir.Close()
	open := func(rel string) (int, error) {
		fd, err := dir.Find(rel, 0, 0)
		if errors.Is(err, beneath.ErrOutside) {
			err = errors.New("leads out of its volume")
		}
		return fd, err
	}
	fd, err := open(clean)
	if !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	st, err := dir.Stat()
	if err != nil {
		return -1, err
	}
	at := "."
	for _, part := range strings.Split(clean, "/") {
		parent, err := open(at)
		if err != nil {
			return -1, err
		}
		err = makeIn(parent, part, st.Mode&0o7777)
		unix.Close(parent)
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return -1, fmt.Errorf("making %s: %w", part, err)
		}
		at = filepath.Join(at, part)
	}
	return open(clean)
}

// makeIn makes a folder of these permissions, whatever the umask is. It fails with
// EEXIST where something is.
func makeIn(parent int, name string, mode uint32) error {
	if err := unix.Mkdirat(parent, name, 0o700); err != nil {
		return err
	}
	fd, err := unix.Openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Fchmod(fd, mode)
}
