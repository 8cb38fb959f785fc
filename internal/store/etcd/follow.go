package etcd

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/internal/store"
)

const (
	// pageSize is how many entries are read at once.
	pageSize = 1000
	// backlog is how many revisions of etcd's past a server that starts reads
	// as changes, so that the watches of the clients of another server, or of
	// this one before, go on.
	backlog = 5000
)

// load reads the state as it was a little before, and returns the revision that
// etcd is at.
func (s *Store) load(ctx context.Context) (int64, error) {
	resp, err := s.client.Get(ctx, compactKey)
	if err != nil {
		return 0, err
	}
	current := resp.Header.Revision
	from := max(1, current-backlog)
	if len(resp.Kvs) == 1 {
		if compacted, err := strconv.ParseInt(string(resp.Kvs[0].Value), 10, 64); err == nil {
			from = min(max(from, compacted), current)
		}
	}
	err = s.loadAt(ctx, from)
	if errors.Is(err, rpctypes.ErrCompacted) {
		// Compacted by hand, or by etcd itself.
		from = current
		err = s.loadAt(ctx, from)
	}
	return current, err
}

func (s *Store) loadAt(ctx context.Context, revision int64) error {
	begin := s.opts.Prefix + "/"
	end := clientv3.GetPrefixRangeEnd(begin)
	var entries []*store.Entry
	s.ForgetUnreadable("")
	for more := true; more; {
		resp, err := s.client.Get(ctx, begin, clientv3.WithRange(end), clientv3.WithRev(revision), clientv3.WithLimit(pageSize))
		if err != nil {
			return err
		}
		for _, kv := range resp.Kvs {
			key, _ := s.keyAt(kv.Key)
			if e := s.entry(key, kv); e != nil {
				entries = append(entries, e)
			}
		}
		if more = resp.More; more {
			begin = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
		}
	}
	s.Reset(entries, revision)
	return nil
}

// follow applies etcd's changes to the state until the store is closed.
func (s *Store) follow() {
	log := klog.FromContext(s.ctx)
	for {
		err := s.watch()
		if s.ctx.Err() != nil {
			return
		}
		if errors.Is(err, store.ErrCompacted) {
			// This server was cut off for longer than etcd keeps changes: it lists
			// again, and so must the clients of its watches.
			ctx, cancel := context.WithTimeout(s.ctx, time.Minute)
			_, err = s.load(ctx)
			cancel()
			if err == nil {
				continue
			}
		}
		log.Error(err, "Watching etcd ended; watching again", "revision", s.Revision())
		t := s.opts.Clock.NewTimer(time.Second)
		select {
		case <-t.C():
		case <-s.ctx.Done():
			t.Stop()
			return
		}
	}
}

// watch applies the changes after the state's revision until the watch ends.
func (s *Store) watch() error {
	// A member that has lost the leader ends the watch: another may have one.
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(s.ctx))
	defer cancel()
	// The client library makes the watch again, where it was, on a lost connection.
	for resp := range s.client.Watch(ctx, "\x00", clientv3.WithFromKey(), clientv3.WithRev(s.Revision()+1)) {
		if resp.CompactRevision != 0 {
			return &store.CompactedError{Asked: s.Revision(), Oldest: resp.CompactRevision}
		}
		if err := resp.Err(); err != nil {
			return err
		}
		s.apply(resp.Events)
	}
	return errors.New("the watch was closed")
}

// apply applies the changes of whole revisions.
func (s *Store) apply(events []*clientv3.Event) {
	var changes []*store.Event
	notes := s.shared(events)
	latest := map[string]*store.Entry{} // what the changes before made of a key; nil is deleted
	for _, ev := range events {
		key, ours := s.keyAt(ev.Kv.Key)
		if !ours {
			continue
		}
		prev, changed := latest[key]
		if !changed {
			prev = s.Current(key)
		}
		change := &store.Event{Type: store.Put, Prev: prev, Revision: ev.Kv.ModRevision}
		if ev.Type == clientv3.EventTypePut {
			change.Entry = s.entry(key, ev.Kv)
		} else if _, broken := s.UnreadableAt(key); broken {
			s.ForgetUnreadable(key)
		}
		latest[key] = change.Entry
		if change.Entry == nil {
			if prev == nil {
				continue
			}
			change.Type, change.Entry = store.Delete, prev.Deleted(ev.Kv.ModRevision)
			s.writes.deleted(key, prev.ModRevision, ev.Kv.ModRevision)
		}
		s.note(change, notes)
		changes = append(changes, change)
	}
	if len(changes) > 0 {
		s.Apply(changes)
	}
	if len(events) > 0 {
		s.Advance(events[len(events)-1].Kv.ModRevision)
	}
}

// entry decodes what etcd has at key. An object that cannot be decoded is left
// where it is and is not part of the state.
func (s *Store) entry(key string, kv *mvccpb.KeyValue) *store.Entry {
	if v := s.writes.take(key, kv.Value, kv.ModRevision); v.Object != nil {
		return store.NewEntry(key, kv.CreateRevision, kv.ModRevision, v)
	}
	e, err := s.decode(key, kv)
	if err != nil {
		klog.FromContext(s.ctx).Error(err, "An object in etcd cannot be read, and is left out", "key", string(kv.Key), "revision", kv.ModRevision)
		s.SetUnreadable(store.Unreadable{Key: key, Revision: kv.ModRevision, Err: err})
		return nil
	}
	if _, broken := s.UnreadableAt(key); broken {
		s.ForgetUnreadable(key)
	}
	return e
}

func (s *Store) decode(key string, kv *mvccpb.KeyValue) (e *store.Entry, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	return store.Load(s.opts.Codec, key, kv.CreateRevision, kv.ModRevision, kv.Value)
}
