package embedded

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"keelson.dev/keelson/internal/store"
	"keelson.dev/keelson/internal/store/snapshot"
)

// Content is all that a store holds at one revision. The entries are shared with the
// store: it costs no copy.
type Content struct {
	Revision int64
	Entries  []*store.Entry
	expiries map[string]expiry
}

// Expiry returns when an entry of the content is deleted; zero is never.
func (c *Content) Expiry(e *store.Entry) time.Time {
	if x, ok := c.expiries[e.Key]; ok && x.revision == e.ModRevision {
		return x.at
	}
	return time.Time{}
}

// Content returns what the store holds at revision, or held, as far as the history
// reaches back; 0 is now. Of the past, what had a time to live does not expire any more.
func (s *Store) Content(ctx context.Context, revision int64) (*Content, error) {
	expiries := s.ttl.all()
	r, err := s.List(ctx, "/", store.ListOptions{Revision: revision, Past: true})
	if err != nil {
		return nil, err
	}
	return &Content{Revision: r.Revision, Entries: r.Entries, expiries: expiries}, nil
}

// ReadContent reads a snapshot.
func ReadContent(from io.Reader, codec store.Codec) (*Content, snapshot.Header, error) {
	c := &Content{expiries: map[string]expiry{}}
	h, err := snapshot.Read(from, func(r snapshot.Record) error {
		e, err := store.Load(codec, r.Key, r.Create, r.Mod, append([]byte(nil), r.Value...))
		if err != nil {
			return fmt.Errorf("reading the object at %s: %w", r.Key, err)
		}
		c.Entries = append(c.Entries, e)
		if !r.Expiry.IsZero() {
			c.expiries[r.Key] = expiry{key: r.Key, revision: r.Mod, at: r.Expiry}
		}
		return nil
	})
	c.Revision = h.Revision
	return c, h, err
}

// revisionGap is how far the revision of a restored store is after that of its snapshot.
// Clients may have seen revisions after the snapshot: those must not come again with
// other content.
const revisionGap = 1_000_000_000

// Restore makes the store in dir, which must not exist, of a snapshot with sealed
// objects. Either the whole of it is there when Restore returns, or nothing.
func Restore(dir string, from io.Reader) (h snapshot.Header, err error) {
	if _, err := os.Stat(dir); err == nil {
		return h, fmt.Errorf("store in %s: it exists: move it away first, or choose another --data-dir", dir)
	} else if !errors.Is(err, os.ErrNotExist) {
		return h, explain(dir, err)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return h, explain(dir, err)
	}
	partial, err := os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+".restoring-*")
	if err != nil {
		return h, explain(dir, err)
	}
	defer os.RemoveAll(partial)
	if h, err = restoreInto(partial, from); err != nil {
		return h, err
	}
	if err := os.Rename(partial, dir); err != nil {
		return h, explain(dir, err)
	}
	parent, err := os.Open(filepath.Dir(dir))
	if err != nil {
		return h, explain(dir, err)
	}
	defer parent.Close()
	return h, parent.Sync()
}

func restoreInto(dir string, from io.Reader) (h snapshot.Header, err error) {
	var failed failure
	failed.ch = make(chan struct{})
	d, err := openDisk(Options{Dir: dir}, failed.set)
	if err != nil {
		return h, err
	}
	defer func() { err = errors.Join(err, failed.get(), d.close()) }()
	defer d.recovered(&err)
	b := d.db.NewBatch()
	defer func() { b.Close() }()
	h, err = snapshot.Read(from, func(r snapshot.Record) error {
		rec := record{create: r.Create, mod: r.Mod}
		if !r.Expiry.IsZero() {
			rec.expiry = r.Expiry.UnixNano()
		}
		if err := b.Set(append([]byte{'k'}, r.Key...), append(rec.head(nil), r.Value...), nil); err != nil {
			return err
		}
		if b.Len() < 4<<20 {
			return nil
		}
		err := b.Commit(pebble.NoSync)
		b.Close()
		b = d.db.NewBatch()
		return err
	})
	if err != nil {
		return h, err
	}
	if !h.Sealed {
		return h, errors.New("the snapshot's objects are not as they are stored: it was made for a what-if, and not to be restored")
	}
	if err := b.Set(keyRevision, binary.AppendVarint(nil, h.Revision+revisionGap), nil); err != nil {
		return h, err
	}
	return h, b.Commit(pebble.Sync)
}
