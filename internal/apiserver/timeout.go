package apiserver

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// allotted returns how long the request may take: its timeout parameter, up to the
// server's own bound; 0 means no bound. Reads within the process without the
// parameter have none: they are answered from memory.
func (r *call) allotted() (time.Duration, error) {
	s, req := r.s, r.req
	asked := strings.Contains(req.URL.RawQuery, "timeout=")
	if r.long || !asked && r.conn == nil && (req.Method == http.MethodGet || req.Method == http.MethodHead) {
		return 0, nil
	}
	if !asked {
		return s.RequestTimeout, nil
	}
	text := req.URL.Query().Get("timeout")
	if text == "" {
		return s.RequestTimeout, nil
	}
	wanted, err := time.ParseDuration(text)
	if err != nil {
		return 0, apierrors.NewBadRequest("invalid timeout specified in the request URL - " + err.Error())
	}
	if wanted <= 0 {
		return s.RequestTimeout, nil
	}
	return min(wanted, s.RequestTimeout), nil
}

// overdue reports whether the request's time is up.
func (r *incoming) overdue() bool { return errors.Is(r.ctx().Err(), context.DeadlineExceeded) }

// errOverdue is the answer to a request that timed out.
var errOverdue = apierrors.NewTimeoutError("request did not complete within the allotted timeout", 0)
