package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/node/downward"
)

// termMessageMax is how much of a termination message is read, in bytes.
const termMessageMax = 4096

// containerHash changes with what a running container cannot take on.
func containerHash(c *v1.Container) string {
	b, err := json.Marshal(struct {
		Name, Image string
	}{c.Name, c.Image})
	if err != nil {
		return ""
	}
	h := fnv.New32a()
	h.Write(b)
	return strconv.FormatUint(uint64(h.Sum32()), 16)
}

func int64Value(v *int64) *runtimeapi.Int64Value {
	if v == nil {
		return nil
	}
	return &runtimeapi.Int64Value{Value: *v}
}

// groups are the further groups of a pod's processes.
func groups(s *v1.PodSecurityContext) []int64 {
	out := slices.Clone(s.SupplementalGroups)
	if s.FSGroup != nil {
		out = append(out, *s.FSGroup)
	}
	return out
}

func groupsPolicy(pod *v1.Pod) runtimeapi.SupplementalGroupsPolicy {
	if strictGroups(pod) {
		return runtimeapi.SupplementalGroupsPolicy_Strict
	}
	return runtimeapi.SupplementalGroupsPolicy_Merge
}

// appArmorOf is the container's own profile, else its pod's, nil for none.
func appArmorOf(pod *v1.Pod, c *v1.Container) *v1.AppArmorProfile {
	if s := c.SecurityContext; s != nil && s.AppArmorProfile != nil {
		return s.AppArmorProfile
	}
	if s := pod.Spec.SecurityContext; s != nil {
		return s.AppArmorProfile
	}
	return nil
}

// appArmorEnabled reports whether the machine's kernel enforces AppArmor.
func appArmorEnabled() bool {
	b, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	return err == nil && strings.HasPrefix(string(b), "Y")
}

// appArmor gives a profile in both forms that runtimes know: that of CRI v1,
// and the older one.
func appArmor(p *v1.AppArmorProfile) (*runtimeapi.SecurityProfile, string) {
	if p == nil {
		return nil, ""
	}
	switch p.Type {
	case v1.AppArmorProfileTypeRuntimeDefault:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}, v1.DeprecatedAppArmorBetaProfileRuntimeDefault
	case v1.AppArmorProfileTypeLocalhost:
		name := ptr.Deref(p.LocalhostProfile, "")
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: name}, v1.DeprecatedAppArmorBetaProfileNamePrefix + name
	}
	return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}, v1.DeprecatedAppArmorBetaProfileNameUnconfined
}

func selinux(o *v1.SELinuxOptions) *runtimeapi.SELinuxOption {
	if o == nil {
		return nil
	}
	return &runtimeapi.SELinuxOption{User: o.User, Role: o.Role, Type: o.Type, Level: o.Level}
}

func seccomp(pod, c *v1.SeccompProfile) *runtimeapi.SecurityProfile {
	p := c
	if p == nil {
		p = pod
	}
	if p == nil {
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
	}
	switch p.Type {
	case v1.SeccompProfileTypeRuntimeDefault:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
	case v1.SeccompProfileTypeLocalhost:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: filepath.Join("/var/lib/kubelet/seccomp", ptr.Deref(p.LocalhostProfile, ""))}
	}
	return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
}

