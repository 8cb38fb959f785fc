package core

import (
	"fmt"
	"net"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
	"k8s.io/utils/ptr"
)

const onlyLoadBalancer = "may only be used when `type` is 'LoadBalancer'"

var (
	serviceTypes    = []v1.ServiceType{v1.ServiceTypeClusterIP, v1.ServiceTypeExternalName, v1.ServiceTypeLoadBalancer, v1.ServiceTypeNodePort}
	protocols       = []v1.Protocol{v1.ProtocolSCTP, v1.ProtocolTCP, v1.ProtocolUDP}
	ipFamilies      = []v1.IPFamily{v1.IPv4Protocol, v1.IPv6Protocol}
	familyPolicies  = []v1.IPFamilyPolicy{v1.IPFamilyPolicyPreferDualStack, v1.IPFamilyPolicyRequireDualStack, v1.IPFamilyPolicySingleStack}
	affinities      = []v1.ServiceAffinity{v1.ServiceAffinityClientIP, v1.ServiceAffinityNone}
	externalTraffic = []v1.ServiceExternalTrafficPolicy{v1.ServiceExternalTrafficPolicyCluster, v1.ServiceExternalTrafficPolicyLocal}
	internalTraffic = []v1.ServiceInternalTrafficPolicy{v1.ServiceInternalTrafficPolicyCluster, v1.ServiceInternalTrafficPolicyLocal}
	ipModes         = []v1.LoadBalancerIPMode{v1.LoadBalancerIPModeProxy, v1.LoadBalancerIPModeVIP}
	distributions   = []string{v1.ServiceTrafficDistributionPreferClose, v1.ServiceTrafficDistributionPreferSameNode, v1.ServiceTrafficDistributionPreferSameZone}
)

func hasClusterIP(s *v1.Service) bool { return s.Spec.Type != v1.ServiceTypeExternalName }

func hasNodePorts(s *v1.Service) bool {
	return s.Spec.Type == v1.ServiceTypeNodePort || s.Spec.Type == v1.ServiceTypeLoadBalancer
}

func headless(s *v1.Service) bool {
	return len(s.Spec.ClusterIPs) == 1 && s.Spec.ClusterIPs[0] == v1.ClusterIPNone
}

// external reports whether the Service takes traffic from outside the cluster.
func external(s *v1.Service) bool {
	return hasNodePorts(s) || s.Spec.Type == v1.ServiceTypeClusterIP && len(s.Spec.ExternalIPs) > 0
}

// healthChecked reports whether the Service has a health check node port, by
// which a load balancer finds the nodes with endpoints.
func healthChecked(s *v1.Service) bool {
	return s.Spec.Type == v1.ServiceTypeLoadBalancer && s.Spec.ExternalTrafficPolicy == v1.ServiceExternalTrafficPolicyLocal
}

// normalizeClusterIPs has clusterIPs follow clusterIP where a client writes
// only the latter.
func normalizeClusterIPs(s, old *v1.Service) {
	same := old != nil && slices.Equal(s.Spec.ClusterIPs, old.Spec.ClusterIPs)
	switch {
	case old == nil && s.Spec.ClusterIP != "" && len(s.Spec.ClusterIPs) == 0,
		same && s.Spec.ClusterIP != "" && s.Spec.ClusterIP != old.Spec.ClusterIP:
		s.Spec.ClusterIPs = []string{s.Spec.ClusterIP}
	case same && s.Spec.ClusterIP == "" && old.Spec.ClusterIP != "":
		s.Spec.ClusterIPs = nil
	}
}

