package podspec

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	v1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

var (
	messagePolicies   = []v1.TerminationMessagePolicy{v1.TerminationMessageReadFile, v1.TerminationMessageFallbackToLogsOnError}
	pullPolicies      = []v1.PullPolicy{v1.PullAlways, v1.PullIfNotPresent, v1.PullNever}
	portProtocols     = []v1.Protocol{v1.ProtocolSCTP, v1.ProtocolTCP, v1.ProtocolUDP}
	schemes           = []v1.URIScheme{v1.URISchemeHTTP, v1.URISchemeHTTPS}
	propagations      = []v1.MountPropagationMode{v1.MountPropagationBidirectional, v1.MountPropagationHostToContainer, v1.MountPropagationNone}
	readOnlyModes     = []v1.RecursiveReadOnlyMode{v1.RecursiveReadOnlyDisabled, v1.RecursiveReadOnlyEnabled, v1.RecursiveReadOnlyIfPossible}
	resizable         = []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory}
	resizePolicies    = []v1.ResourceResizeRestartPolicy{v1.NotRequired, v1.RestartContainer}
	containerRestarts = []v1.ContainerRestartPolicy{v1.ContainerRestartPolicyAlways, v1.ContainerRestartPolicyNever, v1.ContainerRestartPolicyOnFailure}
	restartActions    = []v1.ContainerRestartRuleAction{v1.ContainerRestartRuleActionRestart, v1.ContainerRestartRuleActionRestartAllContainers}
	exitCodeOperators = []v1.ContainerRestartRuleOnExitCodesOperator{v1.ContainerRestartRuleOnExitCodesOpIn, v1.ContainerRestartRuleOnExitCodesOpNotIn}
)

// Bounds of a container's restart rules.
const (
	maxRestartRules = 20
	maxExitCodes    = 255
)

// sidecar reports whether c, an init container, runs as long as its pod.
func sidecar(c *v1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == v1.ContainerRestartPolicyAlways
}

// validateContainers checks the regular containers.
func (c *checker) validateContainers(at *field.Path) (errs field.ErrorList) {
	if len(c.spec.Containers) == 0 {
		return field.ErrorList{field.Required(at, "")}
	}
	names, ports := sets.New[string](), sets.New[string]()
	for i := range c.spec.Containers {
		k, at := &c.spec.Containers[i], at.Index(i)
		errs = append(errs, c.container(k, at)...)
		errs = append(errs, unique(k.Name, names, at)...)
		errs = append(errs, c.life(k, at)...)
		errs = append(errs, validateRestart(k, at)...)
		errs = append(errs, uniquePorts(k, ports, at)...)
	}
	return errs
}

// validateInitContainers checks the init containers. Only sidecars may have
// probes and hooks: the others run to their end.
func (c *checker) validateInitContainers(at *field.Path) (errs field.ErrorList) {
	if len(c.spec.InitContainers) == 0 {
		return nil
	}
	names := sets.New[string]()
	for i := range c.spec.Containers {
		names.Insert(c.spec.Containers[i].Name)
	}
	for i := range c.spec.InitContainers {
		k, at := &c.spec.InitContainers[i], at.Index(i)
		errs = append(errs, c.container(k, at)...)
		errs = append(errs, validateRestart(k, at)...)
		errs = append(errs, unique(k.Name, names, at)...)
		// They run one after another, so they may share ports.
		errs = append(errs, uniquePorts(k, sets.New[string](), at)...)
		if sidecar(k) {
			errs = append(errs, c.life(k, at)...)
			continue
		}
		for _, f := range [...]struct {
			name string
			set  bool
		}{{"lifecycle", k.Lifecycle != nil}, {"livenessProbe", k.LivenessProbe != nil}, {"readinessProbe", k.ReadinessProbe != nil}, {"startupProbe", k.StartupProbe != nil}} {
			if f.set {
				errs = append(errs, field.Forbidden(at.Child(f.name), "may not be set for init containers without restartPolicy=Always"))
			}
		}
	}
	return errs
}

const notEphemeral = "cannot be set for an Ephemeral Container"

