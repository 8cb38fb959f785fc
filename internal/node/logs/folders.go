package logs

import (
	"path/filepath"
	"sync"

	"github.com/fsnotify/fsnotify"
)

// folders watches folders for all followers of logs in this process, by one instance of
// inotify: the kernel gives a user 128 (inotify(7)). It has none while no log is followed.
type folders struct {
	mu      sync.Mutex
	watcher *fsnotify.Watcher
	by      map[string]map[chan struct{}]bool // by folder
}

var watched folders

// watch returns a channel that has something after changes in the folder, until stop is
// called.
func (f *folders) watch(dir string) (changed <-chan struct{}, stop func(), err error) {
	dir = filepath.Clean(dir)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.watcher == nil {
		w, err := fsnotify.NewWatcher()
		if err != nil {
			return nil, nil, err
		}
		f.watcher, f.by = w, map[string]map[chan struct{}]bool{}
		go f.deliver(w)
	}
	if f.by[dir] == nil {
		if err := f.watcher.Add(dir); err != nil {
			f.release()
			return nil, nil, err
		}
		f.by[dir] = map[chan struct{}]bool{}
	}
	c := make(chan struct{}, 1)
	f.by[dir][c] = true
	return c, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if delete(f.by[dir], c); len(f.by[dir]) == 0 {
			delete(f.by, dir)
			_ = f.watcher.Remove(dir) // the folder may be gone, and its watch with it
			f.release()
		}
	}, nil
}

// release closes the watcher that nobody needs; f.mu is held.
func (f *folders) release() {
	if len(f.by) == 0 {
		f.watcher.Close()
		f.watcher = nil
	}
}

// deliver tells those who watch a folder of its changes, until the watcher is closed. An
// error, as of too many changes, counts as a change of all.
func (f *folders) deliver(w *fsnotify.Watcher) {
	for {
		dir := ""
		select {
		case ev, ok := <-w.Events:
			if !ok {
				return
			}
			dir = filepath.Dir(ev.Name)
		case _, ok := <-w.Errors:
			if !ok {
				return
			}
		}
		f.mu.Lock()
		for at, all := range f.by {
			if dir != "" && at != dir {
				continue
			}
			for c := range all {
				select {
				case c <- struct{}{}:
				default:
				}
			}
		}
		f.mu.Unlock()
	}
}
