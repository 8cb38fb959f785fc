package apiserver

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"unicode/utf8"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"

	"keelson.dev/keelson/internal/store"
)

// fail answers with err as a Status.
func (r *response) fail(err error) {
	if (r.overdue() || errors.Is(err, errOverdue)) && r.code == 0 {
		err = errOverdue
		if r.req.ProtoMajor == 1 {
			r.w.Header().Set("Connection", "close") // the rest of its body is not read
		}
	}
	status := responsewriters.ErrorToAPIStatus(err)
	if d := status.Details; d != nil && d.RetryAfterSeconds > 0 {
		r.w.Header().Set("Retry-After", strconv.Itoa(int(d.RetryAfterSeconds)))
	}
	r.writeStatus(int(status.Code), status)
}

// statusKind is the kind of a Status, which is part of every group version.
var statusKind = schema.GroupVersionKind{Version: "v1", Kind: "Status"}

func (r *response) writeStatus(code int, status *metav1.Status) {
	status.SetGroupVersionKind(statusKind)
	a, err := r.accept(canTransform)
	if err != nil || !a.as.Empty() && a.mediaType == "" {
		a = accepted{mediaType: typeJSON}
	}
	if err := r.writeAs(code, a, status); err != nil {
		http.Error(r.w, status.Message, code)
	}
}

// storeError converts an error of the store about the row's object name into the
// API's.
func (r *incoming) storeError(err error, name string) error {
	gr := r.groupResource()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrNotFound):
		return apierrors.NewNotFound(gr, name)
	case errors.Is(err, store.ErrExists):
		return apierrors.NewAlreadyExists(gr, name)
	case errors.Is(err, store.ErrConflict):
		return apierrors.NewConflict(gr, name, errModified)
	case errors.Is(err, store.ErrCompacted):
		return apierrors.NewResourceExpired("The resourceVersion for the provided list is too old.")
	case errors.Is(err, store.ErrFuture):
		return apierrors.NewTimeoutError("Too large resource version: "+err.Error(), 1)
	case errors.Is(err, store.ErrClosed):
		return apierrors.NewInternalError(err)
	}
	return err
}

var errModified = errors.New("the object has been modified; please apply your changes to the latest version and try again")

// Upstream's bounds of Warning headers, in characters: where all of a request's
// warnings are more than mostWarned, each is cut to mostOfOne, and those beyond
// mostWarned are left out.
const mostWarned, mostOfOne = 4 << 10, 256

// warnings collects the warnings of a request for its Warning headers.
type warnings struct {
	mu   sync.Mutex
	seen map[string]bool
	list []agentWarning
	size int // of the texts, in characters
}

type agentWarning struct{ agent, text string }

// AddWarning implements warning.Recorder.
func (w *warnings) AddWarning(agent, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if text == "" || w.seen[text] {
		return
	}
	if w.seen == nil {
		w.seen = map[string]bool{}
	}
	w.seen[text] = true
	w.list = append(w.list, agentWarning{agent, text})
	w.size += utf8.RuneCountInString(text)
}

func (w *warnings) write(h http.Header) {
	w.mu.Lock()
	defer w.mu.Unlock()
	written := 0
	for _, l := range w.list {
		if w.size > mostWarned {
			l.text = string([]rune(l.text)[:min(mostOfOne, utf8.RuneCountInString(l.text))])
		}
		if line, err := utilnet.NewWarningHeader(299, l.agent, l.text); err == nil && written < mostWarned {
			h.Add("Warning", line)
			written += utf8.RuneCountInString(l.text)
		}
	}
	w.list, w.size = nil, 0
}

func badRequest(format string, args ...any) error {
	return apierrors.NewBadRequest(fmt.Sprintf(format, args...))
}

// notFoundPath is the answer to a path that nothing serves.
func (r *response) notFoundPath() error {
	http.Error(r.w, "404 page not found", http.StatusNotFound)
	r.code = http.StatusNotFound
	r.row = nil // metrics must not have labels that clients invent
	return nil
}