// validateEphemeralContainers checks the ephemeral containers. Fields that make
// sense only for lasting containers cannot be set.
func (c *checker) validateEphemeralContainers(at *field.Path) (errs field.ErrorList) {
	if len(c.spec.EphemeralContainers) == 0 {
		return nil
	}
	names, targets := sets.New[string](), sets.New[string]()
	for _, l := range lists(c.spec) {
		for i := range l.containers {
			names.Insert(l.containers[i].Name)
			targets.Insert(l.containers[i].Name)
		}
	}
	for i := range c.spec.EphemeralContainers {
		e, at := &c.spec.EphemeralContainers[i], at.Index(i)
		k := (*v1.Container)(&e.EphemeralContainerCommon)
		errs = append(errs, c.container(k, at)...)
		if !trimmed(k.Image) {
			errs = append(errs, untrimmed(k.Image, at))
		}
		errs = append(errs, unique(k.Name, names, at)...)
		if e.TargetContainerName != "" && !targets.Has(e.TargetContainerName) {
			errs = append(errs, field.NotFound(at.Child("targetContainerName"), e.TargetContainerName))
		}
		rest := e.EphemeralContainerCommon
		rest.Name, rest.Image, rest.Command, rest.Args, rest.WorkingDir, rest.EnvFrom, rest.Env = "", "", nil, nil, "", nil, nil
		rest.VolumeMounts, rest.VolumeDevices, rest.TerminationMessagePath, rest.TerminationMessagePolicy = nil, nil, "", ""
		rest.ImagePullPolicy, rest.SecurityContext, rest.Stdin, rest.StdinOnce, rest.TTY = "", nil, false, false, false
		errs = append(errs, nothingSet(rest, notEphemeral, at)...)
		for j, m := range e.VolumeMounts {
			if m.SubPath != "" {
				errs = append(errs, field.Forbidden(at.Child("volumeMounts").Index(j).Child("subPath"), notEphemeral))
			}
			if m.SubPathExpr != "" {
				errs = append(errs, field.Forbidden(at.Child("volumeMounts").Index(j).Child("subPathExpr"), notEphemeral))
			}
		}
	}
	return errs
}

// unique checks that name is not in seen, and adds it.
func unique(name string, seen sets.Set[string], at *field.Path) field.ErrorList {
	if seen.Has(name) {
		return field.ErrorList{field.Duplicate(at.Child("name"), name)}
	}
	if name != "" {
		seen.Insert(name)
	}
	return nil
}

// uniquePorts checks that the container's host ports are not in seen, and adds
// them.
func uniquePorts(k *v1.Container, seen sets.Set[string], at *field.Path) (errs field.ErrorList) {
	for i := range k.Ports {
		p := &k.Ports[i]
		if p.HostPort == 0 {
			continue
		}
		key := fmt.Sprintf("%s/%s/%d", p.Protocol, p.HostIP, p.HostPort)
		if seen.Has(key) {
			errs = append(errs, field.Duplicate(at.Child("ports").Index(i).Child("hostPort"), key))
		}
		seen.Insert(key)
	}
	return errs
}

// trimmed reports whether image has no space around it. In a template, it may
// be a placeholder that has.
func trimmed(image string) bool { return strings.TrimSpace(image) == image }

func untrimmed(image string, at *field.Path) *field.Error {
	return field.Invalid(at.Child("image"), image, "must not have leading or trailing whitespace")
}

