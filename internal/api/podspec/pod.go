package podspec

import (
	"fmt"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

var specPath = field.NewPath("spec")

// ValidatePod checks a new pod.
func ValidatePod(p *v1.Pod) field.ErrorList {
	errs := ValidatePodSpec(&p.Spec, specPath)
	if len(p.Spec.EphemeralContainers) > 0 {
		errs = append(errs, field.Forbidden(specPath.Child("ephemeralContainers"), "cannot be set on create"))
	}
	if p.Spec.NodeName != "" && len(p.Spec.SchedulingGates) > 0 {
		errs = append(errs, field.Forbidden(specPath.Child("nodeName"), "cannot be set until all schedulingGates have been cleared"))
	}
	return errs
}

// updatable lists what an update of a pod may change.
const updatable = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`," +
	"`spec.tolerations` (only additions to existing tolerations)," +
	"`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"

// ValidatePodUpdate checks that nothing changes but what may.
func ValidatePodUpdate(p, old *v1.Pod) field.ErrorList {
	var errs field.ErrorList
	for _, f := range []struct {
		name     string
		new, old []v1.Container
	}{{"containers", p.Spec.Containers, old.Spec.Containers}, {"initContainers", p.Spec.InitContainers, old.Spec.InitContainers}} {
		if len(f.new) != len(f.old) {
			return append(errs, field.Forbidden(specPath.Child(f.name), "pod updates may not add or remove containers"))
		}
		for i := range f.new {
			if f.new[i].Image == "" {
				errs = append(errs, field.Required(specPath.Child(f.name).Index(i).Child("image"), ""))
			}
		}
	}
	deadline := specPath.Child("activeDeadlineSeconds")
	switch is, was := p.Spec.ActiveDeadlineSeconds, old.Spec.ActiveDeadlineSeconds; {
	case is != nil && (*is < 0 || *is > 1<<31-1):
		return append(errs, field.Invalid(deadline, *is, "must be between 0 and 2147483647, inclusive"))
	case is != nil && was != nil && *is > *was:
		return append(errs, field.Invalid(deadline, *is, "must be less than or equal to previous value"))
	case is == nil && was != nil:
		return append(errs, field.Invalid(deadline, is, "must not update from a positive integer to nil value"))
	}
	errs = append(errs, validateTolerations(p.Spec.Tolerations, specPath.Child("tolerations"))...)
	for _, t := range old.Spec.Tolerations {
		if !slices.ContainsFunc(p.Spec.Tolerations, func(n v1.Toleration) bool {
			t, n := t, n
			t.TolerationSeconds, n.TolerationSeconds = nil, nil
			return t == n
		}) {
			errs = append(errs, field.Forbidden(specPath.Child("tolerations"), "existing toleration can not be modified except its tolerationSeconds"))
			break
		}
	}
	gated := len(old.Spec.SchedulingGates) > 0
	had := sets.New[string]()
	for _, g := range old.Spec.SchedulingGates {
		had.Insert(g.Name)
	}
	for i, g := range p.Spec.SchedulingGates {
		if !had.Has(g.Name) {
			errs = append(errs, field.Forbidden(specPath.Child("schedulingGates").Index(i), "only deletion is allowed, but found new scheduling gate '"+g.Name+"'"))
		}
	}
	if len(errs) > 0 {
		return errs
	}

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
	if gated {
		// A gated pod may be steered, but only more narrowly.
		if narrows(munged.NodeSelector, old.Spec.NodeSelector) {
			munged.NodeSelector = old.Spec.NodeSelector
		}
	}
	if !equality.Semantic.DeepEqual(*munged, old.Spec) {
		errs = append(errs, field.Forbidden(specPath, fmt.Sprintf("pod updates may not change fields other than %s\n%v", updatable, diff.Diff(old.Spec, *munged))))
	}
	return errs
}

func narrows(is, was map[string]string) bool {
	for k, v := range was {
		if w, ok := is[k]; !ok || w != v {
			return false
		}
	}
	return true
}

// ValidatePodStatusUpdate checks a status against the one before.
func ValidatePodStatusUpdate(p, old *v1.Pod) field.ErrorList {
	at := field.NewPath("status")
	var errs field.ErrorList
	if p.Spec.NodeName != old.Spec.NodeName {
		errs = append(errs, field.Forbidden(at.Child("nodeName"), "may not be changed directly"))
	}
	if old.Status.QOSClass != "" && p.Status.QOSClass != old.Status.QOSClass {
		errs = append(errs, field.Invalid(at.Child("qosClass"), p.Status.QOSClass, "field is immutable"))
	}
	// Kubelets may not bring back what has ended for good.
	check := func(is, was []v1.ContainerStatus, policy v1.RestartPolicy, sidecars sets.Set[string], at *field.Path) {
		if policy == v1.RestartPolicyAlways {
			return
		}
		for i := range was {
			t := was[i].State.Terminated
			if t == nil || sidecars.Has(was[i].Name) || t.ExitCode != 0 && policy == v1.RestartPolicyOnFailure {
				continue
			}
			for j := range is {
				if is[j].Name == was[i].Name && is[j].State.Terminated == nil {
					errs = append(errs, field.Forbidden(at.Index(j).Child("state"), "may not be transitioned to non-terminated state"))
				}
			}
		}
	}
	restarting := sets.New[string]()
	for _, list := range [][]v1.Container{old.Spec.Containers, old.Spec.InitContainers} {
		for i := range list {
			if list[i].RestartPolicy != nil || len(list[i].RestartPolicyRules) > 0 {
				restarting.Insert(list[i].Name)
			}
		}
	}
	check(p.Status.ContainerStatuses, old.Status.ContainerStatuses, old.Spec.RestartPolicy, restarting, at.Child("containerStatuses"))
	initPolicy := old.Spec.RestartPolicy
	if initPolicy == v1.RestartPolicyAlways {
		initPolicy = v1.RestartPolicyOnFailure
	}
	check(p.Status.InitContainerStatuses, old.Status.InitContainerStatuses, initPolicy, restarting, at.Child("initContainerStatuses"))
	return errs
}

// ValidateEphemeralContainersUpdate lets the ephemeralcontainers subresource add containers, and nothing else.
func ValidateEphemeralContainersUpdate(p, old *v1.Pod) field.ErrorList {
	if _, mirror := old.Annotations[v1.MirrorPodAnnotationKey]; mirror {
		return field.ErrorList{field.Forbidden(field.NewPath(""), "static pods do not support ephemeral containers")}
	}
	at := specPath.Child("ephemeralContainers")
	volumes, _ := validateVolumes(p.Spec.Volumes, specPath.Child("volumes"))
	names := sets.New[string]()
	targets := sets.New[string]()
	for _, list := range [][]v1.Container{p.Spec.Containers, p.Spec.InitContainers} {
		for i := range list {
			names.Insert(list[i].Name)
			targets.Insert(list[i].Name)
		}
	}
	var errs field.ErrorList
	for i := range p.Spec.EphemeralContainers {
		e, at := &p.Spec.EphemeralContainers[i], at.Index(i)
		c := v1.Container(e.EphemeralContainerCommon)
		errs = append(errs, validateContainer(&c, &p.Spec, volumes, names, sets.New[string](), at)...)
		if e.TargetContainerName != "" && !targets.Has(e.TargetContainerName) {
			errs = append(errs, field.NotFound(at.Child("targetContainerName"), e.TargetContainerName))
		}
		for name, set := range map[string]bool{
			"ports": len(c.Ports) > 0, "livenessProbe": c.LivenessProbe != nil, "readinessProbe": c.ReadinessProbe != nil,
			"startupProbe": c.StartupProbe != nil, "lifecycle": c.Lifecycle != nil,
			"resources": len(c.Resources.Limits)+len(c.Resources.Requests) > 0, "restartPolicy": c.RestartPolicy != nil,
		} {
			if set {
				errs = append(errs, field.Forbidden(at.Child(name), "cannot be set for an Ephemeral Container"))
			}
		}
	}
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
			errs = append(errs, field.Forbidden(at, fmt.Sprintf("existing ephemeral containers %q may not be changed\n%v", was.Name, diff.Diff(was, is))))
		}
	}
	return errs
}

