package etcd

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	v1 "k8s.io/api/core/v1"

	"keelson.dev/keelson/internal/store"
	"keelson.dev/keelson/internal/store/storetest"
	"keelson.dev/keelson/test/harness"
	"keelson.dev/keelson/test/harness/etcdtest"
)

func open(tb testing.TB, server *etcdtest.Server, change ...func(*Options)) *Store {
	tb.Helper()
	o := Options{Servers: []string{server.URL}, Codec: storetest.Codec(), Indexers: storetest.Indexers(), CompactionInterval: -1}
	for _, f := range change {
		f(&o)
	}
	s, err := Open(o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { s.Close() })
	return s
}

func put(t *testing.T, s *Store, name, node string) *store.Entry {
	t.Helper()
	e, err := s.Get(t.Context(), storetest.Key(name))
	if err != nil {
		t.Fatal(err)
	}
	if e == nil {
		e, err = s.Create(t.Context(), storetest.Key(name), storetest.Pod(name, node), 0)
	} else {
		e, err = s.Update(t.Context(), storetest.Key(name), e.ModRevision, storetest.Pod(name, node), 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// next reads n events.
func next(t *testing.T, w store.Watcher, n int) []store.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
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

// TestContract gives each test a part of one etcd, which it talks to by TLS.
func TestContract(t *testing.T) {
	t.Parallel()
	server := etcdtest.StartTLS(t)
	var n atomic.Int64
	storetest.Run(t, func(t *testing.T) store.Store {
		return open(t, server, func(o *Options) { o.CAFile, o.CertFile, o.KeyFile = server.Cert, server.Cert, server.Key }, func(o *Options) { o.Prefix = "/test/" + strconv.FormatInt(n.Add(1), 10) })
	})
}

// TestUpstreamLayout checks that keys and values are equal to upstream's.
func TestUpstreamLayout(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	client := server.Client()
	value, err := storetest.Codec().Encode(storetest.Pod("theirs", "n1"))
	if err != nil {
		t.Fatal(err)
	}
	for key, value := range map[string]string{
		"/registry/pods/ns/theirs":          string(value),
		"/registry/example.com/widgets/w/a": `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"a","namespace":"w"}}`,
		"/registry/masterleases/192.0.2.1":  "k8s\x00not what it should be",
		"/registryother/pods/ns/x":          string(value),
		"/elsewhere":                        "x",
	} {
		if _, err := client.Put(t.Context(), key, value); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, server)
	if n := s.Count("/registry/"); n != 2 {
		t.Errorf("%d objects, want 2", n)
	}
	e, err := s.Get(t.Context(), storetest.Key("theirs"))
	if err != nil || e == nil || e.Object().(*v1.Pod).Spec.NodeName != "n1" || e.Object().(*v1.Pod).ResourceVersion != strconv.FormatInt(e.ModRevision, 10) {
		t.Fatalf("upstream's pod: %+v, %v", e, err)
	}
	mine := put(t, s, "mine", "n2")
	got, err := client.Get(t.Context(), "/registry/pods/ns/mine")
	if err != nil || len(got.Kvs) != 1 || !strings.HasPrefix(string(got.Kvs[0].Value), "k8s\x00") || got.Kvs[0].ModRevision != mine.ModRevision {
		t.Fatalf("in etcd: %+v, %v", got, err)
	}
	if obj, err := storetest.Codec().Decode(got.Kvs[0].Value); err != nil || obj.(*v1.Pod).ResourceVersion != "" || obj.(*v1.Pod).Spec.NodeName != "n2" {
		t.Errorf("stored: %+v, %v", obj, err)
	}
	// A write past the store is seen, and so is one that cannot be decoded.
	w, err := s.Watch("/registry/", store.WatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	for _, v := range []string{string(value), "{"} {
		if _, err := client.Put(t.Context(), "/registry/pods/ns/mine", v); err != nil {
			t.Fatal(err)
		}
	}
	evs := next(t, w, 2)
	if evs[0].Type != store.Put || evs[0].Entry.Object().(*v1.Pod).Spec.NodeName != "n1" || evs[1].Type != store.Delete {
		t.Errorf("changes: %+v", evs)
	}
}

// TestServers checks that two stores on one etcd see each other's writes.
func TestServers(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	a, b := open(t, server), open(t, server)
	w, err := b.Watch("/registry/", store.WatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	for i := range 50 {
		e := put(t, a, "p", strconv.Itoa(i))
		got, err := b.Get(t.Context(), storetest.Key("p"))
		if err != nil || got == nil || got.ModRevision != e.ModRevision || got.Object().(*v1.Pod).Spec.NodeName != strconv.Itoa(i) {
			t.Fatalf("the other server reads %+v (%v) after revision %d was acknowledged", got, err, e.ModRevision)
		}
		l, err := b.List(t.Context(), "/registry/", store.ListOptions{})
		if err != nil || len(l.Entries) != 1 || l.Entries[0].ModRevision != e.ModRevision {
			t.Fatalf("the other server lists %+v, %v", l, err)
		}
	}
	for i, ev := range next(t, w, 50) {
		if got := ev.Entry.Object().(*v1.Pod).Spec.NodeName; got != strconv.Itoa(i) {
			t.Errorf("event %d: %s", i, got)
		}
	}
	// Both count the same number up: each round one of them wins.
	put(t, a, "n", "0")
	var wg sync.WaitGroup
	for _, s := range []*Store{a, b, a, b} {
		wg.Go(func() {
			for range 50 {
				for {
					e, err := s.Get(t.Context(), storetest.Key("n"))
					if err != nil {
						t.Error(err)
						return
					}
					n, _ := strconv.Atoi(e.Object().(*v1.Pod).Spec.NodeName)
					if _, err = s.Update(t.Context(), storetest.Key("n"), e.ModRevision, storetest.Pod("n", strconv.Itoa(n+1)), 0); err == nil {
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
	e, err := b.Get(t.Context(), storetest.Key("n"))
	if err != nil || e.Object().(*v1.Pod).Spec.NodeName != "200" {
		t.Errorf("counted to %v, %v", e, err)
	}
	if _, err := a.Delete(t.Context(), storetest.Key("n"), e.ModRevision-1); !errors.Is(err, store.ErrConflict) {
		t.Errorf("a deletion of an old version: %v", err)
	}
}

// TestEtcdRestart checks that the store goes on after etcd was killed, and its
// watches miss nothing.
func TestEtcdRestart(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	s := open(t, server)
	w, err := s.Watch("/registry/", store.WatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	first := put(t, s, "a", "n1")
	server.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := s.Get(ctx, storetest.Key("a")); err == nil {
		t.Error("a read was answered while etcd was away: it cannot know that nothing newer was acknowledged")
	}
	if err := s.Err(); err == nil {
		t.Error("the store says that it is well while etcd is away")
	}
	server.Run()
	if _, err := server.Client().Delete(t.Context(), "/registry/pods/ns/a"); err != nil {
		t.Fatal(err)
	}
	put(t, s, "a", "n2")
	evs := next(t, w, 3)
	if evs[0].Revision != first.ModRevision || evs[1].Type != store.Delete || evs[2].Prev != nil {
		t.Errorf("changes: %+v", evs)
	}
	if err := s.Err(); err != nil {
		t.Error(err)
	}
}

// TestResume checks that a server that starts knows the changes before, so that
// watches of another server's clients go on there.
func TestResume(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	a := open(t, server)
	first := put(t, a, "a", "n1")
	put(t, a, "a", "n2")
	put(t, a, "b", "n1")
	b := open(t, server)
	w, err := b.Watch("/registry/", store.WatchOptions{Revision: first.ModRevision})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if evs := next(t, w, 2); evs[0].Prev.ModRevision != first.ModRevision || evs[1].Entry.Key != storetest.Key("b") {
		t.Errorf("changes: %+v", evs)
	}
	l, err := b.List(t.Context(), "/registry/", store.ListOptions{Revision: first.ModRevision})
	if err != nil || len(l.Entries) != 1 || l.Entries[0].Object().(*v1.Pod).Spec.NodeName != "n1" {
		t.Errorf("list in the past: %+v, %v", l, err)
	}
}

// TestCutOff checks that a server whose watch is too old lists again, and so do
// its watchers.
func TestCutOff(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	s := open(t, server)
	gone := put(t, s, "gone", "n1")
	w, err := s.Watch("/registry/", store.WatchOptions{Revision: gone.ModRevision})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	// As after a long time: the state stays where it is while etcd moves on.
	s.cancel()
	s.wg.Wait()
	client := server.Client()
	if _, err := client.Delete(t.Context(), "/registry/pods/ns/gone"); err != nil {
		t.Fatal(err)
	}
	value, err := storetest.Codec().Encode(storetest.Pod("new", "n2"))
	if err != nil {
		t.Fatal(err)
	}
	made, err := client.Put(t.Context(), "/registry/pods/ns/new", string(value))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Compact(t.Context(), made.Header.Revision); err != nil {
		t.Fatal(err)
	}
	s.ctx, s.cancel = context.WithCancel(t.Context())
	s.client = client
	s.wg.Go(s.follow)
	l, err := s.List(t.Context(), "/registry/pods/", store.ListOptions{})
	if err != nil || len(l.Entries) != 1 || l.Entries[0].Key != storetest.Key("new") {
		t.Errorf("list: %+v, %v", l, err)
	}
	if _, err := w.Next(t.Context()); !errors.Is(err, store.ErrCompacted) {
		t.Errorf("a watch from before: %v", err)
	}
	if r, err := s.List(t.Context(), "/registry/pods/", store.ListOptions{Index: "spec.nodeName", Value: "n1"}); err != nil || len(r.Entries) != 0 {
		t.Errorf("index: %+v, %v", r, err)
	}
}

// TestCompactionRounds checks that of several servers one compacts each round,
// to the revision of the round before.
func TestCompactionRounds(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	a, b := open(t, server), open(t, server)
	client := server.Client()
	readable := func(rev int64) bool {
		_, err := client.Get(t.Context(), "/registry/pods/ns/a", clientv3.WithRev(rev))
		return err == nil
	}
	var rounds [2]int64
	var revisions [2]int64
	turn := func() {
		t.Helper()
		for i, s := range []*Store{a, b} {
			var err error
			if rounds[i], revisions[i], err = s.compactOnce(rounds[i], revisions[i]); err != nil {
				t.Fatal(err)
			}
		}
	}
	first := put(t, a, "a", "1")
	turn()
	before := revisions[0]
	second := put(t, b, "a", "2")
	if !readable(first.ModRevision) {
		t.Error("the first round compacted: nobody knows yet what is old")
	}
	turn()
	if readable(before - 1) {
		t.Errorf("revision %d, from before the last round, is still there", before-1)
	}
	if !readable(second.ModRevision) {
		t.Error("a revision of this round is compacted")
	}
	if rounds[0] != rounds[1] || rounds[0] != 2 {
		t.Errorf("rounds %v, want 2 for both", rounds)
	}
	kv, err := client.Get(t.Context(), compactKey)
	if err != nil || kv.Kvs[0].Version != 2 || string(kv.Kvs[0].Value) != fmt.Sprint(before) {
		t.Errorf("%s is %+v (%v), want %d in version 2", compactKey, kv, err, before)
	}
}

// TestLeases checks that keys that end at about the same time share a lease.
func TestLeases(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	s := open(t, server)
	for i := range 10 {
		if _, err := s.Create(t.Context(), storetest.Key(strconv.Itoa(i)), storetest.Pod("p", ""), time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	client := server.Client()
	all, err := client.Leases(t.Context())
	if err != nil || len(all.Leases) != 1 {
		t.Fatalf("leases: %+v, %v; want one", all, err)
	}
	// One that is revoked by hand is replaced; its keys end at one revision.
	w, err := s.Watch("/registry/", store.WatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if _, err := client.Revoke(t.Context(), all.Leases[0].ID); err != nil {
		t.Fatal(err)
	}
	evs := next(t, w, 10)
	for _, ev := range evs {
		if ev.Type != store.Delete || ev.Revision != evs[0].Revision || ev.Entry.Object().(*v1.Pod).ResourceVersion != strconv.FormatInt(ev.Revision, 10) {
			t.Errorf("%+v", ev)
		}
	}
	if _, err := s.Create(t.Context(), storetest.Key("next"), storetest.Pod("p", ""), time.Hour); err != nil {
		t.Error(err)
	}
}

// TestNoEtcd checks that the error without an etcd names what to check.
func TestNoEtcd(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	server.Kill()
	_, err := Open(Options{Servers: []string{server.URL}, Codec: storetest.Codec(), OpenTimeout: 100 * time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "start etcd, or correct --etcd-servers") {
		t.Errorf("%v", err)
	}
	_, err = Open(Options{Servers: []string{server.URL}, CAFile: "/does/not/exist", Codec: storetest.Codec()})
	if err == nil || !strings.Contains(err.Error(), "--etcd-cafile") {
		t.Errorf("%v", err)
	}
}

// TestTLSErrors checks that the store refuses an etcd with a certificate of
// another authority, and is refused without a client certificate.
func TestTLSErrors(t *testing.T) {
	t.Parallel()
	server, other := etcdtest.StartTLS(t), etcdtest.StartTLS(t)
	for name, o := range map[string]Options{
		"no certificate":    {CAFile: server.Cert},
		"another's":         {CAFile: server.Cert, CertFile: other.Cert, KeyFile: other.Key},
		"another authority": {CAFile: other.Cert, CertFile: server.Cert, KeyFile: server.Key},
	} {
		o.Servers, o.Codec, o.OpenTimeout = []string{server.URL}, storetest.Codec(), time.Second
		if s, err := Open(o); err == nil {
			t.Errorf("%s: it is open", name)
			s.Close()
		} else if !strings.Contains(err.Error(), "--etcd-servers") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
