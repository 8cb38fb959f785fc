package proxy

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/network/reserved"
)

func fakeRig(t testing.TB) (*rig, *fake) {
	k := &fake{pods: podRange, local: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}
	return newRig(t, Config{IPv4: k, NoHealthChecks: true}), k
}

// in formats an outcome in one line.
func (o outcome) in() string {
	var out []string
	for _, a := range o.to {
		out = append(out, a.String())
	}
	for name, is := range map[string]bool{"masquerade": o.masq, "reject": o.reject, "drop": o.drop} {
		if is {
			out = append(out, name)
		}
	}
	return strings.Join(out, " ")
}

const (
	pod     = "10.244.0.9"
	machine = "192.0.2.1"
	outside = "198.51.100.7"
)

func TestServices(t *testing.T) {
	local := func(s *v1.Service) {
		s.Spec.Type, s.Spec.ExternalTrafficPolicy = v1.ServiceTypeLoadBalancer, v1.ServiceExternalTrafficPolicyLocal
		s.Spec.Ports[0].NodePort = 30080
		s.Status.LoadBalancer.Ingress = []v1.LoadBalancerIngress{{IP: "203.0.113.5"}}
	}
	balancer := func(s *v1.Service) { local(s); s.Spec.ExternalTrafficPolicy = v1.ServiceExternalTrafficPolicyCluster }
	internal := func(s *v1.Service) { s.Spec.InternalTrafficPolicy = ptr.To(v1.ServiceInternalTrafficPolicyLocal) }
	hint := func(nodes, zones string) func(*discoveryv1.Endpoint) {
		return func(e *discoveryv1.Endpoint) {
			e.Hints = &discoveryv1.EndpointHints{}
			if nodes != "" {
				e.Hints.ForNodes = []discoveryv1.ForNode{{Name: nodes}}
			}
			if zones != "" {
				e.Hints.ForZones = []discoveryv1.ForZone{{Name: zones}}
			}
		}
	}
	ready := []discoveryv1.Endpoint{ep("10.244.0.2", onHere), ep("10.244.1.2")}
	there := []discoveryv1.Endpoint{ep("10.244.1.2")}
	for _, c := range []struct {
		name   string
		change func(*v1.Service)
		eps    []discoveryv1.Endpoint
		from   string
		to     string
		port   uint16
		want   string
	}{
		{"from a pod", nil, ready, pod, "10.96.0.1", 80, "10.244.0.2:8080 10.244.1.2:8080"},
		{"from the node", nil, ready, machine, "10.96.0.1", 80, "10.244.0.2:8080 10.244.1.2:8080 masquerade"},
		{"a port it has not", nil, ready, pod, "10.96.0.1", 81, "reject"},
		{"an address of nobody", nil, ready, pod, "10.96.0.2", 80, ""},
		{"no endpoints", nil, nil, pod, "10.96.0.1", 80, "reject"},
		{"none is ready", nil, []discoveryv1.Endpoint{ep("10.244.1.2", notReady)}, pod, "10.96.0.1", 80, "reject"},
		{"only terminating ones", nil, []discoveryv1.Endpoint{ep("10.244.1.2", terminating), ep("10.244.1.3", notReady)}, pod, "10.96.0.1", 80, "10.244.1.2:8080"},
		{"terminating ones beside ready ones", nil, append(there, ep("10.244.1.3", terminating)), pod, "10.96.0.1", 80, "10.244.1.2:8080"},
		{"another proxy's", func(s *v1.Service) { s.Labels = map[string]string{otherProxy: "x"} }, ready, pod, "10.96.0.1", 80, ""},
		{"headless", func(s *v1.Service) { s.Spec.ClusterIP, s.Spec.ClusterIPs = "None", []string{"None"} }, ready, pod, "10.96.0.1", 80, ""},
		{"external IP", func(s *v1.Service) { s.Spec.ExternalIPs = []string{"203.0.113.9"} }, ready, outside, "203.0.113.9", 80, "10.244.0.2:8080 10.244.1.2:8080 masquerade"},

		{"node port", balancer, ready, outside, machine, 30080, "10.244.0.2:8080 10.244.1.2:8080 masquerade"},
		{"node port on another address", balancer, ready, outside, "192.0.2.77", 30080, ""},
		{"node port on loopback", balancer, ready, machine, "127.0.0.1", 30080, ""},
		{"node port without endpoints", balancer, nil, outside, machine, 30080, "reject"},
		{"balancer", balancer, ready, outside, "203.0.113.5", 80, "10.244.0.2:8080 10.244.1.2:8080 masquerade"},
		{"balancer that is a proxy", func(s *v1.Service) {
			balancer(s)
			s.Status.LoadBalancer.Ingress[0].IPMode = ptr.To(v1.LoadBalancerIPModeProxy)
		}, ready, outside, "203.0.113.5", 80, ""},
		{"balancer's source range", func(s *v1.Service) { balancer(s); s.Spec.LoadBalancerSourceRanges = []string{"198.51.100.0/24"} }, ready,
			outside, "203.0.113.5", 80, "10.244.0.2:8080 10.244.1.2:8080 masquerade"},
		{"outside the balancer's source range", func(s *v1.Service) { balancer(s); s.Spec.LoadBalancerSourceRanges = []string{"198.51.100.0/29"} }, ready,
			"198.51.100.8", "203.0.113.5", 80, "drop"},
		{"the machine under the balancer's address", func(s *v1.Service) { balancer(s); s.Spec.LoadBalancerSourceRanges = []string{"192.0.2.0/24"} }, ready,
			"203.0.113.5", "203.0.113.5", 80, "10.244.0.2:8080 10.244.1.2:8080 masquerade"},

		{"external policy Local", local, ready, outside, machine, 30080, "10.244.0.2:8080"},
		{"external policy Local from a pod", local, ready, pod, "203.0.113.5", 80, "10.244.0.2:8080 10.244.1.2:8080"},
		{"external policy Local from the node", local, ready, machine, machine, 30080, "10.244.0.2:8080 10.244.1.2:8080 masquerade"},
		{"external policy Local to the cluster address", local, ready, pod, "10.96.0.1", 80, "10.244.0.2:8080 10.244.1.2:8080"},
		{"external policy Local, nothing here", local, there, outside, machine, 30080, "drop"},
		{"external policy Local, nothing here, from a pod", local, there, pod, machine, 30080, "10.244.1.2:8080"},
		{"external policy Local, nothing", local, nil, outside, machine, 30080, "reject"},
		{"external policy Local, terminating", local, append(there, ep("10.244.0.2", onHere, terminating)), outside, machine, 30080, "10.244.0.2:8080"},

		{"internal policy Local", internal, ready, pod, "10.96.0.1", 80, "10.244.0.2:8080"},
		{"internal policy Local from the node", internal, ready, machine, "10.96.0.1", 80, "10.244.0.2:8080 masquerade"},
		{"internal policy Local, nothing here", internal, there, pod, "10.96.0.1", 80, "drop"},
		{"internal policy Local, nothing", internal, nil, pod, "10.96.0.1", 80, "reject"},

		{"hints for zones", nil, []discoveryv1.Endpoint{ep("10.244.1.2", hint("", "a")), ep("10.244.1.3", hint("", "b"))}, pod, "10.96.0.1", 80, "10.244.1.2:8080"},
		{"hints for other zones", nil, []discoveryv1.Endpoint{ep("10.244.1.2", hint("", "c")), ep("10.244.1.3", hint("", "b"))}, pod, "10.96.0.1", 80, "10.244.1.2:8080 10.244.1.3:8080"},
		{"an endpoint without a hint", nil, []discoveryv1.Endpoint{ep("10.244.1.2", hint("", "a")), ep("10.244.1.3")}, pod, "10.96.0.1", 80, "10.244.1.2:8080 10.244.1.3:8080"},
		{"hints for nodes", nil, []discoveryv1.Endpoint{ep("10.244.1.2", hint("there", "a")), ep("10.244.0.3", hint("here", "a"))}, pod, "10.96.0.1", 80, "10.244.0.3:8080"},
		{"hints for other nodes", nil, []discoveryv1.Endpoint{ep("10.244.1.2", hint("there", "a")), ep("10.244.1.3", hint("there", "b"))}, pod, "10.96.0.1", 80, "10.244.1.2:8080"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, k := fakeRig(t)
			r.set(&v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "here", Labels: map[string]string{v1.LabelTopologyZone: "a"}},
				Status: v1.NodeStatus{Addresses: []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: machine}, {Type: v1.NodeInternalIP, Address: "192.0.2.77"}}}})
			s := service("web", "10.96.0.1")
			if c.change != nil {
				c.change(s)
			}
			r.set(s, slice("web", "web-1", c.eps...))
			r.sync()
			if got := k.packet(c.from, c.to, c.port, v1.ProtocolTCP).in(); got != c.want {
				t.Errorf("to %q, want %q", got, c.want)
			}
			// After the deletion nothing of the Service is left.
			r.remove(s)
			r.sync()
			for set, all := range k.Sets {
				if len(all) > 0 {
					t.Errorf("left in %s: %v", set, all)
				}
			}
			if len(k.Chains) > 1 {
				t.Errorf("left: %v", k.Chains)
			}
		})
	}
}

