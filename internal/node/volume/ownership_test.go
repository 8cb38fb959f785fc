package volume

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

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
