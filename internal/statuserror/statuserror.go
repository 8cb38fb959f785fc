// Package statuserror writes errors as upstream's API server does, for handlers of paths
// that are no resources. It may import package store.
package statuserror

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"keelson.dev/keelson/internal/store"
)

// Write answers with an error as a Status. A revision that the store has compacted away is
// 410 Expired.
func Write(w http.ResponseWriter, err error) {
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
	if s.Details != nil && s.Details.RetryAfterSeconds > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(s.Details.RetryAfterSeconds)))
	}
	w.WriteHeader(int(s.Code))
	_ = json.NewEncoder(w).Encode(s)
}
