package lb

import (
	"fmt"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/network/index"
)

func TestParseRange(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.0/28":               "192.0.2.1-192.0.2.14",
		"192.0.2.4/31":               "192.0.2.4-192.0.2.5",
		"192.0.2.4/32":               "192.0.2.4-192.0.2.4",
		"192.0.2.10 - 192.0.2.20":    "192.0.2.10-192.0.2.20",
		"192.0.2.7":                  "192.0.2.7-192.0.2.7",
		"2001:db8::/126":             "2001:db8::-2001:db8::3",
		"192.0.2.20-192.0.2.10":      "not before the last",
		"192.0.2.1-2001:db8::1":      "not before the last",
		"nonsense":                   "give a range like",
		"192.0.2.0/33":               "give a range like",
		"192.0.2.10-192.0.2.20-x":    "give a range like",
		"2001:db8::9-2001:db8::ffff": "2001:db8::9-2001:db8::ffff",
	} {
		r, err := ParseRange(text)
		got := (*ranges)(&[]Range{r}).String()
		if err != nil {
			got = err.Error()
		}
		if err == nil && got != want || err != nil && !strings.Contains(got, want) {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func slicesIndex(t *testing.T, all ...*discoveryv1.EndpointSlice) cache.Indexer {
	t.Helper()
	i := cache.NewSharedIndexInformer(&cache.ListWatch{}, &discoveryv1.EndpointSlice{}, 0, cache.Indexers{})
	if err := index.Slices(i); err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		if err := i.GetIndexer().Add(s); err != nil {
			t.Fatal(err)
		}
	}
	return i.GetIndexer()
}

func node(name string, ready bool, addrs ...string) *v1.Node {
	n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	c := v1.NodeCondition{Type: v1.NodeReady, Status: v1.ConditionFalse}
	if ready {
		c.Status = v1.ConditionTrue
	}
	n.Status.Conditions = []v1.NodeCondition{c}
	for _, a := range addrs {
		t := v1.NodeInternalIP
		if x, external := strings.CutPrefix(a, "external "); external {
			t, a = v1.NodeExternalIP, x
		}
		n.Status.Addresses = append(n.Status.Addresses, v1.NodeAddress{Type: t, Address: a})
	}
	return n
}

func balanced(name string, change ...func(*v1.Service)) *v1.Service {
	s := &v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID(name)}, Spec: v1.ServiceSpec{Type: v1.ServiceTypeLoadBalancer,
		IPFamilies: []v1.IPFamily{v1.IPv4Protocol}, Ports: []v1.ServicePort{{Port: 80, Protocol: v1.ProtocolTCP}}}}
	for _, f := range change {
		f(s)
	}
	return s
}

func dual(s *v1.Service) { s.Spec.IPFamilies = []v1.IPFamily{v1.IPv4Protocol, v1.IPv6Protocol} }
func local(s *v1.Service) {
	s.Spec.ExternalTrafficPolicy = v1.ServiceExternalTrafficPolicyLocal
}

// text formats the result of a call.
func text(b *Balanced, err error) string {
	if err != nil {
		return err.Error()
	}
	var out []string
	for _, in := range b.Status.Ingress {
		out = append(out, in.IP)
	}
	if by := b.Annotations[AnnouncedBy]; by != "" {
		out = append(out, "by "+by)
	}
	return strings.Join(out, " ")
}

func TestNodes(t *testing.T) {
	nodes := []*v1.Node{node("b", true, "192.0.2.2", "2001:db8::2"), node("a", true, "10.0.0.1", "external 192.0.2.1", "2001:db8::1"), node("c", false, "192.0.2.3")}
	on := func(name string) *discoveryv1.EndpointSlice {
		return &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "s", Labels: map[string]string{discoveryv1.LabelServiceName: "local"}},
			Endpoints: []discoveryv1.Endpoint{{NodeName: &name}, {NodeName: ptr.To("a"), Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(false)}}}}
	}
	had := balanced("old")
	had.Status.LoadBalancer.Ingress = []v1.LoadBalancerIngress{{IP: "192.0.2.1"}}
	had.Spec.Ports[0].Port = 443
	n := NewNodes(slicesIndex(t, on("b")), []*v1.Service{had})
	port := func(p int32) func(*v1.Service) { return func(s *v1.Service) { s.Spec.Ports[0].Port = p } }
	for _, c := range []struct {
		s    *v1.Service
		want string
	}{
		{balanced("one"), "192.0.2.1 192.0.2.2"},
		{balanced("two"), "port 80/TCP of the nodes is that of the Service ns/one: choose another port, or delete that Service"},
		{balanced("two", port(443)), "port 443/TCP of the nodes is that of the Service ns/old: choose another port, or delete that Service"},
		{balanced("two", port(81), dual), "192.0.2.1 192.0.2.2 2001:db8::1 2001:db8::2"},
		{balanced("local", port(82), local), "192.0.2.2"},
		{balanced("one", port(83)), "192.0.2.1 192.0.2.2"},
		{balanced("three"), "192.0.2.1 192.0.2.2"},
		{balanced("udp", func(s *v1.Service) { s.Spec.Ports[0].Protocol = v1.ProtocolUDP }), "192.0.2.1 192.0.2.2"},
	} {
		if got := text(n.Ensure(t.Context(), c.s, nodes)); got != c.want {
			t.Errorf("%s: %s, want %s", c.s.Name, got, c.want)
		}
	}
	if err := n.Delete(t.Context(), balanced("three")); err != nil {
		t.Fatal(err)
	}
	if got := text(n.Ensure(t.Context(), balanced("four"), nil)); got != "" {
		t.Errorf("without nodes: %s", got)
	}
}