// securityContext merges the pod's and the container's, the container's first.
func (w *worker) securityContext(ctx context.Context, pod *v1.Pod, c *v1.Container, image string) (*runtimeapi.LinuxContainerSecurityContext, error) {
	ps, cs := pod.Spec.SecurityContext, c.SecurityContext
	if ps == nil {
		ps = &v1.PodSecurityContext{}
	}
	if cs == nil {
		cs = &v1.SecurityContext{}
	}
	out := &runtimeapi.LinuxContainerSecurityContext{
		NamespaceOptions:   namespaces(pod, c),
		SupplementalGroups: groups(ps), SupplementalGroupsPolicy: groupsPolicy(pod),
		Privileged:     ptr.Deref(cs.Privileged, false),
		ReadonlyRootfs: ptr.Deref(cs.ReadOnlyRootFilesystem, false),
		NoNewPrivs:     cs.AllowPrivilegeEscalation != nil && !*cs.AllowPrivilegeEscalation,
		Seccomp:        seccomp(ps.SeccompProfile, cs.SeccompProfile),
		MaskedPaths:    []string{"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"},
		ReadonlyPaths:  []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
	}
	var err error
	if out.NamespaceOptions.UsernsOptions, err = w.a.usersIn(pod); err != nil {
		return nil, err
	}
	out.Apparmor, out.ApparmorProfile = appArmor(appArmorOf(pod, c))
	if ptr.Deref(cs.ProcMount, v1.DefaultProcMount) == v1.UnmaskedProcMount {
		out.MaskedPaths, out.ReadonlyPaths = nil, nil
	}
	user, group := ps.RunAsUser, ps.RunAsGroup
	if cs.RunAsUser != nil {
		user = cs.RunAsUser
	}
	if cs.RunAsGroup != nil {
		group = cs.RunAsGroup
	}
	st, err := w.a.cri.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: image}})
	if err != nil {
		return nil, err
	}
	if user == nil && st.Image != nil {
		if st.Image.Uid != nil {
			user = &st.Image.Uid.Value
		} else if n := st.Image.Username; n != "" {
			out.RunAsUsername = n
		}
	}
	out.RunAsUser, out.RunAsGroup = int64Value(user), int64Value(group)
	nonRoot := ps.RunAsNonRoot
	if cs.RunAsNonRoot != nil {
		nonRoot = cs.RunAsNonRoot
	}
	if ptr.Deref(nonRoot, false) {
		switch {
		case user != nil && *user == 0 && (cs.RunAsUser != nil || ps.RunAsUser != nil):
			return nil, fmt.Errorf("container's runAsUser breaks non-root policy (pod: %q, container: %s)", pod.Name+"_"+pod.Namespace+"("+string(pod.UID)+")", c.Name)
		case out.RunAsUsername != "":
			return nil, fmt.Errorf("container has runAsNonRoot and image has non-numeric user (%s), cannot verify user is non-root (pod: %q, container: %s)", out.RunAsUsername, pod.Name+"_"+pod.Namespace+"("+string(pod.UID)+")", c.Name)
		case user == nil || *user == 0:
			return nil, fmt.Errorf("container has runAsNonRoot and image will run as root (pod: %q, container: %s)", pod.Name+"_"+pod.Namespace+"("+string(pod.UID)+")", c.Name)
		}
	}
	if caps := cs.Capabilities; caps != nil {
		out.Capabilities = &runtimeapi.Capability{}
		for _, k := range caps.Add {
			out.Capabilities.AddCapabilities = append(out.Capabilities.AddCapabilities, string(k))
		}
		for _, k := range caps.Drop {
			out.Capabilities.DropCapabilities = append(out.Capabilities.DropCapabilities, string(k))
		}
	}
	out.SelinuxOptions = selinux(ps.SELinuxOptions)
	if cs.SELinuxOptions != nil {
		out.SelinuxOptions = selinux(cs.SELinuxOptions)
	}
	return out, nil
}

// containerConfig is the container as CRI describes it.
func (w *worker) containerConfig(ctx context.Context, pod *v1.Pod, c *v1.Container, image string, ips []string, count int32) (*runtimeapi.ContainerConfig, error) {
	env, err := w.environment(ctx, pod, c, ips)
	if err != nil {
		return nil, err
	}
	sec, err := w.securityContext(ctx, pod, c, image)
	if err != nil {
		return nil, err
	}
	values := map[string]string{}
	for _, e := range env {
		values[e.Key] = string(e.Value)
	}
	expandAll := func(in []string) []string {
		out := make([]string, len(in))
		for i := range in {
			out[i] = expand(in[i], values)
		}
		return out
	}
	mounts, err := w.mounts(ctx, pod, c, ips, count, values)
	if err != nil {
		return nil, err
	}
	if target := targetOf(pod, c.Name); target != "" {
		if sec.NamespaceOptions, err = w.targetNamespaces(ctx, sec.NamespaceOptions, target); err != nil {
			return nil, err
		}
	}
	cfg := &runtimeapi.ContainerConfig{
		Metadata:   &runtimeapi.ContainerMetadata{Name: c.Name, Attempt: uint32(count)},
		Image:      &runtimeapi.ImageSpec{Image: image, UserSpecifiedImage: c.Image},
		Command:    expandAll(c.Command),
		Args:       expandAll(c.Args),
		WorkingDir: c.WorkingDir,
		Envs:       env,
		Mounts:     mounts,
		Labels:     map[string]string{labelPodName: pod.Name, labelPodNamespace: pod.Namespace, labelPodUID: string(pod.UID), labelContainerName: c.Name},
		Annotations: map[string]string{annHash: containerHash(c), annRestartCount: strconv.Itoa(int(count)), annTermPath: c.TerminationMessagePath,
			annTermPolicy: string(c.TerminationMessagePolicy), annPodGrace: strconv.FormatInt(gracePeriod(pod), 10)},
		LogPath:    logPath(c.Name, count),
		Stdin:      c.Stdin,
		StdinOnce:  c.StdinOnce,
		Tty:        c.TTY,
		Linux:      &runtimeapi.LinuxContainerConfig{Resources: w.linuxResources(pod, c), SecurityContext: sec},
		StopSignal: stopSignal(c),
	}
	if len(cfg.Command) == 0 {
		cfg.Command = nil
	}
	return cfg, nil
}

