package network_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/controllers/service"
	"keelson.dev/keelson/internal/network/lb"
	"keelson.dev/keelson/internal/network/proxy"
	"keelson.dev/keelson/test/harness"
)

// inside runs f in the namespace of the peer, on a thread of its own, until the end
// of the test.
func (h *peer) inside(f func(context.Context)) {
	h.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := unix.Setns(h.ns, unix.CLONE_NEWNET)
		if err == nil {
			f(ctx)
		}
		ended <- err
	}()
	h.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			h.Error(err)
		}
	})
}

// TestPool checks that a machine on the same network reaches a Service at an address
// of the pool, through the node that answers for it, and through another one when
// that fails.
func TestPool(t *testing.T) {
	bridged(t, "lan")
	api := fake.NewClientset()
	factory := informers.NewSharedInformerFactory(api, 0)
	nodes := map[string]*peer{}
	families := []v1.IPFamily{v1.IPv4Protocol, v1.IPv6Protocol}
	svc := &v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web", UID: "web"}, Spec: v1.ServiceSpec{Type: v1.ServiceTypeLoadBalancer,
		ClusterIP: "10.96.0.7", ClusterIPs: []string{"10.96.0.7", "fd00:96::7"}, IPFamilies: families, ExternalTrafficPolicy: v1.ServiceExternalTrafficPolicyLocal,
		Ports: []v1.ServicePort{{Port: 80, Protocol: v1.ProtocolTCP}}}}
	slice := func(family discoveryv1.AddressType) *discoveryv1.EndpointSlice {
		return &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: strings.ToLower("web-" + string(family)), Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
			AddressType: family, Ports: []discoveryv1.EndpointPort{{Name: ptr.To(""), Port: ptr.To[int32](8080), Protocol: ptr.To(v1.ProtocolTCP)}}}
	}
	four, six := slice(discoveryv1.AddressTypeIPv4), slice(discoveryv1.AddressTypeIPv6)
	node := func(name string, status v1.ConditionStatus) *v1.Node {
		return &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: v1.NodeStatus{Conditions: []v1.NodeCondition{{Type: v1.NodeReady, Status: status}}}}
	}
	for i, name := range []string{"one", "two"} {
		n := newPort(t, "lan", "lan-"+name, fmt.Sprintf("10.221.0.%d", 10+i), fmt.Sprintf("fd00:221::1%d", i), "10.221.0.1", "fd00:221::1")
		nodes[name] = n
		n.serve(8080)
		n.do(func() {
			for _, file := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
				if err := os.WriteFile("/proc/sys/net/"+file, []byte("1"), 0o644); err != nil {
					t.Error(err)
				}
			}
		})
		four.Endpoints = append(four.Endpoints, discoveryv1.Endpoint{Addresses: []string{n.four.String()}, NodeName: &name})
		six.Endpoints = append(six.Endpoints, discoveryv1.Endpoint{Addresses: []string{n.six.String()}, NodeName: &name})
		create(t, api, node(name, v1.ConditionTrue))
		p, err := proxy.New(proxy.Config{NodeName: name, NodeIPs: []netip.Addr{n.four, n.six}, Informers: factory, NoHealthChecks: true,
			IPv4: proxy.NewNetfilter(false, nil), IPv6: proxy.NewNetfilter(true, nil), Problem: func(err error) { t.Error(err) }})
		if err != nil {
			t.Fatal(err)
		}
		a, err := lb.NewAnnouncer(lb.AnnouncerConfig{NodeName: name, Services: factory.Core().V1().Services().Informer(), Segments: lb.NewSegments()})
		if err != nil {
			t.Fatal(err)
		}
		n.inside(func(ctx context.Context) {
			if err := p.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		n.inside(a.Run)
	}
	create(t, api, four)
	create(t, api, six)
	create(t, api, svc)
	client := newPort(t, "lan", "lan-client", "10.221.0.100", "fd00:221::100", "10.221.0.1", "fd00:221::1")

	var pool []lb.Range
	for _, text := range []string{"10.221.0.200-10.221.0.201", "fd00:221::200/127"} {
		r, err := lb.ParseRange(text)
		if err != nil {
			t.Fatal(err)
		}
		pool = append(pool, r)
	}
	events := record.NewBroadcaster()
	defer events.Shutdown()
	run, err := service.New(controllers.Context{Clients: func(string) kubernetes.Interface { return api }, Informers: factory, Clock: clock.RealClock{}, Broadcaster: events,
		LoadBalancer: &lb.Options{Addresses: pool}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended; factory.Shutdown() })
	factory.StartWithContext(ctx)

	// by returns the node that answers for the Service's addresses.
	by := func() string {
		s, err := api.CoreV1().Services("ns").Get(t.Context(), "web", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return s.Annotations[lb.AnnouncedBy]
	}
	reaches := func(what, name string) {
		t.Helper()
		for _, to := range []string{"10.221.0.200", "fd00:221::200"} {
			harness.Succeeds(t, what+" by "+to, func() error {
				out, err := dial(client, to, 80)
				if n := nodes[name]; err == nil && !strings.HasPrefix(out, n.four.String()+" ") && !strings.HasPrefix(out, n.six.String()+" ") {
					err = fmt.Errorf("%q, want %s", out, name)
				}
				if err == nil && !strings.HasSuffix(out, " "+client.four.String()) && !strings.HasSuffix(out, " "+client.six.String()) {
					t.Errorf("the client's address is lost: %s", out)
				}
				return err
			})
		}
	}
	harness.Eventually(t, "a node that answers", func() bool { return by() != "" })
	first := by()
	other := map[string]string{"one": "two", "two": "one"}[first]
	reaches("the first node", first)
	set := func(name string, status v1.ConditionStatus) {
		t.Helper()
		if _, err := api.CoreV1().Nodes().Update(t.Context(), node(name, status), metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	set(first, v1.ConditionUnknown)
	reaches("the other node", other)
	set(first, v1.ConditionTrue)
	reaches("the first node again", first)

	// No node answers for an address that no Service has.
	c, err := client.connect("tcp", netip.MustParseAddrPort("10.221.0.201:80"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := exchange(c, harness.Patience); err == nil {
		t.Error("an address of nobody is reached")
	} else if !errors.As(err, new(net.Error)) {
		t.Error(err)
	}
}
