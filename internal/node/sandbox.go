package node

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// sandbox holds the worker's state of its pod's sandbox.
type sandbox struct {
	retryAt  time.Time // when to try to make it again
	attempts uint32
	mapped   string // the one that the host ports lead to
}

const (
	// hostnameMax is the longest name of a host in DNS.
	hostnameMax = 63
	// nodenameMax is the longest host name that Linux takes, with its domain.
	nodenameMax = 64
)

func (w *worker) createSandbox(ctx context.Context, pod *v1.Pod, obs *observed) (*observed, error) {
	for _, s := range obs.sandboxes {
		// A dead sandbox may still hold its network; the address must be free.
		if _, err := w.a.cri.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: s.Id}); err != nil {
			return nil, err
		}
		w.sandbox.attempts = max(w.sandbox.attempts, s.GetMetadata().GetAttempt()+1)
	}
	if len(obs.sandboxes) > 0 {
		w.a.Recorder.Event(pod, v1.EventTypeNormal, "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")
	}
	if name := w.a.podHostname(pod); !pod.Spec.HostNetwork && len(name) > nodenameMax {
		return nil, fmt.Errorf("failed to construct FQDN from pod hostname and cluster domain, FQDN %s is too long (%d characters is the max, %d characters requested)", name, nodenameMax, len(name))
	}
	handler, err := w.a.runtimeHandler(ctx, pod)
	if err != nil {
		return nil, err
	}
	users, err := w.a.usersOf(ctx, pod, handler)
	if err != nil {
		return nil, err
	}
	cfg, err := w.a.sandboxConfig(pod, w.sandbox.attempts)
	if err != nil {
		return nil, err
	}
	cfg.Linux.SecurityContext.NamespaceOptions.UsernsOptions = users
	if err := os.MkdirAll(cfg.LogDirectory, 0o755); err != nil {
		return nil, err
	}
	r, err := w.a.cri.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: cfg, RuntimeHandler: handler})
	if err != nil {
		return nil, err
	}
	w.sandbox.attempts++
	st, err := w.a.cri.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: r.PodSandboxId})
	if err != nil {
		return nil, err
	}
	fresh := *obs
	fresh.sandboxes = append([]*runtimeapi.PodSandboxStatus{st.Status}, obs.sandboxes...)
	return &fresh, nil
}

