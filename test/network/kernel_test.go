package network_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/network/proxy"
	"keelson.dev/keelson/test/harness"
)

// peer simulates a machine or a pod: a network namespace with a link to that of the
// test, which is the node.
type peer struct {
	testing.TB
	four, six netip.Addr
	run       chan func()
	ns        int // a descriptor of the namespace
}

// newHost makes a namespace of these addresses; the node has the gateways'
// addresses.
func newHost(t testing.TB, name string, four, six, gateway4, gateway6 string) *peer {
	t.Helper()
	h := newPort(t, "", name, four, six, gateway4, gateway6)
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, cidr := range []string{gateway4 + "/24", gateway6 + "/64"} {
		a, err := netlink.ParseAddr(cidr)
		if err != nil {
			t.Fatal(err)
		}
		a.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(l, a); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// newPort makes a namespace of these addresses, with a link that is a port of the
// node's bridge, if there is one.
func newPort(t testing.TB, bridge, name string, four, six, gateway4, gateway6 string) *peer {
	t.Helper()
	h := &peer{TB: t, four: netip.MustParseAddr(four), six: netip.MustParseAddr(six), run: make(chan func())}
	inside, ready := make(chan int), make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread and its namespace end with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			ready <- err
			return
		}
		inside <- unix.Gettid()
		for f := range h.run {
			f()
		}
	}()
	var tid int
	select {
	case tid = <-inside:
	case err := <-ready:
		t.Fatal(err)
	}
	t.Cleanup(func() { close(h.run) })
	ns, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", tid))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	h.ns = int(ns.Fd())
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	link := func(name string) netlink.Link {
		t.Helper()
		l, err := netlink.LinkByName(name)
		must(err)
		return l
	}
	address := func(l netlink.Link, cidrs ...string) {
		t.Helper()
		for _, c := range cidrs {
			a, err := netlink.ParseAddr(c)
			must(err)
			a.Flags = unix.IFA_F_NODAD
			must(netlink.AddrAdd(l, a))
		}
		must(netlink.LinkSetUp(l))
	}
	must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(ns.Fd()))}))
	t.Cleanup(func() { // at once: the kernel removes a namespace some time after its last thread
		if err := netlink.LinkDel(link(name)); err != nil {
			t.Error(err)
		}
	})
	if bridge != "" {
		must(netlink.LinkSetMaster(link(name), link(bridge)))
	}
	address(link(name))
	h.do(func() {
		address(link("lo"))
		eth0 := link("eth0")
		address(eth0, four+"/24", six+"/64")
		for _, gw := range []string{gateway4, gateway6} {
			must(netlink.RouteAdd(&netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: net.ParseIP(gw)}))
		}
	})
	return h
}

// linkLocal returns the address of the host's link.
func (h *peer) linkLocal() (out netip.Addr) {
	h.Helper()
	h.do(func() {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			h.Error(err)
			return
		}
		all, err := netlink.AddrList(l, netlink.FAMILY_V6)
		if err != nil {
			h.Error(err)
		}
		for _, a := range all {
			if ip, ok := netip.AddrFromSlice(a.IP); ok && ip.IsLinkLocalUnicast() {
				out = ip
			}
		}
	})
	if !out.IsValid() {
		h.Fatal("the link has no address of its own")
	}
	return out
}

// create makes an object.
func create(t testing.TB, api *fake.Clientset, o kruntime.Object) {
	t.Helper()
	if err := api.Tracker().Add(o); err != nil {
		t.Fatal(err)
	}
}

// do runs f in the host's namespace.
func (h *peer) do(f func()) {
	done := make(chan struct{})
	h.run <- func() { defer close(done); f() }
	<-done
}

// serve answers each connection to the port with the host's own address and the
// client's.
func (h *peer) serve(port uint16) {
	h.Helper()
	var l net.Listener
	var err error
	h.do(func() { l, err = net.Listen("tcp", fmt.Sprintf("[::]:%d", port)) })
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			from := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
			own := c.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
			fmt.Fprintf(c, "%s from %s", own, from)
			c.Close()
		}
	}()
}

// dial connects to an address from the node, or from a host, and returns the
// answer.
func dial(h *peer, to string, port uint16) (out string, err error) {
	at := net.JoinHostPort(to, fmt.Sprint(port))
	f := func() {
		var c net.Conn
		if c, err = net.DialTimeout("tcp", at, 2*time.Second); err != nil {
			return
		}
		defer c.Close()
		if err = c.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
			return
		}
		var b []byte
		b, err = io.ReadAll(c)
		out = string(b)
	}
	if h == nil {
		f()
	} else {
		h.do(f)
	}
	return out, err
}

