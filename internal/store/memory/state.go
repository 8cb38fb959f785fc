package memory

import (
	"context"
	"fmt"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/google/btree"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/store"
)

// Options of a state.
type Options struct {
	// Indexers are kept up to date for List and Watch.
	Indexers []store.Indexer
	// Clock for the age of the history.
	Clock clock.PassiveClock
	// HistoryLimit is the greatest number of changes kept for watches and
	// lists at old revisions (default 100,000), HistoryAge how long at most
	// (default 5 minutes, upstream's period of compaction).
	HistoryLimit int
	HistoryAge   time.Duration
	// HistoryBytes is how much the objects that the history alone holds may take,
	// encoded (default 64 MiB), unless the live ones take more: then as much as those.
	HistoryBytes int
}

// State is the content of the store, at its last revision and at those before it
// that the history reaches back to. It has the reading half of store.Store. One
// goroutine at a time changes it.
type State struct {
	opts Options

	mu      sync.RWMutex
	rev     int64
	bytes   int // of the live objects, encoded
	live    *btree.BTreeG[*store.Entry]
	clone   *btree.BTreeG[*store.Entry] // of live at rev, nil if none was needed yet
	history history
	topics  map[topic]map[*watcher]struct{}
	indexes []index
	waiting []waiter
	closed  bool
	// unreadable holds the entries that the engine could not read, by key.
	unreadable map[string]store.Unreadable
}

// waiter waits for a revision.
type waiter struct {
	revision int64
	reached  chan struct{}
}

func less(a, b *store.Entry) bool { return a.Key < b.Key }

// first is the revision of an empty store.
const first = 1

// New makes an empty state at revision 1.
func New(opts Options) *State {
	if opts.Clock == nil {
		opts.Clock = clock.RealClock{}
	}
	if opts.HistoryLimit <= 0 {
		opts.HistoryLimit = 100_000
	}
	if opts.HistoryBytes <= 0 {
		opts.HistoryBytes = 64 << 20
	}
	if opts.HistoryAge <= 0 {
		opts.HistoryAge = 5 * time.Minute
	}
	s := &State{opts: opts, rev: first, live: btree.NewG(32, less), topics: map[topic]map[*watcher]struct{}{}}
	s.history.compacted = s.rev
	for _, ix := range opts.Indexers {
		s.indexes = append(s.indexes, index{Indexer: ix, entries: map[string]map[string]*store.Entry{}})
	}
	return s
}

// Reset puts entries, as they are at revision, in place of what is there. There
// is no history then: watches from before get ErrCompacted.
func (s *State) Reset(entries []*store.Entry, revision int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ws := range s.topics {
		for w := range ws {
			if !w.behind {
				w.seen, w.behind = s.rev, true
			}
			w.notify()
		}
	}
	s.live, s.clone, s.bytes = btree.NewG(32, less), nil, 0
	for i := range s.indexes {
		s.indexes[i].entries = map[string]map[string]*store.Entry{}
	}
	for _, e := range entries {
		s.live.ReplaceOrInsert(e)
		s.bytes += e.Size
		for i := range s.indexes {
			s.indexes[i].change(nil, e)
		}
	}
	s.history = history{compacted: revision}
	s.advance(revision)
}

// Apply shows changes, in order, to readers and watchers.
func (s *State) Apply(changes []*store.Event) {
	now := s.opts.Clock.Now().UnixNano()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clone = nil
	for _, ev := range changes {
		next := ev.Entry
		if ev.Type == store.Delete {
			next = nil
			s.live.Delete(ev.Entry)
		} else {
			s.live.ReplaceOrInsert(ev.Entry)
			s.bytes += ev.Entry.Size
		}
		if ev.Prev != nil {
			s.bytes -= ev.Prev.Size
		}
		for i := range s.indexes {
			s.indexes[i].change(ev.Prev, next)
		}
		s.history.add(ev, now)
		s.rev = ev.Revision
		s.publish(ev)
	}
	s.history.trim(s.opts.HistoryLimit, max(s.opts.HistoryBytes, s.bytes), s.opts.HistoryAge, now)
	s.advance(s.rev)
}

// Advance moves on to revision, at which nothing changed here.
func (s *State) Advance(revision int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if revision > s.rev {
		s.advance(revision)
	}
}

// advance sets the revision and wakes the waiters for it. s.mu is held.
func (s *State) advance(revision int64) {
	s.rev = revision
	kept := s.waiting[:0]
	for _, w := range s.waiting {
		if w.revision <= revision {
			close(w.reached)
		} else {
			kept = append(kept, w)
		}
	}
	clear(s.waiting[len(kept):])
	s.waiting = kept
}

// Current returns the live entry at key, or nil, for the goroutine that changes the
// state.
func (s *State) Current(key string) *store.Entry {
	e, _ := s.live.Get(&store.Entry{Key: key})
	return e
}

// Change returns the change of key at revision; nil if the history does not have it.
func (s *State) Change(key string, revision int64) *store.Event {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var found *store.Event
	s.history.since(revision-1, func(ev *store.Event) bool {
		if ev.Revision == revision && ev.Entry.Key == key {
			found = ev
		}
		return ev.Revision == revision && found == nil
	})
	return found
}