// prepareServiceUpdate clears the fields that the service's new type does not
// have, if the client left them unchanged, and keeps allocated values that the
// client does not mention.
func prepareServiceUpdate(s, old *v1.Service) {
	normalizeClusterIPs(s, old)
	if hasClusterIP(old) && !hasClusterIP(s) {
		if s.Spec.ClusterIP == old.Spec.ClusterIP && slices.Equal(s.Spec.ClusterIPs, old.Spec.ClusterIPs) {
			s.Spec.ClusterIP, s.Spec.ClusterIPs = "", nil
		}
		if slices.Equal(s.Spec.IPFamilies, old.Spec.IPFamilies) {
			s.Spec.IPFamilies = nil
		}
		if ptr.Equal(s.Spec.IPFamilyPolicy, old.Spec.IPFamilyPolicy) {
			s.Spec.IPFamilyPolicy = nil
		}
	}
	if hasNodePorts(old) && !hasNodePorts(s) && sameNodePorts(s, old) {
		for i := range s.Spec.Ports {
			s.Spec.Ports[i].NodePort = 0
		}
	}
	if healthChecked(old) && !healthChecked(s) && s.Spec.HealthCheckNodePort == old.Spec.HealthCheckNodePort {
		s.Spec.HealthCheckNodePort = 0
	}
	if was, is := old.Spec.Type == v1.ServiceTypeLoadBalancer, s.Spec.Type == v1.ServiceTypeLoadBalancer; was && !is {
		if ptr.Equal(s.Spec.AllocateLoadBalancerNodePorts, old.Spec.AllocateLoadBalancerNodePorts) {
			s.Spec.AllocateLoadBalancerNodePorts = nil
		}
		if ptr.Equal(s.Spec.LoadBalancerClass, old.Spec.LoadBalancerClass) {
			s.Spec.LoadBalancerClass = nil
		}
	}
	if external(old) && !external(s) && s.Spec.ExternalTrafficPolicy == old.Spec.ExternalTrafficPolicy {
		s.Spec.ExternalTrafficPolicy = ""
	}
	if s.Spec.Type != v1.ServiceTypeLoadBalancer {
		s.Status.LoadBalancer = v1.LoadBalancerStatus{}
	}

	if hasClusterIP(s) && hasClusterIP(old) {
		if s.Spec.ClusterIP == "" {
			s.Spec.ClusterIP = old.Spec.ClusterIP
		}
		if len(s.Spec.ClusterIPs) == 0 && s.Spec.ClusterIP == old.Spec.ClusterIP {
			s.Spec.ClusterIPs = old.Spec.ClusterIPs
		}
		if len(s.Spec.IPFamilies) == 0 {
			s.Spec.IPFamilies = old.Spec.IPFamilies
		}
		if s.Spec.IPFamilyPolicy == nil {
			s.Spec.IPFamilyPolicy = old.Spec.IPFamilyPolicy
		}
	}
	if hasNodePorts(s) && hasNodePorts(old) {
		for i := range s.Spec.Ports {
			for _, o := range old.Spec.Ports {
				if p := &s.Spec.Ports[i]; p.NodePort == 0 && p.Port == o.Port && p.Protocol == o.Protocol && !usesNodePort(s, o.NodePort, o.Protocol) {
					p.NodePort = o.NodePort
				}
			}
		}
	}
	if healthChecked(s) && healthChecked(old) && s.Spec.HealthCheckNodePort == 0 {
		s.Spec.HealthCheckNodePort = old.Spec.HealthCheckNodePort
	}
}

func usesNodePort(s *v1.Service, n int32, protocol v1.Protocol) bool {
	return slices.ContainsFunc(s.Spec.Ports, func(p v1.ServicePort) bool { return p.NodePort == n && p.Protocol == protocol })
}

// sameNodePorts reports whether every node port of s is one of old's.
func sameNodePorts(s, old *v1.Service) bool {
	for _, p := range s.Spec.Ports {
		if p.NodePort != 0 && !usesNodePort(old, p.NodePort, p.Protocol) {
			return false
		}
	}
	return true
}

func subdomain(name string, at *field.Path) (errs field.ErrorList) {
	for _, msg := range validation.IsDNS1123Subdomain(name) {
		errs = append(errs, field.Invalid(at, name, msg))
	}
	return errs
}

func qualifiedName(name string, at *field.Path) (errs field.ErrorList) {
	for _, msg := range validation.IsQualifiedName(name) {
		errs = append(errs, field.Invalid(at, name, msg))
	}
	return errs
}

