package apiserver

import (
	"fmt"

	v1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"keelson.dev/keelson/internal/api/resource"
)

// validateAccess checks the parts of device claims that depend on the claim's
// namespace and on the user who writes it. old is nil for a new object.
func (r *call) validateAccess(obj, old runtime.Object, subresource string) field.ErrorList {
	if r.row.Group != resourcev1.GroupName {
		return nil
	}
	var errs field.ErrorList
	if at := resource.AdminAccess(obj, old); at != nil {
		if err := r.adminNamespace(at); err != nil {
			errs = append(errs, err)
		}
	}
	if c, ok := obj.(*resourcev1.ResourceClaim); ok && subresource == "status" {
		errs = append(errs, r.authorizeStatus(&c.Status, &old.(*resourcev1.ResourceClaim).Status)...)
	}
	return errs
}

// adminNamespace checks that the request's namespace is an administrator's.
func (r *call) adminNamespace(at *field.Path) *field.Error {
	row, name := r.s.Catalogue.Lookup("", "v1", "namespaces"), r.info.Namespace
	e, err := r.s.Store.Get(r.ctx(), row.Key("", name))
	if err == nil && e == nil {
		err = apierrors.NewNotFound(row.GroupVersionResource.GroupResource(), name)
	}
	if err != nil {
		return field.InternalError(at, fmt.Errorf("could not retrieve namespace to verify admin access: %w", err))
	}
	if label := resourcev1.DRAAdminNamespaceLabelKey; e.Object().(*v1.Namespace).Labels[label] != "true" {
		return field.Forbidden(at, fmt.Sprintf("admin access to devices requires the `%s: true` label on the containing namespace", label))
	}
	return nil
}

// authorizeStatus checks the permissions to bind claims and to report the state
// of a driver's devices, which the right to write the status of claims does not
// include. They are granted on subresources that are not served (KEP-4817).
func (r *call) authorizeStatus(s, old *resourcev1.ResourceClaimStatus) (errs field.ErrorList) {
	at, verb := field.NewPath("status"), r.info.Verb
	attrs := authorizer.AttributesRecord{
		User: r.user, Verb: verb, APIGroup: r.info.APIGroup, APIVersion: r.info.APIVersion, Resource: r.info.Resource, ResourceRequest: true, Path: r.info.Path,
	}
	if resource.Binds(s, old) {
		a := attrs
		a.Subresource = resourcev1.SubresourceBinding
		if err := r.allowed(a); err != nil {
			errs = append(errs, field.Forbidden(at, fmt.Sprintf("changing status.allocation or status.reservedFor requires resource=\"resourceclaims/binding\", verb=\"%s\" permission: %s", verb, err)))
		}
	}
	verbs := []string{resourcev1.VerbPrefixArbitraryNode + verb}
	if node := resource.Node(s.Allocation); node != "" && r.runsOn(node) {
		verbs = []string{resourcev1.VerbPrefixAssociatedNode + verb, verbs[0]}
	}
	for _, driver := range resource.ReportingDrivers(s, old) {
		a := attrs
		a.Subresource, a.Namespace, a.Name = resourcev1.SubresourceDriver, r.info.Namespace, driver
		var refused error
		for _, a.Verb = range verbs {
			err := r.allowed(a)
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

// runsOn reports whether the user is a service account whose token is bound to node.
func (r *call) runsOn(node string) bool {
	_, _, err := serviceaccount.SplitUsername(r.user.GetName())
	nodes := r.user.GetExtra()[serviceaccount.NodeNameKey]
	return err == nil && len(nodes) == 1 && nodes[0] == node
}
