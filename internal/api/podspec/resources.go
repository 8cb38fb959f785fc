package podspec

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	resourcehelper "k8s.io/component-helpers/resource"
)

var (
	containerResources = sets.New(v1.ResourceCPU, v1.ResourceMemory, v1.ResourceEphemeralStorage)
	objectCounts       = sets.New(v1.ResourcePods, v1.ResourceQuotas, v1.ResourceServices, v1.ResourceReplicationControllers, v1.ResourceSecrets,
		v1.ResourceConfigMaps, v1.ResourcePersistentVolumeClaims, v1.ResourceServicesNodePorts, v1.ResourceServicesLoadBalancers)
	quotaResources = containerResources.Union(objectCounts).Insert(v1.ResourceRequestsCPU, v1.ResourceRequestsMemory, v1.ResourceRequestsStorage,
		v1.ResourceRequestsEphemeralStorage, v1.ResourceLimitsCPU, v1.ResourceLimitsMemory, v1.ResourceLimitsEphemeralStorage)
	allResources = quotaResources.Clone().Insert(v1.ResourceStorage)
)

func hugePages(name v1.ResourceName) bool {
	return strings.HasPrefix(string(name), v1.ResourceHugePagesPrefix)
}

func quotaHugePages(name v1.ResourceName) bool {
	return hugePages(name) || strings.HasPrefix(string(name), v1.ResourceRequestsHugePagesPrefix)
}

// Native resources are Kubernetes' own.
func Native(name v1.ResourceName) bool {
	return !strings.Contains(string(name), "/") || strings.Contains(string(name), v1.ResourceDefaultNamespacePrefix)
}

// extended resources are advertised by nodes, in whole units.
func extended(name v1.ResourceName) bool {
	const requests = v1.DefaultResourceRequestsPrefix
	return !Native(name) && !strings.HasPrefix(string(name), requests) && len(validation.IsQualifiedName(requests+string(name))) == 0
}

// Overcommits reports whether more of a native resource may be promised than there is.
func Overcommits(name v1.ResourceName) bool { return Native(name) && !hugePages(name) }

// StandardQuotaResource reports whether a quota counts it under this very name.
func StandardQuotaResource(name v1.ResourceName) bool {
	return quotaResources.Has(name) || quotaHugePages(name)
}

// ValidateResourceName wants one of Kubernetes' resources, or a name with a domain.
func ValidateResourceName(name v1.ResourceName, at *field.Path) (errs field.ErrorList) {
	for _, msg := range validation.IsQualifiedName(string(name)) {
		errs = append(errs, field.Invalid(at, name, msg))
	}
	if len(errs) == 0 && !strings.Contains(string(name), "/") && !allResources.Has(name) && !quotaHugePages(name) {
		errs = append(errs, field.Invalid(at, name, "must be a standard resource type or fully qualified"))
	}
	return errs
}

// ValidateContainerResourceName wants a resource that a container can have.
func ValidateContainerResourceName(name v1.ResourceName, at *field.Path) field.ErrorList {
	errs := ValidateResourceName(name, at)
	switch {
	case !strings.Contains(string(name), "/"):
		if !containerResources.Has(name) && !hugePages(name) {
			errs = append(errs, field.Invalid(at, name, "must be a standard resource for containers"))
		}
	case !Native(name) && !extended(name):
		errs = append(errs, field.Invalid(at, name, "doesn't follow extended resource name standard"))
	}
	return errs
}

// ValidateQuotaResourceName wants a resource that a quota can bound.
func ValidateQuotaResourceName(name v1.ResourceName, at *field.Path) field.ErrorList {
	errs := ValidateResourceName(name, at)
	if !strings.Contains(string(name), "/") && !StandardQuotaResource(name) {
		errs = append(errs, field.Invalid(at, name, "must be a standard resource for quota"))
	}
	return errs
}

// ValidateQuantity wants an amount that the resource can have.
func ValidateQuantity(name v1.ResourceName, q resource.Quantity, at *field.Path) (errs field.ErrorList) {
	if q.Sign() < 0 {
		errs = append(errs, field.Invalid(at, q.String(), "must be greater than or equal to 0"))
	}
	if (objectCounts.Has(name) || extended(name)) && q.MilliValue()%1000 != 0 {
		errs = append(errs, field.Invalid(at, q, "must be an integer"))
	}
	return errs
}

