package podspec

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func validateUserID(id *int64, at *field.Path) (errs field.ErrorList) {
	if id != nil {
		for _, msg := range validation.IsValidUserID(*id) {
			errs = append(errs, field.Invalid(at, *id, msg))
		}
	}
	return errs
}

func validateGroupID(id *int64, at *field.Path) (errs field.ErrorList) {
	if id != nil {
		for _, msg := range validation.IsValidGroupID(*id) {
			errs = append(errs, field.Invalid(at, *id, msg))
		}
	}
	return errs
}

// validatePodSecurity checks the security context of a pod, and what of the
// host it asks for.
func validatePodSecurity(s *v1.PodSpec, fldPath *field.Path) (errs field.ErrorList) {
	at := fldPath.Child("securityContext")
	if p := s.ShareProcessNamespace; p != nil && *p && s.HostPID {
		errs = append(errs, field.Invalid(fldPath.Child("shareProcessNamespace"), *p, "ShareProcessNamespace and HostPID cannot both be enabled"))
	}
	if u := s.HostUsers; u != nil && !*u {
		for name, set := range map[string]bool{"hostNetwork": s.HostNetwork, "hostPID": s.HostPID, "hostIPC": s.HostIPC} {
			if set {
				errs = append(errs, field.Forbidden(fldPath.Child(name), "when `hostUsers` is false"))
			}
		}
	}
	sc := s.SecurityContext
	if sc == nil {
		return errs
	}
	errs = append(errs, validateUserID(sc.RunAsUser, at.Child("runAsUser"))...)
	errs = append(errs, validateGroupID(sc.RunAsGroup, at.Child("runAsGroup"))...)
	errs = append(errs, validateGroupID(sc.FSGroup, at.Child("fsGroup"))...)
	for i := range sc.SupplementalGroups {
		errs = append(errs, validateGroupID(&sc.SupplementalGroups[i], at.Child("supplementalGroups").Index(i))...)
	}
	if p := sc.SupplementalGroupsPolicy; p != nil {
		errs = append(errs, oneOf(at.Child("supplementalGroupsPolicy"), *p, v1.SupplementalGroupsPolicyMerge, v1.SupplementalGroupsPolicyStrict)...)
	}
	if p := sc.FSGroupChangePolicy; p != nil {
		errs = append(errs, oneOf(at.Child("fsGroupChangePolicy"), *p, v1.FSGroupChangeOnRootMismatch, v1.FSGroupChangeAlways)...)
	}
	errs = append(errs, validateSysctls(sc.Sysctls, at.Child("sysctls"))...)
	errs = append(errs, validateSeccomp(sc.SeccompProfile, at.Child("seccompProfile"))...)
	return append(errs, validateAppArmor(sc.AppArmorProfile, at.Child("appArmorProfile"))...)
}