// container checks what all kinds of containers have.
func (c *checker) container(k *v1.Container, at *field.Path) (errs field.ErrorList) {
	if k.Name == "" {
		errs = append(errs, field.Required(at.Child("name"), ""))
	} else {
		errs = append(errs, conforms(k.Name, validation.IsDNS1123Label, at, "name")...)
	}
	errs = append(errs, required(k.Image, at, "image")...)
	errs = append(errs, oneOf(k.TerminationMessagePolicy, messagePolicies, at, "terminationMessagePolicy")...)
	errs = append(errs, validatePorts(k.Ports, at.Child("ports"))...)
	errs = append(errs, validateEnv(k.Env, at.Child("env"))...)
	errs = append(errs, validateEnvFrom(k.EnvFrom, at.Child("envFrom"))...)
	errs = append(errs, c.validateMounts(k, at.Child("volumeMounts"))...)
	errs = append(errs, c.validateDevices(k, at.Child("volumeDevices"))...)
	errs = append(errs, oneOf(k.ImagePullPolicy, pullPolicies, at, "imagePullPolicy")...)
	errs = append(errs, ValidateResources(&k.Resources, c.claims, at.Child("resources"))...)
	errs = append(errs, c.validateResizePolicy(k.ResizePolicy, at.Child("resizePolicy"))...)
	return append(errs, c.validateSecurity(k.SecurityContext, at.Child("securityContext"))...)
}

// life checks the hooks and probes of a container.
func (c *checker) life(k *v1.Container, at *field.Path) (errs field.ErrorList) {
	if l := k.Lifecycle; l != nil {
		if h := l.PostStart; h != nil {
			errs = append(errs, c.handler(h.Exec, h.HTTPGet, h.TCPSocket, nil, h.Sleep, at.Child("lifecycle", "postStart"))...)
		}
		if h := l.PreStop; h != nil {
			errs = append(errs, c.handler(h.Exec, h.HTTPGet, h.TCPSocket, nil, h.Sleep, at.Child("lifecycle", "preStop"))...)
		}
		errs = append(errs, c.validateStopSignal(l.StopSignal, at)...)
	}
	errs = append(errs, c.probe(k.LivenessProbe, true, at, "livenessProbe")...)
	errs = append(errs, c.probe(k.ReadinessProbe, false, at, "readinessProbe")...)
	return append(errs, c.probe(k.StartupProbe, true, at, "startupProbe")...)
}

// validateStopSignal checks that the pod's operating system has the signal.
func (c *checker) validateStopSignal(s *v1.Signal, at *field.Path) field.ErrorList {
	switch {
	case s == nil:
		return nil
	case c.spec.OS == nil:
		return field.ErrorList{field.Forbidden(at.Child("lifecycle", "stopSignal"), "may not be set for containers with empty `spec.os.name`")}
	case c.spec.OS.Name == v1.Windows:
		return among(*s, []v1.Signal{v1.SIGKILL, v1.SIGTERM}, at, "lifecycle", "stopSignal")
	}
	return among(*s, linuxSignals(), at, "lifecycle", "stopSignal")
}

// linuxSignals are the ones with names, and the real-time ones, counted from
// either end.
var linuxSignals = sync.OnceValue(func() []v1.Signal {
	all := []v1.Signal{v1.SIGABRT, v1.SIGALRM, v1.SIGBUS, v1.SIGCHLD, v1.SIGCLD, v1.SIGCONT, v1.SIGFPE, v1.SIGHUP, v1.SIGILL, v1.SIGINT, v1.SIGIO, v1.SIGIOT,
		v1.SIGKILL, v1.SIGPIPE, v1.SIGPOLL, v1.SIGPROF, v1.SIGPWR, v1.SIGQUIT, v1.SIGSEGV, v1.SIGSTKFLT, v1.SIGSTOP, v1.SIGSYS, v1.SIGTERM, v1.SIGTRAP, v1.SIGTSTP,
		v1.SIGTTIN, v1.SIGTTOU, v1.SIGURG, v1.SIGUSR1, v1.SIGUSR2, v1.SIGVTALRM, v1.SIGWINCH, v1.SIGXCPU, v1.SIGXFSZ, v1.SIGRTMIN, v1.SIGRTMAX}
	for i := 1; i <= 15; i++ {
		all = append(all, v1.Signal(fmt.Sprintf("%s+%d", v1.SIGRTMIN, i)))
	}
	for i := 1; i <= 14; i++ {
		all = append(all, v1.Signal(fmt.Sprintf("%s-%d", v1.SIGRTMAX, i)))
	}
	slices.Sort(all)
	return all
})

