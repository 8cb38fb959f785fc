// Package signername has the rules for the names of certificate signers. It may
// import apimachinery only.
package signername

import (
	"fmt"
	"strings"

	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	maxLength = 571
	form      = "must be a fully qualified domain and path of the form 'example.com/signer-name'"
)

// Validate wants a domain of at least two labels, and a path of labels below it.
func Validate(name string, at *field.Path) (errs field.ErrorList) {
	if name == "" {
		return field.ErrorList{field.Required(at, "")}
	}
	domain, path, ok := strings.Cut(name, "/")
	if !ok || strings.Contains(path, "/") {
		return field.ErrorList{field.Invalid(at, name, form)}
	}
	labels := strings.Split(domain, ".")
	check := func(whole string, labels []string) {
		for _, l := range labels {
			for _, msg := range validation.IsDNS1123Label(l) {
				errs = append(errs, field.Invalid(at, whole, fmt.Sprintf("validating label %q: %s", l, msg)))
			}
		}
	}
	check(domain, labels)
	if len(labels) < 2 {
		errs = append(errs, field.Invalid(at, domain, "should be a domain with at least two segments separated by dots"))
	}
	check(path, strings.Split(path, "."))
	if len(name) > maxLength {
		errs = append(errs, field.TooLong(at, "", maxLength))
	}
	return errs
}

// ValidateBundleName returns what is wrong with the name of a ClusterTrustBundle of
// signer, which the name begins with, its slash written as a colon; a bundle of no
// signer has no colon in its name.
func ValidateBundleName(signer, name string, prefix bool) []string {
	if signer == "" {
		if strings.Contains(name, ":") {
			return []string{`ClusterTrustBundle without signer name must not have ":" in its name`}
		}
		return apivalidation.NameIsDNSSubdomain(name, prefix)
	}
	wanted := strings.ReplaceAll(signer, "/", ":") + ":"
	rest, ok := strings.CutPrefix(name, wanted)
	if !ok {
		return []string{fmt.Sprintf("ClusterTrustBundle for signerName %s must be named with prefix %s", signer, wanted)}
	}
	return apivalidation.NameIsDNSSubdomain(rest, prefix)
}

// IsKubernetes reports whether a signer's domain is kubernetes.io or below it.
func IsKubernetes(name string) bool {
	domain, _, _ := strings.Cut(name, "/")
	return domain == "kubernetes.io" || strings.HasSuffix(domain, ".kubernetes.io")
}

// Granted returns the names of the resource "signers" by which rights over a signer are
// granted: its own, and that of all of its domain's.
func Granted(signer string) []string {
	domain, _, _ := strings.Cut(signer, "/")
	return []string{signer, domain + "/*"}
}
