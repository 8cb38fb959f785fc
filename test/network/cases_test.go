package network_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/network/policy"
	"keelson.dev/keelson/internal/network/proxy"
	"keelson.dev/keelson/test/harness"
)

// ping sends an ICMP echo request and waits for the answer, up to that time.
func (h *peer) ping(to netip.Addr, wait time.Duration) error {
	network, kind, answer, proto := "ip4:icmp", icmp.Type(ipv4.ICMPTypeEcho), icmp.Type(ipv4.ICMPTypeEchoReply), 1
	if to.Is6() {
		network, kind, answer, proto = "ip6:ipv6-icmp", ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply, 58
	}
	var c *icmp.PacketConn
	var err error
	h.do(func() { c, err = icmp.ListenPacket(network, "") })
	if err != nil {
		return err
	}
	defer c.Close()
	b, err := (&icmp.Message{Type: kind, Body: &icmp.Echo{ID: os.Getpid() & 0xffff, Seq: 1, Data: []byte("?")}}).Marshal(nil)
	if err != nil {
		return err
	}
	if err := c.SetDeadline(time.Now().Add(wait)); err != nil {
		return err
	}
	if _, err := c.WriteTo(b, &net.IPAddr{IP: to.AsSlice()}); err != nil {
		return err
	}
	for b := make([]byte, 1500); ; {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			return err
		}
		if m, err := icmp.ParseMessage(proto, b[:n]); err == nil && m.Type == answer && from.String() == to.String() {
			return nil
		}
	}
}

