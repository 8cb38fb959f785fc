package etcd

import (
	"context"
	"errors"
	"strconv"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/internal/store"
)

// compactKey is the key of etcd by which upstream's servers, and these, agree on
// the one that compacts. Its version counts the rounds: the server that raises it
// from the version seen last compacts, to the revision seen a round before, which
// its value holds.
const compactKey = "compact_rev_key"

// compact takes part in the rounds until the store is closed.
func (s *Store) compact() {
	var round, revision int64
	for {
		t := s.opts.Clock.NewTimer(s.opts.CompactionInterval)
		select {
		case <-t.C():
		case <-s.ctx.Done():
			t.Stop()
			return
		}
		var err error
		if round, revision, err = s.compactOnce(round, revision); err != nil && s.ctx.Err() == nil {
			klog.FromContext(s.ctx).Error(err, "Compacting etcd")
		}
	}
}

// compactOnce runs one round, and returns the round that is current then and
// etcd's revision.
func (s *Store) compactOnce(round, revision int64) (int64, int64, error) {
	ctx, cancel := context.WithTimeout(s.ctx, requestTimeout)
	defer cancel()
	resp, err := s.client.Txn(ctx).
		If(clientv3.Compare(clientv3.Version(compactKey), "=", round)).
		Then(clientv3.OpPut(compactKey, strconv.FormatInt(revision, 10))).
		Else(clientv3.OpGet(compactKey)).
		Commit()
	if err != nil {
		return round, revision, err
	}
	if !resp.Succeeded {
		// Another server was first.
		if kvs := resp.Responses[0].GetResponseRange().Kvs; len(kvs) == 1 {
			return kvs[0].Version, resp.Header.Revision, nil
		}
		return 0, resp.Header.Revision, nil
	}
	if revision != 0 {
		_, err = s.client.Compact(ctx, revision)
		if errors.Is(err, rpctypes.ErrCompacted) {
			err = nil
		}
	}
	return round + 1, resp.Header.Revision, err
}

// Compact implements store.Store.
func (s *Store) Compact(ctx context.Context, revision int64) error {
	if s.ctx.Err() != nil {
		return store.ErrClosed
	}
	_, err := s.client.Compact(ctx, revision)
	switch {
	case errors.Is(err, rpctypes.ErrFutureRev):
		return store.ErrFuture
	case err != nil && !errors.Is(err, rpctypes.ErrCompacted):
		return s.explain(err)
	}
	if err := s.Reach(ctx, revision); err != nil {
		return s.explain(err)
	}
	return s.State.Compact(ctx, revision)
}
