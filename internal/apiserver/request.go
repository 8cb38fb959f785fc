package apiserver

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"keelson.dev/keelson/internal/api"
)

var _ api.Request = (*call)(nil)

// Context implements api.Request.
func (r *call) Context() context.Context { return r.ctx() }

// User implements api.Request.
func (r *call) User() user.Info { return r.user }

// Attributes implements api.Request.
func (r *call) Attributes() authorizer.AttributesRecord {
	i := r.info
	a := authorizer.AttributesRecord{
		User: r.user, Verb: i.Verb, Namespace: i.Namespace, APIGroup: i.APIGroup, APIVersion: i.APIVersion,
		Resource: i.Resource, Subresource: i.Subresource, Name: i.Name, ResourceRequest: i.IsResourceRequest, Path: i.Path,
	}
	if i.FieldSelector != "" {
		s, err := fields.ParseSelector(i.FieldSelector)
		if a.FieldSelectorParsingErr = err; err == nil {
			a.FieldSelectorRequirements = s.Requirements()
		}
	}
	if i.LabelSelector != "" {
		s, err := labels.Parse(i.LabelSelector)
		if a.LabelSelectorParsingErr = err; err == nil {
			a.LabelSelectorRequirements, _ = s.Requirements()
		}
	}
	return a
}

// Allowed implements api.Request.
func (r *call) Allowed(a authorizer.AttributesRecord) error {
	if r.s.Authorizer == nil {
		return nil
	}
	decision, reason, err := r.s.Authorizer.Authorize(r.ctx(), a)
	return r.judged(a, decision, reason, err)
}

// Object implements api.Request.
func (r *call) Object(resource schema.GroupVersionResource, namespace, name string) (runtime.Object, error) {
	row := r.s.Catalogue.Lookup(resource.Group, resource.Version, resource.Resource)
	if row == nil {
		return nil, apierrors.NewNotFound(resource.GroupResource(), name)
	}
	e, err := r.s.Store.Get(r.ctx(), row.Key(namespace, name))
	if err == nil && e == nil {
		err = apierrors.NewNotFound(resource.GroupResource(), name)
	}
	if err != nil {
		return nil, err
	}
	return versioned(row, e.Object())
}
