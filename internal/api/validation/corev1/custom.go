package corev1

import (
	"context"
	"strings"

	"k8s.io/apimachinery/pkg/api/operation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ValidateCustom_EvictionResponder_Name keeps responders out of Kubernetes' own domains.
func ValidateCustom_EvictionResponder_Name(_ context.Context, _ operation.Operation, fldPath *field.Path, value, _ *string) field.ErrorList { //nolint:staticcheck // the name that generated code calls
	if value == nil {
		return nil
	}
	domain, _, _ := strings.Cut(*value, "/")
	domain = "." + strings.TrimRight(strings.ToLower(strings.TrimSpace(domain)), ".")
	if strings.HasSuffix(domain, ".k8s.io") || strings.HasSuffix(domain, ".kubernetes.io") {
		return field.ErrorList{field.Invalid(fldPath, *value, "domain names *.k8s.io, *.kubernetes.io are reserved")}
	}
	return nil
}

// reservedPriorities is the first priority that users may give: lower ones are
// reserved for Kubernetes' own responders.
const reservedPriorities = 1000

// ValidateCustom_EvictionResponder_Priority keeps responders off the priorities of
// Kubernetes' own.
func ValidateCustom_EvictionResponder_Priority(_ context.Context, _ operation.Operation, fldPath *field.Path, value, _ *int32) field.ErrorList { //nolint:staticcheck // the name that generated code calls
	if value == nil || *value < 0 || *value >= reservedPriorities {
		return nil
	}
	return field.ErrorList{field.Invalid(fldPath, *value, "priorities 0-999 are reserved for responders with *.k8s.io suffix")}
}
