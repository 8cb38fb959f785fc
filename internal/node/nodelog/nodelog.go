// Package nodelog serves the logs of a machine's services: the files of a folder, and by
// a query what journald or such a file has of a service
// (https://kubernetes.io/docs/concepts/cluster-administration/system-logs/#log-query).
// Of the node it imports beneath alone.
package nodelog

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/internal/node/beneath"
)

const (
	// maxLines is the most lines that can be asked for.
	maxLines = 100_000
	// timeout bounds a query.
	timeout = 30 * time.Second
)

// Handler serves the logs below a path that has been taken off.
type Handler struct {
	// Dir is the folder of the files.
	Dir string
	// Query has queries be answered.
	Query bool
	// Journal is the program that reads journald's logs: journalctl.
	Journal string
}

// query is what is asked for.
type query struct {
	files, services []string
	options
}

// options select lines.
type options struct {
	since, until time.Time
	boot         *int
	lines        *int
	pattern      string
}

// parse reads a query, nil for none.
func parse(values url.Values) (*query, field.ErrorList) {
	var q query
	var errs field.ErrorList
	for _, v := range values["query"] {
		// A slash is what tells a file from a service.
		if strings.ContainsAny(v, `/\`) {
			q.files = append(q.files, filepath.ToSlash(v))
		} else if strings.TrimSpace(v) != "" {
			q.services = append(q.services, v)
		}
	}
	if len(values["query"]) > 0 && len(q.files)+len(q.services) == 0 {
		errs = append(errs, field.Invalid(field.NewPath("query"), values["query"], "query cannot be empty"))
	}
	for name, to := range map[string]*time.Time{"sinceTime": &q.since, "untilTime": &q.until} {
		if v := values.Get(name); v != "" {
			var err error
			if *to, err = time.Parse(time.RFC3339, v); err != nil {
				errs = append(errs, field.Invalid(field.NewPath(name), v, "invalid time format"))
			}
		}
	}
	for name, to := range map[string]**int{"boot": &q.boot, "tailLines": &q.lines} {
		if v := values.Get(name); v != "" {
			n, err := strconv.Atoi(v)
			if err != nil {
				errs = append(errs, field.Invalid(field.NewPath(name), v, err.Error()))
			}
			*to = &n
		}
	}
	q.pattern = values.Get("pattern")
	if len(q.files)+len(q.services) == 0 && q.options == (options{}) {
		return nil, errs
	}
	return &q, errs
}

// unsafe are the characters that names of services do not have.
var unsafe = regexp.MustCompile(`[^a-zA-Z\-_.0-9@]`)

// validate reports what is wrong with a query.
func (q *query) validate(dir string) (errs field.ErrorList) {
	at := field.NewPath("query")
	if _, err := regexp.Compile(q.pattern); err != nil {
		errs = append(errs, field.Invalid(field.NewPath("pattern"), q.pattern, err.Error()))
	}
	if !q.since.IsZero() && !q.until.IsZero() && q.since.After(q.until) {
		errs = append(errs, field.Invalid(field.NewPath("untilTime"), q.until, "must be after `sinceTime`"))
	}
	if q.boot != nil && *q.boot > 0 {
		errs = append(errs, field.Invalid(field.NewPath("boot"), *q.boot, "must be less than 1"))
	}
	if n := q.lines; n != nil && (*n < 0 || *n > maxLines) {
		errs = append(errs, field.Invalid(field.NewPath("tailLines"), *n, fmt.Sprintf("must be between 0 and %d, inclusive", maxLines)))
	}
	switch {
	case len(q.files)+len(q.services) == 0:
		errs = append(errs, field.Required(at, "cannot be empty with options"))
	case len(q.files) > 0 && len(q.services) > 0:
		errs = append(errs, field.Invalid(at, slices.Concat(q.files, q.services), "cannot specify a file and service"))
	case len(q.files) > 1:
		errs = append(errs, field.Invalid(at, q.files, "cannot specify more than one file"))
	case len(q.files) == 1 && q.options != (options{}):
		errs = append(errs, field.Invalid(at, q.files, "cannot specify file with options"))
	case len(q.files) == 1:
		if _, err := fs.Stat(folder(dir), inside(q.files[0])); err != nil {
			errs = append(errs, field.Invalid(at, q.files, err.Error()))
		}
	}
	for i, s := range q.services {
		if unsafe.MatchString(s) {
			errs = append(errs, field.Invalid(at.Index(i), s, "input contains unsupported characters"))
		}
	}
	return errs
}

// inside returns a path below the folder of files, whatever the name is.
func inside(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q, errs := parse(r.URL.Query())
	switch {
	case !h.Query || q == nil && len(errs) == 0:
	case len(errs) > 0:
		http.Error(w, errs.ToAggregate().Error(), http.StatusBadRequest)
		return
	case r.URL.Path != "/" && r.URL.Path != "":
		http.Error(w, "path not allowed in query mode", http.StatusNotAcceptable)
		return
	default:
		if errs := q.validate(h.Dir); len(errs) > 0 {
			http.Error(w, errs.ToAggregate().Error(), http.StatusNotAcceptable)
			return
		}
		if len(q.services) > 0 {
			h.services(w, r, q)
			return
		}
		r = r.Clone(r.Context())
		r.URL.Path = inside(q.files[0])
	}
	http.FileServerFS(folder(h.Dir)).ServeHTTP(w, r)
}

// folder is a folder of which no link leads out: a pod that can write there must not have other
// files of the machine be shown. A link to another place in it is followed, though it is an
// absolute one.
type folder string

// Open implements fs.FS.
func (d folder) Open(name string) (fs.File, error) {
	root, err := beneath.Open(string(d))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.Open(name)
	if err == nil {
		return f, nil
	}
	if !errors.Is(err, beneath.ErrOutside) {
		return nil, err
	}
	top, err := filepath.EvalSymlinks(string(d))
	if err != nil {
		return nil, err
	}
	to, err := filepath.EvalSymlinks(filepath.Join(string(d), name))
	if err != nil {
		return nil, err
	}
	within, err := filepath.Rel(top, to)
	if err != nil || !filepath.IsLocal(within) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	if f, err = root.Open(within); err != nil {
		return nil, err
	}
	return f, nil
}

// services answers with the logs of services.
func (h *Handler) services(w http.ResponseWriter, r *http.Request, q *query) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	w.Header().Set("Content-Type", "text/plain;charset=UTF-8")
	var out io.Writer = w
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		w.Header().Set("Content-Encoding", "gzip")
		z, _ := gzip.NewWriterLevel(w, gzip.BestSpeed) // a level that there is
		defer z.Close()
		out = z
	}
	if r.Method == http.MethodHead {
		return
	}
	native, files := h.divide(ctx, q.services)
	if len(native) > 0 {
		if err := h.journal(ctx, out, q, native); err != nil {
			fmt.Fprintf(out, "error: %v\n", err)
		}
	}
	for _, s := range files {
		if err := h.file(out, s, q); err != nil {
			fmt.Fprintf(out, "error: %v\n", err)
		}
	}
}

// divide returns the services that journald knows, and the others.
func (h *Handler) divide(ctx context.Context, services []string) (native, files []string) {
	units, _ := exec.CommandContext(ctx, h.Journal, "--field", "_SYSTEMD_UNIT").Output() // without journald none is known
	known := strings.Split(string(units), "\n")
	for _, s := range services {
		if slices.Contains(known, unit(s)) {
			native = append(native, s)
		} else {
			files = append(files, s)
		}
	}
	return native, files
}

// unit returns the unit of systemd that a service is.
func unit(service string) string { return strings.TrimSuffix(service, ".service") + ".service" }

// journal writes what journald has of the services.
func (h *Handler) journal(ctx context.Context, out io.Writer, q *query, services []string) error {
	cmd := exec.CommandContext(ctx, h.Journal, q.arguments(services)...)
	cmd.Stdout, cmd.Stderr = out, out
	return cmd.Run()
}

// arguments are journalctl's.
func (q *query) arguments(services []string) []string {
	const layout = "2006-01-02 15:04:05"
	args := []string{"--utc", "--no-pager", "--output=short-precise"}
	if !q.since.IsZero() {
		args = append(args, "--since="+q.since.UTC().Format(layout))
	}
	if !q.until.IsZero() {
		args = append(args, "--until="+q.until.UTC().Format(layout))
	}
	if q.lines != nil {
		args = append(args, "--lines="+strconv.Itoa(*q.lines))
	}
	for _, s := range services {
		args = append(args, "--unit="+unit(s))
	}
	if q.pattern != "" {
		args = append(args, "--grep="+q.pattern, "--case-sensitive=false")
	}
	if q.boot != nil {
		args = append(args, "--boot", strconv.Itoa(*q.boot))
	}
	return args
}

// file writes the lines of the service's file: that of its name, with .log or in a folder
// of its name. Times and boots are journald's to know.
func (h *Handler) file(out io.Writer, service string, q *query) error {
	for _, name := range []string{service, service + ".log", filepath.Join(service, service+".log")} {
		f, err := beneath.OpenFile(h.Dir, name)
		if err != nil {
			continue // it is not there, or not a file
		}
		defer f.Close()
		if !q.since.IsZero() || !q.until.IsZero() || q.boot != nil {
			return fmt.Errorf("the log of %s is a file, of which sinceTime, untilTime and boot select nothing", service)
		}
		return lines(out, f, q)
	}
	return fmt.Errorf("log not found for %s", service)
}

const (
	// lineMax is the longest line, in bytes, that is looked at as a whole: a longer one counts as
	// several. A pod that writes logs must not have the agent hold whatever it has written.
	lineMax = 64 << 10
	// lastMax bounds the last lines, in bytes.
	lastMax = 64 << 20
)

// lines writes the lines that match, of these the last ones.
func lines(out io.Writer, f io.Reader, q *query) error {
	match, err := regexp.Compile("(?i)" + q.pattern)
	if err != nil {
		return err
	}
	var last []string
	size := 0
	in := bufio.NewReaderSize(f, lineMax)
	for {
		line, err := in.ReadSlice('\n')
		if len(line) > 0 && match.Match(line) {
			if q.lines == nil {
				if _, err := out.Write(line); err != nil {
					return err
				}
			} else {
				last, size = append(last, string(line)), size+len(line)
				for len(last) > *q.lines || size > lastMax {
					last, size = last[1:], size-len(last[0])
				}
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
	for _, line := range last {
		if _, err := io.WriteString(out, line); err != nil {
			return err
		}
	}
	return nil
}
