package network_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/network/nft"
	"keelson.dev/keelson/internal/network/proxy"
	"keelson.dev/keelson/test/harness"
)

// rig is a proxy in the kernel with three hosts that have endpoints: near is of the
// node itself, close of another one of its zone, away of another zone. The client is a
// machine outside.
type rig struct {
	*testing.T
	api                       *fake.Clientset
	near, close, away, client *peer
	n                         byte // Services
}

// The node's own addresses, towards the client.
const here4, here6 = "192.0.2.1", "2001:db8:2::1"

// addresses holds those of a Service, or of whatever is asked, of each family.
type addresses = [2]string

// TestFields has each field of a Service that says where packets go take effect in the
// kernel, for both families.
func TestFields(t *testing.T) {
	forward(t)
	f := &rig{T: t, api: fake.NewClientset(),
		near:   newHost(t, "near", "10.221.0.2", "fd00:221::2", "10.221.0.1", "fd00:221::1"),
		close:  newHost(t, "close", "10.222.0.2", "fd00:222::2", "10.222.0.1", "fd00:222::1"),
		away:   newHost(t, "away", "10.223.0.2", "fd00:223::2", "10.223.0.1", "fd00:223::1"),
		client: newHost(t, "outside", "192.0.2.2", "2001:db8:2::2", here4, here6),
	}
	// What the node sends itself needs a route before it is translated.
	if err := netlink.RouteReplace(&netlink.Route{Gw: net.ParseIP(f.client.six.String())}); err != nil {
		t.Fatal(err)
	}
	for _, h := range []*peer{f.near, f.close, f.away} {
		h.serve(8080)
		h.echo(8080)
	}
	create(t, f.api, &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "here", Labels: map[string]string{v1.LabelTopologyZone: "a"}},
		Status: v1.NodeStatus{Addresses: []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: here4}, {Type: v1.NodeInternalIP, Address: here6}}}})
	factory := informers.NewSharedInformerFactory(f.api, 0)
	ranges := []netip.Prefix{netip.MustParsePrefix("10.221.0.0/24"), netip.MustParsePrefix("fd00:221::/64")}
	p, err := proxy.New(proxy.Config{NodeName: "here", Informers: factory, IPv4: proxy.NewNetfilter(false, ranges), IPv6: proxy.NewNetfilter(true, ranges),
		Flows: proxy.Conntrack(), Problem: func(err error) { t.Error(err) }, HealthCheckFailed: func(_ *v1.Service, _ int32, err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	factory.StartWithContext(ctx)
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, proxy.Remove()); err != nil {
			t.Error(err)
		}
	})
	t.Run("trafficDistribution", func(t *testing.T) { f.with(t).distribution() })
	t.Run("internalTrafficPolicy", func(t *testing.T) { f.with(t).internalPolicy() })
	t.Run("externalTrafficPolicy", func(t *testing.T) { f.with(t).externalPolicy() })
	t.Run("externalIPs", func(t *testing.T) { f.with(t).externalIPs() })
	t.Run("loadBalancerSourceRanges", func(t *testing.T) { f.with(t).sourceRanges() })
	t.Run("healthCheckNodePort", func(t *testing.T) { f.with(t).healthCheck() })
	t.Run("terminating", func(t *testing.T) { f.with(t).terminating() })
	t.Run("sessionAffinity", func(t *testing.T) { f.with(t).affinityEnds() })
	t.Run("UDP", func(t *testing.T) { f.with(t).flows() })
	t.Run("SCTP", func(t *testing.T) { f.with(t).sctp() })
}

// with returns f for a part of the test.
func (f *rig) with(t *testing.T) *rig {
	f.T = t
	return f
}

// echo answers each datagram with the host's own address of its family.
func (h *peer) echo(port uint16) {
	h.Helper()
	for _, own := range []netip.Addr{h.four, h.six} {
		var c net.PacketConn
		var err error
		h.do(func() { c, err = net.ListenPacket("udp", netip.AddrPortFrom(own, port).String()) })
		if err != nil {
			h.Fatal(err)
		}
		h.Cleanup(func() { c.Close() })
		go func() {
			b := make([]byte, 512)
			for {
				_, from, err := c.ReadFrom(b)
				if err != nil {
					return
				}
				_, _ = c.WriteTo([]byte(own.String()), from)
			}
		}()
	}
}

