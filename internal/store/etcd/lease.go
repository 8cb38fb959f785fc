package etcd

import (
	"context"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// A lease costs etcd more than a key, so that keys which end at about the same
// time share one, as upstream's do.
const (
	leaseShare = time.Minute // how much longer than asked for a key may live, at most,
	leasePart  = 20          // and at most this part of its time
	leaseKeys  = 1000        // that share one
)

// leases has the last lease of each time to live.
type leases struct {
	store *Store
	mu    sync.Mutex
	last  map[time.Duration]*lease
}

type lease struct {
	id    clientv3.LeaseID
	until time.Time // a key that is written until then lives for long enough
	keys  int
}

// get returns a lease for a key that is to live for ttl.
func (l *leases) get(ctx context.Context, ttl time.Duration) (clientv3.LeaseID, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.store.opts.Clock.Now()
	for t, old := range l.last {
		if now.After(old.until) || old.keys >= leaseKeys {
			delete(l.last, t)
		}
	}
	if last := l.last[ttl]; last != nil {
		last.keys++
		return last.id, nil
	}
	share := min(leaseShare, ttl/leasePart)
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	resp, err := l.store.client.Grant(ctx, int64((ttl+share+time.Second-1)/time.Second))
	if err != nil {
		return 0, l.store.explain(err)
	}
	if l.last == nil {
		l.last = map[time.Duration]*lease{}
	}
	l.last[ttl] = &lease{id: resp.ID, until: now.Add(share), keys: 1}
	return resp.ID, nil
}

// forget drops a lease that etcd does not have any more.
func (l *leases) forget(ttl time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.last, ttl)
}