// Revision implements store.Store.
func (s *State) Revision() int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.rev
}

// Reach waits until the state is at revision or after it.
func (s *State) Reach(ctx context.Context, revision int64) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return store.ErrClosed
	}
	if s.rev >= revision {
		s.mu.Unlock()
		return nil
	}
	w := waiter{revision, make(chan struct{})}
	s.waiting = append(s.waiting, w)
	s.mu.Unlock()
	select {
	case <-w.reached:
		s.mu.RLock()
		defer s.mu.RUnlock()
		if s.rev < revision {
			return store.ErrClosed
		}
		return nil
	case <-ctx.Done():
		s.mu.Lock()
		defer s.mu.Unlock()
		for i := range s.waiting {
			if s.waiting[i] == w {
				s.waiting = append(s.waiting[:i], s.waiting[i+1:]...)
				break
			}
		}
		return ctx.Err()
	}
}

// Get implements store.Store.
func (s *State) Get(_ context.Context, key string) (*store.Entry, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, store.ErrClosed
	}
	e, _ := s.live.Get(&store.Entry{Key: key})
	return e, nil
}

// Count implements store.Store.
func (s *State) Count(prefix string) int {
	tree, _ := s.snapshot()
	n := 0
	ascend(tree, prefix, "", func(*store.Entry) bool { n++; return true })
	return n
}

// snapshot returns an unchanging copy of the live tree and its revision. The
// copy shares its nodes with the tree until they change.
func (s *State) snapshot() (*btree.BTreeG[*store.Entry], int64) {
	s.mu.RLock()
	if s.clone != nil {
		defer s.mu.RUnlock()
		return s.clone, s.rev
	}
	s.mu.RUnlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.clone == nil {
		s.clone = s.live.Clone()
	}
	return s.clone, s.rev
}

// ascend calls f for the entries below prefix that come after the key after.
func ascend(tree *btree.BTreeG[*store.Entry], prefix, after string, f func(*store.Entry) bool) {
	from := prefix
	if after >= prefix && after != "" {
		from = after + "\x00"
	}
	tree.AscendGreaterOrEqual(&store.Entry{Key: from}, func(e *store.Entry) bool {
		return strings.HasPrefix(e.Key, prefix) && f(e)
	})
}

// List implements store.Store.
func (s *State) List(ctx context.Context, prefix string, opts store.ListOptions) (*store.ListResult, error) {
	if opts.Index != "" && opts.Revision == 0 {
		if r, ok := s.listIndex(prefix, opts); ok {
			return r, nil
		}
	}
	tree, rev := s.snapshot()
	if opts.Revision != 0 && opts.Revision != rev {
		past, undo, err := s.past(ctx, prefix, opts.Revision)
		if err != nil {
			return nil, err
		}
		tree, rev = rewound(past, prefix, undo), opts.Revision
	}
	return s.list(ctx, tree, rev, prefix, opts)
}

// ListUndone is List for an engine with a longer history than the state has: undo
// returns, by key, the entries that changes after opts.Revision, up to and with
// revision, replaced first; nil for those that were not there.
func (s *State) ListUndone(ctx context.Context, prefix string, opts store.ListOptions, undo func(revision int64) (map[string]*store.Entry, error)) (*store.ListResult, error) {
	tree, now := s.snapshot()
	replaced, err := undo(now)
	if err != nil {
		return nil, err
	}
	return s.list(ctx, rewound(tree, prefix, replaced), opts.Revision, prefix, opts)
}

// list returns the selected entries of a tree that is at revision rev.
func (s *State) list(ctx context.Context, tree *btree.BTreeG[*store.Entry], rev int64, prefix string, opts store.ListOptions) (*store.ListResult, error) {
	match, err := s.matcher(opts)
	if err != nil {
		return nil, err
	}
	r := &store.ListResult{Revision: rev}
	n := 0
	ascend(tree, prefix, opts.After, func(e *store.Entry) bool {
		if n++; n%1024 == 0 && ctx.Err() != nil {
			return false
		}
		if match != nil && !match(e) {
			return true
		}
		if opts.Limit > 0 && len(r.Entries) == opts.Limit {
			r.More = true
			if match != nil {
				r.Remaining = -1
				return false
			}
			r.Remaining++
			return true
		}
		r.Entries = append(r.Entries, e)
		return true
	})
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return r, nil
}

func (s *State) matcher(opts store.ListOptions) (func(*store.Entry) bool, error) {
	if opts.Index == "" {
		return opts.Match, nil
	}
	ix := s.index(opts.Index)
	if ix == nil {
		return nil, fmt.Errorf("store has no index %q", opts.Index)
	}
	return func(e *store.Entry) bool {
		v, ok := ix.value(e)
		return ok && v == opts.Value && (opts.Match == nil || opts.Match(e))
	}, nil
}

