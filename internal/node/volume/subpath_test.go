package volume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

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

// TestSubPathRace has a container swap a folder of its volume for a link that leads out of
// it, again and again, while paths through it are opened, made and bound. Nothing
// outside is ever reached or made.
func TestSubPathRace(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test mounts: run it as root (make test does)")
	}
	root, outside := t.TempDir(), t.TempDir()
	if err := errors.Join(os.MkdirAll(filepath.Join(root, "dir", "sub"), 0o755), os.Mkdir(filepath.Join(outside, "sub"), 0o755),
		os.WriteFile(filepath.Join(outside, "sub", "secret"), nil, 0o600), os.Symlink(outside, filepath.Join(root, "link"))); err != nil {
		t.Fatal(err)
	}
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, filepath.Join(root, "dir"), unix.AT_FDCWD, filepath.Join(root, "link"), unix.RENAME_EXCHANGE)
			}
		}
	}()
	m := &Manager{Root: t.TempDir()}
	defer func() {
		close(stop)
		<-ended
		if err := DetachBelow(m.Root); err != nil {
			t.Error(err)
		}
	}()
	// How often a path is whole while it is opened depends on who runs when.
	opened := 0
	for i, end := 0, time.Now().Add(time.Minute); i < 500 || opened < 20; i++ {
		if time.Now().After(end) {
			t.Fatalf("%d paths could be opened in %d tries: the test has tried too little", opened, i)
		}
		path := "dir/sub"
		if i%2 == 1 {
			path = fmt.Sprintf("dir/new/%d", i)
		}
		target, err := m.SubPath("uid", Mounted{HostPath: root}, "v", "c", 0, path)
		if err != nil {
			continue
		}
		opened++
		if _, err := os.Lstat(filepath.Join(target, "secret")); err == nil {
			t.Fatal("a file outside of the volume is reached")
		}
	}
	if made, err := os.ReadDir(outside); err != nil || len(made) != 1 {
		t.Errorf("made outside: %v (%v)", made, err)
	}
}

func TestMountPoints(t *testing.T) {
	info := "21 1 8:1 / / rw - ext4 /dev/a rw\n22 21 0:5 / /p/u/volumes/x\\040y rw shared:1 - tmpfs tmpfs rw\n23 22 0:6 / /p/u/volumes/x\\040y/in rw - tmpfs tmpfs rw\n24 21 0:6 / /p/u2/v rw - tmpfs t rw\n"
	got := below(info, "/p/u")
	if len(got) != 2 || got[0] != "/p/u/volumes/x y/in" || got[1] != "/p/u/volumes/x y" {
		t.Errorf("%q", got)
	}
}
