package network_test

import (
	"fmt"
	"strings"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/test/harness"
)

// names checks that a pod resolves names of the cluster, also by its search
// path.
func (e *env) names() {
	sub := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "member", Labels: map[string]string{"app": "set"}},
		Spec: v1.PodSpec{Hostname: "member-0", Subdomain: "set", Containers: []v1.Container{{Name: "c", Image: image}}}}
	e.create(sub)
	pods := e.start("web", "a")
	ip := e.ready("member").Status.PodIP
	web := e.expose("web", "web").Spec.ClusterIP
	e.expose("set", "set", func(s *v1.ServiceSpec) { s.ClusterIP = v1.ClusterIPNone })
	e.expose("alias", "web", func(s *v1.ServiceSpec) {
		s.Type, s.ExternalName, s.Selector, s.Ports = v1.ServiceTypeExternalName, "web."+e.ns+".svc.cluster.local", nil, nil
	})
	domain := "." + e.ns + ".svc.cluster.local"
	for _, c := range []struct{ name, want string }{
		{"web", web},
		{"web." + e.ns, web},
		{"web." + e.ns + ".svc", web},
		{"web" + domain, web},
		{"kubernetes.default", "10.96.0.1"},
		{"set", ip},
		{"member-0.set", ip},
		{"alias", web},
		{strings.ReplaceAll(pods[0].Status.PodIP, ".", "-") + "." + e.ns + ".pod", pods[0].Status.PodIP},
		{"srv=_web._tcp.web" + domain, "web" + domain + ".:80"},
		{"srv=_web._tcp.set" + domain, "member-0.set" + domain + ".:80"},
		{"ptr=" + web, "web" + domain + "."},
		{"ptr=" + ip, "member-0.set" + domain + "."},
		{"cname=alias" + domain, "web" + domain + "."},
	} {
		harness.Succeeds(e, c.name, func() error {
			out, err := e.exec("a", "resolve", c.name)
			if err == nil && strings.TrimSpace(out) != c.want {
				err = fmt.Errorf("%q, want %q", strings.TrimSpace(out), c.want)
			}
			return err
		})
	}
	if out, err := e.exec("a", "resolve", "nobody"+domain+"."); err == nil || !strings.Contains(err.Error(), "no such host") {
		e.Errorf("a name of nobody: %q, %v", out, err)
	}
	out, err := e.exec("a", "get", "http://web/")
	if err != nil || host(out) != "a" {
		e.Errorf("by name: %q, %v", out, err)
	}
	// The Service exists for programs that look for it.
	s, err := e.client.CoreV1().Services(metav1.NamespaceSystem).Get(e.Context(), "kube-dns", metav1.GetOptions{})
	if err != nil || s.Spec.ClusterIP != "10.96.0.10" {
		e.Errorf("%+v, %v", s, err)
	}
}
