package networking

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	v1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/row"
)

// hostsShown is how many hosts of an Ingress its table row names.
const hostsShown = 3

// Resources returns the rows of networking.k8s.io/v1.
func Resources() []*api.Resource {
	return []*api.Resource{ingressClasses(), ingresses(), ipAddresses(), networkPolicies(), serviceCIDRs()}
}

func ingresses() *api.Resource {
	r := api.Resource{ShortNames: []string{"ing"}, Namespaced: true}
	r.StoragePrefix = "ingress"
	r.Columns = []metav1.TableColumnDefinition{
		row.Name(),
		row.String("Class", "The name of the IngressClass resource that should be used for additional configuration"),
		row.String("Hosts", "Hosts that incoming requests are matched against before the ingress rule"),
		row.String("Address", "Address is a list containing ingress points for the load-balancer"),
		row.String("Ports", "Ports of TLS configurations that open"),
		row.Age(),
	}
	return row.New[v1.IngressList](v1.SchemeGroupVersion, r, row.Kind[*v1.Ingress]{
		Generation:           true,
		Spec:                 func(i *v1.Ingress) any { return &i.Spec },
		Status:               func(i *v1.Ingress) any { return &i.Status },
		Validate:             validateIngress,
		ValidateUpdate:       validateIngressUpdate,
		ValidateStatusUpdate: validateIngressStatusUpdate,
		Warnings:             ingressWarnings,
		UpdateWarnings:       func(_, _ *v1.Ingress) []string { return nil },
		Cells: func(i *v1.Ingress, now time.Time) []any {
			ports := "80"
			if len(i.Spec.TLS) > 0 {
				ports = "80, 443"
			}
			return []any{i.Name, ptr.Deref(i.Spec.IngressClassName, "<none>"), hosts(i.Spec.Rules), addresses(i), ports, row.Created(i, now)}
		},
	})
}

func hosts(rules []v1.IngressRule) string {
	var list []string
	more := false
	for _, rule := range rules {
		if len(list) == hostsShown {
			more = true
		}
		if !more && rule.Host != "" {
			list = append(list, rule.Host)
		}
	}
	if len(list) == 0 {
		return "*"
	}
	out := strings.Join(list, ",")
	if more {
		out += fmt.Sprintf(" + %d more...", len(rules)-hostsShown)
	}
	return out
}

func addresses(i *v1.Ingress) string {
	var list []string
	for _, in := range i.Status.LoadBalancer.Ingress {
		if in.IP != "" {
			list = append(list, in.IP)
		} else if in.Hostname != "" {
			list = append(list, in.Hostname)
		}
	}
	slices.Sort(list)
	return strings.Join(slices.Compact(list), ",")
}

func ingressClasses() *api.Resource {
	r := api.Resource{Columns: []metav1.TableColumnDefinition{
		row.Name(),
		row.String("Controller", "Controller that is responsible for handling corresponding Ingress resources"),
		row.String("Parameters", "A reference to a resource with additional parameters"),
		row.Age(),
	}}
	return row.New[v1.IngressClassList](v1.SchemeGroupVersion, r, row.Kind[*v1.IngressClass]{
		Generation: true,
		Spec:       func(c *v1.IngressClass) any { return &c.Spec },
		Default: func(c *v1.IngressClass) {
			if p := c.Spec.Parameters; p != nil && p.Scope == nil {
				p.Scope = ptr.To(v1.IngressClassParametersReferenceScopeCluster)
			}
		},
		Validate:       validateIngressClass,
		ValidateUpdate: validateIngressClassUpdate,
		Cells: func(c *v1.IngressClass, now time.Time) []any {
			params := "<none>"
			if p := c.Spec.Parameters; p != nil {
				params = p.Kind
				if p.APIGroup != nil {
					params += "." + *p.APIGroup
				}
				params += "/" + p.Name
			}
			return []any{c.Name, c.Spec.Controller, params, row.Created(c, now)}
		},
	})
}

