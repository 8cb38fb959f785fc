package apiserver

import (
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
)

// endpoint is a resource, or a subresource of one.
type endpoint struct{ group, resource, subresource string }

// handlers is the table of what is served for one resource only: the subresources
// that are no view of the object, and the resources that are not stored. The rest of
// the requests' path knows resources by their rows.
var handlers map[endpoint]func(*call) error

func init() { // what it lists looks into it
	handlers = map[endpoint]func(*call) error{
		{"", "pods", "binding"}:                                      (*call).bindPod,
		{"", "pods", "eviction"}:                                     (*call).evict,
		{"", "pods", "log"}:                                          (*call).podLog,
		{"", "pods", "exec"}:                                         (*call).podStream,
		{"", "pods", "attach"}:                                       (*call).podStream,
		{"", "pods", "portforward"}:                                  (*call).podPortForward,
		{"", "pods", "proxy"}:                                        (*call).podProxy,
		{"", "services", "proxy"}:                                    (*call).serviceProxy,
		{"", "nodes", "proxy"}:                                       (*call).nodeProxy,
		{"", "serviceaccounts", "token"}:                             (*call).token,
		{"", "bindings", ""}:                                         (*call).bindPod,
		{authenticationv1.GroupName, "tokenreviews", ""}:             review((*call).reviewToken, tokenGiven),
		{authenticationv1.GroupName, "selfsubjectreviews", ""}:       review((*call).reviewSelf, nil),
		{authorizationv1.GroupName, "subjectaccessreviews", ""}:      review((*call).reviewSubjectAccess, nil),
		{authorizationv1.GroupName, "localsubjectaccessreviews", ""}: review((*call).reviewLocalAccess, nil),
		{authorizationv1.GroupName, "selfsubjectaccessreviews", ""}:  review((*call).reviewSelfAccess, nil),
		{authorizationv1.GroupName, "selfsubjectrulesreviews", ""}:   review((*call).reviewRules, namespaceGiven),
	}
}
