// Package storetest is the test suite that every engine of the store has to
// pass. It may import package store and Kubernetes' types.
package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"

	"keelson.dev/keelson/internal/store"
)

// Codec returns the codec of the test objects.
func Codec() store.Codec { return store.NewCodec(scheme.Scheme) }

// Indexers returns the indexers that the store under test must have.
func Indexers() []store.Indexer {
	return []store.Indexer{{
		Name:   "spec.nodeName",
		Prefix: "/registry/pods/",
		Value: func(o runtime.Object) (string, bool) {
			p, ok := o.(*v1.Pod)
			if !ok || p.Spec.NodeName == "" {
				return "", false
			}
			return p.Spec.NodeName, true
		},
	}}
}

// Pod makes a test object.
func Pod(name, node string) *v1.Pod {
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, Labels: map[string]string{"app": name}},
		Spec:       v1.PodSpec{NodeName: node, Containers: []v1.Container{{Name: "c", Image: "image"}}},
	}
}

// Key returns the key of a test pod.
func Key(name string) string { return "/registry/pods/ns/" + name }

// Run runs the suite on stores that open makes.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	for name, f := range map[string]func(*testing.T, store.Store){
		"Preconditions":  preconditions,
		"ListAtRevision": listAtRevision,
		"ListPages":      listPages,
		"Index":          index,
		"Watch":          watch,
		"WatchIndex":     watchIndex,
		"SlowWatcher":    slowWatcher,
		"Compaction":     compaction,
		"Committed":      committed,
		"Past":           past,
		"TimeToLive":     timeToLive,
		"Concurrency":    concurrency,
		"Reach":          reach,
		"Custom":         custom,
		"Close":          closing,
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			defer s.Close()
			f(t, s)
		})
	}
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got error %v, want %v", err, want)
	}
}

// Custom makes a test object of a custom resource.
func Custom(name string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "sea.example.com/v1", "kind": "Boat",
		"metadata": map[string]any{"name": name, "namespace": "ns", "uid": "u-" + name, "labels": map[string]any{"app": name}},
		"spec":     map[string]any{"sails": int64(2), "length": 1.5, "crew": []any{"a", nil, true}},
	}}
}

// CheckCustom checks that e is the test object of a custom resource, as it
// was written at e's revision.
func CheckCustom(t *testing.T, e *store.Entry, name string) {
	t.Helper()
	want := Custom(name)
	want.SetResourceVersion(strconv.FormatInt(e.ModRevision, 10))
	for range 2 { // the second time after there were no references to it for a while
		if got := e.Object().(*unstructured.Unstructured); !reflect.DeepEqual(got, want) {
			t.Errorf("the object is %v, want %v", got, want)
		}
		b, err := e.Encoded(store.JSON, func(o runtime.Object) ([]byte, error) {
			return json.Marshal(o.(*unstructured.Unstructured).Object)
		})
		wantJSON, _ := json.Marshal(want.Object)
		if err != nil || string(b) != string(wantJSON) {
			t.Errorf("the JSON is %s, %v, want %s", b, err, wantJSON)
		}
		goruntime.GC()
	}
}

func custom(t *testing.T, s store.Store) {
	ctx := t.Context()
	const key = "/registry/sea.example.com/boats/ns/a"
	w := must(s.Watch("/registry/sea.example.com/", store.WatchOptions{}))(t)
	defer w.Stop()
	a := must(s.Create(ctx, key, Custom("a"), 0))(t)
	CheckCustom(t, a, "a")
	b := must(s.Update(ctx, key, a.ModRevision, Custom("a"), 0))(t)
	CheckCustom(t, b, "a")
	CheckCustom(t, a, "a")
	CheckCustom(t, must(s.Get(ctx, key))(t), "a")
	d := must(s.Delete(ctx, key, b.ModRevision))(t)
	CheckCustom(t, d, "a")
	CheckCustom(t, b, "a")
	for seen := 0; seen < 3; {
		for _, e := range must(w.Next(ctx))(t) {
			CheckCustom(t, e.Entry, "a")
			seen++
		}
	}
}

