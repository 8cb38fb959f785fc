package podspec

import (
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

var specPath = field.NewPath("spec")

// ValidatePod checks a new pod.
func ValidatePod(p *v1.Pod) field.ErrorList {
	errs := validatePod(p)
	if len(p.Spec.EphemeralContainers) > 0 {
		errs = append(errs, field.Forbidden(specPath.Child("ephemeralContainers"), "cannot be set on create"))
	}
	if p.Spec.NodeName != "" && len(p.Spec.SchedulingGates) > 0 {
		errs = append(errs, field.Forbidden(specPath.Child("nodeName"), "cannot be set until all schedulingGates have been cleared"))
	}
	if len(p.Annotations) > 0 {
		errs = append(errs, agree(p.Annotations, &p.Spec, specPath)...)
	}
	return errs
}

// validatePod checks a pod as it is, however it came to be so.
func validatePod(p *v1.Pod) (errs field.ErrorList) {
	if len(p.Annotations) > 0 {
		errs = append(errs, validateAnnotations(p.Annotations, &p.Spec, field.NewPath("metadata", "annotations"))...)
	}
	errs = append(errs, validateSpec(&p.Spec, &p.ObjectMeta, specPath)...)
	if p.Spec.ServiceAccountName == "" {
		for i := range p.Spec.Volumes {
			projected := p.Spec.Volumes[i].Projected
			if projected == nil {
				continue
			}
			for j := range projected.Sources {
				if projected.Sources[j].ServiceAccountToken != nil {
					errs = append(errs, field.Forbidden(specPath.Child("volumes").Index(i).Child("projected", "sources").Index(j).Child("serviceAccountToken"),
						"must not be specified when serviceAccountName is not set"))
				}
			}
		}
	}
	for _, l := range lists(&p.Spec) {
		for i := range l.containers {
			if c := &l.containers[i]; !trimmed(c.Image) {
				errs = append(errs, untrimmed(c.Image, specPath.Child(l.name).Index(i)))
			}
		}
	}
	return errs
}
