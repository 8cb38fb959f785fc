package embedded

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"keelson.dev/keelson/internal/store"
)

// PastOptions bound the history on disk. It holds what each change replaced, and so
// takes the state back to before it.
type PastOptions struct {
	// Age is how old a change may be that can be undone; 0 keeps no history.
	Age time.Duration
	// Size is about how many bytes the history may take on disk (default 256 MiB).
	// Where that is less than what Age allows, the oldest changes go earlier.
	Size int64
}

// trimInterval is how often what is older or larger than the options allow is
// removed.
const trimInterval = 30 * time.Second

// readers is how many read the history from disk at once: that may be all of it, and
// others wait.
const readers = 2

// past is the history on disk: one undo for each revision, without gaps, in the same
// batch as the change itself. Methods other than those of store.Past may be called
// on nil, which is no history.
type past struct {
	s      *Store
	opts   PastOptions
	buf    []byte
	turns  chan struct{} // of those who read the history from disk
	cancel context.CancelFunc
	done   chan struct{}
}

// undo is what is stored of a change: the entry that it replaced.
type undo struct {
	revision    int64
	at          int64 // Unix nanoseconds
	create, mod int64 // of the entry that was replaced; 0 is none
	deleted     bool  // the change was a deletion
	key, note   string
	value       []byte // sealed, of the entry that was replaced
}

// undoKey returns where the undo of the change at revision is.
func undoKey(b []byte, revision int64) []byte {
	return binary.BigEndian.AppendUint64(append(b, 'h'), uint64(revision))
}

// historyEnd is after all undos.
var historyEnd = []byte("i")

// head returns the part of an undo before the value.
func (u *undo) head(b []byte) []byte {
	deleted := int64(0)
	if u.deleted {
		deleted = 1
	}
	for _, n := range []int64{u.at, u.create, u.mod, deleted} {
		b = binary.AppendVarint(b, n)
	}
	for _, s := range []string{u.key, u.note} {
		b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
	}
	return b
}

// parseUndo reads what is stored at an undo's key.
func parseUndo(key, v []byte) (u undo, err error) {
	if len(key) != 9 {
		return u, fmt.Errorf("history has the key %q", key)
	}
	u.revision = int64(binary.BigEndian.Uint64(key[1:]))
	cut := fmt.Errorf("history of revision %d is cut", u.revision)
	var deleted int64
	for _, p := range []*int64{&u.at, &u.create, &u.mod, &deleted} {
		n, size := binary.Varint(v)
		if size <= 0 {
			return u, cut
		}
		*p, v = n, v[size:]
	}
	u.deleted = deleted != 0
	for _, p := range []*string{&u.key, &u.note} {
		n, size := binary.Uvarint(v)
		if size <= 0 || n > uint64(len(v)-size) {
			return u, cut
		}
		*p, v = string(v[size:size+int(n)]), v[size+int(n):]
	}
	u.value = v
	return u, nil
}

// openPast opens the history of a store that is loaded. What does not reach up to the
// store's revision, because a version without a history or with it switched off has
// written, is removed.
func openPast(s *Store) (p *past, err error) {
	defer s.disk.recovered(&err)
	last, err := s.disk.lastUndo()
	if err != nil {
		return nil, err
	}
	if last != 0 && (s.opts.Past.Age <= 0 || last != s.Revision()) {
		if err := s.disk.forget(1<<63 - 1); err != nil {
			return nil, err
		}
	}
	if s.opts.Past.Age <= 0 {
		return nil, nil
	}
	p = &past{s: s, opts: s.opts.Past, done: make(chan struct{}), turns: make(chan struct{}, readers)}
	if p.opts.Size <= 0 {
		p.opts.Size = 256 << 20
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	go p.run(ctx)
	return p, nil
}

func (p *past) stop() {
	if p == nil {
		return
	}
	p.cancel()
	<-p.done
}

// run trims the history from time to time.
func (p *past) run(ctx context.Context) {
	defer close(p.done)
	t := p.s.opts.Clock.NewTicker(trimInterval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C():
		}
		if err := p.trim(p.s.opts.Clock.Now()); err != nil {
			p.s.failure.set(errors.Join(store.ErrClosed, err))
			return
		}
	}
}

// remember prepares what o replaces, so that the writer need not.
func (p *past) remember(o *op) error {
	if p == nil || o.create {
		return nil
	}
	if e, err := p.s.State.Get(context.Background(), o.key); err == nil && e != nil && e.ModRevision == o.revision {
		return p.seal(o, e)
	}
	return nil // the writer refuses it
}

