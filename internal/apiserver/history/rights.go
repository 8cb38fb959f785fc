package history

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"

	"keelson.dev/keelson/internal/apiserver/authz"
)

// MayGet reports whether the user of a request may get an object as it was at a revision
// of the store; 0 is now. A nil authorizer allows everything.
func MayGet(ctx context.Context, a authorizer.Authorizer, resource schema.GroupVersionResource, namespace, name string, revision int64) bool {
	if a == nil {
		return true
	}
	if revision != 0 {
		ctx = authz.Since(ctx, revision)
	}
	d, _, err := a.Authorize(ctx, authorizer.AttributesRecord{User: userOf(ctx), Verb: "get", Namespace: namespace, Name: name,
		APIGroup: resource.Group, APIVersion: resource.Version, Resource: resource.Resource, ResourceRequest: true})
	return err == nil && d == authorizer.DecisionAllow
}

// userOf returns the user of a request.
func userOf(ctx context.Context) user.Info {
	if u, ok := request.UserFrom(ctx); ok {
		return u
	}
	return &user.DefaultInfo{Name: user.Anonymous, Groups: []string{user.AllUnauthenticated}}
}
