package convert

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/node/podspec"
)

func int64Value(v *int64) *runtimeapi.Int64Value {
	if v == nil {
		return nil
	}
	return &runtimeapi.Int64Value{Value: *v}
}

// groups returns the supplementary groups of a pod's processes.
func groups(s *v1.PodSecurityContext) []int64 {
	out := slices.Clone(s.SupplementalGroups)
	if s.FSGroup != nil {
		out = append(out, *s.FSGroup)
	}
	return out
}

func groupsPolicy(pod *v1.Pod) runtimeapi.SupplementalGroupsPolicy {
	if podspec.StrictGroups(pod) {
		return runtimeapi.SupplementalGroupsPolicy_Strict
	}
	return runtimeapi.SupplementalGroupsPolicy_Merge
}

// AppArmorEnabled reports whether the machine's kernel enforces AppArmor.
func AppArmorEnabled() bool {
	b, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	return err == nil && strings.HasPrefix(string(b), "Y")
}

// appArmor returns a profile in both forms that runtimes know: that of CRI v1,
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

func (c *Converter) seccomp(pod, own *v1.SeccompProfile) *runtimeapi.SecurityProfile {
	p := own
	if p == nil {
		p = pod
	}
	if p == nil && c.SeccompDefault {
		p = &v1.SeccompProfile{Type: v1.SeccompProfileTypeRuntimeDefault}
	}
	if p == nil {
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
	}
	switch p.Type {
	case v1.SeccompProfileTypeRuntimeDefault:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
	case v1.SeccompProfileTypeLocalhost:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: filepath.Join(c.Layout.Seccomp(), ptr.Deref(p.LocalhostProfile, ""))}
	}
	return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
}

// securityContext merges the security contexts of the pod and the container; the
// container's fields come first.
func (c *Converter) securityContext(ctx context.Context, r *Run) (*runtimeapi.LinuxContainerSecurityContext, error) {
	pod, spec := r.Pod, r.Container
	ps, cs := pod.Spec.SecurityContext, spec.SecurityContext
	if ps == nil {
		ps = &v1.PodSecurityContext{}
	}
	if cs == nil {
		cs = &v1.SecurityContext{}
	}
	out := &runtimeapi.LinuxContainerSecurityContext{
		NamespaceOptions:   namespaces(pod),
		SupplementalGroups: groups(ps), SupplementalGroupsPolicy: groupsPolicy(pod),
		Privileged:     ptr.Deref(cs.Privileged, false),
		ReadonlyRootfs: ptr.Deref(cs.ReadOnlyRootFilesystem, false),
		NoNewPrivs:     cs.AllowPrivilegeEscalation != nil && !*cs.AllowPrivilegeEscalation,
		Seccomp:        c.seccomp(ps.SeccompProfile, cs.SeccompProfile),
		MaskedPaths:    []string{"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"},
		ReadonlyPaths:  []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
	}
	var err error
	if out.NamespaceOptions.UsernsOptions, err = c.usersIn(pod); err != nil {
		return nil, err
	}
	out.Apparmor, out.ApparmorProfile = appArmor(podspec.AppArmor(pod, spec))
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
	st, err := c.CRI.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: r.Image}})
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
			return nil, fmt.Errorf("container's runAsUser breaks non-root policy (pod: %q, container: %s)", pod.Name+"_"+pod.Namespace+"("+string(pod.UID)+")", spec.Name)
		case out.RunAsUsername != "":
			return nil, fmt.Errorf("container has runAsNonRoot and image has non-numeric user (%s), cannot verify user is non-root (pod: %q, container: %s)", out.RunAsUsername, pod.Name+"_"+pod.Namespace+"("+string(pod.UID)+")", spec.Name)
		case user == nil || *user == 0:
			return nil, fmt.Errorf("container has runAsNonRoot and image will run as root (pod: %q, container: %s)", pod.Name+"_"+pod.Namespace+"("+string(pod.UID)+")", spec.Name)
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

// selinuxEnabled reports whether the machine's kernel has SELinux on.
func selinuxEnabled() bool {
	_, err := os.Stat("/sys/fs/selinux/enforce")
	return err == nil
}
