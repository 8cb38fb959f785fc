package podspec

import (
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The fields of a pod that an environment and a volume may show.
var (
	envFields    = sets.New("metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs")
	volumeFields = sets.New("metadata.name", "metadata.namespace", "metadata.labels", "metadata.annotations", "metadata.uid")
	// shownResources are those of a container.
	shownResources = sets.New("limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage", "requests.memory")
)

// validateFieldRef checks a reference to a field, which is one of allowed or a
// single label or annotation.
func validateFieldRef(r *v1.ObjectFieldSelector, allowed sets.Set[string], at *field.Path) (errs field.ErrorList) {
	if r.APIVersion == "" {
		return field.ErrorList{field.Required(at.Child("apiVersion"), "")}
	}
	if r.FieldPath == "" {
		return field.ErrorList{field.Required(at.Child("fieldPath"), "")}
	}
	at = at.Child("fieldPath")
	if base, key, ok := strings.Cut(r.FieldPath, "['"); ok && strings.HasSuffix(key, "']") {
		key = strings.TrimSuffix(key, "']")
		switch base {
		case "metadata.annotations":
			return dnsName(strings.ToLower(key), validation.IsQualifiedName, at)
		case "metadata.labels":
			return dnsName(key, validation.IsQualifiedName, at)
		}
		return field.ErrorList{field.Invalid(at, base, "does not support subscript")}
	}
	if !allowed.Has(r.FieldPath) {
		errs = append(errs, field.NotSupported(at, r.FieldPath, sets.List(allowed)))
	}
	return errs
}

// validateResourceRef checks a reference to a container's resource. A volume
// has to say which container it means.
func validateResourceRef(r *v1.ResourceFieldSelector, volume bool, at *field.Path) (errs field.ErrorList) {
	switch {
	case volume && r.ContainerName == "":
		errs = append(errs, field.Required(at.Child("containerName"), ""))
	case r.Resource == "":
		errs = append(errs, field.Required(at.Child("resource"), ""))
	case strings.HasPrefix(r.Resource, "limits."+v1.ResourceHugePagesPrefix), strings.HasPrefix(r.Resource, "requests."+v1.ResourceHugePagesPrefix):
	case !shownResources.Has(r.Resource):
		errs = append(errs, field.NotSupported(at.Child("resource"), r.Resource, sets.List(shownResources)))
	}
	return errs
}

func validateEnvFrom(list []v1.EnvFromSource, at *field.Path) (errs field.ErrorList) {
	for i := range list {
		s, at := &list[i], at.Index(i)
		if s.Prefix != "" {
			errs = append(errs, dnsName(s.Prefix, validation.IsRelaxedEnvVarName, at.Child("prefix"))...)
		}
		if r := s.ConfigMapRef; r != nil && r.Name == "" {
			errs = append(errs, field.Required(at.Child("configMapRef", "name"), ""))
		}
		if r := s.SecretRef; r != nil && r.Name == "" {
			errs = append(errs, field.Required(at.Child("secretRef", "name"), ""))
		}
		switch {
		case s.ConfigMapRef == nil && s.SecretRef == nil:
			errs = append(errs, field.Invalid(at, "", "must specify one of: `configMapRef` or `secretRef`"))
		case s.ConfigMapRef != nil && s.SecretRef != nil:
			errs = append(errs, field.Invalid(at, "", "may not have more than one field specified at a time"))
		}
	}
	return errs
}
