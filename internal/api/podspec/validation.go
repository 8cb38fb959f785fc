package podspec

import (
	"fmt"
	"strings"

	v1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	unversionedvalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The values of the enumerations, in the order in which messages name them.
var (
	restartPolicies    = []v1.RestartPolicy{v1.RestartPolicyAlways, v1.RestartPolicyOnFailure, v1.RestartPolicyNever}
	dnsPolicies        = []v1.DNSPolicy{v1.DNSClusterFirstWithHostNet, v1.DNSClusterFirst, v1.DNSDefault, v1.DNSNone}
	preemptionPolicies = []v1.PreemptionPolicy{v1.PreemptLowerPriority, v1.PreemptNever}
	systems            = []v1.OSName{v1.Linux, v1.Windows}
)

// ValidatePodTemplateSpec checks the pod template inside another kind.
func ValidatePodTemplateSpec(t *v1.PodTemplateSpec, fldPath *field.Path) field.ErrorList {
	errs := unversionedvalidation.ValidateLabels(t.Labels, fldPath.Child("labels"))
	if len(t.Annotations) > 0 {
		at := fldPath.Child("annotations")
		errs = append(errs, apivalidation.ValidateAnnotations(t.Annotations, at)...)
		errs = append(errs, validateAnnotations(t.Annotations, &t.Spec, at)...)
		errs = append(errs, agree(t.Annotations, &t.Spec, fldPath.Child("spec"))...)
	}
	errs = append(errs, validateSpec(&t.Spec, nil, fldPath.Child("spec"))...)
	if len(t.Spec.EphemeralContainers) > 0 {
		errs = append(errs, field.Forbidden(fldPath.Child("spec", "ephemeralContainers"), "ephemeral containers not allowed in pod template"))
	}
	return errs
}

// validateSpec checks the spec of the pod with the metadata, or of a template
// if there is none.
func validateSpec(s *v1.PodSpec, pod *metav1.ObjectMeta, at *field.Path) field.ErrorList {
	c := checker{spec: s, pod: pod, claims: claimNames(s)}
	var errs field.ErrorList
	if s.TerminationGracePeriodSeconds == nil {
		errs = append(errs, field.Required(at.Child("terminationGracePeriodSeconds"), ""))
	}
	errs = append(errs, c.validateVolumes(at.Child("volumes"))...)
	errs = append(errs, validateClaims(s.ResourceClaims, at.Child("resourceClaims"))...)
	errs = append(errs, c.validateContainers(at.Child("containers"))...)
	errs = append(errs, c.validateInitContainers(at.Child("initContainers"))...)
	errs = append(errs, c.validateEphemeralContainers(at.Child("ephemeralContainers"))...)
	errs = append(errs, validatePodResources(s, at)...)
	errs = append(errs, c.validateHostNetwork(at)...)
	errs = append(errs, oneOf(s.RestartPolicy, restartPolicies, at, "restartPolicy")...)
	errs = append(errs, oneOf(s.DNSPolicy, dnsPolicies, at, "dnsPolicy")...)
	if len(s.NodeSelector) > 0 {
		errs = append(errs, unversionedvalidation.ValidateLabels(s.NodeSelector, at.Child("nodeSelector"))...)
	}
	errs = append(errs, validatePodSecurity(s, at)...)
	errs = append(errs, validateAffinity(s.Affinity, at.Child("affinity"))...)
	errs = append(errs, validateDNSConfig(s.DNSConfig, s.DNSPolicy, at.Child("dnsConfig"))...)
	for i, g := range s.ReadinessGates {
		errs = append(errs, conforms(string(g.ConditionType), validation.IsQualifiedName, at.Child("readinessGates").Index(i), "conditionType")...)
	}
	errs = append(errs, validateGates(s.SchedulingGates, at.Child("schedulingGates"))...)
	errs = append(errs, validateSpread(s.TopologySpreadConstraints, at.Child("topologySpreadConstraints"))...)
	errs = append(errs, validateHostProcess(s, at)...)
	errs = append(errs, validateHostUsers(s, at)...)
	errs = append(errs, validateNames(s, at)...)
	if d := s.ActiveDeadlineSeconds; d != nil && (*d < 1 || *d > 1<<31-1) {
		errs = append(errs, field.Invalid(at.Child("activeDeadlineSeconds"), *d, validation.InclusiveRangeError(1, 1<<31-1)))
	}
	errs = append(errs, validateTolerations(s.Tolerations, at.Child("tolerations"))...)
	for i := range s.HostAliases {
		a, at := &s.HostAliases[i], at.Child("hostAliases").Index(i)
		errs = append(errs, validation.IsValidIPForLegacyField(at.Child("ip"), a.IP, false, nil)...)
		for j, h := range a.Hostnames {
			for _, msg := range validation.IsDNS1123Subdomain(h) {
				errs = append(errs, field.Invalid(at.Child("hostnames").Index(j), h, msg))
			}
		}
	}
	if p := s.PreemptionPolicy; p != nil {
		errs = append(errs, oneOf(*p, preemptionPolicies, at, "preemptionPolicy")...)
	}
	if len(s.Overhead) > 0 {
		errs = append(errs, ValidateResources(&v1.ResourceRequirements{Limits: s.Overhead}, nil, at.Child("overhead"))...)
	}
	return append(errs, validateOS(s, at)...)
}

// validateNames checks the names of other objects and of hosts.
func validateNames(s *v1.PodSpec, at *field.Path) (errs field.ErrorList) {
	named := func(name, value string, check func(string) []string) {
		if value != "" {
			errs = append(errs, conforms(value, check, at, name)...)
		}
	}
	named("serviceAccountName", s.ServiceAccountName, validation.IsDNS1123Subdomain)
	named("nodeName", s.NodeName, validation.IsDNS1123Subdomain)
	named("hostname", s.Hostname, validation.IsDNS1123Label)
	named("subdomain", s.Subdomain, validation.IsDNS1123Label)
	named("priorityClassName", s.PriorityClassName, validation.IsDNS1123Subdomain)
	if s.RuntimeClassName != nil {
		errs = append(errs, conforms(*s.RuntimeClassName, validation.IsDNS1123Subdomain, at, "runtimeClassName")...)
	}
	return append(errs, validateHostnameOverride(s, at)...)
}

// maxHostname is the longest hostname that the kernel takes, in bytes.
const maxHostname = 64

func validateHostnameOverride(s *v1.PodSpec, at *field.Path) (errs field.ErrorList) {
	h := s.HostnameOverride
	if h == nil || *h == "" {
		return nil
	}
	if len(*h) > maxHostname {
		errs = append(errs, field.TooLong(at.Child("hostnameOverride"), *h, maxHostname))
	}
	errs = append(errs, conforms(*h, validation.IsDNS1123Subdomain, at, "hostnameOverride")...)
	if s.SetHostnameAsFQDN != nil && *s.SetHostnameAsFQDN {
		errs = append(errs, field.Invalid(at.Child("setHostnameAsFQDN"), true, "may not be set when `hostnameOverride` is set"))
	}
	if s.HostNetwork {
		errs = append(errs, field.Invalid(at.Child("hostNetwork"), true, "may not be set when `hostnameOverride` is set"))
	}
	return errs
}

func validateGates(gates []v1.PodSchedulingGate, at *field.Path) (errs field.ErrorList) {
	seen := sets.New[string]()
	for i, g := range gates {
		for _, msg := range validation.IsQualifiedName(g.Name) {
			errs = append(errs, field.Invalid(at.Index(i), g.Name, msg))
		}
		if seen.Has(g.Name) {
			errs = append(errs, field.Duplicate(at.Index(i), g.Name))
		}
		seen.Insert(g.Name)
	}
	return errs
}

// validateHostNetwork checks that in the host's network a container's port is
// its host port. A template may leave the host port out; a pod's defaults set
// it.
func (c *checker) validateHostNetwork(at *field.Path) (errs field.ErrorList) {
	if !c.spec.HostNetwork {
		return nil
	}
	for i := range c.spec.Containers {
		for j, p := range c.spec.Containers[i].Ports {
			if (c.pod != nil || p.HostPort != 0) && p.HostPort != p.ContainerPort {
				errs = append(errs, field.Invalid(at.Child("containers").Index(i).Child("ports").Index(j).Child("hostPort"), p.HostPort,
					"must match `containerPort` when `hostNetwork` is true"))
			}
		}
	}
	return errs
}

// validateHostUsers checks that a pod with a user namespace of its own shares
// no other namespace with its host.
func validateHostUsers(s *v1.PodSpec, at *field.Path) (errs field.ErrorList) {
	if s.HostUsers == nil || *s.HostUsers {
		return nil
	}
	for _, f := range [...]struct {
		name string
		set  bool
	}{{"hostNetwork", s.HostNetwork}, {"hostPID", s.HostPID}, {"hostIPC", s.HostIPC}} {
		if f.set {
			errs = append(errs, field.Forbidden(at.Child(f.name), "when `hostUsers` is false"))
		}
	}
	for _, l := range lists(s) {
		for i := range l.containers {
			if len(l.containers[i].VolumeDevices) > 0 {
				errs = append(errs, field.Forbidden(at.Child(l.name).Index(i).Child("volumeDevices"), "when `hostUsers` is false"))
			}
		}
	}
	return errs
}

func validateTolerations(list []v1.Toleration, at *field.Path) (errs field.ErrorList) {
	for i := range list {
		t, at := &list[i], at.Index(i)
		if t.Key != "" {
			errs = append(errs, unversionedvalidation.ValidateLabelName(t.Key, at.Child("key"))...)
		} else if t.Operator != v1.TolerationOpExists {
			errs = append(errs, field.Invalid(at.Child("operator"), t.Operator, "operator must be Exists when `key` is empty, which means \"match all values and all keys\""))
		}
		if t.TolerationSeconds != nil && t.Effect != v1.TaintEffectNoExecute {
			errs = append(errs, field.Invalid(at.Child("effect"), t.Effect, "effect must be 'NoExecute' when `tolerationSeconds` is set"))
		}
		switch t.Operator {
		case v1.TolerationOpEqual, "":
			if msgs := validation.IsValidLabelValue(t.Value); len(msgs) > 0 {
				errs = append(errs, field.Invalid(at.Child("operator"), t.Value, strings.Join(msgs, ";")))
			}
		case v1.TolerationOpExists:
			if t.Value != "" {
				errs = append(errs, field.Invalid(at.Child("operator"), t.Value, "value must be empty when `operator` is 'Exists'"))
			}
		default:
			errs = append(errs, field.NotSupported(at.Child("operator"), t.Operator, []v1.TolerationOperator{v1.TolerationOpEqual, v1.TolerationOpExists}))
		}
		if t.Effect != "" {
			errs = append(errs, among(t.Effect, taintEffects, at, "effect")...)
		}
	}
	return errs
}

var taintEffects = []v1.TaintEffect{v1.TaintEffectNoSchedule, v1.TaintEffectPreferNoSchedule, v1.TaintEffectNoExecute}

// Limits of a resolver's configuration.
const (
	maxNameservers = 3
	maxSearches    = 32
	maxSearchChars = 2048
)

func validateDNSConfig(c *v1.PodDNSConfig, policy v1.DNSPolicy, at *field.Path) (errs field.ErrorList) {
	if policy == v1.DNSNone {
		switch {
		case c == nil:
			return field.ErrorList{field.Required(at, fmt.Sprintf("must provide `dnsConfig` when `dnsPolicy` is %s", v1.DNSNone))}
		case len(c.Nameservers) == 0:
			return field.ErrorList{field.Required(at.Child("nameservers"), fmt.Sprintf("must provide at least one DNS nameserver when `dnsPolicy` is %s", v1.DNSNone))}
		}
	}
	if c == nil {
		return nil
	}
	if len(c.Nameservers) > maxNameservers {
		errs = append(errs, field.Invalid(at.Child("nameservers"), c.Nameservers, fmt.Sprintf("must not have more than %v nameservers", maxNameservers)))
	}
	for i, ns := range c.Nameservers {
		errs = append(errs, validation.IsValidIPForLegacyField(at.Child("nameservers").Index(i), ns, false, nil)...)
	}
	if len(c.Searches) > maxSearches {
		errs = append(errs, field.Invalid(at.Child("searches"), c.Searches, fmt.Sprintf("must not have more than %v search paths", maxSearches)))
	}
	chars := max(0, len(c.Searches)-1)
	for i, search := range c.Searches {
		chars += len(search)
		if search == "." {
			continue
		}
		search = strings.TrimSuffix(search, ".")
		for _, msg := range validation.IsDNS1123SubdomainWithUnderscore(search) {
			errs = append(errs, field.Invalid(at.Child("searches").Index(i), search, msg))
		}
	}
	if chars > maxSearchChars {
		errs = append(errs, field.Invalid(at.Child("searches"), c.Searches, fmt.Sprintf("must not have more than %v characters (including spaces) in the search list", maxSearchChars)))
	}
	for i, o := range c.Options {
		if o.Name == "" {
			errs = append(errs, field.Required(at.Child("options").Index(i), "must not be empty"))
		}
	}
	return errs
}