func TestAffinity(t *testing.T) {
	r, k := fakeRig(t)
	sticky := func(s *v1.Service) { s.Spec.SessionAffinity = v1.ServiceAffinityClientIP }
	r.set(service("web", "10.96.0.1", sticky), slice("web", "web-1", ep("10.244.1.2"), ep("10.244.1.3")))
	r.sync()
	send := func() string { return k.packet(pod, "10.96.0.1", 80, v1.ProtocolTCP).in() }
	if send(); send() != "10.244.1.2:8080" {
		t.Errorf("the second packet went to %s", send())
	}
	// Affinity survives a new process and a flushed table.
	k.Gone = true
	if !r.inspect(t.Context()) {
		t.Error("the flushed table is not seen")
	}
	r.sync()
	if got := send(); got != "10.244.1.2:8080" {
		t.Errorf("after the table was written anew, to %s", got)
	}
	r.set(slice("web", "web-1", ep("10.244.1.3")))
	r.sync()
	if got := send(); got != "10.244.1.3:8080" {
		t.Errorf("the endpoint went, and packets to %s", got)
	}
	r.set(slice("web", "web-1", ep("10.244.1.2"), ep("10.244.1.3")))
	r.sync()
	if got := send(); got != "10.244.1.3:8080" {
		t.Errorf("to %s, which was not where it went last", got)
	}
	r.set(service("web", "10.96.0.1"))
	r.sync()
	if got := send(); got != "10.244.1.2:8080 10.244.1.3:8080" || len(k.affinity) != 0 {
		t.Errorf("without affinity to %s, %v", got, k.affinity)
	}
}

