package embedded

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/internal/store"
)

// Layout in Pebble: "r" holds the last revision; "k"+key holds a record: the
// create revision, mod revision and expiry (Unix nanoseconds, 0 for never) as
// varints, then the codec's bytes. "h"+revision is what the change of that revision
// replaced; see past. "format" names this layout.
var (
	keyFormat   = []byte("format")
	keyRevision = []byte("r")
	formatValue = []byte("keelson 1")
)

type diskOptions struct{ fs vfs.FS }

type disk struct {
	db   *pebble.DB
	dir  string
	sync bool // writes wait for the disk
	buf  []byte
}

type record struct {
	key                 string
	create, mod, expiry int64
	value               []byte
}

func parseRecord(key string, v []byte) (record, error) {
	r := record{key: key}
	for _, p := range []*int64{&r.create, &r.mod, &r.expiry} {
		n, size := binary.Varint(v)
		if size <= 0 {
			return r, fmt.Errorf("record of %s is cut", key)
		}
		*p, v = n, v[size:]
	}
	r.value = v
	return r, nil
}

// head returns the part of a record before the value.
func (r *record) head(b []byte) []byte {
	for _, n := range []int64{r.create, r.mod, r.expiry} {
		b = binary.AppendVarint(b, n)
	}
	return b
}

// failure keeps the first failure of the disk.
type failure struct {
	mu  sync.Mutex
	err error
	ch  chan struct{}
}

func (f *failure) set(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
		close(f.ch)
	}
}

func (f *failure) get() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// fatal is the panic of the logger where Pebble wants the process to end.
type fatal struct{ err error }

type logger struct{}

func (logger) Infof(format string, args ...any)  { klog.V(5).Infof("pebble: "+format, args...) }
func (logger) Errorf(format string, args ...any) { klog.V(2).Infof("pebble: "+format, args...) }
func (logger) Fatalf(format string, args ...any) {
	for _, a := range args {
		if err, ok := a.(error); ok {
			panic(fatal{fmt.Errorf(strings.ReplaceAll(format, "%v", "%w"), err)})
		}
	}
	panic(fatal{fmt.Errorf(format, args...)})
}

func openDisk(opts Options, failed func(error)) (d *disk, err error) {
	dir := opts.Dir
	po := &pebble.Options{
		FormatMajorVersion: pebble.FormatNewest,
		Logger:             logger{},
		// Reads are served from memory: Pebble's own caches stay small.
		MemTableSize:               4 << 20,
		MaxOpenFiles:               64,
		CompactionConcurrencyRange: func() (int, int) { return 1, 1 },
		EventListener: &pebble.EventListener{
			BackgroundError: func(err error) {
				if errors.Is(err, pebble.ErrClosed) {
					return
				}
				failed(explain(dir, err))
			},
			// The reader of the damaged block gets the error.
			DataCorruption: func(info pebble.DataCorruptionInfo) {
				klog.V(2).InfoS("pebble: damaged data", "dir", dir, "path", info.Path)
			},
		},
	}
	cache := pebble.NewCache(1 << 20)
	defer cache.Unref()
	po.Cache = cache
	if opts.disk != nil {
		po.FS = opts.disk.fs
	} else if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, explain(dir, err)
	}
	defer func() {
		if p := recover(); p != nil {
			f, ok := p.(fatal)
			if !ok {
				panic(p)
			}
			d, err = nil, explain(dir, f.err)
		}
	}()
	db, err := pebble.Open(dir, po)
	if err != nil {
		return nil, explain(dir, err)
	}
	d = &disk{db: db, dir: dir, sync: !opts.NoSync}
	if err := d.checkFormat(); err != nil {
		db.Close()
		return nil, err
	}
	return d, nil
}

