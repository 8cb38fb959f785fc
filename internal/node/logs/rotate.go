package logs

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The kubelet's defaults of containerLogMaxSize and containerLogMaxFiles.
const (
	DefaultMaxSize  = 10 << 20
	DefaultMaxFiles = 5
)

const (
	rotatedTime = "20060102-150405" // what is added to the name of a log that was rotated
	compressed  = ".gz"
	unfinished  = ".tmp"
)

// Rotator keeps the logs of running containers within a size, as the kubelet
// does: a log that has outgrown MaxSize becomes 0.log.20060102-150405, is
// compressed at the next rotation, and is removed once there are more than
// MaxFiles files of the container.
type Rotator struct {
	MaxSize  int64 // bytes
	MaxFiles int   // with the one being written; at least 2
	Now      func() time.Time
	// Reopen makes the runtime open the log of a container anew (CRI's
	// ReopenContainerLog).
	Reopen func(ctx context.Context, containerID string) error
}

// Rotate looks at the log at path, which the container writes, and rotates it
// if that is due. A log that was removed is opened again.
func (r *Rotator) Rotate(ctx context.Context, containerID, path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return r.Reopen(ctx, containerID)
	} else if err != nil {
		return err
	}
	if info.Size() < r.MaxSize {
		return nil
	}
	if err := r.makeRoom(path); err != nil {
		return fmt.Errorf("rotating %s: %w", path, err)
	}
	rotated := path + "." + r.Now().Format(rotatedTime)
	if err := os.Rename(path, rotated); err != nil {
		return fmt.Errorf("rotating %s: %w", path, err)
	}
	if err := r.Reopen(ctx, containerID); err != nil {
		// The container goes on writing to the file that it has open; under its
		// own name that is found, and tried again.
		if back := os.Rename(rotated, path); back != nil {
			return fmt.Errorf("rotating %s: %w; taking it back: %w", path, err, back)
		}
		return fmt.Errorf("rotating %s: %w", path, err)
	}
	return nil
}

// makeRoom removes the oldest logs, so that there are MaxFiles with the two to
// come, and compresses the others.
func (r *Rotator) makeRoom(path string) error {
	old, err := Rotated(path)
	if err != nil {
		return err
	}
	if n := len(old) - (r.MaxFiles - 2); n > 0 {
		for _, name := range old[:n] {
			if err := os.Remove(name); err != nil {
				return err
			}
		}
		old = old[n:]
	}
	for _, name := range old {
		if !strings.HasSuffix(name, compressed) {
			if err := compress(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// Rotated lists what was rotated from the log at path, oldest first. What an
// interrupted compression left is removed.
func Rotated(path string) ([]string, error) {
	found, err := filepath.Glob(path + ".*")
	if err != nil {
		return nil, err
	}
	slices.Sort(found)
	return slices.DeleteFunc(found, func(name string) bool {
		switch {
		case strings.HasSuffix(name, unfinished), slices.Contains(found, name+compressed):
			os.Remove(name)
			return true
		}
		return false
	}), nil
}

// compress puts name.gz in the place of name. Whenever it is interrupted, one
// of both is whole.
func compress(name string) error {
	in, err := Open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	dir, log := within(name)
	all, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer all.Close()
	// What an interrupted attempt has left, or a link, is not written to.
	if err := all.Remove(log + unfinished); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	out, err := all.OpenFile(log+unfinished, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	zip := gzip.NewWriter(out)
	_, err = io.Copy(zip, in)
	if err = errors.Join(err, zip.Close(), out.Close()); err != nil {
		_ = all.Remove(log + unfinished)
		return err
	}
	if err := all.Rename(log+unfinished, log+compressed); err != nil {
		return err
	}
	return all.Remove(log)
}
