package localdriver

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Constants of linux/btrfs.h.
const (
	btrfsSubvolCreate = 0x5000940e
	btrfsInoLookup    = 0xd0009412
	btrfsQgroupCreate = 0x4010942a
	btrfsQgroupLimit  = 0x8030942b
	btrfsFirstFree    = 256 // BTRFS_FIRST_FREE_OBJECTID
	btrfsMaxRfer      = 1   // BTRFS_QGROUP_LIMIT_MAX_RFER
)

// groupLimit is linux's struct btrfs_ioctl_qgroup_limit_args.
type groupLimit struct {
	group                                    uint64
	flags, maxRfer, maxExcl, rsvRfer, rsvExl uint64
}

// btrfs calls an ioctl of btrfs on a folder.
func btrfs(dir string, command uintptr, arg unsafe.Pointer) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), command, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}

// groupsOn reports whether dir is on a btrfs whose quota groups are switched on: it
// changes nothing of a group that is not there.
func groupsOn(dir string) bool {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil || st.Type != unix.BTRFS_SUPER_MAGIC {
		return false
	}
	none := groupLimit{group: 1<<48 - 1}
	err := btrfs(dir, btrfsQgroupLimit, unsafe.Pointer(&none))
	return errors.Is(err, unix.ENOENT)
}

// subvolume makes a subvolume, and returns its ID.
func subvolume(dir string) (uint32, error) {
	var create struct {
		fd   int64
		name [4088]byte
	}
	copy(create.name[:len(create.name)-1], filepath.Base(dir))
	if err := btrfs(filepath.Dir(dir), btrfsSubvolCreate, unsafe.Pointer(&create)); err != nil {
		return 0, fmt.Errorf("making the subvolume %s: %w", dir, err)
	}
	id, err := subvolumeID(dir)
	if err != nil {
		return 0, errors.Join(err, os.Remove(dir))
	}
	return id, nil
}

// subvolumeID returns the ID of the subvolume at dir.
func subvolumeID(dir string) (uint32, error) {
	lookup := struct {
		tree, object uint64
		name         [4080]byte
	}{object: btrfsFirstFree}
	if err := btrfs(dir, btrfsInoLookup, unsafe.Pointer(&lookup)); err != nil {
		return 0, fmt.Errorf("finding the ID of the subvolume %s: %w", dir, err)
	}
	return uint32(lookup.tree), nil
}

// limitGroup limits what a subvolume has, or removes its group where bytes is 0: the
// subvolume is gone then.
func limitGroup(dir string, id uint32, bytes int64) error {
	if bytes == 0 {
		remove := struct{ create, group uint64 }{0, uint64(id)}
		err := btrfs(dir, btrfsQgroupCreate, unsafe.Pointer(&remove))
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EBUSY) { // it went with the subvolume, or goes when the kernel has removed that
			return nil
		}
		return err
	}
	limit := groupLimit{group: uint64(id), flags: btrfsMaxRfer, maxRfer: uint64(bytes)}
	if err := btrfs(dir, btrfsQgroupLimit, unsafe.Pointer(&limit)); err != nil {
		return fmt.Errorf("limiting %s to %d bytes: %w", dir, bytes, err)
	}
	return nil
}