// supported wants value to be one of those that there are; empty is missing.
func supported[T ~string](at *field.Path, value T, all []T) field.ErrorList {
	switch {
	case value == "":
		return field.ErrorList{field.Required(at, "")}
	case !slices.Contains(all, value):
		return field.ErrorList{field.NotSupported(at, value, all)}
	}
	return nil
}

func validateService(s *v1.Service) (errs field.ErrorList) {
	at := field.NewPath("spec")
	annotations := field.NewPath("metadata", "annotations")
	if mode, ok := s.Annotations[v1.AnnotationTopologyMode]; ok {
		if hints, ok := s.Annotations[v1.DeprecatedAnnotationTopologyAwareHints]; ok && mode != hints {
			errs = append(errs, field.Invalid(annotations.Key(v1.AnnotationTopologyMode), mode,
				fmt.Sprintf("must match annotations[%s] when both are specified", v1.DeprecatedAnnotationTopologyAwareHints)))
		}
	}
	if len(s.Spec.Ports) == 0 && !headless(s) && hasClusterIP(s) {
		errs = append(errs, field.Required(at.Child("ports"), ""))
	}
	switch s.Spec.Type {
	case v1.ServiceTypeLoadBalancer, v1.ServiceTypeNodePort:
		if headless(s) {
			errs = append(errs, field.Invalid(at.Child("clusterIPs").Index(0), v1.ClusterIPNone, fmt.Sprintf("may not be set to 'None' for %s services", s.Spec.Type)))
		}
	case v1.ServiceTypeExternalName:
		for name, set := range map[string]bool{"clusterIPs": len(s.Spec.ClusterIPs) > 0, "ipFamilies": len(s.Spec.IPFamilies) > 0, "ipFamilyPolicy": s.Spec.IPFamilyPolicy != nil} {
			if set {
				errs = append(errs, field.Forbidden(at.Child(name), "may not be set for ExternalName services"))
			}
		}
		if name := strings.TrimSuffix(s.Spec.ExternalName, "."); name == "" {
			errs = append(errs, field.Required(at.Child("externalName"), ""))
		} else {
			errs = append(errs, subdomain(name, at.Child("externalName"))...)
		}
	}
	errs = append(errs, validateServicePorts(s, at.Child("ports"))...)
	errs = append(errs, metav1validation.ValidateLabels(s.Spec.Selector, at.Child("selector"))...)
	errs = append(errs, supported(at.Child("sessionAffinity"), s.Spec.SessionAffinity, affinities)...)
	errs = append(errs, validateAffinityConfig(s, at.Child("sessionAffinityConfig"))...)
	errs = append(errs, ValidateClusterIPs(s)...)
	for i, ip := range s.Spec.ExternalIPs {
		at := at.Child("externalIPs").Index(i)
		if bad := validation.IsValidIPForLegacyField(at, ip, false, nil); len(bad) > 0 {
			errs = append(errs, bad...)
		} else {
			errs = append(errs, ordinaryIP(ip, at)...)
		}
	}
	errs = append(errs, supported(at.Child("type"), s.Spec.Type, serviceTypes)...)
	errs = append(errs, validateSourceRanges(s, at.Child("LoadBalancerSourceRanges"), annotations.Key(v1.AnnotationLoadBalancerSourceRangesKey))...)
	if is := s.Spec.Type == v1.ServiceTypeLoadBalancer; !is && s.Spec.AllocateLoadBalancerNodePorts != nil {
		errs = append(errs, field.Forbidden(at.Child("allocateLoadBalancerNodePorts"), onlyLoadBalancer))
	}
	if c := s.Spec.LoadBalancerClass; c != nil {
		if s.Spec.Type == v1.ServiceTypeLoadBalancer {
			errs = append(errs, qualifiedName(*c, at.Child("loadBalancerClass"))...)
		} else {
			errs = append(errs, field.Forbidden(at.Child("loadBalancerClass"), onlyLoadBalancer))
		}
	}
	return append(errs, validateTraffic(s, at)...)
}