// ValidateResize lets the resize subresource change cpu and memory of regular
// containers and sidecars, and nothing that a running pod cannot take on
// (https://kep.k8s.io/1287).
func ValidateResize(p, old *v1.Pod) field.ErrorList {
	if _, mirror := old.Annotations[v1.MirrorPodAnnotationKey]; mirror {
		return field.ErrorList{field.Forbidden(field.NewPath(""), "static pods cannot be resized")}
	}
	if old.Spec.OS != nil && old.Spec.OS.Name == v1.Windows {
		return field.ErrorList{field.Forbidden(field.NewPath(""), "windows pods cannot be resized")}
	}
	errs := ValidatePodSpec(&p.Spec, specPath)
	if is, was := QOSClass(&p.Spec), QOSClass(&old.Spec); is != was {
		errs = append(errs, field.Invalid(specPath, is, "Pod QOS Class may not change as a result of resizing"))
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
		sidecar := was.RestartPolicy != nil && *was.RestartPolicy == v1.ContainerRestartPolicyAlways
		switch {
		case !sidecar && !equality.Semantic.DeepEqual(is, was):
			errs = append(errs, field.Forbidden(specPath, "resources for non-sidecar init containers are immutable"))
		case sidecar:
			errs = append(errs, validateResized(&is.Resources, &was.Resources, specPath.Child("initContainers").Index(i).Child("resources"), "only cpu and memory resources for sidecar containers are mutable")...)
		}
	}
	for i := range old.Spec.Containers {
		errs = append(errs, validateResized(&p.Spec.Containers[i].Resources, &old.Spec.Containers[i].Resources,
			specPath.Child("containers").Index(i).Child("resources"), "only cpu and memory resources are mutable")...)
	}
	return errs
}