// service makes a Service of both families, and returns its cluster addresses.
func (f *rig) service(name string, change ...func(*v1.Service)) addresses {
	f.Helper()
	f.n++
	at := addresses{fmt.Sprintf("10.97.0.%d", f.n), fmt.Sprintf("fd00:97::%x", f.n)}
	s := &v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Spec: v1.ServiceSpec{Type: v1.ServiceTypeClusterIP, ClusterIP: at[0], ClusterIPs: at[:],
		IPFamilies: []v1.IPFamily{v1.IPv4Protocol, v1.IPv6Protocol}, Ports: []v1.ServicePort{{Port: 80, Protocol: v1.ProtocolTCP}}}}
	for _, c := range change {
		c(s)
	}
	if _, err := f.api.CoreV1().Services("ns").Create(f.Context(), s, metav1.CreateOptions{}); err != nil {
		f.Fatal(err)
	}
	return at
}

// endpoint is one on a host.
type endpoint struct {
	on     *peer
	change func(*discoveryv1.Endpoint)
}

// endpoints sets those of a Service, in slices of both families.
func (f *rig) endpoints(service string, proto v1.Protocol, all ...endpoint) {
	f.Helper()
	for _, family := range []discoveryv1.AddressType{discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6} {
		s := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: service + "-" + strings.ToLower(string(family)), Labels: map[string]string{discoveryv1.LabelServiceName: service}},
			AddressType: family, Ports: []discoveryv1.EndpointPort{{Name: ptr.To(""), Port: ptr.To[int32](8080), Protocol: &proto}}}
		for _, e := range all {
			x := discoveryv1.Endpoint{Addresses: []string{e.on.four.String()}, NodeName: ptr.To(map[*peer]string{f.near: "here", f.close: "there", f.away: "beyond"}[e.on])}
			if family == discoveryv1.AddressTypeIPv6 {
				x.Addresses[0] = e.on.six.String()
			}
			if e.change != nil {
				e.change(&x)
			}
			s.Endpoints = append(s.Endpoints, x)
		}
		slices := f.api.DiscoveryV1().EndpointSlices("ns")
		_, err := slices.Get(f.Context(), s.Name, metav1.GetOptions{})
		if err != nil {
			_, err = slices.Create(f.Context(), s, metav1.CreateOptions{})
		} else {
			_, err = slices.Update(f.Context(), s, metav1.UpdateOptions{})
		}
		if err != nil {
			f.Fatal(err)
		}
	}
}

// reaches waits until what is sent from there to the address of each family is answered
// by each of these hosts and by no other. Without any it is lost.
func (f *rig) reaches(what string, from *peer, to addresses, port uint16, want ...*peer) {
	f.Helper()
	for i, at := range to {
		all := map[string]bool{}
		for _, h := range want {
			all[addresses{h.four.String(), h.six.String()}[i]] = true
		}
		harness.Succeeds(f, fmt.Sprintf("%s, %s:%d", what, at, port), func() error {
			seen := map[string]bool{}
			for range 40 {
				out, err := dial(from, at, port)
				if len(want) == 0 {
					var timeout net.Error
					if errors.As(err, &timeout) && timeout.Timeout() {
						return nil
					}
					return fmt.Errorf("%q, %w; want it to be lost", out, err)
				}
				if err != nil {
					return err
				}
				by, _, _ := strings.Cut(out, " ")
				if !all[by] {
					return fmt.Errorf("%s answered", by)
				}
				if seen[by] = true; len(seen) == len(all) {
					return nil
				}
			}
			return fmt.Errorf("only %v answered, want %v", seen, all)
		})
	}
}