// validateRestart checks when a container is started anew by itself.
func validateRestart(k *v1.Container, at *field.Path) (errs field.ErrorList) {
	if k.RestartPolicy == nil {
		if len(k.RestartPolicyRules) > 0 {
			errs = append(errs, field.Required(at.Child("restartPolicy"), "must specify restartPolicy when restart rules are used"))
		}
		return errs
	}
	errs = append(errs, among(*k.RestartPolicy, containerRestarts, at, "restartPolicy")...)
	if n := len(k.RestartPolicyRules); n > maxRestartRules {
		errs = append(errs, field.TooMany(at.Child("restartPolicyRules"), n, maxRestartRules))
	}
	for i, r := range k.RestartPolicyRules {
		at := at.Child("restartPolicyRules").Index(i)
		errs = append(errs, among(r.Action, restartActions, at, "action")...)
		if r.ExitCodes == nil {
			errs = append(errs, field.Required(at.Child("exitCodes"), "must be specified"))
			continue
		}
		errs = append(errs, among(r.ExitCodes.Operator, exitCodeOperators, at, "exitCodes", "operator")...)
		if n := len(r.ExitCodes.Values); n > maxExitCodes {
			errs = append(errs, field.TooMany(at.Child("exitCodes", "values"), n, maxExitCodes))
		}
	}
	return errs
}

func validatePorts(ports []v1.ContainerPort, at *field.Path) (errs field.ErrorList) {
	if len(ports) == 0 {
		return nil
	}
	names := sets.New[string]()
	for i := range ports {
		p, at := &ports[i], at.Index(i)
		if p.Name != "" {
			if bad := conforms(p.Name, validation.IsValidPortName, at, "name"); len(bad) > 0 {
				errs = append(errs, bad...)
			} else {
				errs = append(errs, unique(p.Name, names, at)...)
			}
		}
		if p.ContainerPort == 0 {
			errs = append(errs, field.Required(at.Child("containerPort"), ""))
		} else {
			errs = append(errs, portNumber(p.ContainerPort, at, "containerPort")...)
		}
		if p.HostPort != 0 {
			errs = append(errs, portNumber(p.HostPort, at, "hostPort")...)
		}
		errs = append(errs, oneOf(p.Protocol, portProtocols, at, "protocol")...)
	}
	return errs
}

func portNumber(n int32, at *field.Path, name string) (errs field.ErrorList) {
	for _, msg := range validation.IsValidPortNum(int(n)) {
		errs = append(errs, field.Invalid(at.Child(name), n, msg))
	}
	return errs
}

// validateMounts checks the container's volume mounts. Errors are reported at
// the list, not at its member, as upstream does.
func (c *checker) validateMounts(k *v1.Container, at *field.Path) (errs field.ErrorList) {
	for i := range k.VolumeMounts {
		m, list, at := &k.VolumeMounts[i], at, at.Index(i)
		errs = append(errs, required(m.Name, at, "name")...)
		if c.volumes[m.Name] == nil {
			errs = append(errs, field.NotFound(at.Child("name"), m.Name))
		}
		errs = append(errs, required(m.MountPath, at, "mountPath")...)
		for j := range i {
			if k.VolumeMounts[j].MountPath == m.MountPath {
				errs = append(errs, field.Invalid(at.Child("mountPath"), m.MountPath, "must be unique"))
				break
			}
		}
		name, path := false, false
		for _, d := range k.VolumeDevices {
			name, path = name || d.Name == m.Name, path || d.DevicePath == m.MountPath
		}
		if name {
			errs = append(errs, field.Invalid(at.Child("name"), m.Name, "must not already exist in volumeDevices"))
		}
		if path {
			errs = append(errs, field.Invalid(at.Child("mountPath"), m.MountPath, "must not already exist as a path in volumeDevices"))
		}
		errs = append(errs, validateInside(m.SubPath, list, "subPath")...)
		if m.SubPath != "" && m.SubPathExpr != "" {
			errs = append(errs, field.Invalid(at.Child("subPathExpr"), m.SubPathExpr, "subPathExpr and subPath are mutually exclusive"))
		}
		errs = append(errs, validateInside(m.SubPathExpr, list, "subPathExpr")...)
		if p := m.MountPropagation; p != nil {
			errs = append(errs, among(*p, propagations, list, "mountPropagation")...)
			if s := k.SecurityContext; *p == v1.MountPropagationBidirectional && (s == nil || s.Privileged == nil || !*s.Privileged) {
				errs = append(errs, field.Forbidden(list.Child("mountPropagation"), "Bidirectional mount propagation is available only to privileged containers"))
			}
		}
		errs = append(errs, validateReadOnly(m, list)...)
	}
	return errs
}