// termFile is where a container's termination message is on the machine.
func (a *Agent) termFile(pod *v1.Pod, container string, count int32) string {
	return filepath.Join(a.podDir(pod.UID), "containers", container, strconv.Itoa(int(count)))
}

func (w *worker) mounts(ctx context.Context, pod *v1.Pod, c *v1.Container, ips []string, count int32, env map[string]string) ([]*runtimeapi.Mount, error) {
	var out []*runtimeapi.Mount
	hosts := false
	for i := range c.VolumeMounts {
		m := &c.VolumeMounts[i]
		vol, ok := w.volumes[m.Name]
		if !ok {
			return nil, fmt.Errorf("cannot find volume %q to mount into container %q", m.Name, c.Name)
		}
		path := vol.HostPath
		sub := m.SubPath
		if m.SubPathExpr != "" {
			sub = expand(m.SubPathExpr, env)
		}
		if sub != "" {
			var err error
			if path, err = w.a.Volumes.SubPath(w.uid, vol, m.Name, c.Name, i, sub); err != nil {
				return nil, fmt.Errorf("failed to prepare subPath for volumeMount %q of container %q: %w", m.Name, c.Name, err)
			}
		}
		mount := &runtimeapi.Mount{ContainerPath: m.MountPath, HostPath: path, Readonly: m.ReadOnly || vol.ReadOnly, SelinuxRelabel: vol.Relabel && selinuxEnabled()}
		var err error
		if mount.RecursiveReadOnly, err = w.recursiveReadOnly(ctx, pod, m); err != nil {
			return nil, err
		}
		if m.MountPropagation != nil {
			switch *m.MountPropagation {
			case v1.MountPropagationHostToContainer:
				mount.Propagation = runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER
			case v1.MountPropagationBidirectional:
				mount.Propagation = runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL
			}
		}
		out = append(out, mount)
		hosts = hosts || m.MountPath == "/etc/hosts"
	}
	if !hosts {
		path, err := w.a.writeHosts(pod, ips)
		if err != nil {
			return nil, err
		}
		ro := c.SecurityContext != nil && ptr.Deref(c.SecurityContext.ReadOnlyRootFilesystem, false)
		out = append(out, &runtimeapi.Mount{ContainerPath: "/etc/hosts", HostPath: path, Readonly: ro})
	}
	if c.TerminationMessagePath != "" {
		path := w.a.termFile(pod, c.Name, count)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return nil, err
		}
		f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o666)
		if err != nil {
			return nil, err
		}
		if err := errors.Join(f.Chmod(0o666), f.Close()); err != nil {
			return nil, err
		}
		out = append(out, &runtimeapi.Mount{ContainerPath: c.TerminationMessagePath, HostPath: path})
	}
	return out, nil
}

// recursiveReadOnly reports whether what is mounted below a read-only mount is
// read-only, too (https://kep.k8s.io/3857).
func (w *worker) recursiveReadOnly(ctx context.Context, pod *v1.Pod, m *v1.VolumeMount) (bool, error) {
	mode := ptr.Deref(m.RecursiveReadOnly, v1.RecursiveReadOnlyDisabled)
	if !m.ReadOnly || mode == v1.RecursiveReadOnlyDisabled {
		return false, nil
	}
	handler, err := w.a.runtimeHandler(ctx, pod)
	if err != nil {
		return false, err
	}
	f, err := w.a.cri.Features(ctx)
	if err != nil {
		return false, err
	}
	can := f.RecursiveReadOnly(handler)
	if mode == v1.RecursiveReadOnlyEnabled && !can {
		return false, fmt.Errorf("failed to resolve recursive read-only mode: volume %q requested recursive read-only mode, but it is not supported by the runtime", m.Name)
	}
	return can, nil
}

