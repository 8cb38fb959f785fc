package embedded

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/btree"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/store"
)

// Options of a store.
type Options struct {
	// Dir is the folder of the data, made if absent. Empty keeps everything
	// in memory only (test clusters).
	Dir   string
	Codec store.Codec
	// Indexers are kept up to date for List and Watch.
	Indexers []store.Indexer
	// SetRevision puts a revision into an object as its resourceVersion (""
	// for 0); default is through metadata.
	SetRevision func(obj runtime.Object, revision int64)
	// Clock for times to live and the age of the history.
	Clock clock.WithTicker
	// HistoryLimit is the greatest number of changes kept for watches and
	// lists at old revisions (default 100,000), HistoryAge how long at most
	// (default 5 minutes, upstream's period of compaction).
	HistoryLimit int
	HistoryAge   time.Duration

	disk *diskOptions // for tests: another file system
}

// Store implements store.Store.
type Store struct {
	opts Options
	disk *disk // nil in memory
	ttl  *expirer

	queue struct {
		sync.Mutex
		ops    []*op
		wake   chan struct{}
		closed error
	}
	done chan struct{} // the writer has ended

	failure failure

	mu       sync.RWMutex
	rev      int64
	live     *btree.BTreeG[*store.Entry]
	clone    *btree.BTreeG[*store.Entry] // of live at rev, nil if none was needed yet
	history  history
	topics   map[topic]map[*watcher]struct{}
	indexes  []index
	closedRO bool
}

var _ store.Store = (*Store)(nil)

func less(a, b *store.Entry) bool { return a.Key < b.Key }

// Open opens or makes a store. A damaged store is refused with an error that
// says so, and left as it is.
func Open(opts Options) (*Store, error) {
	if opts.Clock == nil {
		opts.Clock = clock.RealClock{}
	}
	if opts.SetRevision == nil {
		opts.SetRevision = setRevision
	}
	if opts.HistoryLimit <= 0 {
		opts.HistoryLimit = 100_000
	}
	if opts.HistoryAge <= 0 {
		opts.HistoryAge = 5 * time.Minute
	}
	s := &Store{
		opts:   opts,
		rev:    1,
		live:   btree.NewG(32, less),
		topics: map[topic]map[*watcher]struct{}{},
		done:   make(chan struct{}),
	}
	s.failure.ch = make(chan struct{})
	s.queue.wake = make(chan struct{}, 1)
	for _, ix := range opts.Indexers {
		s.indexes = append(s.indexes, index{Indexer: ix, entries: map[string]map[string]*store.Entry{}})
	}
	s.ttl = newExpirer(s)
	if opts.Dir != "" {
		d, err := openDisk(opts, s.failure.set)
		if err != nil {
			return nil, err
		}
		s.disk = d
		if err := s.load(); err != nil {
			d.close()
			return nil, err
		}
	}
	s.history.compacted = s.rev
	go s.write()
	go s.ttl.run()
	return s, nil
}

func setRevision(obj runtime.Object, revision int64) {
	m, err := meta.Accessor(obj)
	if err != nil {
		return
	}
	if revision == 0 {
		m.SetResourceVersion("")
		return
	}
	m.SetResourceVersion(strconv.FormatInt(revision, 10))
}