func validateReadOnly(m *v1.VolumeMount, list *field.Path) (errs field.ErrorList) {
	if m.RecursiveReadOnly == nil || *m.RecursiveReadOnly == v1.RecursiveReadOnlyDisabled {
		return nil
	}
	if bad := among(*m.RecursiveReadOnly, readOnlyModes, list, "recursiveReadOnly"); len(bad) > 0 {
		return bad
	}
	if !m.ReadOnly {
		errs = append(errs, field.Forbidden(list.Child("recursiveReadOnly"), "may only be specified when readOnly is true"))
	}
	if m.MountPropagation != nil && *m.MountPropagation != v1.MountPropagationNone {
		errs = append(errs, field.Forbidden(list.Child("recursiveReadOnly"), "may only be specified when mountPropagation is None or not specified"))
	}
	return errs
}

func (c *checker) validateDevices(k *v1.Container, at *field.Path) (errs field.ErrorList) {
	for i := range k.VolumeDevices {
		d, at := &k.VolumeDevices[i], at.Index(i)
		errs = append(errs, required(d.Name, at, "name")...)
		name, path := false, false
		for _, o := range k.VolumeDevices[:i] {
			name, path = name || o.Name == d.Name && d.Name != "", path || o.DevicePath == d.DevicePath
		}
		if name {
			errs = append(errs, field.Invalid(at.Child("name"), d.Name, "must be unique"))
		}
		switch v := c.volumes[d.Name]; {
		case v == nil:
			errs = append(errs, field.NotFound(at.Child("name"), d.Name))
		case v.PersistentVolumeClaim == nil && v.Ephemeral == nil:
			errs = append(errs, field.Invalid(at.Child("name"), d.Name, "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"))
		}
		errs = append(errs, required(d.DevicePath, at, "devicePath")...)
		if path {
			errs = append(errs, field.Invalid(at.Child("devicePath"), d.DevicePath, "must be unique"))
		}
		if climbs(d.DevicePath) {
			errs = append(errs, field.Invalid(at.Child("devicePath"), d.DevicePath, "can not contain backsteps ('..')"))
		}
		name, path = false, false
		for _, m := range k.VolumeMounts {
			name, path = name || m.Name == d.Name, path || m.MountPath == d.DevicePath
		}
		if name {
			errs = append(errs, field.Invalid(at.Child("name"), d.Name, "must not already exist in volumeMounts"))
		}
		if path {
			errs = append(errs, field.Invalid(at.Child("devicePath"), d.DevicePath, "must not already exist as a path in volumeMounts"))
		}
	}
	return errs
}

func (c *checker) validateResizePolicy(list []v1.ContainerResizePolicy, at *field.Path) (errs field.ErrorList) {
	for i, p := range list {
		for _, o := range list[:i] {
			if o.ResourceName == p.ResourceName {
				errs = append(errs, field.Duplicate(at.Index(i), p.ResourceName))
				break
			}
		}
		if p.ResourceName == "" {
			errs = append(errs, field.Required(at, ""))
		} else if p.ResourceName != v1.ResourceCPU && p.ResourceName != v1.ResourceMemory {
			errs = append(errs, field.NotSupported(at, p.ResourceName, resizable))
		}
		if p.RestartPolicy == "" {
			errs = append(errs, field.Required(at, ""))
		} else if p.RestartPolicy != v1.NotRequired && p.RestartPolicy != v1.RestartContainer {
			errs = append(errs, field.NotSupported(at, p.RestartPolicy, resizePolicies))
		}
		if c.spec.RestartPolicy == v1.RestartPolicyNever && p.RestartPolicy != v1.NotRequired {
			errs = append(errs, field.Invalid(at, p.RestartPolicy, "must be 'NotRequired' when `restartPolicy` is 'Never'"))
		}
	}
	return errs
}