// selinuxEnabled reports whether the machine's kernel has SELinux on.
func selinuxEnabled() bool {
	_, err := os.Stat("/sys/fs/selinux/enforce")
	return err == nil
}

// environment gives the container's variables, later ones over earlier ones:
// services, envFrom, env.
func (w *worker) environment(ctx context.Context, pod *v1.Pod, c *v1.Container, ips []string) ([]*runtimeapi.KeyValue, error) {
	values := map[string]string{}
	services, err := w.a.serviceEnv(pod)
	if err != nil {
		return nil, err
	}
	maps.Copy(values, services)
	for i := range c.EnvFrom {
		f := &c.EnvFrom[i]
		switch {
		case f.ConfigMapRef != nil:
			cm, err := w.a.Sources.ConfigMap(ctx, pod.Namespace, f.ConfigMapRef.Name)
			if err != nil {
				if apierrors.IsNotFound(err) && ptr.Deref(f.ConfigMapRef.Optional, false) {
					continue
				}
				return nil, err
			}
			for k, v := range cm.Data {
				values[f.Prefix+k] = v
			}
		case f.SecretRef != nil:
			s, err := w.a.Sources.Secret(ctx, pod.Namespace, f.SecretRef.Name)
			if err != nil {
				if apierrors.IsNotFound(err) && ptr.Deref(f.SecretRef.Optional, false) {
					continue
				}
				return nil, err
			}
			for k, v := range s.Data {
				values[f.Prefix+k] = string(v)
			}
		}
	}
	own := map[string]string{}
	known := maps.Clone(values)
	for i := range c.Env {
		e := &c.Env[i]
		v := expand(e.Value, known)
		if e.ValueFrom != nil {
			var ok bool
			if v, ok, err = w.valueFrom(ctx, pod, c, e.ValueFrom, ips); err != nil {
				return nil, err
			}
			if !ok {
				continue
			}
		}
		own[e.Name], known[e.Name] = v, v
	}
	maps.Copy(values, own)
	var out []*runtimeapi.KeyValue
	for _, k := range slices.Sorted(maps.Keys(values)) {
		out = append(out, &runtimeapi.KeyValue{Key: k, Value: []byte(values[k])})
	}
	return out, nil
}

func (w *worker) valueFrom(ctx context.Context, pod *v1.Pod, c *v1.Container, f *v1.EnvVarSource, ips []string) (string, bool, error) {
	switch {
	case f.FieldRef != nil:
		v, err := w.fieldValue(pod, f.FieldRef.FieldPath, ips)
		return v, true, err
	case f.ResourceFieldRef != nil:
		of := c
		if n := f.ResourceFieldRef.ContainerName; n != "" {
			if of = specOf(pod, n); of == nil {
				return "", false, fmt.Errorf("container %q not found", n)
			}
		}
		v, err := downward.Resource(of, f.ResourceFieldRef, w.a.status.allocatable())
		return v, true, err
	case f.ConfigMapKeyRef != nil:
		r := f.ConfigMapKeyRef
		optional := ptr.Deref(r.Optional, false)
		cm, err := w.a.Sources.ConfigMap(ctx, pod.Namespace, r.Name)
		if err != nil {
			if apierrors.IsNotFound(err) && optional {
				return "", false, nil
			}
			return "", false, err
		}
		if v, ok := cm.Data[r.Key]; ok {
			return v, true, nil
		}
		if optional {
			return "", false, nil
		}
		return "", false, fmt.Errorf("couldn't find key %v in ConfigMap %v/%v", r.Key, pod.Namespace, r.Name)
	case f.SecretKeyRef != nil:
		r := f.SecretKeyRef
		optional := ptr.Deref(r.Optional, false)
		s, err := w.a.Sources.Secret(ctx, pod.Namespace, r.Name)
		if err != nil {
			if apierrors.IsNotFound(err) && optional {
				return "", false, nil
			}
			return "", false, err
		}
		if v, ok := s.Data[r.Key]; ok {
			return string(v), true, nil
		}
		if optional {
			return "", false, nil
		}
		return "", false, fmt.Errorf("couldn't find key %v in Secret %v/%v", r.Key, pod.Namespace, r.Name)
	case f.FileKeyRef != nil:
		return w.fileValue(f.FileKeyRef)
	}
	return "", false, errors.New("this source of a variable's value is not known to this node")
}

