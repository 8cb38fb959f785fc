package authentication

import (
	v1 "k8s.io/api/authentication/v1"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/row"
)

// Resources returns the rows of authentication.k8s.io/v1.
func Resources() []*api.Resource {
	return []*api.Resource{
		row.NewComputed(v1.SchemeGroupVersion, api.Resource{}, row.Kind[*v1.TokenReview]{}),
		row.NewComputed(v1.SchemeGroupVersion, api.Resource{}, row.Kind[*v1.SelfSubjectReview]{}),
	}
}
