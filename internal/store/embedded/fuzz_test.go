package embedded

import (
	"bytes"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	v1 "k8s.io/api/core/v1"

	"keelson.dev/keelson/internal/store"
	"keelson.dev/keelson/internal/store/storetest"
)

// FuzzRecord reads arbitrary bytes as records: a record that is read is the same
// when it is written again, and reading its value as an object does not panic.
func FuzzRecord(f *testing.F) {
	value, err := storetest.Codec().Encode(storetest.Pod("a", "n"))
	if err != nil {
		f.Fatal(err)
	}
	r := record{create: 5, mod: 1 << 40, expiry: -1}
	f.Add(append(r.head(nil), value...))
	f.Add([]byte{0, 0, 0, '{', '}'})
	custom, err := storetest.Codec().Encode(storetest.Custom("a"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append(r.head(nil), custom...))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRecord("/registry/pods/ns/a", b)
		if err != nil {
			return
		}
		again, err := parseRecord(r.key, append(r.head(nil), r.value...))
		if err != nil || again.create != r.create || again.mod != r.mod || again.expiry != r.expiry || !bytes.Equal(again.value, r.value) {
			t.Errorf("%+v is read as %+v, %v", r, again, err)
		}
		e, err := store.Load(storetest.Codec(), r.key, r.create, r.mod, r.value)
		if err != nil {
			return
		}
		if _, err := storetest.Codec().Encode(e.Object()); err != nil {
			t.Errorf("%T was read and cannot be written: %v", e.Object(), err)
		}
	})
}

const dataDir = "data"

// written returns the files of a store with some pods and their history, a part of which
// is in a table and the rest in the log.
func written(f *testing.F) map[string][]byte {
	f.Helper()
	fs := vfs.NewMem()
	s := open(f, dataDir, fs)
	for i := range 40 {
		name := strconv.Itoa(i)
		e, err := s.Create(f.Context(), storetest.Key(name), storetest.Pod(name, "n"), 0)
		if err == nil && i%3 == 0 { // the history has the first
			_, err = s.Update(f.Context(), e.Key, e.ModRevision, storetest.Pod(name, "n"), 0)
		}
		if err != nil {
			f.Fatal(err)
		}
		if i == 20 {
			if err := s.disk.db.Flush(); err != nil {
				f.Fatal(err)
			}
		}
	}
	if err := s.Close(); err != nil {
		f.Fatal(err)
	}
	names, err := fs.List(dataDir)
	if err != nil {
		f.Fatal(err)
	}
	files := map[string][]byte{}
	for _, name := range names {
		file, err := fs.Open(filepath.Join(dataDir, name))
		if err != nil {
			f.Fatal(err)
		}
		if files[name], err = io.ReadAll(file); err != nil {
			f.Fatal(err)
		}
		file.Close()
	}
	return files
}

// FuzzDamaged puts bytes into the files of a store: it is opened or refused, and
// shows nothing that was not written, now or of the past.
func FuzzDamaged(f *testing.F) {
	files := written(f)
	for _, name := range []string{".sst", ".log", "MANIFEST", "OPTIONS", "marker", "LOCK"} {
		f.Add(name, uint(10), []byte{0xff, 0}, false)
		f.Add(name, uint(1), []byte{}, true)
	}
	f.Fuzz(func(t *testing.T, kind string, at uint, with []byte, cut bool) {
		fs := vfs.NewMem()
		if err := fs.MkdirAll(dataDir, 0o700); err != nil {
			t.Fatal(err)
		}
		for name, data := range files {
			if strings.Contains(name, kind) && len(data) > 0 {
				data = bytes.Clone(data)
				i := int(at % uint(len(data)))
				if n := copy(data[i:], with); cut {
					data = data[:i+n]
				}
			}
			file, err := fs.Create(filepath.Join(dataDir, name), vfs.WriteCategoryUnspecified)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := file.Write(data); err != nil {
				t.Fatal(err)
			}
			file.Close()
		}
		s, err := Open(Options{Dir: dataDir, Codec: storetest.Codec(), disk: &diskOptions{fs}, Past: PastOptions{Age: time.Hour}})
		if err != nil {
			if !strings.HasPrefix(err.Error(), "store in "+dataDir) {
				t.Errorf("no one is told what it is about: %v", err)
			}
			return
		}
		defer s.Close()
		check := func(key string, e *store.Entry) {
			if p, ok := e.Object().(*v1.Pod); !ok || e.Key != key || storetest.Key(p.Name) != key || p.Spec.NodeName != "n" {
				t.Errorf("%s is %+v", key, e.Object())
			}
		}
		for i := range 40 {
			key := storetest.Key(strconv.Itoa(i))
			e, err := s.Get(t.Context(), key)
			if err != nil {
				t.Fatal(err)
			}
			if e != nil { // the end of the log may not have been synced
				check(key, e)
			}
		}
		oldest, _, err := s.Oldest()
		if err != nil {
			return // of a damaged history
		}
		_ = s.Changes(t.Context(), "/", oldest, s.Revision(), func(c *store.Change) bool {
			e, err := c.Prev()
			if err == nil && e != nil {
				check(c.Key, e)
			}
			return err == nil
		})
		if r, err := s.List(t.Context(), "/", store.ListOptions{Revision: max(oldest, 1), Past: true}); err == nil {
			for _, e := range r.Entries {
				check(e.Key, e)
			}
		}
		if n := s.Count("/"); n > 40 {
			t.Errorf("%d objects", n)
		}
	})
}

// FuzzUndo reads arbitrary bytes as records of the history: one that is read is the
// same when it is written again.
func FuzzUndo(f *testing.F) {
	f.Add(int64(7), (&undo{at: 1 << 60, create: 3, mod: 5, deleted: true, key: "/registry/pods/ns/a", note: "n"}).head(nil))
	f.Add(int64(1), []byte{0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, revision int64, b []byte) {
		u, err := parseUndo(undoKey(nil, revision), b)
		if err != nil {
			return
		}
		again, err := parseUndo(undoKey(nil, revision), append(u.head(nil), u.value...))
		if err != nil || again.revision != revision || again.at != u.at || again.create != u.create || again.mod != u.mod ||
			again.deleted != u.deleted || again.key != u.key || again.note != u.note || !bytes.Equal(again.value, u.value) {
			t.Errorf("%+v is read as %+v, %v", u, again, err)
		}
	})
}
