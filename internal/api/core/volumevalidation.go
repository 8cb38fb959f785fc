package core

import (
	"fmt"
	"maps"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/api/podspec"
)

func validatePersistentVolume(p *v1.PersistentVolume) field.ErrorList {
	errs := podspec.ValidatePersistentVolumeSpec(&p.Spec, p.Name, field.NewPath("spec"))
	if _, ok := p.Annotations[v1.MountOptionAnnotation]; ok && !mountOptions(&p.Spec.PersistentVolumeSource) {
		errs = append(errs, field.Forbidden(field.NewPath("metadata", "annotations", v1.MountOptionAnnotation), "may not specify mount options for this volume type"))
	}
	return errs
}

// mountOptions reports whether volumes of the source took mount options before
// all sources did.
func mountOptions(s *v1.PersistentVolumeSource) bool {
	return s.GCEPersistentDisk != nil || s.AWSElasticBlockStore != nil || s.Glusterfs != nil || s.NFS != nil || s.RBD != nil || s.Quobyte != nil ||
		s.ISCSI != nil || s.Cinder != nil || s.CephFS != nil || s.AzureFile != nil || s.VsphereVolume != nil || s.AzureDisk != nil ||
		s.PhotonPersistentDisk != nil || s.Flocker != nil || s.ScaleIO != nil || s.FC != nil || s.PortworxVolume != nil
}

// validatePersistentVolumeUpdate checks that the source and the node affinity
// of a volume have not changed.
func validatePersistentVolumeUpdate(p, old *v1.PersistentVolume) field.ErrorList {
	errs := podspec.Ratchet(validatePersistentVolume(p), func() field.ErrorList { return validatePersistentVolume(old) })
	is, was := &p.Spec, &old.Spec
	source := is.PersistentVolumeSource
	if source.CSI != nil && was.CSI != nil && was.CSI.ControllerExpandSecretRef == nil {
		// What it takes to grow may be told later.
		csi := *source.CSI
		csi.ControllerExpandSecretRef = nil
		source.CSI = &csi
	}
	if !equality.Semantic.DeepEqual(&source, &was.PersistentVolumeSource) {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "persistentvolumesource"),
			fmt.Sprintf("spec.persistentvolumesource is immutable after creation\n%v", diff.Diff(was.PersistentVolumeSource, source))))
	}
	errs = append(errs, apivalidation.ValidateImmutableField(is.VolumeMode, was.VolumeMode, field.NewPath("volumeMode"))...)
	if was.NodeAffinity != nil && !sameNodes(is.NodeAffinity, was.NodeAffinity) {
		errs = append(errs, field.Invalid(field.NewPath("nodeAffinity"), is.NodeAffinity, apivalidation.FieldImmutableErrorMsg+", except for updating from beta label to GA"))
	}
	if was.VolumeAttributesClassName != nil && is.VolumeAttributesClassName == nil {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "volumeAttributesClassName"), "update from non-nil value to nil is forbidden"))
	}
	return errs
}

// stableLabels are the names of node labels that had others while in beta.
var stableLabels = map[string]string{
	v1.LabelFailureDomainBetaZone:   v1.LabelTopologyZone,
	v1.LabelFailureDomainBetaRegion: v1.LabelTopologyRegion,
	"beta.kubernetes.io/os":         v1.LabelOSStable,
	"beta.kubernetes.io/arch":       v1.LabelArchStable,
	v1.LabelInstanceType:            v1.LabelInstanceTypeStable,
}

// sameNodes reports whether both select the same nodes, where labels may have
// been replaced by their successors.
func sameNodes(is, was *v1.VolumeNodeAffinity) bool {
	if equality.Semantic.DeepEqual(is, was) {
		return true
	}
	if is == nil || is.Required == nil || was.Required == nil {
		return false
	}
	return slices.EqualFunc(is.Required.NodeSelectorTerms, was.Required.NodeSelectorTerms, func(is, was v1.NodeSelectorTerm) bool {
		return sameRequirements(is.MatchExpressions, was.MatchExpressions) && sameRequirements(is.MatchFields, was.MatchFields)
	})
}

func sameRequirements(is, was []v1.NodeSelectorRequirement) bool {
	return slices.EqualFunc(is, was, func(is, was v1.NodeSelectorRequirement) bool {
		if stableLabels[was.Key] == is.Key {
			was.Key = is.Key
		}
		return equality.Semantic.DeepEqual(is, was)
	})
}