func validateServicePorts(s *v1.Service, at *field.Path) (errs field.ErrorList) {
	names := map[string]bool{}
	for i := range s.Spec.Ports {
		p, at := &s.Spec.Ports[i], at.Index(i)
		switch {
		case p.Name == "" && len(s.Spec.Ports) > 1:
			errs = append(errs, field.Required(at.Child("name"), ""))
		case p.Name != "":
			for _, msg := range validation.IsDNS1123Label(p.Name) {
				errs = append(errs, field.Invalid(at.Child("name"), p.Name, msg))
			}
			if names[p.Name] {
				errs = append(errs, field.Duplicate(at.Child("name"), p.Name))
			}
			names[p.Name] = true
		}
		for _, msg := range validation.IsValidPortNum(int(p.Port)) {
			errs = append(errs, field.Invalid(at.Child("port"), p.Port, msg))
		}
		errs = append(errs, supported(at.Child("protocol"), p.Protocol, protocols)...)
		if p.TargetPort.Type == intstr.Int {
			for _, msg := range validation.IsValidPortNum(p.TargetPort.IntValue()) {
				errs = append(errs, field.Invalid(at.Child("targetPort"), p.TargetPort.IntValue(), msg))
			}
		} else {
			for _, msg := range validation.IsValidPortName(p.TargetPort.StrVal) {
				errs = append(errs, field.Invalid(at.Child("targetPort"), p.TargetPort.StrVal, msg))
			}
		}
		if p.AppProtocol != nil {
			errs = append(errs, qualifiedName(*p.AppProtocol, at.Child("appProtocol"))...)
		}
	}
	nodePorts, ports := map[v1.ServicePort]bool{}, map[v1.ServicePort]bool{}
	for i, p := range s.Spec.Ports {
		at := at.Index(i)
		if p.NodePort != 0 {
			if s.Spec.Type == v1.ServiceTypeClusterIP {
				errs = append(errs, field.Forbidden(at.Child("nodePort"), "may not be used when `type` is 'ClusterIP'"))
			}
			key := v1.ServicePort{Protocol: p.Protocol, NodePort: p.NodePort}
			if nodePorts[key] {
				errs = append(errs, field.Duplicate(at.Child("nodePort"), p.NodePort))
			}
			nodePorts[key] = true
		}
		key := v1.ServicePort{Protocol: p.Protocol, Port: p.Port}
		if ports[key] {
			errs = append(errs, field.Duplicate(at, key))
		}
		ports[key] = true
	}
	return errs
}

func validateAffinityConfig(s *v1.Service, at *field.Path) field.ErrorList {
	c := s.Spec.SessionAffinityConfig
	switch s.Spec.SessionAffinity {
	case v1.ServiceAffinityNone:
		if c != nil {
			return field.ErrorList{field.Forbidden(at, fmt.Sprintf("must not be set when session affinity is %s", v1.ServiceAffinityNone))}
		}
	case v1.ServiceAffinityClientIP:
		const day = 86400
		switch {
		case c == nil:
			return field.ErrorList{field.Required(at, fmt.Sprintf("when session affinity type is %s", v1.ServiceAffinityClientIP))}
		case c.ClientIP == nil:
			return field.ErrorList{field.Required(at.Child("clientIP"), fmt.Sprintf("when session affinity type is %s", v1.ServiceAffinityClientIP))}
		case c.ClientIP.TimeoutSeconds == nil:
			return field.ErrorList{field.Required(at.Child("clientIP", "timeoutSeconds"), fmt.Sprintf("when session affinity type is %s", v1.ServiceAffinityClientIP))}
		case *c.ClientIP.TimeoutSeconds <= 0 || *c.ClientIP.TimeoutSeconds > day:
			return field.ErrorList{field.Invalid(at.Child("clientIP", "timeoutSeconds"), *c.ClientIP.TimeoutSeconds, fmt.Sprintf("must be greater than 0 and less than %d", day))}
		}
	}
	return nil
}