// TestPolicyOfAddresses checks ICMP under policies, and that what holds for a pod's address
// is that of the pod that has it now, from the first packet: not of the one before.
func TestPolicyOfAddresses(t *testing.T) {
	forward(t)
	bridged(t, "pods", "10.223.0.1/24", "fd00:223::1/64")
	port := func(name string, n int) *member {
		m := &member{"ns", name, newPort(t, "pods", name, fmt.Sprintf("10.223.0.%d", n), fmt.Sprintf("fd00:223::%x", n), "10.223.0.1", "fd00:223::1")}
		m.answer()
		return m
	}
	x, y, server := port("x", 2), port("y", 3), port("server", 4)
	api := fake.NewClientset()
	create(t, api, &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}})
	pod := func(name, app string, at *peer, phase v1.PodPhase) *v1.Pod {
		return &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID(name), Labels: map[string]string{"app": app}}, Spec: v1.PodSpec{NodeName: "here"},
			Status: v1.PodStatus{Phase: phase, PodIPs: []v1.PodIP{{IP: at.four.String()}, {IP: at.six.String()}}}}
	}
	for _, m := range []*member{x, y, server} {
		create(t, api, pod(m.name, m.name, m.peer, v1.PodRunning))
	}
	factory := informers.NewSharedInformerFactory(api, 0)
	c, err := policy.New(policy.Config{NodeName: "here", Pods: factory.Core().V1().Pods().Informer(), Namespaces: factory.Core().V1().Namespaces().Informer(),
		Policies: factory.Networking().V1().NetworkPolicies().Informer(), IPv4: policy.NewNetfilter(false), IPv6: policy.NewNetfilter(true), Bridged: policy.Bridged})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	factory.StartWithContext(ctx)
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, policy.Remove()); err != nil {
			t.Error(err)
		}
	})
	apps := func(name string) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}
	}
	apply := func(name string, spec networkingv1.NetworkPolicySpec) {
		t.Helper()
		spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
		create(t, api, &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Spec: spec})
	}
	remove := func(name string) {
		t.Helper()
		if err := api.NetworkingV1().NetworkPolicies("ns").Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	pings := func(what string, from *member, want bool) {
		t.Helper()
		for _, to := range []netip.Addr{server.four, server.six} {
			harness.Succeeds(t, fmt.Sprintf("%s: from %s to %s", what, from, to), func() error {
				wait := time.Second
				if !want {
					wait = 300 * time.Millisecond
				}
				if err := from.ping(to, wait); (err == nil) != want {
					return fmt.Errorf("%w, want an answer: %t", err, want)
				}
				return nil
			})
		}
	}
	pings("no policy", x, true)
	peers := []networkingv1.NetworkPolicyPeer{{PodSelector: apps("y")}}
	apply("any-port", networkingv1.NetworkPolicySpec{PodSelector: *apps("server"), Ingress: []networkingv1.NetworkPolicyIngressRule{{From: peers}}})
	pings("a rule without ports", x, false)
	pings("a rule without ports", y, true)
	remove("any-port")
	pings("no policy again", x, true)
	apply("port", networkingv1.NetworkPolicySpec{PodSelector: *apps("server"), Ingress: []networkingv1.NetworkPolicyIngressRule{{From: peers, Ports: []networkingv1.NetworkPolicyPort{{Port: ptr.To(intstr.FromInt32(80))}}}}})
	pings("a rule with a port", y, false)

	// once sends one packet of each family: the table holds already.
	once := func(what string, from, to *member, want bool) {
		t.Helper()
		for _, six := range []bool{false, true} {
			wait := harness.Patience
			if !want {
				wait = 300 * time.Millisecond
			}
			if err := (probe{from, to, six, "udp", 80}).ask(wait); (err == nil) != want {
				t.Errorf("%s: IPv6 %t: %v, want an answer: %t", what, six, err, want)
			}
		}
	}
	remove("port")
	pings("no policy for the third time", y, true)
	apply("server", networkingv1.NetworkPolicySpec{PodSelector: *apps("server"), Ingress: []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{PodSelector: apps("x")}}}}})
	apply("closed", networkingv1.NetworkPolicySpec{PodSelector: *apps("closed")})
	pings("a policy for the server", y, false)
	once("the peer", x, server, true)

	// The pod at the address of x ends; it is still in the API. Another has its address.
	admit := func(name, app string) {
		t.Helper()
		p := pod(name, app, x.peer, v1.PodPending)
		p.Status.PodIPs = nil
		create(t, api, p)
		if err := c.Admit(t.Context(), p, []netip.Addr{x.four, x.six}); err != nil {
			t.Fatal(err)
		}
	}
	admit("next", "closed")
	once("the next pod, which is no peer", x, server, false)
	once("the next pod, which is isolated", y, x, false)
	admit("third", "x")
	once("the third pod, which is a peer", x, server, true)
	once("the third pod, which is not isolated", y, x, true)

	// A pod that has succeeded has no address anymore: neither as a peer, nor isolated.
	done := pod("server", "server", server.peer, v1.PodSucceeded)
	if _, err := api.CoreV1().Pods("ns").UpdateStatus(t.Context(), done, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	pings("a pod that has succeeded", y, true)
}