// TestOneChange checks the number of changes that the removal of one endpoint
// takes.
func TestOneChange(t *testing.T) {
	r, k := fakeRig(t)
	objs := many(50, 90)
	r.set(objs...)
	r.sync()
	s := objs[1].(*discoveryv1.EndpointSlice).DeepCopy()
	s.Endpoints = s.Endpoints[1:]
	r.set(s)
	r.sync()
	if k.Changes > 4 { // the last endpoint in the place of the first, and the rule
		t.Errorf("%d changes for an endpoint less", k.Changes)
	}
	writes := k.Writes
	r.set(s.DeepCopy())
	r.sync()
	if k.Writes != writes {
		t.Error("the same again is written again")
	}
}

// TestConflict checks two Services with the same external address and port.
func TestConflict(t *testing.T) {
	r, k := fakeRig(t)
	external := func(s *v1.Service) { s.Spec.ExternalIPs = []string{"203.0.113.9"} }
	a, b := service("a", "10.96.0.1", external), service("b", "10.96.0.2", external)
	r.set(b, slice("b", "b-1", ep("10.244.1.3")))
	r.sync()
	r.set(a, slice("a", "a-1", ep("10.244.1.2")))
	r.sync()
	send := func() string { return k.packet(outside, "203.0.113.9", 80, v1.ProtocolTCP).in() }
	if got := send(); got != "10.244.1.3:8080 masquerade" {
		t.Errorf("the first has it: %s", got)
	}
	r.remove(b)
	r.sync()
	if got := send(); got != "10.244.1.2:8080 masquerade" {
		t.Errorf("the second has it then: %s", got)
	}
}

