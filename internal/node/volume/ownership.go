package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
)

// SetGroup makes all that is in a volume the group's, and readable by it, and
// writable too where the volume is. With OnRootMismatch it does nothing if the
// volume's folder is already as it is to be
// (https://kubernetes.io/docs/tasks/configure-pod-container/security-context/#configure-volume-permission-and-ownership-change-policy-for-pods).
// Links are not followed out of it.
func SetGroup(dir string, group int64, policy *v1.PodFSGroupChangePolicy, readOnly bool) error {
	if policy != nil && *policy == v1.FSGroupChangeOnRootMismatch {
		info, err := os.Lstat(dir)
		if err != nil {
			return err
		}
		want := groupMode(info, readOnly)
		if st, ok := info.Sys().(*syscall.Stat_t); ok && int64(st.Gid) == group && info.Mode()&want == want {
			return nil
		}
	}
	// The volume may be another pod's, too, whose containers may swap files for
	// links meanwhile: a Root does not leave the folder.
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(path string, _ fs.DirEntry, err error) error {
		if err == nil {
			err = setGroup(root, path, group, readOnly)
		}
		if errors.Is(err, fs.ErrNotExist) && path != "." {
			return nil // it went meanwhile
		}
		return err
	})
}

// setGroup makes a file or a folder the group's. It is the same one from the look at its mode to
// the change of it, so that the mode of a file is not set to another's.
func setGroup(root *os.Root, path string, group int64, readOnly bool) error {
	f, err := root.OpenFile(path, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := unix.Fchownat(int(f.Fd()), "", -1, int(group), unix.AT_EMPTY_PATH); err != nil {
		return &fs.PathError{Op: "chown", Path: path, Err: err}
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		return nil
	}
	return os.Chmod(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), info.Mode()|groupMode(info, readOnly))
}

// groupMode returns the least permissions of the group on a file or folder.
func groupMode(info fs.FileInfo, readOnly bool) fs.FileMode {
	mode := fs.FileMode(0o660)
	if readOnly {
		mode = 0o440
	}
	if info.IsDir() {
		mode |= 0o110 | fs.ModeSetgid
	}
	return mode
}
