package podspec

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/component-helpers/node/util/sysctl"
)

var (
	groupsPolicies = []v1.SupplementalGroupsPolicy{v1.SupplementalGroupsPolicyMerge, v1.SupplementalGroupsPolicyStrict}
	groupChanges   = []v1.PodFSGroupChangePolicy{v1.FSGroupChangeAlways, v1.FSGroupChangeOnRootMismatch}
	labelChanges   = []v1.PodSELinuxChangePolicy{v1.SELinuxChangePolicyMountOption, v1.SELinuxChangePolicyRecursive}
	procMounts     = []v1.ProcMountType{v1.DefaultProcMount, v1.UnmaskedProcMount}
	seccompTypes   = []v1.SeccompProfileType{v1.SeccompProfileTypeLocalhost, v1.SeccompProfileTypeRuntimeDefault, v1.SeccompProfileTypeUnconfined}
	appArmorTypes  = []v1.AppArmorProfileType{v1.AppArmorProfileTypeLocalhost, v1.AppArmorProfileTypeRuntimeDefault, v1.AppArmorProfileTypeUnconfined}
)

// validatePodSecurity checks the security context of a pod.
func validatePodSecurity(s *v1.PodSpec, fldPath *field.Path) (errs field.ErrorList) {
	if p := s.ShareProcessNamespace; p != nil && *p && s.HostPID {
		errs = append(errs, field.Invalid(fldPath.Child("shareProcessNamespace"), *p, "ShareProcessNamespace and HostPID cannot both be enabled"))
	}
	sc := s.SecurityContext
	if sc == nil {
		return errs
	}
	at := fldPath.Child("securityContext")
	errs = append(errs, validateIDs(sc.RunAsUser, sc.RunAsGroup, at)...)
	if sc.FSGroup != nil {
		errs = append(errs, within(*sc.FSGroup, validation.IsValidGroupID, at, "fsGroup")...)
	}
	for i, id := range sc.SupplementalGroups {
		for _, msg := range validation.IsValidGroupID(id) {
			errs = append(errs, field.Invalid(at.Child("supplementalGroups").Index(i), id, msg))
		}
	}
	errs = append(errs, validateSysctls(s, at.Child("sysctls"))...)
	if p := sc.FSGroupChangePolicy; p != nil {
		errs = append(errs, among(*p, groupChanges, at, "fsGroupChangePolicy")...)
	}
	errs = append(errs, validateSeccomp(sc.SeccompProfile, at)...)
	errs = append(errs, validateWindowsOptions(sc.WindowsOptions, at)...)
	errs = append(errs, validateAppArmor(sc.AppArmorProfile, at)...)
	if p := sc.SupplementalGroupsPolicy; p != nil {
		errs = append(errs, among(*p, groupsPolicies, at, "supplementalGroupsPolicy")...)
	}
	if p := sc.SELinuxChangePolicy; p != nil {
		errs = append(errs, among(*p, labelChanges, at, "seLinuxChangePolicy")...)
	}
	return errs
}

func validateIDs(user, group *int64, at *field.Path) (errs field.ErrorList) {
	if user != nil {
		errs = append(errs, within(*user, validation.IsValidUserID, at, "runAsUser")...)
	}
	if group != nil {
		errs = append(errs, within(*group, validation.IsValidGroupID, at, "runAsGroup")...)
	}
	return errs
}

