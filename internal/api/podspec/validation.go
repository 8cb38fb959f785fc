package podspec

import (
	"fmt"
	"strings"

	v1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	unversionedvalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ValidatePodTemplateSpec checks the pod template inside another kind.
func ValidatePodTemplateSpec(t *v1.PodTemplateSpec, fldPath *field.Path) field.ErrorList {
	errs := unversionedvalidation.ValidateLabels(t.Labels, fldPath.Child("labels"))
	errs = append(errs, apivalidation.ValidateAnnotations(t.Annotations, fldPath.Child("annotations"))...)
	errs = append(errs, ValidatePodSpec(&t.Spec, fldPath.Child("spec"))...)
	if len(t.Spec.EphemeralContainers) > 0 {
		errs = append(errs, field.Forbidden(fldPath.Child("spec", "ephemeralContainers"), "ephemeral containers not allowed in pod template"))
	}
	return errs
}

// ValidatePodSpec checks a pod's spec, ephemeral containers excepted.
func ValidatePodSpec(s *v1.PodSpec, fldPath *field.Path) field.ErrorList {
	volumes, errs := validateVolumes(s.Volumes, fldPath.Child("volumes"))
	if len(s.Containers) == 0 {
		errs = append(errs, field.Required(fldPath.Child("containers"), ""))
	}
	names, hostPorts := sets.New[string](), sets.New[string]()
	for i := range s.Containers {
		errs = append(errs, validateContainer(&s.Containers[i], s, volumes, names, hostPorts, fldPath.Child("containers").Index(i))...)
	}
	for i := range s.InitContainers {
		c, at := &s.InitContainers[i], fldPath.Child("initContainers").Index(i)
		// Init containers run one after another, so they may share ports.
		errs = append(errs, validateContainer(c, s, volumes, names, sets.New[string](), at)...)
		errs = append(errs, validateInit(c, at)...)
	}
	for i := range s.Containers {
		if p := s.Containers[i].RestartPolicy; p != nil && len(s.Containers[i].RestartPolicyRules) == 0 &&
			*p != v1.ContainerRestartPolicyAlways && *p != v1.ContainerRestartPolicyOnFailure && *p != v1.ContainerRestartPolicyNever {
			errs = append(errs, field.NotSupported(fldPath.Child("containers").Index(i).Child("restartPolicy"), *p, []v1.ContainerRestartPolicy{
				v1.ContainerRestartPolicyAlways, v1.ContainerRestartPolicyOnFailure, v1.ContainerRestartPolicyNever}))
		}
	}
	errs = append(errs, oneOf(fldPath.Child("restartPolicy"), s.RestartPolicy, v1.RestartPolicyAlways, v1.RestartPolicyOnFailure, v1.RestartPolicyNever)...)
	errs = append(errs, oneOf(fldPath.Child("dnsPolicy"), s.DNSPolicy, v1.DNSClusterFirstWithHostNet, v1.DNSClusterFirst, v1.DNSDefault, v1.DNSNone)...)
	errs = append(errs, unversionedvalidation.ValidateLabels(s.NodeSelector, fldPath.Child("nodeSelector"))...)
	errs = append(errs, validateTolerations(s.Tolerations, fldPath.Child("tolerations"))...)
	named := func(name, value string, check func(string, bool) []string) {
		if value == "" {
			return
		}
		for _, msg := range check(value, false) {
			errs = append(errs, field.Invalid(fldPath.Child(name), value, msg))
		}
	}
	named("serviceAccountName", s.ServiceAccountName, apivalidation.ValidateServiceAccountName)
	named("nodeName", s.NodeName, apivalidation.NameIsDNSSubdomain)
	named("hostname", s.Hostname, apivalidation.NameIsDNSLabel)
	named("subdomain", s.Subdomain, apivalidation.NameIsDNSLabel)
	named("priorityClassName", s.PriorityClassName, apivalidation.NameIsDNSSubdomain)
	if s.RuntimeClassName != nil {
		named("runtimeClassName", *s.RuntimeClassName, apivalidation.NameIsDNSSubdomain)
	}
	if d := s.ActiveDeadlineSeconds; d != nil && (*d < 1 || *d > 1<<31-1) {
		errs = append(errs, field.Invalid(fldPath.Child("activeDeadlineSeconds"), *d, validation.InclusiveRangeError(1, 1<<31-1)))
	}
	errs = append(errs, validatePodSecurity(s, fldPath)...)
	errs = append(errs, validateAffinity(s.Affinity, fldPath.Child("affinity"))...)
	errs = append(errs, validateDNSConfig(s.DNSConfig, fldPath.Child("dnsConfig"))...)
	for i, r := range s.ImagePullSecrets {
		if r.Name == "" {
			errs = append(errs, field.Required(fldPath.Child("imagePullSecrets").Index(i).Child("name"), ""))
		}
	}
	for i, g := range s.ReadinessGates {
		errs = append(errs, dnsName(string(g.ConditionType), validation.IsQualifiedName, fldPath.Child("readinessGates").Index(i).Child("conditionType"))...)
	}
	if p := s.PreemptionPolicy; p != nil {
		errs = append(errs, oneOf(fldPath.Child("preemptionPolicy"), *p, v1.PreemptLowerPriority, v1.PreemptNever)...)
	}
	if s.OS != nil {
		errs = append(errs, oneOf(fldPath.Child("os", "name"), s.OS.Name, v1.Linux, v1.Windows)...)
	}
	for name, q := range s.Overhead {
		errs = append(errs, ValidateContainerResourceName(name, fldPath.Child("overhead").Key(string(name)))...)
		errs = append(errs, ValidateQuantity(name, q, fldPath.Child("overhead").Key(string(name)))...)
	}
	errs = append(errs, validateClaims(s.ResourceClaims, fldPath.Child("resourceClaims"))...)
	if len(s.HostAliases) > 0 {
		for i, a := range s.HostAliases {
			errs = append(errs, validation.IsValidIP(fldPath.Child("hostAliases").Index(i).Child("ip"), a.IP)...)
			for j, h := range a.Hostnames {
				errs = append(errs, dnsName(h, validation.IsDNS1123Subdomain, fldPath.Child("hostAliases").Index(i).Child("hostnames").Index(j))...)
			}
		}
	}
	if s.DNSPolicy == v1.DNSNone {
		switch {
		case s.DNSConfig == nil:
			errs = append(errs, field.Required(fldPath.Child("dnsConfig"), "must provide `dnsConfig` when `dnsPolicy` is None"))
		case len(s.DNSConfig.Nameservers) == 0:
			errs = append(errs, field.Required(fldPath.Child("dnsConfig", "nameservers"), "must provide at least one DNS nameserver when `dnsPolicy` is None"))
		}
	}
	gates := sets.New[string]()
	for i, g := range s.SchedulingGates {
		at := fldPath.Child("schedulingGates").Index(i)
		for _, msg := range validation.IsQualifiedName(g.Name) {
			errs = append(errs, field.Invalid(at, g.Name, msg))
		}
		if gates.Has(g.Name) {
			errs = append(errs, field.Duplicate(at, g.Name))
		}
		gates.Insert(g.Name)
	}
	errs = append(errs, validateSpread(s.TopologySpreadConstraints, fldPath.Child("topologySpreadConstraints"))...)
	return errs
}

// oneOf: value is required and one of allowed.
func oneOf[T ~string](at *field.Path, value T, allowed ...T) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(at, "")}
	}
	for _, a := range allowed {
		if value == a {
			return nil
		}
	}
	return field.ErrorList{field.NotSupported(at, value, allowed)}
}