// ValidateClusterIPs checks the addresses, families and policy of a service by
// themselves and against each other; the allocator relies on it.
func ValidateClusterIPs(s *v1.Service) (errs field.ErrorList) {
	if !hasClusterIP(s) {
		return nil
	}
	at := field.NewPath("spec", "clusterIPs")
	ips, families := s.Spec.ClusterIPs, s.Spec.IPFamilies
	switch {
	case s.Spec.ClusterIP == "" && len(ips) > 0:
		errs = append(errs, field.Invalid(at, ips, "must be empty when `clusterIP` is not specified"))
	case s.Spec.ClusterIP != "" && len(ips) == 0:
		errs = append(errs, field.Required(at, ""))
	case s.Spec.ClusterIP != "" && ips[0] != s.Spec.ClusterIP:
		errs = append(errs, field.Invalid(at, ips, "first value must match `clusterIP`"))
	}
	for i, f := range families {
		at := field.NewPath("spec", "ipFamilies").Index(i)
		if !slices.Contains(ipFamilies, f) {
			errs = append(errs, field.NotSupported(at, f, ipFamilies))
		}
		if slices.Contains(families[:i], f) {
			errs = append(errs, field.Duplicate(at, f))
		}
	}
	if p := s.Spec.IPFamilyPolicy; p != nil && !slices.Contains(familyPolicies, *p) {
		errs = append(errs, field.NotSupported(field.NewPath("spec", "ipFamilyPolicy"), *p, familyPolicies))
	}
	bad := false
	for i, ip := range ips {
		if i == 0 && ip == v1.ClusterIPNone {
			if len(ips) > 1 {
				bad = true
				errs = append(errs, field.Invalid(at, ips, "'None' must be the first and only value"))
			}
			continue
		}
		wrong := validation.IsValidIPForLegacyField(at.Index(i), ip, false, nil)
		bad = bad || len(wrong) > 0
		errs = append(errs, wrong...)
	}
	if len(ips) > 2 {
		errs = append(errs, field.Invalid(at, ips, "may only hold up to 2 values"))
	}
	if bad {
		return errs
	}
	if len(ips) > 1 {
		if dual, err := netutils.IsDualStackIPStrings(ips); err != nil || !dual {
			errs = append(errs, field.Invalid(at, ips, "may specify no more than one IP for each IP family"))
		}
	}
	if headless(s) {
		return errs
	}
	for i := range min(len(ips), len(families)) {
		if is6 := netutils.IsIPv6String(ips[i]); is6 != (families[i] == v1.IPv6Protocol) {
			errs = append(errs, field.Invalid(at.Index(i), ips[i], fmt.Sprintf("expected an %s value as indicated by `ipFamilies[%d]`", families[i], i)))
		}
	}
	return errs
}