func preconditions(t *testing.T, s store.Store) {
	ctx := t.Context()
	a := must(s.Create(ctx, Key("a"), Pod("a", ""), 0))(t)
	if a.ModRevision != s.Revision() || a.CreateRevision != a.ModRevision {
		t.Errorf("revisions of a creation: %d, %d; the store's is %d", a.CreateRevision, a.ModRevision, s.Revision())
	}
	if rv := a.Object().(*v1.Pod).ResourceVersion; rv != strconv.FormatInt(a.ModRevision, 10) {
		t.Errorf("resourceVersion %q, want %d", rv, a.ModRevision)
	}
	_, err := s.Create(ctx, Key("a"), Pod("a", ""), 0)
	wantErr(t, err, store.ErrExists)
	_, err = s.Update(ctx, Key("b"), 1, Pod("b", ""), 0)
	wantErr(t, err, store.ErrNotFound)
	_, err = s.Delete(ctx, Key("b"), 1)
	wantErr(t, err, store.ErrNotFound)
	b := must(s.Update(ctx, Key("a"), a.ModRevision, Pod("a", "node"), 0))(t)
	if b.CreateRevision != a.CreateRevision || b.ModRevision <= a.ModRevision {
		t.Errorf("revisions of an update: %d, %d after %d", b.CreateRevision, b.ModRevision, a.ModRevision)
	}
	_, err = s.Update(ctx, Key("a"), a.ModRevision, Pod("a", ""), 0)
	wantErr(t, err, store.ErrConflict)
	_, err = s.Delete(ctx, Key("a"), a.ModRevision)
	wantErr(t, err, store.ErrConflict)
	d := must(s.Delete(ctx, Key("a"), b.ModRevision))(t)
	if p := d.Object().(*v1.Pod); p.ResourceVersion != strconv.FormatInt(d.ModRevision, 10) || d.ModRevision <= b.ModRevision || p.Spec.NodeName != "node" {
		t.Errorf("deleted entry: %d, %+v", d.ModRevision, p)
	}
	if p := b.Object().(*v1.Pod); p.ResourceVersion != strconv.FormatInt(b.ModRevision, 10) {
		t.Error("the deletion changed an older version")
	}
	if e := must(s.Get(ctx, Key("a")))(t); e != nil {
		t.Errorf("a deleted key gives %v", e)
	}
}

func names(es []*store.Entry) string {
	out := ""
	for _, e := range es {
		p := e.Object().(*v1.Pod)
		out += p.Name + ":" + p.Spec.NodeName + " "
	}
	return out
}

func listAtRevision(t *testing.T, s store.Store) {
	ctx := t.Context()
	var history []string
	var revs []int64
	live := map[string]*store.Entry{}
	for i := range 40 {
		name := "p" + strconv.Itoa(i%7)
		switch e := live[name]; {
		case e == nil:
			live[name] = must(s.Create(ctx, Key(name), Pod(name, "n"+strconv.Itoa(i)), 0))(t)
		case i%3 == 0:
			must(s.Delete(ctx, Key(name), e.ModRevision))(t)
			delete(live, name)
		default:
			live[name] = must(s.Update(ctx, Key(name), e.ModRevision, Pod(name, "n"+strconv.Itoa(i)), 0))(t)
		}
		history = append(history, names(must(s.List(ctx, "/registry/pods/", store.ListOptions{}))(t).Entries))
		revs = append(revs, s.Revision())
	}
	for i, rev := range revs {
		r := must(s.List(ctx, "/registry/pods/", store.ListOptions{Revision: rev}))(t)
		if got := names(r.Entries); got != history[i] || r.Revision != rev {
			t.Errorf("at revision %d: %s, want %s", rev, got, history[i])
		}
	}
	_, err := s.List(ctx, "/registry/pods/", store.ListOptions{Revision: s.Revision() + 1})
	wantErr(t, err, store.ErrFuture)
}