func dnsName(value string, check func(string) []string, at *field.Path) (errs field.ErrorList) {
	for _, msg := range check(value) {
		errs = append(errs, field.Invalid(at, value, msg))
	}
	return errs
}

// label: value is required, a DNS label, and new among seen.
func label(value string, seen sets.Set[string], at *field.Path) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(at, "")}
	}
	errs := dnsName(value, validation.IsDNS1123Label, at)
	if seen.Has(value) {
		errs = append(errs, field.Duplicate(at, value))
	}
	seen.Insert(value)
	return errs
}

func validateContainer(c *v1.Container, s *v1.PodSpec, volumes map[string]*v1.Volume, names, hostPorts sets.Set[string], at *field.Path) field.ErrorList {
	errs := label(c.Name, names, at.Child("name"))
	switch {
	case c.Image == "":
		errs = append(errs, field.Required(at.Child("image"), ""))
	case strings.TrimSpace(c.Image) != c.Image:
		errs = append(errs, field.Invalid(at.Child("image"), c.Image, "must not have leading or trailing whitespace"))
	}
	errs = append(errs, oneOf(at.Child("terminationMessagePolicy"), c.TerminationMessagePolicy, v1.TerminationMessageReadFile, v1.TerminationMessageFallbackToLogsOnError)...)
	errs = append(errs, oneOf(at.Child("imagePullPolicy"), c.ImagePullPolicy, v1.PullAlways, v1.PullIfNotPresent, v1.PullNever)...)
	errs = append(errs, validatePorts(c.Ports, s.HostNetwork, hostPorts, at.Child("ports"))...)
	errs = append(errs, validateEnv(c, at)...)
	errs = append(errs, validateMounts(c, volumes, at)...)
	errs = append(errs, ValidateResources(&c.Resources, claimNames(s), at.Child("resources"))...)
	errs = append(errs, validateProbe(c.LivenessProbe, true, at.Child("livenessProbe"))...)
	errs = append(errs, validateProbe(c.StartupProbe, true, at.Child("startupProbe"))...)
	errs = append(errs, validateProbe(c.ReadinessProbe, false, at.Child("readinessProbe"))...)
	if l := c.Lifecycle; l != nil {
		if h := l.PostStart; h != nil {
			errs = append(errs, validateHandler(h.Exec, h.HTTPGet, h.TCPSocket, nil, h.Sleep, at.Child("lifecycle", "postStart"))...)
		}
		if h := l.PreStop; h != nil {
			errs = append(errs, validateHandler(h.Exec, h.HTTPGet, h.TCPSocket, nil, h.Sleep, at.Child("lifecycle", "preStop"))...)
		}
	}
	errs = append(errs, validateSecurity(c.SecurityContext, s, at.Child("securityContext"))...)
	errs = append(errs, validateEnvFrom(c.EnvFrom, at.Child("envFrom"))...)
	return errs
}