// TestKernelCases sends packets through the service proxy's tables that TestKernel does not:
// of a pod to itself by its node port, and of SCTP, without a socket of it.
func TestKernelCases(t *testing.T) {
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil {
		t.Fatal(err)
	}
	pod := newHost(t, "pod", "10.224.0.2", "fd00:224::2", "10.224.0.1", "fd00:224::1")
	client := newHost(t, "client", "198.51.100.2", "2001:db8:1::2", "198.51.100.1", "2001:db8:1::1")
	pod.serve(8080)
	const node = "198.51.100.1"
	ports := []v1.ServicePort{{Name: "web", Port: 80, NodePort: 30090, Protocol: v1.ProtocolTCP}, {Name: "sctp", Port: 80, NodePort: 30091, Protocol: v1.ProtocolSCTP}}
	slice := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "s-1", Labels: map[string]string{discoveryv1.LabelServiceName: "s"}}, AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{pod.four.String()}, NodeName: ptr.To("here")}}}
	for _, p := range ports {
		slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{Name: ptr.To(p.Name), Port: ptr.To[int32](8080), Protocol: ptr.To(p.Protocol)})
	}
	api := fake.NewClientset(slice, &v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "s"}, Spec: v1.ServiceSpec{Type: v1.ServiceTypeNodePort,
		ClusterIP: "10.96.0.1", ClusterIPs: []string{"10.96.0.1"}, IPFamilies: []v1.IPFamily{v1.IPv4Protocol}, Ports: ports}})
	factory := informers.NewSharedInformerFactory(api, 0)
	p, err := proxy.New(proxy.Config{NodeName: "here", NodeIPs: []netip.Addr{netip.MustParseAddr(node)}, Informers: factory,
		IPv4: proxy.NewNetfilter(false, []netip.Prefix{netip.MustParsePrefix("10.224.0.0/24")}), NoHealthChecks: true})
	if err != nil {
		t.Fatal(err)
	}
	factory.StartWithContext(t.Context())
	factory.WaitForCacheSyncWithContext(t.Context())
	t.Cleanup(func() {
		if err := proxy.Remove(); err != nil {
			t.Error(err)
		}
	})
	if err := p.Sync(); err != nil {
		t.Fatal(err)
	}
	if got, err := dial(pod, node, 30090); err != nil || got != "10.224.0.2 from 10.224.0.1" {
		t.Errorf("a pod to itself by the node port: %q, %v", got, err)
	}

	// As a user sees it.
	out, err := exec.Command("nft", "list", "table", "ip", "keelson-proxy").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{"10.96.0.1 . sctp . 80 : goto", node + " . sctp . 30091 : goto"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("nft does not list %q:\n%s", want, out)
		}
	}
	if !proxy.Follows(v1.ProtocolSCTP) {
		// The user has the event ProtocolNotSupported of the Service (TestUnsupported).
		t.Log("this kernel does not track connections of SCTP, so that it translates no packets of it")
		return
	}
	heard := pod.sctp()
	for i, to := range []netip.AddrPort{netip.MustParseAddrPort("10.96.0.1:80"), netip.MustParseAddrPort(node + ":30091")} {
		tag := uint32(1000 + i)
		client.beginSCTP(to, tag)
		select {
		case got := <-heard:
			if got.port != 8080 || got.tag != tag || !got.whole {
				t.Errorf("to %s: the endpoint got %+v", to, got)
			}
		case <-time.After(harness.Patience):
			t.Errorf("to %s: the endpoint got nothing", to)
		}
	}
}

// association is an INIT of SCTP (RFC 9260): its destination port and its tag, and whether
// its checksum is right.
type association struct {
	port  uint16
	tag   uint32
	whole bool
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const initChunk = 1

// beginSCTP sends the first packet of an association.
func (h *peer) beginSCTP(to netip.AddrPort, tag uint32) {
	h.Helper()
	b := make([]byte, 12+20)
	binary.BigEndian.PutUint16(b, uint16(40000+tag))
	binary.BigEndian.PutUint16(b[2:], to.Port())
	b[12] = initChunk
	binary.BigEndian.PutUint16(b[14:], 20)
	binary.BigEndian.PutUint32(b[16:], tag)
	binary.BigEndian.PutUint32(b[20:], 1<<16) // the receiver's window
	binary.BigEndian.PutUint16(b[24:], 1)     // streams out
	binary.BigEndian.PutUint16(b[26:], 1)     // and in
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, castagnoli))
	var c net.PacketConn
	var err error
	h.do(func() { c, err = net.ListenPacket("ip4:132", "") })
	if err == nil {
		_, err = c.WriteTo(b, &net.IPAddr{IP: to.Addr().AsSlice()})
		c.Close()
	}
	if err != nil {
		h.Fatal(err)
	}
}

// sctp returns the INITs that the host gets.
func (h *peer) sctp() <-chan association {
	h.Helper()
	var c net.PacketConn
	var err error
	h.do(func() { c, err = net.ListenPacket("ip4:132", "") })
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { c.Close() })
	heard := make(chan association, 16)
	go func() {
		for {
			b := make([]byte, 1500)
			n, _, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			if b = b[:n]; n < 32 || b[12] != initChunk {
				continue
			}
			sum := binary.LittleEndian.Uint32(b[8:])
			clear(b[8:12])
			heard <- association{binary.BigEndian.Uint16(b[2:]), binary.BigEndian.Uint32(b[16:]), sum == crc32.Checksum(b, castagnoli)}
		}
	}()
	return heard
}
