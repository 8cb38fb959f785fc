package volume

import (
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"

	"keelson.dev/keelson/internal/node/beneath"
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
	// links meanwhile.
	d, err := beneath.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Walk(true, func(e *beneath.Entry) error {
		err := setGroup(e, group, readOnly)
		if beneath.Gone(err) && e.Path != "." {
			return nil
		}
		return err
	})
}

// setGroup makes a file or a folder the group's. It is the same one from the look at its mode to
// the change of it, so that the mode of a file is not set to another's.
func setGroup(e *beneath.Entry, group int64, readOnly bool) error {
	fd, err := e.Find()
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), e.Path)
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := unix.Fchownat(fd, "", -1, int(group), unix.AT_EMPTY_PATH); err != nil {
		return &fs.PathError{Op: "chown", Path: e.Path, Err: err}
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		return nil
	}
	return os.Chmod(beneath.Path(fd), info.Mode()|groupMode(info, readOnly))
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
