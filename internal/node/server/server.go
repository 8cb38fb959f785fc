package server

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	machineryproxy "k8s.io/apimachinery/pkg/util/proxy"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubeletconfig "k8s.io/kubelet/config/v1beta1"

	"keelson.dev/keelson/internal/flagvalue"
	"keelson.dev/keelson/internal/node/cri"
	"keelson.dev/keelson/internal/node/logs"
	"keelson.dev/keelson/internal/node/nodemetrics"
	"keelson.dev/keelson/internal/node/stats"
)

// Agent has the methods of the node agent that the server needs.
type Agent interface {
	CRI() *cri.Client
	Pods() []*v1.Pod
	ContainerID(namespace, name string, uid types.UID, container string, previous bool) (id, logPath string, err error)
	// Running reports whether the container of this ID runs.
	Running(ctx context.Context, namespace, name, container, id string) bool
	Sandbox(namespace, name string) (string, error)
	Stats() *stats.Provider
	Metrics() *nodemetrics.Metrics
	// Configuration returns the agent's settings.
	Configuration() *kubeletconfig.KubeletConfiguration
}

// Options turn parts of the server off; the zero value is a kubelet's default.
type Options struct {
	// NoDebugging turns off the logs of containers and of the machine, commands and
	// connections to containers, and profiles.
	NoDebugging bool
	// NoProfiling and NoDebugFlags turn off /debug/pprof and /debug/flags.
	NoProfiling, NoDebugFlags bool
	// NoSystemLogs turns off /logs; SystemLogQuery makes it answer queries.
	NoSystemLogs, SystemLogQuery bool
}

// AddFlags adds the flags for what a kubelet's configuration says of them.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	flagvalue.NotVar(fs, &o.NoDebugging, "enable-debugging-handlers", "serve the logs of containers and of the machine, exec, attach, port-forward and profiles")
	flagvalue.NotVar(fs, &o.NoProfiling, "enable-profiling-handler", "serve profiles at /debug/pprof")
	flagvalue.NotVar(fs, &o.NoDebugFlags, "enable-debug-flags-handler", "let the level of the log be set at /debug/flags/v")
	flagvalue.NotVar(fs, &o.NoSystemLogs, "enable-system-log-handler", "serve the files of /var/log at /logs")
	fs.BoolVar(&o.SystemLogQuery, "enable-system-log-query", false, "answer queries for the logs of the machine's services at /logs?query=")
}

// off returns the answer to requests for a path that is turned off, "" for others.
func (o *Options) off(path string) string {
	part, rest, _ := strings.Cut(path, "/")
	switch part {
	case "run", "exec", "attach", "portForward", "containerLogs", "runningpods", "debug", "logs":
		if o.NoDebugging {
			return "Debug endpoints are disabled."
		}
	}
	switch {
	case part == "logs" && o.NoSystemLogs:
		return "logs endpoint is disabled."
	case part == "debug" && strings.HasPrefix(rest, "pprof") && o.NoProfiling:
		return "profiling endpoint is disabled."
	case part == "debug" && strings.HasPrefix(rest, "flags") && o.NoDebugFlags:
		return "flags endpoint is disabled."
	}
	return ""
}

// New makes the handler, of which each caller gets as much as access allows.
func New(a Agent, access *Access, o Options) http.Handler { return access.Guard((&server{a, o}).mux()) }

type server struct {
	a Agent
	o Options
}

func logOptions(q url.Values) (*v1.PodLogOptions, error) {
	o := &v1.PodLogOptions{}
	var err error
	flag := func(name string) bool {
		v := q.Get(name)
		if v == "" || err != nil {
			return false
		}
		var on bool
		on, err = strconv.ParseBool(v)
		return on
	}
	number := func(name string) *int64 {
		v := q.Get(name)
		if v == "" || err != nil {
			return nil
		}
		var n int64
		n, err = strconv.ParseInt(v, 10, 64)
		return &n
	}
	o.Follow, o.Previous, o.Timestamps = flag("follow"), flag("previous"), flag("timestamps")
	o.TailLines, o.SinceSeconds, o.LimitBytes = number("tailLines"), number("sinceSeconds"), number("limitBytes")
	if v := q.Get("sinceTime"); v != "" && err == nil {
		var t time.Time
		if t, err = time.Parse(time.RFC3339, v); err == nil {
			o.SinceTime = &metav1.Time{Time: t}
		}
	}
	if v := q.Get("stream"); v != "" {
		o.Stream = &v
	}
	return o, err
}