func validateResized(is, was *v1.ResourceRequirements, at *field.Path, mutable string) (errs field.ErrorList) {
	changed := !equality.Semantic.DeepEqual(is.Claims, was.Claims)
	for _, f := range []struct {
		name    string
		is, was v1.ResourceList
	}{{"requests", is.Requests, was.Requests}, {"limits", is.Limits, was.Limits}} {
		removed := false
		for name, old := range f.was {
			q, ok := f.is[name]
			removed = removed || !ok
			changed = changed || ok && name != v1.ResourceCPU && name != v1.ResourceMemory && q.Cmp(old) != 0
		}
		for name := range f.is {
			_, ok := f.was[name]
			changed = changed || !ok && name != v1.ResourceCPU && name != v1.ResourceMemory
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

// QOSClass gives the quality of service that the spec's resources make.
func QOSClass(s *v1.PodSpec) v1.PodQOSClass {
	all := []*v1.ResourceRequirements{}
	if s.Resources != nil && len(s.Resources.Limits)+len(s.Resources.Requests) > 0 {
		all = append(all, s.Resources)
	} else {
		for _, list := range [][]v1.Container{s.Containers, s.InitContainers} {
			for i := range list {
				all = append(all, &list[i].Resources)
			}
		}
	}
	any, guaranteed := false, true
	for _, r := range all {
		for _, name := range []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory} {
			request, limit := r.Requests[name], r.Limits[name]
			any = any || request.Sign() > 0 || limit.Sign() > 0
			if limit.Sign() <= 0 || request.Sign() > 0 && request.Cmp(limit) != 0 {
				guaranteed = false
			}
		}
	}
	switch {
	case !any:
		return v1.PodQOSBestEffort
	case guaranteed:
		return v1.PodQOSGuaranteed
	}
	return v1.PodQOSBurstable
}
