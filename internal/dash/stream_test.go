package dash

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"

	"keelson.dev/keelson/internal/trace"
)

// client is the other end of a stream: it takes what is written, once that is flushed,
// unless it is stalled.
type client struct {
	mu      sync.Mutex
	header  http.Header
	code    int
	written bytes.Buffer
	flushes int
	stalled bool
	going   *sync.Cond // when stalled changes, or the deadline comes
	late    bool
	timer   *time.Timer

	cancel context.CancelFunc
	ended  chan struct{}
}

// Header, WriteHeader, Write, Flush and SetWriteDeadline are net/http's.
func (c *client) Header() http.Header { return c.header }

func (c *client) WriteHeader(code int) { c.code = code }

func (c *client) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.stalled && !c.late {
		c.going.Wait()
	}
	if c.late {
		return 0, os.ErrDeadlineExceeded
	}
	return c.written.Write(b)
}

func (c *client) Flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flushes++
}

func (c *client) SetWriteDeadline(at time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer != nil {
		c.timer.Stop()
	}
	c.timer = time.AfterFunc(time.Until(at), func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.late = true
		c.going.Broadcast()
	})
	return nil
}

func (c *client) stall(is bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stalled = is
	c.going.Broadcast()
}

// take returns what was written since the last call.
func (c *client) take() string {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.written.String()
	c.written.Reset()
	return s
}

// open opens a stream as a user.
func open(t *testing.T, s *Stream, name, query string) *client {
	ctx, cancel := context.WithCancel(request.WithUser(context.Background(), &user.DefaultInfo{Name: name}))
	c := &client{header: http.Header{}, cancel: cancel, ended: make(chan struct{})}
	c.going = sync.NewCond(&c.mu)
	go func() {
		defer close(c.ended)
		s.ServeHTTP(c, httptest.NewRequestWithContext(ctx, http.MethodGet, Path+"?"+query, nil))
		if c.timer != nil {
			c.timer.Stop()
		}
	}()
	t.Cleanup(cancel)
	return c
}

// policy allows what is in it: "list pods", "list pods in a", "get /dash/stream".
type policy struct {
	mu  sync.Mutex
	may map[string]bool
}

func allow(may ...string) *policy {
	p := &policy{may: map[string]bool{"get " + Path: true}}
	for _, m := range may {
		p.may[m] = true
	}
	return p
}

// authorize is an authorizer.AuthorizerFunc.
func (p *policy) authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	what := a.GetVerb() + " " + a.GetPath()
	if a.IsResourceRequest() {
		what = a.GetVerb() + " " + a.GetResource()
	}
	if p.may[what] || a.GetNamespace() != "" && p.may[what+" in "+a.GetNamespace()] {
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, "", nil
}

func (p *policy) revoke(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.may, what)
}

// stream returns a Stream of the world.
func (w *world) stream(a authorizer.Authorizer) *Stream {
	return &Stream{Store: w.store, Catalogue: w.cat, Trace: trace.NewRecorder(trace.DefaultLimit), Authorizer: a, Watches: func() int64 { return 7 },
		Moment: func(s string) (int64, error) { return strconv.ParseInt(s, 10, 64) }}
}