func (s *Store) load() error {
	rev, err := s.disk.load(func(r record) error {
		obj, err := s.opts.Codec.Decode(r.value)
		if err != nil {
			return fmt.Errorf("decoding the object at %s: %w", r.key, err)
		}
		s.opts.SetRevision(obj, r.mod)
		e := &store.Entry{Key: r.key, CreateRevision: r.create, ModRevision: r.mod, Object: obj}
		s.live.ReplaceOrInsert(e)
		for i := range s.indexes {
			s.indexes[i].change(nil, e)
		}
		if r.expiry != 0 {
			s.ttl.add(r.key, r.mod, time.Unix(0, r.expiry))
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.rev = max(s.rev, rev)
	return nil
}

// Failed is closed when the disk has failed and nothing more can be written;
// Err then says why.
func (s *Store) Failed() <-chan struct{} { return s.failure.ch }

// Err is the failure of the disk, or nil.
func (s *Store) Err() error { return s.failure.get() }

// Revision implements store.Store.
func (s *Store) Revision() int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.rev
}

// Get implements store.Store.
func (s *Store) Get(_ context.Context, key string) (*store.Entry, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closedRO {
		return nil, store.ErrClosed
	}
	e, _ := s.live.Get(&store.Entry{Key: key})
	return e, nil
}

// Count implements store.Store.
func (s *Store) Count(prefix string) int {
	tree, _ := s.snapshot()
	n := 0
	ascend(tree, prefix, "", func(*store.Entry) bool { n++; return true })
	return n
}

// snapshot gives an unchanging copy of the live tree and its revision. The
// copy shares its nodes with the tree until they change.
func (s *Store) snapshot() (*btree.BTreeG[*store.Entry], int64) {
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
func (s *Store) List(ctx context.Context, prefix string, opts store.ListOptions) (*store.ListResult, error) {
	if opts.Index != "" && opts.Revision == 0 {
		if r, ok := s.listIndex(prefix, opts); ok {
			return r, nil
		}
	}
	tree, rev := s.snapshot()
	var undo map[string]*store.Entry
	if opts.Revision != 0 && opts.Revision != rev {
		var err error
		if tree, undo, err = s.past(prefix, opts.Revision); err != nil {
			return nil, err
		}
		rev = opts.Revision
	}
	if undo != nil {
		tree = rewound(tree, undo)
	}
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

func (s *Store) matcher(opts store.ListOptions) (func(*store.Entry) bool, error) {
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

// past gives a tree and the states, by key, that differ from it at revision:
// what the changes since then replaced.
func (s *Store) past(prefix string, revision int64) (*btree.BTreeG[*store.Entry], map[string]*store.Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.readable(revision); err != nil {
		return nil, nil, err
	}
	if s.clone == nil {
		s.clone = s.live.Clone()
	}
	undo := map[string]*store.Entry{}
	s.history.since(revision, func(ev *store.Event) bool {
		if strings.HasPrefix(ev.Entry.Key, prefix) {
			if _, ok := undo[ev.Entry.Key]; !ok {
				undo[ev.Entry.Key] = ev.Prev
			}
		}
		return true
	})
	return s.clone, undo, nil
}

// rewound is the tree with the undone states.
func rewound(tree *btree.BTreeG[*store.Entry], undo map[string]*store.Entry) *btree.BTreeG[*store.Entry] {
	out := btree.NewG(32, less)
	tree.Ascend(func(e *store.Entry) bool {
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

// readable says whether the state at revision can be read. s.mu is held.
func (s *Store) readable(revision int64) error {
	switch {
	case s.closedRO:
		return store.ErrClosed
	case revision > s.rev:
		return fmt.Errorf("%w: asked for %d, current is %d", store.ErrFuture, revision, s.rev)
	case revision < s.history.compacted:
		return &store.CompactedError{Asked: revision, Oldest: s.history.compacted}
	}
	return nil
}

// Compact implements store.Store.
func (s *Store) Compact(_ context.Context, revision int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.readable(revision); err != nil {
		return err
	}
	s.history.forget(revision)
	return nil
}

// Close implements store.Store.
func (s *Store) Close() error {
	s.queue.Lock()
	if s.queue.closed == nil {
		s.queue.closed = store.ErrClosed
	}
	s.queue.Unlock()
	s.signal()
	s.ttl.stop()
	<-s.done
	s.mu.Lock()
	closed := s.closedRO
	s.closedRO = true
	for _, ws := range s.topics {
		for w := range ws {
			w.notify()
		}
	}
	s.mu.Unlock()
	if s.disk != nil && !closed {
		return s.disk.close()
	}
	return nil
}
