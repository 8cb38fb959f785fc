package embedded

import (
	"context"
	"errors"
	"fmt"
	goruntime "runtime"
	"time"

	"k8s.io/apimachinery/pkg/runtime"

	"keelson.dev/keelson/internal/store"
)

// op is a write that waits for the writer. The object is encoded before, by
// the caller, so that the writer only orders and syncs.
type op struct {
	key      string
	create   bool
	revision int64       // expected, unless create
	object   store.Value // empty deletes
	broken   bool        // deletes what cannot be read
	value    []byte
	expiry   time.Time // zero is never
	replaces []byte    // what it replaces, for the history
	note     string
	tell     func(revision int64) // see store.WithCommitted; may be nil

	entry *store.Entry
	prev  *store.Entry
	err   error
	done  chan struct{}
}

// maxBatch bounds the writes of one sync.
const maxBatch = 4096

// Create implements store.Store.
func (s *Store) Create(ctx context.Context, key string, obj runtime.Object, ttl time.Duration) (*store.Entry, error) {
	return s.put(ctx, &op{key: key, create: true, object: store.Value{Object: obj}}, ttl)
}

// Update implements store.Store.
func (s *Store) Update(ctx context.Context, key string, revision int64, obj runtime.Object, ttl time.Duration) (*store.Entry, error) {
	return s.put(ctx, &op{key: key, revision: revision, object: store.Value{Object: obj}}, ttl)
}

// Delete implements store.Store.
func (s *Store) Delete(ctx context.Context, key string, revision int64) (*store.Entry, error) {
	o := &op{key: key, revision: revision}
	if err := s.past.remember(o); err != nil {
		return nil, err
	}
	return s.commit(ctx, o)
}

// DeleteUnreadable implements store.Store.
func (s *Store) DeleteUnreadable(ctx context.Context, key string) error {
	_, err := s.commit(ctx, &op{key: key, broken: true})
	return err
}

func (s *Store) put(ctx context.Context, o *op, ttl time.Duration) (*store.Entry, error) {
	store.ReadBack(o.object.Object)
	if ttl > 0 {
		o.expiry = s.opts.Clock.Now().Add(ttl)
	}
	if s.disk != nil {
		store.SetRevision(o.object.Object, 0)
		var err error
		if o.object.Plain, err = s.opts.Codec.Encode(o.object.Object); err != nil {
			return nil, fmt.Errorf("encoding the object for %s: %w", o.key, err)
		}
		if o.value, o.object.Form, err = s.opts.Codec.Seal(o.key, o.object.Plain); err != nil {
			return nil, fmt.Errorf("encoding the object for %s: %w", o.key, err)
		}
		o.object = o.object.Placed()
		if err := s.past.remember(o); err != nil {
			return nil, err
		}
	}
	return s.commit(ctx, o)
}

// commit hands o to the writer and waits. Once handed over a write is not
// taken back, so ctx is only looked at before.
func (s *Store) commit(ctx context.Context, o *op) (*store.Entry, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	o.done, o.note, o.tell = make(chan struct{}), store.NoteFrom(ctx), store.CommittedFrom(ctx)
	s.queue.Lock()
	if err := s.queue.closed; err != nil {
		s.queue.Unlock()
		return nil, err
	}
	s.queue.ops = append(s.queue.ops, o)
	s.queue.Unlock()
	s.signal()
	<-o.done
	return o.entry, o.err
}

func (s *Store) signal() {
	select {
	case s.queue.wake <- struct{}{}:
	default:
	}
}

// take returns the writes that wait; false when the store is closed and none is
// left.
func (s *Store) take() ([]*op, bool) {
	for {
		// Goroutines that are about to write may do so first: where there are none
		// this costs nothing, and on a busy machine more writes share a sync.
		goruntime.Gosched()
		s.queue.Lock()
		ops, closed := s.queue.ops, s.queue.closed
		if len(ops) > maxBatch {
			ops, s.queue.ops = ops[:maxBatch:maxBatch], ops[maxBatch:]
		} else {
			s.queue.ops = nil
		}
		s.queue.Unlock()
		if len(ops) > 0 {
			return ops, true
		}
		if closed != nil {
			return nil, false
		}
		<-s.queue.wake
	}
}