// validateSecurity checks the security context of a container of s.
func validateSecurity(sc *v1.SecurityContext, s *v1.PodSpec, at *field.Path) (errs field.ErrorList) {
	if sc == nil {
		return nil
	}
	errs = append(errs, validateUserID(sc.RunAsUser, at.Child("runAsUser"))...)
	errs = append(errs, validateGroupID(sc.RunAsGroup, at.Child("runAsGroup"))...)
	if p := sc.ProcMount; p != nil {
		errs = append(errs, oneOf(at.Child("procMount"), *p, v1.DefaultProcMount, v1.UnmaskedProcMount)...)
		if *p == v1.UnmaskedProcMount && (s.HostUsers == nil || *s.HostUsers) {
			errs = append(errs, field.Invalid(at.Child("procMount"), *p, "`hostUsers` must be false to use `Unmasked`"))
		}
	}
	errs = append(errs, validateSeccomp(sc.SeccompProfile, at.Child("seccompProfile"))...)
	errs = append(errs, validateAppArmor(sc.AppArmorProfile, at.Child("appArmorProfile"))...)
	if e := sc.AllowPrivilegeEscalation; e == nil || *e {
		return errs
	}
	if sc.Privileged != nil && *sc.Privileged {
		errs = append(errs, field.Invalid(at, sc, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"))
	}
	if sc.Capabilities != nil && slices.Contains(sc.Capabilities.Add, "CAP_SYS_ADMIN") {
		errs = append(errs, field.Invalid(at, sc, "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"))
	}
	return errs
}

const (
	sysctlSegment   = "[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
	sysctlName      = "(" + sysctlSegment + "[\\./])*" + sysctlSegment
	maxSysctlLength = 253
)

var sysctlNames = regexp.MustCompile("^" + sysctlName + "$")

func validateSysctls(list []v1.Sysctl, at *field.Path) (errs field.ErrorList) {
	seen := sets.New[string]()
	for i, s := range list {
		at := at.Index(i).Child("name")
		switch {
		case s.Name == "":
			errs = append(errs, field.Required(at, ""))
		case len(s.Name) > maxSysctlLength || !sysctlNames.MatchString(s.Name):
			errs = append(errs, field.Invalid(at, s.Name, fmt.Sprintf("must have at most %d characters and match regex %s", maxSysctlLength, sysctlName)))
		case seen.Has(s.Name):
			errs = append(errs, field.Duplicate(at, s.Name))
		}
		seen.Insert(s.Name)
	}
	return errs
}

func validateSeccomp(p *v1.SeccompProfile, at *field.Path) (errs field.ErrorList) {
	if p == nil {
		return nil
	}
	if p.Type == "" {
		return field.ErrorList{field.Required(at.Child("type"), "type is required when seccompProfile is set")}
	}
	errs = oneOf(at.Child("type"), p.Type, v1.SeccompProfileTypeLocalhost, v1.SeccompProfileTypeRuntimeDefault, v1.SeccompProfileTypeUnconfined)
	switch {
	case p.Type == v1.SeccompProfileTypeLocalhost && p.LocalhostProfile == nil:
		errs = append(errs, field.Required(at.Child("localhostProfile"), "must be set when seccomp type is Localhost"))
	case p.Type == v1.SeccompProfileTypeLocalhost:
		errs = append(errs, validateInside(*p.LocalhostProfile, at.Child("localhostProfile"))...)
	case p.LocalhostProfile != nil:
		errs = append(errs, field.Invalid(at.Child("localhostProfile"), p, "can only be set when seccomp type is Localhost"))
	}
	return errs
}

// maxAppArmorName is the kernel's limit of a profile's name.
const maxAppArmorName = 4095

func validateAppArmor(p *v1.AppArmorProfile, at *field.Path) (errs field.ErrorList) {
	if p == nil {
		return nil
	}
	if p.Type == "" {
		return field.ErrorList{field.Required(at.Child("type"), "type is required when appArmorProfile is set")}
	}
	errs = oneOf(at.Child("type"), p.Type, v1.AppArmorProfileTypeLocalhost, v1.AppArmorProfileTypeRuntimeDefault, v1.AppArmorProfileTypeUnconfined)
	at = at.Child("localhostProfile")
	switch name := p.LocalhostProfile; {
	case p.Type == v1.AppArmorProfileTypeLocalhost && (name == nil || *name == ""):
		errs = append(errs, field.Required(at, "must be set when AppArmor type is Localhost"))
	case p.Type == v1.AppArmorProfileTypeLocalhost && strings.TrimSpace(*name) != *name:
		errs = append(errs, field.Invalid(at, *name, "must not be padded with whitespace"))
	case p.Type == v1.AppArmorProfileTypeLocalhost && len(*name) > maxAppArmorName:
		errs = append(errs, field.TooLong(at, "", maxAppArmorName))
	case p.Type != v1.AppArmorProfileTypeLocalhost && name != nil:
		errs = append(errs, field.Invalid(at, *name, "can only be set when AppArmor type is Localhost"))
	}
	return errs
}

// validateInside: p does not lead out of the folder that it is relative to.
func validateInside(p string, at *field.Path) (errs field.ErrorList) {
	if p == "" {
		return nil
	}
	if path.IsAbs(p) {
		errs = append(errs, field.Invalid(at, p, "must be a relative path"))
	}
	if slices.Contains(strings.Split(p, "/"), "..") {
		errs = append(errs, field.Invalid(at, p, "must not contain '..'"))
	}
	return errs
}
