package serviceip

import (
	"fmt"
	"net/netip"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/api/core"
)

// families fills in the families of s's addresses and its policy of them, as far as it
// does not say them, and checks that the cluster has them. A Service gets a second
// family, or returns it up, only where its policy or its fields change.
func (a *Allocator) families(s, old *v1.Service) error {
	if s.Spec.Type == v1.ServiceTypeExternalName || preferredAsBefore(s, old) {
		return nil
	}
	bare := s.Spec.ClusterIP == v1.ClusterIPNone && len(s.Spec.Selector) == 0
	if s.Spec.IPFamilyPolicy == nil {
		switch {
		case old != nil && old.Spec.IPFamilyPolicy != nil:
			s.Spec.IPFamilyPolicy = ptr.To(*old.Spec.IPFamilyPolicy)
		case bare: // its endpoints are not of this cluster
			s.Spec.IPFamilyPolicy = ptr.To(v1.IPFamilyPolicyRequireDualStack)
		default:
			s.Spec.IPFamilyPolicy = ptr.To(v1.IPFamilyPolicySingleStack)
		}
	}
	if errs := core.ValidateClusterIPs(s); len(errs) > 0 {
		return invalid(s, errs...)
	}
	errs := append(a.checkPolicy(s, old), a.inferFamilies(s)...)
	if len(errs) > 0 {
		return invalid(s, errs...)
	}
	single := *s.Spec.IPFamilyPolicy == v1.IPFamilyPolicySingleStack
	if bare {
		if len(s.Spec.IPFamilies) == 0 {
			s.Spec.IPFamilies = []v1.IPFamily{a.clusters[0]}
		}
		if len(s.Spec.IPFamilies) == 1 && !single {
			s.Spec.IPFamilies = append(s.Spec.IPFamilies, other(s.Spec.IPFamilies[0]))
		}
		return nil
	}
	spec := field.NewPath("spec")
	if *s.Spec.IPFamilyPolicy == v1.IPFamilyPolicyRequireDualStack && len(a.clusters) < 2 {
		errs = append(errs, field.Invalid(spec.Child("ipFamilyPolicy"), *s.Spec.IPFamilyPolicy, "this cluster is not configured for dual-stack services"))
	}
	for i, f := range s.Spec.IPFamilies {
		if !slices.Contains(a.clusters, f) {
			errs = append(errs, field.Invalid(spec.Child("ipFamilies").Index(i), f, "not configured on this cluster"))
		}
	}
	if len(errs) > 0 {
		return invalid(s, errs...)
	}
	if len(s.Spec.IPFamilies) == 0 {
		s.Spec.IPFamilies = []v1.IPFamily{a.clusters[0]}
	}
	if !single && len(s.Spec.IPFamilies) == 1 && len(a.clusters) == 2 {
		s.Spec.IPFamilies = append(s.Spec.IPFamilies, other(s.Spec.IPFamilies[0]))
	}
	return nil
}

// preferredAsBefore reports whether s prefers two families, and has those that it had:
// it stays as it is where the cluster has got another family, or lost one.
func preferredAsBefore(s, old *v1.Service) bool {
	return old != nil && ptr.Deref(old.Spec.IPFamilyPolicy, "") == v1.IPFamilyPolicyPreferDualStack && ptr.Deref(s.Spec.IPFamilyPolicy, "") == v1.IPFamilyPolicyPreferDualStack &&
		slices.Equal(s.Spec.ClusterIPs, old.Spec.ClusterIPs) && slices.Equal(s.Spec.IPFamilies, old.Spec.IPFamilies)
}

// checkPolicy compares s's policy, which is set, with its addresses and families. One
// that goes to SingleStack gives up the second of each.
func (a *Allocator) checkPolicy(s, old *v1.Service) (errs field.ErrorList) {
	at := field.NewPath("spec", "ipFamilyPolicy")
	single := *s.Spec.IPFamilyPolicy == v1.IPFamilyPolicySingleStack
	if old != nil && single {
		if slices.Equal(s.Spec.ClusterIPs, old.Spec.ClusterIPs) && len(s.Spec.ClusterIPs) > 1 {
			s.Spec.ClusterIPs = s.Spec.ClusterIPs[:1:1]
		}
		if slices.Equal(s.Spec.IPFamilies, old.Spec.IPFamilies) && len(s.Spec.IPFamilies) > 1 {
			s.Spec.IPFamilies = s.Spec.IPFamilies[:1:1]
		}
	}
	if old != nil && !single {
		if reduced(s.Spec.ClusterIPs, old.Spec.ClusterIPs) {
			errs = append(errs, field.Invalid(at, *s.Spec.IPFamilyPolicy, "must be 'SingleStack' to release the secondary cluster IP"))
		}
		if reduced(s.Spec.IPFamilies, old.Spec.IPFamilies) {
			errs = append(errs, field.Invalid(at, *s.Spec.IPFamilyPolicy, "must be 'SingleStack' to release the secondary IP family"))
		}
	}
	if single && len(s.Spec.ClusterIPs) == 2 {
		errs = append(errs, field.Invalid(at, *s.Spec.IPFamilyPolicy, "must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs are specified"))
	}
	if single && len(s.Spec.IPFamilies) == 2 {
		errs = append(errs, field.Invalid(at, *s.Spec.IPFamilyPolicy, "must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified"))
	}
	return errs
}

// reduced reports whether is has lost the second of what was has.
func reduced[T comparable](is, was []T) bool {
	return len(was) == 2 && len(is) == 1 && is[0] == was[0]
}

// inferFamilies adds the families of the addresses that s asks for.
func (a *Allocator) inferFamilies(s *v1.Service) (errs field.ErrorList) {
	for i, text := range s.Spec.ClusterIPs {
		ip, err := netip.ParseAddr(text)
		if err != nil {
			break // None, or an address in an older form that validation accepts
		}
		if i < len(s.Spec.IPFamilies) {
			continue
		}
		if f := familyOf(ip); slices.Contains(a.clusters, f) {
			s.Spec.IPFamilies = append(slices.Clip(s.Spec.IPFamilies), f)
		} else {
			errs = append(errs, field.Invalid(field.NewPath("spec", "clusterIPs").Index(i), s.Spec.ClusterIPs, fmt.Sprintf("%s is not configured on this cluster", f)))
		}
	}
	return errs
}

func other(f v1.IPFamily) v1.IPFamily {
	if f == v1.IPv4Protocol {
		return v1.IPv6Protocol
	}
	return v1.IPv4Protocol
}
