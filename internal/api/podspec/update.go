package podspec

import (
	"fmt"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubectl/pkg/util/qos"
)

// updatable lists what an update of a pod may change.
const updatable = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`," +
	"`spec.tolerations` (only additions to existing tolerations)," +
	"`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"

// ValidatePodUpdate checks that nothing changes but what may.
func ValidatePodUpdate(p, old *v1.Pod) field.ErrorList {
	annotations := field.NewPath("metadata", "annotations")
	errs := validateAnnotationUpdate(p.Annotations, old.Annotations, annotations)
	if equality.Semantic.DeepEqual(&p.Spec, &old.Spec) {
		// Most updates are of the metadata.
		return append(errs, Ratchet(validateAnnotations(p.Annotations, &p.Spec, annotations), func() field.ErrorList {
			return validateAnnotations(old.Annotations, &old.Spec, annotations)
		})...)
	}
	errs = append(errs, Ratchet(validatePod(p), func() field.ErrorList { return validatePod(old) })...)
	was := lists(&old.Spec)
	for i, is := range lists(&p.Spec) {
		if len(is.containers) != len(was[i].containers) {
			return append(errs, field.Forbidden(specPath.Child(is.name), "pod updates may not add or remove containers"))
		}
	}
	bad, stop := validateDeadline(p.Spec.ActiveDeadlineSeconds, old.Spec.ActiveDeadlineSeconds)
	if errs = append(errs, bad...); stop {
		return errs
	}
	errs = append(errs, validateAddedTolerations(p.Spec.Tolerations, old.Spec.Tolerations)...)
	errs = append(errs, validateRemovedGates(p.Spec.SchedulingGates, old.Spec.SchedulingGates)...)

	// With what may change put back, nothing else may differ.
	munged := p.Spec.DeepCopy()
	for i := range munged.Containers {
		munged.Containers[i].Image = old.Spec.Containers[i].Image
	}
	for i := range munged.InitContainers {
		munged.InitContainers[i].Image = old.Spec.InitContainers[i].Image
	}
	munged.ActiveDeadlineSeconds = old.Spec.ActiveDeadlineSeconds
	munged.Tolerations = old.Spec.Tolerations
	munged.SchedulingGates = old.Spec.SchedulingGates
	if is, was := munged.TerminationGracePeriodSeconds, old.Spec.TerminationGracePeriodSeconds; is != nil && *is == 1 && was != nil && *was < 0 {
		munged.TerminationGracePeriodSeconds = was
	}
	if len(old.Spec.SchedulingGates) > 0 {
		// A gated pod may be steered, but only more narrowly.
		errs = append(errs, validateAddedSelectors(munged.NodeSelector, old.Spec.NodeSelector)...)
		munged.NodeSelector = old.Spec.NodeSelector
		errs = append(errs, validateNarrowedAffinity(nodeAffinity(munged), nodeAffinity(&old.Spec))...)
		restoreNodeAffinity(munged, &old.Spec)
	}
	if !equality.Semantic.DeepEqual(munged, &old.Spec) {
		errs = append(errs, field.Forbidden(specPath, fmt.Sprintf("pod updates may not change fields other than %s\n%v", updatable, diff.Diff(old.Spec, *munged))))
	}
	return errs
}

// validateDeadline checks that a deadline is only set or shortened. stop
// reports whether the validation ends with these errors.
func validateDeadline(is, was *int64) (errs field.ErrorList, stop bool) {
	at := specPath.Child("activeDeadlineSeconds")
	switch {
	case is != nil && (*is < 0 || *is > 1<<31-1):
		return field.ErrorList{field.Invalid(at, *is, validation.InclusiveRangeError(0, 1<<31-1))}, true
	case is != nil && was != nil && *is > *was:
		return field.ErrorList{field.Invalid(at, *is, "must be less than or equal to previous value")}, true
	case is == nil && was != nil:
		return field.ErrorList{field.Invalid(at, is, "must not update from a positive integer to nil value")}, false
	}
	return nil, false
}

