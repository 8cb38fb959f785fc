package serving

import (
	"context"
	"errors"
	"fmt"
	"html"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"strings"
	"time"

	"k8s.io/component-base/logs"
)

// Debug answers below /debug/pprof, with Go's profiles, and below /debug/flags.
func Debug() http.Handler {
	m := http.NewServeMux()
	m.Handle("/debug/pprof", http.RedirectHandler("/debug/pprof/", http.StatusFound))
	m.HandleFunc("/debug/pprof/", pprof.Index)
	m.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	m.HandleFunc("/debug/pprof/profile", pprof.Profile)
	m.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	m.HandleFunc("/debug/pprof/trace", pprof.Trace)
	m.HandleFunc("/debug/flags", flagIndex)
	m.HandleFunc("/debug/flags/", flagIndex)
	m.HandleFunc("/debug/flags/v", setVerbosity)
	return m
}

// flags are the flags that can be set while the server runs.
var flags = []string{"v"}

func flagIndex(w http.ResponseWriter, _ *http.Request) {
	var b strings.Builder
	b.WriteString("<html>\n<head>\n<title>/debug/flags/</title>\n</head>\n<body>\n/debug/flags/<br>\n<br>\nflags:<br>\n<table>\n")
	for _, f := range flags {
		fmt.Fprintf(&b, "<tr>%s<br>\n", html.EscapeString(f))
	}
	b.WriteString("</table>\n<br>\nfull flags configurable<br>\n</body>\n</html>\n")
	_, _ = io.WriteString(w, b.String())
}

// setVerbosity sets --v by a PUT.
func setVerbosity(w http.ResponseWriter, r *http.Request) {
	code, text := http.StatusOK, ""
	if r.Method != http.MethodPut {
		code, text = http.StatusNotAcceptable, "unsupported http method"
	} else if body, err := io.ReadAll(io.LimitReader(r.Body, 64)); err != nil {
		code, text = http.StatusBadRequest, "error reading request body: "+err.Error()
	} else if text, err = logs.GlogSetter(strings.TrimSpace(string(body))); err != nil {
		code, text = http.StatusBadRequest, err.Error()
	}
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	fmt.Fprintln(w, text)
}

// DebugSocket serves Debug on a Unix socket at path, without authentication but the
// file's, until ctx is done.
func DebugSocket(ctx context.Context, path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("--debug-socket-path: removing what is there: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("--debug-socket-path: %w", err)
	}
	srv := &http.Server{Handler: Debug(), ReadHeaderTimeout: 32 * time.Second}
	context.AfterFunc(ctx, func() { _ = srv.Close() })
	go func() { _ = srv.Serve(l) }()
	return nil
}
