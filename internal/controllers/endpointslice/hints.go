package endpointslice

import (
	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/utils/ptr"
)

// hints gives the clients that a ready endpoint is for, by the Service's
// trafficDistribution: those in its zone, or those on its node and else in its
// zone. Service proxies heed the hints if all ready endpoints have some.
func hints(svc *v1.Service, e *discoveryv1.Endpoint) *discoveryv1.EndpointHints {
	if !ptr.Deref(e.Conditions.Ready, true) {
		return nil
	}
	var h discoveryv1.EndpointHints
	switch ptr.Deref(svc.Spec.TrafficDistribution, "") {
	case v1.ServiceTrafficDistributionPreferSameNode:
		if e.NodeName != nil {
			h.ForNodes = []discoveryv1.ForNode{{Name: *e.NodeName}}
		}
	case v1.ServiceTrafficDistributionPreferSameZone, v1.ServiceTrafficDistributionPreferClose:
	default:
		return nil
	}
	if e.Zone != nil {
		h.ForZones = []discoveryv1.ForZone{{Name: *e.Zone}}
	}
	if h.ForNodes == nil && h.ForZones == nil {
		return nil
	}
	return &h
}
