package apiserver

import (
	"context"
	"net/http"
	"strings"
)

// Drain makes /readyz fail from now on.
func (s *Server) Drain() { s.draining.Store(true) }

// Refuse makes new requests be answered with 429 and Retry-After from now on.
func (s *Server) Refuse() { s.refusing.Store(true) }

// Shutdown ends the watches, once they have sent what they have, and the other
// requests without a deadline.
func (s *Server) Shutdown() { s.stop() }

// Finish waits, after Refuse, until the earlier requests with a deadline have been
// answered, or ctx is done.
func (s *Server) Finish(ctx context.Context) {
	finished := make(chan struct{})
	go func() {
		s.requests.Wait()
		close(finished)
	}()
	select {
	case <-finished:
	case <-ctx.Done():
	}
}

// enter counts the request as being served, unless the server refuses it. leave
// ends that.
func (s *Server) enter(w http.ResponseWriter, req *http.Request, long bool) (leave func(), ok bool) {
	if !s.SendRetryAfter || alwaysAnswered(req) {
		return func() {}, true
	}
	refused := s.refusing.Load()
	if !refused && !long {
		if refused = s.requests.Add(1) != nil; !refused {
			return s.requests.Done, true
		}
	}
	if refused {
		h := w.Header()
		h.Set("Connection", "close")
		h.Set("Retry-After", "5")
		http.Error(w, "The apiserver is shutting down, please try again later.", http.StatusTooManyRequests)
	}
	return func() {}, !refused
}

// alwaysAnswered reports whether req is answered even while the server stops:
// requests of this process, and the checks of its health.
func alwaysAnswered(req *http.Request) bool {
	if req.Context().Value(inProcessKey{}) != nil || strings.HasPrefix(req.UserAgent(), "kube-apiserver/") {
		return true
	}
	for _, p := range []string{"/readyz", "/livez", "/healthz", "/metrics"} {
		if strings.HasPrefix(req.URL.Path, p) {
			return true
		}
	}
	return false
}
