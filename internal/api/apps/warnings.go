package apps

import (
	"fmt"

	v1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/api/podspec"
)

func templateWarnings(t *corev1.PodTemplateSpec) []string {
	return podspec.TemplateWarnings(t, field.NewPath("spec", "template"))
}

// changedWarnings returns the warnings for a template, if the spec has changed.
func changedWarnings(obj, old metav1.Object, t *corev1.PodTemplateSpec) []string {
	if obj.GetGeneration() == old.GetGeneration() {
		return nil
	}
	return templateWarnings(t)
}

// namedWarnings returns the warnings for a new controller: its name becomes a
// part of its pods' names.
func namedWarnings(name string, t *corev1.PodTemplateSpec) []string {
	var out []string
	if msgs := validation.IsDNS1123Label(name); len(msgs) > 0 {
		out = append(out, fmt.Sprintf("metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: %v", msgs))
	}
	return append(out, templateWarnings(t)...)
}

// statefulSetWarnings warns of the claim templates and of the history limit;
// child is the last part of upstream's path of such a template.
func statefulSetWarnings(s *v1.StatefulSet, child string) (out []string) {
	for i := range s.Spec.VolumeClaimTemplates {
		at := field.NewPath("spec", "volumeClaimTemplates").Index(i)
		if child != "" {
			at = at.Child(child)
		}
		out = append(out, podspec.ClaimWarnings(&s.Spec.VolumeClaimTemplates[i].Spec, at)...)
	}
	if ptr.Deref(s.Spec.RevisionHistoryLimit, 0) < 0 {
		out = append(out, "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended")
	}
	return out
}
