package podspec

import (
	"path"
	"reflect"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// validateVolumes also gives the volumes by name, for the mounts.
func validateVolumes(list []v1.Volume, at *field.Path) (map[string]*v1.Volume, field.ErrorList) {
	var errs field.ErrorList
	byName, seen := make(map[string]*v1.Volume, len(list)), sets.New[string]()
	for i := range list {
		v, at := &list[i], at.Index(i)
		errs = append(errs, label(v.Name, seen, at.Child("name"))...)
		errs = append(errs, validateSource(&v.VolumeSource, at)...)
		if v.Name != "" {
			byName[v.Name] = v
		}
	}
	return byName, errs
}

// validateSource: a volume has one source; VolumeSource has nothing but
// pointers, one a source, so they can be counted.
func validateSource(s *v1.VolumeSource, at *field.Path) (errs field.ErrorList) {
	value, n := reflect.ValueOf(*s), 0
	for i := range value.NumField() {
		if value.Field(i).IsNil() {
			continue
		}
		if n++; n > 1 {
			name, _, _ := strings.Cut(value.Type().Field(i).Tag.Get("json"), ",")
			errs = append(errs, field.Forbidden(at.Child(name), "may not specify more than 1 volume type"))
		}
	}
	if n == 0 {
		return append(errs, field.Required(at, "must specify a volume type"))
	}
	require := func(value string, names ...string) {
		if value == "" {
			errs = append(errs, field.Required(at.Child(names[0], names[1:]...), ""))
		}
	}
	switch {
	case s.EmptyDir != nil:
		if l := s.EmptyDir.SizeLimit; l != nil && l.Sign() < 0 {
			errs = append(errs, field.Forbidden(at.Child("emptyDir", "sizeLimit"), "SizeLimit field must be a valid resource quantity"))
		}
	case s.DownwardAPI != nil:
		errs = append(errs, validateMode(s.DownwardAPI.DefaultMode, at.Child("downwardAPI", "defaultMode"))...)
		errs = append(errs, validateDownward(s.DownwardAPI.Items, at.Child("downwardAPI"))...)
	case s.Projected != nil:
		errs = append(errs, validateProjected(s.Projected, at.Child("projected"))...)
	case s.HostPath != nil:
		if t := s.HostPath.Type; t != nil && *t != v1.HostPathUnset {
			errs = append(errs, oneOf(at.Child("hostPath", "type"), *t, v1.HostPathDirectoryOrCreate, v1.HostPathDirectory, v1.HostPathFileOrCreate,
				v1.HostPathFile, v1.HostPathSocket, v1.HostPathCharDev, v1.HostPathBlockDev)...)
		}
		require(s.HostPath.Path, "hostPath", "path")
		for _, item := range strings.Split(s.HostPath.Path, "/") {
			if item == ".." {
				errs = append(errs, field.Invalid(at.Child("hostPath", "path"), s.HostPath.Path, "must not contain '..'"))
				break
			}
		}
	case s.Secret != nil:
		require(s.Secret.SecretName, "secret", "secretName")
		errs = append(errs, validateItems(s.Secret.Items, at.Child("secret", "items"))...)
		errs = append(errs, validateMode(s.Secret.DefaultMode, at.Child("secret", "defaultMode"))...)
	case s.ConfigMap != nil:
		require(s.ConfigMap.Name, "configMap", "name")
		errs = append(errs, validateItems(s.ConfigMap.Items, at.Child("configMap", "items"))...)
		errs = append(errs, validateMode(s.ConfigMap.DefaultMode, at.Child("configMap", "defaultMode"))...)
	case s.PersistentVolumeClaim != nil:
		require(s.PersistentVolumeClaim.ClaimName, "persistentVolumeClaim", "claimName")
	case s.NFS != nil:
		require(s.NFS.Server, "nfs", "server")
		require(s.NFS.Path, "nfs", "path")
		if p := s.NFS.Path; p != "" && !path.IsAbs(p) {
			errs = append(errs, field.Invalid(at.Child("nfs", "path"), p, "must be an absolute path"))
		}
	case s.CSI != nil:
		require(s.CSI.Driver, "csi", "driver")
	case s.Ephemeral != nil:
		if s.Ephemeral.VolumeClaimTemplate == nil {
			errs = append(errs, field.Required(at.Child("ephemeral", "volumeClaimTemplate"), ""))
		}
	}
	return errs
}

// validateDownward checks what a volume shows of its pod.
func validateDownward(items []v1.DownwardAPIVolumeFile, at *field.Path) (errs field.ErrorList) {
	for i := range items {
		item := &items[i]
		if item.Path == "" {
			errs = append(errs, field.Required(at.Child("path"), ""))
		}
		errs = append(errs, validateInside(item.Path, at.Child("path"))...)
		switch {
		case item.FieldRef != nil:
			errs = append(errs, validateFieldRef(item.FieldRef, volumeFields, at.Child("fieldRef"))...)
			if item.ResourceFieldRef != nil {
				errs = append(errs, field.Invalid(at, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously"))
			}
		case item.ResourceFieldRef != nil:
			errs = append(errs, validateResourceRef(item.ResourceFieldRef, true, at.Child("resourceFieldRef"))...)
		default:
			errs = append(errs, field.Required(at, "one of fieldRef and resourceFieldRef is required"))
		}
		errs = append(errs, validateMode(item.Mode, at.Child("mode"))...)
	}
	return errs
}

// validateProjected checks the sources that are projected into one folder.
func validateProjected(p *v1.ProjectedVolumeSource, at *field.Path) (errs field.ErrorList) {
	errs = validateMode(p.DefaultMode, at.Child("defaultMode"))
	for i := range p.Sources {
		s, at := &p.Sources[i], at.Child("sources").Index(i)
		n := 0
		only := func(name string) *field.Path {
			if n++; n > 1 {
				errs = append(errs, field.Forbidden(at.Child(name), "may not specify more than 1 volume type"))
			}
			return at.Child(name)
		}
		if s.Secret != nil {
			at := only("secret")
			if s.Secret.Name == "" {
				errs = append(errs, field.Required(at.Child("name"), ""))
			}
			errs = append(errs, validateItems(s.Secret.Items, at.Child("items"))...)
		}
		if s.ConfigMap != nil {
			at := only("configMap")
			if s.ConfigMap.Name == "" {
				errs = append(errs, field.Required(at.Child("name"), ""))
			}
			errs = append(errs, validateItems(s.ConfigMap.Items, at.Child("items"))...)
		}
		if s.DownwardAPI != nil {
			errs = append(errs, validateDownward(s.DownwardAPI.Items, only("downwardAPI"))...)
		}
		if t := s.ServiceAccountToken; t != nil {
			at := only("serviceAccountToken")
			if e := t.ExpirationSeconds; e != nil && *e < 10*60 {
				errs = append(errs, field.Invalid(at.Child("expirationSeconds"), *e, "may not specify a duration less than 10 minutes"))
			}
			if e := t.ExpirationSeconds; e != nil && *e > 1<<32 {
				errs = append(errs, field.Invalid(at.Child("expirationSeconds"), *e, "may not specify a duration larger than 2^32 seconds"))
			}
			if t.Path == "" {
				errs = append(errs, field.Required(at.Child("path"), ""))
			}
			errs = append(errs, validateInside(t.Path, at.Child("path"))...)
		}
		if s.ClusterTrustBundle != nil {
			only("clusterTrustBundle")
		}
		if s.PodCertificate != nil {
			only("podCertificate")
		}
		if n == 0 {
			errs = append(errs, field.Required(at, "must specify one of: configMap, downwardAPI, secret, serviceAccountToken, clusterTrustBundle, podCertificate"))
		}
	}
	return errs
}

func validateItems(items []v1.KeyToPath, at *field.Path) (errs field.ErrorList) {
	for i, item := range items {
		at := at.Index(i)
		if item.Key == "" {
			errs = append(errs, field.Required(at.Child("key"), ""))
		}
		if item.Path == "" {
			errs = append(errs, field.Required(at.Child("path"), ""))
		}
		errs = append(errs, validateInside(item.Path, at.Child("path"))...)
		errs = append(errs, validateMode(item.Mode, at.Child("mode"))...)
	}
	return errs
}

func validateMode(mode *int32, at *field.Path) field.ErrorList {
	if mode != nil && (*mode > 0o777 || *mode < 0) {
		return field.ErrorList{field.Invalid(at, *mode, "must be a number between 0 and 0777 (octal), both inclusive")}
	}
	return nil
}