func networkPolicies() *api.Resource {
	r := api.Resource{ShortNames: []string{"netpol"}, Namespaced: true, Columns: []metav1.TableColumnDefinition{
		row.Name(), row.String("Pod-Selector", v1.NetworkPolicySpec{}.SwaggerDoc()["podSelector"]), row.Age(),
	}}
	return row.New[v1.NetworkPolicyList](v1.SchemeGroupVersion, r, row.Kind[*v1.NetworkPolicy]{
		Generation:     true,
		Spec:           func(p *v1.NetworkPolicy) any { return &p.Spec },
		Default:        setNetworkPolicyDefaults,
		Validate:       func(p *v1.NetworkPolicy) field.ErrorList { return validateNetworkPolicy(p, nil) },
		ValidateUpdate: validateNetworkPolicy,
		Warnings:       networkPolicyWarnings,
		Cells: func(p *v1.NetworkPolicy, now time.Time) []any {
			return []any{p.Name, metav1.FormatLabelSelector(&p.Spec.PodSelector), row.Created(p, now)}
		},
	})
}

func setNetworkPolicyDefaults(p *v1.NetworkPolicy) {
	tcp := func(ports []v1.NetworkPolicyPort) {
		for i := range ports {
			if ports[i].Protocol == nil {
				ports[i].Protocol = ptr.To(corev1.ProtocolTCP)
			}
		}
	}
	for i := range p.Spec.Ingress {
		tcp(p.Spec.Ingress[i].Ports)
	}
	for i := range p.Spec.Egress {
		tcp(p.Spec.Egress[i].Ports)
	}
	if len(p.Spec.PolicyTypes) == 0 {
		// Every policy isolates its pods from what comes in; only one with
		// rules for it from what goes out.
		p.Spec.PolicyTypes = []v1.PolicyType{v1.PolicyTypeIngress}
		if len(p.Spec.Egress) > 0 {
			p.Spec.PolicyTypes = append(p.Spec.PolicyTypes, v1.PolicyTypeEgress)
		}
	}
}

func ipAddresses() *api.Resource {
	r := api.Resource{ShortNames: []string{"ip"}}
	r.ValidateName = validateIPAddressName
	r.Columns = []metav1.TableColumnDefinition{
		row.Name(), row.String("ParentRef", v1.IPAddressSpec{}.SwaggerDoc()["parentRef"]),
	}
	return row.New[v1.IPAddressList](v1.SchemeGroupVersion, r, row.Kind[*v1.IPAddress]{
		Validate:       validateIPAddress,
		ValidateUpdate: func(_, _ *v1.IPAddress) field.ErrorList { return nil },
		Cells: func(a *v1.IPAddress, _ time.Time) []any {
			parent := "<none>"
			if ref := a.Spec.ParentRef; ref != nil {
				parent = strings.ToLower(schema.GroupResource{Group: ref.Group, Resource: ref.Resource}.String())
				if ref.Namespace != "" {
					parent += "/" + ref.Namespace
				}
				parent += "/" + ref.Name
			}
			return []any{a.Name, parent}
		},
	})
}

func serviceCIDRs() *api.Resource {
	r := api.Resource{Columns: []metav1.TableColumnDefinition{
		row.Name(), row.String("CIDRs", v1.ServiceCIDRSpec{}.SwaggerDoc()["cidrs"]), row.Age(),
	}}
	return row.New[v1.ServiceCIDRList](v1.SchemeGroupVersion, r, row.Kind[*v1.ServiceCIDR]{
		Spec:           func(c *v1.ServiceCIDR) any { return &c.Spec },
		Status:         func(c *v1.ServiceCIDR) any { return &c.Status },
		Validate:       validateServiceCIDR,
		ValidateUpdate: validateServiceCIDRUpdate,
		StatusOnly:     true,
		// Upstream checks no conditions, and its own have no reason.
		ValidateStatusUpdate: func(_, _ *v1.ServiceCIDR) field.ErrorList { return nil },
		Cells: func(c *v1.ServiceCIDR, now time.Time) []any {
			return []any{c.Name, strings.Join(c.Spec.CIDRs, ","), row.Created(c, now)}
		},
	})
}