// TestChanges follows a cluster in which much happens, and then nothing.
func TestChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.put(testNode("n", nil))
		w.put(testPod("a", "p", "", nil))
		s := w.stream(nil)
		c, v := open(t, s, "jane", ""), newView(t)
		v.read(c.take())
		if v.hello["user"] != "jane" || v.hello["rv"] != strconv.FormatInt(w.store.Revision(), 10) || !v.ready || len(v.lines) != 2 {
			t.Errorf("the beginning is %v, %v, %s", v.hello, v.ready, v.state())
		}
		time.Sleep(3 * time.Second) // virtual, as all times here
		c.take()
		began := time.Now()
		w.put(testPod("a", "p", "n", nil))
		if got := c.take(); !strings.Contains(got, `["pod",1,"a","p",1,1,0,0,0]`) || !time.Now().Equal(began) {
			t.Errorf("after %s a change is %q", time.Since(began), got)
		}
		flushes := c.flushes
		for i := range 1000 {
			w.put(testPod("a", "p", "n", func(p *v1.Pod) { p.Status.ContainerStatuses = []v1.ContainerStatus{{RestartCount: int32(i)}} }))
			s.Trace.Add(trace.Step{Time: time.Now(), Actor: "system:node:n", Verb: "update", Subresource: "status", Resource: "pods", Namespace: "a", Name: "p", ResourceVersion: fmt.Sprint(i), CauseUID: "u", CauseVersion: "7", What: "Ready"})
		}
		got := c.take()
		time.Sleep(gap)
		got += c.take()
		v.read(got)
		if n := strings.Count(got, `["pod"`); n != 1 || v.lines["pod a/p"] != "n 1 0 - 999" || c.flushes-flushes > 1 {
			t.Errorf("1000 changes at once are %d lines in %d flushes, the last %q", n, c.flushes-flushes, v.lines["pod a/p"])
		}
		if !strings.Contains(got, `["dropped",800]`) || len(v.steps) != 200 {
			t.Errorf("of 1000 steps are sent %d: %.500s", len(v.steps), got)
		}
		if last, err := json.Marshal(v.steps[199][1:]); err != nil || string(last) != `["kubelet n","update/status","pods","a","p","199","u@7","Ready"]` {
			t.Errorf("the last step is %s, %v", last, err)
		}
		time.Sleep(3 * time.Second)
		v.read(c.take())
		if want := map[string]any{"writesPerSecond": 0.0, "watches": 7.0, "storeObjects": 2.0, "revision": strconv.FormatInt(w.store.Revision(), 10)}; !maps.Equal(v.stats, want) {
			t.Errorf("the figures are %v, want %v", v.stats, want)
		}
		c.take()
		flushes = c.flushes
		time.Sleep(5 * time.Minute)
		if got := c.take(); strings.Count(got, `["ping"`) != 30 || strings.Count(got, "\n") != 30 || c.flushes-flushes != 30 {
			t.Errorf("in five minutes without a change comes %s", got)
		}
		w.remove(testPod("a", "p", "", nil))
		if got := c.take(); !strings.Contains(got, `["gone","pod",1]`) {
			t.Errorf("the end of a pod is %q", got)
		}
		c.cancel() // as the server does when it stops
		v.read(c.take())
		<-c.ended
		if v.bye != "stop" {
			t.Errorf("the end is %q", v.bye)
		}
		c = open(t, s, "jane", "")
		time.Sleep(maxAge - time.Second)
		v.read(c.take())
		if v.bye != "stop" {
			t.Errorf("before its time a stream ends because of %q", v.bye)
		}
		time.Sleep(time.Second)
		v.read(c.take())
		<-c.ended
		if v.bye != "age" {
			t.Errorf("after its time a stream ends because of %q", v.bye)
		}
	})
}

// TestNodeLabel asks for a label of the nodes.
func TestNodeLabel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		pool := func(value string) func(*v1.Node) {
			return func(n *v1.Node) { n.Labels = map[string]string{"example.com/pool": value, "other": "x"} }
		}
		w.put(testNode("n", pool("blue")))
		s := w.stream(nil)
		c := open(t, s, "jane", "nodeLabel=example.com%2Fpool")
		if got := c.take(); !strings.Contains(got, `["node",1,"n",0,[0,0,0],"","blue"]`) {
			t.Errorf("the node is %q", got)
		}
		time.Sleep(3 * time.Second)
		c.take()
		w.put(testNode("n", pool("green")))
		if got := c.take(); !strings.Contains(got, `["node",1,"n",0,[0,0,0],"","green"]`) {
			t.Errorf("with another label the node is %q", got)
		}
		c.cancel()
		<-c.ended
		c = open(t, s, "jane", "nodeLabel=a%20b")
		<-c.ended
		if c.code != http.StatusBadRequest || !strings.Contains(c.take(), `nodeLabel \"a b\"`) {
			t.Errorf("a label that is none is answered with %d", c.code)
		}
	})
}

// TestSlow has a client that reads nothing for a while, and one that never does again.
func TestSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		s := w.stream(nil)
		c, v := open(t, s, "jane", ""), newView(t)
		v.read(c.take())
		c.stall(true)
		for i := range 5000 {
			w.put(testPod("a", fmt.Sprint(i%10), "", func(p *v1.Pod) { p.Status.ContainerStatuses = []v1.ContainerStatus{{RestartCount: int32(i)}} }))
		}
		synctest.Wait()
		time.Sleep(stall - time.Second)
		c.stall(false)
		got := c.take()
		time.Sleep(time.Second)
		got += c.take()
		v.read(got)
		if n := strings.Count(got, `["pod"`); n > 20 || v.lines["pod a/9"] != "- 0 0 - 4999" {
			t.Errorf("of 10 pods that changed 500 times come %d lines, the last %q", n, v.lines["pod a/9"])
		}
		c.stall(true)
		w.remove(testPod("a", "1", "", nil))
		time.Sleep(stall + time.Second)
		<-c.ended
		if s.open != 0 || len(s.users) != 0 {
			t.Errorf("%d streams of %d users are left", s.open, len(s.users))
		}
	})
}

