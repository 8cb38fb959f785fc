// Package reload reads configuration files, and reads them again when they
// change. It imports no other package of the project.
package reload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
	"k8s.io/klog/v2"
)

// period is how often a file is read where no event reports a change.
const period = time.Minute

// File calls apply with the content of the file at path, and until ctx is done
// again after each change: also where the file is replaced, or is a link of a
// mounted volume. The first error is returned; a later one is logged, and the
// file's last good content stays in effect.
func File(ctx context.Context, path string, apply func([]byte) error) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := apply(data); err != nil {
		return err
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watching %s: %w", path, err)
	}
	if err := w.Add(filepath.Dir(path)); err != nil {
		return errors.Join(fmt.Errorf("watching %s: %w", path, err), w.Close())
	}
	go watch(ctx, w, path, data, apply)
	return nil
}

func watch(ctx context.Context, w *fsnotify.Watcher, path string, last []byte, apply func([]byte) error) {
	defer w.Close()
	log := klog.FromContext(ctx)
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-w.Events:
		case err := <-w.Errors:
			log.V(2).Info("Watching a configuration file", "path", path, "err", err)
		}
		data, err := os.ReadFile(path)
		if err != nil || len(data) == 0 {
			continue // between its removal and its replacement, or half written
		}
		if bytes.Equal(data, last) {
			continue
		}
		last = data
		if err := apply(data); err != nil {
			log.Error(err, "A changed configuration file was not applied; what it said before stays in effect", "path", path)
			continue
		}
		log.Info("Configuration file reloaded", "path", path)
	}
}
