package resource

import (
	"slices"

	v1 "k8s.io/api/resource/v1"
)

// The fields below are of features that are alpha in v1.37, and so off: they are
// dropped, unless the object has such already.

// dropSpec drops derived attributes from the requests of a claim.
func dropSpec(s, old *v1.ResourceClaimSpec) {
	if old != nil && slices.ContainsFunc(old.Devices.Requests, func(r v1.DeviceRequest) bool {
		return r.Exactly != nil && len(r.Exactly.DerivedAttributes) > 0 ||
			slices.ContainsFunc(r.FirstAvailable, func(sub v1.DeviceSubRequest) bool { return len(sub.DerivedAttributes) > 0 })
	}) {
		return
	}
	for i := range s.Devices.Requests {
		r := &s.Devices.Requests[i]
		if r.Exactly != nil {
			r.Exactly.DerivedAttributes = nil
		}
		for j := range r.FirstAvailable {
			r.FirstAvailable[j].DerivedAttributes = nil
		}
	}
}

func dropStatus(s, old *v1.ResourceClaimStatus) {
	if skips := func(r v1.DeviceRequestAllocationResult) bool { return len(r.SkipNodeOperations) > 0 }; s.Allocation != nil &&
		(old.Allocation == nil || !slices.ContainsFunc(old.Allocation.Devices.Results, skips)) {
		for i := range s.Allocation.Devices.Results {
			s.Allocation.Devices.Results[i].SkipNodeOperations = nil
		}
	}
	// What drivers said of devices goes with the allocation of these.
	freed := shares(old).Difference(shares(s))
	s.Devices = slices.DeleteFunc(slices.Clone(s.Devices), func(d v1.AllocatedDeviceStatus) bool { return freed.Has(shareOf(&d)) })
}

func dropSlice(s, old *v1.ResourceSliceSpec) {
	if old == nil {
		old = &v1.ResourceSliceSpec{}
	}
	if old.PartitionTypeAttribute == nil {
		s.PartitionTypeAttribute = nil
	}
	if len(old.SkipNodeOperations) == 0 {
		s.SkipNodeOperations = nil
	}
	unless := func(used func(v1.Device) bool, drop func(*v1.Device)) {
		if slices.ContainsFunc(old.Devices, used) {
			return
		}
		for i := range s.Devices {
			drop(&s.Devices[i])
		}
	}
	unless(func(d v1.Device) bool { return hasLists(d.Attributes) }, func(d *v1.Device) {
		for name, a := range d.Attributes {
			a.IntValues, a.BoolValues, a.StringValues, a.VersionValues = nil, nil, nil, nil
			d.Attributes[name] = a
		}
	})
	unless(func(d v1.Device) bool { return len(d.NodeAllocatableResources) > 0 }, func(d *v1.Device) { d.NodeAllocatableResources = nil })
	unless(func(d v1.Device) bool {
		return slices.ContainsFunc(d.ConsumesCounters, func(c v1.DeviceCounterConsumption) bool { return len(c.CompatibilityGroups) > 0 })
	}, func(d *v1.Device) {
		for i := range d.ConsumesCounters {
			d.ConsumesCounters[i].CompatibilityGroups = nil
		}
	})
}

// hasLists reports whether an attribute is a list.
func hasLists(attributes map[v1.QualifiedName]v1.DeviceAttribute) bool {
	for _, a := range attributes {
		if len(a.IntValues)+len(a.BoolValues)+len(a.StringValues)+len(a.VersionValues) > 0 {
			return true
		}
	}
	return false
}
