package core

import (
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"keelson.dev/keelson/internal/api"
)

// Resources returns the rows of v1.
func Resources() []*api.Resource {
	return []*api.Resource{
		pods(), podTemplates(), replicationControllers(), services(), endpoints(), nodes(), namespaces(), events(),
		configMaps(), secrets(), serviceAccounts(), limitRanges(), resourceQuotas(), persistentVolumes(),
		persistentVolumeClaims(), bindings(), componentStatuses(),
	}
}

var proxyVerbs = []string{"create", "delete", "get", "patch", "update"}

func proxyOf(kind string) api.Subresource {
	return api.Subresource{Name: "proxy", Kind: v1.SchemeGroupVersion.WithKind(kind), Verbs: proxyVerbs,
		Methods: []string{"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"}, Paths: true}
}

func streamOf(name, kind string) api.Subresource {
	return api.Subresource{Name: name, Kind: v1.SchemeGroupVersion.WithKind(kind), Verbs: []string{"create", "get"}, Methods: []string{"GET", "POST"}}
}

func created(name string, gvk schema.GroupVersionKind) api.Subresource {
	return api.Subresource{Name: name, Kind: gvk, Verbs: []string{"create"}}
}
