package history

import (
	"context"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/store"
	"keelson.dev/keelson/internal/store/embedded"
	"keelson.dev/keelson/internal/store/snapshot"
)

// Snapshot answers with a snapshot, of now or of the moment ?at=. The objects are as they
// are stored, encrypted where they are so at rest, unless ?form=plain. It holds up no
// writer.
type Snapshot struct {
	Store interface {
		Content(ctx context.Context, revision int64) (*embedded.Content, error)
	}
	Codec store.Codec
	// Moment returns the revision of a moment.
	Moment  func(string) (int64, error)
	Version string
	Clock   clock.PassiveClock
}

// ServeHTTP implements http.Handler.
func (h *Snapshot) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	head := snapshot.Header{Time: h.Clock.Now().UTC(), Version: h.Version, Sealed: true}
	switch form := r.URL.Query().Get("form"); form {
	case "":
	case "plain":
		head.Sealed = false
	default:
		fail(w, apierrors.NewBadRequest("form: there is only plain"))
		return
	}
	rev := int64(0)
	if at := r.URL.Query().Get("at"); at != "" {
		var err error
		if rev, err = h.Moment(at); err != nil {
			fail(w, err)
			return
		}
	}
	c, err := h.Store.Content(r.Context(), rev)
	if err != nil {
		fail(w, err)
		return
	}
	head.Revision = c.Revision
	// A stream that ends early lacks its checksum, so that its reader sees an error.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Time{})
	w.Header().Set("Content-Type", "application/octet-stream")
	if err := snapshot.Write(w, head, c.Entries, c.Expiry, h.Codec); err != nil {
		klog.FromContext(r.Context()).Error(err, "A snapshot was not sent to its end")
	}
}
