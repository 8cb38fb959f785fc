package logs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"

	"keelson.dev/keelson/internal/node/beneath"
)

// blockSize is how much is read at once from the end, to find the last lines.
const blockSize = 64 << 10

// Read copies a log to w as opts wants it. With Follow it goes on until the
// container has ended (running says no) or ctx is done.
func Read(ctx context.Context, w io.Writer, path string, opts *v1.PodLogOptions, running func() bool) error {
	f, err := Open(path)
	if err != nil {
		return fmt.Errorf("failed to try resolving symlinks in path %q: %w", path, err)
	}
	defer func() { f.Close() }()
	if opts.TailLines != nil {
		if err := seekTail(f, *opts.TailLines); err != nil {
			return err
		}
	}
	out := &writer{w: w, opts: opts, left: -1}
	if opts.LimitBytes != nil {
		out.left = *opts.LimitBytes
	}
	switch {
	case opts.SinceSeconds != nil:
		out.since = time.Now().Add(-time.Duration(*opts.SinceSeconds) * time.Second)
	case opts.SinceTime != nil:
		out.since = opts.SinceTime.Time
	}
	var changed <-chan struct{}
	if opts.Follow {
		// The folder, as the log is another file once it was rotated.
		var stop func()
		if changed, stop, err = watched.watch(filepath.Dir(path)); err != nil {
			return err
		}
		defer stop()
	}
	r := bufio.NewReader(f)
	var part []byte
	for {
		line, err := r.ReadBytes('\n')
		part = append(part, line...)
		if err == nil {
			if werr := out.line(part); werr != nil || out.left == 0 {
				return werr
			}
			part = part[:0]
			continue
		}
		if !errors.Is(err, io.EOF) {
			return err
		}
		if !opts.Follow {
			return nil
		}
		// Asked before the last look at the file, so that nothing is missed.
		alive := running()
		if fl, ok := w.(interface{ Flush() }); ok {
			fl.Flush()
		}
		next, err := successor(f, path, alive)
		if err != nil {
			return err
		}
		if next != nil {
			// The old file is no longer written to: its present content is the
			// rest.
			rest, err := io.ReadAll(r)
			if err == nil {
				err = out.all(append(part, rest...))
			}
			f.Close()
			f = next
			if err != nil || out.left == 0 {
				return err
			}
			part = part[:0]
			r.Reset(f)
			continue
		}
		if !alive {
			if rest, _ := io.ReadAll(r); len(rest) == 0 {
				return nil
			} else if err := out.all(append(part, rest...)); err != nil {
				return err
			}
			return nil
		}
		select {
		case <-changed:
		case <-time.After(time.Second): // the container may have ended without a word
		case <-ctx.Done():
			return nil
		}
	}
}

// successor opens the file that has come in the place of f at path, if one has
// and f is whole: the runtime makes the new file before it leaves the old one,
// to which a running container may write until there is something in the new.
func successor(f *os.File, path string, running bool) (*os.File, error) {
	old, err := f.Stat()
	if err != nil {
		return nil, err
	}
	switch now, err := os.Stat(path); {
	case errors.Is(err, fs.ErrNotExist): // between its renaming and its opening
		return nil, nil
	case err != nil:
		return nil, err
	case os.SameFile(old, now), running && now.Size() == 0:
		return nil, nil
	}
	return Open(path)
}

// within returns the folder of all logs, and the path in it of a log: a file in the folder of a
// container, in that of a pod. What the agent does there with the path does not leave the folder:
// a pod that can write there, such as one that collects logs, may have put a link at any place.
func within(path string) (all, log string) {
	container := filepath.Dir(path)
	pod := filepath.Dir(container)
	return filepath.Dir(pod), filepath.Join(filepath.Base(pod), filepath.Base(container), filepath.Base(path))
}

// Open opens a log: no other file of the machine in its place, nor a pipe, whose writer it would
// wait for.
func Open(path string) (*os.File, error) { return beneath.OpenFile(within(path)) }

type writer struct {
	w     io.Writer
	opts  *v1.PodLogOptions
	since time.Time
	left  int64
}

func (w *writer) all(b []byte) error {
	for _, l := range strings.SplitAfter(string(b), "\n") {
		if l == "" {
			continue
		}
		if err := w.line([]byte(l)); err != nil || w.left == 0 {
			return err
		}
	}
	return nil
}

// line writes one line: time, stream, tag (F ends the line, P does not), text.
func (w *writer) line(l []byte) error {
	parts := strings.SplitN(string(l), " ", 4)
	if len(parts) < 4 {
		return nil
	}
	if !w.since.IsZero() {
		t, err := time.Parse(time.RFC3339Nano, parts[0])
		if err == nil && t.Before(w.since) {
			return nil
		}
	}
	if s := w.opts.Stream; s != nil && *s != v1.LogStreamAll && !strings.EqualFold(*s, parts[1]) {
		return nil
	}
	text := parts[3]
	if parts[2] == "P" {
		text = strings.TrimSuffix(text, "\n")
	}
	if w.opts.Timestamps {
		text = parts[0] + " " + text
	}
	if w.left >= 0 {
		if int64(len(text)) > w.left {
			text = text[:w.left]
		}
		w.left -= int64(len(text))
	}
	_, err := io.WriteString(w.w, text)
	return err
}

// seekTail puts f before its last n lines.
func seekTail(f *os.File, n int64) error {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil || n == 0 {
		return err
	}
	buf := make([]byte, blockSize)
	seen := int64(0)
	for at := size; at > 0; {
		from := max(0, at-blockSize)
		b := buf[:at-from]
		if _, err := f.ReadAt(b, from); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		for i := len(b) - 1; i >= 0; i-- {
			if b[i] != '\n' || from+int64(i) == size-1 {
				continue
			}
			if seen++; seen == n {
				_, err := f.Seek(from+int64(i)+1, io.SeekStart)
				return err
			}
		}
		at = from
	}
	_, err = f.Seek(0, io.SeekStart)
	return err
}