// explain adds to an error of the disk what to do about it.
func explain(dir string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("store in %s: the disk is full: free some space and start again; every acknowledged write is kept: %w", dir, err)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("store in %s: the file system is read-only: mount it read-write or choose another --data-dir: %w", dir, err)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("store in %s: no permission: run as the folder's owner or choose another --data-dir: %w", dir, err)
	case errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EWOULDBLOCK) || strings.Contains(err.Error(), "lock held by current process"):
		return fmt.Errorf("store in %s: another process has it open: stop that one first, or choose another --data-dir: %w", dir, err)
	case errors.Is(err, pebble.ErrCorruption) || strings.Contains(err.Error(), "corrupt") || strings.Contains(err.Error(), "malformed") || strings.Contains(err.Error(), "checksum"):
		return damaged(dir, err)
	}
	return fmt.Errorf("store in %s: %w", dir, err)
}

func damaged(dir string, err error) error {
	return fmt.Errorf("store in %s: the data is damaged and has been left as it is: restore %s from a backup, or erase it with keelson reset: %w",
		dir, filepath.Base(dir), err)
}

func (d *disk) checkFormat() error {
	v, closer, err := d.db.Get(keyFormat)
	if errors.Is(err, pebble.ErrNotFound) {
		if err := d.db.Set(keyFormat, formatValue, pebble.Sync); err != nil {
			return explain(d.dir, err)
		}
		return nil
	}
	if err != nil {
		return explain(d.dir, err)
	}
	defer closer.Close()
	if string(v) != string(formatValue) {
		return fmt.Errorf("store in %s: written in format %q, this version reads %q: use the version that wrote it", d.dir, v, formatValue)
	}
	return nil
}

// load reads everything and returns the last revision.
func (d *disk) load(each func(record) error) (int64, error) {
	var rev int64
	v, closer, err := d.db.Get(keyRevision)
	switch {
	case errors.Is(err, pebble.ErrNotFound):
	case err != nil:
		return 0, explain(d.dir, err)
	default:
		rev, _ = binary.Varint(v)
		closer.Close()
	}
	it, err := d.db.NewIter(&pebble.IterOptions{LowerBound: []byte("k"), UpperBound: []byte("l")})
	if err != nil {
		return 0, explain(d.dir, err)
	}
	defer it.Close()
	for it.First(); it.Valid(); it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return 0, explain(d.dir, err)
		}
		r, err := parseRecord(string(it.Key()[1:]), v)
		if err == nil {
			err = each(r)
		}
		if err != nil {
			return 0, damaged(d.dir, err)
		}
	}
	if err := it.Error(); err != nil {
		return 0, explain(d.dir, err)
	}
	return rev, nil
}

// recovered makes Pebble's panics the error of the function that defers it.
func (d *disk) recovered(err *error) {
	switch p := recover().(type) {
	case nil:
	case fatal:
		*err = explain(d.dir, p.err)
	case error:
		*err = explain(d.dir, p) // Pebble panics with the log's write error
	default:
		panic(p)
	}
}

// commit makes ops durable, all or none, and what they replace a part of the history.
func (d *disk) commit(ops []*op, h *past) (err error) {
	defer d.recovered(&err)
	b := d.db.NewBatch()
	defer b.Close()
	var last *store.Entry
	for _, o := range ops {
		last = o.entry
		if err := h.add(b, o); err != nil {
			return err
		}
		key := append(append(d.buf[:0], 'k'), o.key...)
		d.buf = key
		if o.object.Object == nil {
			if err := b.Delete(key, nil); err != nil {
				return err
			}
			continue
		}
		r := record{create: o.entry.CreateRevision, mod: o.entry.ModRevision}
		if !o.expiry.IsZero() {
			r.expiry = o.expiry.UnixNano()
		}
		var room [3 * binary.MaxVarintLen64]byte
		h := r.head(room[:0])
		def := b.SetDeferred(len(key), len(h)+len(o.value))
		copy(def.Key, key)
		copy(def.Value, h)
		copy(def.Value[len(h):], o.value)
		if err := def.Finish(); err != nil {
			return err
		}
		o.value = nil
	}
	if err := b.Set(keyRevision, binary.AppendVarint(nil, last.ModRevision), nil); err != nil {
		return err
	}
	if err := b.Commit(&pebble.WriteOptions{Sync: d.sync}); err != nil {
		return explain(d.dir, err)
	}
	return nil
}

func (d *disk) close() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = explain(d.dir, fmt.Errorf("closing: %v", p))
		}
	}()
	return d.db.Close()
}
