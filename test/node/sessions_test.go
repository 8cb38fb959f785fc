package node_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/agent"
	"keelson.dev/keelson/test/harness"
	"keelson.dev/keelson/test/harness/realnode"
)

// The runtime needs a tenth of a second of a processor for the start of each command.
var (
	sessionCount  = flag.Int("sessions", 100, "how many commands TestSessions runs at once")
	followerCount = flag.Int("followers", 1000, "how many logs TestSessions follows at once")
)

// opening is how many commands or followers begin at once: a connection to the node is given up
// after ten seconds, which a busy machine does not have for all of them.
const opening = 50

// usage counts what is open: the descriptors and goroutines of this process, which is the
// client, the API server and the agent, and the descriptors of the runtime and its shims.
type usage struct{ files, goroutines, runtime int }

func (u usage) String() string {
	return fmt.Sprintf("%d descriptors, %d goroutines and %d descriptors of the runtime", u.files, u.goroutines, u.runtime)
}

// usage closes the connections that idle, for the next requests, and counts what is open.
func (e *env) usage() usage {
	e.Helper()
	pooled, err := rest.TransportFor(e.cfg)
	if err != nil {
		e.Fatal(err)
	}
	utilnet.CloseIdleConnectionsFor(pooled)
	http.DefaultClient.CloseIdleConnections()
	u := usage{files: descriptors("self"), goroutines: runtime.NumGoroutine()}
	processes, err := os.ReadDir("/proc")
	if err != nil {
		e.Fatal(err)
	}
	sockets, folder := filepath.Dir(strings.TrimPrefix(e.runtime, "unix://")), filepath.Dir(e.logs)
	for _, p := range processes {
		// Others' processes end meanwhile.
		line, _ := os.ReadFile(filepath.Join("/proc", p.Name(), "cmdline"))
		if name, _, _ := bytes.Cut(line, []byte{0}); strings.HasPrefix(filepath.Base(string(name)), "containerd") &&
			(bytes.Contains(line, []byte(sockets)) || bytes.Contains(line, []byte(folder))) {
			u.runtime += descriptors(p.Name())
		}
	}
	return u
}

// descriptors returns how many a process has open.
func descriptors(pid string) int {
	files, _ := os.ReadDir(filepath.Join("/proc", pid, "fd"))
	return len(files)
}

// streaming returns the goroutines that serve a session or a follower, grouped by their stacks.
func streaming(t testing.TB) []string {
	t.Helper()
	var all bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&all, 1); err != nil {
		t.Fatal(err)
	}
	var out []string
	for group := range strings.SplitSeq(all.String(), "\n\n") {
		for _, part := range []string{"client-go/tools/remotecommand.", "k8s.io/streaming/", "/websocket.", "/util/proxy.", "internal/node/logs."} {
			if strings.Contains(group, part) {
				out = append(out, group)
				break
			}
		}
	}
	return out
}

// TestSessions checks that many commands run and many logs are followed at once, each with
// its own data, and that nothing is left of them: no process, and as many descriptors and
// goroutines as before.
func TestSessions(t *testing.T) {
	n := realnode.Start(t, agent.Options{})
	n.Config.QPS = -1 // all at once
	e := &env{t, kubernetes.NewForConfigOrDie(n.Config), n.Config, n.Runtime, n.Logs, n.Manifests}
	e.create(sleeper("runs"))
	web := sleeper("logs")
	web.Spec.Containers[0].Args = nil // the web server logs its requests
	e.create(web)
	p := e.pod("runs", ready)
	address := e.pod("logs", ready)
	harness.Eventually(t, "the web server", func() bool { return e.answers(address) })
	e.exec("runs", "c", "typed\n", "/bin/demo", "cat")
	processes := func() (n int) {
		for _, pattern := range []string{"/sys/fs/cgroup/pids/*/kubepods/*/pod%s/*/cgroup.procs", "/sys/fs/cgroup/*/kubepods/*/pod%s/*/cgroup.procs"} {
			files, _ := filepath.Glob(fmt.Sprintf(pattern, p.UID))
			for _, f := range files {
				text, _ := os.ReadFile(f)
				n += len(strings.Fields(string(text)))
			}
			if n > 0 {
				return n
			}
		}
		return n
	}
	idle := processes()
	if idle == 0 {
		t.Fatal("the pod's processes are not found")
	}
	quiet := func() error {
		if left := streaming(t); len(left) > 0 {
			return fmt.Errorf("goroutines of sessions or followers are left:\n%s", strings.Join(left, "\n\n"))
		}
		return nil
	}
	harness.Succeeds(t, "the end of the first session", quiet)
	before := e.usage()
	harness.Eventually(t, "quiet", func() bool {
		last := before
		before = e.usage()
		return before == last
	})
	t.Run("Exec", func(t *testing.T) {
		(&env{t, e.client, e.cfg, e.runtime, e.logs, e.manifests}).manySessions(*sessionCount)
	})
	t.Run("Logs", func(t *testing.T) {
		(&env{t, e.client, e.cfg, e.runtime, e.logs, e.manifests}).manyFollowers(*followerCount, "http://"+address.Status.PodIP+"/")
	})
	// What one of them left each time would be as many as they were. The rest of the cluster
	// opens and closes connections of its own meanwhile, which are few.
	others := min(*sessionCount, *followerCount) / 4
	harness.Succeeds(t, "the end of all sessions", func() error {
		n, now := processes(), e.usage()
		if n > idle || now.files > before.files+others || now.goroutines > before.goroutines+others || now.runtime > before.runtime+others {
			return fmt.Errorf("%d processes and %s; before the sessions it was %d and %s", n, now, idle, before)
		}
		t.Logf("before: %s; after: %s", before, now)
		return quiet()
	})
	e.remove("runs")
	e.remove("logs")
}