// TestReserved checks that no Service gets the packets to another one's address, or to one that
// another has later, by naming it as an external address of its own.
func TestReserved(t *testing.T) {
	r, k := fakeRig(t)
	r.Reserved = reserving(t, reserved.Config{Services: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}})
	var told []string
	r.NotServed = func(s *v1.Service, at netip.AddrPort, _ string) { told = append(told, s.Name+" "+at.Addr().String()) }
	a := service("a", "10.96.0.1", func(s *v1.Service) { s.Spec.ExternalIPs = []string{"10.96.0.10", "10.96.0.2", "203.0.113.9"} })
	r.set(a, slice("a", "a-1", ep("10.244.1.2")))
	r.sync()
	for to, want := range map[string]string{"10.96.0.10": "", "10.96.0.2": "", "203.0.113.9": "10.244.1.2:8080 masquerade"} {
		if got := k.packet(outside, to, 80, v1.ProtocolTCP).in(); got != want {
			t.Errorf("to %s: %q, want %q", to, got, want)
		}
	}
	b := service("b", "10.96.0.2")
	r.set(b, slice("b", "b-1", ep("10.244.1.3")))
	r.sync()
	if got := k.packet(pod, "10.96.0.2", 80, v1.ProtocolTCP).in(); got != "10.244.1.3:8080" {
		t.Errorf("the other Service: %q", got)
	}
	if strings.Join(told, ", ") != "a 10.96.0.10, a 10.96.0.2" {
		t.Errorf("told: %q", told)
	}
}

