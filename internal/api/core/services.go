package core

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/row"
)

func services() *api.Resource {
	r := named("services", "Service", "service", "services/specs", true, []string{"svc"},
		func() runtime.Object { return &v1.Service{} }, func() runtime.Object { return &v1.ServiceList{} })
	r.Categories = []string{"all"}
	r.ValidateName = apivalidation.NameIsDNS1035Label
	r.DeleteReturnsObject = true
	r.FieldLabels = []string{"spec.clusterIP", "spec.type"}
	r.Subresources = []api.Subresource{proxyOf("ServiceProxyOptions")}
	doc := v1.ServiceSpec{}.SwaggerDoc()
	r.Columns = []metav1.TableColumnDefinition{row.Name(), row.String("Type", doc["type"]), row.String("Cluster-IP", doc["clusterIP"]),
		row.String("External-IP", doc["externalIPs"]), row.String("Port(s)", doc["ports"]), row.Age(), row.Wide("Selector", doc["selector"])}
	return row.New(r, row.Kind[*v1.Service]{
		Spec:    func(s *v1.Service) any { return &s.Spec },
		Status:  func(s *v1.Service) any { return &s.Status },
		Default: setDefaultsService,
		PrepareForUpdate: func(s, old *v1.Service) {
			// An update that says nothing of the addresses keeps them.
			if s.Spec.Type == v1.ServiceTypeExternalName || old.Spec.Type == v1.ServiceTypeExternalName {
				return
			}
			if s.Spec.ClusterIP == "" && len(s.Spec.ClusterIPs) == 0 {
				s.Spec.ClusterIP, s.Spec.ClusterIPs = old.Spec.ClusterIP, old.Spec.ClusterIPs
			}
			if s.Spec.ClusterIP != "" && len(s.Spec.ClusterIPs) == 0 && s.Spec.ClusterIP == old.Spec.ClusterIP {
				s.Spec.ClusterIPs = old.Spec.ClusterIPs
			}
			if len(s.Spec.IPFamilies) == 0 {
				s.Spec.IPFamilies = old.Spec.IPFamilies
			}
			if s.Spec.IPFamilyPolicy == nil {
				s.Spec.IPFamilyPolicy = old.Spec.IPFamilyPolicy
			}
			if s.Spec.HealthCheckNodePort == 0 {
				s.Spec.HealthCheckNodePort = old.Spec.HealthCheckNodePort
			}
			if s.Spec.Type == v1.ServiceTypeClusterIP {
				return
			}
			for i := range s.Spec.Ports {
				for _, op := range old.Spec.Ports {
					if p := &s.Spec.Ports[i]; p.NodePort == 0 && p.Port == op.Port && p.Protocol == op.Protocol {
						p.NodePort = op.NodePort
					}
				}
			}
		},
		Validate: validateService,
		ValidateUpdate: func(s, old *v1.Service) field.ErrorList {
			var errs field.ErrorList
			if old.Spec.Type != v1.ServiceTypeExternalName && s.Spec.Type != v1.ServiceTypeExternalName && old.Spec.ClusterIP != "" && s.Spec.ClusterIP != old.Spec.ClusterIP {
				errs = append(errs, field.Invalid(field.NewPath("spec", "clusterIPs").Index(0), s.Spec.ClusterIPs, "may not change once set"))
			}
			return append(errs, validateService(s)...)
		},
		Fields: func(s *v1.Service) fields.Set {
			return fields.Set{"spec.clusterIP": s.Spec.ClusterIP, "spec.type": string(s.Spec.Type)}
		},
		Cells: serviceCells,
	})
}

