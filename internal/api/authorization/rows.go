package authorization

import (
	v1 "k8s.io/api/authorization/v1"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/row"
)

// Resources returns the rows of authorization.k8s.io/v1.
func Resources() []*api.Resource {
	return []*api.Resource{
		row.NewComputed(v1.SchemeGroupVersion, api.Resource{Namespaced: true}, row.Kind[*v1.LocalSubjectAccessReview]{Validate: validateLocalReview}),
		row.NewComputed(v1.SchemeGroupVersion, api.Resource{}, row.Kind[*v1.SelfSubjectAccessReview]{Validate: validateSelfReview}),
		row.NewComputed(v1.SchemeGroupVersion, api.Resource{}, row.Kind[*v1.SelfSubjectRulesReview]{}),
		row.NewComputed(v1.SchemeGroupVersion, api.Resource{}, row.Kind[*v1.SubjectAccessReview]{Validate: validateReview}),
	}
}