func listPages(t *testing.T, s store.Store) {
	ctx := t.Context()
	for i := range 10 {
		must(s.Create(ctx, Key(fmt.Sprintf("p%02d", i)), Pod(fmt.Sprintf("p%02d", i), ""), 0))(t)
	}
	must(s.Create(ctx, "/registry/podsother/x", Pod("x", ""), 0))(t)
	rev := s.Revision()
	must(s.Create(ctx, Key("p99"), Pod("p99", ""), 0))(t)
	var got []*store.Entry
	after := ""
	for {
		r := must(s.List(ctx, "/registry/pods/", store.ListOptions{Revision: rev, After: after, Limit: 3}))(t)
		got = append(got, r.Entries...)
		if want := int64(10 - len(got)); r.Remaining != want {
			t.Errorf("remaining %d, want %d", r.Remaining, want)
		}
		if !r.More {
			break
		}
		after = r.Entries[len(r.Entries)-1].Key
	}
	if len(got) != 10 || s.Count("/registry/pods/") != 11 {
		t.Errorf("%d in pages, count %d", len(got), s.Count("/registry/pods/"))
	}
	r := must(s.List(ctx, "/registry/pods/", store.ListOptions{Limit: 2, Match: func(e *store.Entry) bool { return e.Key > Key("p07") }}))(t)
	if names(r.Entries) != "p08: p09: " || !r.More || r.Remaining != -1 {
		t.Errorf("matching: %s %v %d", names(r.Entries), r.More, r.Remaining)
	}
}

func index(t *testing.T, s store.Store) {
	ctx := t.Context()
	a := must(s.Create(ctx, Key("a"), Pod("a", "n1"), 0))(t)
	must(s.Create(ctx, Key("b"), Pod("b", "n1"), 0))(t)
	must(s.Create(ctx, Key("c"), Pod("c", "n2"), 0))(t)
	rev := s.Revision()
	on := func(rev int64, node string) string {
		return names(must(s.List(ctx, "/registry/pods/", store.ListOptions{Revision: rev, Index: "spec.nodeName", Value: node}))(t).Entries)
	}
	if got := on(0, "n1"); got != "a:n1 b:n1 " {
		t.Error(got)
	}
	must(s.Update(ctx, Key("a"), a.ModRevision, Pod("a", "n2"), 0))(t)
	if got := on(0, "n2"); got != "a:n2 c:n2 " {
		t.Error(got)
	}
	if got := on(rev, "n1"); got != "a:n1 b:n1 " {
		t.Error("in the past: " + got)
	}
}

// collect reads n events.
func collect(t *testing.T, w store.Watcher, n int) []store.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var out []store.Event
	for len(out) < n {
		evs, err := w.Next(ctx)
		if err != nil {
			t.Fatalf("after %d of %d events: %v", len(out), n, err)
		}
		out = append(out, evs...)
	}
	return out
}

func watch(t *testing.T, s store.Store) {
	ctx := t.Context()
	rev := s.Revision()
	live := must(s.Watch("/registry/pods/ns/", store.WatchOptions{}))(t)
	defer live.Stop()
	one := must(s.Watch(Key("a"), store.WatchOptions{}))(t)
	defer one.Stop()
	a := must(s.Create(ctx, Key("a"), Pod("a", ""), 0))(t)
	must(s.Create(ctx, Key("b"), Pod("b", ""), 0))(t)
	must(s.Create(ctx, "/registry/pods/other/b", Pod("b", ""), 0))(t)
	a2 := must(s.Update(ctx, Key("a"), a.ModRevision, Pod("a", "n"), 0))(t)
	must(s.Delete(ctx, Key("a"), a2.ModRevision))(t)
	past := must(s.Watch("/registry/pods/ns/", store.WatchOptions{Revision: rev}))(t)
	defer past.Stop()
	for name, w := range map[string]store.Watcher{"live": live, "past": past} {
		evs := collect(t, w, 4)
		if len(evs) != 4 || evs[0].Prev != nil || evs[0].Type != store.Put || evs[2].Prev.ModRevision != a.ModRevision ||
			evs[3].Type != store.Delete || evs[3].Entry.ModRevision != evs[3].Revision || evs[3].Prev.ModRevision != a2.ModRevision {
			t.Errorf("%s: %+v", name, evs)
		}
		if w.Revision() != s.Revision() {
			t.Errorf("%s: at revision %d, want %d", name, w.Revision(), s.Revision())
		}
	}
	if evs := collect(t, one, 3); len(evs) != 3 || evs[2].Type != store.Delete {
		t.Errorf("one key: %+v", evs)
	}
	must(s.Create(ctx, "/registry/configmaps/ns/b", Pod("b", ""), 0))(t)
	if one.Revision() != s.Revision() {
		t.Errorf("an idle watch is at revision %d, want %d", one.Revision(), s.Revision())
	}
	done, cancel := context.WithCancel(ctx)
	cancel()
	_, err := one.Next(done)
	wantErr(t, err, context.Canceled)
	_, err = s.Watch("/registry/", store.WatchOptions{Revision: s.Revision() + 1})
	wantErr(t, err, store.ErrFuture)
}

