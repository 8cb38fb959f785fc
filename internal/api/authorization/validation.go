package authorization

import (
	"fmt"

	v1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func validateReview(r *v1.SubjectAccessReview) field.ErrorList {
	return append(validateSpec(&r.Spec), validateMetadata(r.ObjectMeta, r.ObjectMeta, "must be empty")...)
}

func validateSelfReview(r *v1.SelfSubjectAccessReview) field.ErrorList {
	errs := validateAttributes(r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes)
	return append(errs, validateMetadata(r.ObjectMeta, r.ObjectMeta, "must be empty")...)
}

// validateLocalReview checks that the review is about its own namespace.
func validateLocalReview(r *v1.LocalSubjectAccessReview) field.ErrorList {
	errs := validateSpec(&r.Spec)
	rest := r.ObjectMeta
	rest.Namespace = ""
	errs = append(errs, validateMetadata(r.ObjectMeta, rest, "must be empty except for namespace")...)
	at := field.NewPath("spec")
	if a := r.Spec.ResourceAttributes; a != nil && a.Namespace != r.Namespace {
		errs = append(errs, field.Invalid(at.Child("resourceAttributes", "namespace"), a.Namespace, "must match metadata.namespace"))
	}
	if a := r.Spec.NonResourceAttributes; a != nil {
		errs = append(errs, field.Invalid(at.Child("nonResourceAttributes"), a, "disallowed on this kind of request"))
	}
	return errs
}

// validateMetadata checks that a review has no name or labels: it is not
// stored. rest is m without the fields that are allowed.
func validateMetadata(m, rest metav1.ObjectMeta, message string) field.ErrorList {
	rest.ManagedFields = nil
	if equality.Semantic.DeepEqual(rest, metav1.ObjectMeta{}) {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath("metadata"), m, message)}
}

func validateSpec(s *v1.SubjectAccessReviewSpec) field.ErrorList {
	errs := validateAttributes(s.ResourceAttributes, s.NonResourceAttributes)
	if s.User == "" && len(s.Groups) == 0 {
		errs = append(errs, field.Invalid(field.NewPath("spec", "user"), s.User, "at least one of user or group must be specified"))
	}
	return errs
}

func validateAttributes(resource *v1.ResourceAttributes, other *v1.NonResourceAttributes) (errs field.ErrorList) {
	at := field.NewPath("spec")
	if (resource == nil) == (other == nil) {
		errs = append(errs, field.Invalid(at, other, "exactly one of nonResourceAttributes or resourceAttributes must be specified"))
	}
	if resource == nil {
		return errs
	}
	// Operators of later releases are let in: what is not understood widens
	// the request that is reviewed, and so only makes the answer stricter.
	if s := resource.FieldSelector; s != nil {
		at := at.Child("resourceAttributes", "fieldSelector")
		errs = append(errs, validateSelector(s.RawSelector, len(s.Requirements), at)...)
		for i, r := range s.Requirements {
			opts := metav1validation.FieldSelectorValidationOptions{AllowUnknownOperatorInRequirement: true}
			errs = append(errs, metav1validation.ValidateFieldSelectorRequirement(r, opts, at.Child("requirements").Index(i))...)
		}
	}
	if s := resource.LabelSelector; s != nil {
		at := at.Child("resourceAttributes", "labelSelector")
		errs = append(errs, validateSelector(s.RawSelector, len(s.Requirements), at)...)
		for i, r := range s.Requirements {
			opts := metav1validation.LabelSelectorValidationOptions{AllowUnknownOperatorInRequirement: true}
			errs = append(errs, metav1validation.ValidateLabelSelectorRequirement(r, opts, at.Child("requirements").Index(i))...)
		}
	}
	return errs
}

// validateSelector checks that a selector is given as text or as requirements.
func validateSelector(raw string, requirements int, fldPath *field.Path) field.ErrorList {
	switch {
	case raw != "" && requirements > 0:
		return field.ErrorList{field.Invalid(fldPath.Child("rawSelector"), raw, "may not specified at the same time as requirements")}
	case raw == "" && requirements == 0:
		return field.ErrorList{field.Required(fldPath.Child("requirements"), fmt.Sprintf("when %s is specified, requirements or rawSelector is required", fldPath))}
	}
	return nil
}
