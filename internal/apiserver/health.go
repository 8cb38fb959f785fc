package apiserver

import (
	"fmt"
	"net/http"
	"sort"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/version"
	"k8s.io/component-base/metrics/prometheus/slis"
)

// VersionInfo is the answer of /version.
type VersionInfo = version.Info

// healthChecks returns the checks below the path, by name.
func (s *Server) healthChecks(path string) map[string]func() error {
	// The store's check has upstream's name, etcd, for every engine.
	checks := map[string]func() error{"ping": func() error { return nil }, "log": func() error { return nil }, "etcd": s.storeAlive}
	if path == "readyz" {
		for name, f := range s.Readiness {
			checks[name] = f
		}
		checks["shutdown"] = func() error {
			if s.draining.Load() {
				return fmt.Errorf("process is shutting down")
			}
			return nil
		}
	}
	return checks
}

// health answers /healthz, /livez and /readyz, each with its checks by name
// below it, ?verbose and ?exclude=.
func (r documents) health(parts []string) error {
	registerSLIs() // before the first check
	checks := r.s.healthChecks(parts[0])
	q := r.req.URL.Query()
	if len(parts) > 1 {
		f := checks[strings.Join(parts[1:], "/")]
		if f == nil {
			return r.notFoundPath()
		}
		// As upstream does: the error of a single check is the whole answer, and the
		// check is not counted in metrics.
		if err := f(); err != nil {
			return r.write(http.StatusInternalServerError, "text/plain; charset=utf-8", []byte("internal server error: "+err.Error()+"\n"))
		}
		return r.write(http.StatusOK, "text/plain; charset=utf-8", []byte("ok"))
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
			_ = slis.ObserveHealthcheck(r.ctx(), name, parts[0], slis.Error) // it never fails
			fmt.Fprintf(&out, "[-]%s failed: reason withheld\n", name)
		} else {
			_ = slis.ObserveHealthcheck(r.ctx(), name, parts[0], slis.Success)
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