func watchIndex(t *testing.T, s store.Store) {
	ctx := t.Context()
	rev := s.Revision()
	live := must(s.Watch("/registry/pods/", store.WatchOptions{Index: "spec.nodeName", Value: "n1"}))(t)
	defer live.Stop()
	a := must(s.Create(ctx, Key("a"), Pod("a", ""), 0))(t)
	a2 := must(s.Update(ctx, Key("a"), a.ModRevision, Pod("a", "n1"), 0))(t)
	must(s.Create(ctx, Key("b"), Pod("b", "n2"), 0))(t)
	must(s.Update(ctx, Key("a"), a2.ModRevision, Pod("a", "n2"), 0))(t)
	past := must(s.Watch("/registry/pods/", store.WatchOptions{Revision: rev, Index: "spec.nodeName", Value: "n1"}))(t)
	defer past.Stop()
	for name, w := range map[string]store.Watcher{"live": live, "past": past} {
		evs := collect(t, w, 2)
		if len(evs) != 2 || evs[0].Entry.ModRevision != a2.ModRevision || evs[1].Prev.ModRevision != a2.ModRevision {
			t.Errorf("%s: %+v", name, evs)
		}
	}
}

// slowWatcher reads late: nothing is missed, repeated or out of order.
func slowWatcher(t *testing.T, s store.Store) {
	ctx := t.Context()
	w := must(s.Watch("/registry/pods/", store.WatchOptions{}))(t)
	defer w.Stop()
	e := must(s.Create(ctx, Key("a"), Pod("a", ""), 0))(t)
	want := []int64{e.ModRevision}
	seen := []int64{}
	for i := range 3000 {
		e = must(s.Update(ctx, Key("a"), e.ModRevision, Pod("a", strconv.Itoa(i)), 0))(t)
		want = append(want, e.ModRevision)
		if i == 1500 {
			for _, ev := range collect(t, w, 400) {
				seen = append(seen, ev.Revision)
			}
		}
	}
	for _, ev := range collect(t, w, len(want)-len(seen)) {
		seen = append(seen, ev.Revision)
	}
	if fmt.Sprint(seen) != fmt.Sprint(want) {
		t.Errorf("%d events, want %d in order", len(seen), len(want))
	}
}

func compaction(t *testing.T, s store.Store) {
	ctx := t.Context()
	rev := s.Revision()
	a := must(s.Create(ctx, Key("a"), Pod("a", ""), 0))(t)
	w := must(s.Watch("/registry/", store.WatchOptions{Revision: rev}))(t)
	defer w.Stop()
	b := must(s.Create(ctx, Key("b"), Pod("b", ""), 0))(t)
	if err := s.Compact(ctx, a.ModRevision); err != nil {
		t.Fatal(err)
	}
	_, err := w.Next(ctx)
	wantErr(t, err, store.ErrCompacted)
	_, err = s.Watch("/registry/", store.WatchOptions{Revision: rev})
	wantErr(t, err, store.ErrCompacted)
	_, err = s.List(ctx, "/registry/", store.ListOptions{Revision: rev})
	wantErr(t, err, store.ErrCompacted)
	if got := names(must(s.List(ctx, "/registry/", store.ListOptions{Revision: a.ModRevision}))(t).Entries); got != "a: " {
		t.Errorf("at the compacted revision: %s", got)
	}
	ok := must(s.Watch("/registry/", store.WatchOptions{Revision: a.ModRevision}))(t)
	defer ok.Stop()
	if evs := collect(t, ok, 1); evs[0].Revision != b.ModRevision {
		t.Errorf("%+v", evs)
	}
}

