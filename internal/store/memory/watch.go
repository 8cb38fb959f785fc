package memory

import (
	"context"
	"fmt"
	"strings"

	"keelson.dev/keelson/internal/store"
)

// topic is the topic of a watcher: a prefix that is a whole key or ends in a
// slash, or a value of an index.
type topic struct{ index, value string }

// maxQueued is the greatest number of events that wait in a watcher's queue;
// beyond it the watcher reads the shared history instead.
const maxQueued = 256

const (
	// maxReturned is the greatest number of events of one Next.
	maxReturned = 256
	// maxScanned is how many changes of the history are looked at before a writer
	// that waits for the state gets it.
	maxScanned = 4096
)

type watcher struct {
	s      *State
	topic  topic
	prefix string
	ix     *index
	wake   chan struct{}

	// The rest is guarded by s.mu. Next changes it under a read lock, since all
	// others read it under a write lock.
	seen    int64          // every event up to it has been returned or is queued
	behind  bool           // the queue has overflowed: read the history after seen
	queue   []*store.Event // after seen
	stopped bool

	out []store.Event // of the last Next
}

// Watch implements store.Store.
func (s *State) Watch(prefix string, opts store.WatchOptions) (store.Watcher, error) {
	w := &watcher{s: s, prefix: prefix, topic: topic{"", prefix}, wake: make(chan struct{}, 1)}
	if opts.Index != "" {
		if w.ix = s.index(opts.Index); w.ix == nil {
			return nil, fmt.Errorf("store has no index %q", opts.Index)
		}
		w.topic = topic{opts.Index, opts.Value}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	w.seen = s.rev
	if opts.Revision != 0 {
		w.seen = opts.Revision
	}
	if err := s.readable(w.seen); err != nil {
		return nil, err
	}
	w.behind = w.seen != s.rev
	if s.topics[w.topic] == nil {
		s.topics[w.topic] = map[*watcher]struct{}{}
	}
	s.topics[w.topic][w] = struct{}{}
	return w, nil
}

// publish offers ev to the watchers of its topics: the key, each prefix of it
// that ends in a slash, and its values in the indexes. s.mu is held.
func (s *State) publish(ev *store.Event) {
	if len(s.topics) == 0 {
		return
	}
	key := ev.Entry.Key
	s.offer(topic{"", key}, ev)
	for i := len(key) - 1; i > 0; i-- {
		if key[i] == '/' {
			s.offer(topic{"", key[:i+1]}, ev)
		}
	}
	for i := range s.indexes {
		ix := &s.indexes[i]
		now, ok := ix.value(ev.Entry)
		if ok {
			s.offer(topic{ix.Name, now}, ev)
		}
		if before, had := ix.value(ev.Prev); had && (!ok || before != now) {
			s.offer(topic{ix.Name, before}, ev)
		}
	}
}

func (s *State) offer(t topic, ev *store.Event) {
	for w := range s.topics[t] {
		if w.ix != nil && !strings.HasPrefix(ev.Entry.Key, w.prefix) {
			continue
		}
		if !w.behind {
			n := len(w.queue)
			if n < maxQueued || w.queue[n-1].Revision == ev.Revision {
				w.queue = append(w.queue, ev)
			} else {
				// seen stays at the last event queued.
				w.behind = true
				w.seen = w.queue[n-1].Revision
			}
		}
		w.notify()
	}
}

func (w *watcher) notify() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Next implements store.Watcher.
func (w *watcher) Next(ctx context.Context) ([]store.Event, error) {
	clear(w.out)
	w.out = w.out[:0]
	for {
		w.s.mu.RLock()
		more, err := w.collect()
		w.s.mu.RUnlock()
		if err != nil || len(w.out) > 0 {
			return w.out, err
		}
		if more {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			continue
		}
		select {
		case <-w.wake:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// collect moves ready events to w.out, and reports whether there are more in the
// history. s.mu is held.
func (w *watcher) collect() (more bool, err error) {
	for _, ev := range w.queue {
		w.out = append(w.out, *ev)
	}
	if len(w.queue) > 0 {
		if !w.behind {
			w.seen = w.queue[len(w.queue)-1].Revision
		}
		w.queue = nil
		return w.behind, nil
	}
	if w.s.closed || w.stopped {
		return false, store.ErrClosed
	}
	if !w.behind {
		return false, nil
	}
	if err := w.s.readable(w.seen); err != nil {
		return false, err
	}
	w.behind = false
	scanned := 0
	w.s.history.since(w.seen, func(ev *store.Event) bool {
		if (len(w.out) >= maxReturned || scanned >= maxScanned) && ev.Revision > w.seen {
			w.behind = true
			return false
		}
		scanned++
		w.seen = ev.Revision
		if w.wants(ev) {
			w.out = append(w.out, *ev)
		}
		return true
	})
	return w.behind, nil
}

func (w *watcher) wants(ev *store.Event) bool {
	if !strings.HasPrefix(ev.Entry.Key, w.prefix) {
		return false
	}
	if w.ix == nil {
		return true
	}
	v, ok := w.ix.value(ev.Entry)
	if ok && v == w.topic.value {
		return true
	}
	v, ok = w.ix.value(ev.Prev)
	return ok && v == w.topic.value
}

// Revision implements store.Watcher.
func (w *watcher) Revision() int64 {
	w.s.mu.RLock()
	defer w.s.mu.RUnlock()
	switch {
	case len(w.queue) > 0:
		// The events before the queue's first have been returned.
		return w.queue[0].Revision - 1
	case w.behind:
		return w.seen
	}
	return w.s.rev
}

// Stop implements store.Watcher.
func (w *watcher) Stop() {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	w.stopped = true
	w.queue = nil
	if ws := w.s.topics[w.topic]; ws != nil {
		delete(ws, w)
		if len(ws) == 0 {
			delete(w.s.topics, w.topic)
		}
	}
	w.notify()
}