// TestExternalAtNode checks that a Service gets a port of this node's address only where neither
// a program nor another Service's node port has it, and that other nodes' addresses are theirs.
func TestExternalAtNode(t *testing.T) {
	r, k := fakeRig(t)
	nodes := source(t, &v1.Node{})
	a, err := reserved.New(reserved.Config{NodeName: "here", Nodes: nodes.informer})
	if err != nil {
		t.Fatal(err)
	}
	r.Reserved = a
	changed := make(chan struct{}, 8)
	a.OnChange(func() { changed <- struct{}{} })
	a.OnChange(func() { r.mu.Lock(); r.exposed = true; r.mu.Unlock() })
	node := func(name, ip string) *v1.Node {
		return &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: v1.NodeStatus{
			Addresses:       []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: ip}},
			DaemonEndpoints: v1.NodeDaemonEndpoints{KubeletEndpoint: v1.DaemonEndpoint{Port: 10250}}}}
	}
	here := node("here", "192.0.2.1")
	nodes.Add(here)
	<-changed
	r.set(here)
	r.Listening = func() (*Sockets, error) {
		return &Sockets{map[Key]bool{{Addr: netip.MustParseAddr("192.0.2.1"), Proto: v1.ProtocolTCP, Port: 22}: true}, nil}, nil
	}
	var told []string
	r.NotServed = func(s *v1.Service, at netip.AddrPort, why string) {
		told = append(told, fmt.Sprintf("%s %s: %s", s.Name, at, why))
	}
	r.PortInUse = func(s *v1.Service, at netip.AddrPort, _ v1.Protocol) {
		told = append(told, fmt.Sprintf("%s %s is in use", s.Name, at))
	}
	// Its name is the first, so that it would be written first, too.
	thief := service("a", "10.96.0.1", func(s *v1.Service) {
		s.Spec.ExternalIPs = []string{"192.0.2.1", "192.0.2.2"}
		s.Spec.Ports = nil
		for _, port := range []int32{22, 80, 10250, 30080} {
			s.Spec.Ports = append(s.Spec.Ports, v1.ServicePort{Name: fmt.Sprint("p", port), Port: port, TargetPort: intstr.FromInt32(8080)})
		}
	})
	of := slice("a", "a-1", ep("10.244.1.2"))
	of.Ports = nil
	for i := range thief.Spec.Ports {
		of.Ports = append(of.Ports, discoveryv1.EndpointPort{Name: &thief.Spec.Ports[i].Name, Port: ptr.To[int32](8080)})
	}
	r.set(thief, of)
	r.sync()
	// Before the other node is known, its address is like any other.
	const stolen = "10.244.1.2:8080 masquerade"
	k.arrives(t, "at first", map[string]string{"192.0.2.1:22": "", "192.0.2.1:80": stolen, "192.0.2.1:10250": "", "192.0.2.2:10250": stolen, "192.0.2.1:30080": stolen})
	nodes.Add(node("there", "192.0.2.2"))
	<-changed
	web := service("web", "10.96.0.2", func(s *v1.Service) { s.Spec.Type, s.Spec.Ports[0].NodePort = v1.ServiceTypeNodePort, 30080 })
	r.set(web, slice("web", "web-1", ep("10.244.1.3")))
	r.sync()
	const others = "10.244.1.3:8080 masquerade"
	want := map[string]string{"192.0.2.2:10250": "", "192.0.2.2:80": "", "192.0.2.1:30080": others, "192.0.2.1:80": stolen}
	k.arrives(t, "with another node, and a node port", want)
	r.Proxy.all = true
	for _, t := range r.tables {
		t.current = false
	}
	r.sync()
	k.arrives(t, "written again", want)

	// A node tells its addresses itself: it takes no load balancer away by telling that it has
	// its address. Where the load balancer is the nodes, each of them serves its own.
	liar := node("liar", "203.0.113.7")
	nodes.Add(liar)
	<-changed
	balanced := service("balanced", "10.96.0.3", func(s *v1.Service) {
		s.Spec.Type = v1.ServiceTypeLoadBalancer
		s.Status.LoadBalancer.Ingress = []v1.LoadBalancerIngress{{IP: "203.0.113.7"}}
	})
	r.set(balanced, slice("balanced", "balanced-1", ep("10.244.1.4")))
	r.sync()
	k.arrives(t, "a load balancer", map[string]string{"203.0.113.7:80": "10.244.1.4:8080 masquerade"})
	balanced = balanced.DeepCopy()
	balanced.Status.Conditions = []metav1.Condition{{Type: reserved.OfNodes, Status: metav1.ConditionTrue}}
	r.set(balanced)
	r.sync()
	k.arrives(t, "a load balancer of the nodes", map[string]string{"203.0.113.7:80": ""})
	slices.Sort(told)
	if got := strings.Join(slices.Compact(told), ", "); got != "a 192.0.2.1:10250: it is the kubelet's, a 192.0.2.1:22 is in use" {
		t.Errorf("told: %q", got)
	}
}