// validateInit: only a sidecar (restartPolicy Always) has a life in which
// probes and hooks make sense.
func validateInit(c *v1.Container, at *field.Path) (errs field.ErrorList) {
	if c.RestartPolicy != nil && *c.RestartPolicy == v1.ContainerRestartPolicyAlways {
		return nil
	}
	forbid := func(set bool, name string) {
		if set {
			errs = append(errs, field.Forbidden(at.Child(name), "may not be set for init containers without restartPolicy=Always"))
		}
	}
	forbid(c.Lifecycle != nil, "lifecycle")
	forbid(c.LivenessProbe != nil, "livenessProbe")
	forbid(c.ReadinessProbe != nil, "readinessProbe")
	forbid(c.StartupProbe != nil, "startupProbe")
	return errs
}

func validatePorts(ports []v1.ContainerPort, hostNetwork bool, hostPorts sets.Set[string], at *field.Path) (errs field.ErrorList) {
	names := sets.New[string]()
	for i, p := range ports {
		at := at.Index(i)
		if p.Name != "" {
			if msgs := validation.IsValidPortName(p.Name); len(msgs) > 0 {
				for _, msg := range msgs {
					errs = append(errs, field.Invalid(at.Child("name"), p.Name, msg))
				}
			} else if names.Has(p.Name) {
				errs = append(errs, field.Duplicate(at.Child("name"), p.Name))
			} else {
				names.Insert(p.Name)
			}
		}
		if p.ContainerPort == 0 {
			errs = append(errs, field.Required(at.Child("containerPort"), ""))
		} else {
			for _, msg := range validation.IsValidPortNum(int(p.ContainerPort)) {
				errs = append(errs, field.Invalid(at.Child("containerPort"), p.ContainerPort, msg))
			}
		}
		if p.HostPort != 0 {
			for _, msg := range validation.IsValidPortNum(int(p.HostPort)) {
				errs = append(errs, field.Invalid(at.Child("hostPort"), p.HostPort, msg))
			}
			key := fmt.Sprintf("%s/%s/%d", p.Protocol, p.HostIP, p.HostPort)
			if hostPorts.Has(key) {
				errs = append(errs, field.Duplicate(at.Child("hostPort"), key))
			}
			hostPorts.Insert(key)
		}
		if hostNetwork && p.HostPort != 0 && p.HostPort != p.ContainerPort {
			errs = append(errs, field.Invalid(at.Child("containerPort"), p.ContainerPort, "must match `hostPort` when `hostNetwork` is true"))
		}
		errs = append(errs, oneOf(at.Child("protocol"), p.Protocol, v1.ProtocolTCP, v1.ProtocolUDP, v1.ProtocolSCTP)...)
	}
	return errs
}