// ValidateBasicQuantity wants an amount of which there can be so much.
func ValidateBasicQuantity(q resource.Quantity, at *field.Path) field.ErrorList {
	if q.Value() < 0 {
		return field.ErrorList{field.Invalid(at, q.Value(), "must be a valid resource quantity")}
	}
	return nil
}

// validateHugePages wants whole pages.
func validateHugePages(name v1.ResourceName, q resource.Quantity, at *field.Path) field.ErrorList {
	if !hugePages(name) {
		return nil
	}
	size, err := resource.ParseQuantity(strings.TrimPrefix(string(name), v1.ResourceHugePagesPrefix))
	if err != nil || size.Sign() <= 0 || size.MilliValue()%1000 != 0 || q.Value()%size.Value() != 0 {
		return field.ErrorList{field.Invalid(at, q.String(), fmt.Sprintf("%s is not positive integer multiple of %s", q.String(), name))}
	}
	return nil
}

// ValidateResources checks a container's resource requirements; claims are the
// names of the pod's resource claims.
func ValidateResources(r *v1.ResourceRequirements, claims sets.Set[string], at *field.Path) field.ErrorList {
	return validateResources(r, ValidateContainerResourceName, claims, at)
}

func validateResources(r *v1.ResourceRequirements, checkName func(v1.ResourceName, *field.Path) field.ErrorList, claims sets.Set[string], at *field.Path) (errs field.ErrorList) {
	if len(r.Limits)+len(r.Requests)+len(r.Claims) == 0 {
		return nil
	}
	compute, huge := false, false
	check := func(name v1.ResourceName, q resource.Quantity, at *field.Path) {
		errs = append(errs, checkName(name, at)...)
		errs = append(errs, ValidateQuantity(name, q, at)...)
		errs = append(errs, validateHugePages(name, q, at)...)
		compute = compute || name == v1.ResourceCPU || name == v1.ResourceMemory
		huge = huge || hugePages(name)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Limits)) {
		check(name, r.Limits[name], at.Child("limits").Key(string(name)))
	}
	for _, name := range slices.Sorted(maps.Keys(r.Requests)) {
		q, requests := r.Requests[name], at.Child("requests")
		check(name, q, requests.Key(string(name)))
		limit, limited := r.Limits[name]
		switch {
		case limited && !Overcommits(name) && q.Cmp(limit) != 0:
			errs = append(errs, field.Invalid(requests, q.String(), fmt.Sprintf("must be equal to %s limit of %s", name, limit.String())))
		case limited && q.Cmp(limit) > 0:
			errs = append(errs, field.Invalid(requests, q.String(), fmt.Sprintf("must be less than or equal to %s limit of %s", name, limit.String())))
		case !limited && !Overcommits(name):
			errs = append(errs, field.Required(at.Child("limits"), "Limit must be set for non overcommitable resources"))
		}
	}
	if huge && !compute {
		errs = append(errs, field.Forbidden(at, "HugePages require cpu or memory"))
	}
	return append(errs, validateClaimRefs(r.Claims, claims, at.Child("claims"))...)
}

// podResourceName wants a resource that the containers of a pod can share.
func podResourceName(name v1.ResourceName, at *field.Path) field.ErrorList {
	if errs := ValidateResourceName(name, at); len(errs) > 0 {
		return errs
	}
	if !resourcehelper.IsSupportedPodLevelResource(name) {
		return field.ErrorList{field.NotSupported(at, string(name), sets.List(resourcehelper.SupportedPodLevelResources()))}
	}
	return nil
}

