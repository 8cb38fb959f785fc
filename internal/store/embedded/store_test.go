package embedded

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	v1 "k8s.io/api/core/v1"

	"keelson.dev/keelson/internal/store"
	"keelson.dev/keelson/internal/store/storetest"
)

func open(tb testing.TB, dir string, fs vfs.FS) *Store {
	tb.Helper()
	o := Options{Dir: dir, Codec: storetest.Codec(), Indexers: storetest.Indexers(), Past: PastOptions{Age: time.Hour}}
	if fs != nil {
		o.disk = &diskOptions{fs}
	}
	s, err := Open(o)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func TestMemory(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return open(t, "", nil) })
}

func TestDisk(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return open(t, t.TempDir(), nil) })
}

func TestReopen(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, nil)
	ctx := t.Context()
	a, err := s.Create(ctx, storetest.Key("a"), storetest.Pod("a", "n1"), 0)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := s.Create(ctx, storetest.Key("b"), storetest.Pod("b", ""), time.Hour)
	if _, err := s.Delete(ctx, storetest.Key("b"), b.ModRevision); err != nil {
		t.Fatal(err)
	}
	s.Create(ctx, storetest.Key("c"), storetest.Pod("c", ""), time.Millisecond)
	const boat = "/registry/sea.example.com/boats/ns/d"
	if _, err := s.Create(ctx, boat, storetest.Custom("d"), 0); err != nil {
		t.Fatal(err)
	}
	rev := s.Revision()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, nil)
	defer s.Close()
	if s.Revision() < rev {
		t.Errorf("revision %d after %d", s.Revision(), rev)
	}
	got, _ := s.Get(ctx, storetest.Key("a"))
	if got == nil || got.ModRevision != a.ModRevision || got.CreateRevision != a.CreateRevision ||
		got.Object().(*v1.Pod).ResourceVersion != strconv.FormatInt(a.ModRevision, 10) || got.Object().(*v1.Pod).Spec.NodeName != "n1" {
		t.Errorf("reopened: %+v", got)
	}
	if got, _ := s.Get(ctx, boat); got == nil {
		t.Error("the custom resource is gone")
	} else {
		storetest.CheckCustom(t, got, "d")
	}
	if r, _ := s.List(ctx, "/registry/pods/", store.ListOptions{Index: "spec.nodeName", Value: "n1"}); len(r.Entries) != 1 {
		t.Error("the index was not rebuilt")
	}
	if _, err := s.Watch("/registry/", store.WatchOptions{Revision: a.ModRevision}); !errors.Is(err, store.ErrCompacted) {
		t.Errorf("a watch from before the restart: %v", err)
	}
	w, _ := s.Watch("/registry/", store.WatchOptions{})
	defer w.Stop()
	for s.Count(storetest.Key("c")) > 0 {
		if _, err := w.Next(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

func TestInUse(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, nil)
	defer s.Close()
	_, err := Open(Options{Dir: dir, Codec: storetest.Codec()})
	if err == nil || !strings.Contains(err.Error(), "another process has it open") {
		t.Errorf("a second open: %v", err)
	}
}

func TestDamaged(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, nil)
	for i := range 2000 {
		name := strconv.Itoa(i)
		if _, err := s.Create(t.Context(), storetest.Key(name), storetest.Pod(name, ""), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.disk.db.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	tables, _ := filepath.Glob(filepath.Join(dir, "*.sst"))
	if len(tables) == 0 {
		t.Fatal("no table to damage")
	}
	for _, f := range tables {
		data, _ := os.ReadFile(f)
		for i := len(data) / 4; i < len(data)/2; i++ {
			data[i] ^= 0xff
		}
		if err := os.WriteFile(f, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, err := Open(Options{Dir: dir, Codec: storetest.Codec()})
	if err == nil || !strings.Contains(err.Error(), "the data is damaged") {
		t.Errorf("opening a damaged store: %v", err)
	}
}

// TestFullDisk makes the log's writes fail at some point, and checks that what
// was acknowledged is there afterwards, and the writes after it are refused with
// advice.
func TestFullDisk(t *testing.T) {
	mem := vfs.NewMem()
	full := false
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if full && op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			return syscall.ENOSPC
		}
		return nil
	}))
	s := open(t, "data", fs)
	if _, err := s.Create(t.Context(), storetest.Key("a"), storetest.Pod("a", ""), 0); err != nil {
		t.Fatal(err)
	}
	full = true
	_, err := s.Create(t.Context(), storetest.Key("b"), storetest.Pod("b", ""), 0)
	if err == nil || !errors.Is(err, store.ErrClosed) || !strings.Contains(err.Error(), "the disk is full") {
		t.Fatalf("a write to a full disk: %v", err)
	}
	<-s.Failed()
	if _, err := s.Create(t.Context(), storetest.Key("c"), storetest.Pod("c", ""), 0); !errors.Is(err, store.ErrClosed) {
		t.Errorf("a write after that: %v", err)
	}
	full = false
	s.Close()
	s = open(t, "data", mem)
	defer s.Close()
	if e, _ := s.Get(t.Context(), storetest.Key("a")); e == nil {
		t.Error("an acknowledged write is lost")
	}
}
