package apiserver

import (
	"fmt"
	"net/http"
	"net/http/pprof"
	"sort"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/version"
)

// VersionInfo is what /version says.
type VersionInfo = version.Info

// health answers /healthz, /livez and /readyz, each with its checks by name
// below it, ?verbose and ?exclude=.
func (r *call) health(parts []string) error {
	// The store is etcd to whom upstream's names are known.
	checks := map[string]func() error{"ping": func() error { return nil }, "log": func() error { return nil }, "etcd": r.s.storeAlive}
	if parts[0] == "readyz" {
		for name, f := range r.s.Readiness {
			checks[name] = f
		}
		checks["shutdown"] = func() error {
			if r.s.draining.Load() {
				return fmt.Errorf("process is shutting down")
			}
			return nil
		}
	}
	q := r.req.URL.Query()
	if len(parts) > 1 {
		f := checks[strings.Join(parts[1:], "/")]
		if f == nil {
			return r.notFoundPath()
		}
		checks = map[string]func() error{strings.Join(parts[1:], "/"): f}
	}
	excluded, unknown := map[string]bool{}, []string{}
	for _, list := range q["exclude"] {
		for x := range strings.SplitSeq(list, ",") {
			if checks[x] == nil {
				unknown = append(unknown, strconv.Quote(x))
			}
			excluded[x] = true
		}
	}
	names := make([]string, 0, len(checks))
	for name := range checks {
		names = append(names, name)
	}
	sort.Strings(names)
	var out strings.Builder
	failed := false
	for _, name := range names {
		if excluded[name] {
			fmt.Fprintf(&out, "[+]%s excluded: ok\n", name)
		} else if err := checks[name](); err != nil {
			failed = true
			fmt.Fprintf(&out, "[-]%s failed: reason withheld\n", name)
		} else {
			fmt.Fprintf(&out, "[+]%s ok\n", name)
		}
	}
	if len(unknown) > 0 {
		fmt.Fprintf(&out, "warn: some health checks cannot be excluded: no matches for %s\n", strings.Join(unknown, ", "))
	}
	_, verbose := q["verbose"]
	code := http.StatusOK
	switch {
	case failed:
		code = http.StatusInternalServerError
		fmt.Fprintf(&out, "%s check failed\n", parts[0])
	case verbose:
		fmt.Fprintf(&out, "%s check passed\n", parts[0])
	default:
		out.Reset()
		out.WriteString("ok")
	}
	r.w.Header().Set("X-Content-Type-Options", "nosniff")
	return r.write(code, "text/plain; charset=utf-8", []byte(out.String()))
}

func (s *Server) storeAlive() error {
	if f, ok := s.Store.(interface{ Err() error }); ok {
		return f.Err()
	}
	return nil
}

// profile serves Go's profiles below /debug/pprof, as upstream does.
func (r *call) profile(parts []string) error {
	r.code = http.StatusOK
	h := pprof.Index
	if len(parts) > 0 {
		switch parts[0] {
		case "cmdline":
			h = pprof.Cmdline
		case "profile":
			h = pprof.Profile
		case "symbol":
			h = pprof.Symbol
		case "trace":
			h = pprof.Trace
		}
	}
	h(r.w, r.req)
	return nil
}
