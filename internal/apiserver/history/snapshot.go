package history

import (
	"context"
	"fmt"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/statuserror"
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
	// Authorizer decides who may read everything, as this does; nil allows it to all.
	Authorizer authorizer.Authorizer
}

// mayReadAll reports whether the user of a request may list all objects there are. Rights
// to the path are not enough: they may have been given for something else below /debug.
func mayReadAll(ctx context.Context, a authorizer.Authorizer) error {
	if a == nil {
		return nil
	}
	u := userOf(ctx)
	attributes := authorizer.AttributesRecord{User: u, Verb: "list", APIGroup: "*", APIVersion: "*", Resource: "*", ResourceRequest: true, Path: SnapshotPath}
	d, reason, err := a.Authorize(ctx, attributes)
	if d == authorizer.DecisionAllow {
		return nil
	}
	if err != nil {
		reason = err.Error()
	}
	return apierrors.NewForbidden(schema.GroupResource{Group: "*", Resource: "*"}, "", fmt.Errorf("User %q cannot list all resources of all API groups at the cluster scope, which a snapshot is: %s", u.GetName(), reason))
}

// ServeHTTP implements http.Handler.
func (h *Snapshot) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	head := snapshot.Header{Time: h.Clock.Now().UTC(), Version: h.Version, Sealed: true}
	switch form := r.URL.Query().Get("form"); form {
	case "":
	case "plain":
		head.Sealed = false
	default:
		statuserror.Write(w, apierrors.NewBadRequest("form: there is only plain"))
		return
	}
	if err := mayReadAll(r.Context(), h.Authorizer); err != nil {
		statuserror.Write(w, err)
		return
	}
	rev := int64(0)
	if at := r.URL.Query().Get("at"); at != "" {
		var err error
		if rev, err = h.Moment(at); err != nil {
			statuserror.Write(w, err)
			return
		}
	}
	c, err := h.Store.Content(r.Context(), rev)
	if err != nil {
		statuserror.Write(w, err)
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