func setDefaultsService(s *v1.Service) {
	if s.Spec.SessionAffinity == "" {
		s.Spec.SessionAffinity = v1.ServiceAffinityNone
	}
	switch s.Spec.SessionAffinity {
	case v1.ServiceAffinityNone:
		s.Spec.SessionAffinityConfig = nil
	case v1.ServiceAffinityClientIP:
		if c := s.Spec.SessionAffinityConfig; c == nil || c.ClientIP == nil || c.ClientIP.TimeoutSeconds == nil {
			s.Spec.SessionAffinityConfig = &v1.SessionAffinityConfig{ClientIP: &v1.ClientIPConfig{TimeoutSeconds: ptr.To(v1.DefaultClientIPServiceAffinitySeconds)}}
		}
	}
	if s.Spec.Type == "" {
		s.Spec.Type = v1.ServiceTypeClusterIP
	}
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		if p.Protocol == "" {
			p.Protocol = v1.ProtocolTCP
		}
		if p.TargetPort == intstr.FromInt32(0) || p.TargetPort == intstr.FromString("") {
			p.TargetPort = intstr.FromInt32(p.Port)
		}
	}
	external := s.Spec.Type == v1.ServiceTypeNodePort || s.Spec.Type == v1.ServiceTypeLoadBalancer
	if (external || s.Spec.Type == v1.ServiceTypeClusterIP && len(s.Spec.ExternalIPs) > 0) && s.Spec.ExternalTrafficPolicy == "" {
		s.Spec.ExternalTrafficPolicy = v1.ServiceExternalTrafficPolicyCluster
	}
	if s.Spec.InternalTrafficPolicy == nil && s.Spec.Type != v1.ServiceTypeExternalName {
		s.Spec.InternalTrafficPolicy = ptr.To(v1.ServiceInternalTrafficPolicyCluster)
	}
	if s.Spec.Type == v1.ServiceTypeLoadBalancer && s.Spec.AllocateLoadBalancerNodePorts == nil {
		s.Spec.AllocateLoadBalancerNodePorts = ptr.To(true)
	}
	if s.Spec.Type == v1.ServiceTypeLoadBalancer {
		for i := range s.Status.LoadBalancer.Ingress {
			if in := &s.Status.LoadBalancer.Ingress[i]; in.IP != "" && in.IPMode == nil {
				in.IPMode = ptr.To(v1.LoadBalancerIPModeVIP)
			}
		}
	}
}

var serviceTypes = []v1.ServiceType{v1.ServiceTypeClusterIP, v1.ServiceTypeExternalName, v1.ServiceTypeLoadBalancer, v1.ServiceTypeNodePort}
var protocols = []v1.Protocol{v1.ProtocolSCTP, v1.ProtocolTCP, v1.ProtocolUDP}

