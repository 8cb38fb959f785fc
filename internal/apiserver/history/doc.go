// Package history serves what the store of an API server remembers: what changed between
// two moments, by whom and because of what, shown to a user as far as he may read the
// objects; and snapshots of all objects, for administrators. It may import packages api,
// api/catalogue, apiserver/authz, store, store/embedded, store/snapshot and trace.
package history

import (
	"encoding/json"
	"errors"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"keelson.dev/keelson/internal/store"
)

// The paths at which an API server has the handlers.
const (
	ChangesPath  = "/debug/keelson/changes"
	SnapshotPath = "/debug/keelson/snapshot"
)

// fail answers with an error as a Status.
func fail(w http.ResponseWriter, err error) {
	if errors.Is(err, store.ErrCompacted) {
		err = apierrors.NewResourceExpired(err.Error())
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		status = apierrors.NewInternalError(err)
	}
	s := status.Status()
	s.Kind, s.APIVersion = "Status", "v1"
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(int(s.Code))
	_ = json.NewEncoder(w).Encode(s)
}