func validateAddedTolerations(is, was []v1.Toleration) field.ErrorList {
	same := func(a, b v1.Toleration) bool {
		a.TolerationSeconds, b.TolerationSeconds = nil, nil
		return a == b
	}
	for _, t := range was {
		if !slices.ContainsFunc(is, func(n v1.Toleration) bool { return same(n, t) }) {
			return field.ErrorList{field.Forbidden(specPath.Child("tolerations"), "existing toleration can not be modified except its tolerationSeconds")}
		}
	}
	return nil
}

func validateRemovedGates(is, was []v1.PodSchedulingGate) (errs field.ErrorList) {
	for i, g := range is {
		if !slices.Contains(was, g) {
			errs = append(errs, field.Forbidden(specPath.Child("schedulingGates").Index(i).Child("name"),
				fmt.Sprintf("only deletion is allowed, but found new scheduling gate '%s'", g.Name)))
		}
	}
	return errs
}

func validateAddedSelectors(is, was map[string]string) field.ErrorList {
	for k, v := range was {
		if w, ok := is[k]; !ok || w != v {
			return field.ErrorList{field.Invalid(specPath.Child("nodeSelector"), is, "only additions to spec.nodeSelector are allowed (no mutations or deletions)")}
		}
	}
	return nil
}

func nodeAffinity(s *v1.PodSpec) *v1.NodeAffinity {
	if s.Affinity == nil {
		return nil
	}
	return s.Affinity.NodeAffinity
}

func requiredTerms(a *v1.NodeAffinity) []v1.NodeSelectorTerm {
	if a == nil || a.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return nil
	}
	return a.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
}

// validateNarrowedAffinity checks that an update only narrows the affinity. A
// node needs to match only one of the terms, so their number must not change; it
// must meet all requirements of a term, so requirements may be added.
func validateNarrowedAffinity(is, was *v1.NodeAffinity) (errs field.ErrorList) {
	terms, before := requiredTerms(is), requiredTerms(was)
	if len(before) == 0 {
		return nil
	}
	at := specPath.Child("affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms")
	if len(terms) != len(before) {
		return field.ErrorList{field.Invalid(at, terms, "no additions/deletions to non-empty NodeSelectorTerms list are allowed")}
	}
	more := func(is, was []v1.NodeSelectorRequirement) bool {
		return len(was) == 0 || len(is) >= len(was) && equality.Semantic.DeepEqual(is[:len(was)], was)
	}
	for i := range before {
		is, was := &terms[i], &before[i]
		// A term without requirements selects nothing; with some, it would.
		woken := len(was.MatchExpressions)+len(was.MatchFields) == 0 && len(is.MatchExpressions)+len(is.MatchFields) > 0
		if woken || !more(is.MatchExpressions, was.MatchExpressions) || !more(is.MatchFields, was.MatchFields) {
			errs = append(errs, field.Invalid(at.Index(i), *is, "only additions are allowed (no mutations or deletions)"))
		}
	}
	return errs
}

// restoreNodeAffinity puts was's node affinity into s, and no affinity at all
// where that is all that s has more than was.
func restoreNodeAffinity(s, was *v1.PodSpec) {
	before := nodeAffinity(was)
	switch a := s.Affinity; {
	case a == nil && before != nil:
		s.Affinity = &v1.Affinity{NodeAffinity: before}
	case a != nil && was.Affinity == nil && a.PodAffinity == nil && a.PodAntiAffinity == nil:
		s.Affinity = nil
	case a != nil:
		a.NodeAffinity = before
	}
}

