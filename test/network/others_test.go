package network_test

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"

	"keelson.dev/keelson/internal/network/policy"
	"keelson.dev/keelson/internal/network/proxy"
	"keelson.dev/keelson/test/harness"
)

// TestOtherBridges checks that the tables of policies and Services change nothing on a
// bridge of the machine that is not the pods', as that of virtual machines or containers
// of others: all that its hosts send to each other arrives, and as it was sent.
func TestOtherBridges(t *testing.T) {
	forward(t)
	bridged(t, "pods", "10.221.0.1/24", "fd00:221::1/64")
	bridged(t, "others", "10.222.0.1/24", "fd00:222::1/64")
	port := func(bridge, name string, n int) *member {
		net := map[string]int{"pods": 221, "others": 222}[bridge]
		m := &member{bridge, name, newPort(t, bridge, name, fmt.Sprintf("10.%d.0.%d", net, n), fmt.Sprintf("fd00:%d::%x", net, n), fmt.Sprintf("10.%d.0.1", net), fmt.Sprintf("fd00:%d::1", net))}
		m.answer()
		return m
	}
	isolated, pod, one, two := port("pods", "isolated", 2), port("pods", "pod", 3), port("others", "one", 2), port("others", "two", 3)
	outside := newHost(t, "outside", "198.51.100.2", "2001:db8:1::2", "198.51.100.1", "2001:db8:1::1")
	outside.serve(8080)
	const podsAll, othersAll = "10.221.0.255", "10.222.0.255"
	inPods, inOthers := isolated.listen(90), two.listen(90)
	pod.tellsMany(podsAll, "", inPods)
	one.tellsMany(othersAll, "", inOthers)

	api := fake.NewClientset(
		&v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "a"}, Spec: v1.ServiceSpec{ClusterIP: "10.96.0.1", ClusterIPs: []string{"10.96.0.1", "fd00:96::1"}, Ports: []v1.ServicePort{{Port: 80}}}})
	create(t, api, &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}})
	for _, m := range []*member{isolated, pod} {
		create(t, api, &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: m.name, Labels: map[string]string{"pod": m.name}}, Spec: v1.PodSpec{NodeName: "here"},
			Status: v1.PodStatus{Phase: v1.PodRunning, PodIPs: []v1.PodIP{{IP: m.four.String()}, {IP: m.six.String()}}}})
	}
	create(t, api, &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "deny"}, Spec: networkingv1.NetworkPolicySpec{
		PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"pod": "isolated"}}, PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}}})
	factory := informers.NewSharedInformerFactory(api, 0)
	policies, err := policy.New(policy.Config{NodeName: "here", Pods: factory.Core().V1().Pods().Informer(), Namespaces: factory.Core().V1().Namespaces().Informer(),
		Policies: factory.Networking().V1().NetworkPolicies().Informer(), IPv4: policy.NewNetfilter(false), IPv6: policy.NewNetfilter(true), Bridged: policy.Bridged})
	if err != nil {
		t.Fatal(err)
	}
	ranges := []netip.Prefix{netip.MustParsePrefix("10.221.0.0/24"), netip.MustParsePrefix("fd00:221::/64")}
	services, err := proxy.New(proxy.Config{NodeName: "here", NodeIPs: []netip.Addr{netip.MustParseAddr("198.51.100.1")}, Informers: factory,
		IPv4: proxy.NewNetfilter(false, ranges), IPv6: proxy.NewNetfilter(true, ranges), NoHealthChecks: true})
	if err != nil {
		t.Fatal(err)
	}
	factory.StartWithContext(t.Context())
	factory.WaitForCacheSyncWithContext(t.Context())
	t.Cleanup(func() {
		for _, err := range []error{policy.Remove(), proxy.Remove()} {
			if err != nil {
				t.Error(err)
			}
		}
	})
	// The policy is in force when a pod has been admitted.
	if err := policies.Admit(t.Context(), &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "another"}}, nil); err != nil {
		t.Fatal(err)
	}
	if err := services.Sync(); err != nil {
		t.Fatal(err)
	}

	const denied = "denied "
	for range 3 {
		pod.tellMany(podsAll, denied)
	}
	isolated.tell("udp", netip.AddrPortFrom(isolated.four, 90), "the end")
	for got := range inPods {
		if got == "the end" {
			break
		}
		if strings.HasPrefix(got, denied) {
			t.Errorf("%s hears what is sent to all: %s", isolated, got)
		}
	}
	// linked opens a connection by the address of a link.
	linked := func(from, to *member, wait time.Duration) error {
		c, err := from.connect("tcp", netip.AddrPortFrom(to.linkLocal().WithZone("eth0"), 80))
		if err != nil {
			return err
		}
		defer c.Close()
		return exchange(c, wait)
	}
	if linked(pod, isolated, 300*time.Millisecond) == nil {
		t.Errorf("%s is reached by the address of its link", isolated)
	}

	one.tellsMany(othersAll, "still ", inOthers)
	if err := linked(one, two, harness.Patience); err != nil {
		t.Errorf("from %s to %s by the address of its link: %v", one, two, err)
	}
	for _, six := range []bool{false, true} {
		for _, proto := range []string{"tcp", "udp"} {
			if err := (probe{one, two, six, proto, 80}).ask(harness.Patience); err != nil {
				t.Errorf("%s to %s, %s, IPv6 %t: %v", one, two, proto, six, err)
			}
		}
	}
	// Another program may use the bit of the mark by which packets to Services get the
	// node's address.
	mark := exec.Command("nft", "-f", "-")
	mark.Stdin = strings.NewReader(`table inet marking { chain prerouting { type filter hook prerouting priority -300; iifname "others" meta mark set 0x4000; }; }`)
	if out, err := mark.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("nft", "delete table inet marking").CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	for _, c := range []struct{ to, from netip.Addr }{{outside.four, one.four}, {outside.six, one.six}} {
		if got, err := dial(one.peer, c.to.String(), 8080); err != nil || got != fmt.Sprintf("%s from %s", c.to, c.from) {
			t.Errorf("marked packets of %s: %q, %v", one, got, err)
		}
	}
}
