package localdriver

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/utils/clock"
)

var capability = []*csi.VolumeCapability{{AccessType: &csi.VolumeCapability_Mount{}, AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER}}}

func newDriver(t *testing.T, dir string) *Driver {
	t.Helper()
	d := &Driver{Dir: dir, Node: "n", Clock: clock.RealClock{}}
	for _, kind := range []string{volumes, snapshots} {
		if err := os.MkdirAll(filepath.Join(dir, kind), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	d.quota = quotaOf(dir)
	return d
}

func (d *Driver) made(t *testing.T, r *csi.CreateVolumeRequest) *csi.Volume {
	t.Helper()
	if r.VolumeCapabilities == nil {
		r.VolumeCapabilities = capability
	}
	out, err := d.CreateVolume(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return out.Volume
}

// TestCopies checks that a clone and a volume of a snapshot have the content of
// that time.
func TestCopies(t *testing.T) {
	d := newDriver(t, t.TempDir())
	file := func(id string) string { return filepath.Join(d.Dir, volumes, id, data, "sub", "file") }
	v := d.made(t, &csi.CreateVolumeRequest{Name: "a"})
	if err := os.MkdirAll(filepath.Dir(file(v.VolumeId)), 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file(v.VolumeId), []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	s, err := d.CreateSnapshot(t.Context(), &csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: v.VolumeId})
	if err != nil {
		t.Fatal(err)
	}
	write("two")
	for want, from := range map[string]*csi.VolumeContentSource{
		"one": {Type: &csi.VolumeContentSource_Snapshot{Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: s.Snapshot.SnapshotId}}},
		"two": {Type: &csi.VolumeContentSource_Volume{Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: v.VolumeId}}},
	} {
		c := d.made(t, &csi.CreateVolumeRequest{Name: "of-" + want, VolumeContentSource: from})
		got, err := os.ReadFile(file(c.VolumeId))
		if err != nil || string(got) != want {
			t.Errorf("a copy has %q (%v), want %q", got, err, want)
		}
		if info, err := os.Stat(filepath.Join(d.Dir, volumes, c.VolumeId, data)); err != nil || info.Mode().Perm() != 0o777 {
			t.Errorf("the copy's folder is %v (%v)", info.Mode(), err)
		}
	}
}

// TestCrash checks that the remains of an interrupted creation are no volume,
// and that its name can be used.
func TestCrash(t *testing.T) {
	d := newDriver(t, t.TempDir())
	torn := filepath.Join(d.Dir, volumes, "torn", data, "old")
	if err := os.MkdirAll(torn, 0o755); err != nil {
		t.Fatal(err)
	}
	d.made(t, &csi.CreateVolumeRequest{Name: "torn"})
	if _, err := os.Stat(torn); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the new volume has what was left: %v", err)
	}
	if err := os.Remove(filepath.Join(d.Dir, volumes, "torn", meta)); err != nil {
		t.Fatal(err)
	}
	if err := d.sweep(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(filepath.Join(d.Dir, volumes)); err != nil || len(left) > 0 {
		t.Errorf("left: %v (%v)", left, err)
	}
}

// TestTorn checks that volumes and snapshots whose JSON a loss of power has torn keep
// their content, and can be used and deleted.
func TestTorn(t *testing.T) {
	for _, text := range []string{"", `{"name":"a"`} {
		d := newDriver(t, t.TempDir())
		isBlock := []*csi.VolumeCapability{{AccessType: &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}, AccessMode: capability[0].AccessMode}}
		d.made(t, &csi.CreateVolumeRequest{Name: "a"})
		d.made(t, &csi.CreateVolumeRequest{Name: "device", VolumeCapabilities: isBlock, CapacityRange: &csi.CapacityRange{RequiredBytes: 1 << 20}})
		file := filepath.Join(d.Dir, volumes, "a", data, "file")
		if err := os.WriteFile(file, []byte("text"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := d.CreateSnapshot(t.Context(), &csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: "a"}); err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{"volumes/a", "volumes/device", "snapshots/s"} {
			if err := os.WriteFile(filepath.Join(d.Dir, id, meta), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := d.sweep(); err != nil {
			t.Fatal(err)
		}
		d.made(t, &csi.CreateVolumeRequest{Name: "a"})
		if v := d.made(t, &csi.CreateVolumeRequest{Name: "device", VolumeCapabilities: isBlock}); v.CapacityBytes != 1<<20 {
			t.Errorf("the device has %d bytes", v.CapacityBytes)
		}
		d.made(t, &csi.CreateVolumeRequest{Name: "restored", VolumeContentSource: &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
			Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: "s"}}}})
		for _, id := range []string{"a", "restored"} {
			if got, err := os.ReadFile(filepath.Join(d.Dir, volumes, id, data, "file")); err != nil || string(got) != "text" {
				t.Errorf("%s has %q (%v)", id, got, err)
			}
		}
		for _, id := range []string{"a", "device", "restored"} {
			if _, err := d.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: id}); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestRemount checks that a volume has its mount options even if the driver was killed
// between the mount and their setting.
func TestRemount(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test mounts: run it as root (make test does)")
	}
	d := newDriver(t, t.TempDir())
	v := d.made(t, &csi.CreateVolumeRequest{Name: "a"})
	target := filepath.Join(t.TempDir(), "target")
	if err := errors.Join(os.Mkdir(target, 0o755), bind(filepath.Join(d.Dir, volumes, "a", data), target, 0)); err != nil {
		t.Fatal(err)
	}
	mountCapability := &csi.VolumeCapability{AccessMode: capability[0].AccessMode, AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{MountFlags: []string{"noexec"}}}}
	if _, err := d.NodePublishVolume(t.Context(), &csi.NodePublishVolumeRequest{VolumeId: v.VolumeId, TargetPath: target, Readonly: true, VolumeCapability: mountCapability}); err != nil {
		t.Fatal(err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(target, &st); err != nil || st.Flags&unix.ST_RDONLY == 0 || st.Flags&unix.ST_NOEXEC == 0 {
		t.Errorf("the mount has the flags %#x (%v)", st.Flags, err)
	}
	if _, err := d.NodeUnpublishVolume(t.Context(), &csi.NodeUnpublishVolumeRequest{VolumeId: v.VolumeId, TargetPath: target}); err != nil {
		t.Fatal(err)
	}
}

// TestIDs checks that an ID that a client sends is never a path.
func TestIDs(t *testing.T) {
	d := newDriver(t, filepath.Join(t.TempDir(), "driver"))
	victim := filepath.Join(filepath.Dir(d.Dir), "victim")
	if err := os.MkdirAll(victim, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(victim, meta), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"../../victim", "..", ".", "a/b", "A", strings.Repeat("a", 200)} {
		if _, err := d.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: id}); err != nil {
			t.Errorf("deleting %q: %v", id, err)
		}
		if _, err := d.DeleteSnapshot(t.Context(), &csi.DeleteSnapshotRequest{SnapshotId: id}); err != nil {
			t.Errorf("deleting snapshot %q: %v", id, err)
		}
	}
	if _, err := os.Stat(filepath.Join(victim, meta)); err != nil {
		t.Error(err)
	}
}

func TestSizes(t *testing.T) {
	d := newDriver(t, t.TempDir())
	total, _, err := space(d.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		need, limit int64
		code        codes.Code
		got         int64
	}{
		"none":                {0, 0, codes.OK, min(defaultBytes, total)},
		"at most":             {0, 5, codes.OK, 5},
		"at least":            {7, 0, codes.OK, 7},
		"more than it may be": {7, 5, codes.OutOfRange, 0},
		"more than there is":  {total + 1, 0, codes.OutOfRange, 0},
	} {
		out, err := d.CreateVolume(t.Context(), &csi.CreateVolumeRequest{Name: identify(name), VolumeCapabilities: capability,
			CapacityRange: &csi.CapacityRange{RequiredBytes: c.need, LimitBytes: c.limit}})
		if status.Code(err) != c.code || err == nil && out.Volume.CapacityBytes != c.got {
			t.Errorf("%s: %v, %v", name, out, err)
		}
	}
}

// fileSystem mounts a file system of so many bytes, made by mkfs with its options, and
// gives its folder.
func fileSystem(t *testing.T, size int64, mount func(device, image, mnt string) error, mkfs ...string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test mounts: run it as root (make test does)")
	}
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil { // other users need to reach it
		t.Fatal(err)
	}
	image, mnt := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, size), os.Mkdir(mnt, 0o755)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(mkfs[0], append(append([]string{"-q"}, mkfs[1:]...), image)...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	device, err := attachLoop(image)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := detachLoop(image); err != nil {
			t.Error(err)
		}
	})
	if err := mount(device, image, mnt); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(mnt, 0); err != nil {
			t.Error(err)
		}
	})
	return mnt
}

// TestFull checks that a copy for which the disk has no room fails with
// ResourceExhausted and leaves nothing, and that deletions make room again.
func TestFull(t *testing.T) {
	d := newDriver(t, fileSystem(t, 16<<20, func(device, _, mnt string) error { return unix.Mount(device, mnt, "ext4", 0, "") }, "mkfs.ext4"))
	v := d.made(t, &csi.CreateVolumeRequest{Name: "v", CapacityRange: &csi.CapacityRange{RequiredBytes: 1 << 20}})
	if err := os.WriteFile(filepath.Join(d.Dir, volumes, v.VolumeId, data, "file"), make([]byte, 8<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	clone := &csi.CreateVolumeRequest{Name: "clone", VolumeCapabilities: capability, VolumeContentSource: &csi.VolumeContentSource{
		Type: &csi.VolumeContentSource_Volume{Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: v.VolumeId}}}}
	if _, err := d.CreateVolume(t.Context(), clone); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a copy of what there is no room for: %v", err)
	}
	if _, err := d.CreateSnapshot(t.Context(), &csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: v.VolumeId}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a snapshot of what there is no room for: %v", err)
	}
	for kind, want := range map[string]int{volumes: 1, snapshots: 0} {
		if left, err := os.ReadDir(filepath.Join(d.Dir, kind)); err != nil || len(left) != want {
			t.Errorf("%s: %v (%v), want %d", kind, left, err, want)
		}
	}
	if err := os.Truncate(filepath.Join(d.Dir, volumes, v.VolumeId, data, "file"), 1<<20); err != nil {
		t.Fatal(err)
	}
	d.made(t, clone)
}

// TestQuota checks that on a file system with quotas of projects a volume holds
// as much as its size, and more once it is expanded. On a kernel without quotas
// it holds as much as the disk.
func TestQuota(t *testing.T) {
	enforced := true
	mnt := fileSystem(t, 64<<20, func(device, image, mnt string) error {
		err := unix.Mount(device, mnt, "ext4", 0, "prjquota")
		if !errors.Is(err, unix.EINVAL) {
			return err
		}
		enforced = false // this kernel has no quotas
		if out, err := exec.Command("tune2fs", "-O", "^quota,^project", image).CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return unix.Mount(device, mnt, "ext4", 0, "")
	}, "mkfs.ext4", "-O", "quota,project", "-E", "quotatype=prjquota", "-I", "256")
	checkQuota(t, mnt, enforced, true)
}

// TestGroups is TestQuota on a btrfs with quota groups, and on one without.
func TestGroups(t *testing.T) {
	for _, enforced := range []bool{true, false} {
		t.Run(fmt.Sprintf("enforced %t", enforced), func(t *testing.T) {
			mnt := fileSystem(t, 256<<20, func(device, _, mnt string) error {
				if err := unix.Mount(device, mnt, "btrfs", 0, ""); err != nil || !enforced {
					return err
				}
				if out, err := exec.Command("btrfs", "quota", "enable", mnt).CombinedOutput(); err != nil {
					return fmt.Errorf("%w: %s", err, out)
				}
				return nil
			}, "mkfs.btrfs")
			checkQuota(t, mnt, enforced, false)
			if !enforced {
				return
			}
			out, err := exec.Command("btrfs", "subvolume", "list", mnt).CombinedOutput()
			if err != nil || len(out) > 0 {
				t.Errorf("subvolumes are left: %s (%v)", out, err)
			}
		})
	}
}

// checkQuota checks that a volume on a file system holds what it was made for, if that
// is enforced, and more once it is expanded. told says that statfs(2) knows the limit.
func checkQuota(t *testing.T, mnt string, enforced, told bool) {
	t.Helper()
	d := newDriver(t, mnt)
	// The folders above the volumes are the driver's; the test's user needs to pass.
	if err := os.Chmod(filepath.Join(mnt, volumes), 0o755); err != nil {
		t.Fatal(err)
	}
	if (d.quota != unlimited) != enforced {
		t.Fatalf("quotas are seen: %v, want %v", d.quota, enforced)
	}
	const mib = 1 << 20
	v := d.made(t, &csi.CreateVolumeRequest{Name: "v", CapacityRange: &csi.CapacityRange{RequiredBytes: 2 * mib}})
	content := filepath.Join(d.Dir, volumes, v.VolumeId, data)
	if err := os.Chmod(filepath.Dir(content), 0o755); err != nil {
		t.Fatal(err)
	}
	// Quotas do not limit root, so that another user writes.
	fill := func(name string, n int) error {
		path := filepath.Join(content, name)
		cmd := exec.Command("dd", "if=/dev/zero", "of="+path, "bs=1M", "count="+strconv.Itoa(n), "conv=fsync")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := cmd.CombinedOutput()
		if err != nil && !bytes.Contains(out, []byte("quota")) && !bytes.Contains(out, []byte("No space")) {
			t.Fatalf("%v: %s", err, out)
		}
		return err
	}
	if err := fill("one", 1); err != nil {
		t.Errorf("a volume of 2 MiB holds not one: %v", err)
	}
	if err := fill("three", 3); (err != nil) != enforced {
		t.Errorf("a volume of 2 MiB holds four: %v", err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(content, &st); err != nil || (int64(st.Blocks)*st.Bsize == 2*mib) != (enforced && told) {
		t.Errorf("the volume says that it has %d bytes (%v)", int64(st.Blocks)*st.Bsize, err)
	}
	if _, err := d.ControllerExpandVolume(t.Context(), &csi.ControllerExpandVolumeRequest{VolumeId: v.VolumeId, CapacityRange: &csi.CapacityRange{RequiredBytes: 8 * mib}}); err != nil {
		t.Fatal(err)
	}
	if err := fill("three", 3); err != nil {
		t.Errorf("the volume of 8 MiB holds not four: %v", err)
	}
	target := filepath.Join(t.TempDir(), "target")
	if _, err := d.NodePublishVolume(t.Context(), &csi.NodePublishVolumeRequest{VolumeId: v.VolumeId, TargetPath: target, VolumeCapability: capability[0]}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: v.VolumeId}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("a volume that is mounted is deleted: %v", err)
	}
	if _, err := d.NodeUnpublishVolume(t.Context(), &csi.NodeUnpublishVolumeRequest{VolumeId: v.VolumeId, TargetPath: target}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: v.VolumeId}); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(filepath.Join(d.Dir, volumes)); err != nil || len(left) > 0 {
		t.Errorf("left: %v (%v)", left, err)
	}
}
