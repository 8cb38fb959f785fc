package embedded

import (
	"fmt"
	"sync"
	"time"

	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/store"
	"keelson.dev/keelson/internal/store/memory"
)

// Options of a store.
type Options struct {
	// Dir is the folder of the data, made if absent. Empty keeps everything
	// in memory only (test clusters).
	Dir   string
	Codec store.Codec
	// NoSync has writes not wait for the disk: a crash of the machine, not of the
	// process, may lose the last of them.
	NoSync bool
	// Indexers are kept up to date for List and Watch.
	Indexers []store.Indexer
	// Clock for times to live and the age of the history.
	Clock clock.WithTicker
	// HistoryLimit and HistoryAge are those of the state in memory.
	HistoryLimit int
	HistoryAge   time.Duration
	// Past is how much of the history is kept on disk.
	Past PastOptions
	// From, if set, is the content that a store in memory begins with.
	From *Content

	disk *diskOptions // for tests: another file system
}

// Store implements store.Store.
type Store struct {
	// State holds the committed entries. The writer alone changes it.
	*memory.State
	opts Options
	disk *disk // nil in memory
	past *past // nil without a history on disk
	ttl  *expirer

	queue struct {
		sync.Mutex
		ops    []*op
		wake   chan struct{}
		closed error
	}
	done chan struct{} // the writer has ended

	failure failure
}

var _ store.Store = (*Store)(nil)

// Open opens or makes a store. A damaged store is refused with an error that
// says so, and left as it is.
func Open(opts Options) (*Store, error) {
	if opts.Clock == nil {
		opts.Clock = clock.RealClock{}
	}
	s := &Store{
		State: memory.New(memory.Options{Indexers: opts.Indexers, Clock: opts.Clock, HistoryLimit: opts.HistoryLimit, HistoryAge: opts.HistoryAge}),
		opts:  opts,
		done:  make(chan struct{}),
	}
	s.failure.ch = make(chan struct{})
	s.queue.wake = make(chan struct{}, 1)
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
		if s.past, err = openPast(s); err != nil {
			d.close()
			return nil, err
		}
	} else if o := opts.From; o != nil {
		s.Reset(o.Entries, max(o.Revision, s.Revision()))
		for key, x := range o.expiries {
			s.ttl.add(key, x.revision, x.at)
		}
	}
	go s.write()
	go s.ttl.run()
	return s, nil
}

func (s *Store) load() error {
	var entries []*store.Entry
	rev, err := s.disk.load(func(r record) error {
		e, err := store.Load(s.opts.Codec, r.key, r.create, r.mod, r.value)
		if err != nil {
			err = fmt.Errorf("decoding the object at %s: %w", r.key, err)
			klog.Background().Error(err, "An object cannot be read, and is left out", "key", r.key)
			s.SetUnreadable(store.Unreadable{Key: r.key, Revision: r.mod, Err: err})
			return nil
		}
		entries = append(entries, e)
		if r.expiry != 0 {
			s.ttl.add(r.key, r.mod, time.Unix(0, r.expiry))
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.Reset(entries, max(rev, s.Revision()))
	return nil
}

// Failed is closed when the disk has failed and nothing more can be written;
// Err then says why.
func (s *Store) Failed() <-chan struct{} { return s.failure.ch }

// Err is the failure of the disk, or nil.
func (s *Store) Err() error { return s.failure.get() }

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
	s.past.stop()
	if s.State.Close() && s.disk != nil {
		return s.disk.close()
	}
	return nil
}
