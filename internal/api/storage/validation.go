package storage

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	v1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/internal/api/podspec"
)

const (
	maxParameters        = 512
	maxParametersSize    = 256 << 10
	maxMetadataSize      = 256 << 10
	maxErrorMessage      = 1024
	maxNodeID            = 256
	minTokenLife         = 10 * time.Minute
	minAllocatableUpdate = 10
)

func validateStorageClass(c *v1.StorageClass) field.ErrorList {
	errs := validateProvisioner(c.Provisioner, field.NewPath("provisioner"))
	errs = append(errs, validateParameters(c.Parameters, false, field.NewPath("parameters"))...)
	if p := c.ReclaimPolicy; p != nil && *p != "" {
		all := []corev1.PersistentVolumeReclaimPolicy{corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRetain}
		if !slices.Contains(all, *p) {
			errs = append(errs, field.NotSupported(field.NewPath("reclaimPolicy"), *p, all))
		}
	}
	all := []v1.VolumeBindingMode{v1.VolumeBindingImmediate, v1.VolumeBindingWaitForFirstConsumer}
	switch mode := c.VolumeBindingMode; {
	case mode == nil:
		errs = append(errs, field.Required(field.NewPath("volumeBindingMode"), ""))
	case !slices.Contains(all, *mode):
		errs = append(errs, field.NotSupported(field.NewPath("volumeBindingMode"), *mode, all))
	}
	return append(errs, validateTopologies(c.AllowedTopologies, field.NewPath("allowedTopologies"))...)
}

func validateProvisioner(name string, fldPath *field.Path) field.ErrorList {
	if name == "" {
		return nil // its marker wants one
	}
	return invalid(fldPath, name, validation.IsQualifiedName(strings.ToLower(name)))
}

func invalid(fldPath *field.Path, value any, messages []string) field.ErrorList {
	var errs field.ErrorList
	for _, msg := range messages {
		errs = append(errs, field.Invalid(fldPath, value, msg))
	}
	return errs
}

func validateParameters(params map[string]string, required bool, fldPath *field.Path) field.ErrorList {
	if len(params) > maxParameters {
		return field.ErrorList{field.TooLong(fldPath, "Provisioner Parameters exceeded max allowed", maxParameters)}
	}
	if required && len(params) == 0 {
		return field.ErrorList{field.Required(fldPath, "must contain at least one key/value pair")}
	}
	var errs field.ErrorList
	size := 0
	for k, v := range params {
		if k == "" {
			errs = append(errs, field.Invalid(fldPath, k, "field can not be empty."))
		}
		size += len(k) + len(v)
	}
	if size > maxParametersSize {
		errs = append(errs, field.TooLong(fldPath, "", maxParametersSize))
	}
	return errs
}

func validateTopologies(terms []corev1.TopologySelectorTerm, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	var seen []map[string]sets.Set[string]
	for i := range terms {
		at := fldPath.Index(i)
		values, bad := validateTopology(&terms[i], at)
		errs = append(errs, bad...)
		if slices.ContainsFunc(seen, func(m map[string]sets.Set[string]) bool { return equality.Semantic.DeepEqual(m, values) }) {
			errs = append(errs, field.Duplicate(at.Child("matchLabelExpressions"), ""))
		}
		seen = append(seen, values)
	}
	return errs
}

// validateTopology returns the values by key, for the comparison of terms.
func validateTopology(term *corev1.TopologySelectorTerm, fldPath *field.Path) (map[string]sets.Set[string], field.ErrorList) {
	var errs field.ErrorList
	byKey := map[string]sets.Set[string]{}
	for i, req := range term.MatchLabelExpressions {
		at := fldPath.Child("matchLabelExpressions").Index(i)
		values := sets.New[string]()
		if len(req.Values) == 0 {
			errs = append(errs, field.Required(at.Child("values"), ""))
		}
		for j, v := range req.Values {
			if values.Has(v) {
				errs = append(errs, field.Duplicate(at.Child("values").Index(j), v))
			}
			values.Insert(v)
		}
		errs = append(errs, metav1validation.ValidateLabelName(req.Key, at.Child("key"))...)
		if _, twice := byKey[req.Key]; twice {
			errs = append(errs, field.Duplicate(at.Child("key"), req.Key))
		}
		byKey[req.Key] = values
	}
	return byKey, errs
}

func storageClassWarnings(c *v1.StorageClass) []string {
	var out []string
	for i, term := range c.AllowedTopologies {
		for j, req := range term.MatchLabelExpressions {
			if why := podspec.DeprecatedNodeLabel(req.Key); why != "" {
				at := field.NewPath("allowedTopologies").Index(i).Child("matchLabelExpressions").Index(j).Child("key")
				out = append(out, fmt.Sprintf("%s: %s", at, why))
			}
		}
	}
	return out
}

