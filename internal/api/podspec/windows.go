package podspec

import (
	"fmt"
	"regexp"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	noWindowsOptions = "windows options cannot be set for a linux pod"
	notWindows       = "cannot be set for a windows pod"
)

// visit calls f with every container and its path.
func visit(s *v1.PodSpec, at *field.Path, f func(*v1.Container, func() *field.Path)) {
	for _, l := range lists(s) {
		for i := range l.containers {
			f(&l.containers[i], func() *field.Path { return at.Child(l.name).Index(i) })
		}
	}
	for i := range s.EphemeralContainers {
		f((*v1.Container)(&s.EphemeralContainers[i].EphemeralContainerCommon), func() *field.Path { return at.Child("ephemeralContainers").Index(i) })
	}
}

// validateOS checks that a pod has no fields that belong to another operating
// system than its own.
func validateOS(s *v1.PodSpec, at *field.Path) (errs field.ErrorList) {
	if s.OS == nil {
		return nil
	}
	switch s.OS.Name {
	case "":
		return field.ErrorList{field.Required(at.Child("os", "name"), "cannot be empty")}
	case v1.Linux:
		if sc := s.SecurityContext; sc != nil && sc.WindowsOptions != nil {
			errs = append(errs, field.Forbidden(at.Child("securityContext", "windowsOptions"), noWindowsOptions))
		}
		visit(s, at, func(c *v1.Container, path func() *field.Path) {
			if sc := c.SecurityContext; sc != nil && sc.WindowsOptions != nil {
				errs = append(errs, field.Forbidden(path().Child("securityContext", "windowsOptions"), noWindowsOptions))
			}
		})
		return errs
	case v1.Windows:
		return validateWindows(s, at)
	}
	return among(s.OS.Name, systems, at, "os")
}

func validateWindows(s *v1.PodSpec, at *field.Path) (errs field.ErrorList) {
	forbid := func(set bool, at *field.Path, name string, more ...string) {
		if set {
			errs = append(errs, field.Forbidden(at.Child(name, more...), notWindows))
		}
	}
	if sc := s.SecurityContext; sc != nil {
		forbid(sc.AppArmorProfile != nil, at, "securityContext", "appArmorProfile")
		forbid(sc.SELinuxOptions != nil, at, "securityContext", "seLinuxOptions")
		forbid(sc.SeccompProfile != nil, at, "securityContext", "seccompProfile")
		forbid(sc.FSGroup != nil, at, "securityContext", "fsGroup")
		forbid(sc.FSGroupChangePolicy != nil, at, "securityContext", "fsGroupChangePolicy")
		forbid(len(sc.Sysctls) > 0, at, "securityContext", "sysctls")
		forbid(sc.RunAsUser != nil, at, "securityContext", "runAsUser")
		forbid(sc.RunAsGroup != nil, at, "securityContext", "runAsGroup")
		forbid(sc.SupplementalGroups != nil, at, "securityContext", "supplementalGroups")
		forbid(sc.SupplementalGroupsPolicy != nil, at, "securityContext", "supplementalGroupsPolicy")
		forbid(sc.SELinuxChangePolicy != nil, at, "securityContext", "seLinuxChangePolicy")
	}
	forbid(s.HostUsers != nil, at, "hostUsers")
	forbid(s.HostPID, at, "hostPID")
	forbid(s.HostIPC, at, "hostIPC")
	forbid(s.ShareProcessNamespace != nil, at, "shareProcessNamespace")
	forbid(s.Resources != nil, at, "resources")
	visit(s, at, func(c *v1.Container, path func() *field.Path) {
		sc := c.SecurityContext
		if sc == nil {
			return
		}
		at := path().Child("securityContext")
		forbid(sc.AppArmorProfile != nil, at, "appArmorProfile")
		forbid(sc.SELinuxOptions != nil, at, "seLinuxOptions")
		forbid(sc.SeccompProfile != nil, at, "seccompProfile")
		forbid(sc.Capabilities != nil, at, "capabilities")
		forbid(sc.ReadOnlyRootFilesystem != nil, at, "readOnlyRootFilesystem")
		forbid(sc.Privileged != nil, at, "privileged")
		forbid(sc.AllowPrivilegeEscalation != nil, at, "allowPrivilegeEscalation")
		forbid(sc.ProcMount != nil, at, "procMount")
		forbid(sc.RunAsUser != nil, at, "runAsUser")
		forbid(sc.RunAsGroup != nil, at, "runAsGroup")
	})
	return errs
}

// hostProcess is whether options make their containers processes of the host.
func hostProcess(o *v1.WindowsSecurityContextOptions) *bool {
	if o == nil {
		return nil
	}
	return o.HostProcess
}

