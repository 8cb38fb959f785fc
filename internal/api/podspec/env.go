package podspec

import (
	"fmt"
	"slices"
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
	// shownFields are all fields that can be shown, as variables or in volumes.
	shownFields = envFields.Union(volumeFields).Insert("spec.restartPolicy", "spec.schedulerName", "status.phase", "spec.host")
	// shownResources are the resources of a container that can be shown.
	shownResources = sets.New("limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage", "requests.memory")
)

func validateEnv(list []v1.EnvVar, at *field.Path) (errs field.ErrorList) {
	for i := range list {
		e, at := &list[i], at.Index(i)
		if e.Name == "" {
			errs = append(errs, field.Required(at.Child("name"), ""))
		} else {
			errs = append(errs, conforms(e.Name, validation.IsRelaxedEnvVarName, at, "name")...)
		}
		if e.ValueFrom != nil {
			errs = append(errs, validateValueFrom(e, at.Child("valueFrom"))...)
		}
	}
	return errs
}

func validateValueFrom(e *v1.EnvVar, at *field.Path) (errs field.ErrorList) {
	n, from := 0, e.ValueFrom
	if r := from.FieldRef; r != nil {
		n++
		errs = append(errs, validateFieldRef(r, envFields, at.Child("fieldRef"))...)
	}
	if r := from.ResourceFieldRef; r != nil {
		n++
		errs = append(errs, validateResourceRef(r, false, at.Child("resourceFieldRef"))...)
	}
	if r := from.ConfigMapKeyRef; r != nil {
		n++
		errs = append(errs, validateKeyRef(r.Name, r.Key, at, "configMapKeyRef")...)
	}
	if r := from.SecretKeyRef; r != nil {
		n++
		errs = append(errs, validateKeyRef(r.Name, r.Key, at, "secretKeyRef")...)
	}
	if r := from.FileKeyRef; r != nil {
		n++
		errs = append(errs, validateFileRef(r, at.Child("fileKeyRef"))...)
	}
	switch {
	case n == 0:
		errs = append(errs, field.Invalid(at, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"))
	case e.Value != "":
		errs = append(errs, field.Invalid(at, "", "may not be specified when `value` is not empty"))
	case n > 1:
		errs = append(errs, field.Invalid(at, "", "may not have more than one field specified at a time"))
	}
	return errs
}

func validateKeyRef(name, key string, at *field.Path, ref string) field.ErrorList {
	errs := conforms(name, validation.IsDNS1123Subdomain, at, ref, "name")
	if key == "" {
		return append(errs, field.Required(at.Child(ref, "key"), ""))
	}
	return append(errs, conforms(key, validation.IsConfigMapKey, at, ref, "key")...)
}

// validateFileRef checks a reference to a variable in a file of a volume.
func validateFileRef(r *v1.FileKeySelector, at *field.Path) field.ErrorList {
	errs := required(r.VolumeName, at, "volumeName")
	if r.VolumeName != "" {
		errs = append(errs, conforms(r.VolumeName, validation.IsDNS1123Label, at, "volumeName")...)
	}
	errs = append(errs, required(r.Path, at, "path")...)
	errs = append(errs, validateFile(r.Path, at, "path")...)
	if r.Key == "" {
		return append(errs, field.Required(at.Child("key"), ""))
	}
	return append(errs, conforms(r.Key, validation.IsRelaxedEnvVarName, at, "key")...)
}

// validateFieldRef checks a reference to a field, which is one of allowed or a
// single label or annotation.
func validateFieldRef(r *v1.ObjectFieldSelector, allowed sets.Set[string], at *field.Path) field.ErrorList {
	if r.APIVersion == "" {
		return field.ErrorList{field.Required(at.Child("apiVersion"), "")}
	}
	if r.FieldPath == "" {
		return field.ErrorList{field.Required(at.Child("fieldPath"), "")}
	}
	unknown := func(why string) field.ErrorList {
		return field.ErrorList{field.Invalid(at.Child("fieldPath"), r.FieldPath, "error converting fieldPath: "+why)}
	}
	if r.APIVersion != "v1" {
		return unknown("unsupported pod version: " + r.APIVersion)
	}
	if base, key, ok := strings.Cut(r.FieldPath, "['"); ok && base != "" && strings.HasSuffix(key, "']") {
		var errs field.ErrorList
		switch key = strings.TrimSuffix(key, "']"); base {
		case "metadata.annotations":
			key = strings.ToLower(key)
		case "metadata.labels":
		default:
			return unknown("field label does not support subscript: " + r.FieldPath)
		}
		for _, msg := range validation.IsQualifiedName(key) {
			errs = append(errs, field.Invalid(at, key, msg))
		}
		return errs
	}
	if !shownFields.Has(r.FieldPath) {
		return unknown("field label not supported: " + r.FieldPath)
	}
	path := r.FieldPath
	if path == "spec.host" {
		path = "spec.nodeName"
	}
	if !allowed.Has(path) {
		return field.ErrorList{field.NotSupported(at.Child("fieldPath"), path, sets.List(allowed))}
	}
	return nil
}

// The units in which a resource can be shown.
var (
	cpuUnits  = []string{"1m", "1"}
	byteUnits = []string{"1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"}
)

func shownHugePages(resource string) bool {
	return strings.HasPrefix(resource, "limits."+v1.ResourceHugePagesPrefix) || strings.HasPrefix(resource, "requests."+v1.ResourceHugePagesPrefix)
}

// validateResourceRef checks a reference to a container's resource. A volume
// has to say which container it means.
func validateResourceRef(r *v1.ResourceFieldSelector, volume bool, at *field.Path) (errs field.ErrorList) {
	switch {
	case volume && r.ContainerName == "":
		errs = append(errs, field.Required(at.Child("containerName"), ""))
	case r.Resource == "":
		errs = append(errs, field.Required(at.Child("resource"), ""))
	case !shownResources.Has(r.Resource) && !shownHugePages(r.Resource):
		errs = append(errs, field.NotSupported(at.Child("resource"), r.Resource, sets.List(shownResources)))
	}
	if r.Divisor.IsZero() {
		return errs
	}
	units, what := byteUnits, ""
	switch r.Resource {
	case "limits.cpu", "requests.cpu":
		units, what = cpuUnits, "cpu"
	case "limits.memory", "requests.memory":
		what = "memory"
	case "limits.ephemeral-storage", "requests.ephemeral-storage":
		what = "local ephemeral storage"
	default:
		if !shownHugePages(r.Resource) {
			return errs
		}
		what = "hugepages"
	}
	if !slices.Contains(units, r.Divisor.String()) {
		all := strings.Join(units, ", ")
		if what == "cpu" {
			all = strings.Join(units, " and ")
		}
		errs = append(errs, field.Invalid(at.Child("divisor"), r.Resource, fmt.Sprintf("only divisor's values %s are supported with the %s resource", all, what)))
	}
	return errs
}

// validateEnvFrom checks the sources of environment variables. That a member
// has not exactly one source is reported at the list, as upstream does.
func validateEnvFrom(list []v1.EnvFromSource, at *field.Path) (errs field.ErrorList) {
	for i := range list {
		s, list, at := &list[i], at, at.Index(i)
		if s.Prefix != "" {
			errs = append(errs, conforms(s.Prefix, validation.IsRelaxedEnvVarName, at, "prefix")...)
		}
		object := func(name, ref string) {
			if name == "" {
				errs = append(errs, field.Required(at.Child(ref, "name"), ""))
			} else {
				errs = append(errs, conforms(name, objectName, at, ref, "name")...)
			}
		}
		if s.ConfigMapRef != nil {
			object(s.ConfigMapRef.Name, "configMapRef")
		}
		if s.SecretRef != nil {
			object(s.SecretRef.Name, "secretRef")
		}
		switch {
		case s.ConfigMapRef == nil && s.SecretRef == nil:
			errs = append(errs, field.Invalid(list, "", "must specify one of: `configMapRef` or `secretRef`"))
		case s.ConfigMapRef != nil && s.SecretRef != nil:
			errs = append(errs, field.Invalid(list, "", "may not have more than one field specified at a time"))
		}
	}
	return errs
}