// validateSecurity checks the security context of a container.
func (c *checker) validateSecurity(sc *v1.SecurityContext, at *field.Path) field.ErrorList {
	if sc == nil {
		return nil
	}
	errs := validateIDs(sc.RunAsUser, sc.RunAsGroup, at)
	if p := sc.ProcMount; p != nil {
		errs = append(errs, among(*p, procMounts, at, "procMount")...)
		if *p == v1.UnmaskedProcMount && c.hostUsers() {
			errs = append(errs, field.Invalid(at.Child("procMount"), *p, "`hostUsers` must be false to use `Unmasked`"))
		}
	}
	errs = append(errs, validateSeccomp(sc.SeccompProfile, at)...)
	if e := sc.AllowPrivilegeEscalation; e != nil && !*e {
		if sc.Privileged != nil && *sc.Privileged {
			errs = append(errs, field.Invalid(at, sc, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"))
		}
		if sc.Capabilities != nil && slices.Contains(sc.Capabilities.Add, "CAP_SYS_ADMIN") {
			errs = append(errs, field.Invalid(at, sc, "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"))
		}
	}
	errs = append(errs, validateWindowsOptions(sc.WindowsOptions, at)...)
	return append(errs, validateAppArmor(sc.AppArmorProfile, at)...)
}

const (
	sysctlSegment   = "[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
	sysctlName      = "^(" + sysctlSegment + "[\\./])*" + sysctlSegment + "$"
	maxSysctlLength = 253
)

var sysctlNames = regexp.MustCompile(sysctlName)

// validateSysctls checks that the pod sets sysctls only of namespaces that it
// does not share with its host.
func validateSysctls(s *v1.PodSpec, at *field.Path) (errs field.ErrorList) {
	seen := sets.New[string]()
	for i, setting := range s.SecurityContext.Sysctls {
		name, at := setting.Name, at.Index(i).Child("name")
		switch {
		case name == "":
			errs = append(errs, field.Required(at, ""))
		case len(name) > maxSysctlLength || !sysctlNames.MatchString(name):
			errs = append(errs, field.Invalid(at, name, fmt.Sprintf("must have at most %d characters and match regex %s", maxSysctlLength, sysctlName)))
		case seen.Has(name):
			errs = append(errs, field.Duplicate(at, name))
		}
		seen.Insert(name)
		switch ns, _, _ := sysctl.GetNamespace(name); {
		case s.HostNetwork && ns == sysctl.NetNamespace:
			errs = append(errs, field.Invalid(at, name, "may not be specified when 'hostNetwork' is true"))
		case s.HostIPC && ns == sysctl.IPCNamespace:
			errs = append(errs, field.Invalid(at, name, "may not be specified when 'hostIPC' is true"))
		}
	}
	return errs
}

func validateSeccomp(p *v1.SeccompProfile, fldPath *field.Path) (errs field.ErrorList) {
	if p == nil {
		return nil
	}
	at := fldPath.Child("seccompProfile")
	if p.Type == "" {
		errs = append(errs, field.Required(at.Child("type"), "type is required when seccompProfile is set"))
	} else {
		errs = append(errs, among(p.Type, seccompTypes, at, "type")...)
	}
	switch {
	case p.Type == v1.SeccompProfileTypeLocalhost && p.LocalhostProfile == nil:
		errs = append(errs, field.Required(at.Child("localhostProfile"), "must be set when seccomp type is Localhost"))
	case p.Type == v1.SeccompProfileTypeLocalhost:
		errs = append(errs, validateInside(*p.LocalhostProfile, at, "localhostProfile")...)
	case p.LocalhostProfile != nil:
		errs = append(errs, field.Invalid(at.Child("localhostProfile"), p, "can only be set when seccomp type is Localhost"))
	}
	return errs
}

// maxAppArmorName is the kernel's limit of a profile's name.
const maxAppArmorName = 4095

func validateAppArmor(p *v1.AppArmorProfile, fldPath *field.Path) (errs field.ErrorList) {
	if p == nil {
		return nil
	}
	at := fldPath.Child("appArmorProfile")
	switch name := p.LocalhostProfile; {
	case p.Type == "":
		return field.ErrorList{field.Required(at.Child("type"), "type is required when appArmorProfile is set")}
	case p.Type != v1.AppArmorProfileTypeLocalhost:
		if errs = among(p.Type, appArmorTypes, at, "type"); len(errs) == 0 && name != nil {
			errs = append(errs, field.Invalid(at.Child("localhostProfile"), *name, "can only be set when AppArmor type is Localhost"))
		}
		return errs
	case name == nil || *name == "":
		return field.ErrorList{field.Required(at.Child("localhostProfile"), "must be set when AppArmor type is Localhost")}
	case strings.TrimSpace(*name) != *name:
		errs = append(errs, field.Invalid(at.Child("localhostProfile"), *name, "must not be padded with whitespace"))
	}
	if len(*p.LocalhostProfile) > maxAppArmorName {
		errs = append(errs, field.TooLong(at.Child("localhostProfile"), "", maxAppArmorName))
	}
	return errs
}