// seal sets the stored form of the entry that o replaces.
func (p *past) seal(o *op, e *store.Entry) error {
	plain, err := p.s.opts.Codec.Encode(e.Object())
	if err == nil {
		o.replaces, _, err = p.s.opts.Codec.Seal(o.key, plain)
	}
	if err != nil {
		return fmt.Errorf("encoding the object at %s for the history: %w", o.key, err)
	}
	return nil
}

// add puts the undo of o into the batch of o.
func (p *past) add(b *pebble.Batch, o *op) error {
	if p == nil {
		return nil
	}
	u := undo{at: p.s.opts.Clock.Now().UnixNano(), key: o.key, note: o.note, deleted: o.object.Object == nil}
	if o.prev != nil {
		u.create, u.mod = o.prev.CreateRevision, o.prev.ModRevision
		if o.replaces == nil {
			if err := p.seal(o, o.prev); err != nil {
				return err
			}
		}
	}
	p.buf = u.head(p.buf[:0])
	def := b.SetDeferred(9, len(p.buf)+len(o.replaces))
	undoKey(def.Key[:0], o.entry.ModRevision)
	copy(def.Value, p.buf)
	copy(def.Value[len(p.buf):], o.replaces)
	o.replaces = nil
	return def.Finish()
}

// trim removes what is older than the options allow, and then what is too large.
func (p *past) trim(now time.Time) (err error) {
	d := p.s.disk
	defer d.recovered(&err)
	next, err := d.undosUntil(now.Add(-p.opts.Age))
	if err != nil || next == 0 {
		return err
	}
	keep := next - 1 // which tells the state from its time to that of the next
	last := p.s.Revision()
	size := func(from int64) (uint64, error) { return d.db.EstimateDiskUsage(undoKey(nil, from), historyEnd) }
	if n, err := size(keep); err != nil {
		return explain(d.dir, err)
	} else if n > uint64(p.opts.Size) {
		var failed error
		keep += int64(sort.Search(int(max(0, last-keep)), func(i int) bool {
			n, err := size(keep + int64(i))
			failed = errors.Join(failed, err)
			return n <= uint64(p.opts.Size)
		}))
		if failed != nil {
			return explain(d.dir, failed)
		}
	}
	return d.forget(keep)
}

// undos calls f with the undos of the changes after the revision from, in order,
// until f returns false. Values are valid during the call.
func (d *disk) undos(from int64, f func(undo) (bool, error)) error {
	it, err := d.db.NewIter(&pebble.IterOptions{LowerBound: undoKey(nil, from+1), UpperBound: historyEnd})
	if err != nil {
		return explain(d.dir, err)
	}
	defer it.Close()
	for it.First(); it.Valid(); it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return explain(d.dir, err)
		}
		u, err := parseUndo(it.Key(), v)
		if err != nil {
			return damaged(d.dir, err)
		}
		if more, err := f(u); err != nil || !more {
			return err
		}
	}
	if err := it.Error(); err != nil {
		return explain(d.dir, err)
	}
	return nil
}

// firstUndo returns the oldest undo of the changes after from; nil where there is none.
func (d *disk) firstUndo(from int64) (first *undo, err error) {
	err = d.undos(from, func(u undo) (bool, error) {
		first = &u
		u.value = nil
		return false, nil
	})
	return first, err
}

// lastUndo returns the revision of the last undo; 0 where there is none.
func (d *disk) lastUndo() (int64, error) {
	it, err := d.db.NewIter(&pebble.IterOptions{LowerBound: undoKey(nil, 0), UpperBound: historyEnd})
	if err != nil {
		return 0, explain(d.dir, err)
	}
	defer it.Close()
	if !it.Last() {
		if err := it.Error(); err != nil {
			return 0, explain(d.dir, err)
		}
		return 0, nil
	}
	u, err := parseUndo(it.Key(), it.Value())
	if err != nil {
		return 0, damaged(d.dir, err)
	}
	return u.revision, nil
}

// undosUntil returns the revision of the first undo of a change after t; where all are
// of changes before, that after the last.
func (d *disk) undosUntil(t time.Time) (int64, error) {
	first, err := d.firstUndo(0)
	if err != nil || first == nil {
		return 0, err
	}
	last, err := d.lastUndo()
	if err != nil {
		return 0, err
	}
	var failed error
	n := sort.Search(int(last-first.revision+1), func(i int) bool {
		u, err := d.firstUndo(first.revision + int64(i) - 1)
		if err != nil {
			failed = err
			return true
		}
		return u == nil || time.Unix(0, u.at).After(t) // t may be out of UnixNano's range
	})
	return first.revision + int64(n), failed
}