// source waits until a host sees this client's address.
func (f *rig) source(what string, from *peer, to addresses, port uint16, want addresses) {
	f.Helper()
	for i, at := range to {
		harness.Succeeds(f, what+" "+at, func() error {
			out, err := dial(from, at, port)
			if _, seen, _ := strings.Cut(out, " from "); err == nil && seen != want[i] {
				err = fmt.Errorf("the client is seen as %s, want %s", seen, want[i])
			}
			return err
		})
	}
}

func hint(node, zone string) func(*discoveryv1.Endpoint) {
	return func(e *discoveryv1.Endpoint) {
		e.Hints = &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: zone}}}
		if node != "" {
			e.Hints.ForNodes = []discoveryv1.ForNode{{Name: node}}
		}
	}
}

func ending(e *discoveryv1.Endpoint) {
	e.Conditions = discoveryv1.EndpointConditions{Ready: ptr.To(false), Serving: ptr.To(true), Terminating: ptr.To(true)}
}

// distribution has the hints that PreferSameZone and PreferSameNode make.
func (f *rig) distribution() {
	zone := f.service("zone", func(s *v1.Service) { s.Spec.TrafficDistribution = ptr.To(v1.ServiceTrafficDistributionPreferSameZone) })
	f.endpoints("zone", v1.ProtocolTCP, endpoint{f.near, hint("", "a")}, endpoint{f.close, hint("", "a")}, endpoint{f.away, hint("", "b")})
	f.reaches("a pod in its zone", f.near, zone, 80, f.near, f.close)
	f.endpoints("zone", v1.ProtocolTCP, endpoint{f.away, hint("", "b")})
	f.reaches("a pod where there is none in its zone", f.near, zone, 80, f.away)

	node := f.service("node", func(s *v1.Service) { s.Spec.TrafficDistribution = ptr.To(v1.ServiceTrafficDistributionPreferSameNode) })
	all := []endpoint{{f.near, hint("here", "a")}, {f.close, hint("there", "a")}, {f.away, hint("beyond", "b")}}
	f.endpoints("node", v1.ProtocolTCP, all...)
	f.reaches("a pod on its node", f.near, node, 80, f.near)
	f.reaches("the node itself", nil, node, 80, f.near)
	f.endpoints("node", v1.ProtocolTCP, all[1:]...)
	f.reaches("a pod where there is none on its node", f.near, node, 80, f.close)
	f.endpoints("node", v1.ProtocolTCP, all[2:]...)
	f.reaches("a pod where there is none in its zone either", f.near, node, 80, f.away)
}

func (f *rig) internalPolicy() {
	at := f.service("internal", func(s *v1.Service) { s.Spec.InternalTrafficPolicy = ptr.To(v1.ServiceInternalTrafficPolicyLocal) })
	f.endpoints("internal", v1.ProtocolTCP, endpoint{on: f.near}, endpoint{on: f.away})
	f.reaches("a pod", f.near, at, 80, f.near)
	f.reaches("the node", nil, at, 80, f.near)
	f.endpoints("internal", v1.ProtocolTCP, endpoint{on: f.away})
	f.reaches("a pod without an endpoint on its node", f.near, at, 80)
	f.endpoints("internal", v1.ProtocolTCP)
	for _, a := range at {
		harness.Succeeds(f, "a refusal without endpoints", func() error {
			if out, err := dial(f.near, a, 80); !errors.Is(err, syscall.ECONNREFUSED) {
				return fmt.Errorf("%q, %w", out, err)
			}
			return nil
		})
	}
}

func (f *rig) externalPolicy() {
	at := addresses{here4, here6}
	f.service("kept", func(s *v1.Service) {
		s.Spec.Type, s.Spec.ExternalTrafficPolicy, s.Spec.Ports[0].NodePort = v1.ServiceTypeNodePort, v1.ServiceExternalTrafficPolicyLocal, 30180
	})
	f.endpoints("kept", v1.ProtocolTCP, endpoint{on: f.near}, endpoint{on: f.away})
	f.reaches("a machine", f.client, at, 30180, f.near)
	f.source("a machine", f.client, at, 30180, addresses{f.client.four.String(), f.client.six.String()})
	f.reaches("a pod", f.near, at, 30180, f.near, f.away)
	f.endpoints("kept", v1.ProtocolTCP, endpoint{on: f.away})
	f.reaches("a machine, where there is no endpoint", f.client, at, 30180)
	f.reaches("a pod, where there is no endpoint", f.near, at, 30180, f.away)
}