func validateService(s *v1.Service) (errs field.ErrorList) {
	spec := field.NewPath("spec")
	headless := s.Spec.ClusterIP == v1.ClusterIPNone
	if len(s.Spec.Ports) == 0 && !headless && s.Spec.Type != v1.ServiceTypeExternalName {
		errs = append(errs, field.Required(spec.Child("ports"), ""))
	}
	switch s.Spec.Type {
	case v1.ServiceTypeLoadBalancer, v1.ServiceTypeNodePort:
		if headless {
			errs = append(errs, field.Invalid(spec.Child("clusterIPs").Index(0), v1.ClusterIPNone, fmt.Sprintf("may not be set to 'None' for %s services", s.Spec.Type)))
		}
	case v1.ServiceTypeExternalName:
		if s.Spec.ClusterIP != "" {
			errs = append(errs, field.Forbidden(spec.Child("clusterIPs"), "may not be set for ExternalName services"))
		}
		if s.Spec.ExternalName == "" {
			errs = append(errs, field.Required(spec.Child("externalName"), ""))
		} else {
			for _, msg := range validation.IsDNS1123Subdomain(strings.TrimSuffix(s.Spec.ExternalName, ".")) {
				errs = append(errs, field.Invalid(spec.Child("externalName"), s.Spec.ExternalName, msg))
			}
		}
	case v1.ServiceTypeClusterIP:
	default:
		errs = append(errs, field.NotSupported(spec.Child("type"), s.Spec.Type, serviceTypes))
	}
	names := map[string]bool{}
	numbers := map[string]bool{}
	for i := range s.Spec.Ports {
		p, at := &s.Spec.Ports[i], spec.Child("ports").Index(i)
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
		if p.Protocol == "" {
			errs = append(errs, field.Required(at.Child("protocol"), ""))
		} else if !slices.Contains(protocols, p.Protocol) {
			errs = append(errs, field.NotSupported(at.Child("protocol"), p.Protocol, protocols))
		}
		if p.TargetPort.Type == intstr.Int {
			for _, msg := range validation.IsValidPortNum(p.TargetPort.IntValue()) {
				errs = append(errs, field.Invalid(at.Child("targetPort"), p.TargetPort, msg))
			}
		} else {
			for _, msg := range validation.IsValidPortName(p.TargetPort.StrVal) {
				errs = append(errs, field.Invalid(at.Child("targetPort"), p.TargetPort, msg))
			}
		}
		if s.Spec.Type == v1.ServiceTypeClusterIP && p.NodePort != 0 {
			errs = append(errs, field.Forbidden(at.Child("nodePort"), "may not be used when `type` is 'ClusterIP'"))
		}
		k := string(p.Protocol) + strconv.Itoa(int(p.Port))
		if numbers[k] {
			errs = append(errs, field.Duplicate(at, v1.ServicePort{Port: p.Port, Protocol: p.Protocol}))
		}
		numbers[k] = true
	}
	errs = append(errs, metav1validation.ValidateLabels(s.Spec.Selector, spec.Child("selector"))...)
	switch s.Spec.SessionAffinity {
	case v1.ServiceAffinityNone, v1.ServiceAffinityClientIP:
	case "":
		errs = append(errs, field.Required(spec.Child("sessionAffinity"), ""))
	default:
		errs = append(errs, field.NotSupported(spec.Child("sessionAffinity"), s.Spec.SessionAffinity, []v1.ServiceAffinity{v1.ServiceAffinityClientIP, v1.ServiceAffinityNone}))
	}
	if c := s.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
		if t := *c.ClientIP.TimeoutSeconds; t <= 0 || t > 86400 {
			errs = append(errs, field.Invalid(spec.Child("sessionAffinityConfig", "clientIP", "timeoutSeconds"), t, "must be greater than 0 and less than 86400"))
		}
	}
	for i, ip := range s.Spec.ExternalIPs {
		if _, err := netip.ParseAddr(ip); err != nil {
			errs = append(errs, field.Invalid(spec.Child("externalIPs").Index(i), ip, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"))
		}
	}
	if p := s.Spec.ExternalTrafficPolicy; p != "" && p != v1.ServiceExternalTrafficPolicyCluster && p != v1.ServiceExternalTrafficPolicyLocal {
		errs = append(errs, field.NotSupported(spec.Child("externalTrafficPolicy"), p, []v1.ServiceExternalTrafficPolicy{v1.ServiceExternalTrafficPolicyCluster, v1.ServiceExternalTrafficPolicyLocal}))
	}
	return errs
}

func serviceCells(s *v1.Service, now time.Time) []any {
	internal := s.Spec.ClusterIP
	if len(s.Spec.ClusterIPs) > 0 {
		internal = s.Spec.ClusterIPs[0]
	}
	if internal == "" {
		internal = "<none>"
	}
	external := "<none>"
	switch s.Spec.Type {
	case v1.ServiceTypeClusterIP, v1.ServiceTypeNodePort:
		if len(s.Spec.ExternalIPs) > 0 {
			external = strings.Join(s.Spec.ExternalIPs, ",")
		}
	case v1.ServiceTypeExternalName:
		external = s.Spec.ExternalName
	case v1.ServiceTypeLoadBalancer:
		var ips []string
		for _, in := range s.Status.LoadBalancer.Ingress {
			if in.IP != "" {
				ips = append(ips, in.IP)
			} else if in.Hostname != "" {
				ips = append(ips, in.Hostname)
			}
		}
		ips = append(ips, s.Spec.ExternalIPs...)
		if external = "<pending>"; len(ips) > 0 {
			external = strings.Join(ips, ",")
		}
	}
	ports := make([]string, len(s.Spec.Ports))
	for i, p := range s.Spec.Ports {
		ports[i] = fmt.Sprintf("%d/%s", p.Port, p.Protocol)
		if p.NodePort > 0 {
			ports[i] = fmt.Sprintf("%d:%d/%s", p.Port, p.NodePort, p.Protocol)
		}
	}
	text := strings.Join(ports, ",")
	if text == "" {
		text = "<none>"
	}
	return []any{s.Name, string(s.Spec.Type), internal, external, text, row.Created(s, now), labels.FormatLabels(s.Spec.Selector)}
}

func endpoints() *api.Resource {
	r := named("endpoints", "Endpoints", "endpoints", "services/endpoints", true, []string{"ep"},
		func() runtime.Object { return &v1.Endpoints{} }, func() runtime.Object { return &v1.EndpointsList{} })
	r.AllowCreateOnUpdate = true
	r.Columns = []metav1.TableColumnDefinition{row.Name(), row.String("Endpoints", v1.Endpoints{}.SwaggerDoc()["subsets"]), row.Age()}
	return row.New(r, row.Kind[*v1.Endpoints]{
		Default: func(e *v1.Endpoints) {
			for i := range e.Subsets {
				for j := range e.Subsets[i].Ports {
					if p := &e.Subsets[i].Ports[j]; p.Protocol == "" {
						p.Protocol = v1.ProtocolTCP
					}
				}
			}
		},
		Validate: func(e *v1.Endpoints) (errs field.ErrorList) {
			for i := range e.Subsets {
				ss, at := &e.Subsets[i], field.NewPath("subsets").Index(i)
				if len(ss.Addresses) == 0 && len(ss.NotReadyAddresses) == 0 {
					errs = append(errs, field.Required(at, "must specify `addresses` or `notReadyAddresses`"))
				}
				check := func(as []v1.EndpointAddress, at *field.Path) {
					for k, a := range as {
						ip, err := netip.ParseAddr(a.IP)
						switch {
						case err != nil:
							errs = append(errs, field.Invalid(at.Index(k).Child("ip"), a.IP, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"))
						case ip.IsLoopback():
							errs = append(errs, field.Invalid(at.Index(k).Child("ip"), a.IP, "may not be in the loopback range (127.0.0.0/8, ::1/128)"))
						case ip.IsUnspecified():
							errs = append(errs, field.Invalid(at.Index(k).Child("ip"), a.IP, fmt.Sprintf("may not be unspecified (%v)", a.IP)))
						}
					}
				}
				check(ss.Addresses, at.Child("addresses"))
				check(ss.NotReadyAddresses, at.Child("notReadyAddresses"))
				for k, p := range ss.Ports {
					if p.Name == "" && len(ss.Ports) > 1 {
						errs = append(errs, field.Required(at.Child("ports").Index(k).Child("name"), ""))
					}
					for _, msg := range validation.IsValidPortNum(int(p.Port)) {
						errs = append(errs, field.Invalid(at.Child("ports").Index(k).Child("port"), p.Port, msg))
					}
				}
			}
			return errs
		},
		Cells: func(e *v1.Endpoints, now time.Time) []any {
			return []any{e.Name, formatEndpoints(e), row.Created(e, now)}
		},
	})
}

func formatEndpoints(e *v1.Endpoints) string {
	if len(e.Subsets) == 0 {
		return "<none>"
	}
	var list []string
	more := 0
	add := func(s string) {
		if len(list) == 3 {
			more++
			return
		}
		list = append(list, s)
	}
	for i := range e.Subsets {
		ss := &e.Subsets[i]
		if len(ss.Ports) == 0 {
			for _, a := range ss.Addresses {
				add(a.IP)
			}
		}
		for _, p := range ss.Ports {
			for _, a := range ss.Addresses {
				if ip, err := netip.ParseAddr(a.IP); err == nil {
					add(netip.AddrPortFrom(ip, uint16(p.Port)).String())
				}
			}
		}
	}
	out := strings.Join(list, ",")
	if more > 0 {
		return fmt.Sprintf("%s + %d more...", out, more)
	}
	if out == "" {
		return "<none>"
	}
	return out
}
