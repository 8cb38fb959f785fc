package apiserver

import (
	"fmt"
	"net/http"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"keelson.dev/keelson/internal/store"
)

// ignoreReadError is the option that deletes an object which cannot be read
// (KEP-3926).
const ignoreReadError = "ignoreStoreReadErrorWithClusterBreakingPotential"

func ignoresReadError(opts *metav1.DeleteOptions) bool {
	ignore := opts.IgnoreStoreReadErrorWithClusterBreakingPotential
	return ignore != nil && *ignore
}

func invalidIgnore(detail string) error {
	return invalidOptions("DeleteOptions", field.ErrorList{field.Invalid(field.NewPath(ignoreReadError), true, detail)})
}

// deleteUnreadable removes the object that the request names, which cannot be read:
// no admission sees it, no finalizer holds it and watches get no event.
func (r *deleter) deleteUnreadable(opts *metav1.DeleteOptions) error {
	audit.AddAuditAnnotation(r.ctx(), "apiserver.k8s.io/unsafe-delete-ignore-read-error", "")
	if err := r.Allowed(authorizer.AttributesRecord{User: r.user, Verb: "unsafe-delete-ignore-read-errors", Namespace: r.info.Namespace, Name: r.info.Name,
		APIGroup: r.row.Group, APIVersion: r.row.Version, Resource: r.row.Resource, ResourceRequest: true}); err != nil {
		return err
	}
	key := r.row.Key(r.info.Namespace, r.info.Name)
	e, err := r.s.Store.Get(r.ctx(), key)
	switch {
	case err != nil:
		return r.storeError(err, r.info.Name)
	case e != nil:
		return invalidIgnore("is exclusively used to delete corrupt object(s), try again by removing this option")
	case !r.unreadableAt(key):
		return apierrors.NewNotFound(r.groupResource(), r.info.Name)
	case !isDryRun(opts.DryRun):
		if err := r.s.Store.DeleteUnreadable(r.ctx(), key); err != nil {
			return r.storeError(err, r.info.Name)
		}
	}
	r.writeStatus(http.StatusOK, &metav1.Status{
		Status:  metav1.StatusSuccess,
		Details: &metav1.StatusDetails{Name: r.info.Name, Group: r.row.Group, Kind: r.row.Resource},
	})
	return nil
}

func (r *incoming) unreadableAt(key string) bool {
	return slices.ContainsFunc(r.s.Store.Unreadable(key), func(u store.Unreadable) bool { return u.Key == key })
}

// absent returns the answer to a request for an object that the store does not return:
// there is none, or it cannot be read.
func (r *incoming) absent(key, name string) error {
	if err := r.readError(slices.DeleteFunc(r.s.Store.Unreadable(key), func(u store.Unreadable) bool { return u.Key != key })); err != nil {
		return err
	}
	return apierrors.NewNotFound(r.groupResource(), name)
}

// readError returns upstream's answer where objects cannot be read, nil if all is
// empty.
func (r *incoming) readError(all []store.Unreadable) error {
	if len(all) == 0 {
		return nil
	}
	gr := r.groupResource()
	s := metav1.Status{Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Reason: metav1.StatusReasonStoreReadError,
		Message: fmt.Sprintf("failed to read one or more %s from the storage: %v", gr.String(), all[0].Err),
		Details: &metav1.StatusDetails{Group: gr.Group, Kind: gr.Resource, Name: r.row.Prefix("")}}
	if len(all) > 1 {
		s.Message += fmt.Sprintf(" (and %d more)", len(all)-1)
	}
	for _, u := range all {
		s.Details.Causes = append(s.Details.Causes, metav1.StatusCause{Type: metav1.CauseTypeUnexpectedServerResponse, Field: u.Key, Message: u.Err.Error()})
	}
	return &apierrors.StatusError{ErrStatus: s}
}
