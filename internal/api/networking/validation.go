package networking

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	v1 "k8s.io/api/networking/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/api/validation/path"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
	"k8s.io/utils/ptr"
)

const (
	// classAnnotation named an Ingress's class before there was a field.
	classAnnotation = "kubernetes.io/ingress.class"
	maxController   = 250
)

func invalid(fldPath *field.Path, value any, messages []string) field.ErrorList {
	var errs field.ErrorList
	for _, msg := range messages {
		errs = append(errs, field.Invalid(fldPath, value, msg))
	}
	return errs
}

// tolerated are the faults that an old object has and an update may keep.
type tolerated struct{ secretNames, wildcardRules bool }

func validateIngress(i *v1.Ingress) field.ErrorList {
	errs := validateIngressSpec(&i.Spec, tolerated{}, field.NewPath("spec"))
	class, ok := i.Annotations[classAnnotation]
	if ok && i.Spec.IngressClassName != nil && class != *i.Spec.IngressClassName {
		errs = append(errs, field.Invalid(field.NewPath("annotations").Child(classAnnotation), class, "must match `ingressClassName` when both are specified"))
	}
	return errs
}

func validateIngressUpdate(i, old *v1.Ingress) field.ErrorList {
	var may tolerated
	for _, tls := range old.Spec.TLS {
		may.secretNames = may.secretNames || len(secretNameMessages(tls.SecretName)) > 0
	}
	for _, rule := range old.Spec.Rules {
		if strings.Contains(rule.Host, "*") && len(validateHTTP(rule.HTTP, nil)) > 0 {
			may.wildcardRules = true
		}
	}
	return validateIngressSpec(&i.Spec, may, field.NewPath("spec"))
}

func validateIngressSpec(s *v1.IngressSpec, may tolerated, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(s.Rules) == 0 && s.DefaultBackend == nil {
		errs = append(errs, field.Invalid(fldPath, s.Rules, "either `defaultBackend` or `rules` must be specified"))
	}
	if s.DefaultBackend != nil {
		errs = append(errs, validateBackend(s.DefaultBackend, fldPath.Child("defaultBackend"))...)
	}
	for i := range s.Rules {
		rule, at := &s.Rules[i], fldPath.Child("rules").Index(i)
		if rule.Host != "" {
			errs = append(errs, validateHost(rule.Host, true, at.Child("host"))...)
		}
		if !may.wildcardRules || !strings.Contains(rule.Host, "*") {
			errs = append(errs, validateHTTP(rule.HTTP, at.Child("http"))...)
		}
	}
	for i, tls := range s.TLS {
		at := fldPath.Child("tls").Index(i)
		for j, host := range tls.Hosts {
			errs = append(errs, validateHost(host, false, at.Child("hosts").Index(j))...)
		}
		if !may.secretNames {
			errs = append(errs, invalid(at.Child("secretName"), tls.SecretName, secretNameMessages(tls.SecretName))...)
		}
	}
	if c := s.IngressClassName; c != nil {
		errs = append(errs, invalid(fldPath.Child("ingressClassName"), *c, apivalidation.NameIsDNSSubdomain(*c, false))...)
	}
	return errs
}

func secretNameMessages(name string) []string {
	if name == "" {
		return nil
	}
	return apivalidation.NameIsDNSSubdomain(name, false)
}

func validateHost(host string, refuseIP bool, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	if refuseIP && netutils.ParseIPSloppy(host) != nil {
		errs = append(errs, field.Invalid(fldPath, host, "must be a DNS name, not an IP address"))
	}
	if strings.Contains(host, "*") {
		return append(errs, invalid(fldPath, host, validation.IsWildcardDNS1123Subdomain(host))...)
	}
	return append(errs, invalid(fldPath, host, validation.IsDNS1123Subdomain(host))...)
}

