package linearizability

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"keelson.dev/keelson/internal/apiserver/controlplane"
	"keelson.dev/keelson/internal/cluster"
	"keelson.dev/keelson/internal/store/etcd"
	"keelson.dev/keelson/test/harness"
	"keelson.dev/keelson/test/harness/etcdtest"
)

var period = flag.Duration("for", 6*time.Second, "how long the clients work")

// TestMain is the server itself where a test starts it as such.
func TestMain(m *testing.M) {
	if dir := os.Getenv(serverDir); dir != "" {
		serve(dir, os.Getenv(serverAddress), os.Getenv(serverEtcd), os.Getenv(serverForgetful) != "")
		return
	}
	flag.Parse()
	os.Exit(m.Run())
}

const (
	serverDir       = "KEELSON_LINEARIZABILITY_DIR"
	serverAddress   = "KEELSON_LINEARIZABILITY_ADDRESS"
	serverEtcd      = "KEELSON_LINEARIZABILITY_ETCD"
	serverForgetful = "KEELSON_LINEARIZABILITY_FORGETFUL"
)

func serve(dir, address, servers string, forgetful bool) {
	o := cluster.Options{Options: controlplane.Options{DataDir: dir, Listen: address}, NoControllers: true, NoScheduler: true}
	if servers != "" {
		o.Etcd = &etcd.Options{Servers: []string{servers}}
	}
	c, err := cluster.Start(context.Background(), o)
	var cfg []byte
	if err == nil {
		k, kerr := c.Kubeconfig("test")
		if err = kerr; err == nil {
			cfg, err = clientcmd.Write(*k)
		}
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "kubeconfig"), cfg, 0o600)
	}
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	if forgetful {
		go forget(c)
	}
	fmt.Println("ready")
	// The pipe is closed when the process that started this one has gone.
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// forget compacts the store again and again, except for the last few changes.
func forget(c *cluster.Cluster) {
	for {
		time.Sleep(time.Duration(rand.IntN(300)) * time.Millisecond)
		if revision := c.Store.Revision() - rand.Int64N(2000); revision > 1 {
			_ = c.Store.Compact(context.Background(), revision) // it may be compacted already
		}
	}
}

// server is a process that serves, and is killed and started again.
type server struct {
	t            *testing.T
	dir, address string
	etcd         string
	forgetful    bool
	process      *harness.Process
	kills        int
}

// start starts the server; it ends with the test.
func (s *server) start() {
	s.t.Helper()
	s.process = harness.StartProcess(s.t, func() *exec.Cmd {
		env := []string{serverDir + "=" + s.dir, serverAddress + "=" + s.address, serverEtcd + "=" + s.etcd}
		if s.forgetful {
			env = append(env, serverForgetful+"=1")
		}
		return harness.Self(env...)
	})
}

// restart kills the server and starts it again.
func (s *server) restart() {
	s.t.Helper()
	s.process.Kill()
	s.kills++
	s.process.Start()
}

// client does operations and records them.
type client struct {
	id    int
	http  *http.Client
	host  string
	begin time.Time
	own   []porcupine.Operation
	lists []listing
}

// listing is a consistent list.
type listing struct {
	revision int64
	items    map[string]int64
}

const objects = "/api/v1/namespaces/default/configmaps"

var (
	errUnknown = errors.New("no answer")
	values     atomic.Int64
)

// ask returns the answer's code and body, or errUnknown.
func (c *client) ask(method, path, contentType, body string) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, c.host+path, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", contentType)
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, nil, errUnknown
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests {
		return 0, nil, errUnknown
	}
	return resp.StatusCode, bytes.Clone(b), nil
}

func read(b []byte) (value int, revision int64) {
	var m v1.ConfigMap
	if json.Unmarshal(b, &m) != nil {
		return 0, 0
	}
	value, _ = strconv.Atoi(m.Data["v"])
	revision, _ = strconv.ParseInt(m.ResourceVersion, 10, 64)
	return value, revision
}