// TestKernel sends packets between namespaces through the proxy's tables of both
// families. The package's own tests use a model of the kernel.
func TestKernel(t *testing.T) {
	forward(t)
	pod := newHost(t, "pod", "10.214.0.2", "fd00:214::2", "10.214.0.1", "fd00:214::1")
	far := newHost(t, "far", "10.215.0.2", "fd00:215::2", "10.215.0.1", "fd00:215::1") // a pod of another node
	client := newHost(t, "client", "198.51.100.2", "2001:db8:1::2", "198.51.100.1", "2001:db8:1::1")
	// The node's own packets need a route before they are translated; for IPv4 the
	// harness has one.
	if err := netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(client.six.String())}); err != nil {
		t.Fatal(err)
	}
	pod.serve(8080)
	far.serve(8080)
	const node4, node6 = "198.51.100.1", "2001:db8:1::1"

	families := []v1.IPFamily{v1.IPv4Protocol, v1.IPv6Protocol}
	service := func(name string, n byte, f func(*v1.Service)) *v1.Service {
		four, six := netip.AddrFrom4([4]byte{10, 96, 0, n}).String(), fmt.Sprintf("fd00:96::%x", n)
		s := &v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Spec: v1.ServiceSpec{Type: v1.ServiceTypeClusterIP,
			ClusterIP: four, ClusterIPs: []string{four, six}, IPFamilies: families, Ports: []v1.ServicePort{{Port: 80, Protocol: v1.ProtocolTCP}}}}
		if f != nil {
			f(s)
		}
		return s
	}
	endpoints := func(service string, six bool, hosts ...*peer) *discoveryv1.EndpointSlice {
		s := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: fmt.Sprint(service, "-", six), Labels: map[string]string{discoveryv1.LabelServiceName: service}},
			AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: ptr.To(""), Port: ptr.To[int32](8080), Protocol: ptr.To(v1.ProtocolTCP)}}}
		for _, h := range hosts {
			e := discoveryv1.Endpoint{Addresses: []string{h.four.String()}, NodeName: ptr.To("there")}
			if six {
				s.AddressType, e.Addresses = discoveryv1.AddressTypeIPv6, []string{h.six.String()}
			}
			if h == pod {
				e.NodeName = ptr.To("here")
			}
			s.Endpoints = append(s.Endpoints, e)
		}
		return s
	}
	balancer := func(s *v1.Service) {
		s.Spec.Type, s.Spec.ExternalTrafficPolicy = v1.ServiceTypeLoadBalancer, v1.ServiceExternalTrafficPolicyLocal
		s.Spec.Ports[0].NodePort = 30080
		s.Status.LoadBalancer.Ingress = []v1.LoadBalancerIngress{{IP: "203.0.113.5"}, {IP: "2001:db8:5::5"}}
	}
	api := fake.NewClientset(
		service("one", 1, nil), endpoints("one", false, pod), endpoints("one", true, pod),
		service("far", 2, nil), endpoints("far", false, far), endpoints("far", true, far),
		service("none", 3, nil),
		service("sticky", 4, func(s *v1.Service) { s.Spec.SessionAffinity = v1.ServiceAffinityClientIP }), endpoints("sticky", false, pod, far), endpoints("sticky", true, pod, far),
		service("balanced", 5, balancer), endpoints("balanced", false, pod, far), endpoints("balanced", true, pod, far),
		service("guarded", 6, func(s *v1.Service) {
			balancer(s)
			s.Spec.Ports[0].NodePort = 30081
			s.Status.LoadBalancer.Ingress = []v1.LoadBalancerIngress{{IP: "203.0.113.6"}, {IP: "2001:db8:5::6"}}
			s.Spec.LoadBalancerSourceRanges = []string{"192.0.2.0/24", "2001:db8:77::/48"}
		}), endpoints("guarded", false, pod), endpoints("guarded", true, pod),
		service("anywhere", 7, func(s *v1.Service) { s.Spec.Type, s.Spec.Ports[0].NodePort = v1.ServiceTypeNodePort, 30082 }), endpoints("anywhere", false, far), endpoints("anywhere", true, far),
	)
	factory := informers.NewSharedInformerFactory(api, 0)
	ranges := []netip.Prefix{netip.MustParsePrefix("10.214.0.0/24"), netip.MustParsePrefix("fd00:214::/64")}
	// start runs a proxy as a process does, and returns a function that ends it.
	start := func() (stop func()) {
		t.Helper()
		p, err := proxy.New(proxy.Config{NodeName: "here", NodeIPs: []netip.Addr{netip.MustParseAddr(node4), netip.MustParseAddr(node6)}, Informers: factory,
			IPv4: proxy.NewNetfilter(false, ranges), IPv6: proxy.NewNetfilter(true, ranges), Flows: proxy.Conntrack(), NoHealthChecks: true,
			Problem: func(err error) { t.Error(err) }})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		factory.StartWithContext(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- p.Run(ctx) }()
		return func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}
	stop := start()
	t.Cleanup(func() {
		stop()
		if err := proxy.Remove(); err != nil {
			t.Error(err)
		}
	})

	type names = [2]string // by family
	addr := func(n int) names { return names{fmt.Sprintf("10.96.0.%d", n), fmt.Sprintf("fd00:96::%x", n)} }
	nodes := names{node4, node6}
	for _, c := range []struct {
		what string
		from *peer
		to   names
		port uint16
		want names // the answer, or a part of the error
	}{
		{"the node", nil, addr(1), 80, names{"10.214.0.2 from 10.214.0.1", "fd00:214::2 from fd00:214::1"}},
		{"a pod to itself", pod, addr(1), 80, names{"10.214.0.2 from 10.214.0.1", "fd00:214::2 from fd00:214::1"}},
		{"a pod to another", pod, addr(2), 80, names{"10.215.0.2 from 10.214.0.2", "fd00:215::2 from fd00:214::2"}},
		{"a machine that routes cluster addresses here", client, addr(2), 80, names{"10.215.0.2 from 10.215.0.1", "fd00:215::2 from fd00:215::1"}},
		{"a pod to nobody", pod, addr(3), 80, names{"refused", "refused"}},
		{"the node to nobody", nil, addr(3), 80, names{"refused", "refused"}},
		{"another port", pod, addr(1), 81, names{"refused", "refused"}},
		{"a machine to a balancer, kept", client, names{"203.0.113.5", "2001:db8:5::5"}, 80, names{"10.214.0.2 from 198.51.100.2", "fd00:214::2 from 2001:db8:1::2"}},
		{"a machine to a node port, kept", client, nodes, 30080, names{"10.214.0.2 from 198.51.100.2", "fd00:214::2 from 2001:db8:1::2"}},
		{"a machine to a node port", client, nodes, 30082, names{"10.215.0.2 from 10.215.0.1", "fd00:215::2 from fd00:215::1"}},
		{"the node to its node port", nil, nodes, 30082, names{"10.215.0.2 from 10.215.0.1", "fd00:215::2 from fd00:215::1"}},
		{"a machine outside the ranges", client, names{"203.0.113.6", "2001:db8:5::6"}, 80, names{"timeout", "timeout"}},
	} {
		for i := range c.to {
			harness.Succeeds(t, c.what+" to "+c.to[i], func() error {
				out, err := dial(c.from, c.to[i], c.port)
				var timeout net.Error
				switch {
				case errors.Is(err, syscall.ECONNREFUSED):
					out = "refused"
				case errors.As(err, &timeout) && timeout.Timeout():
					out = "timeout"
				case err != nil:
					return err
				}
				if out != c.want[i] {
					return fmt.Errorf("%q, want %q", out, c.want[i])
				}
				return nil
			})
		}
	}

	// A client stays with one endpoint until that is removed.
	for i, to := range addr(4) {
		first := ""
		for range 10 {
			out, err := dial(client, to, 80)
			if err != nil {
				t.Fatal(err)
			}
			if first == "" {
				first = out
			}
			if out != first {
				t.Errorf("%s: %q, then %q", to, first, out)
			}
		}
		// The rules stay when the process ends, and the next process keeps affinity.
		stop()
		if out, err := dial(client, to, 80); err != nil || out != first {
			t.Errorf("%s without a proxy: %q, %v; before %q", to, out, err, first)
		}
		stop = start()
		for range 5 {
			if out, err := dial(client, to, 80); err != nil || out != first {
				t.Errorf("%s with the next proxy: %q, %v; before %q", to, out, err, first)
			}
		}
		left := pod
		if strings.HasPrefix(first, pod.four.String()) || strings.HasPrefix(first, pod.six.String()) {
			left = far
		}
		if _, err := api.DiscoveryV1().EndpointSlices("ns").Update(t.Context(), endpoints("sticky", i == 1, left), metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		harness.Succeeds(t, "the endpoint that is left", func() error {
			out, err := dial(client, to, 80)
			if err == nil && !strings.HasPrefix(out, left.four.String()) && !strings.HasPrefix(out, left.six.String()) {
				err = errors.New(out)
			}
			return err
		})
	}
}
