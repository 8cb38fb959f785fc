package volume

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

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
	return fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil {
			err = root.Lchown(path, -1, int(group))
		}
		if err == nil && info.Mode()&fs.ModeSymlink == 0 {
			err = root.Chmod(path, info.Mode()|groupMode(info, readOnly))
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it went meanwhile
		}
		return err
	})
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
