package podspec

import (
	"reflect"
	"slices"
	"unicode"

	v1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	unversionedvalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// In the order in which messages name them.
var (
	volumeAccessModes = []v1.PersistentVolumeAccessMode{v1.ReadOnlyMany, v1.ReadWriteMany, v1.ReadWriteOnce, v1.ReadWriteOncePod}
	volumeModes       = []v1.PersistentVolumeMode{v1.PersistentVolumeBlock, v1.PersistentVolumeFilesystem}
)

// validateAccessModes uses the message missing if there is none.
func validateAccessModes(modes []v1.PersistentVolumeAccessMode, missing string, at *field.Path) (errs field.ErrorList) {
	if len(modes) == 0 {
		return field.ErrorList{field.Required(at.Child("accessModes"), missing)}
	}
	alone, others := false, false
	for _, m := range modes {
		switch {
		case !slices.Contains(volumeAccessModes, m):
			errs = append(errs, field.NotSupported(at.Child("accessModes"), m, volumeAccessModes))
		case m == v1.ReadWriteOncePod:
			alone = true
		default:
			others = true
		}
	}
	if alone && others {
		errs = append(errs, field.Forbidden(at.Child("accessModes"), "may not use ReadWriteOncePod with other access modes"))
	}
	return errs
}

// ValidateClaimSpec checks what a PersistentVolumeClaim wants.
func ValidateClaimSpec(s *v1.PersistentVolumeClaimSpec, at *field.Path) field.ErrorList {
	errs := validateAccessModes(s.AccessModes, "at least 1 access mode is required", at)
	if s.Selector != nil {
		errs = append(errs, unversionedvalidation.ValidateLabelSelector(s.Selector, unversionedvalidation.LabelSelectorValidationOptions{}, at.Child("selector"))...)
	}
	if q, ok := s.Resources.Requests[v1.ResourceStorage]; !ok {
		errs = append(errs, field.Required(at.Child("resources").Key(string(v1.ResourceStorage)), ""))
	} else if q.Sign() <= 0 {
		errs = append(errs, field.Invalid(at.Child("resources").Key(string(v1.ResourceStorage)), q.String(), "must be greater than zero"))
	}
	errs = append(errs, className(ptr.Deref(s.StorageClassName, ""), at, "storageClassName")...)
	errs = append(errs, validateVolumeMode(s.VolumeMode, at)...)

	source, ref := s.DataSource, s.DataSourceRef
	if source != nil {
		errs = append(errs, validateDataSource(source.APIGroup, source.Kind, source.Name, at.Child("dataSource"))...)
	}
	if ref != nil {
		at := at.Child("dataSourceRef")
		errs = append(errs, validateDataSource(ref.APIGroup, ref.Kind, ref.Name, at)...)
		if ns := ptr.Deref(ref.Namespace, ""); ns != "" {
			errs = append(errs, conforms(ns, validation.IsDNS1123Label, at, "namespace")...)
		}
	}
	switch {
	case source == nil || ref == nil:
	case ptr.Deref(ref.Namespace, "") != "":
		errs = append(errs, field.Invalid(at, at.Child("dataSource"), "may not be specified when dataSourceRef.namespace is specified"))
	case !ptr.Equal(source.APIGroup, ref.APIGroup) || source.Kind != ref.Kind || source.Name != ref.Name:
		errs = append(errs, field.Invalid(at, at.Child("dataSource"), "must match dataSourceRef"))
	}
	return append(errs, className(ptr.Deref(s.VolumeAttributesClassName, ""), at, "volumeAttributesClassName")...)
}

// className checks the name of a class, unless it is empty.
func className(name string, at *field.Path, child string) field.ErrorList {
	if name == "" {
		return nil
	}
	return conforms(name, validation.IsDNS1123Subdomain, at, child)
}

func validateVolumeMode(m *v1.PersistentVolumeMode, at *field.Path) field.ErrorList {
	if m == nil {
		return nil
	}
	return among(*m, volumeModes, at, "volumeMode")
}

func validateDataSource(group *string, kind, name string, at *field.Path) field.ErrorList {
	errs := required(name, at, "name")
	errs = append(errs, required(kind, at, "kind")...)
	switch g := ptr.Deref(group, ""); {
	case g == "" && kind != "PersistentVolumeClaim":
		errs = append(errs, field.Invalid(at, kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup"))
	case g != "":
		errs = append(errs, conforms(g, validation.IsDNS1123Subdomain, at, "apiGroup")...)
	}
	return errs
}

// validateClaimTemplate checks the template of a claim, of whose metadata only
// labels and annotations come to the claim.
func validateClaimTemplate(t *v1.PersistentVolumeClaimTemplate, at *field.Path) field.ErrorList {
	meta := at.Child("metadata")
	errs := apivalidation.ValidateAnnotations(t.Annotations, meta.Child("annotations"))
	errs = append(errs, unversionedvalidation.ValidateLabels(t.Labels, meta.Child("labels"))...)
	rest := t.ObjectMeta
	rest.Labels, rest.Annotations = nil, nil
	errs = append(errs, nothingSet(rest, "cannot be set", meta)...)
	return append(errs, ValidateClaimSpec(&t.Spec, at.Child("spec"))...)
}

// nothingSet refuses every field of a struct that is not zero.
func nothingSet[T metav1.ObjectMeta | v1.EphemeralContainerCommon](s T, why string, at *field.Path) (errs field.ErrorList) {
	value := reflect.ValueOf(s)
	for i := range value.NumField() {
		if !value.Field(i).IsZero() {
			name := []rune(value.Type().Field(i).Name)
			name[0] = unicode.ToLower(name[0])
			errs = append(errs, field.Forbidden(at.Child(string(name)), why))
		}
	}
	return errs
}
