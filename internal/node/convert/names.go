package convert

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	// hostnameMax is the longest name of a host in DNS.
	hostnameMax = 63
	// nodenameMax is the longest host name that Linux accepts, with its domain.
	nodenameMax = 64
)

// Hostname returns the pod's host name.
func (c *Converter) Hostname(pod *v1.Pod) string {
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
		if d := c.podDomain(pod); d != "" {
			return h + "." + d
		}
	}
	return h
}

func (c *Converter) podDomain(pod *v1.Pod) string {
	if pod.Spec.Subdomain == "" {
		return ""
	}
	return pod.Spec.Subdomain + "." + pod.Namespace + ".svc." + c.ClusterDomain
}

// dnsConfig returns the resolver configuration of the pod's DNS policy.
func (c *Converter) dnsConfig(pod *v1.Pod) (*runtimeapi.DNSConfig, error) {
	policy := pod.Spec.DNSPolicy
	if policy == v1.DNSClusterFirst && pod.Spec.HostNetwork || len(c.ClusterDNS) == 0 && policy != v1.DNSNone {
		policy = v1.DNSDefault
	}
	out := &runtimeapi.DNSConfig{}
	if policy != v1.DNSNone {
		host, err := readResolvConf(c.ResolvConf)
		if err != nil {
			return nil, err
		}
		out = host
		if policy != v1.DNSDefault {
			search := []string{pod.Namespace + ".svc." + c.ClusterDomain, "svc." + c.ClusterDomain, c.ClusterDomain}
			for _, s := range host.Searches {
				if !slices.Contains(search, s) {
					search = append(search, s)
				}
			}
			out = &runtimeapi.DNSConfig{Servers: slices.Clone(c.ClusterDNS), Searches: search, Options: []string{"ndots:5"}}
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
func (c *Converter) writeHosts(pod *v1.Pod, ips []string) (string, error) {
	path := c.Layout.Hosts(pod)
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
		name := c.Hostname(pod)
		if d := c.podDomain(pod); d != "" {
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
