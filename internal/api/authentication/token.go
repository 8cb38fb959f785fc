package authentication

import (
	"fmt"
	"math"
	"slices"
	"time"

	v1 "k8s.io/api/authentication/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

const (
	minLifeSeconds     = int64(10 * time.Minute / time.Second)
	defaultLifeSeconds = int64(time.Hour / time.Second)
	maxLifeSeconds     = math.MaxUint32 + 1
)

// DefaultTokenRequest fills in how long the token is wanted for.
func DefaultTokenRequest(r *v1.TokenRequest) {
	if r.Spec.ExpirationSeconds == nil {
		r.Spec.ExpirationSeconds = ptr.To(defaultLifeSeconds)
	}
}

// ValidateTokenRequest checks a request with its defaults. KEP-1205.
func ValidateTokenRequest(r *v1.TokenRequest) (errs field.ErrorList) {
	at := field.NewPath("spec")
	life := func(wrong bool, message string) {
		if wrong {
			errs = append(errs, field.Invalid(at.Child("expirationSeconds"), *r.Spec.ExpirationSeconds, message))
		}
	}
	life(*r.Spec.ExpirationSeconds < minLifeSeconds, "may not specify a duration less than 10 minutes")
	life(*r.Spec.ExpirationSeconds > maxLifeSeconds, "may not specify a duration larger than 2^32 seconds")
	return append(errs, validateAttestations(&r.Spec, at.Child("attestations"))...)
}

// validateAttestations checks the attestations, which only tokens for webhooks
// may have. That feature is alpha, so no such token is issued; the request is
// checked all the same.
func validateAttestations(s *v1.TokenRequestSpec, fldPath *field.Path) (errs field.ErrorList) {
	if len(s.Attestations) == 0 {
		return nil
	}
	webhooks := []string{"ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"}
	switch ref := s.BoundObjectRef; {
	case ref == nil:
		return field.ErrorList{field.Invalid(fldPath, "", "attestations may not be specified without a bound object reference")}
	case !slices.Contains(webhooks, ref.Kind):
		return field.ErrorList{field.Invalid(fldPath, ref.Kind, fmt.Sprintf("attestations may not be specified when bound object ref is of kind %s", ref.Kind))}
	}
	const groups = v1.AttestationAdmissionReviewAPIGroups
	for key, values := range s.Attestations {
		switch {
		case len(values) == 0:
			errs = append(errs, field.Invalid(fldPath, key, "may not specify empty value"))
		case key != groups:
			errs = append(errs, field.Invalid(fldPath, key, "may not specify an unknown key"))
		case len(values) > 1:
			errs = append(errs, field.Invalid(fldPath.Child(groups), key, "must specify a single value"))
		case values[0] == "":
			errs = append(errs, field.Invalid(fldPath.Child(groups), key, "may not be an empty string"))
		}
	}
	return errs
}