func (s *server) logs(w http.ResponseWriter, r *http.Request) {
	ns, pod, container := r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("container")
	opts, err := logOptions(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	id, path, err := s.a.ContainerID(ns, pod, "", container, opts.Previous)
	if err != nil {
		if why := s.waiting(ns, pod, container); why != "" && !opts.Previous {
			err = fmt.Errorf("container %q in pod %q is waiting to start: %s", container, pod, why)
		}
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	out := &flushed{w}
	running := func() bool { return s.a.Running(r.Context(), ns, pod, container, id) }
	if err := logs.Read(r.Context(), out, path, opts, running); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

type flushed struct{ http.ResponseWriter }

func (f *flushed) Flush() {
	if fl, ok := f.ResponseWriter.(http.Flusher); ok {
		fl.Flush()
	}
}

func (s *server) waiting(ns, pod, container string) string {
	for _, p := range s.a.Pods() {
		if p.Namespace != ns || p.Name != pod {
			continue
		}
		for _, l := range [][]v1.ContainerStatus{p.Status.ContainerStatuses, p.Status.InitContainerStatuses} {
			for i := range l {
				if l[i].Name == container && l[i].State.Waiting != nil {
					return strings.TrimSuffix(l[i].State.Waiting.Reason+": "+l[i].State.Waiting.Message, ": ")
				}
			}
		}
	}
	return ""
}

type responder struct{}

// Error implements proxy.ErrorResponder.
func (responder) Error(w http.ResponseWriter, _ *http.Request, err error) {
	http.Error(w, err.Error(), http.StatusInternalServerError)
}

// stream passes the connection on to the runtime's streaming server.
func stream(w http.ResponseWriter, r *http.Request, location string) {
	u, err := url.Parse(location)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	h := machineryproxy.NewUpgradeAwareHandler(u, nil, false, true, responder{})
	h.UseRequestLocation = false
	h.ServeHTTP(w, r)
}

func (s *server) container(w http.ResponseWriter, r *http.Request) (string, bool) {
	id, _, err := s.a.ContainerID(r.PathValue("namespace"), r.PathValue("pod"), types.UID(r.PathValue("uid")), r.PathValue("container"), false)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return "", false
	}
	return id, true
}

func on(q url.Values, name string) bool { return q.Get(name) == "1" || q.Get(name) == "true" }

func (s *server) exec(w http.ResponseWriter, r *http.Request) {
	id, ok := s.container(w, r)
	if !ok {
		return
	}
	q := r.URL.Query()
	resp, err := s.a.CRI().Exec(r.Context(), &runtimeapi.ExecRequest{ContainerId: id, Cmd: q["command"], Tty: on(q, "tty"), Stdin: on(q, "input"), Stdout: on(q, "output"), Stderr: on(q, "error")})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	stream(w, r, resp.Url)
}

func (s *server) attach(w http.ResponseWriter, r *http.Request) {
	id, ok := s.container(w, r)
	if !ok {
		return
	}
	q := r.URL.Query()
	resp, err := s.a.CRI().Attach(r.Context(), &runtimeapi.AttachRequest{ContainerId: id, Tty: on(q, "tty"), Stdin: on(q, "input"), Stdout: on(q, "output"), Stderr: on(q, "error")})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	stream(w, r, resp.Url)
}

func (s *server) portForward(w http.ResponseWriter, r *http.Request) {
	id, err := s.a.Sandbox(r.PathValue("namespace"), r.PathValue("pod"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	req := &runtimeapi.PortForwardRequest{PodSandboxId: id}
	for _, p := range strings.FieldsFunc(strings.Join(r.URL.Query()["port"], ","), func(c rune) bool { return c == ',' }) {
		n, err := strconv.ParseInt(p, 10, 32)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		req.Port = append(req.Port, int32(n))
	}
	resp, err := s.a.CRI().PortForward(r.Context(), req)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	stream(w, r, resp.Url)
}
