package resource

import (
	corev1 "k8s.io/api/core/v1"
	v1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// AdminAccess gives where a new object, or the status of a claim where old is
// set, comes to have an administrator's access to devices (KEP-5018); nil if it
// does not.
func AdminAccess(obj, old runtime.Object) *field.Path {
	requested := func(d *v1.DeviceClaim) *field.Path {
		for i, r := range d.Requests {
			if r.Exactly != nil && ptr.Deref(r.Exactly.AdminAccess, false) {
				return field.NewPath("spec", "devices", "requests").Index(i).Child("adminAccess")
			}
		}
		return nil
	}
	granted := func(a *v1.AllocationResult) *field.Path {
		for i, r := range ptr.Deref(a, v1.AllocationResult{}).Devices.Results {
			if ptr.Deref(r.AdminAccess, false) {
				return field.NewPath("status", "allocation", "devices", "results").Index(i).Child("adminAccess")
			}
		}
		return nil
	}
	switch o := obj.(type) {
	case *v1.ResourceClaimTemplate:
		if old == nil {
			return requested(&o.Spec.Spec.Devices)
		}
	case *v1.ResourceClaim:
		if old == nil {
			return requested(&o.Spec.Devices)
		}
		if granted(old.(*v1.ResourceClaim).Status.Allocation) == nil {
			return granted(o.Status.Allocation)
		}
	}
	return nil
}

// Binds reports whether a change of a claim's status is about its allocation or
// its consumers.
func Binds(s, old *v1.ResourceClaimStatus) bool {
	return !equality.Semantic.DeepEqual(s.Allocation, old.Allocation) || !equality.Semantic.DeepEqual(s.ReservedFor, old.ReservedFor)
}

// ReportingDrivers gives the drivers whose devices have another status than in old,
// in order.
func ReportingDrivers(s, old *v1.ResourceClaimStatus) []string {
	was := map[shared]v1.AllocatedDeviceStatus{}
	for _, d := range old.Devices {
		was[shareOf(&d)] = d
	}
	drivers := sets.New[string]()
	for _, d := range s.Devices {
		if o, ok := was[shareOf(&d)]; !ok || !equality.Semantic.DeepEqual(o, d) {
			drivers.Insert(d.Driver)
		}
		delete(was, shareOf(&d))
	}
	for gone := range was {
		drivers.Insert(gone.Driver)
	}
	return sets.List(drivers)
}

// Node is the one node that has the devices of an allocation, "" if it is not
// said to be one.
func Node(a *v1.AllocationResult) string {
	if a == nil || a.NodeSelector == nil || len(a.NodeSelector.NodeSelectorTerms) != 1 {
		return ""
	}
	term := a.NodeSelector.NodeSelectorTerms[0]
	if len(term.MatchExpressions) > 0 || len(term.MatchFields) != 1 {
		return ""
	}
	f := term.MatchFields[0]
	if f.Key != "metadata.name" || f.Operator != corev1.NodeSelectorOpIn || len(f.Values) != 1 {
		return ""
	}
	return f.Values[0]
}
