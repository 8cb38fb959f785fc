package localdriver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/mount-utils"
)

// NodeGetCapabilities implements csi.NodeServer.
func (d *Driver) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	out := &csi.NodeGetCapabilitiesResponse{}
	for _, t := range []csi.NodeServiceCapability_RPC_Type{csi.NodeServiceCapability_RPC_GET_VOLUME_STATS, csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER} {
		out.Capabilities = append(out.Capabilities, &csi.NodeServiceCapability{Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: t}}})
	}
	return out, nil
}

// NodeGetInfo implements csi.NodeServer.
func (d *Driver) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: d.Node, AccessibleTopology: &csi.Topology{Segments: map[string]string{Topology: d.Node}}}, nil
}

// NodePublishVolume implements csi.NodeServer: it bind-mounts the volume at its
// target.
func (d *Driver) NodePublishVolume(_ context.Context, r *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	switch {
	case r.VolumeId == "" || r.TargetPath == "":
		return nil, status.Error(codes.InvalidArgument, "a volume and a target are needed")
	case r.VolumeCapability == nil:
		return nil, status.Error(codes.InvalidArgument, "the volume's capability is needed")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	i, err := d.existing(r.VolumeId)
	if err != nil {
		return nil, err
	}
	isBlock, why := block([]*csi.VolumeCapability{r.VolumeCapability})
	if why == "" && isBlock != i.Block {
		why = "a device is no folder, and a folder no device"
	}
	if why != "" {
		return nil, status.Error(codes.InvalidArgument, why)
	}
	mounted, err := isMount(r.TargetPath)
	if err != nil {
		return nil, failed(err)
	}
	options, err := mountFlags(r.Readonly, r.VolumeCapability.GetMount().GetMountFlags())
	if err != nil {
		return nil, failed(err)
	}
	if mounted {
		// The process may have been killed before the options were set.
		if err := remount(r.TargetPath, options); err != nil {
			return nil, failed(err)
		}
		return &csi.NodePublishVolumeResponse{}, nil
	}
	if r.VolumeCapability.AccessMode.GetMode() == csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER {
		if used, err := d.published(r.VolumeId, i); err != nil {
			return nil, failed(err)
		} else if used != "" {
			return nil, status.Errorf(codes.FailedPrecondition, "volume %q is for a single writer, and in use at %s", r.VolumeId, used)
		}
	}
	source := filepath.Join(d.path(volumes, r.VolumeId), data)
	if isBlock {
		if source, err = attachLoop(filepath.Join(d.path(volumes, r.VolumeId), disk)); err != nil {
			return nil, failed(err)
		}
		err = makeFile(r.TargetPath)
	} else {
		err = os.MkdirAll(r.TargetPath, 0o750)
	}
	if err != nil {
		return nil, failed(err)
	}
	if err := bind(source, r.TargetPath, options); err != nil {
		return nil, failed(errors.Join(err, os.Remove(r.TargetPath)))
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

func makeFile(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	return f.Close()
}

// flags are the mount options that a bind mount supports.
var flags = map[string]uintptr{
	"ro": unix.MS_RDONLY, "noexec": unix.MS_NOEXEC, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV,
	"noatime": unix.MS_NOATIME, "nodiratime": unix.MS_NODIRATIME, "relatime": unix.MS_RELATIME, "strictatime": unix.MS_STRICTATIME,
}

// mountFlags returns the flags of mount options. Options that are not a mount's own are
// refused.
func mountFlags(readOnly bool, options []string) (uintptr, error) {
	var all uintptr
	if readOnly {
		all = unix.MS_RDONLY
	}
	for _, o := range options {
		switch f, ok := flags[o]; {
		case ok:
			all |= f
		case o != "rw" && o != "bind" && o != "defaults":
			return 0, fmt.Errorf("mount option %q: a bound folder can have ro, noexec, nosuid, nodev, noatime, nodiratime, relatime and strictatime", o)
		}
	}
	return all, nil
}

// bind binds source to target, with flags.
func bind(source, target string, flags uintptr) error {
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("binding %s to %s: %w", source, target, err)
	}
	if err := remount(target, flags); err != nil {
		return errors.Join(err, unix.Unmount(target, unix.MNT_DETACH))
	}
	return nil
}

// remount sets the flags of a bind mount, if there are any.
func remount(target string, flags uintptr) error {
	if flags == 0 {
		return nil
	}
	if err := unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_BIND|flags, ""); err != nil {
		return fmt.Errorf("setting the options of %s: %w", target, err)
	}
	return nil
}

// isMount reports whether something is mounted at a path.
func isMount(path string) (bool, error) {
	points, err := mountPoints()
	if err != nil {
		return false, err
	}
	for i := range points {
		if points[i].MountPoint == path {
			return true, nil
		}
	}
	return false, nil
}

func mountPoints() ([]mount.MountInfo, error) { return mount.ParseMountInfo("/proc/self/mountinfo") }

// published returns a path at which a volume is mounted, "" if there is none.
func (d *Driver) published(id string, i *item) (string, error) {
	points, err := mountPoints()
	if err != nil {
		return "", err
	}
	root := filepath.Join(d.path(volumes, id), data)
	if i.Block {
		device, err := findLoop(filepath.Join(d.path(volumes, id), disk))
		if err != nil || device == "" {
			return "", err
		}
		root = "/" + filepath.Base(device)
		for i := range points {
			if points[i].Root == root && points[i].FsType == "devtmpfs" {
				return points[i].MountPoint, nil
			}
		}
		return "", nil
	}
	// The root of a bind mount is the path within its file system: that of the mount
	// which the volume is in, and the way from there.
	if root, err = filepath.EvalSymlinks(root); err != nil {
		return "", err
	}
	var in *mount.MountInfo
	for i := range points {
		p := &points[i]
		if (root == p.MountPoint || p.MountPoint == "/" || strings.HasPrefix(root, p.MountPoint+"/")) && (in == nil || len(p.MountPoint) >= len(in.MountPoint)) {
			in = p
		}
	}
	if in == nil {
		return "", fmt.Errorf("%s is in no mount", root)
	}
	want := filepath.Join(in.Root, strings.TrimPrefix(root, strings.TrimSuffix(in.MountPoint, "/")))
	for i := range points {
		if p := &points[i]; p != in && p.Major == in.Major && p.Minor == in.Minor && p.Root == want {
			return p.MountPoint, nil
		}
	}
	return "", nil
}

// NodeUnpublishVolume implements csi.NodeServer.
func (d *Driver) NodeUnpublishVolume(_ context.Context, r *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	if r.VolumeId == "" || r.TargetPath == "" {
		return nil, status.Error(codes.InvalidArgument, "a volume and a target are needed")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		mounted, err := isMount(r.TargetPath)
		if err != nil {
			return nil, failed(err)
		}
		if !mounted {
			break
		}
		if err := unix.Unmount(r.TargetPath, unix.UMOUNT_NOFOLLOW); err != nil {
			return nil, failed(fmt.Errorf("unmounting %s: %w", r.TargetPath, err))
		}
	}
	if err := os.Remove(r.TargetPath); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, failed(err)
	}
	i, err := d.read(volumes, r.VolumeId)
	if err != nil || i == nil || !i.Block {
		return &csi.NodeUnpublishVolumeResponse{}, nil //nolint:nilerr // a missing target is success
	}
	if used, err := d.published(r.VolumeId, i); err == nil && used == "" {
		err = detachLoop(filepath.Join(d.path(volumes, r.VolumeId), disk))
		if err != nil {
			return nil, failed(err)
		}
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

// NodeGetVolumeStats implements csi.NodeServer. With quotas, the kernel reports
// those of the volume.
func (d *Driver) NodeGetVolumeStats(_ context.Context, r *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	if r.VolumeId == "" || r.VolumePath == "" {
		return nil, status.Error(codes.InvalidArgument, "a volume and its path are needed")
	}
	i, err := d.existing(r.VolumeId)
	if err != nil {
		return nil, err
	}
	if mounted, err := isMount(r.VolumePath); err != nil {
		return nil, failed(err)
	} else if !mounted {
		return nil, status.Errorf(codes.NotFound, "volume %q is not mounted at %s", r.VolumeId, r.VolumePath)
	}
	if i.Block {
		return &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{{Unit: csi.VolumeUsage_BYTES, Total: i.Bytes}}}, nil
	}
	var st unix.Statfs_t
	if err := unix.Statfs(r.VolumePath, &st); err != nil {
		return nil, failed(err)
	}
	bytes := func(blocks uint64) int64 { return int64(blocks) * st.Bsize }
	return &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{
		{Unit: csi.VolumeUsage_BYTES, Total: bytes(st.Blocks), Available: bytes(st.Bavail), Used: bytes(st.Blocks - st.Bfree)},
		{Unit: csi.VolumeUsage_INODES, Total: int64(st.Files), Available: int64(st.Ffree), Used: int64(st.Files - st.Ffree)},
	}}, nil
}
