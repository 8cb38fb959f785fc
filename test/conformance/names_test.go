package conformance

import (
	"fmt"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"keelson.dev/keelson/test/harness"
)

func intstrOf(s string) intstr.IntOrString { return intstr.Parse(s) }

// resolves waits until the name resolves to want in the pod.
func (t *T) resolves(pod, name, want string) {
	t.Helper()
	harness.Succeeds(t, name, func() error {
		out, err := t.demo(pod, "resolve", name)
		if err == nil && strings.TrimSpace(out) != want {
			err = fmt.Errorf("%q, want %q", strings.TrimSpace(out), want)
		}
		return err
	})
}

func headlessService(s *v1.Service) { s.Spec.ClusterIP = v1.ClusterIPNone }

var _ = InContainers("[sig-network] DNS should provide DNS for the cluster", func(t *T) {
	client := t.clientPod()
	ip := got[*v1.Service](t)(t.Client.CoreV1().Services("default").Get(t.Context(), "kubernetes", get)).Spec.ClusterIP
	t.resolves(client, "kubernetes.default.svc.cluster.local", ip)
	t.resolves(client, "kubernetes.default", ip)
})

var _ = InContainers("[sig-network] DNS should provide /etc/hosts entries for the cluster", func(t *T) {
	t.service("dns-test-service", "hosts", headlessService)
	p := t.run("pod1", labelled("hosts"), func(p *v1.Pod) { p.Spec.Hostname, p.Spec.Subdomain = "dns-querier-1", "dns-test-service" })
	out := got[string](t)(t.demo("pod1", "cat", "/etc/hosts"))
	t.contains(out, p.Status.PodIP+"\tdns-querier-1.dns-test-service."+t.NS+".svc.cluster.local\tdns-querier-1", "127.0.0.1\tlocalhost")
	t.resolves("pod1", "dns-querier-1", p.Status.PodIP)
})

var _ = InContainers("[sig-network] DNS should provide DNS for services", func(t *T) {
	client := t.clientPod()
	s := t.service("regular", "dns")
	t.service("headless", "dns", headlessService)
	p := t.run("pod1", labelled("dns"))
	domain := "." + t.NS + ".svc.cluster.local"
	t.resolves(client, "regular"+domain, s.Spec.ClusterIP)
	t.resolves(client, "headless"+domain, p.Status.PodIP)
	t.resolves(client, "srv=_http._tcp.regular"+domain, "regular"+domain+".:80")
	t.resolves(client, "srv=_http._tcp.headless"+domain, strings.ReplaceAll(p.Status.PodIP, ".", "-")+".headless"+domain+".:80")
	t.resolves(client, "ptr="+s.Spec.ClusterIP, "regular"+domain+".")
})

var _ = InContainers("[sig-network] DNS should resolve DNS of partial qualified names for services", func(t *T) {
	client := t.clientPod()
	s := t.service("regular", "dns")
	t.service("headless", "dns", headlessService)
	p := t.run("pod1", labelled("dns"))
	for _, suffix := range []string{"", "." + t.NS, "." + t.NS + ".svc"} {
		t.resolves(client, "regular"+suffix, s.Spec.ClusterIP)
		t.resolves(client, "headless"+suffix, p.Status.PodIP)
		if suffix != "" {
			t.resolves(client, "srv=_http._tcp.regular"+suffix, "regular."+t.NS+".svc.cluster.local.:80")
		}
	}
})

// member returns a pod with a name below a Service of its own.
func member(t *T) (pod *v1.Pod, domain string) {
	t.service("dns-test-service-2", "member", headlessService)
	pod = t.run("pod1", labelled("member"), func(p *v1.Pod) { p.Spec.Hostname, p.Spec.Subdomain = "dns-querier-2", "dns-test-service-2" })
	return pod, "dns-test-service-2." + t.NS + ".svc.cluster.local"
}

var _ = InContainers("[sig-network] DNS should provide DNS for pods for Hostname", func(t *T) {
	client := t.clientPod()
	p, domain := member(t)
	t.resolves(client, "dns-querier-2."+domain, p.Status.PodIP)
	t.resolves("pod1", "dns-querier-2", p.Status.PodIP)
})

var _ = InContainers("[sig-network] DNS should provide DNS for pods for Subdomain", func(t *T) {
	client := t.clientPod()
	p, domain := member(t)
	t.resolves(client, domain, p.Status.PodIP)
})

var _ = InContainers("[sig-network] DNS should provide DNS for ExternalName services", func(t *T) {
	client := t.clientPod()
	t.service("target", "x")
	other := t.service("other", "x")
	domain := "." + t.NS + ".svc.cluster.local"
	t.service("alias", "x", func(s *v1.Service) { externalName(s); s.Spec.ExternalName = "target" + domain })
	t.resolves(client, "cname=alias"+domain, "target"+domain+".")
	t.changeService("alias", func(s *v1.Service) { s.Spec.ExternalName = "other" + domain })
	t.resolves(client, "cname=alias"+domain, "other"+domain+".")
	t.resolves(client, "alias"+domain, other.Spec.ClusterIP)
	s := t.changeService("alias", func(s *v1.Service) { clusterIP(s); s.Spec.ExternalName = "" })
	t.resolves(client, "alias"+domain, s.Spec.ClusterIP)
})

var _ = InContainers("[sig-network] DNS should support configurable pod DNS nameservers", func(t *T) {
	t.run("pod1", nil, func(p *v1.Pod) {
		p.Spec.DNSPolicy = v1.DNSNone
		p.Spec.DNSConfig = &v1.PodDNSConfig{Nameservers: []string{"1.1.1.1"}, Searches: []string{"resolv.conf.local"}}
	})
	out := got[string](t)(t.demo("pod1", "cat", "/etc/resolv.conf"))
	t.contains(out, "nameserver 1.1.1.1", "search resolv.conf.local")
	if strings.Count(out, "nameserver") != 1 {
		t.Errorf("other name servers: %s", out)
	}
})
