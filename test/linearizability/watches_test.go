package linearizability

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"keelson.dev/keelson/test/harness"
	"keelson.dev/keelson/test/harness/etcdtest"
)

const pods = "/api/v1/namespaces/default/pods"

// padding makes the objects so big that slow readers fall behind.
var padding = strings.Repeat("x", 1500)

// writer is the only writer of its objects, and makes each write on condition
// that the object is unchanged since the last one. So it knows their history,
// except for the effects of unanswered requests, which it reads.
type writer struct {
	t       *testing.T
	c       *client
	objects []*written
}

type written struct {
	key     string
	history []change
	// unsure reports whether there are unanswered writes. They can still happen until
	// the next one is answered.
	unsure  bool
	pending []change
}

func (o *written) last() change {
	if len(o.history) == 0 {
		return change{}
	}
	return o.history[len(o.history)-1]
}

// made records a change that has happened.
func (o *written) made(c change) { o.history, o.pending, o.unsure = append(o.history, c), nil, false }

func factsOf(p *v1.Pod) facts {
	return facts{value: p.Annotations["v"], message: p.Status.Message, group: p.Labels["group"], node: p.Spec.NodeName, phase: string(p.Status.Phase)}
}

func revisionOf(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64)
	return n
}

// look reads the object to find out the effect of an unanswered write.
func (w *writer) look(o *written) bool {
	code, b, err := w.c.ask("GET", pods+"/"+o.key, "", "")
	if err != nil {
		return false
	}
	now := change{}
	if code == http.StatusOK {
		var p v1.Pod
		if err := json.Unmarshal(b, &p); err != nil {
			w.t.Error(err)
			return false
		}
		now = change{revision: revisionOf(p.ResourceVersion), live: true, facts: factsOf(&p)}
	}
	last := o.last()
	if now.live == last.live && (!now.live || now.revision == last.revision) {
		o.unsure = false // pending changes may still happen
		return true
	}
	for _, p := range o.pending {
		if p.live == now.live && (!p.live || p.facts == now.facts) {
			o.made(now)
			return true
		}
	}
	w.t.Errorf("%s is %+v after %+v, and nobody wrote that", o.key, now, last)
	return false
}

// write changes o to next, and reports whether it did.
func (w *writer) write(o *written, next change) bool {
	last := o.last()
	if !next.live {
		next.facts = facts{}
	}
	var code int
	var b []byte
	var err error
	switch {
	case !last.live:
		code, b, err = w.c.ask("POST", pods, "application/json", fmt.Sprintf(
			`{"metadata":{"name":%q,"labels":{"group":%q},"annotations":{"v":%q,"padding":%q}},"spec":{"nodeName":%q,"containers":[{"name":"c","image":"i"}]}}`,
			o.key, next.group, next.value, padding, next.node))
	case !next.live:
		code, b, err = w.c.ask("DELETE", pods+"/"+o.key, "application/json", fmt.Sprintf(`{"gracePeriodSeconds":0,"preconditions":{"resourceVersion":"%d"}}`, last.revision))
	case next.message != last.message:
		code, b, err = w.c.ask("PATCH", pods+"/"+o.key+"/status", "application/merge-patch+json", fmt.Sprintf(
			`{"metadata":{"resourceVersion":"%d"},"status":{"phase":%q,"message":%q}}`, last.revision, next.phase, next.message))
	default:
		code, b, err = w.c.ask("PATCH", pods+"/"+o.key, "application/merge-patch+json", fmt.Sprintf(
			`{"metadata":{"resourceVersion":"%d","labels":{"group":%q},"annotations":{"v":%q}}}`, last.revision, next.group, next.value))
	}
	if err != nil {
		o.pending, o.unsure = append(o.pending, next), true
		time.Sleep(20 * time.Millisecond) // the server is down
		return false
	}
	if code == http.StatusConflict || code == http.StatusNotFound {
		if len(o.pending) == 0 {
			w.t.Errorf("%s: %d %s, though nobody else writes it", o.key, code, b)
		}
		o.unsure = true
		return false
	}
	var p v1.Pod
	if code >= 300 || json.Unmarshal(b, &p) != nil {
		w.t.Errorf("%s: %d %s", o.key, code, b)
		return false
	}
	if next.revision = revisionOf(p.ResourceVersion); next.revision <= last.revision {
		w.t.Errorf("%s was written at %d after %d", o.key, next.revision, last.revision)
	}
	o.made(next)
	return true
}

