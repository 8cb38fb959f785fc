package localdriver

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// quota is the mechanism by which a file system limits the size of folders.
type quota int

const (
	unlimited quota = iota
	projects        // quotas of projects: XFS and ext4
	qgroups         // quota groups, one a subvolume: btrfs
)

// Constants of linux/quota.h and linux/fs.h.
const (
	prjquota   = 2
	qGetinfo   = 0x800005
	qSetquota  = 0x800008
	qifBLimits = 1

	fsIocFsgetxattr  = 0x801c581f
	fsIocFssetxattr  = 0x401c5820
	xflagProjInherit = 0x200
)

// fsxattr is linux's struct fsxattr.
type fsxattr struct {
	xflags, extsize, nextents, projid, cowextsize uint32
	_                                             [8]byte
}

// dqblk is linux's struct if_dqblk. Its limits are in blocks of 1 KiB.
type dqblk struct {
	bhard, bsoft, curspace, ihard, isoft, curinodes, btime, itime uint64
	valid                                                         uint32
	_                                                             [4]byte
}

// quotaOf returns the mechanism that is enabled on the file system of dir.
func quotaOf(dir string) quota {
	var info [24]byte // struct if_dqinfo
	switch {
	case quotactl(dir, qGetinfo, 0, unsafe.Pointer(&info)) == nil:
		return projects
	case groupsOn(dir):
		return qgroups
	}
	return unlimited
}

// quotactl calls quotactl_fd(2), of Linux 5.14, for a project.
func quotactl(dir string, command int, project uint32, arg unsafe.Pointer) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, f.Fd(), uintptr(command<<8|prjquota), uintptr(project), uintptr(arg), 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// folder creates a folder whose size can be limited, and returns the number by which limit
// limits it: the given project, or the ID of the subvolume.
func (q quota) folder(dir string, project uint32) (uint32, error) {
	if q == qgroups {
		return subvolume(dir)
	}
	return project, os.Mkdir(dir, 0o777)
}

// of returns the number by which the folder is limited, 0 without quotas.
func (q quota) of(dir string) (uint32, error) {
	switch q {
	case projects:
		f, err := os.Open(dir)
		if err != nil {
			return 0, err
		}
		defer f.Close()
		var attr fsxattr
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), fsIocFsgetxattr, uintptr(unsafe.Pointer(&attr))); errno != 0 {
			return 0, errno
		}
		return attr.projid, nil
	case qgroups:
		return subvolumeID(dir)
	}
	return 0, nil
}

// limit assigns dir to a project (or takes its subvolume) with that limit in bytes; 0
// bytes removes the limit. It does nothing without quotas.
func (q quota) limit(dir string, project uint32, bytes int64) error {
	switch {
	case q == unlimited || project == 0:
		return nil
	case q == qgroups:
		return limitGroup(dir, project, bytes)
	}
	if bytes > 0 {
		if err := join(dir, project); err != nil {
			return fmt.Errorf("making %s of a project: %w", dir, err)
		}
	}
	block := dqblk{bhard: uint64((bytes + 1023) / 1024), valid: qifBLimits}
	if err := quotactl(dir, qSetquota, project, unsafe.Pointer(&block)); err != nil {
		return fmt.Errorf("limiting %s to %d bytes: %w", dir, bytes, err)
	}
	return nil
}

// join assigns a folder, and files that will be made in it, to a project.
func join(dir string, project uint32) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	var attr fsxattr
	for _, command := range []uintptr{fsIocFsgetxattr, fsIocFssetxattr} {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), command, uintptr(unsafe.Pointer(&attr))); errno != 0 {
			return errno
		}
		attr.projid = project
		attr.xflags |= xflagProjInherit
	}
	return nil
}

// project returns a project number that no other volume has.
func (d *Driver) project(id string) (uint32, error) {
	if d.quota != projects {
		return 0, nil
	}
	all, err := d.list(volumes)
	if err != nil {
		return 0, err
	}
	taken := map[uint32]bool{}
	for _, other := range all {
		i, err := d.read(volumes, other)
		if err != nil {
			return 0, err
		}
		if i != nil {
			taken[i.Project] = true
		}
	}
	for _, o := range d.busy {
		taken[o.project] = true
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(id))
	for p := binary.BigEndian.Uint32(h.Sum(nil)); ; p++ {
		// The upper half of the numbers, since people use small ones.
		if p |= 1 << 31; !taken[p] {
			return p, nil
		}
	}
}

// noSpace reports whether a write failed because its volume, or the disk, is
// full.
func noSpace(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }
