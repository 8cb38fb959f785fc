package localdriver

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"keelson.dev/keelson/internal/node/beneath/beneathtest"
)

// tree makes what a container may leave in a volume.
func tree(t *testing.T, dir string) {
	t.Helper()
	at := func(name string) string { return filepath.Join(dir, name) }
	sparse, err := os.Create(at("sparse"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = sparse.WriteAt([]byte("end"), 8<<20)
	if err := errors.Join(err, sparse.Truncate(16<<20), sparse.Close(),
		os.MkdirAll(at("sub/deep"), 0o711), os.WriteFile(at("sub/file"), []byte("text"), 0o640), os.Chown(at("sub/file"), 7, 8), os.Chmod(at("sub/file"), 0o640|fs.ModeSetuid),
		unix.Setxattr(at("sub/file"), "trusted.a", []byte("value"), 0), unix.Setxattr(at("sub"), "trusted.b", bytes.Repeat([]byte("long"), 200), 0),
		os.Link(at("sub/file"), at("again")), os.Symlink("/etc/passwd", at("link")), os.Lchown(at("link"), 5, 6), unix.Mkfifo(at("pipe"), 0o620), unix.Mknod(at("null"), unix.S_IFCHR|0o600, 0x103),
		os.Chtimes(at("sub/file"), time.Unix(100, 0), time.Unix(200, 5)),
	); err != nil {
		t.Fatal(err)
	}
}

// TestCopyDir checks that a copy has all that the folder has, and no more of the disk.
func TestCopyDir(t *testing.T) {
	base := fileSystem(t, 64<<20, func(device, _, mnt string) error { return unix.Mount(device, mnt, "ext4", 0, "") }, "mkfs.ext4")
	from, to := filepath.Join(base, "from"), filepath.Join(base, "to")
	if err := errors.Join(os.Mkdir(from, 0o777), os.Chmod(from, 0o1777), os.Mkdir(to, 0o700)); err != nil {
		t.Fatal(err)
	}
	tree(t, from)
	if err := copyDir(to, from); err != nil {
		t.Fatal(err)
	}
	all := 0
	if err := filepath.WalkDir(from, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		all++
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		var want, got unix.Stat_t
		if err := errors.Join(unix.Lstat(path, &want), unix.Lstat(filepath.Join(to, rel), &got)); err != nil {
			return err
		}
		dir := want.Mode&unix.S_IFMT == unix.S_IFDIR
		if got.Mode != want.Mode || got.Uid != want.Uid || got.Gid != want.Gid || got.Nlink != want.Nlink || got.Rdev != want.Rdev || got.Size != want.Size || !dir && got.Mtim != want.Mtim {
			t.Errorf("%s: %+v, want %+v", rel, got, want)
		}
		if got.Blocks > want.Blocks {
			t.Errorf("%s takes %d blocks, want %d", rel, got.Blocks, want.Blocks)
		}
		for _, name := range []string{"trusted.a", "trusted.b"} {
			a, b := make([]byte, 1000), make([]byte, 1000)
			n, errA := unix.Lgetxattr(path, name, a)
			m, errB := unix.Lgetxattr(filepath.Join(to, rel), name, b)
			if !errors.Is(errA, errB) || n != m || !bytes.Equal(a, b) {
				t.Errorf("%s: attribute %s is %q (%v), want %q (%v)", rel, name, b[:max(m, 0)], errB, a[:max(n, 0)], errA)
			}
		}
		if want.Mode&unix.S_IFMT == unix.S_IFREG {
			a, errA := os.ReadFile(path)
			b, errB := os.ReadFile(filepath.Join(to, rel))
			if errA != nil || errB != nil || !bytes.Equal(a, b) {
				t.Errorf("%s has another content (%v, %v)", rel, errA, errB)
			}
		}
		return nil
	}); err != nil || all != 9 {
		t.Errorf("%d entries (%v)", all, err)
	}
	if l, err := os.Readlink(filepath.Join(to, "link")); err != nil || l != "/etc/passwd" {
		t.Errorf("the link leads to %s (%v)", l, err)
	}
}

// TestCopySwapped has a container swap a file for a pipe that nobody writes to, another one for a device
// without end, and a folder for a link that leads out of the volume, again and again, while the volume is
// cloned. No clone waits, and none has anything of outside, or has written there.
func TestCopySwapped(t *testing.T) {
	d := newDriver(t, t.TempDir())
	v := d.made(t, &csi.CreateVolumeRequest{Name: "v"})
	dir, outside := filepath.Join(d.Dir, volumes, v.VolumeId, data), t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(os.WriteFile(at("a"), []byte("text"), 0o600), unix.Mkfifo(at("pipe"), 0o600), os.WriteFile(at("b"), []byte("text"), 0o600), unix.Mknod(at("zero"), unix.S_IFCHR|0o600, 0x105),
		os.MkdirAll(at("dir/sub"), 0o755), os.WriteFile(at("dir/sub/file"), []byte("text"), 0o600), os.Symlink(outside, at("out")),
		os.Mkdir(filepath.Join(outside, "sub"), 0o755), os.WriteFile(filepath.Join(outside, "sub", "file"), []byte("secret"), 0o600)); err != nil {
		t.Fatal(err)
	}
	end := beneathtest.Swap(t, dir, map[string]string{"a": "pipe", "b": "zero", "dir": "out"})
	copies, failed := 0, make(chan error, 1)
	go func() {
		defer close(failed)
		for i := range 300 {
			to := filepath.Join(d.Dir, "copy")
			if err := errors.Join(os.RemoveAll(to), os.Mkdir(to, 0o700), copyDir(to, dir)); err != nil {
				failed <- err
				return
			}
			for _, name := range []string{"dir/sub/file", "out/sub/file"} {
				// The copy of the link leads out, as it did in the volume.
				if info, err := os.Lstat(filepath.Join(to, filepath.Dir(filepath.Dir(name)))); err == nil && info.Mode()&fs.ModeSymlink != 0 {
					continue
				}
				if b, err := os.ReadFile(filepath.Join(to, name)); err == nil && string(b) != "text" {
					failed <- errors.New("a copy has " + string(b))
					return
				}
			}
			copies = i + 1
		}
	}()
	select {
	case err := <-failed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(2 * time.Minute):
		t.Error("a copy waits")
	}
	end()
	t.Logf("%d copies", copies)
	if all, err := os.ReadDir(filepath.Join(outside, "sub")); err != nil || len(all) != 1 {
		t.Errorf("outside: %v (%v)", all, err)
	}
	if b, err := os.ReadFile(filepath.Join(outside, "sub", "file")); err != nil || string(b) != "secret" {
		t.Errorf("outside: %s (%v)", b, err)
	}
}

// TestCopyLeased checks that a process which has a lease on a file of a volume does not hold up what
// copies it.
func TestCopyLeased(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	f, err := os.Create(filepath.Join(from, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		t.Fatal(err)
	}
	if err := copyDir(to, from); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("the copy waited for the lease: %v", err)
	}
}

// TestAside checks that other calls go on while a volume is copied, that those for it and its source
// are told to come again, and that its clone is whole then.
func TestAside(t *testing.T) {
	d := newDriver(t, t.TempDir())
	v := d.made(t, &csi.CreateVolumeRequest{Name: "v"})
	d.mu.Lock()
	clone := d.path(volumes, "clone")
	in, out := make(chan bool), make(chan bool)
	go func() {
		defer d.mu.Unlock()
		_ = d.aside(clone, d.path(volumes, v.VolumeId), 9, func() error { in <- true; <-out; return nil })
		in <- true
	}()
	<-in
	d.made(t, &csi.CreateVolumeRequest{Name: "other"})
	for name, err := range map[string]error{
		"the clone": func() error {
			_, err := d.CreateVolume(t.Context(), &csi.CreateVolumeRequest{Name: "clone", VolumeCapabilities: capability})
			return err
		}(),
		"the clone's deletion": func() error {
			_, err := d.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: "clone"})
			return err
		}(),
		"the source's deletion": func() error {
			_, err := d.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: v.VolumeId})
			return err
		}(),
	} {
		if status.Code(err) != codes.Aborted {
			t.Errorf("%s: %v", name, err)
		}
	}
	out <- true
	<-in
	d.made(t, &csi.CreateVolumeRequest{Name: "clone"})
	// What a removal that failed has left goes with the next one.
	if err := errors.Join(os.Remove(filepath.Join(clone, meta)), os.WriteFile(filepath.Join(clone, data, "left"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := d.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: "clone"}); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(clone); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("the rest of a volume: %v", err)
	}
}
