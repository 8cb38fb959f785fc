package network_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/network/policy"
	"keelson.dev/keelson/test/harness"
)

// member is a pod of the truth table: a namespace with a port of a bridge.
type member struct {
	namespace, name string
	*peer
}

func (m *member) String() string { return m.namespace + "/" + m.name }

// probePorts are served by each member, of TCP and UDP.
var probePorts = []uint16{80, 81}

// probe is an entry of the table: a packet from one member to another.
type probe struct {
	from  *member
	to    *member
	six   bool
	proto string
	port  uint16
}

func (p probe) String() string {
	return fmt.Sprintf("%s to %s, %s/%d, IPv6 %t", p.from, p.to, p.proto, p.port, p.six)
}

// ask sends the packet and waits for an answer, up to that time.
func (p probe) ask(wait time.Duration) error {
	to := p.to.four
	if p.six {
		to = p.to.six
	}
	c, err := p.from.connect(p.proto, netip.AddrPortFrom(to, p.port))
	if err != nil {
		return err
	}
	defer c.Close()
	return exchange(c, wait)
}

// exchange sends a byte and waits for the answer, up to that time. It also waits for the
// connection.
func exchange(c net.Conn, wait time.Duration) error {
	if err := c.SetDeadline(time.Now().Add(wait)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("?")); err != nil {
		return err
	}
	_, err := c.Read(make([]byte, 1))
	return err
}

// connect begins a connection from the namespace of the peer and does not wait for it. A
// socket belongs to the namespace that it was made in: so hundreds of connections need no
// threads of their own.
func (h *peer) connect(proto string, to netip.AddrPort) (net.Conn, error) {
	kind := unix.SOCK_STREAM
	if proto == "udp" {
		kind = unix.SOCK_DGRAM
	}
	var fd int
	var err error
	h.do(func() {
		var family int
		var sa unix.Sockaddr
		if a := to.Addr(); a.Is4() {
			family, sa = unix.AF_INET, &unix.SockaddrInet4{Port: int(to.Port()), Addr: a.As4()}
		} else {
			six := &unix.SockaddrInet6{Port: int(to.Port()), Addr: a.As16()}
			if a.Zone() != "" {
				l, lerr := netlink.LinkByName(a.Zone())
				if err = lerr; err != nil {
					return
				}
				six.ZoneId = uint32(l.Attrs().Index)
			}
			family, sa = unix.AF_INET6, six
		}
		if fd, err = unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
			return
		}
		if kind == unix.SOCK_DGRAM {
			err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1)
		}
		if err == nil {
			err = unix.Connect(fd, sa)
		}
		if err != nil && !errors.Is(err, unix.EINPROGRESS) {
			unix.Close(fd)
			return
		}
		err = nil
	})
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), proto)
	defer f.Close()
	return net.FileConn(f)
}

// answer answers probes on the ports.
func (m *member) answer() {
	for _, port := range probePorts {
		var l net.Listener
		var c net.PacketConn
		var err, err2 error
		m.do(func() {
			l, err = net.Listen("tcp", fmt.Sprintf("[::]:%d", port))
			c, err2 = net.ListenPacket("udp", fmt.Sprintf("[::]:%d", port))
		})
		if err = errors.Join(err, err2); err != nil {
			m.Fatal(err)
		}
		m.Cleanup(func() { l.Close(); c.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					b := make([]byte, 1)
					for {
						if _, err := c.Read(b); err != nil {
							return
						}
						if _, err := c.Write(b); err != nil {
							return
						}
					}
				}()
			}
		}()
		go func() {
			b := make([]byte, 16)
			for {
				n, from, err := c.ReadFrom(b)
				if err != nil {
					return
				}
				_, _ = c.WriteTo(b[:n], from) // the prober waits for the answer
			}
		}()
	}
}

// listen returns the datagrams that come to a port, of both families.
func (h *peer) listen(port uint16) <-chan string {
	heard := make(chan string, 1000)
	for _, network := range []string{"udp4", "udp6"} {
		var c net.PacketConn
		var err error
		h.do(func() { c, err = net.ListenPacket(network, fmt.Sprintf(":%d", port)) })
		if err != nil {
			h.Fatal(err)
		}
		h.Cleanup(func() { c.Close() })
		go func() {
			b := make([]byte, 64)
			for {
				n, _, err := c.ReadFrom(b)
				if err != nil {
					return
				}
				heard <- string(b[:n])
			}
		}()
	}
	return heard
}