func validateVolumeAttachment(a *v1.VolumeAttachment) field.ErrorList {
	at := field.NewPath("spec")
	var errs field.ErrorList
	errs = append(errs, validateAttachmentSource(&a.Spec.Source, at.Child("source"))...)
	errs = append(errs, invalid(at.Child("nodeName"), a.Spec.NodeName, apivalidation.NameIsDNSSubdomain(a.Spec.NodeName, false))...)
	return append(errs, validateAttachmentStatus(&a.Status, field.NewPath("status"))...)
}

func validateAttachmentSource(s *v1.VolumeAttachmentSource, fldPath *field.Path) field.ErrorList {
	const one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
	switch inline, name := s.InlineVolumeSpec, s.PersistentVolumeName; {
	case inline == nil && name == nil:
		return field.ErrorList{field.Required(fldPath, one)}
	case inline != nil && name != nil:
		return field.ErrorList{field.Forbidden(fldPath, one)}
	case name != nil && *name == "":
		return field.ErrorList{field.Required(fldPath.Child("persistentVolumeName"), "must specify non empty persistentVolumeName")}
	case inline != nil:
		return podspec.ValidateInlineVolumeSpec(inline, "", fldPath.Child("inlineVolumeSpec"))
	}
	return nil
}

func validateAttachmentStatus(s *v1.VolumeAttachmentStatus, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	size := 0
	for k, v := range s.AttachmentMetadata {
		size += len(k) + len(v)
	}
	if size > maxMetadataSize {
		errs = append(errs, field.TooLong(fldPath.Child("attachmentMetadata"), "", maxMetadataSize))
	}
	errs = append(errs, validateVolumeError(s.AttachError, fldPath.Child("attachError"))...)
	return append(errs, validateVolumeError(s.DetachError, fldPath.Child("detachError"))...)
}

func validateVolumeError(e *v1.VolumeError, fldPath *field.Path) field.ErrorList {
	if e == nil {
		return nil
	}
	var errs field.ErrorList
	if len(e.Message) > maxErrorMessage {
		// The limit that is named is upstream's choice.
		errs = append(errs, field.TooLong(fldPath.Child("message"), "", maxMetadataSize))
	}
	if e.ErrorCode != nil && *e.ErrorCode < 0 {
		errs = append(errs, field.Invalid(fldPath.Child("errorCode"), *e.ErrorCode, validation.InclusiveRangeError(0, math.MaxInt32)))
	}
	return errs
}

func validateCSIDriver(d *v1.CSIDriver) field.ErrorList {
	var errs field.ErrorList
	at, s := field.NewPath("spec"), &d.Spec
	required := func(v *bool, name string) {
		if v == nil {
			errs = append(errs, field.Required(at.Child(name), ""))
		}
	}
	required(s.AttachRequired, "attachedRequired")
	required(s.PodInfoOnMount, "podInfoOnMount")
	required(s.StorageCapacity, "storageCapacity")
	policies := []v1.FSGroupPolicy{v1.FileFSGroupPolicy, v1.NoneFSGroupPolicy, v1.ReadWriteOnceWithFSTypeFSGroupPolicy}
	switch p := s.FSGroupPolicy; {
	case p == nil:
		errs = append(errs, field.Required(at.Child("fsGroupPolicy"), ""))
	case !slices.Contains(policies, *p):
		errs = append(errs, field.NotSupported(at.Child("fsGroupPolicy"), *p, policies))
	}
	errs = append(errs, validateTokenRequests(s.TokenRequests, at.Child("tokenRequests"))...)
	modes := []v1.VolumeLifecycleMode{v1.VolumeLifecyclePersistent, v1.VolumeLifecycleEphemeral}
	for _, m := range s.VolumeLifecycleModes {
		if !slices.Contains(modes, m) {
			errs = append(errs, field.NotSupported(at.Child("volumeLifecycleModes"), m, modes))
		}
	}
	required(s.SELinuxMount, "seLinuxMount")
	if p := s.NodeAllocatableUpdatePeriodSeconds; p != nil && *p < minAllocatableUpdate {
		errs = append(errs, field.Invalid(at.Child("nodeAllocatableUpdatePeriodSeconds"), *p, fmt.Sprintf("must be greater than or equal to %d seconds", minAllocatableUpdate)))
	}
	if s.ServiceAccountTokenInSecrets != nil && len(s.TokenRequests) == 0 {
		errs = append(errs, field.Invalid(at.Child("serviceAccountTokenInSecrets"), *s.ServiceAccountTokenInSecrets, "serviceAccountTokenInSecrets is set but no tokenRequests are specified"))
	}
	return errs
}

func validateCSIDriverUpdate(d, old *v1.CSIDriver) field.ErrorList {
	errs := validateCSIDriver(d)
	at := field.NewPath("spec")
	errs = append(errs, apivalidation.ValidateImmutableField(d.Spec.AttachRequired, old.Spec.AttachRequired, at.Child("attachedRequired"))...)
	return append(errs, apivalidation.ValidateImmutableField(d.Spec.VolumeLifecycleModes, old.Spec.VolumeLifecycleModes, at.Child("volumeLifecycleModes"))...)
}

