package server

import (
	"fmt"
	"net/http"
	"net/http/pprof"
	"net/url"
	"path"
	"strings"

	"keelson.dev/keelson/internal/node/nodelog"
)

// route is a part of the node's API.
type route struct {
	// patterns are http.ServeMux's.
	patterns []string
	handle   http.HandlerFunc
	// long reports whether requests last as long as their clients want.
	long bool
}

// routes returns all parts of the node's API.
func (s *server) routes() []route {
	ok := func(w http.ResponseWriter, r *http.Request) {
		for _, name := range checks {
			if path.Base(r.URL.Path) == name || path.Base(r.URL.Path) == "healthz" {
				s.a.Metrics().Checked(name)
			}
		}
		fmt.Fprint(w, "ok")
	}
	in := func(path string) []string { // a container, by its pod's UID or not
		return []string{path + "/{namespace}/{pod}/{container}", path + "/{namespace}/{pod}/{uid}/{container}"}
	}
	return []route{
		{[]string{"GET /healthz", "GET /healthz/ping", "GET /healthz/log", "GET /healthz/syncloop"}, ok, false},
		{[]string{"GET /pods", "GET /pods/{$}"}, s.pods, false},
		{[]string{"GET /runningpods/{$}", "GET /runningpods"}, s.runningPods, false},
		{[]string{"GET /configz"}, s.configz, false},
		{[]string{"GET /stats/summary", "POST /stats/summary"}, s.summary, false},
		{[]string{"GET /metrics"}, s.metrics, false},
		{[]string{"GET /metrics/resource"}, s.resources, false},
		{[]string{"GET /metrics/cadvisor"}, s.containers, false},
		{[]string{"GET /metrics/probes"}, s.probes, false},
		{[]string{"GET /metrics/slis"}, s.slis, false},
		{[]string{"GET /logs/"}, http.StripPrefix("/logs/", &nodelog.Handler{Dir: systemLogs, Query: s.o.SystemLogQuery, Journal: "journalctl"}).ServeHTTP, false},
		{[]string{"GET /logs"}, s.toLogs, false},
		{[]string{"GET /containerLogs/{namespace}/{pod}/{container}"}, s.logs, true},
		{[]string{"POST /run/{namespace}/{pod}/{container}", "POST /run/{namespace}/{pod}/{uid}/{container}"}, s.run, true},
		{in("/exec"), s.exec, true},
		{in("/attach"), s.attach, true},
		{[]string{"/portForward/{namespace}/{pod}", "/portForward/{namespace}/{pod}/{uid}"}, s.portForward, true},
		{[]string{"GET /debug/pprof/"}, pprof.Index, false},
		{[]string{"GET /debug/pprof/cmdline"}, pprof.Cmdline, false},
		{[]string{"GET /debug/pprof/profile"}, pprof.Profile, false},
		{[]string{"GET /debug/pprof/symbol", "POST /debug/pprof/symbol"}, pprof.Symbol, false},
		{[]string{"GET /debug/pprof/trace"}, pprof.Trace, false},
		{[]string{"PUT /debug/flags/v"}, s.verbosity, false},
	}
}

// checks are the parts of /healthz: each says that the server answers.
var checks = []string{"ping", "log", "syncloop"}

// systemLogs is the folder that /logs/ shows, the kubelet's.
const systemLogs = "/var/log/"

// toLogs redirects to the folder, with the query.
func (s *server) toLogs(w http.ResponseWriter, r *http.Request) {
	to := url.URL{Path: "/logs/", RawQuery: r.URL.RawQuery}
	http.Redirect(w, r, to.String(), http.StatusMovedPermanently)
}

// mux serves the routes and counts the requests to each.
func (s *server) mux() http.Handler {
	m := http.NewServeMux()
	for _, r := range s.routes() {
		for _, pattern := range r.patterns {
			path := pattern[strings.IndexByte(pattern, '/'):]
			// The first part of the path is the metrics' label, and the second of
			// those that have only such.
			if name, _, ok := strings.Cut(path, "/{"); ok {
				path = name
			}
			path = strings.Trim(path, "/")
			handle := r.handle
			if why := s.o.off(path); why != "" {
				handle = func(w http.ResponseWriter, _ *http.Request) { http.Error(w, why, http.StatusMethodNotAllowed) }
			}
			m.HandleFunc(pattern, func(w http.ResponseWriter, req *http.Request) {
				defer s.a.Metrics().Request(req.Method, path, r.long)()
				handle(w, req)
			})
		}
	}
	return m
}
