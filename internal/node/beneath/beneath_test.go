package beneath

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"keelson.dev/keelson/internal/node/beneath/beneathtest"
)

func TestOpenFile(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(os.MkdirAll(at("a/b"), 0o755), os.WriteFile(at("a/file"), []byte("text"), 0o600), os.WriteFile(filepath.Join(outside, "file"), []byte("secret"), 0o600),
		unix.Mkfifo(at("pipe"), 0o600), unix.Mknod(at("device"), unix.S_IFCHR|0o600, 0x105), os.Symlink("a/file", at("link")), os.Symlink("../file", at("a/b/up")),
		os.Symlink(outside, at("out")), os.Symlink("/proc/self/root"+outside+"/file", at("magic")), os.Symlink(at("a/file"), at("absolute"))); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{
		"a/file": nil, "link": nil, "a/b/up": nil, "pipe": ErrKind, "device": ErrKind, "a": ErrKind, "none": fs.ErrNotExist,
		"out/file": ErrOutside, "magic": ErrOutside, "absolute": ErrOutside, "../" + filepath.Base(outside) + "/file": ErrOutside,
	} {
		b, err := ReadFile(dir, path, 4)
		if !errors.Is(err, want) || want == nil && string(b) != "text" {
			t.Errorf("%s: %q, %v, want %v", path, b, err, want)
		}
	}
	if _, err := ReadFile(dir, "a/file", 3); err == nil {
		t.Error("a file is read that is too large")
	}
}

func walked(t *testing.T, dir string, visit func(*Entry) error) (paths []string) {
	t.Helper()
	d, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.Walk(false, func(e *Entry) error {
		paths = append(paths, e.Path)
		return visit(e)
	}); err != nil {
		t.Error(err)
	}
	slices.Sort(paths)
	return paths
}

func TestWalk(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(os.MkdirAll(at("a/b"), 0o755), os.MkdirAll(at("skip/x"), 0o755), os.WriteFile(at("a/file"), []byte("text"), 0o600), os.Symlink("a", at("link")), unix.Mkfifo(at("a/pipe"), 0o600),
		os.Mkdir(at("mount"), 0o755), unix.Mount("tmpfs", at("mount"), "tmpfs", 0, "size=64k")); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(at("mount"), 0); err != nil {
			t.Error(err)
		}
	}()
	if err := os.WriteFile(at("mount/file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	got := walked(t, dir, func(e *Entry) error {
		if e.Path == "skip" {
			return fs.SkipDir
		}
		return nil
	})
	if want := []string{".", "a", "a/b", "a/file", "a/pipe", "link", "mount", "skip"}; !slices.Equal(got, want) {
		t.Errorf("walked %v, want %v", got, want)
	}
	d, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	inside := false
	stopped := errors.New("stopped")
	if err := d.Walk(true, func(e *Entry) error {
		if inside = inside || e.Path == "mount/file"; inside {
			return stopped
		}
		return nil
	}); !errors.Is(err, stopped) {
		t.Errorf("what is mounted is not walked, or the walk does not stop: %v", err)
	}
}

// TestWalkDeep checks that what is nested deeper than a path can tell is found, too.
func TestWalkDeep(t *testing.T) {
	dir := t.TempDir()
	name := strings.Repeat("n", 200)
	fd, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	const depth = 100
	for range depth {
		if err := unix.Mkdirat(fd, name, 0o700); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(fd, name, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err = errors.Join(err, unix.Close(fd)); err != nil {
			t.Fatal(err)
		}
		fd = next
	}
	if err := unix.Close(fd); err != nil {
		t.Fatal(err)
	}
	got := walked(t, dir, func(*Entry) error { return nil })
	if len(got) != depth+1 || len(got[depth]) != depth*(len(name)+1)-1 {
		t.Errorf("%d folders are found, want %d", len(got), depth+1)
	}
}

// TestWalkSwapped has a folder be swapped for a pipe, and another one for a link that leads out, again and
// again. No walk waits, or comes to what is outside.
func TestWalkSwapped(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(os.Mkdir(at("a"), 0o755), os.WriteFile(at("a/file"), nil, 0o600), unix.Mkfifo(at("pipe"), 0o600), os.Mkdir(at("b"), 0o755), os.Symlink(outside, at("out")),
		os.WriteFile(filepath.Join(outside, "secret"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	end := beneathtest.Swap(t, dir, map[string]string{"a": "pipe", "b": "out"})
	done := make(chan bool)
	go func() {
		defer close(done)
		for range 5000 {
			for _, path := range walked(t, dir, func(*Entry) error { return nil }) {
				if strings.HasSuffix(path, "secret") {
					t.Errorf("walked out to %s", path)
				}
			}
		}
	}()
	select {
	case <-done:
	case <-time.After(2 * time.Minute):
		t.Error("a walk waits")
	}
	end()
}
