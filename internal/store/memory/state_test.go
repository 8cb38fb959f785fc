package memory

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"keelson.dev/keelson/internal/store"
)

func entry(name string, revision int64) *store.Entry {
	return store.NewEntry("/registry/pods/"+name, revision, revision, store.Value{Object: &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}}})
}

// TestSharedRevision checks that a revision with many changes is not split
// between what a watcher has read and what it reads again from the history.
func TestSharedRevision(t *testing.T) {
	s := New(Options{})
	live, err := s.Watch("/registry/", store.WatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer live.Stop()
	const size = maxQueued * 2 / 3
	want := 0
	for rev := int64(2); rev < 20; rev += 3 { // with gaps
		var changes []*store.Event
		for i := range size {
			changes = append(changes, &store.Event{Type: store.Put, Entry: entry(fmt.Sprint(rev, ".", i), rev), Revision: rev})
			want++
		}
		s.Apply(changes)
		s.Advance(rev + 1)
	}
	past, err := s.Watch("/registry/", store.WatchOptions{Revision: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer past.Stop()
	for name, w := range map[string]store.Watcher{"live": live, "past": past} {
		seen := map[string]bool{}
		for len(seen) < want {
			evs, err := w.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, ev := range evs {
				if seen[ev.Entry.Key] {
					t.Fatalf("%s: %s came twice", name, ev.Entry.Key)
				}
				seen[ev.Entry.Key] = true
			}
		}
		if w.Revision() != s.Revision() {
			t.Errorf("%s: at revision %d, want %d", name, w.Revision(), s.Revision())
		}
	}
	r, err := s.List(t.Context(), "/registry/", store.ListOptions{Revision: 6})
	if err != nil || len(r.Entries) != 2*size {
		t.Errorf("at revision 6: %d entries (%v), want %d", len(r.Entries), err, 2*size)
	}
}

// TestReset checks that a watch from before has to list again, one from after
// does not, and a wait for a revision ends.
func TestReset(t *testing.T) {
	s := New(Options{})
	s.Apply([]*store.Event{{Type: store.Put, Entry: entry("a", 2), Revision: 2}})
	before, err := s.Watch("/registry/", store.WatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer before.Stop()
	reached := make(chan error)
	go func() { reached <- s.Reach(t.Context(), 40) }()
	s.Reset([]*store.Entry{entry("b", 7)}, 50)
	if err := <-reached; err != nil {
		t.Error(err)
	}
	if _, err := before.Next(t.Context()); !errors.Is(err, store.ErrCompacted) {
		t.Errorf("the watch from before: %v", err)
	}
	after, err := s.Watch("/registry/", store.WatchOptions{Revision: 50})
	if err != nil {
		t.Fatal(err)
	}
	defer after.Stop()
	s.Apply([]*store.Event{{Type: store.Put, Entry: entry("c", 51), Revision: 51}})
	if evs, err := after.Next(t.Context()); err != nil || len(evs) != 1 {
		t.Errorf("the watch from after: %v, %v", evs, err)
	}
	if n := s.Count("/registry/"); n != 2 {
		t.Errorf("%d entries, want 2", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Reach(ctx, 100); !errors.Is(err, context.Canceled) || len(s.waiting) != 0 {
		t.Errorf("%v, and %d still wait", err, len(s.waiting))
	}
	go func() { reached <- s.Reach(t.Context(), 100) }()
	s.Close()
	if err := <-reached; !errors.Is(err, store.ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}

// TestRewound checks the earlier states of a part of the tree.
func TestRewound(t *testing.T) {
	s := New(Options{})
	rev := int64(1)
	for i := range 10 {
		rev++
		s.Apply([]*store.Event{{Type: store.Put, Entry: entry(strconv.Itoa(i%5)+"/x", rev), Prev: s.Current("/registry/pods/" + strconv.Itoa(i%5) + "/x"), Revision: rev}})
	}
	r, err := s.List(t.Context(), "/registry/pods/3/", store.ListOptions{Revision: 6})
	if err != nil || len(r.Entries) != 1 || r.Entries[0].ModRevision != 5 {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestLongHistory checks that a watcher and a list that have far to go back let
// others have the state in between, and miss nothing.
func TestLongHistory(t *testing.T) {
	s := New(Options{})
	const changes = 5*maxScanned + 7
	var prev *store.Entry
	for rev := int64(2); rev < changes+2; rev++ {
		e := entry("often", rev)
		s.Apply([]*store.Event{{Type: store.Put, Entry: e, Prev: prev, Revision: rev}})
		prev = e
	}
	rare := entry("rare", changes+2)
	s.Apply([]*store.Event{{Type: store.Put, Entry: rare, Revision: changes + 2}})
	sw, err := s.Watch("/registry/pods/rare", store.WatchOptions{Revision: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer sw.Stop()
	w := sw.(*watcher)
	turns := 0
	for more := true; more && len(w.out) == 0; turns++ {
		before := w.seen
		s.mu.RLock()
		more, err = w.collect()
		s.mu.RUnlock()
		if err != nil {
			t.Fatal(err)
		}
		if w.seen-before > maxScanned {
			t.Fatalf("it looked at %d changes at once", w.seen-before)
		}
	}
	if len(w.out) != 1 || w.out[0].Entry != rare || turns < 5 {
		t.Errorf("%d events after %d turns", len(w.out), turns)
	}
	again, err := s.Watch("/registry/pods/rare", store.WatchOptions{Revision: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Stop()
	if evs, err := again.Next(t.Context()); err != nil || len(evs) != 1 {
		t.Errorf("%v, %v", evs, err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	third, err := s.Watch("/registry/pods/nothing", store.WatchOptions{Revision: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer third.Stop()
	if _, err := third.Next(cancelled); !errors.Is(err, context.Canceled) {
		t.Errorf("of nothing: %v", err)
	}
	if r := third.Revision(); r > changes {
		t.Errorf("it has looked at everything up to %d, though nobody waits for it", r)
	}
	r, err := s.List(t.Context(), "/registry/pods/", store.ListOptions{Revision: 2})
	if err != nil || len(r.Entries) != 1 || r.Entries[0].ModRevision != 2 {
		t.Errorf("at revision 2: %+v, %v", r, err)
	}
	if _, err := s.List(cancelled, "/registry/pods/", store.ListOptions{Revision: 2}); !errors.Is(err, context.Canceled) {
		t.Errorf("at revision 2, for nobody: %v", err)
	}
}

// TestForgottenForms checks that entries replaced a while ago hold no wire forms,
// live ones do.
func TestForgottenForms(t *testing.T) {
	s := New(Options{})
	made := 0
	encode := func(e *store.Entry) {
		t.Helper()
		if _, err := e.Encoded(store.JSON, func(runtime.Object) ([]byte, error) { made++; return []byte("{}"), nil }); err != nil {
			t.Fatal(err)
		}
	}
	first, live := entry("a", 2), entry("b", 3)
	second := entry("a", 4)
	gone := entry("a", 5)
	encode(first)
	encode(live)
	s.Apply([]*store.Event{{Type: store.Put, Entry: first, Revision: 2}, {Type: store.Put, Entry: live, Revision: 3},
		{Type: store.Put, Entry: second, Prev: first, Revision: 4}, {Type: store.Delete, Entry: gone, Prev: second, Revision: 5}})
	encode(second)
	encode(gone)
	for rev := int64(6); rev < 6+encodedFor; rev++ {
		if rev <= 4+encodedFor {
			if encode(first); made != 4 {
				t.Fatalf("at %d the form of what was replaced at 4 has gone", rev-1)
			}
		}
		s.Apply([]*store.Event{{Type: store.Put, Entry: entry("c", rev), Revision: rev}})
	}
	encode(live)
	if made != 4 {
		t.Error("the form of what is live has gone")
	}
	for i, e := range []*store.Entry{first, second, gone} {
		if encode(e); made != 5+i {
			t.Errorf("%s at %d still has its form", e.Key, e.ModRevision)
		}
	}
}

// TestHistoryBytes checks that the history holds as much as it may, or as much as
// is live, and no more, whether objects are replaced or come and go.
func TestHistoryBytes(t *testing.T) {
	const limit = 64 << 10
	s := New(Options{HistoryBytes: limit})
	big := func(name string, revision int64) *store.Entry {
		return store.NewEntry("/registry/configmaps/"+name, revision, revision, store.Value{Object: &v1.ConfigMap{Data: map[string]string{"k": strings.Repeat("x", 1000)}}})
	}
	rev := int64(1)
	apply := func(t store.EventType, e, prev *store.Entry) {
		s.Apply([]*store.Event{{Type: t, Entry: e, Prev: prev, Revision: rev}})
	}
	var prev *store.Entry
	check := func(most int) {
		t.Helper()
		held, n := 0, 0
		s.history.since(0, func(ev *store.Event) bool {
			if ev.Prev != nil {
				held += ev.Prev.Size
			}
			if ev.Type == store.Delete {
				held += ev.Entry.Size
			}
			n++
			return true
		})
		if held != s.history.bytes || held > most || held < most-3*prev.Size || n == 0 {
			t.Errorf("%d changes hold %d bytes, counted as %d, of %d", n, held, s.history.bytes, most)
		}
		if _, err := s.Watch("/registry/", store.WatchOptions{Revision: s.history.compacted - 1}); !errors.Is(err, store.ErrCompacted) {
			t.Errorf("a watch from before: %v", err)
		}
		w, err := s.Watch("/registry/", store.WatchOptions{Revision: s.history.compacted})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Stop()
		if evs, err := w.Next(t.Context()); err != nil || len(evs) == 0 || evs[0].Revision != s.history.compacted+1 {
			t.Errorf("a watch from the oldest: %d events, %v", len(evs), err)
		}
	}
	for range 200 {
		rev++
		e := big("one", rev)
		apply(store.Put, e, prev)
		prev = e
	}
	check(limit)
	for range 200 {
		rev++
		e := big("gone", rev)
		apply(store.Put, e, nil)
		rev++
		apply(store.Delete, e.Deleted(rev), e)
	}
	check(limit)
	if s.bytes != prev.Size {
		t.Errorf("%d bytes are live, want %d", s.bytes, prev.Size)
	}
	var live []*store.Entry
	for i := range 200 {
		rev++
		live = append(live, big("many-"+strconv.Itoa(i), rev))
	}
	s.Reset(live, rev)
	prev = live[0]
	for range 400 {
		rev++
		e := big("many-0", rev)
		apply(store.Put, e, prev)
		prev = e
	}
	if check(s.bytes); s.bytes < 2*limit {
		t.Errorf("%d bytes are live", s.bytes)
	}
}