// validateHostProcess checks that all containers of a pod are processes of the
// host, or none.
func validateHostProcess(s *v1.PodSpec, at *field.Path) (errs field.ErrorList) {
	var ofPod *bool
	if s.SecurityContext != nil {
		ofPod = hostProcess(s.SecurityContext.WindowsOptions)
	}
	all, host := 0, 0
	visit(s, at, func(c *v1.Container, path func() *field.Path) {
		all++
		is := ofPod
		if c.SecurityContext != nil {
			if own := hostProcess(c.SecurityContext.WindowsOptions); own != nil {
				is = own
				if ofPod != nil && *ofPod != *own {
					errs = append(errs, field.Invalid(path().Child("securityContext", "windowsOptions", "hostProcess"), *own,
						fmt.Sprintf("pod hostProcess value must be identical if both are specified, was %v", *ofPod)))
				}
			}
		}
		if is != nil && *is {
			host++
		}
	})
	if host == 0 {
		return errs
	}
	if host != all {
		errs = append(errs, field.Invalid(at, "", "If pod contains any hostProcess containers then all containers must be HostProcess containers"))
	}
	if !s.HostNetwork {
		errs = append(errs, field.Invalid(at.Child("hostNetwork"), s.HostNetwork, "hostNetwork must be true if pod contains any hostProcess containers"))
	}
	return errs
}

// Limits of the options of Windows.
const (
	maxCredentialSpecKiB = 64
	maxDomain            = 256
	maxUser              = 104
)

// The forms of a user's name, DOMAIN\USER or USER, and of domains: of NetBIOS or
// of DNS.
var (
	controlCharacters = regexp.MustCompile(`[[:cntrl:]]+`)
	netBIOSName       = regexp.MustCompile(`^[^\\/:\*\?"<>|\.][^\\/:\*\?"<>|]{0,14}$`)
	domainName        = regexp.MustCompile(`^` + domainLabel + `(?:\.` + domainLabel + `)*$`)
	dotsAndSpaces     = regexp.MustCompile(`^[\. ]+$`)
)

const (
	domainLabel   = `[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?`
	notInUserName = `"/\:;|=,+*?<>@[]`
)

func validateWindowsOptions(o *v1.WindowsSecurityContextOptions, fldPath *field.Path) (errs field.ErrorList) {
	if o == nil {
		return nil
	}
	at := fldPath.Child("windowsOptions")
	if o.GMSACredentialSpecName != nil {
		errs = append(errs, conforms(*o.GMSACredentialSpecName, validation.IsDNS1123Subdomain, at, "gmsaCredentialSpecName")...)
	}
	if spec := o.GMSACredentialSpec; spec != nil && *spec == "" {
		errs = append(errs, field.Invalid(at.Child("gmsaCredentialSpec"), *spec, "gmsaCredentialSpec cannot be an empty string"))
	} else if spec != nil && len(*spec) > maxCredentialSpecKiB*1024 {
		errs = append(errs, field.Invalid(at.Child("gmsaCredentialSpec"), *spec, fmt.Sprintf("gmsaCredentialSpec size must be under %d KiB", maxCredentialSpecKiB)))
	}
	if o.RunAsUserName != nil {
		errs = append(errs, conforms(*o.RunAsUserName, userName, at, "runAsUserName")...)
	}
	return errs
}

// userName returns messages for a bad name of a user of Windows.
func userName(name string) (msgs []string) {
	switch {
	case name == "":
		return []string{"runAsUserName cannot be an empty string"}
	case controlCharacters.MatchString(name):
		return []string{"runAsUserName cannot contain control characters"}
	case strings.Count(name, `\`) > 1:
		return []string{"runAsUserName cannot contain more than one backslash"}
	}
	domain, user, hasDomain := strings.Cut(name, `\`)
	if !hasDomain {
		domain, user = "", name
	}
	if len(domain) >= maxDomain {
		msgs = append(msgs, fmt.Sprintf("runAsUserName's Domain length must be under %d characters", maxDomain))
	}
	if hasDomain && !netBIOSName.MatchString(domain) && !domainName.MatchString(domain) {
		msgs = append(msgs, "runAsUserName's Domain doesn't match the NetBios nor the DNS format")
	}
	if user == "" {
		msgs = append(msgs, "runAsUserName's User cannot be empty")
	} else if len(user) > maxUser {
		msgs = append(msgs, fmt.Sprintf("runAsUserName's User length must not be longer than %d characters", maxUser))
	}
	if dotsAndSpaces.MatchString(user) {
		msgs = append(msgs, "runAsUserName's User cannot contain only periods or spaces")
	}
	if strings.ContainsAny(user, notInUserName) {
		msgs = append(msgs, "runAsUserName's User cannot contain the following characters: "+notInUserName)
	}
	return msgs
}