func (f *rig) externalIPs() {
	at := addresses{"203.0.113.20", "2001:db8:9::20"}
	f.service("external", func(s *v1.Service) { s.Spec.ExternalIPs = at[:] })
	f.endpoints("external", v1.ProtocolTCP, endpoint{on: f.near}, endpoint{on: f.away})
	for what, from := range map[string]*peer{"a machine": f.client, "a pod": f.near, "the node": nil} {
		f.reaches(what, from, at, 80, f.near, f.away)
	}
}

func (f *rig) sourceRanges() {
	at := addresses{"203.0.113.21", "2001:db8:9::21"}
	f.service("guarded", func(s *v1.Service) {
		s.Spec.Type, s.Spec.LoadBalancerSourceRanges = v1.ServiceTypeLoadBalancer, []string{"192.0.2.0/28", "2001:db8:2::/64"}
		s.Status.LoadBalancer.Ingress = []v1.LoadBalancerIngress{{IP: at[0]}, {IP: at[1]}}
	})
	f.endpoints("guarded", v1.ProtocolTCP, endpoint{on: f.away})
	f.reaches("a machine of the ranges", f.client, at, 80, f.away)
	f.reaches("a pod of another node, which is of none", f.close, at, 80)
}

func (f *rig) healthCheck() {
	const port = 30190
	f.service("checked", func(s *v1.Service) {
		s.Spec.Type, s.Spec.ExternalTrafficPolicy, s.Spec.HealthCheckNodePort = v1.ServiceTypeLoadBalancer, v1.ServiceExternalTrafficPolicyLocal, port
	})
	answers := func(code, local int) {
		f.Helper()
		for _, at := range []string{here4, here6} {
			harness.Succeeds(f, fmt.Sprintf("the health check at %s with %d", at, local), func() error {
				var out error
				f.client.do(func() {
					c, err := net.DialTimeout("tcp", net.JoinHostPort(at, fmt.Sprint(port)), 2*time.Second)
					if err != nil {
						out = err
						return
					}
					one := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
						DialContext: func(context.Context, string, string) (net.Conn, error) { return c, nil }}}
					resp, err := one.Get("http://node/")
					if err != nil {
						out = err
						return
					}
					defer resp.Body.Close()
					b, err := io.ReadAll(resp.Body)
					want := fmt.Sprintf(`{"service":{"namespace":"ns","name":"checked"},"localEndpoints":%d,"serviceProxyHealthy":true}`, local)
					if out = err; resp.StatusCode != code || strings.TrimSpace(string(b)) != want {
						out = fmt.Errorf("%s: %s", resp.Status, b)
					}
				})
				return out
			})
		}
	}
	f.endpoints("checked", v1.ProtocolTCP, endpoint{on: f.near}, endpoint{on: f.away})
	answers(200, 1)
	f.endpoints("checked", v1.ProtocolTCP, endpoint{f.near, ending}, endpoint{on: f.away})
	answers(503, 0)
}

func (f *rig) terminating() {
	at := f.service("ending", func(s *v1.Service) {
		s.Spec.Type, s.Spec.ExternalTrafficPolicy, s.Spec.Ports[0].NodePort = v1.ServiceTypeNodePort, v1.ServiceExternalTrafficPolicyLocal, 30181
	})
	port := addresses{here4, here6}
	f.endpoints("ending", v1.ProtocolTCP, endpoint{f.near, ending}, endpoint{on: f.away})
	f.reaches("a pod, where one is ready", f.near, at, 80, f.away)
	f.reaches("a machine, where the node's own only ends", f.client, port, 30181, f.near)
	f.endpoints("ending", v1.ProtocolTCP, endpoint{f.near, ending}, endpoint{f.away, ending})
	f.reaches("a pod, where all end", f.near, at, 80, f.near, f.away)
	f.endpoints("ending", v1.ProtocolTCP, endpoint{f.near, func(e *discoveryv1.Endpoint) { ending(e); e.Conditions.Serving = ptr.To(false) }}, endpoint{f.away, ending})
	f.reaches("a pod, where one serves no more", f.near, at, 80, f.away)
}