func persistentVolumeWarnings(p *v1.PersistentVolume) []string {
	at, s := field.NewPath("spec"), &p.Spec
	warnings := classAnnotationWarnings(p.Annotations)
	if _, ok := p.Annotations[v1.MountOptionAnnotation]; ok {
		warnings = append(warnings, fmt.Sprintf("%s: deprecated since v1.31; use \"mountOptions\" attribute instead", field.NewPath("metadata", "annotations").Key(v1.MountOptionAnnotation)))
	}
	if s.PersistentVolumeReclaimPolicy == v1.PersistentVolumeReclaimRecycle {
		warnings = append(warnings, fmt.Sprintf("%s: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.", at.Child("persistentVolumeReclaimPolicy")))
	}
	if s.NodeAffinity != nil && s.NodeAffinity.Required != nil {
		for i := range s.NodeAffinity.Required.NodeSelectorTerms {
			warnings = append(warnings, podspec.NodeTermWarnings(&s.NodeAffinity.Required.NodeSelectorTerms[i], false,
				at.Child("nodeAffinity", "required", "nodeSelectorTerms").Index(i))...)
		}
	}
	for _, f := range [...]struct {
		name, since, until string
		set                bool
	}{{"cephfs", "v1.28", "v1.31", s.CephFS != nil}, {"photonPersistentDisk", "v1.11", "v1.16", s.PhotonPersistentDisk != nil}, {"scaleIO", "v1.16", "v1.22", s.ScaleIO != nil},
		{"storageOS", "v1.22", "v1.25", s.StorageOS != nil}, {"glusterfs", "v1.25", "v1.26", s.Glusterfs != nil}, {"rbd", "v1.28", "v1.31", s.RBD != nil}} {
		if f.set {
			warnings = append(warnings, fmt.Sprintf("%s: deprecated in %s, non-functional in %s+", at.Child(f.name), f.since, f.until))
		}
	}
	return warnings
}

func classAnnotationWarnings(annotations map[string]string) []string {
	if _, ok := annotations[v1.BetaStorageClassAnnotation]; !ok {
		return nil
	}
	return []string{fmt.Sprintf("%s: deprecated since v1.8; use \"storageClassName\" attribute instead", field.NewPath("metadata", "annotations").Key(v1.BetaStorageClassAnnotation))}
}

// prepareDataSources has the two fields that name a claim's data source say the
// same, as far as the older one can say it. Of that one, old clients expect that
// what it cannot name is forgotten; a source of another namespace is not served.
func prepareDataSources(s, old *v1.PersistentVolumeClaimSpec) {
	had := old != nil && old.DataSourceRef != nil
	if r := s.DataSourceRef; r != nil && ptr.Deref(r.Namespace, "") != "" && !had {
		s.DataSourceRef = nil
	}
	if !had && (old == nil || old.DataSource == nil) && s.DataSourceRef == nil && !nameable(s.DataSource) {
		s.DataSource = nil
	}
	switch d, r := s.DataSource, s.DataSourceRef; {
	case d != nil && r == nil:
		s.DataSourceRef = &v1.TypedObjectReference{APIGroup: d.APIGroup, Kind: d.Kind, Name: d.Name}
	case d == nil && r != nil && ptr.Deref(r.Namespace, "") == "":
		s.DataSource = &v1.TypedLocalObjectReference{APIGroup: r.APIGroup, Kind: r.Kind, Name: r.Name}
	}
}

// nameable reports whether dataSource may name d: it may name claims and
// snapshots.
func nameable(d *v1.TypedLocalObjectReference) bool {
	if d == nil {
		return false
	}
	group := ptr.Deref(d.APIGroup, "")
	return d.Kind == "PersistentVolumeClaim" && group == "" || d.Kind == "VolumeSnapshot" && group == "snapshot.storage.k8s.io"
}

func validateClaim(p *v1.PersistentVolumeClaim) field.ErrorList {
	return podspec.ValidateClaimSpec(&p.Spec, field.NewPath("spec"))
}

