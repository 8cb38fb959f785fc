package convert

import (
	"context"
	"errors"
	"fmt"
	"slices"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/internal/node/cri"
	"keelson.dev/keelson/internal/node/podspec"
)

// Sandbox returns the configuration of the pod's sandbox.
func (c *Converter) Sandbox(pod *v1.Pod, attempt uint32) (*runtimeapi.PodSandboxConfig, error) {
	dns, err := c.dnsConfig(pod)
	if err != nil {
		return nil, err
	}
	labels := map[string]string{}
	for k, v := range pod.Labels {
		labels[k] = v
	}
	labels[cri.PodNameLabel], labels[cri.PodNamespaceLabel], labels[cri.PodUIDLabel] = pod.Name, pod.Namespace, string(pod.UID)
	cfg := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: pod.Name, Namespace: pod.Namespace, Uid: string(pod.UID), Attempt: attempt},
		LogDirectory: c.Layout.PodLogs(pod),
		DnsConfig:    dns,
		Labels:       labels,
		Annotations:  pod.Annotations,
		Linux:        &runtimeapi.LinuxPodSandboxConfig{CgroupParent: c.Shares.Parent(pod), Sysctls: map[string]string{}},
	}
	cfg.Linux.Overhead, cfg.Linux.Resources = sandboxResources(pod)
	if !pod.Spec.HostNetwork {
		cfg.Hostname = c.Hostname(pod)
		if n := len(cfg.Hostname); n > nodenameMax {
			return nil, fmt.Errorf("failed to construct FQDN from pod hostname and cluster domain, FQDN %s is too long (%d characters is the max, %d characters requested)", cfg.Hostname, nodenameMax, n)
		}
		for _, c := range slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers) {
			for _, p := range c.Ports {
				cfg.PortMappings = append(cfg.PortMappings, &runtimeapi.PortMapping{
					Protocol:      protocol(p.Protocol),
					ContainerPort: p.ContainerPort, HostPort: p.HostPort, HostIp: p.HostIP,
				})
			}
		}
	} // a pod on the host's network has the machine's host name
	sec := &runtimeapi.LinuxSandboxSecurityContext{
		NamespaceOptions: namespaces(pod),
		Seccomp:          &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault},
	}
	for _, c := range slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers) {
		if s := c.SecurityContext; s != nil && s.Privileged != nil && *s.Privileged {
			sec.Privileged = true
		}
	}
	if s := pod.Spec.SecurityContext; s != nil {
		sec.RunAsUser, sec.RunAsGroup = int64Value(s.RunAsUser), int64Value(s.RunAsGroup)
		sec.SupplementalGroups, sec.SupplementalGroupsPolicy = groups(s), groupsPolicy(pod)
		sec.SelinuxOptions = selinux(s.SELinuxOptions)
		for _, sc := range s.Sysctls {
			cfg.Linux.Sysctls[sc.Name] = sc.Value
		}
	}
	cfg.Linux.SecurityContext = sec
	return cfg, nil
}

func protocol(p v1.Protocol) runtimeapi.Protocol {
	switch p {
	case v1.ProtocolUDP:
		return runtimeapi.Protocol_UDP
	case v1.ProtocolSCTP:
		return runtimeapi.Protocol_SCTP
	}
	return runtimeapi.Protocol_TCP
}

func namespaces(pod *v1.Pod) *runtimeapi.NamespaceOption {
	o := &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}
	if pod.Spec.HostNetwork {
		o.Network = runtimeapi.NamespaceMode_NODE
	}
	if pod.Spec.HostIPC {
		o.Ipc = runtimeapi.NamespaceMode_NODE
	}
	if pod.Spec.ShareProcessNamespace != nil && *pod.Spec.ShareProcessNamespace {
		o.Pid = runtimeapi.NamespaceMode_POD
	}
	if pod.Spec.HostPID {
		o.Pid = runtimeapi.NamespaceMode_NODE
	}
	return o
}

// Users returns the user namespace of a pod: the machine's, or one of its own, if
// the runtime supports that.
func (c *Converter) Users(ctx context.Context, pod *v1.Pod, handler string) (*runtimeapi.UserNamespace, error) {
	if podspec.HostUsers(pod) {
		return c.usersIn(pod)
	}
	f, err := c.CRI.Features(ctx)
	if err != nil {
		return nil, err
	}
	if err := f.UserNamespaces(handler); err != nil {
		return nil, err
	}
	if pod.Spec.HostNetwork && !f.UserNamespacesHostNetwork {
		return nil, errors.New("can't set `spec.hostUsers: false` with `spec.hostNetwork: true`, runtime does not support user namespaces with host network")
	}
	return c.usersIn(pod)
}

// usersIn returns the user namespace of the pod, and allocates one if it is to have
// its own.
func (c *Converter) usersIn(pod *v1.Pod) (*runtimeapi.UserNamespace, error) {
	if podspec.HostUsers(pod) {
		return &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_NODE}, nil
	}
	return c.UserNamespaces.Pod(string(pod.UID))
}

// RuntimeHandler returns the handler of the pod's RuntimeClass.
func (c *Converter) RuntimeHandler(ctx context.Context, pod *v1.Pod) (string, error) {
	if n := pod.Spec.RuntimeClassName; n != nil && *n != "" {
		rc, err := c.Client.NodeV1().RuntimeClasses().Get(ctx, *n, metav1.GetOptions{})
		if err != nil {
			return "", fmt.Errorf("failed to get RuntimeClass: %w", err)
		}
		return rc.Handler, nil
	}
	return "", nil
}