// sandboxConfig is the pod's sandbox as CRI describes it.
func (a *Agent) sandboxConfig(pod *v1.Pod, attempt uint32) (*runtimeapi.PodSandboxConfig, error) {
	dns, err := a.dnsConfig(pod)
	if err != nil {
		return nil, err
	}
	labels := map[string]string{}
	for k, v := range pod.Labels {
		labels[k] = v
	}
	labels[labelPodName], labels[labelPodNamespace], labels[labelPodUID] = pod.Name, pod.Namespace, string(pod.UID)
	cfg := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: pod.Name, Namespace: pod.Namespace, Uid: string(pod.UID), Attempt: attempt},
		LogDirectory: a.podLogDir(pod),
		DnsConfig:    dns,
		Labels:       labels,
		Annotations:  pod.Annotations,
		Linux:        &runtimeapi.LinuxPodSandboxConfig{CgroupParent: a.podCgroup(pod).Parent(a.Cgroups.Driver), Sysctls: map[string]string{}},
	}
	cfg.Linux.Overhead, cfg.Linux.Resources = sandboxResources(pod)
	if !pod.Spec.HostNetwork {
		cfg.Hostname = a.podHostname(pod)
		for _, c := range slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers) {
			for _, p := range c.Ports {
				cfg.PortMappings = append(cfg.PortMappings, &runtimeapi.PortMapping{
					Protocol:      protocol(p.Protocol),
					ContainerPort: p.ContainerPort, HostPort: p.HostPort, HostIp: p.HostIP,
				})
			}
		}
	} // else it is the machine's, as its network is
	sec := &runtimeapi.LinuxSandboxSecurityContext{
		NamespaceOptions: namespaces(pod, nil),
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

func namespaces(pod *v1.Pod, c *v1.Container) *runtimeapi.NamespaceOption {
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

// usersOf is the user namespace of a pod: the machine's, or one of its own, if
// the runtime can do that.
func (a *Agent) usersOf(ctx context.Context, pod *v1.Pod, handler string) (*runtimeapi.UserNamespace, error) {
	if hostUsers(pod) {
		return a.usersIn(pod)
	}
	f, err := a.cri.Features(ctx)
	if err != nil {
		return nil, err
	}
	if err := f.UserNamespaces(handler); err != nil {
		return nil, err
	}
	if pod.Spec.HostNetwork && !f.UserNamespacesHostNetwork {
		return nil, errors.New("can't set `spec.hostUsers: false` with `spec.hostNetwork: true`, runtime does not support user namespaces with host network")
	}
	return a.usersIn(pod)
}

// usersIn is the user namespace that the pod has or, if it is to have one of its
// own, gets.
func (a *Agent) usersIn(pod *v1.Pod) (*runtimeapi.UserNamespace, error) {
	if hostUsers(pod) {
		return &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_NODE}, nil
	}
	return a.users.Pod(string(pod.UID))
}

func hostUsers(pod *v1.Pod) bool { return pod.Spec.HostUsers == nil || *pod.Spec.HostUsers }

// runtimeHandler is the handler of the pod's RuntimeClass.
func (a *Agent) runtimeHandler(ctx context.Context, pod *v1.Pod) (string, error) {
	if n := pod.Spec.RuntimeClassName; n != nil && *n != "" {
		rc, err := a.getRuntimeClass(ctx, *n)
		if err != nil {
			return "", fmt.Errorf("failed to get RuntimeClass: %w", err)
		}
		return rc.Handler, nil
	}
	return "", nil
}

func (a *Agent) podHostname(pod *v1.Pod) string {
	h := pod.Name
	if pod.Spec.Hostname != "" {
		h = pod.Spec.Hostname
	}
	if pod.Spec.HostnameOverride != nil {
		return *pod.Spec.HostnameOverride
	}
	if len(h) > hostnameMax {
		h = strings.TrimRight(h[:hostnameMax], "-.")
	}
	if f := pod.Spec.SetHostnameAsFQDN; f != nil && *f {
		if d := a.podDomain(pod); d != "" {
			return h + "." + d
		}
	}
	return h
}

func (a *Agent) podDomain(pod *v1.Pod) string {
	if pod.Spec.Subdomain == "" {
		return ""
	}
	return pod.Spec.Subdomain + "." + pod.Namespace + ".svc." + a.ClusterDomain
}

// dnsConfig follows the pod's DNS policy.
func (a *Agent) dnsConfig(pod *v1.Pod) (*runtimeapi.DNSConfig, error) {
	policy := pod.Spec.DNSPolicy
	if policy == v1.DNSClusterFirst && pod.Spec.HostNetwork || len(a.ClusterDNS) == 0 && policy != v1.DNSNone {
		policy = v1.DNSDefault
	}
	out := &runtimeapi.DNSConfig{}
	if policy != v1.DNSNone {
		host, err := readResolvConf(a.ResolvConf)
		if err != nil {
			return nil, err
		}
		out = host
		if policy != v1.DNSDefault {
			search := []string{pod.Namespace + ".svc." + a.ClusterDomain, "svc." + a.ClusterDomain, a.ClusterDomain}
			for _, s := range host.Searches {
				if !slices.Contains(search, s) {
					search = append(search, s)
				}
			}
			out = &runtimeapi.DNSConfig{Servers: slices.Clone(a.ClusterDNS), Searches: search, Options: []string{"ndots:5"}}
		}
	}
	if d := pod.Spec.DNSConfig; d != nil {
		for _, s := range d.Nameservers {
			if !slices.Contains(out.Servers, s) {
				out.Servers = append(out.Servers, s)
			}
		}
		for _, s := range d.Searches {
			if !slices.Contains(out.Searches, s) {
				out.Searches = append(out.Searches, s)
			}
		}
		for _, o := range d.Options {
			out.Options = slices.DeleteFunc(out.Options, func(s string) bool { n, _, _ := strings.Cut(s, ":"); return n == o.Name })
			s := o.Name
			if o.Value != nil && *o.Value != "" {
				s += ":" + *o.Value
			}
			out.Options = append(out.Options, s)
		}
	}
	return out, nil
}

func readResolvConf(path string) (*runtimeapi.DNSConfig, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := &runtimeapi.DNSConfig{}
	for s := bufio.NewScanner(f); s.Scan(); {
		f := strings.Fields(s.Text())
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "nameserver":
			out.Servers = append(out.Servers, f[1])
		case "search":
			out.Searches = nil
			for _, d := range f[1:] {
				if d != "." {
					d = strings.TrimSuffix(d, ".")
				}
				out.Searches = append(out.Searches, d)
			}
		case "options":
			out.Options = f[1:]
		}
	}
	return out, nil
}

// writeHosts makes the pod's /etc/hosts.
func (a *Agent) writeHosts(pod *v1.Pod, ips []string) (string, error) {
	path := filepath.Join(a.podDir(pod.UID), "etc-hosts")
	var b strings.Builder
	if pod.Spec.HostNetwork {
		host, err := os.ReadFile("/etc/hosts")
		if err != nil {
			return "", err
		}
		b.WriteString("# Kubernetes-managed hosts file (host network).\n")
		b.Write(host)
	} else {
		b.WriteString("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" +
			"fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n")
		name := a.podHostname(pod)
		if d := a.podDomain(pod); d != "" {
			short, _, _ := strings.Cut(name, ".")
			name = short + "." + d + "\t" + short
		}
		for _, ip := range ips {
			fmt.Fprintf(&b, "%s\t%s\n", ip, name)
		}
	}
	if len(pod.Spec.HostAliases) > 0 {
		b.WriteString("\n# Entries added by HostAliases.\n")
		for _, h := range pod.Spec.HostAliases {
			fmt.Fprintf(&b, "%s\t%s\n", h.IP, strings.Join(h.Hostnames, "\t"))
		}
	}
	return path, os.WriteFile(path, []byte(b.String()), 0o644)
}
