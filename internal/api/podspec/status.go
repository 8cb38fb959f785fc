package podspec

import (
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
)

// ValidatePodStatusUpdate checks a status against the one before.
func ValidatePodStatusUpdate(p, old *v1.Pod) field.ErrorList {
	annotations, at := field.NewPath("metadata", "annotations"), field.NewPath("status")
	errs := validateAnnotationUpdate(p.Annotations, old.Annotations, annotations)
	errs = append(errs, Ratchet(validateAnnotations(p.Annotations, &p.Spec, annotations), func() field.ErrorList {
		return validateAnnotations(old.Annotations, &old.Spec, annotations)
	})...)
	is, was := &p.Status, &old.Status
	errs = append(errs, validateConditions(is.Conditions, at.Child("conditions"))...)
	if n := is.NominatedNodeName; n != "" && n != was.NominatedNodeName {
		errs = append(errs, conforms(n, validation.IsDNS1123Subdomain, at, "nominatedNodeName")...)
		if old.Spec.NodeName != "" {
			errs = append(errs, field.Forbidden(at.Child("nominatedNodeName"), "may not be set on pods that are already bound to a node"))
		}
	}
	if is.ObservedGeneration < 0 {
		errs = append(errs, field.Invalid(at.Child("observedGeneration"), is.ObservedGeneration, "must be a non-negative integer"))
	}
	if was.QOSClass != "" && is.QOSClass != was.QOSClass {
		errs = append(errs, field.Invalid(at.Child("qosClass"), is.QOSClass, "field is immutable"))
	}
	errs = append(errs, validateTransitions(is.ContainerStatuses, was.ContainerStatuses, &old.Spec, old.Spec.Containers, at.Child("containerStatuses"))...)
	errs = append(errs, validateTransitions(is.InitContainerStatuses, was.InitContainerStatuses, &old.Spec, old.Spec.InitContainers, at.Child("initContainerStatuses"))...)
	errs = append(errs, validateTransitions(is.EphemeralContainerStatuses, was.EphemeralContainerStatuses, &old.Spec, nil, at.Child("ephemeralContainerStatuses"))...)
	errs = append(errs, validateClaimStatuses(p, at.Child("resourceClaimStatuses"))...)
	errs = append(errs, validateExtendedClaim(p, at.Child("extendedResourceClaimStatus"))...)
	errs = append(errs, validatePodIPs(is.PodIPs, was.PodIPs, at.Child("podIPs"))...)
	errs = append(errs, validateHostIPs(is, was, at.Child("hostIPs"))...)
	for _, f := range [...]struct {
		name       string
		statuses   []v1.ContainerStatus
		containers []v1.Container
	}{{"containerStatuses", is.ContainerStatuses, p.Spec.Containers}, {"initContainerStatuses", is.InitContainerStatuses, p.Spec.InitContainers},
		{"ephemeralContainerStatuses", is.EphemeralContainerStatuses, nil}} {
		for i := range f.statuses {
			s := &f.statuses[i]
			if s.User != nil {
				errs = append(errs, validateUser(s.User, p.Spec.OS, at.Child(f.name).Index(i).Child("user", "linux"))...)
			}
			if f.name != "ephemeralContainerStatuses" {
				errs = append(errs, validateAllocated(s, byName(f.containers, s.Name), at.Child(f.name).Index(i))...)
			} else if len(s.AllocatedResourcesStatus) > 0 {
				errs = append(errs, field.Forbidden(at.Child(f.name).Index(i).Child("allocatedResourcesStatus"), "must not be specified in container status"))
			}
		}
	}
	return errs
}

func validateConditions(list []v1.PodCondition, at *field.Path) (errs field.ErrorList) {
	for i := range list {
		c := &list[i]
		if c.ObservedGeneration < 0 {
			errs = append(errs, field.Invalid(at.Index(i).Child("observedGeneration"), c.ObservedGeneration, "must be a non-negative integer"))
		}
		switch c.Type {
		case v1.PodScheduled, v1.PodReady, v1.PodInitialized:
		default:
			for _, msg := range validation.IsQualifiedName(string(c.Type)) {
				errs = append(errs, field.Invalid(at.Index(i).Child("Type"), string(c.Type), msg))
			}
		}
	}
	return errs
}

func byName(list []v1.Container, name string) *v1.Container {
	for i := range list {
		if list[i].Name == name {
			return &list[i]
		}
	}
	return nil
}