// do sends the operation and records it. It returns the revision that the answer
// had.
func (c *client) do(in operation) int64 {
	called := time.Since(c.begin).Nanoseconds()
	object := func(revision string) string {
		return fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":%q%s},"data":{"v":"%d"}}`, in.key, revision, in.value)
	}
	var code int
	var b []byte
	var err error
	switch in.verb {
	case "create":
		code, b, err = c.ask("POST", objects, "application/json", object(""))
	case "get":
		code, b, err = c.ask("GET", objects+"/"+in.key, "", "")
	case "update":
		code, b, err = c.ask("PUT", objects+"/"+in.key, "application/json", object(fmt.Sprintf(`,"resourceVersion":"%d"`, in.revision)))
	case "patch":
		code, b, err = c.ask("PATCH", objects+"/"+in.key, "application/merge-patch+json", fmt.Sprintf(`{"data":{"v":"%d"}}`, in.value))
	case "delete":
		code, b, err = c.ask("DELETE", objects+"/"+in.key, "", "")
	}
	o := porcupine.Operation{ClientId: c.id, Input: in, Call: called, Return: time.Since(c.begin).Nanoseconds()}
	switch {
	case err != nil && in.verb == "get":
		return 0 // a read without an answer has no effect
	case err != nil:
		o.Output, o.Return = outcome{unknown: true}, math.MaxInt64
	default:
		value, revision := read(b)
		o.Output = outcome{code: code, value: value, revision: revision}
		if code >= 400 {
			o.Output = outcome{code: code}
		}
		c.own = append(c.own, o)
		return revision
	}
	c.own = append(c.own, o)
	// A client has one operation at a time, and this one may still be pending:
	// the next one counts as another client's.
	c.id += 1000
	return 0
}

func (c *client) list() {
	_, b, err := c.ask("GET", objects, "", "")
	if err != nil {
		return
	}
	var l v1.ConfigMapList
	if json.Unmarshal(b, &l) != nil {
		return
	}
	rev, _ := strconv.ParseInt(l.ResourceVersion, 10, 64)
	at := listing{rev, map[string]int64{}}
	for i := range l.Items {
		at.items[l.Items[i].Name], _ = strconv.ParseInt(l.Items[i].ResourceVersion, 10, 64)
	}
	c.lists = append(c.lists, at)
}

// work sends random operations until ctx is done.
func (c *client) work(ctx context.Context, keys int) {
	for ctx.Err() == nil {
		in := operation{key: "k" + strconv.Itoa(rand.IntN(keys)), value: int(values.Add(1))}
		switch n := rand.IntN(100); {
		case n < 25:
			in.verb, in.value = "get", 0
		case n < 45:
			in.verb = "create"
		case n < 60:
			in.verb = "patch"
		case n < 75:
			in.verb, in.value = "delete", 0
		case n < 80:
			c.list()
			continue
		default:
			get := in
			get.verb, get.value = "get", 0
			if in.revision = c.do(get); in.revision == 0 {
				continue
			}
			in.verb = "update"
		}
		if c.do(in); len(c.own) > 0 && c.own[len(c.own)-1].Output.(outcome).unknown {
			time.Sleep(20 * time.Millisecond) // the server is down: with many lost requests the search for an order takes too long
		}
	}
}

// run runs clients on servers, to one of which chaos is done, and checks their
// history.
func run(t *testing.T, servers []*server, chaos func(ctx context.Context)) {
	const keys, perServer = 5, 4
	ctx, cancel := context.WithTimeout(t.Context(), *period)
	defer cancel()
	begin := time.Now()
	var clients []*client
	var wg sync.WaitGroup
	for _, s := range servers {
		cfg, err := clientcmd.BuildConfigFromFlags("", filepath.Join(s.dir, "kubeconfig"))
		if err != nil {
			t.Fatal(err)
		}
		for range perServer {
			rt, err := rest.TransportFor(rest.CopyConfig(cfg))
			if err != nil {
				t.Fatal(err)
			}
			c := &client{id: len(clients), http: &http.Client{Transport: rt}, host: cfg.Host, begin: begin}
			clients = append(clients, c)
			wg.Go(func() { c.work(ctx, keys) })
		}
	}
	chaos(ctx)
	wg.Wait()
	var history []porcupine.Operation
	written := map[string][]int64{} // revisions of acknowledged writes
	unknown := 0
	for _, c := range clients {
		history = append(history, c.own...)
		for _, o := range c.own {
			in, out := o.Input.(operation), o.Output.(outcome)
			if out.unknown {
				unknown++
			} else if in.verb != "get" && in.verb != "delete" && out.code < 300 {
				written[in.key] = append(written[in.key], out.revision)
			}
		}
	}
	lists := 0
	for _, c := range clients {
		for _, l := range c.lists {
			lists++
			for key, revision := range l.items {
				for _, w := range written[key] {
					if w > revision && w <= l.revision {
						t.Errorf("a list at %d has %s at %d, which was written at %d", l.revision, key, revision, w)
					}
				}
			}
		}
	}
	result, info := porcupine.CheckOperationsVerbose(model(), history, time.Minute)
	t.Logf("%d operations, %d of them without an answer, and %d lists: %s", len(history), unknown, lists, result)
	if result == porcupine.Illegal {
		path := filepath.Join(os.TempDir(), "keelson-linearizability.html")
		if err := porcupine.VisualizePath(model(), info, path); err == nil {
			t.Logf("see %s", path)
		}
		t.Error("the clients did not see one order")
	}
	if result == porcupine.Unknown {
		t.Log("the history is too entangled to be judged in a minute")
	}
	if len(history) < 100 {
		t.Errorf("only %d operations", len(history))
	}
}