func TestFailure(t *testing.T) {
	r, k := fakeRig(t)
	r.set(service("a", "10.96.0.1"), slice("a", "a-1", ep("10.244.1.2")))
	r.sync()
	k.Fail = errors.New("no")
	r.set(service("b", "10.96.0.2"), slice("b", "b-1", ep("10.244.1.3")))
	if err := r.Sync(); err == nil {
		t.Fatal("the error is not told")
	}
	k.Fail = nil
	r.sync()
	for to, want := range map[string]string{"10.96.0.1": "10.244.1.2:8080", "10.96.0.2": "10.244.1.3:8080"} {
		if got := k.packet(pod, to, 80, v1.ProtocolTCP).in(); got != want {
			t.Errorf("%s: %q, want %q", to, got, want)
		}
	}
}

// failingServices is a lister that fails while fail is set.
type failingServices struct {
	corelisters.ServiceLister
	fail error
}

func (l *failingServices) List(s labels.Selector) ([]*v1.Service, error) {
	if l.fail != nil {
		return nil, l.fail
	}
	return l.ServiceLister.List(s)
}

// TestErrorsLoseNothing has each part of a sync fail once, and checks that the next one does
// all that the former was to do.
func TestErrorsLoseNothing(t *testing.T) {
	no := errors.New("no")
	k := &fake{pods: podRange, local: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}
	f := &flows{}
	listening, sockets := error(nil), &Sockets{}
	r := newRig(t, Config{IPv4: k, NoHealthChecks: true, Flows: f, Listening: func() (*Sockets, error) { return sockets, listening },
		Reserved: reserving(t, reserved.Config{})})
	list := &failingServices{ServiceLister: r.services}
	r.services = list
	node := func(ip string) *v1.Node {
		return &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "here"}, Status: v1.NodeStatus{Addresses: []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: ip}}}}
	}
	fails := func(when string) {
		t.Helper()
		if err := r.Sync(); !errors.Is(err, no) {
			t.Errorf("%s: %v", when, err)
		}
	}

	// The first list.
	list.fail = no
	a := service("a", "10.96.0.1", func(s *v1.Service) {
		s.Spec.Type, s.Spec.Ports[0].NodePort, s.Spec.ExternalIPs = v1.ServiceTypeNodePort, 30080, []string{"203.0.113.9", "192.0.2.1"}
	})
	r.set(node("192.0.2.1"), a, slice("a", "a-1", ep("10.244.1.2")))
	fails("the first list")
	list.fail = nil
	r.sync()
	const served = "10.244.1.2:8080 masquerade"
	k.arrives(t, "after the first list", map[string]string{"10.96.0.1:80": served, "203.0.113.9:80": served, "192.0.2.1:30080": served, "192.0.2.1:80": served})

	// The list after another node port address, with nothing else to write.
	list.fail = no
	r.set(node("192.0.2.2"))
	fails("a node that has moved")
	list.fail = nil
	r.sync()
	k.arrives(t, "after the node has moved", map[string]string{"192.0.2.2:30080": served, "192.0.2.1:30080": ""})

	// The list of exposed Services, with nothing else to write.
	list.fail = no
	r.mu.Lock()
	r.exposed = true
	r.mu.Unlock()
	fails("reserved addresses that have changed")
	list.fail = nil
	if r.mu.Lock(); !r.exposed {
		t.Error("the change of reserved addresses is lost")
	}
	r.mu.Unlock()
	r.sync()

	// The programs' ports: a program keeps its port while they cannot be read.
	r.set(node("192.0.2.1"))
	sockets = &Sockets{map[Key]bool{{Addr: netip.MustParseAddr("192.0.2.1"), Proto: v1.ProtocolTCP, Port: 80}: true}, nil}
	r.set(a)
	r.sync()
	k.arrives(t, "with a program", map[string]string{"192.0.2.1:80": ""})
	listening = no
	r.set(a)
	fails("the programs' ports")
	k.arrives(t, "while the programs' ports are unknown", map[string]string{"192.0.2.1:80": "", "203.0.113.9:80": served})
	listening, sockets = nil, &Sockets{}
	r.sync()
	k.arrives(t, "without the program", map[string]string{"192.0.2.1:80": served})

	// Connection tracking: UDP flows of an endpoint that has gone, of a Service that has gone,
	// and the same after a table that could not be written.
	at := netip.MustParseAddrPort
	udp := func(s *v1.Service) { s.Spec.Ports[0].Protocol = v1.ProtocolUDP }
	of := func(name string, eps ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
		s := slice(name, name+"-1", eps...)
		s.Ports[0].Protocol = ptr.To(v1.ProtocolUDP)
		return s
	}
	for _, fault := range []struct {
		what string
		set  func(error)
	}{{"forgetting", func(err error) { f.fail = err }}, {"the kernel", func(err error) { k.Fail = err }}} {
		dns, old := service("dns", "10.96.0.10", udp), service("old", "10.96.0.11", udp)
		r.set(dns, of("dns", ep("10.244.1.2"), ep("10.244.1.3")), old, of("old", ep("10.244.1.4")))
		r.sync()
		f.gone, f.kept = nil, []Flow{{at("10.96.0.10:80"), at("10.244.1.2:8080")}, {at("10.96.0.10:80"), at("10.244.1.3:8080")}, {at("10.96.0.11:80"), at("10.244.1.4:8080")}}
		fault.set(no)
		r.set(of("dns", ep("10.244.1.3")))
		r.remove(old)
		fails(fault.what)
		fault.set(nil)
		r.sync()
		if len(f.kept) != 1 || f.kept[0].Answers != at("10.244.1.3:8080") {
			t.Errorf("%s: kept %v", fault.what, f.kept)
		}
	}

	// A table that another has taken away in the middle.
	k.Gone = true
	r.set(service("b", "10.96.0.2"), slice("b", "b-1", ep("10.244.1.5")))
	if err := r.Sync(); err == nil {
		t.Error("a table that is gone is written")
	}
	r.sync()
	k.arrives(t, "after the table was gone", map[string]string{"10.96.0.1:80": served, "10.96.0.2:80": "10.244.1.5:8080 masquerade"})
}