func validateHTTP(h *v1.HTTPIngressRuleValue, fldPath *field.Path) field.ErrorList {
	if h == nil {
		return nil
	}
	var errs field.ErrorList
	if len(h.Paths) == 0 {
		errs = append(errs, field.Required(fldPath.Child("paths"), ""))
	}
	for i := range h.Paths {
		errs = append(errs, validatePath(&h.Paths[i], fldPath.Child("paths").Index(i))...)
	}
	return errs
}

func validatePath(p *v1.HTTPIngressPath, fldPath *field.Path) field.ErrorList {
	if p.PathType == nil {
		return field.ErrorList{field.Required(fldPath.Child("pathType"), "pathType must be specified")}
	}
	var errs field.ErrorList
	at := fldPath.Child("path")
	absolute := func() {
		if !strings.HasPrefix(p.Path, "/") {
			errs = append(errs, field.Invalid(at, p.Path, "must be an absolute path"))
		}
	}
	switch *p.PathType {
	case v1.PathTypeExact, v1.PathTypePrefix:
		absolute()
		for _, s := range []string{"//", "/./", "/../", "%2f", "%2F"} {
			if strings.Contains(p.Path, s) {
				errs = append(errs, field.Invalid(at, p.Path, fmt.Sprintf("must not contain '%s'", s)))
			}
		}
		for _, s := range []string{"/..", "/."} {
			if strings.HasSuffix(p.Path, s) {
				errs = append(errs, field.Invalid(at, p.Path, fmt.Sprintf("cannot end with '%s'", s)))
			}
		}
	case v1.PathTypeImplementationSpecific:
		if p.Path != "" {
			absolute()
		}
	default:
		errs = append(errs, field.NotSupported(fldPath.Child("pathType"), *p.PathType, []v1.PathType{v1.PathTypeExact, v1.PathTypeImplementationSpecific, v1.PathTypePrefix}))
	}
	return append(errs, validateBackend(&p.Backend, fldPath.Child("backend"))...)
}

func validateBackend(b *v1.IngressBackend, fldPath *field.Path) field.ErrorList {
	switch {
	case b.Resource != nil && b.Service != nil:
		return field.ErrorList{field.Invalid(fldPath, "", "cannot set both resource and service backends")}
	case b.Resource != nil:
		return validateReference(b.Resource.APIGroup, b.Resource.Kind, b.Resource.Name, " is required", fldPath.Child("resource"))
	case b.Service == nil:
		return field.ErrorList{field.Invalid(fldPath, "", "resource or service backend is required")}
	}
	var errs field.ErrorList
	at, s := fldPath.Child("service"), b.Service
	if s.Name == "" {
		errs = append(errs, field.Required(at.Child("name"), ""))
	} else {
		errs = append(errs, invalid(at.Child("name"), s.Name, apivalidation.NameIsDNSLabel(s.Name, false))...)
	}
	switch port := s.Port; {
	case port.Name != "" && port.Number != 0:
		errs = append(errs, field.Invalid(fldPath, "", "cannot set both port name & port number"))
	case port.Name != "":
		errs = append(errs, invalid(at.Child("port", "name"), port.Name, validation.IsValidPortName(port.Name))...)
	case port.Number != 0:
		errs = append(errs, invalid(at.Child("port", "number"), port.Number, validation.IsValidPortNum(int(port.Number)))...)
	default:
		errs = append(errs, field.Required(fldPath, "port name or number is required"))
	}
	return errs
}

// validateReference checks a reference to an object of any kind; missing ends
// the message about a part that is not there, "" for none.
func validateReference(group *string, kind, name, missing string, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	if group != nil {
		errs = append(errs, invalid(fldPath.Child("apiGroup"), *group, validation.IsDNS1123Subdomain(*group))...)
	}
	segment := func(value, child string) {
		if value == "" {
			detail := ""
			if missing != "" {
				detail = child + missing
			}
			errs = append(errs, field.Required(fldPath.Child(child), detail))
		} else {
			errs = append(errs, invalid(fldPath.Child(child), value, path.IsValidPathSegmentName(value))...)
		}
	}
	segment(kind, "kind")
	segment(name, "name")
	return errs
}

