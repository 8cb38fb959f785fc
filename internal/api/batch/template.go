package batch

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/internal/api/podspec"
)

// setTemplateDefaults fills in the pod template.
func setTemplateDefaults(t *corev1.PodTemplateSpec) { podspec.SetDefaultsPodTemplate(t) }

// validateTemplate checks the pod template.
func validateTemplate(t *corev1.PodTemplateSpec, fldPath *field.Path) field.ErrorList {
	return podspec.ValidatePodTemplateSpec(t, fldPath)
}