// past returns a tree and the states, by key, that differ from it at revision:
// what the changes since then replaced.
func (s *State) past(ctx context.Context, prefix string, revision int64) (*btree.BTreeG[*store.Entry], map[string]*store.Entry, error) {
	s.mu.RLock()
	err := s.readable(revision)
	s.mu.RUnlock()
	if err != nil {
		return nil, nil, err
	}
	tree, now := s.snapshot()
	replaced := map[string]*store.Entry{}
	for seen := revision; seen < now; {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		// The changes up to the tree's revision stay as they are, or go and are
		// missed: so writers may have the state in between.
		s.mu.RLock()
		err := s.readable(revision)
		if err == nil {
			seen = s.replaced(prefix, seen, now, replaced)
		}
		s.mu.RUnlock()
		if err != nil {
			return nil, nil, err
		}
	}
	return tree, replaced, nil
}

// replaced notes in states what some of the changes after the revision seen, up to
// end, replaced, unless a change before did. It returns the revision up to which
// that was. s.mu is held.
func (s *State) replaced(prefix string, seen, end int64, states map[string]*store.Entry) int64 {
	scanned, reached := 0, end
	s.history.since(seen, func(ev *store.Event) bool {
		switch {
		case ev.Revision > end:
			return false
		case scanned >= maxScanned && ev.Revision > seen:
			reached = seen
			return false
		}
		scanned++
		seen = ev.Revision
		if strings.HasPrefix(ev.Entry.Key, prefix) {
			if _, ok := states[ev.Entry.Key]; !ok {
				states[ev.Entry.Key] = ev.Prev
			}
		}
		return true
	})
	return reached
}

// rewound returns the tree below prefix with the undone states.
func rewound(tree *btree.BTreeG[*store.Entry], prefix string, undo map[string]*store.Entry) *btree.BTreeG[*store.Entry] {
	if len(undo) == 0 {
		return tree
	}
	out := btree.NewG(32, less)
	ascend(tree, prefix, "", func(e *store.Entry) bool {
		if _, ok := undo[e.Key]; !ok {
			out.ReplaceOrInsert(e)
		}
		return true
	})
	for _, e := range undo {
		if e != nil {
			out.ReplaceOrInsert(e)
		}
	}
	return out
}

// readable is nil if the state at revision can be read. s.mu is held.
func (s *State) readable(revision int64) error {
	switch {
	case s.closed:
		return store.ErrClosed
	case revision > s.rev:
		return fmt.Errorf("%w: asked for %d, current is %d", store.ErrFuture, revision, s.rev)
	case revision < s.history.compacted:
		return &store.CompactedError{Asked: revision, Oldest: s.history.compacted}
	}
	return nil
}

// Oldest implements store.Past.
func (s *State) Oldest() (int64, time.Time, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.history.n == 0 {
		return s.rev, s.opts.Clock.Now(), nil
	}
	return s.history.compacted, time.Unix(0, s.history.times[s.history.head]), nil
}

// RevisionAt implements store.Past.
func (s *State) RevisionAt(t time.Time) (int64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	h := &s.history
	i := sort.Search(h.n, func(i int) bool { return time.Unix(0, h.times[(h.head+i)&(len(h.times)-1)]).After(t) }) // t may be out of UnixNano's range
	switch {
	case i > 0:
		return h.at(i - 1).Revision, nil
	case h.n == 0 || h.compacted == first:
		return h.compacted, nil
	}
	return 0, &store.CompactedError{Asked: 0, Oldest: h.compacted}
}

// Changes implements store.Past.
func (s *State) Changes(ctx context.Context, prefix string, from, to int64, f func(*store.Change) bool) error {
	for more := true; more; {
		if err := ctx.Err(); err != nil {
			return err
		}
		var part []*store.Change
		scanned := 0
		more = false
		s.mu.RLock()
		err := s.readable(from)
		if err == nil {
			s.history.each(from, func(ev *store.Event, at int64) bool {
				if ev.Revision > to {
					return false
				}
				if more = scanned >= maxScanned && ev.Revision > from; more {
					return false
				}
				scanned++
				from = ev.Revision
				if strings.HasPrefix(ev.Entry.Key, prefix) {
					part = append(part, &store.Change{Revision: ev.Revision, Time: time.Unix(0, at), Key: ev.Entry.Key,
						Deleted: ev.Type == store.Delete, Note: ev.Note, Prev: func() (*store.Entry, error) { return ev.Prev, nil }})
				}
				return true
			})
		}
		s.mu.RUnlock()
		if err != nil {
			return err
		}
		for _, c := range part {
			if !f(c) {
				return nil
			}
		}
	}
	return nil
}

// Compact implements store.Store.
func (s *State) Compact(_ context.Context, revision int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.readable(revision); err != nil {
		return err
	}
	s.history.forget(revision)
	return nil
}

// Close ends the watches and refuses reads. It reports whether it was open.
func (s *State) Close() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.closed = true
	for _, ws := range s.topics {
		for w := range ws {
			w.notify()
		}
	}
	for _, w := range s.waiting {
		close(w.reached)
	}
	s.waiting = nil
	return true
}
