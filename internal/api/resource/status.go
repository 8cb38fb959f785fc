package resource

import (
	v1 "k8s.io/api/resource/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/api/podspec"
)

func validateClaimStatusUpdate(c, old *v1.ResourceClaim) field.ErrorList {
	at, s := field.NewPath("status"), &c.Status
	reserved := at.Child("reservedFor")
	errs := each(s.ReservedFor, v1.ResourceClaimReservedForMaxSize, reserved, validateConsumer)
	errs = append(errs, validateDeviceStatuses(s, at.Child("devices"))...)
	switch {
	case len(s.ReservedFor) > 0 && s.Allocation == nil:
		errs = append(errs, field.Forbidden(reserved, "may not be specified when `allocated` is not set"))
	case c.DeletionTimestamp != nil && len(sets.New(s.ReservedFor...).Difference(sets.New(old.Status.ReservedFor...))) > 0:
		errs = append(errs, field.Forbidden(reserved, "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set"))
	}
	// What is stored may be older than the rules for new results.
	if s.Allocation != nil && old.Status.Allocation == nil {
		errs = append(errs, validateAllocation(s.Allocation, requestNames(&c.Spec.Devices), at.Child("allocation"))...)
	}
	return errs
}

func validateConsumer(r *v1.ResourceClaimConsumerReference, fldPath *field.Path) (errs field.ErrorList) {
	for _, f := range []struct{ name, value string }{{"resource", r.Resource}, {"name", r.Name}, {"uid", string(r.UID)}} {
		if f.value == "" {
			errs = append(errs, field.Required(fldPath.Child(f.name), ""))
		}
	}
	return errs
}

func validateAllocation(a *v1.AllocationResult, names sets.Set[string], fldPath *field.Path) field.ErrorList {
	at := fldPath.Child("devices")
	errs := each(a.Devices.Results, v1.AllocationResultsMaxSize, at.Child("results"), func(r *v1.DeviceRequestAllocationResult, at *field.Path) field.ErrorList {
		errs := validateRequestRef(r.Request, names, at.Child("request"))
		errs = append(errs, validateLabel(r.Device, at.Child("device"))...)
		return append(errs, validateBinding(r.BindingConditions, r.BindingFailureConditions, at)...)
	})
	// As many as of the class and of the claim.
	errs = append(errs, each(a.Devices.Config, 2*v1.DeviceConfigMaxSize, at.Child("config"), func(c *v1.DeviceAllocationConfiguration, at *field.Path) field.ErrorList {
		errs := validateRequestRefs(c.Requests, names, at.Child("requests"))
		return append(errs, validateConfiguration(&c.DeviceConfiguration, false, at)...)
	})...)
	if a.NodeSelector != nil {
		errs = append(errs, podspec.ValidateNodeSelector(a.NodeSelector, fldPath.Child("nodeSelector"))...)
	}
	return errs
}

// shared is a device, or a share of one, as messages show it.
type shared struct{ Driver, Pool, Device, ShareID string }

func (s shared) String() string {
	text := s.Driver + "/" + s.Pool + "/" + s.Device
	if s.ShareID != "" {
		text += "/" + s.ShareID
	}
	return text
}

// shares returns the devices that are allocated.
func shares(s *v1.ResourceClaimStatus) sets.Set[shared] {
	out := sets.New[shared]()
	if s.Allocation != nil {
		for _, r := range s.Allocation.Devices.Results {
			out.Insert(shared{r.Driver, r.Pool, r.Device, string(ptr.Deref(r.ShareID, ""))})
		}
	}
	return out
}

// shareOf returns the share of a device that a status is about.
func shareOf(d *v1.AllocatedDeviceStatus) shared {
	return shared{d.Driver, d.Pool, d.Device, ptr.Deref(d.ShareID, "")}
}

func validateDeviceStatuses(s *v1.ResourceClaimStatus, fldPath *field.Path) field.ErrorList {
	allocated := shares(s)
	return each(s.Devices, len(s.Devices), fldPath, func(d *v1.AllocatedDeviceStatus, at *field.Path) field.ErrorList {
		errs := validateDriver(d.Driver, at.Child("driver"))
		errs = append(errs, validatePool(d.Pool, at.Child("pool"))...)
		errs = append(errs, validateLabel(d.Device, at.Child("device"))...)
		if share := shareOf(d); !allocated.Has(share) {
			errs = append(errs, field.Invalid(at, share.String(), "must be an allocated device in the claim"))
		}
		if n := len(d.Conditions); n > v1.AllocatedDeviceStatusMaxConditions {
			errs = append(errs, field.TooMany(at.Child("conditions"), n, v1.AllocatedDeviceStatusMaxConditions))
		}
		errs = append(errs, metav1validation.ValidateConditions(d.Conditions, at.Child("conditions"))...)
		if d.Data != nil && len(d.Data.Raw) > 0 {
			errs = append(errs, validateRaw(d.Data.Raw, false, v1.AllocatedDeviceStatusDataMaxLength, at.Child("data"))...)
		}
		if n := d.NetworkData; n != nil {
			errs = append(errs, each(n.IPs, v1.NetworkDeviceDataMaxIPs, at.Child("networkData", "ips"), func(ip *string, at *field.Path) field.ErrorList {
				return validation.IsValidInterfaceAddress(at, *ip)
			})...)
		}
		return errs
	})
}
