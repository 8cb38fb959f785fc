package podspec

import (
	"fmt"
	"net"
	"path"
	"regexp"
	"strings"

	v1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// What a volume can be made from: the sources that pods name themselves, and
// those of PersistentVolumes, which differ from them by little more than the
// namespace of their secrets.

// choice is of one source among several: the first is taken, the others are
// refused.
type choice struct {
	at    *field.Path
	taken bool
	errs  field.ErrorList
}

// first takes the source called name, if there was none before.
func (c *choice) first(name string) bool {
	if c.taken {
		c.errs = append(c.errs, field.Forbidden(c.at.Child(name), "may not specify more than 1 volume type"))
		return false
	}
	c.taken = true
	return true
}

func (c *choice) add(errs field.ErrorList) { c.errs = append(c.errs, errs...) }

func (c *choice) require() {
	if !c.taken {
		c.errs = append(c.errs, field.Required(c.at, "must specify a volume type"))
	}
}

// ofBoth are the sources with the same form in pods and PersistentVolumes.
type ofBoth struct {
	hostPath *v1.HostPathVolumeSource
	gce      *v1.GCEPersistentDiskVolumeSource
	aws      *v1.AWSElasticBlockStoreVolumeSource
	nfs      *v1.NFSVolumeSource
	flocker  *v1.FlockerVolumeSource
	quobyte  *v1.QuobyteVolumeSource
	fc       *v1.FCVolumeSource
	vsphere  *v1.VsphereVirtualDiskVolumeSource
	photon   *v1.PhotonPersistentDiskVolumeSource
	portworx *v1.PortworxVolumeSource
	azure    *v1.AzureDiskVolumeSource
}

// source checks the source of the pod's volume called name.
func (c *checker) source(s *v1.VolumeSource, name string, at *field.Path) field.ErrorList {
	one := choice{at: at}
	if e := s.EmptyDir; e != nil && one.first("emptyDir") && e.SizeLimit != nil && e.SizeLimit.Sign() < 0 {
		one.add(field.ErrorList{field.Forbidden(at.Child("emptyDir", "sizeLimit"), "SizeLimit field must be a valid resource quantity")})
	}
	one.ofBoth(&ofBoth{s.HostPath, s.GCEPersistentDisk, s.AWSElasticBlockStore, s.NFS, s.Flocker, s.Quobyte, s.FC, s.VsphereVolume,
		s.PhotonPersistentDisk, s.PortworxVolume, s.AzureDisk})
	if s.GitRepo != nil && one.first("gitRepo") {
		one.add(required(s.GitRepo.Repository, at, "gitRepo", "repository"))
		one.add(validateInside(s.GitRepo.Directory, at, "gitRepo", "directory"))
	}
	if s.Secret != nil && one.first("secret") {
		one.add(required(s.Secret.SecretName, at, "secret", "secretName"))
		one.add(validateMode(s.Secret.DefaultMode, at, "secret", "defaultMode"))
		one.add(validateItems(s.Secret.Items, at, "secret", "items"))
	}
	if s.ISCSI != nil {
		if one.first("iscsi") {
			one.add(validateISCSI(s.ISCSI, "must be valid format starting with iqn, eui, or naa", at.Child("iscsi")))
		}
		if s.ISCSI.InitiatorName != nil && len(name)+1+len(s.ISCSI.TargetPortal) > maxInitiator {
			one.add(field.ErrorList{field.Invalid(at.Child("name"), name, longInitiator)})
		}
	}
	if s.Glusterfs != nil && one.first("glusterfs") {
		one.add(required(s.Glusterfs.EndpointsName, at, "glusterfs", "endpoints"))
		one.add(required(s.Glusterfs.Path, at, "glusterfs", "path"))
	}
	if s.PersistentVolumeClaim != nil && one.first("persistentVolumeClaim") {
		one.add(required(s.PersistentVolumeClaim.ClaimName, at, "persistentVolumeClaim", "claimName"))
	}
	if s.RBD != nil && one.first("rbd") {
		one.add(validateRBD(s.RBD.CephMonitors, s.RBD.RBDImage, at))
	}
	if s.Cinder != nil && one.first("cinder") {
		one.add(required(s.Cinder.VolumeID, at, "cinder", "volumeID"))
		one.add(secretName(s.Cinder.SecretRef, at, "cinder"))
	}
	if s.CephFS != nil && one.first("cephFS") {
		one.add(validateCephFS(s.CephFS.Monitors, at))
	}
	if s.DownwardAPI != nil && one.first("downwarAPI") {
		one.add(validateMode(s.DownwardAPI.DefaultMode, at, "downwardAPI", "defaultMode"))
		one.add(validateDownward(s.DownwardAPI.Items, at.Child("downwardAPI")))
	}
	if s.FlexVolume != nil && one.first("flexVolume") {
		one.add(validateFlex(s.FlexVolume.Driver, s.FlexVolume.Options, at.Child("flexVolume")))
	}
	if s.ConfigMap != nil && one.first("configMap") {
		one.add(required(s.ConfigMap.Name, at, "configMap", "name"))
		one.add(validateMode(s.ConfigMap.DefaultMode, at, "configMap", "defaultMode"))
		one.add(validateItems(s.ConfigMap.Items, at, "configMap", "items"))
	}
	if s.AzureFile != nil && one.first("azureFile") {
		one.add(required(s.AzureFile.SecretName, at, "azureFile", "secretName"))
		one.add(required(s.AzureFile.ShareName, at, "azureFile", "shareName"))
	}
	if s.StorageOS != nil && one.first("storageos") {
		one.add(validateStorageOS(s.StorageOS.VolumeName, s.StorageOS.VolumeNamespace, at.Child("storageos")))
		one.add(secretName(s.StorageOS.SecretRef, at, "storageos"))
	}
	if s.Projected != nil && one.first("projected") {
		one.add(validateProjected(s.Projected, at.Child("projected")))
	}
	if s.ScaleIO != nil && one.first("scaleIO") {
		one.add(validateScaleIO(s.ScaleIO.Gateway, s.ScaleIO.System, s.ScaleIO.VolumeName, at))
	}
	if s.CSI != nil && one.first("csi") {
		one.add(validateCSI(s.CSI, at.Child("csi")))
	}
	if s.Ephemeral != nil && one.first("ephemeral") {
		one.add(validateEphemeralVolume(s.Ephemeral, name, c.podName(), at))
	}
	if s.Image != nil && one.first("image") {
		// A template may leave it open.
		if c.pod != nil {
			one.add(required(s.Image.Reference, at, "image", "reference"))
		}
		one.add(oneOf(s.Image.PullPolicy, pullPolicies, at, "image", "pullPolicy"))
	}
	one.require()
	return one.errs
}

// ofBoth checks the sources that pods and PersistentVolumes have in common.
func (c *choice) ofBoth(s *ofBoth) {
	at := c.at
	if s.hostPath != nil && c.first("hostPath") {
		c.add(validateHostPath(s.hostPath, at.Child("hostPath")))
	}
	// Two of the paths of this disk are as the first API had them.
	if s.gce != nil && c.first("gcePersistentDisk") {
		c.add(required(s.gce.PDName, at, "persistentDisk", "pdName"))
		c.add(validatePartition(s.gce.Partition, at, "persistentDisk"))
	}
	if s.aws != nil && c.first("awsElasticBlockStore") {
		c.add(required(s.aws.VolumeID, at, "awsElasticBlockStore", "volumeID"))
		c.add(validatePartition(s.aws.Partition, at, "awsElasticBlockStore"))
	}
	if s.nfs != nil && c.first("nfs") {
		c.add(required(s.nfs.Server, at, "nfs", "server"))
		c.add(required(s.nfs.Path, at, "nfs", "path"))
		if !path.IsAbs(s.nfs.Path) {
			c.add(field.ErrorList{field.Invalid(at.Child("nfs", "path"), s.nfs.Path, "must be an absolute path")})
		}
	}
	if s.flocker != nil && c.first("flocker") {
		c.add(validateFlocker(s.flocker, at.Child("flocker")))
	}
	if s.quobyte != nil && c.first("quobyte") {
		c.add(validateQuobyte(s.quobyte, at.Child("quobyte")))
	}
	if s.fc != nil && c.first("fc") {
		c.add(validateFC(s.fc, at.Child("fc")))
	}
	if s.vsphere != nil && c.first("vsphereVolume") {
		c.add(required(s.vsphere.VolumePath, at, "vsphereVolume", "volumePath"))
	}
	if s.photon != nil && c.first("photonPersistentDisk") {
		c.add(required(s.photon.PdID, at, "photonPersistentDisk", "pdID"))
	}
	if s.portworx != nil && c.first("portworxVolume") {
		c.add(required(s.portworx.VolumeID, at, "portworxVolume", "volumeID"))
	}
	if s.azure != nil && c.first("azureDisk") {
		c.add(validateAzureDisk(s.azure, at.Child("azureDisk")))
	}
}

// secretName checks that a reference to a secret in the pod's namespace has a
// name.
func secretName(r *v1.LocalObjectReference, at *field.Path, source string) field.ErrorList {
	if r == nil {
		return nil
	}
	return required(r.Name, at, source, "secretRef", "name")
}

var hostPathTypes = []v1.HostPathType{v1.HostPathUnset, v1.HostPathBlockDev, v1.HostPathCharDev, v1.HostPathDirectory, v1.HostPathDirectoryOrCreate,
	v1.HostPathFile, v1.HostPathFileOrCreate, v1.HostPathSocket}

func validateHostPath(h *v1.HostPathVolumeSource, at *field.Path) field.ErrorList {
	if h.Path == "" {
		return field.ErrorList{field.Required(at.Child("path"), "")}
	}
	errs := noBacksteps(h.Path, at, "path")
	if h.Type != nil {
		errs = append(errs, among(*h.Type, hostPathTypes, at, "type")...)
	}
	return errs
}

// noBacksteps checks that no element of the path p is "..".
func noBacksteps(p string, at *field.Path, name string, more ...string) field.ErrorList {
	if !climbs(p) {
		return nil
	}
	return field.ErrorList{field.Invalid(at.Child(name, more...), p, "must not contain '..'")}
}

func climbs(p string) bool {
	for rest, found := p, true; found; {
		var item string
		if item, rest, found = strings.Cut(rest, "/"); item == ".." {
			return true
		}
	}
	return false
}

// validateInside checks that p does not lead out of the folder that it is
// relative to.
func validateInside(p string, at *field.Path, name string, more ...string) (errs field.ErrorList) {
	if path.IsAbs(p) {
		errs = append(errs, field.Invalid(at.Child(name, more...), p, "must be a relative path"))
	}
	return append(errs, noBacksteps(p, at, name, more...)...)
}

// validateFile checks that p names a file below a volume's folder, and none of
// those with two dots that the node keeps there for itself.
func validateFile(p string, at *field.Path, name string, more ...string) field.ErrorList {
	errs := validateInside(p, at, name, more...)
	if strings.HasPrefix(p, "..") && !strings.HasPrefix(p, "../") {
		errs = append(errs, field.Invalid(at.Child(name, more...), p, "must not start with '..'"))
	}
	return errs
}

func validatePartition(n int32, at *field.Path, source string) field.ErrorList {
	if n < 0 || n > 255 {
		return field.ErrorList{field.Invalid(at.Child(source, "partition"), n, validation.InclusiveRangeError(1, 255))}
	}
	return nil
}

// maxInitiator bounds the interface's name that the node makes of the volume's
// name and the portal.
const (
	maxInitiator  = 64
	longInitiator = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified."
)

// qualifiers are the forms of a name in iSCSI, by what it begins with.
var qualifiers = []struct {
	prefix string
	form   *regexp.Regexp
}{
	{"iqn", regexp.MustCompile(`iqn\.\d{4}-\d{2}\.([[:alnum:]-.]+)(:[^,;*&$|\s]+)$`)},
	{"eui", regexp.MustCompile(`^eui.[[:alnum:]]{16}$`)},
	{"naa", regexp.MustCompile(`^naa.[[:alnum:]]{32}$`)},
}

func validateQualifiedISCSI(name, unknown string, at *field.Path) field.ErrorList {
	for _, q := range qualifiers {
		if strings.HasPrefix(name, q.prefix) {
			if q.form.MatchString(name) {
				return nil
			}
			return field.ErrorList{field.Invalid(at, name, "must be valid format")}
		}
	}
	return field.ErrorList{field.Invalid(at, name, unknown)}
}

// validateISCSI uses the message unknown for a name without a known prefix.
func validateISCSI(s *v1.ISCSIVolumeSource, unknown string, at *field.Path) field.ErrorList {
	errs := required(s.TargetPortal, at, "targetPortal")
	if s.IQN == "" {
		errs = append(errs, field.Required(at.Child("iqn"), ""))
	} else {
		errs = append(errs, validateQualifiedISCSI(s.IQN, unknown, at.Child("iqn"))...)
	}
	if s.Lun < 0 || s.Lun > 255 {
		errs = append(errs, field.Invalid(at.Child("lun"), s.Lun, validation.InclusiveRangeError(0, 255)))
	}
	if (s.DiscoveryCHAPAuth || s.SessionCHAPAuth) && s.SecretRef == nil {
		errs = append(errs, field.Required(at.Child("secretRef"), ""))
	}
	if s.InitiatorName != nil {
		errs = append(errs, validateQualifiedISCSI(*s.InitiatorName, unknown, at.Child("initiatorname"))...)
	}
	return errs
}

func validateFC(s *v1.FCVolumeSource, at *field.Path) (errs field.ErrorList) {
	switch names, ids := len(s.TargetWWNs), len(s.WWIDs); {
	case names == 0 && ids == 0:
		errs = append(errs, field.Required(at.Child("targetWWNs"), "must specify either targetWWNs or wwids, but not both"))
	case names != 0 && ids != 0:
		errs = append(errs, field.Invalid(at.Child("targetWWNs"), s.TargetWWNs, "targetWWNs and wwids can not be specified simultaneously"))
	}
	if len(s.TargetWWNs) == 0 {
		return errs
	}
	if s.Lun == nil {
		errs = append(errs, field.Required(at.Child("lun"), "lun is required if targetWWNs is specified"))
	} else if *s.Lun < 0 || *s.Lun > 255 {
		errs = append(errs, field.Invalid(at.Child("lun"), *s.Lun, validation.InclusiveRangeError(0, 255)))
	}
	return errs
}

func validateQuobyte(s *v1.QuobyteVolumeSource, at *field.Path) (errs field.ErrorList) {
	const pairs = "must be a host:port pair or multiple pairs separated by commas"
	switch {
	case s.Registry == "":
		errs = append(errs, field.Required(at.Child("registry"), pairs))
	case len(s.Tenant) >= 65:
		errs = append(errs, field.Required(at.Child("tenant"), "must be a UUID and may not exceed a length of 64 characters"))
	default:
		for _, pair := range strings.Split(s.Registry, ",") {
			if _, _, err := net.SplitHostPort(pair); err != nil {
				errs = append(errs, field.Invalid(at.Child("registry"), s.Registry, pairs))
			}
		}
	}
	return append(errs, required(s.Volume, at, "volume")...)
}

func validateFlocker(s *v1.FlockerVolumeSource, at *field.Path) (errs field.ErrorList) {
	switch {
	case s.DatasetName == "" && s.DatasetUUID == "":
		errs = append(errs, field.Required(at, "one of datasetName and datasetUUID is required"))
	case s.DatasetName != "" && s.DatasetUUID != "":
		errs = append(errs, field.Invalid(at, "resource", "datasetName and datasetUUID can not be specified simultaneously"))
	}
	if strings.Contains(s.DatasetName, "/") {
		errs = append(errs, field.Invalid(at.Child("datasetName"), s.DatasetName, "must not contain '/'"))
	}
	return errs
}

func validateRBD(monitors []string, image string, at *field.Path) (errs field.ErrorList) {
	if len(monitors) == 0 {
		errs = append(errs, field.Required(at.Child("rbd", "monitors"), ""))
	}
	return append(errs, required(image, at, "rbd", "image")...)
}

func validateCephFS(monitors []string, at *field.Path) field.ErrorList {
	if len(monitors) == 0 {
		return field.ErrorList{field.Required(at.Child("cephfs", "monitors"), "")}
	}
	return nil
}

// validateFlex checks the driver, and that no option is in one of Kubernetes'
// own domains.
func validateFlex(driver string, options map[string]string, at *field.Path) field.ErrorList {
	errs := required(driver, at, "driver")
	for k := range options {
		domain, _, _ := strings.Cut(k, "/")
		if domain = "." + strings.ToLower(domain); strings.HasSuffix(domain, ".kubernetes.io") || strings.HasSuffix(domain, ".k8s.io") {
			errs = append(errs, field.Invalid(at.Child("options").Key(k), k, "kubernetes.io and k8s.io namespaces are reserved"))
		}
	}
	return errs
}

var (
	azureCaching = []v1.AzureDataDiskCachingMode{v1.AzureDataDiskCachingNone, v1.AzureDataDiskCachingReadOnly, v1.AzureDataDiskCachingReadWrite}
	azureKinds   = []v1.AzureDataDiskKind{v1.AzureDedicatedBlobDisk, v1.AzureManagedDisk, v1.AzureSharedBlobDisk}
)

func validateAzureDisk(s *v1.AzureDiskVolumeSource, at *field.Path) field.ErrorList {
	errs := required(s.DiskName, at, "diskName")
	errs = append(errs, required(s.DataDiskURI, at, "diskURI")...)
	if m := s.CachingMode; m != nil {
		errs = append(errs, among(*m, azureCaching, at, "cachingMode")...)
	}
	if s.Kind == nil {
		return errs
	}
	errs = append(errs, among(*s.Kind, azureKinds, at, "kind")...)
	scheme, form := "https://", "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"
	if *s.Kind == v1.AzureManagedDisk {
		scheme, form = "/subscriptions/", "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"
	}
	if !strings.HasPrefix(s.DataDiskURI, scheme) {
		errs = append(errs, field.NotSupported(at.Child("diskURI"), s.DataDiskURI, []string{form}))
	}
	return errs
}

func validateScaleIO(gateway, system, volume string, at *field.Path) field.ErrorList {
	errs := required(gateway, at, "scaleIO", "gateway")
	errs = append(errs, required(system, at, "scaleIO", "system")...)
	return append(errs, required(volume, at, "scaleIO", "volumeName")...)
}

func validateStorageOS(volume, namespace string, at *field.Path) (errs field.ErrorList) {
	if volume == "" {
		errs = append(errs, field.Required(at.Child("volumeName"), ""))
	} else {
		errs = append(errs, conforms(volume, validation.IsDNS1123Label, at, "volumeName")...)
	}
	if namespace != "" {
		errs = append(errs, conforms(namespace, validation.IsDNS1123Label, at, "volumeNamespace")...)
	}
	return errs
}

// maxDriverName bounds the name of a CSI driver.
const maxDriverName = 63

// ValidateDriverName wants the name of a CSI driver: a DNS subdomain, in any case.
func ValidateDriverName(name string, at *field.Path) (errs field.ErrorList) {
	if name == "" {
		errs = append(errs, field.Required(at, ""))
	}
	if len(name) > maxDriverName {
		errs = append(errs, field.TooLong(at, "", maxDriverName))
	}
	for _, msg := range validation.IsDNS1123Subdomain(strings.ToLower(name)) {
		errs = append(errs, field.Invalid(at, name, msg))
	}
	return errs
}

func validateCSI(s *v1.CSIVolumeSource, at *field.Path) field.ErrorList {
	errs := ValidateDriverName(s.Driver, at.Child("driver"))
	switch r := s.NodePublishSecretRef; {
	case r == nil:
	case r.Name == "":
		errs = append(errs, field.Required(at.Child("nodePublishSecretRef", "name"), ""))
	default:
		errs = append(errs, conforms(r.Name, validation.IsDNS1123Subdomain, at, "name")...)
	}
	return errs
}

// validateEphemeralVolume checks the claim that is made for the volume called
// name of the pod, whose names together are the claim's.
func validateEphemeralVolume(s *v1.EphemeralVolumeSource, name, pod string, at *field.Path) (errs field.ErrorList) {
	if s.VolumeClaimTemplate == nil {
		errs = append(errs, field.Required(at.Child("ephemeral", "volumeClaimTemplate"), ""))
	} else {
		errs = append(errs, validateClaimTemplate(s.VolumeClaimTemplate, at.Child("ephemeral", "volumeClaimTemplate"))...)
	}
	if pod == "" || name == "" {
		return errs
	}
	claim := pod + "-" + name
	for _, msg := range apivalidation.NameIsDNSSubdomain(claim, false) {
		errs = append(errs, field.Invalid(at.Child("name"), name, fmt.Sprintf("PVC name %q: %v", claim, msg)))
	}
	return errs
}