// forget removes the undos of the changes before revision.
func (d *disk) forget(revision int64) error {
	first, err := d.firstUndo(0)
	if err != nil || first == nil || first.revision >= revision {
		return err
	}
	if err := d.db.DeleteRange(undoKey(nil, 0), undoKey(nil, revision), pebble.NoSync); err != nil {
		return explain(d.dir, err)
	}
	return nil
}

// Oldest implements store.Past.
func (s *Store) Oldest() (int64, time.Time, error) {
	if s.past == nil {
		return s.State.Oldest()
	}
	now := s.Revision()
	u, err := s.disk.firstUndo(0)
	switch {
	case err != nil:
		return 0, time.Time{}, err
	case u == nil || u.revision > now:
		return now, s.opts.Clock.Now(), nil
	}
	return u.revision - 1, time.Unix(0, u.at), nil
}

// RevisionAt implements store.Past.
func (s *Store) RevisionAt(t time.Time) (int64, error) {
	if s.past == nil {
		return s.State.RevisionAt(t)
	}
	now := s.Revision()
	next, err := s.disk.undosUntil(t)
	if err != nil {
		return 0, err
	}
	if next == 0 || next > now {
		return now, nil
	}
	oldest, _, err := s.Oldest()
	if err != nil {
		return 0, err
	}
	if next-1 <= oldest && oldest > 1 {
		return 0, &store.CompactedError{Asked: next - 1, Oldest: oldest}
	}
	return next - 1, nil
}

// undone calls f with the undos of changes after from, up to and with to.
func (s *Store) undone(ctx context.Context, from, to int64, f func(undo) (bool, error)) error {
	select {
	case s.past.turns <- struct{}{}:
		defer func() { <-s.past.turns }()
	case <-ctx.Done():
		return ctx.Err()
	}
	seen := from
	err := s.disk.undos(from, func(u undo) (bool, error) {
		if seen == from && u.revision != from+1 || seen%1024 == 0 && ctx.Err() != nil || u.revision > to {
			return false, ctx.Err()
		}
		seen = u.revision
		return f(u)
	})
	if err == nil && seen == from && from < to {
		oldest, _, err := s.Oldest()
		if err != nil {
			return err
		}
		return &store.CompactedError{Asked: from, Oldest: oldest}
	}
	return err
}

// replaced returns the entry that the change of u replaced.
func (s *Store) replaced(u *undo) (*store.Entry, error) {
	if u.mod == 0 {
		return nil, nil
	}
	plain, form, err := s.opts.Codec.Open(u.key, u.value)
	if err != nil {
		return nil, fmt.Errorf("reading %s at revision %d: %w", u.key, u.mod, err)
	}
	obj, err := s.opts.Codec.Decode(plain)
	if err != nil {
		return nil, fmt.Errorf("reading %s at revision %d: %w", u.key, u.mod, err)
	}
	return store.NewEntry(u.key, u.create, u.mod, store.Value{Object: obj, Form: form}), nil
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, prefix string, opts store.ListOptions) (*store.ListResult, error) {
	r, err := s.State.List(ctx, prefix, opts)
	if !opts.Past || s.past == nil || !errors.Is(err, store.ErrCompacted) {
		return r, err
	}
	return s.State.ListUndone(ctx, prefix, opts, func(now int64) (map[string]*store.Entry, error) {
		entries := map[string]*store.Entry{}
		err := s.undone(ctx, opts.Revision, now, func(u undo) (bool, error) {
			if _, ok := entries[u.key]; ok || !strings.HasPrefix(u.key, prefix) {
				return true, nil
			}
			e, err := s.replaced(&u)
			entries[u.key] = e
			return true, err
		})
		return entries, err
	})
}

// Changes implements store.Past.
func (s *Store) Changes(ctx context.Context, prefix string, from, to int64, f func(*store.Change) bool) error {
	if s.past == nil {
		return s.State.Changes(ctx, prefix, from, to, f)
	}
	now := s.Revision()
	if from > now {
		return fmt.Errorf("%w: asked for %d, current is %d", store.ErrFuture, from, now)
	}
	return s.undone(ctx, from, min(to, now), func(u undo) (bool, error) {
		if !strings.HasPrefix(u.key, prefix) {
			return true, nil
		}
		return f(&store.Change{Revision: u.revision, Time: time.Unix(0, u.at), Key: u.key, Deleted: u.deleted, Note: u.note,
			Prev: func() (*store.Entry, error) { return s.replaced(&u) }}), nil
	})
}

// Compact implements store.Store.
func (s *Store) Compact(ctx context.Context, revision int64) (err error) {
	if err := s.State.Compact(ctx, revision); err != nil || s.past == nil {
		return err
	}
	defer s.disk.recovered(&err)
	return s.disk.forget(revision + 1)
}
