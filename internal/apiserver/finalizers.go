package apiserver

import (
	"slices"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/internal/api"
)

// validateFinalizers checks the names of the finalizers that an object has and did not
// have before.
func (r *writer) validateFinalizers(finalizers, had []string) (errs field.ErrorList) {
	if r.row.AnyFinalizer {
		return nil
	}
	for i, f := range finalizers {
		if !slices.Contains(had, f) {
			errs = append(errs, api.ValidateFinalizer(f, field.NewPath("metadata", "finalizers").Index(i))...)
		}
	}
	return errs
}
