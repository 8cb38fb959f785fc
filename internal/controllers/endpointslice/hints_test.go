package endpointslice

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/utils/ptr"
)

func TestHints(t *testing.T) {
	zone := []discoveryv1.ForZone{{Name: "a"}}
	node := []discoveryv1.ForNode{{Name: "n"}}
	full := discoveryv1.Endpoint{NodeName: ptr.To("n"), Zone: ptr.To("a")}
	notReady := full
	notReady.Conditions.Ready = ptr.To(false)
	for _, c := range []struct {
		distribution string
		endpoint     discoveryv1.Endpoint
		want         *discoveryv1.EndpointHints
	}{
		{"", full, nil},
		{v1.ServiceTrafficDistributionPreferClose, full, &discoveryv1.EndpointHints{ForZones: zone}},
		{v1.ServiceTrafficDistributionPreferSameZone, full, &discoveryv1.EndpointHints{ForZones: zone}},
		{v1.ServiceTrafficDistributionPreferSameNode, full, &discoveryv1.EndpointHints{ForZones: zone, ForNodes: node}},
		{v1.ServiceTrafficDistributionPreferSameNode, discoveryv1.Endpoint{NodeName: ptr.To("n")}, &discoveryv1.EndpointHints{ForNodes: node}},
		{v1.ServiceTrafficDistributionPreferSameZone, discoveryv1.Endpoint{NodeName: ptr.To("n")}, nil},
		{v1.ServiceTrafficDistributionPreferSameNode, notReady, nil},
	} {
		s := &v1.Service{}
		if c.distribution != "" {
			s.Spec.TrafficDistribution = &c.distribution
		}
		if got := hints(s, &c.endpoint); !equality.Semantic.DeepEqual(got, c.want) {
			t.Errorf("%s, %+v: %+v, want %+v", c.distribution, c.endpoint, got, c.want)
		}
	}
}