// probe checks a probe. If once is set, its success threshold must be 1, as for
// liveness and startup probes.
func (c *checker) probe(p *v1.Probe, once bool, at *field.Path, name string) field.ErrorList {
	if p == nil {
		return nil
	}
	at = at.Child(name)
	errs := c.handler(p.Exec, p.HTTPGet, p.TCPSocket, p.GRPC, nil, at)
	errs = append(errs, nonnegative(int64(p.InitialDelaySeconds), at, "initialDelaySeconds")...)
	errs = append(errs, nonnegative(int64(p.TimeoutSeconds), at, "timeoutSeconds")...)
	errs = append(errs, nonnegative(int64(p.PeriodSeconds), at, "periodSeconds")...)
	errs = append(errs, nonnegative(int64(p.SuccessThreshold), at, "successThreshold")...)
	errs = append(errs, nonnegative(int64(p.FailureThreshold), at, "failureThreshold")...)
	if t := p.TerminationGracePeriodSeconds; t != nil && *t <= 0 {
		errs = append(errs, field.Invalid(at.Child("terminationGracePeriodSeconds"), *t, "must be greater than 0"))
	}
	if once && p.SuccessThreshold != 1 {
		errs = append(errs, field.Invalid(at.Child("successThreshold"), p.SuccessThreshold, "must be 1"))
	}
	if t := p.TerminationGracePeriodSeconds; t != nil && !once {
		errs = append(errs, field.Invalid(at.Child("terminationGracePeriodSeconds"), *t, "must not be set for readinessProbes"))
	}
	return errs
}

// handler checks what is done at a probe or a hook: one thing.
func (c *checker) handler(exec *v1.ExecAction, get *v1.HTTPGetAction, tcp *v1.TCPSocketAction, grpc *v1.GRPCAction, sleep *v1.SleepAction, at *field.Path) (errs field.ErrorList) {
	n := 0
	// only reports whether name is the first handler; the others are refused.
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
		errs = append(errs, required(get.Path, at, "httpGet", "path")...)
		errs = append(errs, validatePort(get.Port, at, "httpGet")...)
		errs = append(errs, among(get.Scheme, schemes, at, "httpGet", "scheme")...)
		for _, h := range get.HTTPHeaders {
			errs = append(errs, conforms(h.Name, validation.IsHTTPHeaderName, at, "httpGet", "httpHeaders")...)
		}
	}
	if tcp != nil && only("tcpSocket") {
		errs = append(errs, validatePort(tcp.Port, at, "tcpSocket")...)
	}
	if grpc != nil && only("grpc") {
		errs = append(errs, validatePort(intstr.FromInt32(grpc.Port), at, "grpc")...)
	}
	if sleep != nil && only("sleep") {
		if grace := c.spec.TerminationGracePeriodSeconds; grace != nil && (sleep.Seconds < 0 || sleep.Seconds > *grace) {
			errs = append(errs, field.Invalid(at.Child("sleep"), sleep.Seconds, fmt.Sprintf("must be non-negative and less than terminationGracePeriodSeconds (%d)", *grace)))
		}
	}
	if n == 0 {
		errs = append(errs, field.Required(at, "must specify a handler type"))
	}
	return errs
}

func validatePort(p intstr.IntOrString, at *field.Path, handler string) (errs field.ErrorList) {
	if p.Type == intstr.String {
		return conforms(p.StrVal, validation.IsValidPortName, at, handler, "port")
	}
	for _, msg := range validation.IsValidPortNum(p.IntValue()) {
		errs = append(errs, field.Invalid(at.Child(handler, "port"), p.IntValue(), msg))
	}
	return errs
}

// name of an object, as the prefix of a generated one may be.
func objectName(name string) []string { return apivalidation.NameIsDNSSubdomain(name, true) }