func pick(of ...string) string { return of[rand.IntN(len(of))] }

func (o *written) create(group, node string) change {
	return change{live: true, facts: facts{value: strconv.FormatInt(values.Add(1), 10), group: group, node: node, phase: string(v1.PodPending)}}
}

func (o *written) regroup(group string) change {
	next := o.last()
	next.group, next.value = group, strconv.FormatInt(values.Add(1), 10)
	return next
}

func (o *written) report(phase string) change {
	next := o.last()
	next.phase, next.message = phase, strconv.FormatInt(values.Add(1), 10)
	return next
}

func (w *writer) work(ctx context.Context) {
	for ctx.Err() == nil {
		o := w.objects[rand.IntN(len(w.objects))]
		if o.unsure && !w.look(o) {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		n := rand.IntN(100)
		switch {
		case !o.last().live:
			w.write(o, o.create(pick("a", "b"), pick("n0", "n1", "")))
		case n < 20:
			w.write(o, change{})
		case n < 60:
			w.write(o, o.regroup(pick("a", "b")))
		default:
			w.write(o, o.report(pick("Pending", "Running", "Failed")))
		}
	}
}

// settle finds out the effects of the last requests.
func (w *writer) settle() {
	for _, o := range w.objects {
		for o.unsure && !w.t.Failed() {
			if !w.look(o) {
				time.Sleep(20 * time.Millisecond)
			}
		}
	}
}

// finish makes a last write that every watcher must see.
func (w *writer) finish() {
	for _, o := range w.objects {
		if o.last().live {
			w.write(o, change{})
		}
		for _, f := range []func() change{
			func() change { return o.create("a", "n0") }, func() change { return o.report("Running") }, func() change { return o.regroup("b") },
			func() change { return change{} }, func() change { return o.create("b", "n1") },
		} {
			if !w.write(o, f()) {
				w.t.Errorf("%s: the last writes failed", o.key)
				return
			}
		}
	}
}

// watcher follows the objects through its view, and resumes when a watch ends.
type watcher struct {
	view
	t        *testing.T
	http     *http.Client
	host     string
	query    string // the selectors
	accept   string
	slow     bool
	segments []*segment
	// end, once it is not 0, is the revision that it must reach.
	end *atomic.Int64
	did *tally
}

// tally counts the events in the watchers' lives.
type tally struct{ watches, expired, rewound, initialised atomic.Int64 }

// enough reports whether each count is at least one.
func (t *tally) enough() bool {
	return t.expired.Load() > 0 && t.rewound.Load() > 0 && t.initialised.Load() > 0
}

// errRelist is the error of a revision that is no longer kept.
var errRelist = errors.New("expired")

func (w *watcher) do(ctx context.Context, query url.Values, accept string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, "GET", w.host+pods+"?"+query.Encode()+"&"+w.query, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", accept)
	return w.http.Do(req)
}

// list begins a segment with the present state.
func (w *watcher) list(ctx context.Context) error {
	resp, err := w.do(ctx, url.Values{}, "application/json")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var l v1.PodList
	if err := json.NewDecoder(resp.Body).Decode(&l); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	s := &segment{from: revisionOf(l.ResourceVersion), to: revisionOf(l.ResourceVersion), initial: true, start: map[string]seen{}}
	for i := range l.Items {
		p := &l.Items[i]
		s.start[p.Name] = seen{watch.Added, p.Name, revisionOf(p.ResourceVersion), factsOf(p)}
	}
	w.segments = append(w.segments, s)
	return nil
}

// watch continues the last segment, or begins one with initial events.
func (w *watcher) watch(ctx context.Context, initial bool) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	q := url.Values{"watch": {"true"}, "includeObject": {"Object"}}
	if rand.IntN(2) == 0 {
		q.Set("timeoutSeconds", "1")
	}
	if initial || rand.IntN(2) == 0 {
		q.Set("allowWatchBookmarks", "true")
	}
	var s *segment
	if initial {
		q.Set("sendInitialEvents", "true")
		q.Set("resourceVersionMatch", "NotOlderThan")
		s = &segment{initial: true, start: map[string]seen{}}
	} else {
		s = w.segments[len(w.segments)-1]
		q.Set("resourceVersion", strconv.FormatInt(s.to, 10))
	}
	resp, err := w.do(ctx, q, w.accept)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(resp.Body)
		return fmt.Errorf("%s %s", resp.Status, b)
	}
	w.did.watches.Add(1)
	next := jsonEvents(resp.Body)
	if strings.Contains(w.accept, "protobuf") {
		next = protobufEvents(resp.Body)
	}
	enough := 20 + rand.IntN(2000) // the number of events after which it hangs up
	for n := 0; n < enough; n++ {
		if w.slow && n%50 == 49 {
			time.Sleep(time.Duration(rand.IntN(300)) * time.Millisecond)
		}
		e, err := next()
		if err != nil {
			return err
		}
		switch {
		case e.expired:
			return errRelist
		case e.kind == watch.Bookmark && initial:
			if !e.initialEnd {
				return errors.New("a bookmark before the initial events have ended")
			}
			initial = false
			s.from, s.to = e.revision, e.revision
			w.segments = append(w.segments, s)
			w.did.initialised.Add(1)
		case initial && e.kind != watch.Added:
			w.t.Errorf("%s: %s among the initial events", w.name, e.seen)
		case initial:
			s.start[e.key] = e.seen
		case e.kind == watch.Bookmark:
			if e.revision < s.to {
				w.t.Errorf("%s: a bookmark at %d after revision %d", w.name, e.revision, s.to)
			}
			s.to = max(s.to, e.revision)
		default:
			s.events = append(s.events, e.seen)
			s.to = max(s.to, e.revision)
		}
		if w.done() {
			return nil
		}
	}
	return nil
}