func validateEnv(c *v1.Container, at *field.Path) (errs field.ErrorList) {
	for i := range c.Env {
		e, at := &c.Env[i], at.Child("env").Index(i)
		if e.Name == "" {
			errs = append(errs, field.Required(at.Child("name"), ""))
		} else {
			errs = append(errs, dnsName(e.Name, validation.IsRelaxedEnvVarName, at.Child("name"))...)
		}
		from, at := e.ValueFrom, at.Child("valueFrom")
		if from == nil {
			continue
		}
		n := 0
		if r := from.FieldRef; r != nil {
			n++
			errs = append(errs, validateFieldRef(r, envFields, at.Child("fieldRef"))...)
		}
		if r := from.ResourceFieldRef; r != nil {
			n++
			errs = append(errs, validateResourceRef(r, false, at.Child("resourceFieldRef"))...)
		}
		if r := from.ConfigMapKeyRef; r != nil {
			n++
			errs = append(errs, validateKey(r.Key, at.Child("configMapKeyRef", "key"))...)
		}
		if r := from.SecretKeyRef; r != nil {
			n++
			errs = append(errs, validateKey(r.Key, at.Child("secretKeyRef", "key"))...)
		}
		if from.FileKeyRef != nil {
			n++
		}
		switch {
		case n == 0:
			errs = append(errs, field.Invalid(at, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"))
		case e.Value != "":
			errs = append(errs, field.Invalid(at, "", "may not be specified when `value` is not empty"))
		case n > 1:
			errs = append(errs, field.Invalid(at, "", "may not have more than one field specified at a time"))
		}
	}
	return errs
}

func validateKey(key string, at *field.Path) field.ErrorList {
	if key == "" {
		return field.ErrorList{field.Required(at, "")}
	}
	return dnsName(key, validation.IsConfigMapKey, at)
}

func validateMounts(c *v1.Container, volumes map[string]*v1.Volume, at *field.Path) (errs field.ErrorList) {
	paths := sets.New[string]()
	for i, m := range c.VolumeMounts {
		at := at.Child("volumeMounts").Index(i)
		if m.Name == "" {
			errs = append(errs, field.Required(at.Child("name"), ""))
		} else if volumes[m.Name] == nil {
			errs = append(errs, field.NotFound(at.Child("name"), m.Name))
		}
		if m.MountPath == "" {
			errs = append(errs, field.Required(at.Child("mountPath"), ""))
		}
		if paths.Has(m.MountPath) {
			errs = append(errs, field.Invalid(at.Child("mountPath"), m.MountPath, "must be unique"))
		}
		paths.Insert(m.MountPath)
		errs = append(errs, validateInside(m.SubPath, at.Child("subPath"))...)
		if m.SubPath != "" && m.SubPathExpr != "" {
			errs = append(errs, field.Invalid(at.Child("subPathExpr"), m.SubPathExpr, "subPathExpr and subPath are mutually exclusive"))
		}
		errs = append(errs, validateInside(m.SubPathExpr, at.Child("subPathExpr"))...)
	}
	return errs
}

func validateProbe(p *v1.Probe, once bool, at *field.Path) field.ErrorList {
	if p == nil {
		return nil
	}
	errs := validateHandler(p.Exec, p.HTTPGet, p.TCPSocket, p.GRPC, nil, at)
	for _, f := range []struct {
		name  string
		value int32
	}{
		{"initialDelaySeconds", p.InitialDelaySeconds}, {"timeoutSeconds", p.TimeoutSeconds}, {"periodSeconds", p.PeriodSeconds},
		{"successThreshold", p.SuccessThreshold}, {"failureThreshold", p.FailureThreshold},
	} {
		errs = append(errs, apivalidation.ValidateNonnegativeField(int64(f.value), at.Child(f.name))...)
	}
	if once && p.SuccessThreshold != 1 {
		errs = append(errs, field.Invalid(at.Child("successThreshold"), p.SuccessThreshold, "must be 1"))
	}
	if t := p.TerminationGracePeriodSeconds; t != nil {
		if !once {
			errs = append(errs, field.Invalid(at.Child("terminationGracePeriodSeconds"), *t, "must not be set for readinessProbes"))
		} else if *t <= 0 {
			errs = append(errs, field.Invalid(at.Child("terminationGracePeriodSeconds"), *t, "must be greater than 0"))
		}
	}
	return errs
}

func validateHandler(exec *v1.ExecAction, get *v1.HTTPGetAction, tcp *v1.TCPSocketAction, grpc *v1.GRPCAction, sleep *v1.SleepAction, at *field.Path) (errs field.ErrorList) {
	n := 0
	// only says whether name is the first handler; the others are refused.
	only := func(name string) bool {
		n++
		if n > 1 {
			errs = append(errs, field.Forbidden(at.Child(name), "may not specify more than 1 handler type"))
		}
		return n == 1
	}
	if exec != nil && only("exec") && len(exec.Command) == 0 {
		errs = append(errs, field.Required(at.Child("exec", "command"), ""))
	}
	if get != nil && only("httpGet") {
		if get.Path == "" {
			errs = append(errs, field.Required(at.Child("httpGet", "path"), ""))
		}
		errs = append(errs, validatePort(get.Port, at.Child("httpGet", "port"))...)
		errs = append(errs, oneOf(at.Child("httpGet", "scheme"), get.Scheme, v1.URISchemeHTTP, v1.URISchemeHTTPS)...)
	}
	if tcp != nil && only("tcpSocket") {
		errs = append(errs, validatePort(tcp.Port, at.Child("tcpSocket", "port"))...)
	}
	if grpc != nil && only("grpc") {
		errs = append(errs, validatePort(intstr.FromInt32(grpc.Port), at.Child("grpc", "port"))...)
	}
	if sleep != nil {
		only("sleep")
	}
	if n == 0 {
		errs = append(errs, field.Required(at, "must specify a handler type"))
	}
	return errs
}

func validatePort(p intstr.IntOrString, at *field.Path) (errs field.ErrorList) {
	if p.Type == intstr.Int {
		for _, msg := range validation.IsValidPortNum(p.IntValue()) {
			errs = append(errs, field.Invalid(at, p.IntValue(), msg))
		}
		return errs
	}
	return dnsName(p.StrVal, validation.IsValidPortName, at)
}

func validateTolerations(list []v1.Toleration, at *field.Path) (errs field.ErrorList) {
	for i, t := range list {
		at := at.Index(i)
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
			for _, msg := range validation.IsValidLabelValue(t.Value) {
				errs = append(errs, field.Invalid(at.Child("operator"), t.Value, msg))
			}
		case v1.TolerationOpExists:
			if t.Value != "" {
				errs = append(errs, field.Invalid(at.Child("operator"), t, "value must be empty when `operator` is 'Exists'"))
			}
		default:
			errs = append(errs, field.NotSupported(at.Child("operator"), t.Operator, []v1.TolerationOperator{v1.TolerationOpEqual, v1.TolerationOpExists}))
		}
		if t.Effect != "" {
			errs = append(errs, oneOf(at.Child("effect"), t.Effect, v1.TaintEffectNoSchedule, v1.TaintEffectPreferNoSchedule, v1.TaintEffectNoExecute)...)
		}
	}
	return errs
}