func validateTokenRequests(list []v1.TokenRequest, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := sets.New[string]()
	for i, t := range list {
		at := fldPath.Index(i)
		if seen.Has(t.Audience) {
			errs = append(errs, field.Duplicate(at.Child("audience"), t.Audience))
			continue
		}
		seen.Insert(t.Audience)
		if t.ExpirationSeconds == nil {
			continue
		}
		if *t.ExpirationSeconds < int64(minTokenLife.Seconds()) {
			errs = append(errs, field.Invalid(at.Child("expirationSeconds"), *t.ExpirationSeconds, "may not specify a duration less than 10 minutes"))
		}
		if *t.ExpirationSeconds > 1<<32 {
			errs = append(errs, field.Invalid(at.Child("expirationSeconds"), *t.ExpirationSeconds, "may not specify a duration larger than 2^32 seconds"))
		}
	}
	return errs
}

func validateCSINode(n *v1.CSINode) field.ErrorList {
	var errs field.ErrorList
	seen := sets.New[string]()
	for i := range n.Spec.Drivers {
		at, d := field.NewPath("spec", "drivers").Index(i), &n.Spec.Drivers[i]
		errs = append(errs, podspec.ValidateDriverName(d.Name, at.Child("name"))...)
		switch {
		case d.NodeID == "":
			errs = append(errs, field.Required(at.Child("nodeID"), d.NodeID))
		case len(d.NodeID) > maxNodeID:
			errs = append(errs, field.Invalid(at.Child("nodeID"), d.NodeID, fmt.Sprintf("must be %d characters or less", maxNodeID)))
		}
		if d.Allocatable != nil && d.Allocatable.Count != nil {
			errs = append(errs, apivalidation.ValidateNonnegativeField(int64(*d.Allocatable.Count), at.Child("allocatable", "count"))...)
		}
		keys := sets.New[string]()
		for _, key := range d.TopologyKeys {
			switch {
			case key == "":
				errs = append(errs, field.Required(at, key))
			case keys.Has(key):
				errs = append(errs, field.Duplicate(at, key))
			}
			keys.Insert(key)
			errs = append(errs, invalid(at, key, validation.IsQualifiedName(key))...)
		}
		if seen.Has(d.Name) {
			errs = append(errs, field.Duplicate(at.Child("name"), d.Name))
		}
		seen.Insert(d.Name)
	}
	return errs
}

// validateCSINodeUpdate checks that drivers are only added or removed, or
// change only the number of volumes that the node can take.
func validateCSINodeUpdate(n, old *v1.CSINode) field.ErrorList {
	errs := validateCSINode(n)
	for _, was := range old.Spec.Drivers {
		for _, d := range n.Spec.Drivers {
			if d.Name == was.Name {
				d.Allocatable, was.Allocatable = nil, nil
				errs = append(errs, apivalidation.ValidateImmutableField(d, was, field.NewPath("spec", "drivers"))...)
			}
		}
	}
	return errs
}

// validateCSIStorageCapacity lets a selector keep values that are no label
// values, with badValues.
func validateCSIStorageCapacity(c *v1.CSIStorageCapacity, badValues bool) field.ErrorList {
	errs := invalid(field.NewPath("storageClassName"), c.StorageClassName, apivalidation.NameIsDNSSubdomain(c.StorageClassName, false))
	errs = append(errs, metav1validation.ValidateLabelSelector(c.NodeTopology, metav1validation.LabelSelectorValidationOptions{AllowInvalidLabelValueInSelector: badValues}, field.NewPath("nodeTopology"))...)
	if q := c.Capacity; q != nil && q.Sign() < 0 {
		errs = append(errs, field.Invalid(field.NewPath("capacity"), q.String(), apivalidation.IsNegativeErrorMsg))
	}
	return errs
}

func validateCSIStorageCapacityUpdate(c, old *v1.CSIStorageCapacity) field.ErrorList {
	errs := validateCSIStorageCapacity(c, metav1validation.LabelSelectorHasInvalidLabelValue(old.NodeTopology))
	errs = append(errs, apivalidation.ValidateImmutableField(c.NodeTopology, old.NodeTopology, field.NewPath("nodeTopology"))...)
	return append(errs, apivalidation.ValidateImmutableField(c.StorageClassName, old.StorageClassName, field.NewPath("storageClassName"))...)
}

func validateVolumeAttributesClass(c *v1.VolumeAttributesClass) field.ErrorList {
	errs := podspec.ValidateDriverName(c.DriverName, field.NewPath("driverName"))
	return append(errs, validateParameters(c.Parameters, true, field.NewPath("parameters"))...)
}

func validateVolumeAttributesClassUpdate(c, old *v1.VolumeAttributesClass) field.ErrorList {
	errs := validateVolumeAttributesClass(c)
	if c.DriverName != old.DriverName {
		errs = append(errs, field.Forbidden(field.NewPath("driverName"), "updates to driverName are forbidden."))
	}
	if !equality.Semantic.DeepEqual(c.Parameters, old.Parameters) {
		errs = append(errs, field.Forbidden(field.NewPath("parameters"), "updates to parameters are forbidden."))
	}
	return errs
}