func validateIngressStatusUpdate(i, old *v1.Ingress) field.ErrorList {
	var known []string
	for _, in := range old.Status.LoadBalancer.Ingress {
		known = append(known, in.IP)
	}
	var errs field.ErrorList
	for n, in := range i.Status.LoadBalancer.Ingress {
		at := field.NewPath("status", "loadBalancer", "ingress").Index(n)
		if in.IP != "" && !slices.Contains(known, in.IP) {
			errs = append(errs, validation.IsValidIP(at.Child("ip"), in.IP)...)
		}
		if in.Hostname != "" {
			errs = append(errs, invalid(at.Child("hostname"), in.Hostname, validation.IsDNS1123Subdomain(in.Hostname))...)
			if netutils.ParseIPSloppy(in.Hostname) != nil {
				errs = append(errs, field.Invalid(at.Child("hostname"), in.Hostname, "must be a DNS name, not an IP address"))
			}
		}
	}
	return errs
}

func validateIngressClass(c *v1.IngressClass) field.ErrorList {
	at := field.NewPath("spec")
	var errs field.ErrorList
	if c.Spec.Controller == "" {
		errs = append(errs, field.Required(at.Child("controller"), ""))
	} else {
		if len(c.Spec.Controller) > maxController {
			errs = append(errs, field.TooLong(at.Child("controller"), "", maxController))
		}
		errs = append(errs, validation.IsDomainPrefixedPath(at.Child("controller"), c.Spec.Controller)...)
	}
	if c.Spec.Parameters != nil {
		errs = append(errs, validateClassParameters(c.Spec.Parameters, at.Child("parameters"))...)
	}
	return errs
}

func validateIngressClassUpdate(c, old *v1.IngressClass) field.ErrorList {
	errs := apivalidation.ValidateImmutableField(c.Spec.Controller, old.Spec.Controller, field.NewPath("spec", "controller"))
	return append(errs, validateIngressClass(c)...)
}

func validateClassParameters(p *v1.IngressClassParametersReference, fldPath *field.Path) field.ErrorList {
	errs := validateReference(p.APIGroup, p.Kind, p.Name, "", fldPath)
	at := fldPath.Child("namespace")
	switch ptr.Deref(p.Scope, "") {
	case v1.IngressClassParametersReferenceScopeNamespace:
		if p.Namespace == nil {
			return append(errs, field.Required(at, "`parameters.scope` is set to 'Namespace'"))
		}
		return append(errs, invalid(at, *p.Namespace, apivalidation.ValidateNamespaceName(*p.Namespace, false))...)
	case v1.IngressClassParametersReferenceScopeCluster:
		if p.Namespace != nil {
			errs = append(errs, field.Forbidden(at, "`parameters.scope` is set to 'Cluster'"))
		}
		return errs
	}
	if p.Scope == nil {
		return append(errs, field.Required(fldPath.Child("scope"), ""))
	}
	return append(errs, field.NotSupported(fldPath.Child("scope"), *p.Scope, []string{v1.IngressClassParametersReferenceScopeCluster, v1.IngressClassParametersReferenceScopeNamespace}))
}

