package logs

import (
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// runtime writes a container's log as a runtime does: to the file that it has
// open, whatever its name has become.
type runtime struct {
	t    *testing.T
	path string
	f    *os.File
	fail error
}

func (r *runtime) reopen(context.Context, string) error {
	if r.fail != nil {
		return r.fail
	}
	if r.f != nil {
		r.f.Close()
	}
	f, err := os.OpenFile(r.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	r.f = f
	return err
}

func (r *runtime) write(text string) {
	r.t.Helper()
	if _, err := r.f.WriteString("2026-01-01T00:00:01Z stdout F " + text + "\n"); err != nil {
		r.t.Fatal(err)
	}
}

func newRuntime(t *testing.T) (*runtime, *Rotator) {
	r := &runtime{t: t, path: filepath.Join(t.TempDir(), "0.log")}
	if err := r.reopen(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.f.Close() })
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	return r, &Rotator{MaxSize: 100, MaxFiles: 3, Reopen: r.reopen, Now: func() time.Time { now = now.Add(time.Second); return now }}
}

// TestRotate keeps the newest files, the rotated ones but the last compressed.
func TestRotate(t *testing.T) {
	r, rotator := newRuntime(t)
	for _, word := range []string{"one", "two", "three", "four"} {
		r.write(word)
		if err := rotator.Rotate(t.Context(), "id", r.path); err != nil {
			t.Fatal(err)
		}
		if old, _ := Rotated(r.path); word == "one" && len(old) != 0 {
			t.Fatalf("a small log was rotated: %q", old)
		}
		r.write(strings.Repeat(word[:1], 100))
		if err := rotator.Rotate(t.Context(), "id", r.path); err != nil {
			t.Fatal(err)
		}
	}
	found, _ := filepath.Glob(r.path + "*")
	want := []string{r.path, r.path + ".20260101-000003.gz", r.path + ".20260101-000004"}
	if !slices.Equal(found, want) {
		t.Fatalf("%q, want %q", found, want)
	}
	f, err := os.Open(want[1])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zip, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(zip); err != nil || !strings.Contains(string(text), "F three\n") || !strings.Contains(string(text), "ttt") {
		t.Errorf("%q, %v", text, err)
	}
	if info, err := os.Stat(r.path); err != nil || info.Size() != 0 {
		t.Errorf("the log after its rotation: %v, %v", info, err)
	}
}

// TestRotateInterrupted loses nothing where a rotation was interrupted, or the
// runtime refuses.
func TestRotateInterrupted(t *testing.T) {
	r, rotator := newRuntime(t)
	for name, text := range map[string]string{".20250101-000000": "whole", ".20250101-000000.gz": "compressed", ".20250101-000001.tmp": "part"} {
		if err := os.WriteFile(r.path+name, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if old, err := Rotated(r.path); err != nil || !slices.Equal(old, []string{r.path + ".20250101-000000.gz"}) {
		t.Errorf("%q, %v", old, err)
	}

	r.write(strings.Repeat("x", 100))
	r.fail = errors.New("the runtime is away")
	if err := rotator.Rotate(t.Context(), "id", r.path); !errors.Is(err, r.fail) {
		t.Errorf("%v", err)
	}
	if text, err := os.ReadFile(r.path); err != nil || !strings.Contains(string(text), "xxx") {
		t.Errorf("the log after a failed rotation: %q, %v", text, err)
	}

	r.fail = nil
	os.Remove(r.path)
	if err := rotator.Rotate(t.Context(), "id", r.path); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(r.path); err != nil {
		t.Errorf("a removed log was not opened again: %v", err)
	}
}

// TestFollowRotated goes on with the new file, and misses nothing of the old.
func TestFollowRotated(t *testing.T) {
	r, rotator := newRuntime(t)
	rotator.MaxSize = 1
	var running atomic.Bool
	running.Store(true)
	out, done := make(lines, 1000), make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	r.write("0")
	go func() {
		done <- Read(ctx, out, r.path, &v1.PodLogOptions{Follow: true, TailLines: ptr.To[int64](1)}, running.Load)
	}()
	got := []string{<-out}
	want := []string{"0\n"}
	for _, word := range []string{"a", "b", "c", "d"} {
		r.write(word + "1")
		r.write(word + "2")
		if err := rotator.Rotate(t.Context(), "id", r.path); err != nil {
			t.Fatal(err)
		}
		r.write(word + "3")
		want = append(want, word+"1\n", word+"2\n", word+"3\n")
		for len(got) < len(want) {
			select {
			case l := <-out:
				got = append(got, l)
			case <-ctx.Done():
				t.Fatalf("%q, want %q", got, want)
			}
		}
	}
	running.Store(false)
	if err := <-done; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
}

// TestCompressNoLinks checks that compressing a log neither reads nor writes another file of the
// machine that a link has put in the place of one of its own.
func TestCompressNoLinks(t *testing.T) {
	base := t.TempDir()
	dir, victim := filepath.Join(base, "pods", "ns_p_uid", "c"), filepath.Join(base, "victim")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	link, rotated := filepath.Join(dir, "0.log.1"), filepath.Join(dir, "0.log.2")
	for _, path := range []string{victim, rotated} {
		if err := os.WriteFile(path, []byte("text"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{link, rotated + unfinished} {
		if err := os.Symlink(victim, name); err != nil {
			t.Fatal(err)
		}
	}
	if err := compress(link); err == nil {
		t.Error("a link was compressed")
	}
	if _, err := os.Stat(link + compressed); err == nil {
		t.Error("what a link leads to was copied")
	}
	if err := compress(rotated); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(victim); err != nil || string(b) != "text" {
		t.Errorf("the file that a link leads to is %q now (%v)", b, err)
	}
}
