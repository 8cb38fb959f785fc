package apiserver

import (
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
)

// endpoint is a resource, or a subresource of one.
type endpoint struct{ group, resource, subresource string }

// handlers is the table of handlers for single resources: the subresources that are
// no view of the object, and the resources that are not stored. All other code of
// this package knows resources by their rows.
var handlers map[endpoint]func(*call) error

func init() { // in init, since the handlers refer to the table
	handlers = map[endpoint]func(*call) error{
		{"", "pods", "binding"}:                                      bindPod,
		{"", "pods", "eviction"}:                                     func(r *call) error { return (&evictor{*newDeleter(r)}).evict() },
		{"", "pods", "log"}:                                          passed(proxied.podLog),
		{"", "pods", "exec"}:                                         passed(proxied.podStream),
		{"", "pods", "attach"}:                                       passed(proxied.podStream),
		{"", "pods", "portforward"}:                                  passed(proxied.podPortForward),
		{"", "pods", "proxy"}:                                        passed(proxied.podProxy),
		{"", "services", "proxy"}:                                    passed(proxied.serviceProxy),
		{"", "nodes", "proxy"}:                                       passed(proxied.nodeProxy),
		{"", "serviceaccounts", "token"}:                             issueToken,
		{"", "bindings", ""}:                                         bindPod,
		{authenticationv1.GroupName, "tokenreviews", ""}:             reviewHandler(reviewToken, tokenGiven),
		{authenticationv1.GroupName, "selfsubjectreviews", ""}:       reviewHandler(reviewSelf, nil),
		{authorizationv1.GroupName, "subjectaccessreviews", ""}:      reviewHandler(reviewSubjectAccess, nil),
		{authorizationv1.GroupName, "localsubjectaccessreviews", ""}: reviewHandler(reviewLocalAccess, nil),
		{authorizationv1.GroupName, "selfsubjectaccessreviews", ""}:  reviewHandler(reviewSelfAccess, nil),
		{authorizationv1.GroupName, "selfsubjectrulesreviews", ""}:   reviewHandler(reviewRules, namespaceGiven),
	}
}

// passed returns a handler that calls a method of proxied.
func passed(f func(proxied) error) func(*call) error {
	return func(r *call) error { return f(proxied{r}) }
}
