package podspec

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// validateAnnotations checks those of the pod, or of the template, of s.
func validateAnnotations(annotations map[string]string, s *v1.PodSpec, at *field.Path) (errs field.ErrorList) {
	for key, value := range annotations {
		switch container, isAppArmor := strings.CutPrefix(key, v1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix); {
		case key == v1.MirrorPodAnnotationKey:
			if s.NodeName == "" {
				errs = append(errs, field.Invalid(at.Key(key), value, "must set spec.nodeName if mirror pod annotation is set"))
			}
		case key == v1.TolerationsAnnotationKey && value != "":
			var tolerations []v1.Toleration
			if err := json.Unmarshal([]byte(value), &tolerations); err != nil {
				errs = append(errs, field.Invalid(at, key, err.Error()))
			}
			errs = append(errs, validateTolerations(tolerations, at.Child(key))...)
		case key == v1.PodDeletionCost:
			if !isDeletionCost(value) {
				errs = append(errs, field.Invalid(at.Key(key), value, "must be a 32bit integer"))
			}
		case key == v1.SeccompPodAnnotationKey, strings.HasPrefix(key, v1.SeccompContainerAnnotationKeyPrefix):
			errs = append(errs, validateSeccompName(value, at, key)...)
		case isAppArmor:
			if !hasContainer(s, container) {
				errs = append(errs, field.Invalid(at.Key(key), container, "container not found"))
			}
			if value != "" && value != v1.DeprecatedAppArmorBetaProfileRuntimeDefault && value != v1.DeprecatedAppArmorBetaProfileNameUnconfined &&
				!strings.HasPrefix(value, v1.DeprecatedAppArmorBetaProfileNamePrefix) {
				errs = append(errs, field.Invalid(at.Key(key), value, fmt.Sprintf("invalid AppArmor profile name: %q", value)))
			}
		}
	}
	return errs
}

func hasContainer(s *v1.PodSpec, name string) (has bool) {
	visit(s, nil, func(c *v1.Container, _ func() *field.Path) { has = has || c.Name == name })
	return has
}

// isDeletionCost reports whether s is a 32-bit integer. One that is not
// negative must be in its canonical form.
func isDeletionCost(s string) bool {
	n, err := strconv.ParseInt(s, 10, 32)
	return err == nil && (strconv.FormatInt(n, 10) == s || strings.HasPrefix(s, "-"))
}

func validateSeccompName(name string, at *field.Path, key string) field.ErrorList {
	switch {
	case name == v1.SeccompProfileRuntimeDefault, name == v1.DeprecatedSeccompProfileDockerDefault, name == v1.SeccompProfileNameUnconfined:
		return nil
	case strings.HasPrefix(name, v1.SeccompLocalhostProfileNamePrefix):
		return validateInside(strings.TrimPrefix(name, v1.SeccompLocalhostProfileNamePrefix), at, key)
	}
	return field.ErrorList{field.Invalid(at.Child(key), name, "must be a valid seccomp profile")}
}

// validateAnnotationUpdate checks that the AppArmor annotations and the
// annotation of mirror pods have not changed.
func validateAnnotationUpdate(is, was map[string]string, at *field.Path) (errs field.ErrorList) {
	lasting := func(key string, appArmor, mirror string) {
		if strings.HasPrefix(key, v1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix) {
			errs = append(errs, field.Forbidden(at.Key(key), appArmor))
		}
		if key == v1.MirrorPodAnnotationKey {
			errs = append(errs, field.Forbidden(at.Key(key), mirror))
		}
	}
	for key, before := range was {
		if value, ok := is[key]; !ok || value != before {
			lasting(key, "may not remove or update AppArmor annotations", "may not remove or update mirror pod annotation")
		}
	}
	for key := range is {
		if _, ok := was[key]; !ok {
			lasting(key, "may not add AppArmor annotations", "may not add mirror pod annotation")
		}
	}
	return errs
}

// agree checks that annotations and fields that both name a profile name the
// same one.
func agree(annotations map[string]string, s *v1.PodSpec, at *field.Path) (errs field.ErrorList) {
	seccomp := func(annotation string, p *v1.SeccompProfile, at func() *field.Path) {
		value, ok := annotations[annotation]
		if !ok || p == nil {
			return
		}
		same := true
		switch p.Type {
		case v1.SeccompProfileTypeUnconfined:
			same = value == v1.SeccompProfileNameUnconfined
		case v1.SeccompProfileTypeRuntimeDefault:
			same = value == v1.SeccompProfileRuntimeDefault || value == v1.DeprecatedSeccompProfileDockerDefault
		case v1.SeccompProfileTypeLocalhost:
			name, isLocal := strings.CutPrefix(value, v1.SeccompLocalhostProfileNamePrefix)
			if same = isLocal; isLocal && (p.LocalhostProfile == nil || *p.LocalhostProfile != name) {
				errs = append(errs, field.Forbidden(at().Child("localhostProfile"), "seccomp profile in annotation and field must match"))
			}
		}
		if !same {
			errs = append(errs, field.Forbidden(at().Child("type"), "seccomp type in annotation and field must match"))
		}
	}
	appArmor := func(annotation string, p *v1.AppArmorProfile, at func() *field.Path) {
		value, ok := annotations[annotation]
		if !ok || p == nil {
			return
		}
		same := true
		switch p.Type {
		case v1.AppArmorProfileTypeUnconfined:
			same = value == v1.DeprecatedAppArmorBetaProfileNameUnconfined
		case v1.AppArmorProfileTypeRuntimeDefault:
			same = value == v1.DeprecatedAppArmorBetaProfileRuntimeDefault
		case v1.AppArmorProfileTypeLocalhost:
			name, isLocal := strings.CutPrefix(value, v1.DeprecatedAppArmorBetaProfileNamePrefix)
			if same = isLocal; isLocal && (p.LocalhostProfile == nil || *p.LocalhostProfile != name) {
				errs = append(errs, field.Forbidden(at().Child("localhostProfile"), "apparmor profile in annotation and field must match"))
			}
		}
		if !same {
			errs = append(errs, field.Forbidden(at().Child("type"), "apparmor type in annotation and field must match"))
		}
	}
	windows := s.OS != nil && s.OS.Name == v1.Windows
	var ofPod *v1.AppArmorProfile
	if sc := s.SecurityContext; sc != nil {
		ofPod = sc.AppArmorProfile
		seccomp(v1.SeccompPodAnnotationKey, sc.SeccompProfile, func() *field.Path { return at.Child("securityContext", "seccompProfile") })
	}
	visit(s, at, func(c *v1.Container, path func() *field.Path) {
		profile := ofPod
		if sc := c.SecurityContext; sc != nil {
			seccomp(v1.SeccompContainerAnnotationKeyPrefix+c.Name, sc.SeccompProfile, func() *field.Path { return path().Child("securityContext", "seccompProfile") })
			if sc.AppArmorProfile != nil {
				profile = sc.AppArmorProfile
			}
		}
		if !windows {
			appArmor(v1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix+c.Name, profile, func() *field.Path { return path().Child("securityContext", "appArmorProfile") })
		}
	})
	return errs
}