// ordinaryIP refuses addresses that cannot be another machine's.
func ordinaryIP(value string, at *field.Path) (errs field.ErrorList) {
	ip := netutils.ParseIPSloppy(value)
	if ip == nil {
		return field.ErrorList{field.Invalid(at, value, "must be a valid IP address")}
	}
	for _, c := range []struct {
		is  func(net.IP) bool
		why string
	}{
		{net.IP.IsUnspecified, fmt.Sprintf("may not be unspecified (%v)", value)},
		{net.IP.IsLoopback, "may not be in the loopback range (127.0.0.0/8, ::1/128)"},
		{net.IP.IsLinkLocalUnicast, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"},
		{net.IP.IsLinkLocalMulticast, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"},
	} {
		if c.is(ip) {
			errs = append(errs, field.Invalid(at, value, c.why))
		}
	}
	return errs
}

func validateSourceRanges(s *v1.Service, at, annotation *field.Path) (errs field.ErrorList) {
	ranges, path := s.Spec.LoadBalancerSourceRanges, at.Index
	if len(ranges) == 0 {
		value, ok := s.Annotations[v1.AnnotationLoadBalancerSourceRangesKey]
		if !ok {
			return nil
		}
		if at = annotation; strings.TrimSpace(value) != "" {
			ranges = strings.Split(value, ",")
		}
		path = func(int) *field.Path { return annotation }
	}
	if s.Spec.Type != v1.ServiceTypeLoadBalancer {
		errs = append(errs, field.Forbidden(at, onlyLoadBalancer))
	}
	for i, r := range ranges {
		errs = append(errs, validation.IsValidCIDRForLegacyField(path(i), strings.TrimSpace(r), false, nil)...)
	}
	return errs
}

func validateTraffic(s *v1.Service, at *field.Path) (errs field.ErrorList) {
	if external(s) {
		errs = append(errs, supported(at.Child("externalTrafficPolicy"), s.Spec.ExternalTrafficPolicy, externalTraffic)...)
	} else if s.Spec.ExternalTrafficPolicy != "" {
		errs = append(errs, field.Invalid(at.Child("externalTrafficPolicy"), s.Spec.ExternalTrafficPolicy, "may only be set for externally-accessible services"))
	}
	switch port, at := s.Spec.HealthCheckNodePort, at.Child("healthCheckNodePort"); {
	case !healthChecked(s) && port != 0:
		errs = append(errs, field.Invalid(at, port, "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"))
	case healthChecked(s) && port == 0:
		errs = append(errs, field.Required(at, ""))
	case healthChecked(s):
		for _, msg := range validation.IsValidPortNum(int(port)) {
			errs = append(errs, field.Invalid(at, port, msg))
		}
	}
	if p := s.Spec.InternalTrafficPolicy; p != nil || hasClusterIP(s) {
		errs = append(errs, supported(at.Child("internalTrafficPolicy"), ptr.Deref(p, ""), internalTraffic)...)
	}
	if d := s.Spec.TrafficDistribution; d != nil && !slices.Contains(distributions, *d) {
		errs = append(errs, field.NotSupported(at.Child("trafficDistribution"), *d, distributions))
	}
	return errs
}

func validateServiceUpdate(s, old *v1.Service) (errs field.ErrorList) {
	at := field.NewPath("spec")
	if hasClusterIP(s) && hasClusterIP(old) {
		if !headless(s) || !headless(old) {
			errs = append(errs, kept(s.Spec.ClusterIPs, old.Spec.ClusterIPs, s, at.Child("clusterIPs"), "clusterIP")...)
		}
		if !headless(s) && !headless(old) {
			errs = append(errs, kept(s.Spec.IPFamilies, old.Spec.IPFamilies, s, at.Child("ipFamilies"), "ipFamily")...)
		}
	}
	if s.Spec.Type == v1.ServiceTypeLoadBalancer && old.Spec.Type == v1.ServiceTypeLoadBalancer && !ptr.Equal(s.Spec.LoadBalancerClass, old.Spec.LoadBalancerClass) {
		errs = append(errs, field.Invalid(at.Child("loadBalancerClass"), s.Spec.LoadBalancerClass, "may not change once set"))
	}
	if healthChecked(s) && healthChecked(old) && s.Spec.HealthCheckNodePort != old.Spec.HealthCheckNodePort {
		errs = append(errs, field.Forbidden(at.Child("healthCheckNodePort"), "field is immutable"))
	}
	return append(errs, validateService(s)...)
}

// kept checks that the first of a Service's addresses or families has not
// changed, nor the second, unless the Service gives it up.
func kept[T comparable](is, was []T, s *v1.Service, at *field.Path, what string) (errs field.ErrorList) {
	changed := func(i int) bool { return i < len(is) && i < len(was) && is[i] != was[i] }
	if len(is) == len(was) {
		for i := range is {
			where := i
			if what == "ipFamily" {
				where = 0 // reported with the error of the families
			}
			if changed(i) {
				errs = append(errs, field.Invalid(at.Index(where), is, "may not change once set"))
			}
		}
		return errs
	}
	if len(is) == 0 {
		return field.ErrorList{field.Invalid(at.Index(0), is, fmt.Sprintf("primary %s can not be unset", what))}
	}
	if changed(0) {
		errs = append(errs, field.Invalid(at.Index(0), is, "may not change once set"))
	}
	if len(is) == 1 && len(was) > 1 && ptr.Deref(s.Spec.IPFamilyPolicy, "") != v1.IPFamilyPolicySingleStack {
		errs = append(errs, field.Invalid(field.NewPath("spec", "ipFamilyPolicy"), s.Spec.IPFamilyPolicy, fmt.Sprintf("must be set to 'SingleStack' when releasing the secondary %s", what)))
	}
	return errs
}

// validateLoadBalancer checks what a load balancer's controller tells.
func validateLoadBalancer(status *v1.LoadBalancerStatus, spec *v1.ServiceSpec) (errs field.ErrorList) {
	at := field.NewPath("status", "loadBalancer", "ingress")
	if spec.Type != v1.ServiceTypeLoadBalancer && len(status.Ingress) > 0 {
		return field.ErrorList{field.Forbidden(at, "may only be used when `spec.type` is 'LoadBalancer'")}
	}
	for i, in := range status.Ingress {
		at := at.Index(i)
		if in.IP != "" {
			errs = append(errs, validation.IsValidIPForLegacyField(at.Child("ip"), in.IP, false, nil)...)
		}
		switch {
		case in.IPMode == nil && in.IP != "":
			errs = append(errs, field.Required(at.Child("ipMode"), "must be specified when `ip` is set"))
		case in.IPMode != nil && in.IP == "":
			errs = append(errs, field.Forbidden(at.Child("ipMode"), "may not be specified when `ip` is not set"))
		case in.IPMode != nil && !slices.Contains(ipModes, *in.IPMode):
			errs = append(errs, field.NotSupported(at.Child("ipMode"), *in.IPMode, ipModes))
		}
		if in.Hostname != "" {
			errs = append(errs, subdomain(in.Hostname, at.Child("hostname"))...)
			if netutils.ParseIPSloppy(in.Hostname) != nil {
				errs = append(errs, field.Invalid(at.Child("hostname"), in.Hostname, "must be a DNS name, not an IP address"))
			}
		}
	}
	return errs
}

func serviceWarnings(s *v1.Service) (warnings []string) {
	if _, ok := s.Annotations[v1.DeprecatedAnnotationTopologyAwareHints]; ok {
		warnings = append(warnings, fmt.Sprintf("annotation %s is deprecated, please use %s instead", v1.DeprecatedAnnotationTopologyAwareHints, v1.AnnotationTopologyMode))
	}
	at := field.NewPath("spec")
	if headless(s) {
		if s.Spec.LoadBalancerIP != "" {
			warnings = append(warnings, "spec.loadBalancerIP is ignored when spec.clusterIP is set to \"None\"")
		}
		if len(s.Spec.ExternalIPs) > 0 {
			warnings = append(warnings, "spec.externalIPs is ignored when spec.clusterIP is set to \"None\"")
		}
		if s.Spec.SessionAffinity != v1.ServiceAffinityNone && s.Spec.SessionAffinity != "" {
			warnings = append(warnings, "spec.SessionAffinity is ignored for headless services")
		}
	} else if hasClusterIP(s) {
		for i, ip := range s.Spec.ClusterIPs {
			warnings = append(warnings, validation.GetWarningsForIP(at.Child("clusterIPs").Index(i), ip)...)
		}
	}
	if len(s.Spec.ExternalIPs) > 0 {
		warnings = append(warnings, "spec.externalIPs is deprecated") // KEP-5707
	}
	for i, ip := range s.Spec.ExternalIPs {
		warnings = append(warnings, validation.GetWarningsForIP(at.Child("externalIPs").Index(i), ip)...)
	}
	if s.Spec.LoadBalancerIP != "" {
		warnings = append(warnings, validation.GetWarningsForIP(at.Child("loadBalancerIP"), s.Spec.LoadBalancerIP)...)
	}
	for i, r := range s.Spec.LoadBalancerSourceRanges {
		warnings = append(warnings, validation.GetWarningsForCIDR(at.Child("loadBalancerSourceRanges").Index(i), r)...)
	}
	if s.Spec.Type == v1.ServiceTypeExternalName && len(s.Spec.ExternalIPs) > 0 {
		warnings = append(warnings, fmt.Sprintf("spec.externalIPs is ignored when spec.type is %q", v1.ServiceTypeExternalName))
	}
	if ptr.Deref(s.Spec.TrafficDistribution, "") == v1.ServiceTrafficDistributionPreferClose {
		warnings = append(warnings, "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"")
	}
	return warnings
}