// validateNetworkPolicy accepts the CIDRs that old (nil for a new policy)
// has, however badly written.
func validateNetworkPolicy(p, old *v1.NetworkPolicy) field.ErrorList {
	var known []string
	var options metav1validation.LabelSelectorValidationOptions
	if old != nil {
		known = cidrsOf(&old.Spec)
		options.AllowInvalidLabelValueInSelector = len(metav1validation.ValidateLabelSelector(&old.Spec.PodSelector, options, nil)) > 0
	}
	at, s := field.NewPath("spec"), &p.Spec
	errs := metav1validation.ValidateLabelSelector(&s.PodSelector, options, at.Child("podSelector"))
	rule := func(ports []v1.NetworkPolicyPort, peers []v1.NetworkPolicyPeer, fldPath *field.Path, name string) {
		for i := range ports {
			errs = append(errs, validatePort(&ports[i], fldPath.Child("ports").Index(i))...)
		}
		for i := range peers {
			errs = append(errs, validatePeer(&peers[i], options, known, fldPath.Child(name).Index(i))...)
		}
	}
	for i, in := range s.Ingress {
		rule(in.Ports, in.From, at.Child("ingress").Index(i), "from")
	}
	for i, out := range s.Egress {
		rule(out.Ports, out.To, at.Child("egress").Index(i), "to")
	}
	if len(s.PolicyTypes) > 2 {
		return append(errs, field.Invalid(at.Child("policyTypes"), &s.PolicyTypes, "may not specify more than two policyTypes"))
	}
	all := []v1.PolicyType{v1.PolicyTypeIngress, v1.PolicyTypeEgress}
	for i, t := range s.PolicyTypes {
		if !slices.Contains(all, t) {
			errs = append(errs, field.NotSupported(at.Child("policyTypes").Index(i), t, all))
		}
	}
	return errs
}

func cidrsOf(s *v1.NetworkPolicySpec) []string {
	var list []string
	add := func(peers []v1.NetworkPolicyPeer) {
		for _, p := range peers {
			if p.IPBlock != nil {
				list = append(append(list, p.IPBlock.CIDR), p.IPBlock.Except...)
			}
		}
	}
	for _, in := range s.Ingress {
		add(in.From)
	}
	for _, out := range s.Egress {
		add(out.To)
	}
	return list
}

func validatePort(p *v1.NetworkPolicyPort, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	all := []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP}
	if p.Protocol != nil && !slices.Contains(all, *p.Protocol) {
		errs = append(errs, field.NotSupported(fldPath.Child("protocol"), *p.Protocol, all))
	}
	end := fldPath.Child("endPort")
	switch {
	case p.Port == nil:
		if p.EndPort != nil {
			errs = append(errs, field.Invalid(end, *p.EndPort, "may not be specified when `port` is not specified"))
		}
	case p.Port.Type == intstr.Int:
		errs = append(errs, invalid(fldPath.Child("port"), p.Port.IntVal, validation.IsValidPortNum(int(p.Port.IntVal)))...)
		if p.EndPort != nil {
			if *p.EndPort < p.Port.IntVal {
				// The value is upstream's choice.
				errs = append(errs, field.Invalid(end, p.Port.IntVal, "must be greater than or equal to `port`"))
			}
			errs = append(errs, invalid(end, *p.EndPort, validation.IsValidPortNum(int(*p.EndPort)))...)
		}
	default:
		if p.EndPort != nil {
			errs = append(errs, field.Invalid(end, *p.EndPort, "may not be specified when `port` is non-numeric"))
		}
		errs = append(errs, invalid(fldPath.Child("port"), p.Port.StrVal, validation.IsValidPortName(p.Port.StrVal))...)
	}
	return errs
}

func validatePeer(p *v1.NetworkPolicyPeer, options metav1validation.LabelSelectorValidationOptions, known []string, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	if p.PodSelector != nil {
		errs = append(errs, metav1validation.ValidateLabelSelector(p.PodSelector, options, fldPath.Child("podSelector"))...)
	}
	if p.NamespaceSelector != nil {
		errs = append(errs, metav1validation.ValidateLabelSelector(p.NamespaceSelector, options, fldPath.Child("namespaceSelector"))...)
	}
	selects := p.PodSelector != nil || p.NamespaceSelector != nil
	if p.IPBlock != nil {
		errs = append(errs, validateIPBlock(p.IPBlock, known, fldPath.Child("ipBlock"))...)
		if selects {
			errs = append(errs, field.Forbidden(fldPath, "may not specify both ipBlock and another peer"))
		}
	} else if !selects {
		errs = append(errs, field.Required(fldPath, "must specify a peer"))
	}
	return errs
}