// affinityEnds lets the time run out after which a client's endpoint is forgotten.
func (f *rig) affinityEnds() {
	at := f.service("sticky", func(s *v1.Service) {
		s.Spec.SessionAffinity, s.Spec.SessionAffinityConfig = v1.ServiceAffinityClientIP, &v1.SessionAffinityConfig{ClientIP: &v1.ClientIPConfig{TimeoutSeconds: ptr.To[int32](2)}}
	})
	f.endpoints("sticky", v1.ProtocolTCP, endpoint{on: f.near}, endpoint{on: f.close}, endpoint{on: f.away})
	for i, to := range at {
		family := []nft.Family{nft.IPv4, nft.IPv6}[i]
		first := ""
		harness.Succeeds(f, "an answer", func() (err error) {
			first, err = dial(f.client, to, 80)
			return err
		})
		for range 10 {
			if out, err := dial(f.client, to, 80); err != nil || out != first {
				f.Fatalf("%s: %q, %v; before %q", to, out, err, first)
			}
		}
		harness.Succeeds(f, "another endpoint, each time that the first is forgotten", func() error {
			known, err := nft.Elements(family, "keelson-proxy", "affinity/ns/sticky/TCP/80")
			if err != nil {
				return err
			}
			if len(known) > 0 {
				return errors.New("it is remembered")
			}
			next, err := dial(f.client, to, 80)
			if err == nil && next == first {
				err = errors.New("the same by chance")
			}
			return err
		})
	}
}

// flows follows a flow of UDP from one endpoint to the next.
func (f *rig) flows() {
	at := f.service("dgrams", func(s *v1.Service) { s.Spec.Ports[0].Protocol = v1.ProtocolUDP })
	conns := make([]net.Conn, len(at))
	for i, to := range at {
		var err error
		f.near.do(func() { conns[i], err = net.Dial("udp", net.JoinHostPort(to, "80")) })
		if err != nil {
			f.Fatal(err)
		}
		f.Cleanup(func() { conns[i].Close() })
	}
	for _, h := range []*peer{f.close, f.away, f.near} {
		f.endpoints("dgrams", v1.ProtocolUDP, endpoint{on: h})
		for i, want := range []netip.Addr{h.four, h.six} {
			harness.Succeeds(f, "an answer of "+want.String(), func() error {
				if err := conns[i].SetDeadline(time.Now().Add(time.Second)); err != nil {
					return err
				}
				if _, err := conns[i].Write([]byte("hello")); err != nil {
					return err
				}
				b := make([]byte, 512)
				n, err := conns[i].Read(b)
				if err == nil && string(b[:n]) != want.String() {
					err = fmt.Errorf("%s answers", b[:n])
				}
				return err
			})
		}
	}
}

// sctp looks at the rules only: sockets of SCTP are not in every kernel.
func (f *rig) sctp() {
	at := f.service("streams", func(s *v1.Service) { s.Spec.Ports[0].Protocol, s.Spec.Ports[0].Port = v1.ProtocolSCTP, 3868 })
	f.endpoints("streams", v1.ProtocolSCTP, endpoint{on: f.away})
	for i, to := range at {
		harness.Succeeds(f, "the rules for SCTP to "+to, func() error {
			out, err := exec.CommandContext(f.Context(), "nft", "list", "map", []string{"ip", "ip6"}[i], "keelson-proxy", "services").Output()
			if err != nil {
				return err
			}
			lines := strings.FieldsFunc(string(out), func(r rune) bool { return r == '\n' || r == ',' })
			if !slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, to+" . sctp . 3868 : goto") }) {
				return fmt.Errorf("%s", out)
			}
			return nil
		})
	}
}
