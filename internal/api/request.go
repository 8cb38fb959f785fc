package api

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// Request is the request that an object is written for, as the strategy of its
// resource sees it.
type Request interface {
	// Context is done when the request is.
	Context() context.Context
	// User returns the user of the request.
	User() user.Info
	// Attributes returns the attributes by which the request has been
	// authorized.
	Attributes() authorizer.AttributesRecord
	// Allowed returns nil if the authorizer allows a, else upstream's Forbidden.
	Allowed(a authorizer.AttributesRecord) error
	// Object returns the stored object of that name, which the caller may not
	// change, or an error: NotFound where there is none.
	Object(resource schema.GroupVersionResource, namespace, name string) (runtime.Object, error)
}
