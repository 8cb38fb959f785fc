package volume

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOpenBeneath(t *testing.T) {
	root, outside := t.TempDir(), t.TempDir()
	link := func(to, name string) {
		t.Helper()
		if err := os.Symlink(to, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(root, "a", "b"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "file"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	link("a/b", "in")
	link(outside, "out")
	link("../"+filepath.Base(outside), "up")
	for path, want := range map[string]string{
		"a": "a", "a/b": "a/b", "file": "file", "in": "a/b", "new/deep": "new/deep", "a/../a": "a",
		"out": "", "out/x": "", "up": "", "..": "", "../x": "", "/etc": "", "file/x": "",
	} {
		fd, err := openBeneath(root, path)
		if want == "" {
			if err == nil {
				unix.Close(fd)
				t.Errorf("%s is opened", path)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		got, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		unix.Close(fd)
		if real, _ := filepath.EvalSymlinks(root); err != nil || got != filepath.Join(real, want) {
			t.Errorf("%s leads to %s (%v), want %s", path, got, err, want)
		}
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 0 {
		t.Errorf("made outside: %v, %v", entries, err)
	}
}

func TestMountPoints(t *testing.T) {
	info := "21 1 8:1 / / rw - ext4 /dev/a rw\n22 21 0:5 / /p/u/volumes/x\\040y rw shared:1 - tmpfs tmpfs rw\n23 22 0:6 / /p/u/volumes/x\\040y/in rw - tmpfs tmpfs rw\n24 21 0:6 / /p/u2/v rw - tmpfs t rw\n"
	got := below(info, "/p/u")
	if len(got) != 2 || got[0] != "/p/u/volumes/x y/in" || got[1] != "/p/u/volumes/x y" {
		t.Errorf("%q", got)
	}
}
