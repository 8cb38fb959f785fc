package authorization

import (
	v1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/internal/api"
)

// Resources gives the rows of authorization.k8s.io/v1.
func Resources() []*api.Resource {
	return []*api.Resource{
		review("localsubjectaccessreviews", "LocalSubjectAccessReview", "localsubjectaccessreview", true, func() runtime.Object { return &v1.LocalSubjectAccessReview{} }, validateLocalReview),
		review("selfsubjectaccessreviews", "SelfSubjectAccessReview", "selfsubjectaccessreview", false, func() runtime.Object { return &v1.SelfSubjectAccessReview{} }, validateSelfReview),
		review("selfsubjectrulesreviews", "SelfSubjectRulesReview", "selfsubjectrulesreview", false, func() runtime.Object { return &v1.SelfSubjectRulesReview{} }, nil),
		review("subjectaccessreviews", "SubjectAccessReview", "subjectaccessreview", false, func() runtime.Object { return &v1.SubjectAccessReview{} }, validateReview),
	}
}

// review is a row that is only ever created: the answer is in its status.
func review(resource, kind, singular string, namespaced bool, make func() runtime.Object, validate func(runtime.Object) field.ErrorList) *api.Resource {
	r := &api.Resource{
		GroupVersionResource: v1.SchemeGroupVersion.WithResource(resource),
		Kind:                 kind,
		Singular:             singular,
		Namespaced:           namespaced,
		Verbs:                []string{"create"},
		NotStored:            true,
		New:                  make,
	}
	r.Validate = validate
	return r
}