func validateIPBlock(b *v1.IPBlock, known []string, fldPath *field.Path) field.ErrorList {
	if b.CIDR == "" {
		return field.ErrorList{field.Required(fldPath.Child("cidr"), "")}
	}
	check := func(cidr string, fldPath *field.Path) field.ErrorList {
		if slices.Contains(known, cidr) {
			return nil
		}
		return validation.IsValidCIDR(fldPath, cidr)
	}
	errs := check(b.CIDR, fldPath.Child("cidr"))
	_, whole, err := netutils.ParseCIDRSloppy(b.CIDR)
	if err != nil {
		return errs
	}
	for i, except := range b.Except {
		at := fldPath.Child("except").Index(i)
		errs = append(errs, check(except, at)...)
		_, part, err := netutils.ParseCIDRSloppy(except)
		if err != nil {
			continue
		}
		outer, _ := whole.Mask.Size()
		inner, _ := part.Mask.Size()
		if !whole.Contains(part.IP) || outer >= inner {
			errs = append(errs, field.Invalid(at, except, "must be a strict subset of `cidr`"))
		}
	}
	return errs
}

// validateIPAddressName checks that the name is the address in canonical form,
// so that an address is allocated once.
func validateIPAddressName(name string, _ bool) []string {
	var out []string
	for _, err := range validation.IsValidIP(nil, name) {
		out = append(out, err.Detail)
	}
	return out
}

func validateIPAddress(a *v1.IPAddress) field.ErrorList {
	at, ref := field.NewPath("spec", "parentRef"), a.Spec.ParentRef
	if ref == nil {
		return nil // its marker wants one
	}
	var errs field.ErrorList
	if ref.Group != "" {
		errs = append(errs, invalid(at.Child("group"), ref.Group, validation.IsDNS1123Subdomain(ref.Group))...)
	}
	segment := func(value, child string, required bool) {
		switch {
		case value != "":
			errs = append(errs, invalid(at.Child(child), value, path.IsValidPathSegmentName(value))...)
		case required:
			errs = append(errs, field.Required(at.Child(child), ""))
		}
	}
	segment(ref.Resource, "resource", true)
	segment(ref.Name, "name", true)
	segment(ref.Namespace, "namespace", false)
	return errs
}

// ranges holds the ranges of a ServiceCIDR as messages show them.
type ranges struct{ CIDRs []string }

func validateServiceCIDR(c *v1.ServiceCIDR) field.ErrorList {
	at, cidrs := field.NewPath("spec", "cidrs"), c.Spec.CIDRs
	if len(cidrs) == 0 {
		return field.ErrorList{field.Required(at, "at least one CIDR required")}
	}
	var errs field.ErrorList
	if len(cidrs) > 2 {
		return field.ErrorList{field.Invalid(at, ranges{cidrs}, "may only hold up to 2 values")}
	}
	if len(cidrs) == 2 {
		if dual, err := netutils.IsDualStackCIDRStrings(cidrs); err != nil || !dual {
			return field.ErrorList{field.Invalid(at, ranges{cidrs}, "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64")}
		}
	}
	for i, cidr := range cidrs {
		errs = append(errs, validation.IsValidCIDR(at.Index(i), cidr)...)
	}
	return errs
}

// validateServiceCIDRUpdate checks that a single-stack range may grow a second
// family; what is there stays.
func validateServiceCIDRUpdate(c, old *v1.ServiceCIDR) field.ErrorList {
	at := field.NewPath("spec", "cidrs")
	switch was, is := old.Spec.CIDRs, c.Spec.CIDRs; {
	case len(was) == len(is):
		return apivalidation.ValidateImmutableField(is, was, at)
	case len(was) == 1 && len(is) == 2:
		errs := apivalidation.ValidateImmutableField(is[0], was[0], at.Index(0))
		return append(errs, validateServiceCIDR(c)...)
	default:
		return field.ErrorList{field.Invalid(at, is, apivalidation.FieldImmutableErrorMsg)}
	}
}
