package aggregation

import (
	"testing"

	apidiscovery "k8s.io/api/apidiscovery/v2"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestClassicDiscoveryInTheAggregatedForm(t *testing.T) {
	gv := schema.GroupVersion{Group: "fish.example.com", Version: "v1"}
	got := aggregated(gv, []metav1.APIResource{
		{Name: "ponds", SingularName: "pond", Kind: "Pond", Verbs: metav1.Verbs{"list"}},
		{Name: "trout/scale", Namespaced: true, Group: "autoscaling", Version: "v1", Kind: "Scale", Verbs: metav1.Verbs{"get"}},
		{Name: "trout", SingularName: "trout", Namespaced: true, Kind: "Trout", ShortNames: []string{"tr"}, Verbs: metav1.Verbs{"get"}},
	})
	want := apidiscovery.APIVersionDiscovery{Version: "v1", Freshness: "Current", Resources: []apidiscovery.APIResourceDiscovery{
		{Resource: "ponds", SingularResource: "pond", Scope: "Cluster", Verbs: []string{"list"}, ResponseKind: &metav1.GroupVersionKind{Group: gv.Group, Version: "v1", Kind: "Pond"}},
		{Resource: "trout", SingularResource: "trout", Scope: "Namespaced", ShortNames: []string{"tr"}, Verbs: []string{"get"},
			ResponseKind: &metav1.GroupVersionKind{Group: gv.Group, Version: "v1", Kind: "Trout"},
			Subresources: []apidiscovery.APISubresourceDiscovery{{Subresource: "scale", Verbs: []string{"get"}, ResponseKind: &metav1.GroupVersionKind{Group: "autoscaling", Version: "v1", Kind: "Scale"}}}},
	}}
	if !equality.Semantic.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}