// tell sends a text.
func (h *peer) tell(proto string, to netip.AddrPort, text string) {
	h.Helper()
	c, err := h.connect(proto, to)
	if err == nil {
		_, err = c.Write([]byte(text))
		c.Close()
	}
	if err != nil {
		h.Fatalf("to %s: %v", to, err)
	}
}

// toMany are the addresses of all of a link, beside the broadcast address of its range.
var toMany = []string{"255.255.255.255", "224.0.0.1", "ff02::1%eth0"}

// tellMany sends to all of the link in each way: a text, and the address that it is sent to.
func (h *peer) tellMany(broadcast, text string) {
	h.Helper()
	for _, to := range append([]string{broadcast}, toMany...) {
		h.tell("udp", netip.AddrPortFrom(netip.MustParseAddr(to), 90), text+to)
	}
}

// tellsMany waits until another of the link has heard what is sent to all, in each way.
func (h *peer) tellsMany(broadcast, text string, heard <-chan string) {
	h.Helper()
	left := map[string]bool{text + broadcast: true}
	for _, to := range toMany {
		left[text+to] = true
	}
	harness.Succeeds(h, "what is sent to all of the link", func() error {
		h.tellMany(broadcast, text)
		for len(left) > 0 {
			select {
			case got := <-heard:
				delete(left, got)
			default:
				return fmt.Errorf("not yet: %v", left)
			}
		}
		return nil
	})
}

// bridged adds a bridge with these addresses to the node.
func bridged(t *testing.T, name string, cidrs ...string) *netlink.Bridge {
	t.Helper()
	b := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}
	if err := netlink.LinkAdd(b); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netlink.LinkDel(b); err != nil {
			t.Error(err)
		}
	})
	for _, c := range cidrs {
		a, err := netlink.ParseAddr(c)
		if err != nil {
			t.Fatal(err)
		}
		a.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(b, a); err != nil {
			t.Fatal(err)
		}
	}
	if err := netlink.LinkSetUp(b); err != nil {
		t.Fatal(err)
	}
	return b
}

