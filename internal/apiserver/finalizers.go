package apiserver

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

var standardFinalizers = []string{string(corev1.FinalizerKubernetes), metav1.FinalizerOrphanDependents, metav1.FinalizerDeleteDependents}

// validateFinalizers wants a domain in the finalizers that an object has and did
// not have, so that they are told apart. Definitions of custom resources, their
// objects and aggregated APIs are spared that.
func (r *call) validateFinalizers(finalizers, had []string) (errs field.ErrorList) {
	if r.row.Coerce != nil || r.row.Group == "apiextensions.k8s.io" || r.row.Group == "apiregistration.k8s.io" {
		return nil
	}
	for i, f := range finalizers {
		if !strings.Contains(f, "/") && !slices.Contains(standardFinalizers, f) && !slices.Contains(had, f) {
			errs = append(errs, field.Invalid(field.NewPath("metadata", "finalizers").Index(i), f, "name is neither a standard finalizer name nor is it fully qualified"))
		}
	}
	return errs
}
