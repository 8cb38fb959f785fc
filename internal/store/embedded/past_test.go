package embedded

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	clocktesting "k8s.io/utils/clock/testing"

	"keelson.dev/keelson/internal/store"
	"keelson.dev/keelson/internal/store/storetest"
)

// TestPast reads the past of a store over restarts, and after versions without a
// history have written.
func TestPast(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Unix(1_000_000, 0))
	o := Options{Dir: t.TempDir(), Codec: storetest.Codec(), Clock: clock, HistoryLimit: 2, Past: PastOptions{Age: time.Hour}}
	var s *Store
	reopen := func() {
		t.Helper()
		if s != nil {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		var err error
		if s, err = Open(o); err != nil {
			t.Fatal(err)
		}
	}
	reopen()
	defer func() { s.Close() }()
	ctx := t.Context()
	begin := s.Revision()
	e, err := s.Create(ctx, storetest.Key("a"), storetest.Pod("a", "0"), 0)
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i <= 9; i++ {
		clock.Step(time.Minute)
		if e, err = s.Update(store.WithNote(ctx, strconv.Itoa(i)), e.Key, e.ModRevision, storetest.Pod("a", strconv.Itoa(i)), 0); err != nil {
			t.Fatal(err)
		}
		if i == 5 {
			reopen()
		}
	}
	nodeAt := func(rev int64) (string, error) {
		r, err := s.List(ctx, "/registry/", store.ListOptions{Revision: rev, Past: true})
		if err != nil || len(r.Entries) == 0 {
			return "", err
		}
		return r.Entries[0].Object().(*v1.Pod).Spec.NodeName, nil
	}
	check := func(from int) {
		t.Helper()
		// When the oldest state was reached is not known, but for the first.
		known := from
		if from > 0 {
			known++
		}
		for i := range 10 {
			node, err := nodeAt(begin + 1 + int64(i))
			switch {
			case i >= from && (err != nil || node != strconv.Itoa(i)):
				t.Errorf("at the revision of %d: %q, %v", i, node, err)
			case i < from && !errors.Is(err, store.ErrCompacted):
				t.Errorf("at the revision of %d: %q, %v, want it compacted", i, node, err)
			}
			at := time.Unix(1_000_000, 0).Add(time.Duration(i)*time.Minute + time.Second)
			rev, err := s.RevisionAt(at)
			switch {
			case i >= known && (err != nil || rev != begin+1+int64(i)):
				t.Errorf("at minute %d: %d, %v, want %d", i, rev, err, begin+1+int64(i))
			case i < known && !errors.Is(err, store.ErrCompacted):
				t.Errorf("at minute %d: %d, %v, want it compacted", i, rev, err)
			}
		}
	}
	check(0)
	if node, err := nodeAt(begin); node != "" || err != nil {
		t.Errorf("at the beginning: %q, %v", node, err)
	}
	reopen()
	check(0)
	if err := s.Changes(ctx, "/", begin+1, s.Revision(), func(c *store.Change) bool {
		if want := strconv.FormatInt(c.Revision-begin-1, 10); c.Note != want {
			t.Errorf("revision %d has the note %q, want %q", c.Revision, c.Note, want)
		}
		return true
	}); err != nil {
		t.Error(err)
	}
	if _, err := s.List(ctx, "/registry/", store.ListOptions{Revision: begin + 1}); !errors.Is(err, store.ErrCompacted) {
		t.Errorf("a list that does not ask for the past: %v", err)
	}
	clock.Step(54 * time.Minute) // an hour after minute 3
	if err := s.past.trim(clock.Now()); err != nil {
		t.Fatal(err)
	}
	check(2)
	reopen()
	check(2)

	o.Past.Age = 0
	reopen()
	if _, err := s.Update(ctx, e.Key, e.ModRevision, storetest.Pod("a", "without"), 0); err != nil {
		t.Fatal(err)
	}
	o.Past.Age = time.Hour
	reopen()
	if _, err := nodeAt(begin + 10); !errors.Is(err, store.ErrCompacted) {
		t.Errorf("before what was written without a history: %v", err)
	}
	if oldest, _, err := s.Oldest(); err != nil || oldest != s.Revision() {
		t.Errorf("the oldest revision is %d (%v), want %d", oldest, err, s.Revision())
	}
}

// TestPastSize bounds the history by its size.
func TestPastSize(t *testing.T) {
	s, err := Open(Options{Dir: t.TempDir(), Codec: storetest.Codec(), NoSync: true, Past: PastOptions{Age: time.Hour, Size: 64 << 10}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	p := storetest.Pod("a", "")
	e, err := s.Create(t.Context(), storetest.Key("a"), p, 0)
	if err != nil {
		t.Fatal(err)
	}
	begin := e.ModRevision
	for i := range 1000 {
		p := storetest.Pod("a", "")
		var random strings.Builder
		for j := range 100 {
			random.WriteString(strconv.FormatInt(int64(i*7919+j*104729)*2654435761%1000003, 36))
		}
		p.Annotations = map[string]string{"a": random.String()}
		if e, err = s.Update(t.Context(), e.Key, e.ModRevision, p, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.disk.db.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := s.past.trim(time.Now()); err != nil {
		t.Fatal(err)
	}
	oldest, _, err := s.Oldest()
	if err != nil || oldest <= begin || oldest >= e.ModRevision {
		t.Fatalf("the oldest revision is %d (%v), want one between %d and %d", oldest, err, begin, e.ModRevision)
	}
	if n, err := s.disk.db.EstimateDiskUsage(undoKey(nil, oldest+1), historyEnd); err != nil || n > 64<<10 {
		t.Errorf("the history takes %d bytes (%v)", n, err)
	}
	if _, err := s.List(t.Context(), "/", store.ListOptions{Revision: oldest, Past: true}); err != nil {
		t.Errorf("the oldest revision: %v", err)
	}
	if _, err := s.List(t.Context(), "/", store.ListOptions{Revision: begin, Past: true, Limit: 1}); err != nil && !errors.Is(err, store.ErrCompacted) {
		t.Errorf("a revision before it: %v", err)
	}
}
