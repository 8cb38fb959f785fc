package network_test

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/agent"
	"keelson.dev/keelson/test/harness"
	"keelson.dev/keelson/test/harness/realnode"
)

// TestDualStack has pods and Services with addresses of both families, and names with
// both.
func TestDualStack(t *testing.T) {
	n := realnode.Start(t, agent.Options{}, dualStack)
	e := &env{t, kubernetes.NewForConfigOrDie(n.Config), n.Config, metav1.NamespaceDefault}
	pods := e.start("web", "a", "b")
	if len(pods[0].Status.PodIPs) != 2 {
		t.Fatalf("the pod has the addresses %v", pods[0].Status.PodIPs)
	}
	both := e.expose("both", "web", func(s *v1.ServiceSpec) { s.IPFamilyPolicy = ptr.To(v1.IPFamilyPolicyRequireDualStack) })
	six := e.expose("six", "web", func(s *v1.ServiceSpec) { s.IPFamilies = []v1.IPFamily{v1.IPv6Protocol} })
	one := e.expose("one", "web")
	if len(both.Spec.ClusterIPs) != 2 || len(six.Spec.ClusterIPs) != 1 || len(one.Spec.ClusterIPs) != 1 {
		t.Fatalf("the Services have the addresses %v, %v, %v", both.Spec.ClusterIPs, six.Spec.ClusterIPs, one.Spec.ClusterIPs)
	}
	for _, ip := range append(slices.Clone(both.Spec.ClusterIPs), six.Spec.ClusterIP) {
		url := "http://" + net.JoinHostPort(ip, "80") + "/"
		e.reaches("pods at "+ip, func() (string, error) { return e.exec("a", "get", url) }, "a", "b")
		if netip.MustParseAddr(ip).Is4() { // the machine has no route of IPv6
			e.reaches("pods from the node at "+ip, func() (string, error) { return e.get(url) }, "a", "b")
		}
	}
	headless := e.expose("pods", "web", func(s *v1.ServiceSpec) {
		s.ClusterIP, s.IPFamilyPolicy = v1.ClusterIPNone, ptr.To(v1.IPFamilyPolicyPreferDualStack)
	})
	var all []string
	for _, p := range pods {
		all = append(all, p.Status.PodIPs[0].IP, p.Status.PodIPs[1].IP)
	}
	for name, want := range map[string][]string{"both": both.Spec.ClusterIPs, "six": six.Spec.ClusterIPs, "one": one.Spec.ClusterIPs, headless.Name: all} {
		slices.Sort(want)
		harness.Succeeds(t, "the addresses of "+name, func() error {
			out, err := e.exec("a", "resolve", name)
			if got := strings.Fields(out); err == nil && !slices.Equal(got, want) {
				err = fmt.Errorf("%v, want %v", got, want)
			}
			return err
		})
	}
}

// unready makes a pod that runs and is not ready.
func (e *env) unready(app, name string) {
	e.Helper()
	e.create(&v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": app}}, Spec: v1.PodSpec{
		ReadinessGates: []v1.PodReadinessGate{{ConditionType: "example.com/never"}}, Containers: []v1.Container{{Name: "c", Image: image}}}})
}

// notReady reaches a pod that is not ready by the Service that publishes such ones, and
// by no other.
func (e *env) notReady() {
	e.start("client", "client")
	e.unready("web", "a")
	published := e.expose("published", "web", func(s *v1.ServiceSpec) { s.PublishNotReadyAddresses = true })
	hidden := e.expose("hidden", "web")
	e.reaches("the pod that is not ready", func() (string, error) { return e.exec("client", "get", "http://"+published.Spec.ClusterIP+"/") }, "a")
	if out, err := e.exec("client", "get", "http://"+hidden.Spec.ClusterIP+"/"); err == nil || !strings.Contains(err.Error(), "connection refused") {
		e.Errorf("the Service that publishes only ready pods: %q, %v", out, err)
	}
}
