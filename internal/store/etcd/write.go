package etcd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/apimachinery/pkg/runtime"

	"keelson.dev/keelson/internal/store"
)

// write is one that is on its way to etcd and back: when the watch brings its
// bytes, its object is taken and nothing decoded.
type write struct {
	key      string
	value    []byte // nil deletes
	object   store.Value
	replaces int64                // the revision of what it deletes
	tell     func(revision int64) // see store.WithCommitted; may be nil
	shown    bool
}

// writes holds the writes that are on their way.
type writes struct {
	mu    sync.Mutex
	byKey map[string][]*write
}

func (w *writes) add(one *write) *write {
	key := one.key
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.byKey == nil {
		w.byKey = map[string][]*write{}
	}
	w.byKey[key] = append(w.byKey[key], one)
	return one
}

func (w *writes) remove(one *write) {
	w.mu.Lock()
	defer w.mu.Unlock()
	rest := w.byKey[one.key]
	for i := range rest {
		if rest[i] == one {
			rest = append(rest[:i:i], rest[i+1:]...)
			break
		}
	}
	if len(rest) == 0 {
		delete(w.byKey, one.key)
	} else {
		w.byKey[one.key] = rest
	}
}

// take returns the object that has value as its bytes, with its revision set; an
// empty one if none on its way has.
func (w *writes) take(key string, value []byte, revision int64) store.Value {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, one := range w.byKey[key] {
		if !one.shown && one.value != nil && bytes.Equal(one.value, value) {
			return one.at(revision)
		}
	}
	return store.Value{}
}

// deleted tells the deletion of what key had at the revision replaced, if one is on its way,
// that it is committed.
func (w *writes) deleted(key string, replaced, revision int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, one := range w.byKey[key] {
		if !one.shown && one.value == nil && one.replaces == replaced {
			one.at(revision)
			return
		}
	}
}

// object returns the object of a write that was committed at revision.
func (w *writes) object(one *write, revision int64) store.Value {
	w.mu.Lock()
	defer w.mu.Unlock()
	if one.shown {
		return one.object
	}
	return one.at(revision)
}

func (one *write) at(revision int64) store.Value {
	one.shown = true
	if one.tell != nil {
		one.tell(revision)
	}
	if one.object.Object != nil {
		store.SetRevision(one.object.Object, revision)
	}
	return one.object
}

// Create implements store.Store.
func (s *Store) Create(ctx context.Context, key string, obj runtime.Object, ttl time.Duration) (*store.Entry, error) {
	return s.put(ctx, key, 0, obj, ttl)
}

// Update implements store.Store.
func (s *Store) Update(ctx context.Context, key string, revision int64, obj runtime.Object, ttl time.Duration) (*store.Entry, error) {
	if revision <= 0 {
		// Nothing has such a revision; to etcd, 0 is that of an absent key.
		return nil, s.refused(ctx, key, revision)
	}
	return s.put(ctx, key, revision, obj, ttl)
}

// put writes obj at key, which must be at revision; 0 is absent.
func (s *Store) put(ctx context.Context, key string, revision int64, obj runtime.Object, ttl time.Duration) (*store.Entry, error) {
	store.ReadBack(obj)
	store.SetRevision(obj, 0)
	v := store.Value{Object: obj}
	var err error
	if v.Plain, err = s.opts.Codec.Encode(obj); err != nil {
		return nil, fmt.Errorf("encoding the object for %s: %w", key, err)
	}
	var value []byte
	if value, v.Form, err = s.opts.Codec.Seal(key, v.Plain); err != nil {
		return nil, fmt.Errorf("encoding the object for %s: %w", key, err)
	}
	one := s.writes.add(&write{key: key, value: value, object: v.Placed(), tell: store.CommittedFrom(ctx)})
	defer s.writes.remove(one)
	var prev *store.Entry
	if revision != 0 {
		if prev, err = s.State.Get(ctx, key); err != nil {
			return nil, err
		}
	}
	attempt := func() (int64, error) {
		var opts []clientv3.OpOption
		if ttl > 0 {
			id, err := s.leases.get(ctx, ttl)
			if err != nil {
				return 0, err
			}
			opts = append(opts, clientv3.WithLease(id))
		}
		return s.commit(ctx, key, revision, clientv3.OpPut(s.place(key), string(value), opts...))
	}
	rev, err := attempt()
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		// It has ended, or was revoked by hand.
		s.leases.forget(ttl)
		rev, err = attempt()
	}
	if err != nil {
		return nil, err
	}
	if ev := s.shown(key, rev); ev != nil {
		return ev.Entry, nil
	}
	created := rev
	if prev != nil {
		created = prev.CreateRevision
	}
	return store.NewEntry(key, created, rev, s.writes.object(one, rev)), nil
}