// manySessions holds n commands open at once, each of which answers what it is sent.
func (e *env) manySessions(n int) {
	ctx, cancel := context.WithCancel(e.Context())
	defer cancel()
	type session struct {
		in  *io.PipeWriter
		out *bufio.Reader
	}
	sessions := make([]session, n)
	turns := make(chan struct{}, opening)
	req := e.client.CoreV1().RESTClient().Get().Resource("pods").Namespace("default").Name("runs").SubResource("exec").
		VersionedParams(&v1.PodExecOptions{Container: "c", Command: []string{"/bin/demo", "cat"}, Stdin: true, Stdout: true}, scheme.ParameterCodec)
	errs := make(chan error, 3*n)
	var ended sync.WaitGroup
	for i := range sessions {
		x, err := remotecommand.NewWebSocketExecutor(e.cfg, "GET", req.URL().String())
		if err != nil {
			e.Fatal(err)
		}
		in, typed := io.Pipe()
		shown, out := io.Pipe()
		sessions[i] = session{typed, bufio.NewReader(shown)}
		ended.Go(func() {
			turns <- struct{}{} // until it has answered
			err := x.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: in, Stdout: out})
			out.CloseWithError(errors.Join(err, io.EOF))
			in.Close()
			if err != nil {
				errs <- fmt.Errorf("session %d: %w", i, err)
			}
		})
	}
	says := func(round string) {
		var all sync.WaitGroup
		for i, s := range sessions {
			all.Go(func() {
				want := fmt.Sprintf("%s %d\n", round, i)
				got := ""
				_, err := io.WriteString(s.in, want)
				if err == nil {
					got, err = s.out.ReadString('\n')
				}
				if round == "first" {
					<-turns
				}
				if err != nil || got != want {
					errs <- fmt.Errorf("session %d answers %q (%w), want %q", i, got, err, want)
				}
			})
		}
		all.Wait()
	}
	begun := time.Now()
	says("first") // which all have begun by
	e.Logf("%d sessions have answered after %s", n, time.Since(begun))
	says("second")
	for _, s := range sessions {
		s.in.Close()
	}
	ended.Wait()
	close(errs)
	for err := range errs {
		e.Error(err)
	}
}

// manyFollowers follows the log of a web server n times at once.
func (e *env) manyFollowers(n int, url string) {
	ctx, cancel := context.WithCancel(e.Context())
	defer cancel()
	logs, streams := make([]*bufio.Reader, n), make([]io.ReadCloser, n)
	var all sync.WaitGroup
	turns := make(chan struct{}, opening)
	begun := time.Now()
	for i := range logs {
		all.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			r, err := e.client.CoreV1().Pods("default").GetLogs("logs", &v1.PodLogOptions{Follow: true, TailLines: ptr.To[int64](0)}).Stream(ctx)
			if err != nil {
				e.Errorf("follower %d: %v", i, err)
				return
			}
			logs[i], streams[i] = bufio.NewReader(r), r
		})
	}
	all.Wait()
	e.Logf("%d logs are followed after %s", n, time.Since(begun))
	if e.Failed() {
		e.FailNow()
	}
	for _, path := range []string{"first", "second"} {
		e.get(url + path)
		var all sync.WaitGroup
		for i, l := range logs {
			all.Go(func() {
				if got, err := l.ReadString('\n'); err != nil || !strings.HasPrefix(got, "GET /"+path+" from ") {
					e.Errorf("follower %d has %q (%v) of the request for %s", i, got, err, path)
				}
			})
		}
		all.Wait()
	}
	for _, c := range streams {
		c.Close()
	}
}