func TestPool(t *testing.T) {
	nodes := []*v1.Node{node("a", true), node("b", true), node("c", false)}
	had := balanced("old")
	had.Status.LoadBalancer.Ingress = []v1.LoadBalancerIngress{{IP: "192.0.2.2"}}
	r := func(s string) Range {
		x, err := ParseRange(s)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	p := NewPool([]Range{r("192.0.2.1-192.0.2.3"), r("2001:db8::1")}, slicesIndex(t), []*v1.Service{had})
	ask := func(ip string) func(*v1.Service) { return func(s *v1.Service) { s.Spec.LoadBalancerIP = ip } }
	policy := func(p v1.IPFamilyPolicy) func(*v1.Service) { return func(s *v1.Service) { s.Spec.IPFamilyPolicy = &p } }
	for _, c := range []struct {
		s    *v1.Service
		want string
	}{
		{balanced("one"), "192.0.2.1"},
		{balanced("one", ask("192.0.2.2")), "spec.loadBalancerIP 192.0.2.2 is the address of the Service ns/old"},
		{balanced("one", ask("192.0.2.9")), "spec.loadBalancerIP 192.0.2.9 is not among the addresses of --load-balancer-addresses"},
		{balanced("one", ask("192.0.2.3")), "192.0.2.3"},
		{balanced("two", dual), "192.0.2.1 2001:db8::1"},
		{balanced("old"), "192.0.2.2"},
		{balanced("three"), "all IPv4 addresses of --load-balancer-addresses are in use: delete a Service, or give more"},
		{balanced("one", dual, policy(v1.IPFamilyPolicyPreferDualStack)), "192.0.2.3"},
		{balanced("one", dual, policy(v1.IPFamilyPolicyRequireDualStack)), "all IPv6 addresses of --load-balancer-addresses are in use: delete a Service, or give more"},
	} {
		got, _, _ := strings.Cut(text(p.Ensure(t.Context(), c.s, nodes)), " by ")
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.s.Name, got, c.want)
		}
	}
	// An address that a node says that it has is taken last, and is taken.
	liar := node("liar", true, "192.0.2.1")
	q := NewPool([]Range{r("192.0.2.1-192.0.2.2")}, slicesIndex(t), nil)
	for i, want := range []string{"192.0.2.2", "192.0.2.1"} {
		if got, _, _ := strings.Cut(text(q.Ensure(t.Context(), balanced(fmt.Sprint(i)), []*v1.Node{liar})), " by "); got != want {
			t.Errorf("Service %d of two: %s, want %s", i, got, want)
		}
	}
	if err := p.Delete(t.Context(), balanced("two")); err != nil {
		t.Fatal(err)
	}
	if got := text(p.Ensure(t.Context(), balanced("three"), nil)); got != "192.0.2.1" {
		t.Errorf("what was given back: %s", got)
	}
	// The Services are spread over the nodes; removing a node moves only its own
	// Services.
	all := []*v1.Node{node("a", true), node("b", true), node("d", true)}
	leader := func(name string, nodes []*v1.Node) string { return rank(balanced(name), nodes)[0].Name }
	count := map[string]int{}
	for i := range 300 {
		name := fmt.Sprint("service-", i)
		was := leader(name, all)
		count[was]++
		if now := leader(name, all[:2]); was != "d" && now != was {
			t.Errorf("%s moves from %s to %s though d is gone", name, was, now)
		}
	}
	for n, of := range count {
		if of < 60 || of > 140 {
			t.Errorf("%s has %d of 300 Services", n, of)
		}
	}
}
