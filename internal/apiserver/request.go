package apiserver

import (
	"context"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/store"
)

// incoming is a request: its user, its attributes and its body. It records audit
// annotations and warnings, but writes no answer.
type incoming struct {
	s        *Server
	req      *http.Request
	info     *request.RequestInfo
	user     user.Info
	row      *api.Resource // nil until it is found, and for paths that are no resource
	warnings *warnings
	at       int64 // the revision of the past that is read; 0 is the present
	view     *View // the form in which objects are read; nil is the whole
}

var _ api.Request = (*incoming)(nil)

// Context implements api.Request.
func (r *incoming) Context() context.Context { return r.ctx() }

// User implements api.Request.
func (r *incoming) User() user.Info { return r.user }

// Attributes implements api.Request.
func (r *incoming) Attributes() authorizer.AttributesRecord {
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
func (r *incoming) Allowed(a authorizer.AttributesRecord) error {
	if r.s.Authorizer == nil {
		return nil
	}
	decision, reason, err := r.s.Authorizer.Authorize(r.ctx(), a)
	return r.judged(a, decision, reason, err)
}

// Object implements api.Request.
func (r *incoming) Object(resource schema.GroupVersionResource, namespace, name string) (runtime.Object, error) {
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

func (r *incoming) ctx() context.Context { return r.req.Context() }

// judged returns the answer to a decision about a: nil, or upstream's Forbidden.
func (r *incoming) judged(a authorizer.AttributesRecord, decision authorizer.Decision, reason string, err error) error {
	if decision == authorizer.DecisionAllow {
		return nil
	}
	if err != nil {
		klog.FromContext(r.ctx()).V(3).Info("Authorization failed", "err", err)
	}
	return responsewriters.ForbiddenStatusError(a, reason)
}

func (r *incoming) methodNotSupported() error {
	return apierrors.NewMethodNotSupported(r.row.GroupVersionResource.GroupResource(), r.info.Verb)
}

func (r *incoming) groupResource() schema.GroupResource {
	return r.row.GroupVersionResource.GroupResource()
}

// place sets the object's namespace to the request's, and refuses another one.
func (r *incoming) place(acc metav1.Object) error {
	if !r.row.Namespaced {
		acc.SetNamespace("")
		return nil
	}
	switch acc.GetNamespace() {
	case "":
		acc.SetNamespace(r.info.Namespace)
	case r.info.Namespace:
	default:
		return badRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	return nil
}

// checkName sets acc's name to the request's if it is empty, and refuses another
// one.
func (r *incoming) checkName(acc metav1.Object) error {
	if acc.GetName() == "" {
		acc.SetName(r.info.Name)
	}
	if acc.GetName() != r.info.Name {
		return badRequest("the name of the object (%s) does not match the name on the URL (%s)", acc.GetName(), r.info.Name)
	}
	return nil
}

// entry returns the store's entry of the object that the request names.
func (r *incoming) entry() (*store.Entry, error) {
	key := r.row.Key(r.info.Namespace, r.info.Name)
	e, err := r.entryAt(key)
	if err != nil {
		return nil, r.storeError(err, r.info.Name)
	}
	if e == nil {
		return nil, r.absent(key, r.info.Name)
	}
	return e, nil
}
