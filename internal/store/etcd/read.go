package etcd

import (
	"context"
	"fmt"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"

	"keelson.dev/keelson/internal/store"
)

// fence asks for etcd's revision, one question at a time: a reader waits for the
// first question that begins after it came.
type fence struct {
	ask func() (int64, error)

	mu     sync.Mutex
	asking bool
	next   *question
}

type question struct {
	answered chan struct{}
	revision int64
	err      error
}

// revision returns a revision that has every write which was acknowledged before
// the call.
func (f *fence) revision(ctx context.Context) (int64, error) {
	f.mu.Lock()
	if f.next == nil {
		f.next = &question{answered: make(chan struct{})}
	}
	q := f.next
	if !f.asking {
		f.asking = true
		go f.run()
	}
	f.mu.Unlock()
	select {
	case <-q.answered:
		return q.revision, q.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (f *fence) run() {
	for {
		f.mu.Lock()
		q := f.next
		f.next = nil
		f.asking = q != nil
		f.mu.Unlock()
		if q == nil {
			return
		}
		q.revision, q.err = f.ask()
		close(q.answered)
	}
}

// revision asks etcd: a read of one key, with its leader's consent.
func (s *Store) revision() (int64, error) {
	ctx, cancel := context.WithTimeout(s.ctx, requestTimeout)
	defer cancel()
	before := s.Revision()
	resp, err := s.client.Get(ctx, compactKey, clientv3.WithCountOnly())
	if err != nil {
		return 0, err
	}
	if resp.Header.Revision < before {
		return 0, fmt.Errorf("is at revision %d, and has been at %d before: where it was restored from a backup, start the servers again", resp.Header.Revision, before)
	}
	return resp.Header.Revision, nil
}

// catchUp waits until the state has every write that was acknowledged before.
func (s *Store) catchUp(ctx context.Context) error {
	if s.ctx.Err() != nil {
		return store.ErrClosed
	}
	rev, err := s.fence.revision(ctx)
	if err == nil {
		err = s.Reach(ctx, rev)
	}
	return s.explain(err)
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key string) (*store.Entry, error) {
	if err := s.catchUp(ctx); err != nil {
		return nil, err
	}
	return s.State.Get(ctx, key)
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, prefix string, opts store.ListOptions) (*store.ListResult, error) {
	if opts.Revision == 0 || opts.Revision > s.Revision() {
		if err := s.catchUp(ctx); err != nil {
			return nil, err
		}
	}
	return s.State.List(ctx, prefix, opts)
}