func (w *worker) fieldValue(pod *v1.Pod, path string, ips []string) (string, error) {
	hostIPs := make([]string, len(w.a.NodeIPs))
	for i := range w.a.NodeIPs {
		hostIPs[i] = w.a.NodeIPs[i].String()
	}
	switch path {
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.hostIP":
		if len(hostIPs) == 0 {
			return "", nil
		}
		return hostIPs[0], nil
	case "status.hostIPs":
		return strings.Join(hostIPs, ","), nil
	case "status.podIP":
		if pod.Spec.HostNetwork && len(hostIPs) > 0 {
			return hostIPs[0], nil
		}
		if len(ips) == 0 {
			return "", nil
		}
		return ips[0], nil
	case "status.podIPs":
		if pod.Spec.HostNetwork {
			ips = hostIPs
		}
		return strings.Join(ips, ","), nil
	}
	return downward.Field(pod, path)
}

// expand replaces $(NAME) by its value; $$ is one $, and what is not known
// stays as it is.
func expand(s string, values map[string]string) string {
	if !strings.Contains(s, "$") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '$' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		switch s[i+1] {
		case '$':
			b.WriteByte('$')
			i++
		case '(':
			end := strings.IndexByte(s[i:], ')')
			if end < 0 {
				b.WriteByte('$')
				continue
			}
			name := s[i+2 : i+end]
			if v, ok := values[name]; ok {
				b.WriteString(v)
			} else {
				b.WriteString(s[i : i+end+1])
			}
			i += end
		default:
			b.WriteByte('$')
		}
	}
	return b.String()
}

// serviceEnv has the addresses of the services that a pod is told about: the
// kubernetes one, and with enableServiceLinks those of its namespace.
func (a *Agent) serviceEnv(pod *v1.Pod) (map[string]string, error) {
	out := map[string]string{}
	list, err := a.services.List(everything)
	if err != nil {
		return nil, err
	}
	links := pod.Spec.EnableServiceLinks == nil || *pod.Spec.EnableServiceLinks
	for _, s := range list {
		if s.Spec.ClusterIP == "" || s.Spec.ClusterIP == v1.ClusterIPNone || len(s.Spec.Ports) == 0 {
			continue
		}
		if !(s.Namespace == metav1.NamespaceDefault && s.Name == "kubernetes") && !(links && s.Namespace == pod.Namespace) {
			continue
		}
		name := strings.ToUpper(strings.ReplaceAll(s.Name, "-", "_"))
		ip := s.Spec.ClusterIP
		first := s.Spec.Ports[0]
		out[name+"_SERVICE_HOST"] = ip
		out[name+"_SERVICE_PORT"] = strconv.Itoa(int(first.Port))
		proto := func(p v1.Protocol) string { return strings.ToLower(string(p)) }
		out[name+"_PORT"] = fmt.Sprintf("%s://%s:%d", proto(first.Protocol), ip, first.Port)
		for _, p := range s.Spec.Ports {
			if p.Name != "" {
				out[name+"_SERVICE_PORT_"+strings.ToUpper(strings.ReplaceAll(p.Name, "-", "_"))] = strconv.Itoa(int(p.Port))
			}
			prefix := fmt.Sprintf("%s_PORT_%d_%s", name, p.Port, p.Protocol)
			out[prefix] = fmt.Sprintf("%s://%s:%d", proto(p.Protocol), ip, p.Port)
			out[prefix+"_PROTO"] = proto(p.Protocol)
			out[prefix+"_PORT"] = strconv.Itoa(int(p.Port))
			out[prefix+"_ADDR"] = ip
		}
	}
	return out, nil
}

func (a *Agent) getRuntimeClass(ctx context.Context, name string) (*nodev1.RuntimeClass, error) {
	return a.Client.NodeV1().RuntimeClasses().Get(ctx, name, metav1.GetOptions{})
}