// write is the writer: it checks what waits against the state that the writes
// before it make, syncs all of it at once, and only then shows it.
func (s *Store) write() {
	defer close(s.done)
	for {
		ops, ok := s.take()
		if !ok {
			return
		}
		accepted := s.order(ops)
		if len(accepted) > 0 {
			if err := s.sync(accepted); err != nil {
				s.fail(ops, err)
				return
			}
			s.apply(accepted)
		}
		for _, o := range ops {
			close(o.done)
		}
	}
}

// order checks each write and gives the accepted ones their revisions.
func (s *Store) order(ops []*op) []*op {
	pending := make(map[string]*store.Entry, len(ops)) // nil is deleted
	current := func(key string) *store.Entry {
		if e, ok := pending[key]; ok {
			return e
		}
		return s.Current(key)
	}
	rev := s.Revision()
	accepted := ops[:0:0]
	for _, o := range ops {
		prev := current(o.key)
		_, broken := s.UnreadableAt(o.key)
		switch {
		case o.broken && broken:
			rev++
			o.entry = &store.Entry{Key: o.key, CreateRevision: rev, ModRevision: rev}
			accepted = append(accepted, o)
			continue
		case o.broken:
			o.err = fmt.Errorf("%w: %s has nothing that cannot be read", store.ErrNotFound, o.key)
			continue
		case o.create && broken:
			o.err = fmt.Errorf("%w: %s, which cannot be read", store.ErrExists, o.key)
			continue
		case o.create && prev != nil:
			o.err = fmt.Errorf("%w: %s", store.ErrExists, o.key)
			continue
		case !o.create && prev == nil:
			o.err = fmt.Errorf("%w: %s", store.ErrNotFound, o.key)
			continue
		case !o.create && prev.ModRevision != o.revision:
			o.err = fmt.Errorf("%w: %s is at revision %d, not %d", store.ErrConflict, o.key, prev.ModRevision, o.revision)
			continue
		}
		rev++
		o.prev = prev
		created := rev
		if prev != nil {
			created = prev.CreateRevision
		}
		if o.object.Object == nil {
			o.entry = prev.Deleted(rev)
			pending[o.key] = nil
		} else {
			o.entry = store.NewEntry(o.key, created, rev, o.object)
			pending[o.key] = o.entry
		}
		accepted = append(accepted, o)
	}
	return accepted
}

func (s *Store) sync(ops []*op) error {
	if s.disk == nil {
		return nil
	}
	return s.disk.commit(ops, s.past)
}

// apply shows committed writes to readers and watchers.
func (s *Store) apply(ops []*op) {
	changes := make([]*store.Event, 0, len(ops))
	for _, o := range ops {
		if o.broken {
			s.ForgetUnreadable(o.key)
			continue
		}
		change := &store.Event{Type: store.Put, Entry: o.entry, Prev: o.prev, Revision: o.entry.ModRevision, Note: o.note}
		if o.object.Object == nil {
			change.Type = store.Delete
		}
		changes = append(changes, change)
		if o.tell != nil {
			o.tell(o.entry.ModRevision)
		}
	}
	s.Apply(changes)
	s.Advance(ops[len(ops)-1].entry.ModRevision)
	for _, o := range ops {
		if !o.expiry.IsZero() {
			s.ttl.add(o.key, o.entry.ModRevision, o.expiry)
		}
	}
}

// fail ends the writer: the content of a failed disk is unknown until it is read
// again, so nothing more is accepted.
func (s *Store) fail(ops []*op, err error) {
	err = errors.Join(store.ErrClosed, err)
	s.failure.set(err)
	s.queue.Lock()
	s.queue.closed = err
	ops = append(ops, s.queue.ops...)
	s.queue.ops = nil
	s.queue.Unlock()
	for _, o := range ops {
		o.entry, o.err = nil, err
		close(o.done)
	}
}