// validateTransitions checks that containers that have ended for good do not
// run again. containers are those that the statuses are of.
func validateTransitions(is, was []v1.ContainerStatus, s *v1.PodSpec, containers []v1.Container, at *field.Path) (errs field.ErrorList) {
	if containers != nil && restartsAll(s) {
		return nil // any exit may be followed by a start of all
	}
	for i := range was {
		t := was[i].State.Terminated
		if t == nil {
			continue
		}
		back := slices.ContainsFunc(is, func(n v1.ContainerStatus) bool { return n.Name == was[i].Name && n.State.Terminated == nil })
		if c := byName(containers, was[i].Name); back && (c == nil || !restarts(c, s.RestartPolicy, t.ExitCode)) {
			errs = append(errs, field.Forbidden(at.Index(i).Child("state"), "may not be transitioned to non-terminated state"))
		}
	}
	return errs
}

// restartsAll reports whether the exit of one of the pod's containers can have
// all of them start anew.
func restartsAll(s *v1.PodSpec) bool {
	for _, list := range [][]v1.Container{s.InitContainers, s.Containers} {
		for i := range list {
			if slices.ContainsFunc(list[i].RestartPolicyRules, func(r v1.ContainerRestartRule) bool {
				return r.Action == v1.ContainerRestartRuleActionRestartAllContainers
			}) {
				return true
			}
		}
	}
	return false
}

// restarts reports whether a container that ended with the code is started
// again, by one of its own rules, its own policy, or the pod's.
func restarts(c *v1.Container, ofPod v1.RestartPolicy, code int32) bool {
	policy := ofPod
	if c.RestartPolicy != nil {
		for _, r := range c.RestartPolicyRules {
			if r.ExitCodes == nil {
				continue
			}
			if slices.Contains(r.ExitCodes.Values, code) == (r.ExitCodes.Operator == v1.ContainerRestartRuleOnExitCodesOpIn) {
				if r.Action == v1.ContainerRestartRuleActionRestart {
					return true
				}
				break
			}
		}
		policy = v1.RestartPolicy(*c.RestartPolicy)
	}
	switch policy {
	case v1.RestartPolicyNever:
		return false
	case v1.RestartPolicyOnFailure:
		return code != 0
	}
	return true
}

func validateClaimStatuses(p *v1.Pod, at *field.Path) (errs field.ErrorList) {
	seen := sets.New[string]()
	for i, s := range p.Status.ResourceClaimStatuses {
		at := at.Index(i)
		if !slices.ContainsFunc(p.Spec.ResourceClaims, func(c v1.PodResourceClaim) bool { return c.Name == s.Name }) {
			errs = append(errs, field.Invalid(at.Child("name"), s.Name, "must match the name of an entry in `spec.resourceClaims`"))
		}
		if seen.Has(s.Name) {
			errs = append(errs, field.Duplicate(at.Child("name"), s.Name))
		}
		seen.Insert(s.Name)
		if s.ResourceClaimName != nil {
			errs = append(errs, conforms(*s.ResourceClaimName, validation.IsDNS1123Subdomain, at, "name")...)
		}
	}
	return errs
}

// validateExtendedClaim checks the claim for the pod's extended resources. Each
// mapping must name a container of the pod and a resource that the container
// requests.
func validateExtendedClaim(p *v1.Pod, at *field.Path) (errs field.ErrorList) {
	s := p.Status.ExtendedResourceClaimStatus
	if s == nil {
		return nil
	}
	mappings := at.Child("requestMappings")
	if len(s.RequestMappings) == 0 {
		errs = append(errs, field.Required(mappings, "at least one request mapping is required"))
	}
	for i, m := range s.RequestMappings {
		c := byName(p.Spec.Containers, m.ContainerName)
		if c == nil {
			c = byName(p.Spec.InitContainers, m.ContainerName)
		}
		if c == nil {
			errs = append(errs, field.Invalid(mappings.Index(i).Child("containerName"), m.ContainerName,
				"must match the name of an entry in spec.initContainers.name or spec.containers.name"))
		} else if _, ok := c.Resources.Requests[v1.ResourceName(m.ResourceName)]; !ok {
			errs = append(errs, field.Invalid(mappings.Index(i).Child("resourceName"), m.ResourceName,
				"must match the extended resource name of an entry in spec.initContainers.resources.requests or spec.containers.resources.requests"))
		}
		errs = append(errs, conforms(m.RequestName, validation.IsDNS1123Label, at, "requestName")...)
		if slices.Contains(s.RequestMappings[:i], m) {
			errs = append(errs, field.Duplicate(mappings.Index(i).Child("containerName"), m.ContainerName),
				field.Duplicate(mappings.Index(i).Child("resourceName"), m.ResourceName),
				field.Duplicate(mappings.Index(i).Child("requestName"), m.RequestName))
		}
	}
	if s.ResourceClaimName == "" {
		return append(errs, field.Required(at.Child("resourceClaimName"), ""))
	}
	return append(errs, conforms(s.ResourceClaimName, validation.IsDNS1123Subdomain, at, "resourceClaimName")...)
}