// TestRights opens streams as users who may see different parts.
func TestRights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.put(testNode("n", nil))
		w.put(&appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "r", UID: "r", Labels: map[string]string{"l": "hidden"}}})
		w.put(&v1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "s"}, Data: map[string][]byte{"k": []byte("password")}})
		w.put(testPod("a", "p", "n", func(p *v1.Pod) { p.OwnerReferences = controller("ReplicaSet", "r", "r") }))
		w.put(testPod("b", "q", "", nil))
		everyone := []string{"list pods", "list nodes", "list replicasets", "list secrets"}
		for _, c := range []struct {
			name, query string
			may         []string
			want        string // the lines' names, or the error
			steps       string // their objects
			revoke      string
		}{
			{"everything", "", everyone, "node n,owner ReplicaSet/a/r,pod a/p,pod b/q", "a/p a/s b/q /n", "list nodes"},
			{"a namespace", "namespace=b", everyone, "node n,pod b/q", "b/q /n", "list pods"},
			{"pods only", "", []string{"list pods"}, "node n,owner ReplicaSet/a/r,pod a/p,pod b/q", "a/p b/q", "get " + Path},
			{"nodes only", "", []string{"list nodes"}, "node n", "/n", "list nodes"},
			{"pods of one namespace", "namespace=a", []string{"list pods in a", "list replicasets in a"}, "node n,owner ReplicaSet/a/r,pod a/p", "a/p", "list replicasets in a"},
			{"nothing", "", []string{"list replicasets", "list pods in a"}, `403 user "jane" may list neither nodes nor pods in all namespaces: bind the ClusterRole view`, "", ""},
			{"another namespace", "namespace=b", []string{"list pods in a"}, `403 user "jane" may list neither nodes nor pods in namespace b`, "", ""},
			{"no namespace's name", "namespace=a/b", everyone, `400 namespace "a/b"`, "", ""},
		} {
			p := allow(c.may...)
			s := w.stream(authorizer.AuthorizerFunc(p.authorize))
			conn, v := open(t, s, "jane", c.query), newView(t)
			got := conn.take()
			if conn.code != http.StatusOK {
				if status, text, _ := strings.Cut(c.want, " "); strconv.Itoa(conn.code) != status || !strings.Contains(got, strings.ReplaceAll(text, `"`, `\"`)) {
					t.Errorf("%s: %d %s", c.name, conn.code, got)
				}
				continue
			}
			for _, step := range []trace.Step{{Resource: "pods", Namespace: "a", Name: "p"}, {Resource: "secrets", Namespace: "a", Name: "s"}, {Resource: "pods", Namespace: "b", Name: "q"}, {Resource: "nodes", Name: "n"}} {
				s.Trace.Add(step)
			}
			time.Sleep(2 * time.Second)
			got += conn.take()
			v.read(got)
			if shown := strings.Join(slices.Sorted(maps.Keys(v.lines)), ","); shown != c.want {
				t.Errorf("%s: shown is %s, want %s", c.name, shown, c.want)
			}
			var steps []string
			for _, s := range v.steps {
				steps = append(steps, fmt.Sprintf("%s/%s", s[4], s[5]))
			}
			if all := strings.Join(steps, " "); all != c.steps {
				t.Errorf("%s: the steps are on %s, want %s", c.name, all, c.steps)
			}
			if may := v.hello["may"].(map[string]any); may["nodes"] != p.may["list nodes"] || may["deployments"] != false || may["trace"] != true {
				t.Errorf("%s: the user may %v", c.name, may)
			}
			for _, secret := range []string{"password", "cGFzc3dvcmQ", "hidden"} {
				if strings.Contains(got, secret) {
					t.Errorf("%s: the stream has %q", c.name, secret)
				}
			}
			p.revoke(c.revoke)
			time.Sleep(rightsPeriod)
			v.read(conn.take())
			<-conn.ended
			if v.bye != "rights" {
				t.Errorf("%s: without the right to %s the stream ends because of %q", c.name, c.revoke, v.bye)
			}
		}
	})
}

