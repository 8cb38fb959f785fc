package discovery

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	v1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// dropTopology drops the labels that endpoints had of their nodes before v1,
// unless the endpoints stay as they were. The name of a node that was known
// only by them is kept.
func dropTopology(s, old *v1.EndpointSlice) {
	if old != nil && equality.Semantic.DeepEqual(s.Endpoints, old.Endpoints) {
		return
	}
	known := func(node string) bool {
		return old != nil && node != "" && slices.ContainsFunc(old.Endpoints, func(e v1.Endpoint) bool { return e.DeprecatedTopology[corev1.LabelHostname] == node })
	}
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		if len(e.DeprecatedTopology) == 0 {
			continue
		}
		if node := e.DeprecatedTopology[corev1.LabelHostname]; e.NodeName == nil && known(node) && len(apivalidation.NameIsDNSSubdomain(node, false)) == 0 {
			e.NodeName = &node
		}
		e.DeprecatedTopology = nil
	}
}

func addressTypeWarnings(t v1.AddressType) []string {
	if t == v1.AddressTypeFQDN {
		return []string{field.NewPath("spec", "addressType").String() + ": FQDN endpoints are deprecated"}
	}
	return nil
}

// addressWarnings warns of addresses in forms that not all parsers read alike;
// the controllers of this cluster write none of these.
func addressWarnings(s *v1.EndpointSlice) (out []string) {
	switch by := s.Labels[v1.LabelManagedBy]; {
	case s.AddressType == v1.AddressTypeFQDN, by == "endpointslice-controller.k8s.io", by == "endpointslicemirroring-controller.k8s.io":
		return nil
	}
	for i := range s.Endpoints {
		for j, a := range s.Endpoints[i].Addresses {
			out = append(out, validation.GetWarningsForIP(field.NewPath("endpoints").Index(i).Child("addresses").Index(j), a)...)
		}
	}
	return out
}
