package embedded

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"

	"keelson.dev/keelson/internal/store"
	"keelson.dev/keelson/internal/store/snapshot"
	"keelson.dev/keelson/internal/store/storetest"
)

// filled returns a store with some objects, one of which expires.
func filled(t *testing.T) *Store {
	t.Helper()
	s := open(t, t.TempDir(), nil)
	t.Cleanup(func() { s.Close() })
	for i := range 20 {
		name := strconv.Itoa(i)
		ttl := time.Duration(0)
		if i == 7 {
			ttl = time.Hour
		}
		if _, err := s.Create(t.Context(), storetest.Key(name), storetest.Pod(name, "n"), ttl); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Create(t.Context(), "/registry/sea.example.com/boats/ns/x", storetest.Custom("x"), 0); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestFork begins stores with the content of another, of now and of before. What is done
// in one is not seen in the others.
func TestFork(t *testing.T) {
	s := filled(t)
	ctx := t.Context()
	before := s.Revision()
	e, err := s.Get(ctx, storetest.Key("3"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Delete(ctx, e.Key, e.ModRevision); err != nil {
		t.Fatal(err)
	}
	for name, rev := range map[string]int64{"now": 0, "before": before} {
		c, err := s.Content(ctx, rev)
		if err != nil {
			t.Fatal(err)
		}
		f, err := Open(Options{Codec: storetest.Codec(), Indexers: storetest.Indexers(), From: c})
		if err != nil {
			t.Fatal(err)
		}
		want := 20
		if rev == before {
			want = 21
		}
		if n := f.Count("/"); n != want || f.Revision() != c.Revision {
			t.Errorf("%s: %d objects at revision %d, want %d at %d", name, n, f.Revision(), want, c.Revision)
		}
		if r, err := f.List(ctx, "/registry/pods/", store.ListOptions{Index: "spec.nodeName", Value: "n"}); err != nil || len(r.Entries) != want-1 {
			t.Errorf("%s: by index: %d (%v), want %d", name, len(r.Entries), err, want-1)
		}
		x, _ := f.Get(ctx, storetest.Key("7"))
		if c.Expiry(x).IsZero() {
			t.Errorf("%s: what expires does not any more", name)
		}
		if _, err := f.Update(ctx, x.Key, x.ModRevision, storetest.Pod("7", "other"), 0); err != nil {
			t.Error(err)
		}
		f.Close()
	}
	if x, _ := s.Get(ctx, storetest.Key("7")); x.Object().(*v1.Pod).Spec.NodeName != "n" {
		t.Error("a write to a fork is seen in the store")
	}
}

// TestRestore makes a store of a snapshot.
func TestRestore(t *testing.T) {
	s := filled(t)
	c, err := s.Content(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	file := func(sealed bool) []byte {
		var b bytes.Buffer
		if err := snapshot.Write(&b, snapshot.Header{Revision: c.Revision, Sealed: sealed}, c.Entries, c.Expiry, storetest.Codec()); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	parent := t.TempDir()
	dir := filepath.Join(parent, "store")
	good := file(true)
	for name, bad := range map[string][]byte{"cut off": good[:len(good)-5], "not sealed": file(false), "something else": []byte("x")} {
		if _, err := Restore(dir, bytes.NewReader(bad)); err == nil {
			t.Errorf("%s: it was restored", name)
		}
		if left, _ := os.ReadDir(parent); len(left) != 0 {
			t.Errorf("%s: left %v", name, left)
		}
	}
	if _, err := Restore(dir, bytes.NewReader(good)); err != nil {
		t.Fatal(err)
	}
	r := open(t, dir, nil)
	if r.Count("/") != s.Count("/") || r.Revision() <= s.Revision() {
		t.Errorf("%d objects at revision %d, want %d after %d", r.Count("/"), r.Revision(), s.Count("/"), s.Revision())
	}
	e, err := r.Get(t.Context(), storetest.Key("7"))
	if err != nil || e == nil {
		t.Fatal(e, err)
	}
	if is, err := r.Content(t.Context(), 0); err != nil || !is.Expiry(e).Equal(c.Expiry(e)) {
		t.Errorf("it expires at %v (%v), want %v", is.Expiry(e), err, c.Expiry(e))
	}
	if _, err := r.Update(t.Context(), e.Key, e.ModRevision, storetest.Pod("7", "other"), 0); err != nil {
		t.Error(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(dir, bytes.NewReader(good)); err == nil {
		t.Error("a store was restored over another")
	}
}