// validatePodResources checks that the requests of the pod as a whole cover
// those of its containers, and that no container has a greater limit than the
// pod.
func validatePodResources(s *v1.PodSpec, fldPath *field.Path) (errs field.ErrorList) {
	if s.Resources == nil {
		return nil
	}
	at := fldPath.Child("resources")
	if s.Resources.Claims != nil {
		errs = append(errs, field.Forbidden(at.Child("claims"), "claims cannot be set for Resources at pod-level"))
	}
	errs = append(errs, validateResources(s.Resources, podResourceName, claimNames(s), at)...)
	wanted := resourcehelper.AggregateContainerRequests(&v1.Pod{Spec: *s}, resourcehelper.PodResourcesOptions{})
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		q, has := wanted[name], s.Resources.Requests[name]
		if resourcehelper.IsSupportedPodLevelResource(name) && q.Cmp(has) > 0 {
			errs = append(errs, field.Invalid(at.Child("requests").Key(string(name)), has.String(),
				fmt.Sprintf("must be greater than or equal to aggregate container requests of %s", q.String())))
		}
	}
	for i := range s.Containers {
		limits := s.Containers[i].Resources.Limits
		for _, name := range slices.Sorted(maps.Keys(limits)) {
			q := limits[name]
			if most, ok := s.Resources.Limits[name]; ok && q.Cmp(most) > 0 {
				errs = append(errs, field.Invalid(at.Child("containers").Index(i).Key(string(name)).Child("limits"), q.String(),
					fmt.Sprintf("must be less than or equal to pod limits of %s", most.String())))
			}
		}
	}
	return errs
}

// validateClaimRefs wants each claim, or each request of it, once, and to be
// the pod's.
func validateClaimRefs(refs []v1.ResourceClaim, claims sets.Set[string], at *field.Path) (errs field.ErrorList) {
	for i, ref := range refs {
		at := at.Index(i)
		if ref.Name == "" {
			errs = append(errs, field.Required(at, ""))
			continue
		}
		if ref.Request != "" {
			for _, msg := range validation.IsDNS1123Label(ref.Request) {
				errs = append(errs, field.Invalid(at.Child("request"), ref.Request, msg))
			}
		}
		for _, other := range refs[:i] {
			if other.Name == ref.Name && (other.Request == "" || ref.Request == "" || other.Request == ref.Request) {
				dup := ref.Name
				if other.Request != "" && ref.Request != "" {
					dup += "/" + ref.Request
				}
				errs = append(errs, field.Duplicate(at, dup))
				break
			}
		}
		if !claims.Has(ref.Name) {
			e := field.NotFound(at, ref.Name)
			if e.Detail = "must be one of the names in pod.spec.resourceClaims"; len(claims) == 0 {
				e.Detail += " which is empty"
			} else {
				e.Detail += ": " + strings.Join(sets.List(claims), ", ")
			}
			errs = append(errs, e)
		}
	}
	return errs
}

// claimNames returns the names of the pod's resource claims.
func claimNames(s *v1.PodSpec) sets.Set[string] {
	if len(s.ResourceClaims) == 0 {
		return nil
	}
	out := sets.New[string]()
	for i := range s.ResourceClaims {
		out.Insert(s.ResourceClaims[i].Name)
	}
	return out
}

// validateClaims checks the pod's resource claims.
func validateClaims(list []v1.PodResourceClaim, at *field.Path) (errs field.ErrorList) {
	names := sets.New[string]()
	for i, c := range list {
		at := at.Index(i)
		switch {
		case c.Name == "":
			errs = append(errs, field.Required(at.Child("name"), ""))
		case names.Has(c.Name):
			errs = append(errs, field.Duplicate(at.Child("name"), c.Name))
		default:
			names.Insert(c.Name)
			for _, msg := range validation.IsDNS1123Label(c.Name) {
				errs = append(errs, field.Invalid(at.Child("name"), c.Name, msg))
			}
		}
		if r := c.ResourceClaimName; r != nil {
			errs = append(errs, conforms(*r, validation.IsDNS1123Subdomain, at, "resourceClaimName")...)
		}
		if r := c.ResourceClaimTemplateName; r != nil {
			errs = append(errs, conforms(*r, validation.IsDNS1123Subdomain, at, "resourceClaimTemplateName")...)
		}
		switch {
		case c.ResourceClaimName != nil && c.ResourceClaimTemplateName != nil:
			errs = append(errs, field.Invalid(at, c, "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"))
		case c.ResourceClaimName == nil && c.ResourceClaimTemplateName == nil:
			errs = append(errs, field.Invalid(at, c, "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"))
		}
	}
	return errs
}
