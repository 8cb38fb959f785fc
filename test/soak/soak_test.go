package soak

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/time/rate"
	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"keelson.dev/keelson/internal/apiserver/controlplane"
	"keelson.dev/keelson/internal/cluster"
	"keelson.dev/keelson/test/harness"
)

var (
	period    = flag.Duration("for", 6*time.Second, "how long the clients work")
	watches   = flag.Int("watches", 100, "number of concurrent watches")
	writers   = flag.Int("writers", 25, "number of concurrent writers")
	perSecond = flag.Float64("rate", 200, "writes per second, of all writers together")
	binary    = flag.String("keelson", "", "binary to run as the server (default: this test)")
	profiles  = flag.String("profiles", "", "folder for profiles of the server's heap in the middle and at the end")
)

const (
	serverDir     = "KEELSON_SOAK_DIR"
	serverAddress = "KEELSON_SOAK_ADDRESS"
)

// TestMain is the server itself where the test starts it as such.
func TestMain(m *testing.M) {
	if dir := os.Getenv(serverDir); dir != "" {
		serve(dir, os.Getenv(serverAddress))
		return
	}
	flag.Parse()
	os.Exit(m.Run())
}

func serve(dir, address string) {
	c, err := cluster.Start(context.Background(), cluster.Options{Options: controlplane.Options{DataDir: dir, Listen: address}})
	if err == nil {
		var cfg []byte
		k, kerr := c.Kubeconfig("soak")
		if err = kerr; err == nil {
			cfg, err = clientcmd.Write(*k)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "admin.kubeconfig"), cfg, 0o600)
		}
	}
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// start starts the server and returns its process and its administrator's client.
func start(t *testing.T) (*harness.Process, *rest.Config) {
	t.Helper()
	address, dir := harness.FreeAddress(t), t.TempDir()
	p := harness.StartProcess(t, func() *exec.Cmd {
		if *binary != "" {
			return exec.Command(*binary, "server", "--no-node", "--data-dir="+dir, "--listen="+address)
		}
		return harness.Self(serverDir+"="+dir, serverAddress+"="+address)
	})
	cfg, err := clientcmd.BuildConfigFromFlags("", filepath.Join(dir, "admin.kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	return p, cfg
}

// memory returns the resident memory of the process, in bytes.
func memory(t *testing.T, pid int) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// heap returns the server's heap in use after a garbage collection, in bytes.
func (s *soak) heap(at string) int64 {
	s.t.Helper()
	if *profiles != "" {
		code, b, err := s.ask(s.t.Context(), "GET", "/debug/pprof/heap?gc=1", "", "")
		if err == nil && code == http.StatusOK {
			err = os.WriteFile(filepath.Join(*profiles, at+".pprof"), b, 0o600)
		}
		if err != nil || code != http.StatusOK {
			s.t.Errorf("the heap's profile: %d, %v", code, err)
		}
	}
	_, b, err := s.ask(s.t.Context(), "GET", "/debug/pprof/heap?gc=1&debug=1", "", "")
	_, found, _ := strings.Cut(string(b), "\n# HeapAlloc = ")
	found, _, _ = strings.Cut(found, "\n")
	n, perr := strconv.ParseInt(found, 10, 64)
	if err != nil || perr != nil {
		s.t.Fatalf("the heap's size: %v, %v", err, perr)
	}
	return n
}

// The bounds of the history that the server keeps for watches and for keelson trace: the
// number of changes, their age, and the size of each in bytes. Memory grows until the
// history has reached them.
const (
	remembered    = 100_000
	rememberedFor = 5 * time.Minute
	changeSize    = 2 << 10
	// noise is the number of bytes by which the heap may differ for other reasons.
	noise = 24 << 20
)

// spaces returns the number of namespaces that the objects are in: a watch sees one of
// them, some see all.
func spaces() int { return min(50, *writers) }

func namespace(i int) string { return "soak-" + strconv.Itoa(i%spaces()) }

type soak struct {
	t    *testing.T
	host string
	http *http.Client
	// made has, by writer, the number of the last write that was answered. A writer
	// has one object, whose writes are numbered.
	made []atomic.Int64

	mu        sync.Mutex
	failures  int
	latencies []time.Duration
	events    atomic.Int64
	resumed   atomic.Int64
}

// fail records a failure; only the first few are logged.
func (s *soak) fail(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failures++; s.failures <= 20 {
		s.t.Errorf(format, args...)
	}
}

func (s *soak) ask(ctx context.Context, method, path, contentType, body string) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, s.host+path, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", contentType)
	resp, err := s.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, b, err
}

// write has writer i write until ctx is done, when it is its turn.
func (s *soak) write(ctx context.Context, i int, turn *rate.Limiter) {
	base := "/api/v1/namespaces/" + namespace(i) + "/configmaps"
	name := "w-" + strconv.Itoa(i)
	exists := false
	for n := int64(1); turn.Wait(ctx) == nil; {
		begin := time.Now()
		var code int
		var b []byte
		var err error
		wrote := true
		switch {
		case !exists:
			code, b, err = s.ask(s.t.Context(), "POST", base, "application/json", fmt.Sprintf(`{"metadata":{"name":%q},"data":{"n":"%d"}}`, name, n))
			exists = true
		case rand.IntN(20) == 0:
			code, b, err = s.ask(s.t.Context(), "DELETE", base+"/"+name, "", "")
			exists, wrote = false, false
		default:
			code, b, err = s.ask(s.t.Context(), "PATCH", base+"/"+name, "application/merge-patch+json", fmt.Sprintf(`{"data":{"n":"%d"}}`, n))
		}
		if err != nil || code >= 300 {
			s.fail("%s: write %d was not done: %d %s %v", name, n, code, b, err)
			return
		}
		if wrote {
			s.made[i].Store(n)
			n++
		}
		s.mu.Lock()
		s.latencies = append(s.latencies, time.Since(begin))
		s.mu.Unlock()
	}
}

// between returns the text in b between before and the next quotation mark.
func between(b []byte, before string) string {
	_, rest, found := bytes.Cut(b, []byte(before))
	if !found {
		return ""
	}
	end := bytes.IndexByte(rest, '"')
	return string(rest[:max(end, 0)])
}

// watcher sees the objects of one namespace, or of all.
type watcher struct {
	*soak
	path     string
	revision string
	slow     bool
	// hangUp is the number of events after which it begins another watch, from the
	// last revision; 0 means never.
	hangUp int
	mine   func(writer int) bool
	seen   map[int]int64 // the last write that it saw, by writer
}

// watch follows the objects until ctx is done and it has seen all writes.
func (w *watcher) watch(ctx context.Context, stopped <-chan struct{}) {
	for ctx.Err() == nil && !w.done(stopped) {
		if err := w.once(ctx, stopped); err != nil && ctx.Err() == nil {
			w.fail("%s from %s: %v", w.path, w.revision, err)
			return
		}
	}
}

func (w *watcher) once(ctx context.Context, stopped <-chan struct{}) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", w.host+w.path+"?watch=true&allowWatchBookmarks=true&resourceVersion="+w.revision, nil)
	if err != nil {
		return err
	}
	resp, err := w.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s", resp.Status)
	}
	r := bufio.NewReader(resp.Body)
	for n := 1; !w.done(stopped); n++ {
		line, err := r.ReadBytes('\n')
		if err == io.EOF { //nolint:errorlint // io.EOF is never wrapped here
			w.resumed.Add(1)
			return nil // the server has ended the watch
		}
		if err != nil {
			return err
		}
		if err := w.event(line); err != nil {
			return err
		}
		if w.hangUp > 0 && n == w.hangUp {
			w.resumed.Add(1)
			return nil
		}
		if w.slow {
			time.Sleep(20 * time.Millisecond)
		}
	}
	return nil
}

