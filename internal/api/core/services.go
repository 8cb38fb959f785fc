package core

import (
	"fmt"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/row"
)

func services() *api.Resource {
	r := api.Resource{ShortNames: []string{"svc"}, Namespaced: true, StoragePrefix: "services/specs"}
	r.Categories = []string{"all"}
	r.ValidateName = apivalidation.NameIsDNSLabel // RelaxedServiceNameValidation
	r.DeleteReturnsObject = true
	r.FieldLabels = []string{"spec.clusterIP", "spec.type"}
	r.Subresources = []api.Subresource{proxyOf("ServiceProxyOptions")}
	doc := v1.ServiceSpec{}.SwaggerDoc()
	r.Columns = []metav1.TableColumnDefinition{row.Name(), row.String("Type", doc["type"]), row.String("Cluster-IP", doc["clusterIP"]),
		row.String("External-IP", doc["externalIPs"]), row.String("Port(s)", doc["ports"]), row.Age(), row.Wide("Selector", doc["selector"])}
	return row.New[v1.ServiceList](v1.SchemeGroupVersion, r, row.Kind[*v1.Service]{
		Spec:                 func(s *v1.Service) any { return &s.Spec },
		Status:               func(s *v1.Service) any { return &s.Status },
		Default:              setDefaultsService,
		PrepareForCreate:     func(s *v1.Service) { normalizeClusterIPs(s, nil) },
		PrepareForUpdate:     prepareServiceUpdate,
		PrepareStatusUpdate:  func(s, _ *v1.Service) { setIPModes(s) },
		Validate:             validateService,
		ValidateUpdate:       validateServiceUpdate,
		ValidateStatusUpdate: func(s, _ *v1.Service) field.ErrorList { return validateLoadBalancer(&s.Status.LoadBalancer, &s.Spec) },
		Warnings:             serviceWarnings,
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
	setIPModes(s)
}

// setIPModes gives each address of a load balancer the mode VIP, unless it has
// one.
func setIPModes(s *v1.Service) {
	if s.Spec.Type != v1.ServiceTypeLoadBalancer {
		return
	}
	for i := range s.Status.LoadBalancer.Ingress {
		if in := &s.Status.LoadBalancer.Ingress[i]; in.IP != "" && in.IPMode == nil {
			in.IPMode = ptr.To(v1.LoadBalancerIPModeVIP)
		}
	}
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