func (w *watcher) done() bool {
	end := w.end.Load()
	return end != 0 && len(w.segments) > 0 && w.segments[len(w.segments)-1].to > end
}

func (w *watcher) work(ctx context.Context) {
	for ctx.Err() == nil && !w.t.Failed() && !w.done() {
		var err error
		switch n := rand.IntN(100); {
		case len(w.segments) == 0 && n < 50:
			err = w.list(ctx)
		case len(w.segments) == 0:
			err = w.watch(ctx, true)
		default:
			if last := w.segments[len(w.segments)-1]; n < 10 && len(last.events) > 0 {
				// Watch again, from an earlier event.
				at := last.events[max(0, len(last.events)-1-rand.IntN(500))].revision
				w.segments = append(w.segments, &segment{from: at, to: at})
				w.did.rewound.Add(1)
			}
			err = w.watch(ctx, false)
		}
		if errors.Is(err, errRelist) {
			w.did.expired.Add(1)
			if rand.IntN(2) == 0 {
				err = w.list(ctx)
			} else {
				err = w.watch(ctx, true)
			}
		}
		if err != nil && !errors.Is(err, io.EOF) {
			time.Sleep(20 * time.Millisecond) // the server is down
		}
	}
}

// received is an event as received.
type received struct {
	seen
	expired, initialEnd bool
}

func of(kind string, object []byte, decode func([]byte) (*v1.Pod, error)) (received, error) {
	r := received{seen: seen{kind: watch.EventType(kind)}}
	if r.kind == watch.Error {
		var s metav1.Status
		if err := json.Unmarshal(object, &s); err != nil {
			if _, _, err := scheme.Codecs.UniversalDeserializer().Decode(object, nil, &s); err != nil {
				return r, err
			}
		}
		if s.Reason != metav1.StatusReasonExpired || s.Code != http.StatusGone {
			return r, fmt.Errorf("an error event: %+v", s)
		}
		r.expired = true
		return r, nil
	}
	p, err := decode(object)
	if err != nil {
		return r, err
	}
	r.key, r.revision, r.facts = p.Name, revisionOf(p.ResourceVersion), factsOf(p)
	r.initialEnd = p.Annotations[metav1.InitialEventsAnnotationKey] == "true"
	return r, nil
}