// event checks that the event is the next of its object.
func (w *watcher) event(line []byte) error {
	w.events.Add(1)
	kind, revision := between(line, `{"type":"`), between(line, `"resourceVersion":"`)
	if kind == "ERROR" {
		return fmt.Errorf("an error event: %s", line)
	}
	w.revision = revision
	if kind == "BOOKMARK" {
		return nil
	}
	name, ours := strings.CutPrefix(between(line, `"metadata":{"name":"`), "w-")
	if !ours {
		return nil // kube-root-ca.crt, which every namespace has
	}
	i, err := strconv.Atoi(name)
	if err != nil {
		return fmt.Errorf("%w: %s", err, line)
	}
	n, err := strconv.ParseInt(between(line, `"data":{"n":"`), 10, 64)
	if err != nil {
		return fmt.Errorf("%w: %s", err, line)
	}
	want := w.seen[i] + 1
	if kind == "DELETED" {
		want--
	}
	if n != want {
		w.fail("%s: %s of w-%d with write %d, want %d", w.path, kind, i, n, want)
	}
	w.seen[i] = n
	return nil
}

// done reports whether it has seen everything, after the writers have stopped.
func (w *watcher) done(stopped <-chan struct{}) bool {
	select {
	case <-stopped:
	default:
		return false
	}
	for i := range w.made {
		if w.mine(i) && w.seen[i] < w.made[i].Load() {
			return false
		}
	}
	return true
}

// sample is a measurement of the server at one time.
type sample struct {
	at               time.Time
	resident, writes int64
}

// median returns the median of the samples' resident memory.
func median(of []sample) int64 {
	s := slices.SortedFunc(slices.Values(of), func(a, b sample) int { return cmp.Compare(a.resident, b.resident) })
	return s[len(s)/2].resident
}