// forward has the machine forward packets, in both families.
func forward(t testing.TB) {
	t.Helper()
	for _, file := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		if err := os.WriteFile("/proc/sys/net/"+file, []byte("1"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPolicies sends packets between pods x, y, z of each of the namespaces a, b, c
// and from outside, over one bridge, in both families, by TCP and UDP.
func TestPolicies(t *testing.T) {
	forward(t)
	bridged(t, "pods", "10.217.0.1/24", "fd00:217::1/64")
	api := fake.NewClientset()
	var members []*member
	for i, ns := range []string{"a", "b", "c"} {
		create(t, api, &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns, Labels: map[string]string{"ns": ns}}})
		for j, name := range []string{"x", "y", "z"} {
			n := 10*(i+1) + j
			m := &member{ns, name, newPort(t, "pods", ns+name, fmt.Sprintf("10.217.0.%d", n), fmt.Sprintf("fd00:217::%x", n), "10.217.0.1", "fd00:217::1")}
			m.answer()
			members = append(members, m)
			create(t, api, &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, Labels: map[string]string{"pod": name}},
				Spec: v1.PodSpec{NodeName: "here", Containers: []v1.Container{{Name: "c", Ports: []v1.ContainerPort{
					{Name: "serve-80", ContainerPort: 80, Protocol: v1.ProtocolTCP}, {Name: "serve-81", ContainerPort: 81, Protocol: v1.ProtocolUDP}}}}},
				Status: v1.PodStatus{Phase: v1.PodRunning, PodIPs: []v1.PodIP{{IP: m.four.String()}, {IP: m.six.String()}}}})
		}
	}
	outside := &member{"", "outside", newHost(t, "outside", "198.51.100.2", "2001:db8:1::2", "198.51.100.1", "2001:db8:1::1")}
	outside.answer()
	find := func(name string) *member {
		for _, m := range members {
			if m.String() == name {
				return m
			}
		}
		t.Fatal(name)
		return nil
	}

	ax, ay, bx, bz, cx := find("a/x"), find("a/y"), find("b/x"), find("b/z"), find("c/x")
	heard := ax.listen(90)
	const broadcast = "10.217.0.255"
	bx.tellsMany(broadcast, "", heard)

	factory := informers.NewSharedInformerFactory(api, 0)
	c, err := policy.New(policy.Config{NodeName: "here", Pods: factory.Core().V1().Pods().Informer(), Namespaces: factory.Core().V1().Namespaces().Informer(),
		Policies: factory.Networking().V1().NetworkPolicies().Informer(), IPv4: policy.NewNetfilter(false), IPv6: policy.NewNetfilter(true),
		Bridged: policy.Bridged, Problem: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	factory.StartWithContext(ctx)
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		factory.Shutdown()
		if err := policy.Remove(); err != nil {
			t.Error(err)
		}
	})

	pods := func(labels ...string) *metav1.LabelSelector {
		s := &metav1.LabelSelector{}
		for i := 0; i < len(labels); i += 2 {
			metav1.AddLabelToSelector(s, labels[i], labels[i+1])
		}
		return s
	}
	port := func(proto v1.Protocol, p intstr.IntOrString) []networkingv1.NetworkPolicyPort {
		return []networkingv1.NetworkPolicyPort{{Protocol: &proto, Port: &p}}
	}
	inbound := []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
	outbound := []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}
	type peers = []networkingv1.NetworkPolicyPeer
	from := func(p peers, ports ...networkingv1.NetworkPolicyPort) []networkingv1.NetworkPolicyIngressRule {
		return []networkingv1.NetworkPolicyIngressRule{{From: p, Ports: ports}}
	}
	to := func(p peers, ports ...networkingv1.NetworkPolicyPort) []networkingv1.NetworkPolicyEgressRule {
		return []networkingv1.NetworkPolicyEgressRule{{To: p, Ports: ports}}
	}
	for _, test := range []struct {
		what    string
		policy  networkingv1.NetworkPolicySpec // in namespace a
		allowed func(p probe) bool
	}{
		{"no traffic to a namespace", networkingv1.NetworkPolicySpec{PolicyTypes: inbound}, func(p probe) bool { return p.to.namespace != "a" }},
		{"no traffic from a namespace", networkingv1.NetworkPolicySpec{PolicyTypes: outbound}, func(p probe) bool { return p.from.namespace != "a" }},
		{"from pods of the namespace", networkingv1.NetworkPolicySpec{PodSelector: *pods("pod", "x"), PolicyTypes: inbound, Ingress: from(peers{{PodSelector: pods("pod", "y")}})},
			func(p probe) bool { return p.to != ax || p.from == ay }},
		{"from namespaces", networkingv1.NetworkPolicySpec{PodSelector: *pods("pod", "x"), PolicyTypes: inbound, Ingress: from(peers{{NamespaceSelector: pods("ns", "b")}})},
			func(p probe) bool { return p.to != ax || p.from.namespace == "b" }},
		{"from pods of namespaces, on a port", networkingv1.NetworkPolicySpec{PodSelector: *pods("pod", "x"), PolicyTypes: inbound,
			Ingress: from(peers{{NamespaceSelector: pods(), PodSelector: pods("pod", "z")}}, port(v1.ProtocolTCP, intstr.FromInt32(81))...)},
			func(p probe) bool { return p.to != ax || p.from.name == "z" && p.proto == "tcp" && p.port == 81 }},
		{"from anywhere, on named ports", networkingv1.NetworkPolicySpec{PolicyTypes: inbound,
			Ingress: from(nil, append(port(v1.ProtocolTCP, intstr.FromString("serve-80")), port(v1.ProtocolUDP, intstr.FromString("serve-81"))...)...)},
			func(p probe) bool {
				return p.to.namespace != "a" || p.proto == "tcp" && p.port == 80 || p.proto == "udp" && p.port == 81
			}},
		{"to a range of ports of pods", networkingv1.NetworkPolicySpec{PolicyTypes: outbound, Egress: to(peers{{NamespaceSelector: pods("ns", "b")}, {NamespaceSelector: pods("ns", "c"), PodSelector: pods("pod", "x")}},
			networkingv1.NetworkPolicyPort{Protocol: ptr.To(v1.ProtocolTCP), Port: ptr.To(intstr.FromInt32(81)), EndPort: ptr.To[int32](90)},
			networkingv1.NetworkPolicyPort{Protocol: ptr.To(v1.ProtocolUDP)})},
			func(p probe) bool {
				return p.from.namespace != "a" || (p.to.namespace == "b" || p.to == cx) && (p.proto == "udp" || p.port == 81)
			}},
		{"ranges of addresses", networkingv1.NetworkPolicySpec{PolicyTypes: inbound, Ingress: from(peers{
			{IPBlock: &networkingv1.IPBlock{CIDR: "10.217.0.0/24", Except: []string{bx.four.String() + "/32", bz.four.String() + "/32"}}},
			{IPBlock: &networkingv1.IPBlock{CIDR: "::/0", Except: []string{bx.six.String() + "/128", outside.six.String() + "/127"}}}})},
			func(p probe) bool {
				return p.to.namespace != "a" || p.from != bx && p.from != outside && (p.six || p.from != bz)
			}},
		{"in and out", networkingv1.NetworkPolicySpec{PodSelector: *pods("pod", "x"), PolicyTypes: append(inbound, outbound...), Ingress: from(peers{{PodSelector: pods("pod", "y")}}),
			Egress: to(peers{{IPBlock: &networkingv1.IPBlock{CIDR: outside.four.String() + "/32"}}})},
			func(p probe) bool {
				return (p.to != ax || p.from == ay) && (p.from != ax || p.to == outside && !p.six)
			}},
	} {
		t.Run(test.what, func(t *testing.T) {
			pol := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "policy"}, Spec: test.policy}
			create(t, api, pol)
			verify(t, append(members, outside), test.allowed)
			if err := api.NetworkingV1().NetworkPolicies("a").Delete(t.Context(), "policy", metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		})
	}
	t.Run("no policy", func(t *testing.T) { verify(t, append(members, outside), func(probe) bool { return true }) })

	// The node reaches its pods, and each pod itself.
	create(t, api, &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "deny"}, Spec: networkingv1.NetworkPolicySpec{PolicyTypes: append(inbound, outbound...)}})
	verify(t, []*member{ax, bx}, func(p probe) bool { return p.from == p.to })
	for _, to := range []netip.Addr{ax.four, ax.six} {
		conn, err := net.DialTimeout("tcp", netip.AddrPortFrom(to, 80).String(), harness.Patience)
		if err != nil {
			t.Errorf("from the node: %v", err)
			continue
		}
		conn.Close()
	}
	// Packets to all of a link do not bypass a policy either.
	const denied = "denied "
	for range 3 {
		bx.tellMany(broadcast, denied)
	}
	ax.tell("udp", netip.AddrPortFrom(ax.four, 90), "the end")
	for got := range heard {
		if got == "the end" {
			break
		}
		if strings.HasPrefix(got, denied) { // others are from before
			t.Errorf("%s hears what is sent to all: %s", ax, got)
		}
	}
	// Link-local addresses do not bypass a policy.
	link := ax.linkLocal()
	conn, err := bx.connect("tcp", netip.AddrPortFrom(link.WithZone("eth0"), 80))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if exchange(conn, 300*time.Millisecond) == nil {
		t.Errorf("%s is reached at %s", ax, link)
	}
}