// jsonEvents reads events with a Pod, its metadata, or a Table with one.
func jsonEvents(r io.Reader) func() (received, error) {
	d := json.NewDecoder(r)
	return func() (received, error) {
		var e struct {
			Type   string
			Object json.RawMessage
		}
		if err := d.Decode(&e); err != nil {
			return received{}, err
		}
		return of(e.Type, e.Object, func(b []byte) (*v1.Pod, error) {
			var t struct {
				Kind     string
				Metadata metav1.ListMeta
				Rows     []struct{ Object v1.Pod }
			}
			if err := json.Unmarshal(b, &t); err != nil || t.Kind != "Table" {
				var p v1.Pod
				return &p, errors.Join(err, json.Unmarshal(b, &p))
			}
			if len(t.Rows) == 0 {
				return &v1.Pod{ObjectMeta: metav1.ObjectMeta{ResourceVersion: t.Metadata.ResourceVersion}}, nil
			}
			return &t.Rows[0].Object, nil
		})
	}
}

func protobufEvents(r io.Reader) func() (received, error) {
	return func() (received, error) {
		var size [4]byte
		if _, err := io.ReadFull(r, size[:]); err != nil {
			return received{}, err
		}
		b := make([]byte, binary.BigEndian.Uint32(size[:]))
		if _, err := io.ReadFull(r, b); err != nil {
			return received{}, err
		}
		var e metav1.WatchEvent
		if err := e.Unmarshal(b); err != nil {
			return received{}, err
		}
		return of(e.Type, e.Object.Raw, func(b []byte) (*v1.Pod, error) {
			var p v1.Pod
			_, _, err := scheme.Codecs.UniversalDeserializer().Decode(b, nil, &p)
			return &p, err
		})
	}
}

// narrow returns a client over HTTP/1 or 2 with small buffers for unread data.
func narrow(t *testing.T, cfg *rest.Config, http2 bool) *http.Client {
	t.Helper()
	c, err := rest.TLSConfigFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return harness.SlowClient(t, c, http2, 32<<10)
}

const (
	asJSON     = "application/json"
	asProtobuf = "application/vnd.kubernetes.protobuf"
	asTable    = "application/json;as=Table;v=v1;g=meta.k8s.io"
	asPartial  = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
)