// TestKilled checks the history of clients whose server is killed over and over.
func TestKilled(t *testing.T) {
	s := &server{t: t, dir: t.TempDir(), address: harness.FreeAddress(t)}
	s.start()
	run(t, []*server{s}, func(ctx context.Context) {
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Duration(200+rand.IntN(600)) * time.Millisecond):
				s.restart()
			}
		}
	})
	if s.kills < 3 {
		t.Errorf("the server was killed %d times", s.kills)
	}
}

// TestTwoServers checks the history of clients of two servers on one etcd, one of
// which is killed over and over.
func TestTwoServers(t *testing.T) {
	e := etcdtest.Start(t)
	var servers []*server
	for i := range 2 {
		s := &server{t: t, dir: t.TempDir(), address: harness.FreeAddress(t), etcd: e.URL}
		if i > 0 {
			if err := os.CopyFS(filepath.Join(s.dir, "pki"), os.DirFS(filepath.Join(servers[0].dir, "pki"))); err != nil {
				t.Fatal(err)
			}
		}
		s.start()
		servers = append(servers, s)
	}
	run(t, servers, func(ctx context.Context) {
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Duration(500+rand.IntN(1000)) * time.Millisecond):
				servers[1].restart()
			}
		}
	})
}

// TestModel checks that the judge refuses histories that are wrong.
func TestModel(t *testing.T) {
	at := func(call, end int64, in operation, out outcome) porcupine.Operation {
		return porcupine.Operation{Input: in, Output: out, Call: call, Return: end}
	}
	create := at(0, 1, operation{verb: "create", key: "a", value: 1}, outcome{code: 201, revision: 5})
	for name, c := range map[string]struct {
		ops  []porcupine.Operation
		want bool
	}{
		"a read of what was written": {[]porcupine.Operation{create, at(2, 3, operation{verb: "get", key: "a"}, outcome{code: 200, value: 1, revision: 5})}, true},
		"a lost write":               {[]porcupine.Operation{create, at(2, 3, operation{verb: "get", key: "a"}, outcome{code: 404})}, false},
		"a stale read": {[]porcupine.Operation{create, at(2, 3, operation{verb: "patch", key: "a", value: 2}, outcome{code: 200, revision: 6}),
			at(4, 5, operation{verb: "get", key: "a"}, outcome{code: 200, value: 1, revision: 5})}, false},
		"a lost update": {[]porcupine.Operation{create, at(2, 3, operation{verb: "patch", key: "a", value: 2}, outcome{code: 200, revision: 6}),
			at(4, 5, operation{verb: "update", key: "a", value: 3, revision: 5}, outcome{code: 200, revision: 7})}, false},
		"an unanswered write that was done": {[]porcupine.Operation{create, at(2, math.MaxInt64, operation{verb: "delete", key: "a"}, outcome{unknown: true}),
			at(4, 5, operation{verb: "get", key: "a"}, outcome{code: 404})}, true},
		"an unanswered write that was undone": {[]porcupine.Operation{create, at(2, math.MaxInt64, operation{verb: "delete", key: "a"}, outcome{unknown: true}),
			at(4, 5, operation{verb: "get", key: "a"}, outcome{code: 404}), at(6, 7, operation{verb: "get", key: "a"}, outcome{code: 200, value: 1, revision: 5})}, false},
	} {
		if got := porcupine.CheckOperations(model(), c.ops); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
