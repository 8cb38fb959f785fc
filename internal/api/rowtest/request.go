package rowtest

import (
	"context"
	"errors"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// Request is an api.Request for tests.
type Request struct {
	// As is the user.
	As user.Info
	// Asked are the request's attributes, but for the user.
	Asked authorizer.AttributesRecord
	// May reports whether the authorizer allows something; nil allows nothing.
	May func(a authorizer.AttributesRecord) bool
	// Objects holds the stored objects, by "resource/namespace/name".
	Objects map[string]runtime.Object
}

// Context implements api.Request.
func (Request) Context() context.Context { return context.Background() }

// User implements api.Request.
func (r Request) User() user.Info { return r.As }

// Attributes implements api.Request.
func (r Request) Attributes() authorizer.AttributesRecord {
	a := r.Asked
	a.User = r.As
	return a
}

// Allowed implements api.Request.
func (r Request) Allowed(a authorizer.AttributesRecord) error {
	if r.May != nil && r.May(a) {
		return nil
	}
	return errors.New("no")
}

// Object implements api.Request.
func (r Request) Object(resource schema.GroupVersionResource, namespace, name string) (runtime.Object, error) {
	if obj := r.Objects[resource.Resource+"/"+namespace+"/"+name]; obj != nil {
		return obj, nil
	}
	return nil, apierrors.NewNotFound(resource.GroupResource(), name)
}