// flows is a connection tracking.
type flows struct {
	kept, gone []Flow
	fail       error
}

func (f *flows) Forget(_ bool, stale func(Flow) bool) (int, error) {
	if f.fail != nil {
		return 0, f.fail
	}
	var left []Flow
	for _, x := range f.kept {
		if stale(x) {
			f.gone = append(f.gone, x)
		} else {
			left = append(left, x)
		}
	}
	f.kept = left
	return len(f.gone), nil
}

func TestFlows(t *testing.T) {
	at := netip.MustParseAddrPort
	f := &flows{kept: []Flow{
		{at("10.96.0.1:80"), at("10.96.0.1:80")},       // sent before there was an endpoint
		{at("10.96.0.1:80"), at("10.244.1.2:8080")},    // stays
		{at("10.96.0.1:80"), at("10.244.1.9:8080")},    // the endpoint went while the proxy did not run
		{at("10.96.0.77:80"), at("10.244.1.2:8080")},   // of another Service
		{at("192.0.2.1:30080"), at("10.244.1.9:8080")}, // to the node port
	}}
	r := newRig(t, Config{IPv4: &fake{}, Flows: f, NoHealthChecks: true})
	udp := func(s *v1.Service) {
		s.Spec.Type, s.Spec.Ports[0].Protocol, s.Spec.Ports[0].NodePort = v1.ServiceTypeNodePort, v1.ProtocolUDP, 30080
	}
	sl := slice("dns", "dns-1", ep("10.244.1.2"), ep("10.244.1.3", terminating))
	sl.Ports[0].Protocol = ptr.To(v1.ProtocolUDP)
	r.set(service("dns", "10.96.0.1", udp), sl)
	r.sync()
	if len(f.gone) != 3 || len(f.kept) != 2 {
		t.Errorf("forgotten %v, kept %v", f.gone, f.kept)
	}
	r.remove(service("dns", "10.96.0.1"))
	r.sync()
	if len(f.kept) != 1 || f.kept[0].To != at("10.96.0.77:80") {
		t.Errorf("after the Service went: %v", f.kept)
	}
}

