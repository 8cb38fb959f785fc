package volume

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

func TestSetGroup(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test changes owners: run it as root (make test does)")
	}
	dir := t.TempDir()
	vol, outside := filepath.Join(dir, "vol"), filepath.Join(dir, "outside")
	file := filepath.Join(vol, "sub", "file")
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, nil, 0o600), os.WriteFile(outside, nil, 0o600),
		os.Symlink(outside, filepath.Join(vol, "link"))); err != nil {
		t.Fatal(err)
	}
	want := func(path string, gid uint32, mode fs.FileMode) {
		t.Helper()
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Sys().(*syscall.Stat_t).Gid; got != gid || info.Mode()&^fs.ModeDir&^fs.ModeSymlink != mode {
			t.Errorf("%s: group %d mode %v, want %d %v", path, got, info.Mode(), gid, mode)
		}
	}
	if err := SetGroup(vol, 5, nil, false); err != nil {
		t.Fatal(err)
	}
	want(vol, 5, 0o770|fs.ModeSetgid)
	want(filepath.Dir(file), 5, 0o770|fs.ModeSetgid)
	want(file, 5, 0o660)
	want(outside, 0, 0o600)
	if err := os.Chown(file, 0, 0); err != nil {
		t.Fatal(err)
	}
	if err := SetGroup(vol, 5, ptr.To(v1.FSGroupChangeOnRootMismatch), false); err != nil {
		t.Fatal(err)
	}
	want(file, 0, 0o660) // the root was right
	if err := SetGroup(vol, 6, ptr.To(v1.FSGroupChangeOnRootMismatch), true); err != nil {
		t.Fatal(err)
	}
	want(file, 6, 0o660)
}

// TestSetGroupSwapped checks that no file gets the mode of another one that is swapped for a link
// to it meanwhile, such as a container's that would have a file of root's run as root.
func TestSetGroupSwapped(t *testing.T) {
	vol := t.TempDir()
	victim, swapped, link := filepath.Join(vol, "victim"), filepath.Join(vol, "swapped"), filepath.Join(vol, "link")
	if err := errors.Join(os.WriteFile(victim, nil, 0o600), os.WriteFile(swapped, nil, 0o600), os.Chmod(swapped, 0o777|fs.ModeSetuid), os.Symlink("victim", link)); err != nil {
		t.Fatal(err)
	}
	done, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-done:
				ended <- nil
				return
			default:
			}
			if err := unix.Renameat2(unix.AT_FDCWD, swapped, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE); err != nil {
				ended <- err
				return
			}
		}
	}()
	defer func() {
		close(done)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	for range 5000 {
		if err := SetGroup(vol, 5, nil, false); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(victim); err != nil || info.Mode() != 0o660 {
			t.Fatalf("the mode of the victim is %v (%v)", info.Mode(), err)
		}
	}
}