// validateClaimUpdate checks that the spec has not changed, as quotas have
// counted it and a volume was found for it; but a bound claim may grow and
// change its attributes class.
func validateClaimUpdate(p, old *v1.PersistentVolumeClaim) field.ErrorList {
	errs := podspec.Ratchet(validateClaim(p), func() field.ErrorList { return validateClaim(old) })
	if equality.Semantic.DeepEqual(&p.Spec, &old.Spec) {
		return append(errs, validateClassAnnotation(p, old)...)
	}
	is, was := p.Spec.DeepCopy(), old.Spec
	if was.VolumeName == "" {
		was.VolumeName = is.VolumeName
	}
	if classFromAnnotation(p, old) {
		is.StorageClassName = nil
	} else {
		errs = append(errs, validateClassAnnotation(p, old)...)
		if annotated, ok := old.Annotations[v1.BetaStorageClassAnnotation]; is.StorageClassName != nil && was.StorageClassName == nil && (!ok || *is.StorageClassName == annotated) {
			is.StorageClassName = nil
		}
	}
	if p.Status.Phase == v1.ClaimBound {
		if is.Resources.Requests != nil {
			is.Resources.Requests[v1.ResourceStorage] = was.Resources.Requests[v1.ResourceStorage]
		}
		is.VolumeAttributesClassName = was.VolumeAttributesClassName
	}
	if !equality.Semantic.DeepEqual(is, &was) {
		errs = append(errs, field.Forbidden(field.NewPath("spec"),
			fmt.Sprintf("spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n%v", diff.Diff(was, *is))))
	}
	// A claim that could not grow may be made smaller again, down to what it has.
	size, before, has := p.Spec.Resources.Requests[v1.ResourceStorage], old.Spec.Resources.Requests[v1.ResourceStorage], old.Status.Capacity[v1.ResourceStorage]
	if size.Cmp(before) < 0 && size.Cmp(has) <= 0 {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "resources", "requests", "storage"), "field can not be less than status.capacity"))
	}
	errs = append(errs, apivalidation.ValidateImmutableField(p.Spec.VolumeMode, old.Spec.VolumeMode, field.NewPath("volumeMode"))...)
	if old.Status.CurrentVolumeAttributesClassName != nil && !ptr.Equal(p.Spec.VolumeAttributesClassName, old.Spec.VolumeAttributesClassName) {
		// What a volume has become cannot be undone, only changed.
		const applied = " is forbidden when status.currentVolumeAttributesClassName is not nil"
		switch class, at := p.Spec.VolumeAttributesClassName, field.NewPath("spec", "volumeAttributesClassName"); {
		case class == nil:
			errs = append(errs, field.Forbidden(at, "update to nil"+applied))
		case *class == "":
			errs = append(errs, field.Forbidden(at, "update to empty string"+applied))
		}
	}
	return errs
}

// classFromAnnotation reports whether the update moves the class from the
// annotation that once named it into its field.
func classFromAnnotation(p, old *v1.PersistentVolumeClaim) bool {
	was, had := old.Annotations[v1.BetaStorageClassAnnotation]
	is, has := p.Annotations[v1.BetaStorageClassAnnotation]
	return had && old.Spec.StorageClassName == nil && p.Spec.StorageClassName != nil && *p.Spec.StorageClassName == was && (!has || is == was)
}

func validateClassAnnotation(p, old *v1.PersistentVolumeClaim) field.ErrorList {
	if is := p.Annotations[v1.BetaStorageClassAnnotation]; is != old.Annotations[v1.BetaStorageClassAnnotation] {
		return field.ErrorList{field.Invalid(field.NewPath("metadata", "annotations", v1.BetaStorageClassAnnotation), is, apivalidation.FieldImmutableErrorMsg)}
	}
	return nil
}

// The states of a claim's growth.
var growth = []v1.ClaimResourceStatus{v1.PersistentVolumeClaimControllerResizeInfeasible, v1.PersistentVolumeClaimControllerResizeInProgress,
	v1.PersistentVolumeClaimNodeResizeInfeasible, v1.PersistentVolumeClaimNodeResizeInProgress, v1.PersistentVolumeClaimNodeResizePending}

func validateClaimStatusUpdate(p, _ *v1.PersistentVolumeClaim) (errs field.ErrorList) {
	if len(p.Spec.AccessModes) == 0 {
		errs = append(errs, field.Required(field.NewPath("Spec", "accessModes"), ""))
	}
	at, s := field.NewPath("status"), &p.Status
	for _, r := range slices.Sorted(maps.Keys(s.Capacity)) {
		errs = append(errs, podspec.ValidateBasicQuantity(s.Capacity[r], at.Child("capacity").Key(string(r)))...)
	}
	for _, r := range slices.Sorted(maps.Keys(s.AllocatedResourceStatuses)) {
		at := at.Child("allocatedResourceStatuses")
		errs = append(errs, validateClaimResource(r, at)...)
		if !slices.Contains(growth, s.AllocatedResourceStatuses[r]) {
			errs = append(errs, field.NotSupported(at, string(r), growth))
		}
	}
	for _, r := range slices.Sorted(maps.Keys(s.AllocatedResources)) {
		at, q := at.Child("allocatedResources"), s.AllocatedResources[r]
		if bad := validateClaimResource(r, at); len(bad) > 0 {
			errs = append(errs, bad...)
			continue
		}
		errs = append(errs, podspec.ValidateBasicQuantity(q, at.Key(string(r)))...)
	}
	return errs
}

// validateClaimResource checks that r, if it is one of Kubernetes' own
// resources, is storage.
func validateClaimResource(r v1.ResourceName, at *field.Path) field.ErrorList {
	if errs := qualifiedName(string(r), at); len(errs) > 0 {
		return errs
	}
	if podspec.Native(r) && r != v1.ResourceStorage {
		return field.ErrorList{field.NotSupported(at, string(r), []v1.ResourceName{v1.ResourceStorage})}
	}
	return nil
}