func TestSoak(t *testing.T) {
	server, cfg := start(t)
	rt, err := rest.TransportFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s := &soak{t: t, host: cfg.Host, http: &http.Client{Transport: rt}, made: make([]atomic.Int64, *writers)}
	for i := range spaces() {
		if code, b, err := s.ask(t.Context(), "POST", "/api/v1/namespaces", "application/json", fmt.Sprintf(`{"metadata":{"name":%q}}`, namespace(i))); err != nil || code != http.StatusCreated {
			t.Fatal(code, string(b), err)
		}
	}
	_, b, err := s.ask(t.Context(), "GET", "/api/v1/configmaps", "", "")
	if err != nil {
		t.Fatal(err)
	}
	var list v1.ConfigMapList
	if err := json.Unmarshal(b, &list); err != nil {
		t.Fatal(err)
	}
	// An event that takes too long after the writers have stopped counts as missed.
	ctx, cancel := context.WithTimeout(t.Context(), *period+2*time.Minute)
	defer cancel()
	stopped := make(chan struct{})
	var watching, writing sync.WaitGroup
	var all []*watcher
	for i := range *watches {
		w := &watcher{soak: s, path: "/api/v1/namespaces/" + namespace(i) + "/configmaps", revision: list.ResourceVersion, seen: map[int]int64{},
			mine: func(writer int) bool { return writer%spaces() == i%spaces() }}
		switch {
		case i%200 == 199:
			w.path, w.mine = "/api/v1/configmaps", func(int) bool { return true }
		case i%10 == 9:
			w.hangUp = 5 + rand.IntN(20)
		case i%50 == 1:
			w.slow = true
		}
		all = append(all, w)
		watching.Go(func() { w.watch(ctx, stopped) })
	}
	work, stop := context.WithTimeout(ctx, *period)
	defer stop()
	turn := rate.NewLimiter(rate.Limit(*perSecond), 10)
	for i := range *writers {
		writing.Go(func() { s.write(work, i, turn) })
	}
	var samples []sample
	begin, told := time.Now(), time.Now()
	every := time.NewTicker(min(time.Second, *period/40))
	defer every.Stop()
	var middle, kept int64 // the heap and the number of changes in the middle
	for work.Err() == nil {
		select {
		case <-every.C:
			now := sample{time.Now(), memory(t, server.Pid()), int64(s.count())}
			samples = append(samples, now)
			if middle == 0 && time.Since(begin) >= *period/2 {
				middle, kept = s.heap("middle"), changes(samples)
			}
			if time.Since(told) >= time.Minute {
				told = now.at
				t.Logf("after %v: %d MB, %d writes, %d events", time.Since(begin).Round(time.Second), now.resident>>20, now.writes, s.events.Load())
			}
		case <-work.Done():
		}
	}
	writing.Wait()
	end := s.heap("end")
	// A last write for each object: each watch must reach its event.
	for i := range s.made {
		s.made[i].Add(1)
	}
	close(stopped)
	for i := range s.made {
		base, name, n := "/api/v1/namespaces/"+namespace(i)+"/configmaps", "w-"+strconv.Itoa(i), s.made[i].Load()
		code, b, err := s.ask(t.Context(), "PATCH", base+"/"+name, "application/merge-patch+json", fmt.Sprintf(`{"data":{"n":"%d"}}`, n))
		if code == http.StatusNotFound {
			code, b, err = s.ask(t.Context(), "POST", base, "application/json", fmt.Sprintf(`{"metadata":{"name":%q},"data":{"n":"%d"}}`, name, n))
		}
		if err != nil || code >= 300 {
			s.fail("%s: the last write was not done: %d %s %v", name, code, b, err)
		}
	}
	watching.Wait()
	for _, w := range all {
		if !w.done(stopped) {
			s.fail("%s did not see every write", w.path)
		}
	}
	if s.failures > 0 {
		t.Errorf("%d failures in all", s.failures)
	}
	slices.Sort(s.latencies)
	quarter := len(samples) / 4
	second, third, last := median(samples[quarter:2*quarter]), median(samples[2*quarter:3*quarter]), median(samples[3*quarter:])
	t.Logf("%d writes (median %v, 99th of 100 %v, longest %v), %d events to %d watches, %d of them resumed; resident: %d, %d and %d MB in the second to the last quarter",
		len(s.latencies), s.latencies[len(s.latencies)/2], s.latencies[len(s.latencies)*99/100], s.latencies[len(s.latencies)-1],
		s.events.Load(), *watches, s.resumed.Load(), second>>20, third>>20, last>>20)
	if last > third+third/5+32<<20 {
		t.Errorf("resident memory grew from %d to %d MB in the second half", third>>20, last>>20)
	}
	more := changes(samples) - kept
	t.Logf("the heap: %d KB in the middle, %d KB at the end, with %d more changes in the history", middle>>10, end>>10, more)
	if end > middle+noise+max(more, 0)*changeSize {
		t.Errorf("the heap grew from %d to %d MB in the second half", middle>>20, end>>20)
	}
	if err := syscall.Kill(server.Pid(), 0); err != nil {
		t.Errorf("the server has ended: %v", err)
	}
}

// changes returns how many of the writes are in the server's history at the last
// sample.
func changes(samples []sample) int64 {
	last := samples[len(samples)-1]
	n := last.writes
	for i := range samples {
		if last.at.Sub(samples[i].at) >= rememberedFor {
			n = last.writes - samples[i].writes
		}
	}
	return min(n, remembered)
}

func (s *soak) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.latencies)
}
