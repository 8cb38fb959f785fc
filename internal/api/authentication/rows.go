package authentication

import (
	v1 "k8s.io/api/authentication/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"keelson.dev/keelson/internal/api"
)

// Resources gives the rows of authentication.k8s.io/v1.
func Resources() []*api.Resource {
	return []*api.Resource{
		review("tokenreviews", "TokenReview", "tokenreview", func() runtime.Object { return &v1.TokenReview{} }),
		review("selfsubjectreviews", "SelfSubjectReview", "selfsubjectreview", func() runtime.Object { return &v1.SelfSubjectReview{} }),
	}
}

// review is a row that is only ever created: the answer is in its status.
func review(resource, kind, singular string, make func() runtime.Object) *api.Resource {
	return &api.Resource{
		GroupVersionResource: v1.SchemeGroupVersion.WithResource(resource),
		Kind:                 kind,
		Singular:             singular,
		Verbs:                []string{"create"},
		NotStored:            true,
		New:                  make,
	}
}