// TestRandom compares a table that was changed in many steps with one that was
// written at once.
func TestRandom(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		r, k := fakeRig(t)
		stored := map[string]runtime.Object{}
		for range 60 {
			n := rnd.IntN(6)
			name := fmt.Sprintf("s%d", n)
			switch rnd.IntN(4) {
			case 0:
				if o, ok := stored["svc/"+name]; ok {
					r.remove(o)
					delete(stored, "svc/"+name)
				}
			case 1:
				// Two Services may have the same address for a while.
				s := service(name, fmt.Sprintf("10.96.0.%d", 1+n), func(s *v1.Service) {
					if rnd.IntN(2) == 0 {
						s.Spec.SessionAffinity = v1.ServiceAffinityClientIP
					}
					if rnd.IntN(2) == 0 {
						s.Spec.Type, s.Spec.Ports[0].NodePort = v1.ServiceTypeLoadBalancer, int32(30000+n)
						s.Status.LoadBalancer.Ingress = []v1.LoadBalancerIngress{{IP: fmt.Sprintf("203.0.113.%d", n)}}
						if rnd.IntN(2) == 0 {
							s.Spec.ExternalTrafficPolicy = v1.ServiceExternalTrafficPolicyLocal
						}
						if rnd.IntN(2) == 0 {
							s.Spec.LoadBalancerSourceRanges = []string{"198.51.100.0/24"}
						}
					}
					if rnd.IntN(3) == 0 {
						s.Spec.InternalTrafficPolicy = ptr.To(v1.ServiceInternalTrafficPolicyLocal)
					}
				})
				r.set(s)
				stored["svc/"+name] = s
			default:
				var eps []discoveryv1.Endpoint
				for range rnd.IntN(12) {
					how := []func(*discoveryv1.Endpoint){func(*discoveryv1.Endpoint) {}, onHere, notReady, terminating}[rnd.IntN(4)]
					eps = append(eps, ep(fmt.Sprintf("10.244.1.%d", rnd.IntN(30)), how))
				}
				s := slice(name, fmt.Sprintf("%s-%d", name, rnd.IntN(2)), eps...)
				r.set(s)
				stored["slice/"+s.Name] = s
			}
			if rnd.IntN(3) > 0 {
				r.sync()
			}
		}
		r.sync()
		fresh, want := fakeRig(t)
		for _, o := range stored {
			fresh.set(o)
		}
		fresh.sync()
		for _, from := range []string{pod, machine, outside} {
			for n := range 6 {
				for to, port := range map[string]uint16{fmt.Sprintf("10.96.0.%d", 1+n): 80, machine: uint16(30000 + n), fmt.Sprintf("203.0.113.%d", n): 80} {
					for _, x := range []*fake{k, want} {
						for _, m := range x.affinity {
							clear(m)
						}
					}
					if got, want := k.packet(from, to, port, v1.ProtocolTCP), want.packet(from, to, port, v1.ProtocolTCP); !reflect.DeepEqual(got, want) {
						t.Fatalf("seed %d: from %s to %s: %+v, want %+v", seed, from, to, got, want)
					}
				}
			}
		}
		if !reflect.DeepEqual(k.Sets[hairpin], want.Sets[hairpin]) || !reflect.DeepEqual(k.Sets[clusterIPs], want.Sets[clusterIPs]) {
			t.Fatalf("seed %d: %v %v, want %v %v", seed, k.Sets[hairpin], k.Sets[clusterIPs], want.Sets[hairpin], want.Sets[clusterIPs])
		}
	}
}