// watches runs writers and watchers while chaos kills the server, and compares
// what was written with what was seen.
func watches(t *testing.T, s *server, chaos func(ctx context.Context)) {
	cfg, err := clientcmd.BuildConfigFromFlags("", filepath.Join(s.dir, "kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	rt, err := rest.TransportFor(rest.CopyConfig(cfg))
	if err != nil {
		t.Fatal(err)
	}
	c := &client{http: &http.Client{Transport: rt}, host: cfg.Host}
	// Pods need the account, and no controller makes it here.
	if code, b, err := c.ask("POST", "/api/v1/namespaces/default/serviceaccounts", "application/json", `{"metadata":{"name":"default"}}`); err != nil || code != http.StatusCreated {
		t.Fatal(code, string(b), err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), *period+2*time.Minute)
	defer cancel()
	var did tally
	go func() { // waits for the period, and on a slow machine longer, until there is enough to judge
		for begin := time.Now(); ctx.Err() == nil && (time.Since(begin) < *period || !did.enough()); {
			time.Sleep(50 * time.Millisecond)
		}
		cancel()
	}()
	const perWriter = 6
	var writers []*writer
	var writing, watching sync.WaitGroup
	for i := range 4 {
		w := &writer{t: t, c: c}
		for j := range perWriter {
			w.objects = append(w.objects, &written{key: "k" + strconv.Itoa(i*perWriter+j)})
		}
		writers = append(writers, w)
		writing.Go(func() { w.work(ctx) })
	}
	all := func(string, facts) bool { return true }
	var end atomic.Int64
	var watchers []*watcher
	for _, w := range []watcher{
		{view: view{name: "everything, JSON", selects: all}, accept: asJSON},
		{view: view{name: "everything, protobuf", selects: all}, accept: asProtobuf},
		{view: view{name: "everything, Table", selects: all}, accept: asTable},
		{view: view{name: "everything, metadata", selects: all, metadataOnly: true}, accept: asPartial},
		{view: view{name: "group a", selects: func(_ string, f facts) bool { return f.group == "a" }}, query: "labelSelector=group%3Da", accept: asJSON},
		{view: view{name: "group not a", selects: func(_ string, f facts) bool { return f.group != "a" }}, query: "labelSelector=group!%3Da", accept: asProtobuf},
		{view: view{name: "node n0", selects: func(_ string, f facts) bool { return f.node == "n0" }}, query: "fieldSelector=spec.nodeName%3Dn0", accept: asProtobuf},
		{view: view{name: "running", selects: func(_ string, f facts) bool { return f.phase == "Running" }}, query: "fieldSelector=status.phase%3DRunning", accept: asTable},
		{view: view{name: "k1", selects: func(key string, _ facts) bool { return key == "k1" }}, query: "fieldSelector=metadata.name%3Dk1", accept: asJSON},
		{view: view{name: "group b on n1", selects: func(_ string, f facts) bool { return f.group == "b" && f.node == "n1" }},
			query: "labelSelector=group%3Db&fieldSelector=spec.nodeName%3Dn1", accept: asJSON},
	} {
		for i := range 4 {
			w := w
			w.t, w.http, w.host, w.slow, w.end, w.did = t, narrow(t, cfg, i < 2), cfg.Host, i%2 == 1, &end, &did
			watchers = append(watchers, &w)
			watching.Go(func() { w.work(t.Context()) })
		}
	}
	chaos(ctx)
	writing.Wait()
	histories := map[string][]change{}
	last := int64(0)
	for _, w := range writers {
		w.settle()
		for _, o := range w.objects {
			last = max(last, o.last().revision)
		}
	}
	end.Store(last)
	writes := 0
	for _, w := range writers {
		w.finish()
		for _, o := range w.objects {
			histories[o.key] = o.history
			writes += len(o.history)
		}
	}
	watching.Wait()
	var segments []*segment
	events := 0
	for _, w := range watchers {
		segments = append(segments, w.segments...)
	}
	learn(histories, segments)
	wrong := 0
	for _, w := range watchers {
		for _, s := range w.segments {
			events += len(s.events)
			for _, text := range w.judge(histories, s) {
				if wrong++; wrong <= 20 {
					t.Error(text)
				}
			}
		}
		if !w.done() {
			t.Errorf("%s did not come to the end", w.name)
		}
	}
	t.Logf("%d writes, seen as %d events by %d watchers in %d watches, %d of which had expired, %d began in the past, %d with initial events",
		writes, events, len(watchers), did.watches.Load(), did.expired.Load(), did.rewound.Load(), did.initialised.Load())
	if wrong > 0 {
		t.Errorf("%d differences in all", wrong)
	}
	if writes < 100 || !did.enough() {
		t.Error("too little happened to say anything")
	}
}

// TestWatches checks the events of watchers while the server is killed over and
// over and compacts its history.
func TestWatches(t *testing.T) {
	for _, engine := range []string{"embedded", "etcd"} {
		t.Run(engine, func(t *testing.T) {
			s := &server{t: t, dir: t.TempDir(), address: harness.FreeAddress(t), forgetful: true}
			if engine == "etcd" {
				s.etcd = etcdtest.Start(t).URL
			}
			s.start()
			watches(t, s, func(ctx context.Context) {
				for {
					select {
					case <-ctx.Done():
						return
					case <-time.After(time.Duration(800+rand.IntN(1500)) * time.Millisecond):
						s.restart()
					}
				}
			})
			if s.kills < 2 {
				t.Errorf("the server was killed %d times", s.kills)
			}
		})
	}
}

// TestJudge checks that the judge refuses watches that are wrong.
func TestJudge(t *testing.T) {
	f := func(value, group string) facts { return facts{value: value, group: group} }
	histories := map[string][]change{
		"k": {{2, true, f("1", "a")}, {4, true, f("2", "b")}, {6, true, f("3", "a")}, {8, false, facts{}}, {10, true, f("4", "a")}},
	}
	added, left := seen{watch.Added, "k", 2, f("1", "a")}, seen{watch.Deleted, "k", 4, f("1", "a")}
	back, gone := seen{watch.Added, "k", 6, f("3", "a")}, seen{watch.Deleted, "k", 8, f("3", "a")}
	v := view{name: "a", selects: func(_ string, f facts) bool { return f.group == "a" }}
	for name, c := range map[string]struct {
		s    segment
		want bool
	}{
		"all of it":            {segment{from: 1, to: 9, events: []seen{added, left, back, gone}}, true},
		"a part":               {segment{from: 2, to: 7, events: []seen{left, back}}, true},
		"from a state":         {segment{from: 7, to: 9, initial: true, start: map[string]seen{"k": back}, events: []seen{gone}}, true},
		"a missed event":       {segment{from: 1, to: 9, events: []seen{added, back, gone}}, false},
		"a missed end":         {segment{from: 1, to: 9, events: []seen{added, left, back}}, false},
		"an event twice":       {segment{from: 1, to: 9, events: []seen{added, added, left, back, gone}}, false},
		"out of order":         {segment{from: 1, to: 9, events: []seen{left, added, back, gone}}, false},
		"of another kind":      {segment{from: 5, to: 7, events: []seen{{watch.Modified, "k", 6, f("3", "a")}}}, false},
		"the new for the old":  {segment{from: 2, to: 5, events: []seen{{watch.Deleted, "k", 4, f("2", "b")}}}, false},
		"before where it was":  {segment{from: 2, to: 7, events: []seen{added, left, back}}, false},
		"an older state":       {segment{from: 7, to: 9, initial: true, start: map[string]seen{"k": added}, events: []seen{gone}}, false},
		"no state":             {segment{from: 7, to: 9, initial: true, events: []seen{gone}}, false},
		"what nobody wrote":    {segment{from: 8, to: 9, events: []seen{{watch.Added, "l", 9, f("9", "a")}}}, false},
		"a bookmark too early": {segment{from: 1, to: 3, events: []seen{added, left, back, gone}}, false},
	} {
		if wrong := v.judge(histories, &c.s); (len(wrong) == 0) != c.want {
			t.Errorf("%s: %v", name, wrong)
		}
	}
	if wrong := v.judge(map[string][]change{"k": {{2, true, f("1", "a")}, {0, false, facts{}}, {10, true, f("4", "b")}}}, &segment{from: 11, to: 11, initial: true}); len(wrong) > 0 {
		t.Error(wrong)
	}
	lost := map[string][]change{"k": {{2, true, f("1", "a")}, {0, false, facts{}}, {10, true, f("4", "a")}}}
	again := seen{watch.Added, "k", 10, f("4", "a")}
	if wrong := v.judge(lost, &segment{from: 1, to: 10, events: []seen{added, again}}); len(wrong) == 0 {
		t.Error("a deletion that nobody was told of was not missed")
	}
	s := segment{from: 1, to: 10, events: []seen{added, {watch.Deleted, "k", 7, f("1", "a")}, again}}
	learn(lost, []*segment{&s})
	if wrong := v.judge(lost, &s); len(wrong) > 0 {
		t.Error(wrong)
	}
	if wrong := v.judge(lost, &segment{from: 1, to: 10, events: []seen{added, again}}); len(wrong) == 0 {
		t.Error("a deletion that another was told of was not missed")
	}
}
