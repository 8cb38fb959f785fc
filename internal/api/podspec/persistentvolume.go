package podspec

import (
	"fmt"
	"maps"
	"path"
	"slices"

	v1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const notInline = "may not be specified in the context of inline volumes"

var reclaimPolicies = []v1.PersistentVolumeReclaimPolicy{v1.PersistentVolumeReclaimDelete, v1.PersistentVolumeReclaimRecycle, v1.PersistentVolumeReclaimRetain}

// ValidatePersistentVolumeSpec checks the spec of the volume called name.
func ValidatePersistentVolumeSpec(s *v1.PersistentVolumeSpec, name string, at *field.Path) field.ErrorList {
	errs := validateAccessModes(s.AccessModes, "", at)
	if len(s.Capacity) == 0 {
		errs = append(errs, field.Required(at.Child("capacity"), ""))
	}
	if _, ok := s.Capacity[v1.ResourceStorage]; !ok || len(s.Capacity) > 1 {
		errs = append(errs, field.NotSupported(at.Child("capacity"), s.Capacity, []v1.ResourceName{v1.ResourceStorage}))
	}
	for _, r := range slices.Sorted(maps.Keys(s.Capacity)) {
		if q := s.Capacity[r]; q.Sign() <= 0 {
			at := at.Child("capacity").Key(string(r))
			errs = append(errs, ValidateBasicQuantity(q, at)...)
			errs = append(errs, field.Invalid(at, q.String(), "must be greater than zero"))
		}
	}
	if p := s.PersistentVolumeReclaimPolicy; p != "" {
		errs = append(errs, among(p, reclaimPolicies, at, "persistentVolumeReclaimPolicy")...)
	}
	if a := s.NodeAffinity; a != nil {
		if a.Required == nil {
			errs = append(errs, field.Required(at.Child("nodeAffinity", "required"), "must specify required node constraints"))
		} else {
			errs = append(errs, ValidateNodeSelector(a.Required, at.Child("nodeAffinity", "required"))...)
		}
	}
	errs = append(errs, validatePersistentSource(s, name, at)...)
	if h := s.HostPath; h != nil && path.Clean(h.Path) == "/" && s.PersistentVolumeReclaimPolicy == v1.PersistentVolumeReclaimRecycle {
		errs = append(errs, field.Forbidden(at.Child("persistentVolumeReclaimPolicy"), "may not be 'recycle' for a hostPath mount of '/'"))
	}
	errs = append(errs, className(s.StorageClassName, at, "storageClassName")...)
	errs = append(errs, validateVolumeMode(s.VolumeMode, at)...)
	return append(errs, validateAttributesClass(s, at)...)
}

// ValidateInlineVolumeSpec checks the spec of a volume without an object, which
// has nothing that belongs to an object's life.
func ValidateInlineVolumeSpec(s *v1.PersistentVolumeSpec, name string, at *field.Path) (errs field.ErrorList) {
	forbid := func(set bool, name, why string) {
		if set {
			errs = append(errs, field.Forbidden(at.Child(name), why))
		}
	}
	forbid(s.ClaimRef != nil, "claimRef", notInline)
	forbid(len(s.Capacity) != 0, "capacity", notInline)
	if s.CSI == nil {
		errs = append(errs, field.Required(at.Child("csi"), "has to be specified in the context of inline volumes"))
	}
	errs = append(errs, validateAccessModes(s.AccessModes, "", at)...)
	p := s.PersistentVolumeReclaimPolicy
	forbid(p != "" && p != v1.PersistentVolumeReclaimRetain, "persistentVolumeReclaimPolicy",
		fmt.Sprintf("may only be %s in the context of inline volumes", v1.PersistentVolumeReclaimRetain))
	forbid(s.NodeAffinity != nil, "nodeAffinity", notInline)
	errs = append(errs, validatePersistentSource(s, name, at)...)
	forbid(s.StorageClassName != "", "storageClassName", notInline)
	forbid(s.VolumeMode != nil && *s.VolumeMode != v1.PersistentVolumeFilesystem, "volumeMode",
		fmt.Sprintf("may not specify volumeMode other than %s in the context of inline volumes", v1.PersistentVolumeFilesystem))
	return append(errs, validateAttributesClass(s, at)...)
}

func validateAttributesClass(s *v1.PersistentVolumeSpec, at *field.Path) (errs field.ErrorList) {
	name := s.VolumeAttributesClassName
	if name == nil {
		return nil
	}
	if *name == "" {
		errs = append(errs, field.Required(at.Child("volumeAttributesClassName"), "an empty string is disallowed"))
	}
	errs = append(errs, className(*name, at, "volumeAttributesClassName")...)
	if s.CSI == nil {
		errs = append(errs, field.Required(at.Child("csi"), "has to be specified when using volumeAttributesClassName"))
	}
	return errs
}

// validatePersistentSource checks the source of the volume called name.
func validatePersistentSource(s *v1.PersistentVolumeSpec, name string, at *field.Path) field.ErrorList {
	c := choice{at: at}
	c.ofBoth(&ofBoth{s.HostPath, s.GCEPersistentDisk, s.AWSElasticBlockStore, s.NFS, s.Flocker, s.Quobyte, s.FC, s.VsphereVolume,
		s.PhotonPersistentDisk, s.PortworxVolume, s.AzureDisk})
	if g := s.Glusterfs; g != nil && c.first("glusterfs") {
		c.add(required(g.EndpointsName, at, "glusterfs", "endpoints"))
		c.add(required(g.Path, at, "glusterfs", "path"))
		if ns := g.EndpointsNamespace; ns != nil {
			c.add(validateEndpointsNamespace(*ns, at.Child("glusterfs", "endpointsNamespace")))
		}
	}
	if s.RBD != nil && c.first("rbd") {
		c.add(validateRBD(s.RBD.CephMonitors, s.RBD.RBDImage, at))
	}
	if s.CephFS != nil && c.first("cephFS") {
		c.add(validateCephFS(s.CephFS.Monitors, at))
	}
	if s.ISCSI != nil && c.first("iscsi") {
		c.add(validatePersistentISCSI(s.ISCSI, name, at.Child("iscsi")))
	}
	if s.Cinder != nil && c.first("cinder") {
		c.add(required(s.Cinder.VolumeID, at, "cinder", "volumeID"))
		c.add(secretOf(s.Cinder.SecretRef, at, "cinder"))
	}
	// Another driver's source may stand beside this one.
	if s.FlexVolume != nil {
		c.taken = true
		c.add(validateFlex(s.FlexVolume.Driver, s.FlexVolume.Options, at.Child("flexVolume")))
	}
	if a := s.AzureFile; a != nil && c.first("azureFile") {
		c.add(required(a.SecretName, at, "azureFile", "secretName"))
		c.add(required(a.ShareName, at, "azureFile", "shareName"))
		if a.SecretNamespace != nil {
			c.add(required(*a.SecretNamespace, at, "azureFile", "secretNamespace"))
		}
	}
	if s.ScaleIO != nil && c.first("scaleIO") {
		c.add(validateScaleIO(s.ScaleIO.Gateway, s.ScaleIO.System, s.ScaleIO.VolumeName, at))
	}
	if s.Local != nil && c.first("local") {
		c.add(required(s.Local.Path, at, "local", "path"))
		c.add(noBacksteps(s.Local.Path, at, "local", "path"))
		if s.NodeAffinity == nil {
			c.add(field.ErrorList{field.Required(at.Child("nodeAffinity"), "Local volume requires node affinity")})
		}
	}
	if o := s.StorageOS; o != nil && c.first("storageos") {
		c.add(validateStorageOS(o.VolumeName, o.VolumeNamespace, at.Child("storageos")))
		if o.SecretRef != nil {
			c.add(secretOf(&v1.SecretReference{Name: o.SecretRef.Name, Namespace: o.SecretRef.Namespace}, at, "storageos"))
		}
	}
	if s.CSI != nil && c.first("csi") {
		c.add(validatePersistentCSI(s.CSI, at.Child("csi")))
	}
	c.require()
	return c.errs
}

func validateEndpointsNamespace(ns string, at *field.Path) (errs field.ErrorList) {
	if ns == "" {
		return field.ErrorList{field.Invalid(at, ns, "if the endpointnamespace is set, it must be a valid namespace name")}
	}
	for _, msg := range apivalidation.ValidateNamespaceName(ns, false) {
		errs = append(errs, field.Invalid(at, ns, msg))
	}
	return errs
}

// secretOf checks that a reference to a secret in any namespace has a name and
// a namespace.
func secretOf(r *v1.SecretReference, at *field.Path, source string) field.ErrorList {
	if r == nil {
		return nil
	}
	return append(required(r.Name, at, source, "secretRef", "name"), required(r.Namespace, at, source, "secretRef", "namespace")...)
}

func validatePersistentISCSI(s *v1.ISCSIPersistentVolumeSource, name string, at *field.Path) (errs field.ErrorList) {
	if s.InitiatorName != nil && len(name)+1+len(s.TargetPortal) > maxInitiator {
		errs = append(errs, field.Invalid(at.Child("targetportal"), s.TargetPortal, longInitiator))
	}
	same := &v1.ISCSIVolumeSource{TargetPortal: s.TargetPortal, IQN: s.IQN, Lun: s.Lun, DiscoveryCHAPAuth: s.DiscoveryCHAPAuth,
		SessionCHAPAuth: s.SessionCHAPAuth, InitiatorName: s.InitiatorName}
	if s.SecretRef != nil {
		same.SecretRef = &v1.LocalObjectReference{Name: s.SecretRef.Name}
		errs = append(errs, required(s.SecretRef.Name, at, "secretRef", "name")...)
	}
	return append(errs, validateISCSI(same, "must be valid format", at)...)
}

func validatePersistentCSI(s *v1.CSIPersistentVolumeSource, at *field.Path) field.ErrorList {
	errs := ValidateDriverName(s.Driver, at.Child("driver"))
	errs = append(errs, required(s.VolumeHandle, at, "volumeHandle")...)
	secret := func(r *v1.SecretReference, name string) {
		if r == nil {
			return
		}
		at := at.Child(name)
		if errs = append(errs, required(r.Name, at, "name")...); r.Name != "" {
			errs = append(errs, conforms(r.Name, validation.IsDNS1123Subdomain, at, "name")...)
		}
		if errs = append(errs, required(r.Namespace, at, "namespace")...); r.Namespace != "" {
			errs = append(errs, conforms(r.Namespace, validation.IsDNS1123Label, at, "namespace")...)
		}
	}
	secret(s.ControllerPublishSecretRef, "controllerPublishSecretRef")
	secret(s.ControllerExpandSecretRef, "controllerExpandSecretRef")
	secret(s.NodePublishSecretRef, "nodePublishSecretRef")
	secret(s.NodeExpandSecretRef, "nodeExpandSecretRef")
	return errs
}
