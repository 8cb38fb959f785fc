package logs

import (
	"context"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

const log = `2026-01-01T00:00:01Z stdout F one
2026-01-01T00:00:02Z stderr F two
2026-01-01T00:00:03Z stdout P thr
2026-01-01T00:00:03Z stdout F ee
2026-01-01T00:00:04Z stdout F four
`

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "0.log")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestNotALog checks that a log that is a link to another file of the machine, or a pipe,
// is not read, and that the links in the folder of all logs are followed.
func TestNotALog(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "pods", "ns_p_uid", "c")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	secret, pipe, other := filepath.Join(base, "secret"), filepath.Join(dir, "2.log"), filepath.Join(dir, "3.log")
	for _, path := range []string{secret, other} {
		if err := os.WriteFile(path, []byte(log), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ to, want string }{
		"0.log": {secret, "leads out of its folder"},
		"1.log": {"../../../secret", "leads out of its folder"},
		"4.log": {"3.log", ""},
	} {
		if err := os.Symlink(c.to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		err := Read(t.Context(), &out, filepath.Join(dir, name), &v1.PodLogOptions{}, func() bool { return false })
		if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || out.Len() > 0) || c.want == "" && (err != nil || out.Len() == 0) {
			t.Errorf("a link to %s: %q (%v)", c.to, out.String(), err)
		}
	}
	var out strings.Builder
	if err := Read(t.Context(), &out, pipe, &v1.PodLogOptions{}, func() bool { return false }); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a pipe: %v", err)
	}
}

func TestRead(t *testing.T) {
	at := metav1.NewTime(time.Date(2026, 1, 1, 0, 0, 3, 0, time.UTC))
	for name, c := range map[string]struct {
		opts v1.PodLogOptions
		want string
	}{
		"all":        {v1.PodLogOptions{}, "one\ntwo\nthree\nfour\n"},
		"tail":       {v1.PodLogOptions{TailLines: ptr.To[int64](1)}, "four\n"},
		"none":       {v1.PodLogOptions{TailLines: ptr.To[int64](0)}, ""},
		"more":       {v1.PodLogOptions{TailLines: ptr.To[int64](100)}, "one\ntwo\nthree\nfour\n"},
		"since":      {v1.PodLogOptions{SinceTime: &at}, "three\nfour\n"},
		"bytes":      {v1.PodLogOptions{LimitBytes: ptr.To[int64](6)}, "one\ntw"},
		"stream":     {v1.PodLogOptions{Stream: ptr.To(v1.LogStreamStderr)}, "two\n"},
		"timestamps": {v1.PodLogOptions{Timestamps: true, TailLines: ptr.To[int64](1)}, "2026-01-01T00:00:04Z four\n"},
	} {
		var b strings.Builder
		if err := Read(t.Context(), &b, file(t, log), &c.opts, nil); err != nil || b.String() != c.want {
			t.Errorf("%s: %q, %v, want %q", name, b.String(), err, c.want)
		}
	}
}

// TestTailOfLongLog finds the last lines beyond one block.
func TestTailOfLongLog(t *testing.T) {
	line := "2026-01-01T00:00:01Z stdout F " + strings.Repeat("x", 1000) + "\n"
	var b strings.Builder
	if err := Read(t.Context(), &b, file(t, strings.Repeat(line, 300)), &v1.PodLogOptions{TailLines: ptr.To[int64](150)}, nil); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(b.String(), "\n"); n != 150 {
		t.Errorf("%d lines", n)
	}
}

type lines chan string

func (l lines) Write(b []byte) (int, error) {
	l <- string(b)
	return len(b), nil
}

// TestFollow sees what is written after, to the end of the container.
func TestFollow(t *testing.T) {
	path := file(t, log)
	var running atomic.Bool
	running.Store(true)
	out, done := make(lines, 100), make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	go func() {
		done <- Read(ctx, out, path, &v1.PodLogOptions{Follow: true, TailLines: ptr.To[int64](1)}, running.Load)
	}()
	if got := <-out; got != "four\n" {
		t.Fatalf("%q", got)
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("2026-01-01T00:00:05Z stdout F five\n"); err != nil {
		t.Fatal(err)
	}
	if got := <-out; got != "five\n" {
		t.Errorf("%q", got)
	}
	running.Store(false)
	if err := <-done; err != nil || ctx.Err() != nil {
		t.Errorf("%v, %v", err, ctx.Err())
	}
}

// TestFollowHandover sees all lines in their order, also what the runtime writes
// to the old file after it has made the new one.
func TestFollowHandover(t *testing.T) {
	path := file(t, "")
	out, done, looked := make(lines, 100), make(chan error, 1), make(chan struct{})
	var running atomic.Bool
	running.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	go func() {
		done <- Read(ctx, out, path, &v1.PodLogOptions{Follow: true}, func() bool {
			select {
			case looked <- struct{}{}:
			default:
			}
			return running.Load()
		})
	}()
	write := func(f *os.File, text string) {
		if _, err := f.WriteString("2026-01-01T00:00:05Z stdout F " + text + "\n"); err != nil {
			t.Fatal(err)
		}
	}
	open := func() *os.File {
		f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	expect := func(want string) {
		t.Helper()
		select {
		case got := <-out:
			if got != want+"\n" {
				t.Errorf("%q, want %q", got, want)
			}
		case <-ctx.Done():
			t.Fatalf("nothing came, want %q", want)
		}
	}
	old := open()
	write(old, "one")
	expect("one")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	now := open()
	for range 2 { // it has seen the new file
		<-looked
	}
	write(old, "two")
	write(now, "three")
	expect("two")
	expect("three")
	// Rotated again, and nothing was written since.
	if err := os.Rename(path, path+".2"); err != nil {
		t.Fatal(err)
	}
	open()
	write(now, "four")
	expect("four")
	running.Store(false)
	if err := <-done; err != nil || ctx.Err() != nil {
		t.Errorf("%v, %v", err, ctx.Err())
	}
}

// TestManyFollowers checks that more logs can be followed at once than the kernel has
// watchers for a user, and that nothing is left of them.
func TestManyFollowers(t *testing.T) {
	const folders, each = 20, 50
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var paths []string
	for range folders {
		paths = append(paths, file(t, log))
	}
	var out [folders * each]lockedBuilder
	var wg sync.WaitGroup
	for i := range out {
		wg.Go(func() {
			if err := Read(ctx, &out[i], paths[i%folders], &v1.PodLogOptions{Follow: true, TailLines: ptr.To[int64](0)}, func() bool { return true }); err != nil {
				t.Error(err)
			}
		})
	}
	following := func() (n int) {
		watched.mu.Lock()
		defer watched.mu.Unlock()
		for _, all := range watched.by {
			n += len(all)
		}
		return n
	}
	for following() < len(out) && !t.Failed() {
		goruntime.Gosched()
	}
	for _, p := range paths {
		f, err := os.OpenFile(p, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString("2026-01-01T00:00:05Z stdout F five\n"); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	until := time.Now().Add(10 * time.Second)
	for i := range out {
		for !strings.HasSuffix(out[i].String(), "five\n") && time.Now().Before(until) {
			goruntime.Gosched()
		}
		if got := out[i].String(); !strings.HasSuffix(got, "five\n") {
			t.Fatalf("a follower has %q", got)
		}
	}
	cancel()
	wg.Wait()
	watched.mu.Lock()
	defer watched.mu.Unlock()
	if watched.watcher != nil || len(watched.by) > 0 {
		t.Errorf("%d folders are still watched", len(watched.by))
	}
}

type lockedBuilder struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuilder) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuilder) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