// committed checks that a write's context is told of its commit, once, before the change is
// shown, and never of a write that fails.
func committed(t *testing.T, s store.Store) {
	var told []int64
	ctx := store.WithCommitted(t.Context(), func(revision int64) {
		if s.Revision() >= revision {
			t.Errorf("the revision %d is shown before its writer is told", revision)
		}
		told = append(told, revision)
	})
	a := must(s.Create(ctx, Key("a"), Pod("a", ""), 0))(t)
	_, err := s.Create(ctx, Key("a"), Pod("a", ""), 0)
	wantErr(t, err, store.ErrExists)
	b := must(s.Update(ctx, Key("a"), a.ModRevision, Pod("a", "n"), 0))(t)
	_, err = s.Update(ctx, Key("a"), a.ModRevision, Pod("a", "m"), 0)
	wantErr(t, err, store.ErrConflict)
	_, err = s.Delete(ctx, Key("a"), a.ModRevision)
	wantErr(t, err, store.ErrConflict)
	c := must(s.Delete(ctx, Key("a"), b.ModRevision))(t)
	_, err = s.Delete(ctx, Key("a"), b.ModRevision)
	wantErr(t, err, store.ErrNotFound)
	if want := []int64{a.ModRevision, b.ModRevision, c.ModRevision}; !slices.Equal(told, want) {
		t.Errorf("told of %v, want %v", told, want)
	}
}

// past reads earlier states of a store that implements store.Past, and the changes
// between them.
func past(t *testing.T, s store.Store) {
	p, ok := s.(store.Past)
	if !ok {
		t.Skip("an engine without a history of its own")
	}
	ctx := t.Context()
	begin := s.Revision()
	a := must(s.Create(store.WithNote(ctx, "made"), Key("a"), Pod("a", "1"), 0))(t)
	b := must(s.Create(ctx, Key("b"), Pod("b", "1"), 0))(t)
	a2 := must(s.Update(store.WithNote(ctx, "moved"), Key("a"), a.ModRevision, Pod("a", "2"), 0))(t)
	must(s.Create(ctx, "/registry/sea.example.com/boats/ns/a", Custom("a"), 0))(t)
	gone := must(s.Delete(store.WithNote(ctx, "gone"), Key("b"), b.ModRevision))(t)
	for _, c := range []struct {
		rev  int64
		want string
	}{{begin, ""}, {a.ModRevision, "a:1"}, {b.ModRevision, "a:1 b:1"}, {a2.ModRevision, "a:2 b:1"}, {gone.ModRevision, "a:2"}} {
		r := must(s.List(ctx, "/registry/pods/", store.ListOptions{Revision: c.rev, Past: true}))(t)
		var got []string
		for _, e := range r.Entries {
			p := e.Object().(*v1.Pod)
			got = append(got, p.Name+":"+p.Spec.NodeName)
			if p.ResourceVersion != strconv.FormatInt(e.ModRevision, 10) {
				t.Errorf("at %d: %s has resourceVersion %s, and the entry %d", c.rev, p.Name, p.ResourceVersion, e.ModRevision)
			}
		}
		if strings.Join(got, " ") != c.want || r.Revision != c.rev {
			t.Errorf("at %d: %v at revision %d, want %s", c.rev, got, r.Revision, c.want)
		}
	}
	var got, notes []string
	noted := false // by an engine that keeps notes
	if err := p.Changes(ctx, "/registry/pods/", begin, s.Revision(), func(c *store.Change) bool {
		before := "nothing"
		prev, err := c.Prev()
		if err != nil {
			t.Error(err)
		} else if prev != nil {
			before = prev.Object().(*v1.Pod).Spec.NodeName
		}
		noted = noted || c.Note != ""
		got = append(got, fmt.Sprint(c.Key, c.Deleted, before))
		notes = append(notes, c.Note)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	want := []string{fmt.Sprint(Key("a"), false, "nothing"), fmt.Sprint(Key("b"), false, "nothing"), fmt.Sprint(Key("a"), false, "1"), fmt.Sprint(Key("b"), true, "1")}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("changes %q, want %q", got, want)
	}
	if wantNotes := []string{"made", "", "moved", "gone"}; noted && !reflect.DeepEqual(notes, wantNotes) {
		t.Errorf("notes %q, want %q", notes, wantNotes)
	}
	if oldest, _, err := p.Oldest(); err != nil || oldest > begin {
		t.Errorf("the oldest revision is %d (%v), want at most %d", oldest, err, begin)
	}
	if rev, err := p.RevisionAt(time.Now().Add(time.Hour)); err != nil || rev != s.Revision() {
		t.Errorf("the revision in an hour is %d (%v), want %d", rev, err, s.Revision())
	}
	if rev, err := p.RevisionAt(time.Now().Add(-time.Hour)); err != nil && !errors.Is(err, store.ErrCompacted) || rev > begin {
		t.Errorf("the revision before the first change is %d (%v), want at most %d", rev, err, begin)
	}
	if rev, err := p.RevisionAt(time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)); err != nil || rev != s.Revision() {
		t.Errorf("the revision in the year 9999 is %d (%v), want %d", rev, err, s.Revision())
	}
	if rev, err := p.RevisionAt(time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)); err != nil && !errors.Is(err, store.ErrCompacted) || rev > begin {
		t.Errorf("the revision in the year 1 is %d (%v), want at most %d", rev, err, begin)
	}
	if err := s.Compact(ctx, a2.ModRevision); err != nil {
		t.Fatal(err)
	}
	_, err := s.List(ctx, "/registry/pods/", store.ListOptions{Revision: b.ModRevision, Past: true})
	wantErr(t, err, store.ErrCompacted)
	wantErr(t, p.Changes(ctx, "/", b.ModRevision, s.Revision(), func(*store.Change) bool { return true }), store.ErrCompacted)
	_, err = p.RevisionAt(time.Now().Add(-time.Hour))
	wantErr(t, err, store.ErrCompacted)
}