const onePerFamily = "may specify no more than one IP for each IP family"

func validatePodIPs(is, was []v1.PodIP, at *field.Path) (errs field.ErrorList) {
	if len(is) == 0 || slices.Equal(is, was) {
		return nil
	}
	var ips, existing []string
	for i := range is {
		ips = append(ips, is[i].IP)
	}
	for i := range was {
		existing = append(existing, was[i].IP)
	}
	if bad := validateAddresses(ips, existing, at); bad != nil {
		errs = append(errs, bad...)
	}
	if !dual(ips) {
		errs = append(errs, field.Invalid(at, is, onePerFamily))
	}
	return errs
}

func validateHostIPs(is, was *v1.PodStatus, at *field.Path) (errs field.ErrorList) {
	if len(is.HostIPs) == 0 || is.HostIP == was.HostIP && slices.Equal(is.HostIPs, was.HostIPs) {
		return nil
	}
	var ips, existing []string
	for i := range is.HostIPs {
		ips = append(ips, is.HostIPs[i].IP)
	}
	for i := range was.HostIPs {
		existing = append(existing, was.HostIPs[i].IP)
	}
	if ips[0] != is.HostIP {
		errs = append(errs, field.Invalid(at.Index(0).Child("ip"), ips[0], "must be equal to `hostIP`"))
	}
	errs = append(errs, validateAddresses(ips, existing, at)...)
	if !dual(ips) {
		errs = append(errs, field.Invalid(at, is.HostIPs, onePerFamily))
	}
	return errs
}

func validateAddresses(ips, existing []string, at *field.Path) (errs field.ErrorList) {
	for i, ip := range ips {
		errs = append(errs, validation.IsValidIPForLegacyField(at.Index(i), ip, false, existing)...)
	}
	return errs
}

// dual reports whether ips has at most one address, or one of each family.
func dual(ips []string) bool {
	if len(ips) < 2 {
		return true
	}
	both, err := netutils.IsDualStackIPStrings(ips)
	return err == nil && both && len(ips) == 2
}

func validateUser(u *v1.ContainerUser, os *v1.PodOS, at *field.Path) (errs field.ErrorList) {
	if u.Linux == nil {
		return nil
	}
	if os != nil && os.Name == v1.Windows {
		return field.ErrorList{field.Forbidden(at, notWindows)}
	}
	errs = append(errs, within(u.Linux.UID, validation.IsValidUserID, at, "uid")...)
	errs = append(errs, within(u.Linux.GID, validation.IsValidGroupID, at, "gid")...)
	for i, id := range u.Linux.SupplementalGroups {
		for _, msg := range validation.IsValidGroupID(id) {
			errs = append(errs, field.Invalid(at.Child("supplementalGroups").Index(i), id, msg))
		}
	}
	return errs
}

var resourceHealth = []v1.ResourceHealthStatus{v1.ResourceHealthStatusHealthy, v1.ResourceHealthStatusUnhealthy, v1.ResourceHealthStatusUnknown}

// validateAllocated checks the resources that a node gave to c, which is nil if
// the pod does not have such a container.
func validateAllocated(s *v1.ContainerStatus, c *v1.Container, fldPath *field.Path) (errs field.ErrorList) {
	for i, a := range s.AllocatedResourcesStatus {
		at := fldPath.Child("allocatedResourcesStatus").Index(i)
		if c != nil {
			if why := notAsked(c, a.Name); why != "" {
				errs = append(errs, field.Invalid(at.Child("name"), a.Name, why))
			}
		}
		seen := sets.New[v1.ResourceID]()
		for j, r := range a.Resources {
			at := at.Child("resources").Index(j)
			errs = append(errs, among(r.Health, resourceHealth, at, "health")...)
			if seen.Has(r.ResourceID) {
				errs = append(errs, field.Duplicate(at.Child("resourceID"), r.ResourceID))
			}
			seen.Insert(r.ResourceID)
		}
	}
	return errs
}

// notAsked returns the message for a resource or claim that the container does
// not request, "" if it does.
func notAsked(c *v1.Container, name v1.ResourceName) string {
	if !strings.HasPrefix(string(name), "claim:") {
		if _, ok := c.Resources.Requests[name]; !ok {
			return "must match one of the container's resource requests"
		}
		return ""
	}
	for _, claim := range c.Resources.Claims {
		whole := "claim:" + claim.Name
		if claim.Request != "" {
			whole = fmt.Sprintf("%s/%s", whole, claim.Request)
		}
		if whole == string(name) {
			return ""
		}
	}
	return "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or 'claim:<claimName>' if request is empty"
}
