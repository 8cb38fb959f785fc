package resource

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	v1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/api"
)

// validateAdminRequest checks that a new claim, or template of claims, asks for an
// administrator's access to devices (KEP-5018) in an administrator's namespace only.
func validateAdminRequest(req api.Request, d *v1.DeviceClaim) field.ErrorList {
	for i, r := range d.Requests {
		if r.Exactly != nil && ptr.Deref(r.Exactly.AdminAccess, false) {
			return validateAdminNamespace(req, field.NewPath("spec", "devices", "requests").Index(i).Child("adminAccess"))
		}
	}
	return nil
}

// granted returns where an allocation has an administrator's access, nil if nowhere.
func granted(a *v1.AllocationResult) *field.Path {
	for i, r := range ptr.Deref(a, v1.AllocationResult{}).Devices.Results {
		if ptr.Deref(r.AdminAccess, false) {
			return field.NewPath("status", "allocation", "devices", "results").Index(i).Child("adminAccess")
		}
	}
	return nil
}

// validateAdminNamespace checks that the request's namespace is an administrator's.
func validateAdminNamespace(req api.Request, at *field.Path) field.ErrorList {
	obj, err := req.Object(corev1.SchemeGroupVersion.WithResource("namespaces"), "", req.Attributes().Namespace)
	if err != nil {
		return field.ErrorList{field.InternalError(at, fmt.Errorf("could not retrieve namespace to verify admin access: %w", err))}
	}
	if label := v1.DRAAdminNamespaceLabelKey; obj.(*corev1.Namespace).Labels[label] != "true" {
		return field.ErrorList{field.Forbidden(at, fmt.Sprintf("admin access to devices requires the `%s: true` label on the containing namespace", label))}
	}
	return nil
}

// validateStatusRequest checks what the right to write the status of claims does not
// include: an administrator's access, binding claims and reporting the state of a
// driver's devices. The latter two are granted on subresources that are not served
// (KEP-4817).
func validateStatusRequest(req api.Request, c, old *v1.ResourceClaim) (errs field.ErrorList) {
	if at := granted(c.Status.Allocation); at != nil && granted(old.Status.Allocation) == nil {
		errs = append(errs, validateAdminNamespace(req, at)...)
	}
	at, asked := field.NewPath("status"), req.Attributes()
	attrs := authorizer.AttributesRecord{
		User: asked.User, Verb: asked.Verb, APIGroup: asked.APIGroup, APIVersion: asked.APIVersion, Resource: asked.Resource, ResourceRequest: true, Path: asked.Path,
	}
	if binds(&c.Status, &old.Status) {
		a := attrs
		a.Subresource = v1.SubresourceBinding
		if err := req.Allowed(a); err != nil {
			errs = append(errs, field.Forbidden(at, fmt.Sprintf("changing status.allocation or status.reservedFor requires resource=\"resourceclaims/binding\", verb=\"%s\" permission: %s", asked.Verb, err)))
		}
	}
	verbs := []string{v1.VerbPrefixArbitraryNode + asked.Verb}
	if node := allocatedNode(c.Status.Allocation); node != "" && runsOn(req.User(), node) {
		verbs = []string{v1.VerbPrefixAssociatedNode + asked.Verb, verbs[0]}
	}
	for _, driver := range reportingDrivers(&c.Status, &old.Status) {
		a := attrs
		a.Subresource, a.Namespace, a.Name = v1.SubresourceDriver, asked.Namespace, driver
		var refused error
		for _, a.Verb = range verbs {
			err := req.Allowed(a)
			if err == nil {
				refused = nil
				break
			}
			if refused == nil {
				refused = err
			}
		}
		if refused != nil {
			errs = append(errs, field.Forbidden(at.Child("devices"), fmt.Sprintf("changing status.devices requires resource=\"resourceclaims/driver\", verb=\"%s\" permission: %s", verbs, refused)))
		}
	}
	return errs
}

// runsOn reports whether u is a service account whose token is bound to node.
func runsOn(u user.Info, node string) bool {
	_, _, err := serviceaccount.SplitUsername(u.GetName())
	nodes := u.GetExtra()[serviceaccount.NodeNameKey]
	return err == nil && len(nodes) == 1 && nodes[0] == node
}

// binds reports whether a change of a claim's status is about its allocation or
// its consumers.
func binds(s, old *v1.ResourceClaimStatus) bool {
	return !equality.Semantic.DeepEqual(s.Allocation, old.Allocation) || !equality.Semantic.DeepEqual(s.ReservedFor, old.ReservedFor)
}

// reportingDrivers returns the drivers whose devices have another status than in old,
// in order.
func reportingDrivers(s, old *v1.ResourceClaimStatus) []string {
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

// allocatedNode returns the one node that has the devices of an allocation, "" if it is not
// said to be one.
func allocatedNode(a *v1.AllocationResult) string {
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