// TestBound opens more streams than there may be.
func TestBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newWorld(t).stream(nil)
		var all []*client
		for range maxOfUser {
			all = append(all, open(t, s, "jane", ""))
		}
		synctest.Wait()
		c := open(t, s, "jane", "")
		if got := c.take(); c.code != http.StatusTooManyRequests || c.header.Get("Retry-After") == "" || !strings.Contains(got, "close one") {
			t.Errorf("one too many of a user: %d %s", c.code, got)
		}
		for i := range maxStreams - maxOfUser {
			all = append(all, open(t, s, fmt.Sprint(i), ""))
		}
		synctest.Wait()
		if c = open(t, s, "joe", ""); c.take() == "" || c.code != http.StatusTooManyRequests {
			t.Errorf("one too many: %d", c.code)
		}
		all[0].cancel()
		<-all[0].ended
		if c = open(t, s, "joe", ""); !strings.Contains(c.take(), `["ready"]`) {
			t.Errorf("after the end of another: %d", c.code)
		}
	})
}

// TestMoment reads the picture of a moment.
func TestMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.put(testPod("a", "p", "", nil))
		then := w.store.Revision()
		w.remove(testPod("a", "p", "", nil))
		s := w.stream(nil)
		for at, want := range map[int64]string{then: "pod a/p", w.store.Revision(): ""} {
			c, v := open(t, s, "jane", fmt.Sprint("at=", at)), newView(t)
			v.read(c.take())
			<-c.ended
			if got := strings.Join(slices.Collect(maps.Keys(v.lines)), ","); got != want || !v.ready || v.hello["rv"] != fmt.Sprint(at) {
				t.Errorf("at %d there is %q, want %q; %v", at, got, want, v.hello)
			}
		}
		// What the user may see since then, he may not see as it was before.
		p := allow("list pods")
		s.Since = func(ctx context.Context, revision int64) context.Context {
			if revision == then {
				return request.WithUser(ctx, &user.DefaultInfo{Name: "early"})
			}
			return ctx
		}
		s.Authorizer = authorizer.AuthorizerFunc(func(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
			if u, _ := request.UserFrom(ctx); u.GetName() == "early" {
				return authorizer.DecisionNoOpinion, "", nil
			}
			return p.authorize(ctx, a)
		})
		if c := open(t, s, "jane", fmt.Sprint("at=", w.store.Revision())); !strings.Contains(c.take(), `["ready"]`) {
			t.Errorf("the moment since which the user may: %d", c.code)
		}
		if c := open(t, s, "jane", fmt.Sprint("at=", then)); !strings.Contains(c.take(), "since a moment after") || c.code != http.StatusForbidden {
			t.Errorf("the moment before: %d", c.code)
		}
		if err := w.store.Compact(t.Context(), w.store.Revision()); err != nil {
			t.Fatal(err)
		}
		s.Authorizer = nil
		if c := open(t, s, "jane", fmt.Sprint("at=", then)); c.take() == "" || c.code != http.StatusGone {
			t.Errorf("what is forgotten: %d", c.code)
		}
	})
}

// TestWire reads a stream over HTTP, compressed and not.
func TestWire(t *testing.T) {
	w := newWorld(t)
	w.put(testPod("a", "p", "", nil))
	s := w.stream(nil)
	for _, remote := range []string{"127.0.0.1:1", "10.1.2.3:1"} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.RemoteAddr = remote
			s.ServeHTTP(w, r)
		}))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+Path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept-Encoding", "br, gzip")
		resp, err := server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var body io.Reader = resp.Body
		if remote == "10.1.2.3:1" {
			if resp.Header.Get("Content-Encoding") != "gzip" {
				t.Errorf("for %s: %v", remote, resp.Header)
			}
			if body, err = gzip.NewReader(resp.Body); err != nil {
				t.Fatal(err)
			}
		}
		seen := ""
		until := func(want string) {
			buf := make([]byte, 10000)
			for !strings.Contains(seen, want) {
				n, err := body.Read(buf)
				if err != nil {
					t.Fatalf("for %s: %v instead of %s after %s", remote, err, want, seen)
				}
				seen += string(buf[:n])
			}
		}
		until(`["ready"]`)
		w.put(testNode("n"+remote[:2], nil))
		until(`"n` + remote[:2])
		cancel()
		resp.Body.Close()
		server.Close()
	}
}