// ValidateEphemeralContainersUpdate lets the ephemeralcontainers subresource add
// containers, and nothing else.
func ValidateEphemeralContainersUpdate(p, old *v1.Pod) field.ErrorList {
	if _, mirror := old.Annotations[v1.MirrorPodAnnotationKey]; mirror {
		return field.ErrorList{field.Forbidden(field.NewPath(""), "static pods do not support ephemeral containers")}
	}
	errs := Ratchet(validatePod(p), func() field.ErrorList { return validatePod(old) })
	at := specPath.Child("ephemeralContainers")
	byName := map[string]*v1.EphemeralContainer{}
	for i := range p.Spec.EphemeralContainers {
		byName[p.Spec.EphemeralContainers[i].Name] = &p.Spec.EphemeralContainers[i]
	}
	for i := range old.Spec.EphemeralContainers {
		was := &old.Spec.EphemeralContainers[i]
		is := byName[was.Name]
		if is == nil {
			errs = append(errs, field.Forbidden(at, fmt.Sprintf("existing ephemeral containers %q may not be removed\n", was.Name)))
		} else if !equality.Semantic.DeepEqual(is, was) {
			errs = append(errs, field.Forbidden(at, fmt.Sprintf("existing ephemeral containers %q may not be changed\n%v", was.Name, diff.Diff(*was, *is))))
		}
	}
	return errs
}

// ValidateResize lets the resize subresource change cpu and memory of regular
// containers, of sidecars and of the pod as a whole, and nothing that a running
// pod cannot take on (https://kep.k8s.io/1287).
func ValidateResize(p, old *v1.Pod) field.ErrorList {
	if _, mirror := old.Annotations[v1.MirrorPodAnnotationKey]; mirror {
		return field.ErrorList{field.Forbidden(field.NewPath(""), "static pods cannot be resized")}
	}
	if old.Spec.OS != nil && old.Spec.OS.Name == v1.Windows {
		return field.ErrorList{field.Forbidden(field.NewPath(""), "windows pods cannot be resized")}
	}
	errs := Ratchet(validatePod(p), func() field.ErrorList { return validatePod(old) })
	if is, was := qos.ComputePodQOS(p), qos.ComputePodQOS(old); is != was {
		errs = append(errs, field.Invalid(specPath, p.Status.QOSClass, "Pod QOS Class may not change as a result of resizing"))
	}
	for i := range old.Status.ContainerStatuses {
		if s := &old.Status.ContainerStatuses[i]; s.State.Running != nil {
			if s.Resources == nil {
				errs = append(errs, field.Forbidden(specPath, "Pod running on node without support for resize"))
			}
			break
		}
	}
	for i := range old.Spec.InitContainers {
		is, was := &p.Spec.InitContainers[i], &old.Spec.InitContainers[i]
		switch {
		case sidecar(was):
			errs = append(errs, validateResized(&is.Resources, &was.Resources, specPath.Child("initContainers").Index(i).Child("resources"),
				"only cpu and memory resources for sidecar containers are mutable")...)
		case !equality.Semantic.DeepEqual(is, was):
			errs = append(errs, field.Forbidden(specPath, "resources for non-sidecar init containers are immutable"))
		}
	}
	const mutable = "only cpu and memory resources are mutable"
	for i := range old.Spec.Containers {
		errs = append(errs, validateResized(&p.Spec.Containers[i].Resources, &old.Spec.Containers[i].Resources,
			specPath.Child("containers").Index(i).Child("resources"), mutable)...)
	}
	if was := old.Spec.Resources; was != nil && p.Spec.Resources != nil {
		errs = append(errs, validateResized(p.Spec.Resources, was, specPath.Child("resources"), mutable)...)
	}
	return errs
}

func validateResized(is, was *v1.ResourceRequirements, at *field.Path, mutable string) (errs field.ErrorList) {
	changed := !equality.Semantic.DeepEqual(is.Claims, was.Claims)
	resizes := sets.New(resizable...)
	for _, f := range []struct {
		name    string
		is, was v1.ResourceList
	}{{"requests", is.Requests, was.Requests}, {"limits", is.Limits, was.Limits}} {
		removed := false
		for name, old := range f.was {
			q, ok := f.is[name]
			removed = removed || !ok
			changed = changed || ok && !resizes.Has(name) && q.Cmp(old) != 0
		}
		for name := range f.is {
			_, ok := f.was[name]
			changed = changed || !ok && !resizes.Has(name)
		}
		if removed {
			errs = append(errs, field.Forbidden(at.Child(f.name), fmt.Sprintf("resource %s cannot be removed", f.name)))
		}
	}
	if changed {
		errs = append(errs, field.Forbidden(specPath, mutable))
	}
	return errs
}