// Delete implements store.Store.
func (s *Store) Delete(ctx context.Context, key string, revision int64) (*store.Entry, error) {
	prev, err := s.State.Get(ctx, key)
	if err == nil && (prev == nil || prev.ModRevision != revision) {
		prev, err = s.Get(ctx, key)
	}
	switch {
	case err != nil:
		return nil, err
	case prev == nil || prev.ModRevision != revision:
		return nil, mismatch(key, prev, revision)
	}
	one := s.writes.add(&write{key: key, replaces: revision, tell: store.CommittedFrom(ctx)})
	defer s.writes.remove(one)
	rev, err := s.commit(ctx, key, revision, clientv3.OpDelete(s.place(key)))
	if err != nil {
		return nil, err
	}
	if ev := s.shown(key, rev); ev != nil {
		return ev.Entry, nil
	}
	s.writes.object(one, rev)
	return prev.Deleted(rev), nil
}

// DeleteUnreadable implements store.Store.
func (s *Store) DeleteUnreadable(ctx context.Context, key string) error {
	if err := s.catchUp(ctx); err != nil {
		return err
	}
	u, ok := s.UnreadableAt(key)
	if !ok {
		return fmt.Errorf("%w: %s has nothing that cannot be read", store.ErrNotFound, key)
	}
	rev, err := s.commit(ctx, key, u.Revision, clientv3.OpDelete(s.place(key)))
	if err != nil {
		return err
	}
	return s.Reach(ctx, rev)
}

// commit does op if key is at revision, with the note that ctx carries, and returns the
// revision of the change. A client that goes away does not take its write back, so ctx is
// otherwise only looked at before.
func (s *Store) commit(ctx context.Context, key string, revision int64, op clientv3.Op) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if s.ctx.Err() != nil {
		return 0, store.ErrClosed
	}
	wait, cancel := context.WithTimeout(s.ctx, requestTimeout)
	defer cancel()
	do := []clientv3.Op{op}
	if note := store.NoteFrom(ctx); note != "" {
		do = append(do, clientv3.OpPut(s.notes(), s.instance+note))
	}
	resp, err := s.client.Txn(wait).
		If(clientv3.Compare(clientv3.ModRevision(s.place(key)), "=", revision)).
		Then(do...).
		Else(clientv3.OpGet(s.place(key), clientv3.WithKeysOnly())).
		Commit()
	if err != nil {
		return 0, s.explain(err)
	}
	if resp.Succeeded {
		return resp.Header.Revision, nil
	}
	found := resp.Responses[0].GetResponseRange().Kvs
	if len(found) == 0 {
		return 0, mismatch(key, nil, revision)
	}
	return 0, mismatch(key, &store.Entry{ModRevision: found[0].ModRevision}, revision)
}

// refused is the error of a write that no state of key allows.
func (s *Store) refused(ctx context.Context, key string, revision int64) error {
	e, err := s.Get(ctx, key)
	if err != nil {
		return err
	}
	return mismatch(key, e, revision)
}

func mismatch(key string, found *store.Entry, revision int64) error {
	switch {
	case found == nil:
		return fmt.Errorf("%w: %s", store.ErrNotFound, key)
	case revision == 0:
		return fmt.Errorf("%w: %s", store.ErrExists, key)
	}
	return fmt.Errorf("%w: %s is at revision %d, not %d", store.ErrConflict, key, found.ModRevision, revision)
}

// shown waits until the watch has brought the change of key at revision. It is
// nil where the watch does not get there in time: the change is committed all
// the same.
func (s *Store) shown(key string, revision int64) *store.Event {
	ctx, cancel := context.WithTimeout(s.ctx, requestTimeout)
	defer cancel()
	if s.Reach(ctx, revision) != nil {
		return nil
	}
	return s.Change(key, revision)
}