func timeToLive(t *testing.T, s store.Store) {
	ctx := t.Context()
	w := must(s.Watch("/registry/", store.WatchOptions{}))(t)
	defer w.Stop()
	must(s.Create(ctx, Key("short"), Pod("short", ""), 30*time.Millisecond))(t)
	kept := must(s.Create(ctx, Key("kept"), Pod("kept", ""), 30*time.Millisecond))(t)
	must(s.Update(ctx, Key("kept"), kept.ModRevision, Pod("kept", ""), 0))(t)
	evs := collect(t, w, 4)
	if last := evs[len(evs)-1]; last.Type != store.Delete || last.Entry.Key != Key("short") {
		t.Errorf("%+v", last)
	}
	if must(s.Get(ctx, Key("kept")))(t) == nil {
		t.Error("an update without a time to live did not lift it")
	}
}

func concurrency(t *testing.T, s store.Store) {
	const writers, each = 8, 100
	must(s.Create(t.Context(), Key("n"), Pod("n", "0"), 0))(t)
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				for {
					e, err := s.Get(t.Context(), Key("n"))
					if err != nil {
						t.Error(err)
						return
					}
					n, _ := strconv.Atoi(e.Object().(*v1.Pod).Spec.NodeName)
					_, err = s.Update(t.Context(), Key("n"), e.ModRevision, Pod("n", strconv.Itoa(n+1)), 0)
					if err == nil {
						break
					}
					if !errors.Is(err, store.ErrConflict) {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	e := must(s.Get(t.Context(), Key("n")))(t)
	if got := e.Object().(*v1.Pod).Spec.NodeName; got != strconv.Itoa(writers*each) {
		t.Errorf("counted to %s, want %d", got, writers*each)
	}
}

func reach(t *testing.T, s store.Store) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	a := must(s.Create(ctx, Key("a"), Pod("a", ""), 0))(t)
	if err := s.Reach(ctx, a.ModRevision); err != nil {
		t.Error(err)
	}
	done := make(chan error)
	last := a.ModRevision + 3
	go func() { done <- s.Reach(ctx, last) }()
	for range 3 {
		a = must(s.Update(ctx, Key("a"), a.ModRevision, Pod("a", ""), 0))(t)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	short, cancel := context.WithCancel(ctx)
	cancel()
	wantErr(t, s.Reach(short, s.Revision()+1000), context.Canceled)
}

func closing(t *testing.T, s store.Store) {
	w := must(s.Watch("/registry/", store.WatchOptions{}))(t)
	errs := make(chan error)
	go func() {
		_, err := w.Next(t.Context())
		errs <- err
	}()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	wantErr(t, <-errs, store.ErrClosed)
	_, err := s.Create(t.Context(), Key("a"), Pod("a", ""), 0)
	wantErr(t, err, store.ErrClosed)
	_, err = s.Get(t.Context(), Key("a"))
	wantErr(t, err, store.ErrClosed)
}