// verify sends all probes at once: first those that must pass, until they do, and
// then those that must not.
func verify(t *testing.T, members []*member, allowed func(probe) bool) {
	t.Helper()
	var yes, no []probe
	for _, from := range members {
		for _, to := range members {
			if from == to && from.name == "outside" {
				continue
			}
			for _, six := range []bool{false, true} {
				for _, proto := range []string{"tcp", "udp"} {
					for _, port := range probePorts {
						if p := (probe{from, to, six, proto, port}); from == to || allowed(p) {
							yes = append(yes, p)
						} else {
							no = append(no, p)
						}
					}
				}
			}
		}
	}
	each := func(all []probe, f func(probe) error) {
		t.Helper()
		var wg sync.WaitGroup
		var mu sync.Mutex
		var wrong []string
		for _, p := range all {
			wg.Go(func() {
				if err := f(p); err != nil {
					mu.Lock()
					wrong = append(wrong, fmt.Sprintf("%s: %v", p, err))
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if len(wrong) > 0 {
			t.Errorf("%d of %d:\n%s", len(wrong), len(all), strings.Join(wrong[:min(len(wrong), 8)], "\n"))
		}
	}
	each(yes, func(p probe) error { return p.until(100*time.Millisecond, func(err error) error { return err }) })
	if t.Failed() {
		return
	}
	// The policy may not be written yet: a connection that succeeds now must fail
	// once it is.
	each(no, func(p probe) error {
		return p.until(300*time.Millisecond, func(err error) error {
			if err == nil {
				err = errors.New("it passes")
			} else {
				err = nil
			}
			return err
		})
	})
}

// until sends the probe until the check accepts its outcome. It waits longer for each further
// answer, and pauses: hundreds of probes that fail at once, on a busy machine, must not
// keep it busy.
func (p probe) until(wait time.Duration, check func(error) error) error {
	limit, pause := time.Now().Add(harness.Patience), 20*time.Millisecond
	for tries := 1; ; tries++ {
		err := check(p.ask(wait))
		if err == nil {
			return nil
		}
		if time.Now().Add(pause).After(limit) {
			return fmt.Errorf("%w, %d times", err, tries)
		}
		time.Sleep(pause)
		pause, wait = min(2*pause, time.Second), min(2*wait, 10*time.Second)
	}
}

// TestPolicyOfConnections checks that a new policy ends the connections that it
// does not allow, and no others.
func TestPolicyOfConnections(t *testing.T) {
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil {
		t.Fatal(err)
	}
	client := &member{"a", "client", newHost(t, "client", "10.218.0.2", "fd00:218::2", "10.218.0.1", "fd00:218::1")}
	other := &member{"a", "other", newHost(t, "other", "10.219.0.2", "fd00:219::2", "10.219.0.1", "fd00:219::1")}
	server := &member{"a", "server", newHost(t, "server", "10.220.0.2", "fd00:220::2", "10.220.0.1", "fd00:220::1")}
	server.answer()
	api := fake.NewClientset()
	create(t, api, &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "a"}})
	for _, m := range []*member{client, other, server} {
		create(t, api, &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: m.name, Labels: map[string]string{"pod": m.name}}, Spec: v1.PodSpec{NodeName: "here"},
			Status: v1.PodStatus{Phase: v1.PodRunning, PodIPs: []v1.PodIP{{IP: m.four.String()}}}})
	}
	factory := informers.NewSharedInformerFactory(api, 0)
	c, err := policy.New(policy.Config{NodeName: "here", Pods: factory.Core().V1().Pods().Informer(), Namespaces: factory.Core().V1().Namespaces().Informer(),
		Policies: factory.Networking().V1().NetworkPolicies().Informer(), IPv4: policy.NewNetfilter(false)})
	if err != nil {
		t.Fatal(err)
	}
	factory.StartWithContext(t.Context())
	t.Cleanup(func() {
		if err := policy.Remove(); err != nil {
			t.Error(err)
		}
	})
	ends := func(m *member) net.Conn {
		t.Helper()
		conn, err := m.connect("tcp", netip.AddrPortFrom(server.four, 80))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	kept, cut := ends(client), ends(other)
	for _, conn := range []net.Conn{kept, cut} {
		if err := exchange(conn, harness.Patience); err != nil {
			t.Fatal(err)
		}
	}
	create(t, api, &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "policy"}, Spec: networkingv1.NetworkPolicySpec{
		PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"pod": "server"}}, PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress},
		Ingress: []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"pod": "client"}}}}}}}})
	harness.Succeeds(t, "the policy", func() error {
		if err := c.Admit(t.Context(), &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "another"}}, nil); err != nil {
			return err
		}
		if exchange(cut, 300*time.Millisecond) == nil {
			return errors.New("the connection that it does not allow goes on")
		}
		return nil
	})
	if err := exchange(kept, harness.Patience); err != nil {
		t.Errorf("the connection that it allows: %v", err)
	}
}
