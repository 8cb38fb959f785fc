package discovery

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	v1 "k8s.io/api/discovery/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	maxTopologyLabels = 16
	maxPorts          = 20000
	maxEndpoints      = 1000
	maxZoneHints      = 8
	maxNodeHints      = 8
)

func validate(s *v1.EndpointSlice) field.ErrorList {
	errs := validateEndpoints(s.Endpoints, s.AddressType, field.NewPath("endpoints"))
	return append(errs, validatePorts(s.Ports, field.NewPath("ports"))...)
}

func validateEndpoints(endpoints []v1.Endpoint, addrType v1.AddressType, fldPath *field.Path) field.ErrorList {
	if len(endpoints) > maxEndpoints {
		return field.ErrorList{field.TooMany(fldPath, len(endpoints), maxEndpoints)}
	}
	var errs field.ErrorList
	for i := range endpoints {
		e, at := &endpoints[i], fldPath.Index(i)
		addrs := at.Child("addresses")
		for j, a := range e.Addresses {
			switch addrType {
			case v1.AddressTypeIPv4, v1.AddressTypeIPv6:
				errs = append(errs, validateIP(a, addrType, addrs.Index(j))...)
			case v1.AddressTypeFQDN:
				errs = append(errs, validation.IsFullyQualifiedDomainName(addrs.Index(j), a)...)
			}
		}
		if e.NodeName != nil {
			for _, msg := range apivalidation.NameIsDNSSubdomain(*e.NodeName, false) {
				errs = append(errs, field.Invalid(at.Child("nodeName"), *e.NodeName, msg))
			}
		}
		topology := at.Child("deprecatedTopology")
		if len(e.DeprecatedTopology) > maxTopologyLabels {
			errs = append(errs, field.TooMany(topology, len(e.DeprecatedTopology), maxTopologyLabels))
		}
		errs = append(errs, metav1validation.ValidateLabels(e.DeprecatedTopology, topology)...)
		if _, ok := e.DeprecatedTopology[corev1.LabelTopologyZone]; ok {
			errs = append(errs, field.InternalError(topology.Key(corev1.LabelTopologyZone), errors.New("reserved key was not removed in conversion")))
		}
		if e.Hostname != nil {
			for _, msg := range validation.IsDNS1123Label(*e.Hostname) {
				errs = append(errs, field.Invalid(at.Child("hostname"), *e.Hostname, msg))
			}
		}
		if e.Hints != nil {
			errs = append(errs, validateHints(e.Hints, at.Child("hints"))...)
		}
	}
	return errs
}

func validateIP(a string, addrType v1.AddressType, fldPath *field.Path) field.ErrorList {
	errs := validation.IsValidIP(fldPath, a)
	if len(errs) > 0 {
		return errs
	}
	ip, err := netip.ParseAddr(a)
	if err != nil {
		// A form with leading zeros, which older clients may still send.
		return nil
	}
	if addrType == v1.AddressTypeIPv4 && !ip.Is4() {
		return field.ErrorList{field.Invalid(fldPath, a, "must be a valid IPv4 address")}
	}
	if addrType == v1.AddressTypeIPv6 && (!ip.Is6() || ip.Is4In6()) {
		return field.ErrorList{field.Invalid(fldPath, a, "must be a valid IPv6 address")}
	}
	switch {
	case ip.IsUnspecified():
		errs = append(errs, field.Invalid(fldPath, a, fmt.Sprintf("may not be unspecified (%s)", a)))
	case ip.IsLoopback():
		errs = append(errs, field.Invalid(fldPath, a, "may not be in the loopback range (127.0.0.0/8, ::1/128)"))
	case ip.IsLinkLocalUnicast():
		errs = append(errs, field.Invalid(fldPath, a, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"))
	case ip.IsLinkLocalMulticast():
		errs = append(errs, field.Invalid(fldPath, a, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"))
	}
	return errs
}

func validateHints(h *v1.EndpointHints, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	zones := fldPath.Child("forZones")
	if n := len(h.ForZones); n > maxZoneHints {
		return append(errs, field.TooMany(zones, n, maxZoneHints))
	}
	seen := map[string]bool{}
	for i, z := range h.ForZones {
		at := zones.Index(i).Child("name")
		if seen[z.Name] {
			errs = append(errs, field.Duplicate(at, z.Name))
		}
		seen[z.Name] = true
		for _, msg := range validation.IsValidLabelValue(z.Name) {
			errs = append(errs, field.Invalid(at, z.Name, msg))
		}
	}
	nodes := fldPath.Child("forNodes")
	if n := len(h.ForNodes); n > maxNodeHints {
		return append(errs, field.TooMany(nodes, n, maxNodeHints))
	}
	seen = map[string]bool{}
	for i, node := range h.ForNodes {
		at := nodes.Index(i).Child("name")
		if seen[node.Name] {
			errs = append(errs, field.Duplicate(at, node.Name))
		}
		seen[node.Name] = true
		for _, msg := range apivalidation.NameIsDNSSubdomain(node.Name, false) {
			errs = append(errs, field.Invalid(at, node.Name, msg))
		}
	}
	return errs
}

func validatePorts(ports []v1.EndpointPort, fldPath *field.Path) field.ErrorList {
	if len(ports) > maxPorts {
		return field.ErrorList{field.TooMany(fldPath, len(ports), maxPorts)}
	}
	var errs field.ErrorList
	protocols := []corev1.Protocol{corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP}
	names := map[string]bool{}
	for i := range ports {
		p, at := &ports[i], fldPath.Index(i)
		if p.Name != nil {
			if *p.Name != "" {
				for _, msg := range validation.IsDNS1123Label(*p.Name) {
					errs = append(errs, field.Invalid(at.Child("name"), *p.Name, msg))
				}
			}
			if names[*p.Name] {
				errs = append(errs, field.Duplicate(at.Child("name"), *p.Name))
			}
			names[*p.Name] = true
		}
		if p.Protocol == nil {
			errs = append(errs, field.Required(at.Child("protocol"), ""))
		} else if !slices.Contains(protocols, *p.Protocol) {
			errs = append(errs, field.NotSupported(at.Child("protocol"), *p.Protocol, protocols))
		}
		if p.AppProtocol != nil {
			for _, msg := range validation.IsQualifiedName(*p.AppProtocol) {
				errs = append(errs, field.Invalid(at.Child("appProtocol"), *p.AppProtocol, msg))
			}
		}
	}
	return errs
}
