package podspec

import (
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ValidateTolerations checks tolerations.
func ValidateTolerations(list []v1.Toleration, at *field.Path) field.ErrorList {
	return validateTolerations(list, at)
}

// ValidateAlwaysRestart checks the template of a controller, of that kind, whose
// pods never end by themselves.
func ValidateAlwaysRestart(s *v1.PodSpec, kind string, at *field.Path) (errs field.ErrorList) {
	if s.RestartPolicy != v1.RestartPolicyAlways {
		errs = append(errs, field.NotSupported(at.Child("restartPolicy"), s.RestartPolicy, []v1.RestartPolicy{v1.RestartPolicyAlways}))
	}
	if s.ActiveDeadlineSeconds != nil {
		errs = append(errs, field.Forbidden(at.Child("activeDeadlineSeconds"), "activeDeadlineSeconds in "+kind+" is not Supported"))
	}
	return errs
}
