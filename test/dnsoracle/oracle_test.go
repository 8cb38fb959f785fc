// Package dnsoracle compares the answers of the built-in name server with those of
// CoreDNS's kubernetes plug-in, on random Services and random questions. It is a
// module of its own: nothing else depends on CoreDNS.
package dnsoracle

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin"
	kubernetesplugin "github.com/coredns/coredns/plugin/kubernetes"
	"github.com/coredns/coredns/plugin/pkg/dnstest"
	"github.com/coredns/coredns/plugin/test"
	mdns "github.com/miekg/dns"
	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/network/dns"
	"keelson.dev/keelson/test/harness"
	"keelson.dev/keelson/testcluster"
)

const domain = "cluster.local."

// coreDNS returns the plug-in on a cluster. A query that it does not answer gets
// NXDOMAIN.
func coreDNS(t *testing.T, kubeconfig string) plugin.Handler {
	t.Helper()
	c := caddy.NewTestController("dns", fmt.Sprintf("kubernetes cluster.local in-addr.arpa ip6.arpa {\n kubeconfig %s\n pods insecure\n fallthrough in-addr.arpa ip6.arpa\n}", kubeconfig))
	c.Next()
	k, err := kubernetesplugin.ParseStanza(c)
	if err != nil {
		t.Fatal(err)
	}
	start, stop, err := k.InitKubeCache(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stop() })
	k.Next = plugin.HandlerFunc(func(_ context.Context, w mdns.ResponseWriter, r *mdns.Msg) (int, error) {
		m := new(mdns.Msg)
		return 0, w.WriteMsg(m.SetRcode(r, mdns.RcodeNameError))
	})
	return k
}

// objects makes some Services with endpoints, and returns names that exist or nearly
// so.
func objects(t *testing.T, client kubernetes.Interface, rnd *rand.Rand) (names []string) {
	ctx := t.Context()
	names = []string{domain, "svc." + domain, "pod." + domain, "default.svc." + domain, "nobody.default.svc." + domain,
		"default.pod." + domain, "10-1-2-3.default.pod." + domain, "x.default.pod." + domain, "10-1-2-3.nowhere.pod." + domain, "a.b.c.d.svc." + domain,
		"1.0.96.10.in-addr.arpa.", "99.99.99.10.in-addr.arpa."}
	for i := range 12 {
		name := fmt.Sprintf("s%d", i)
		s := &v1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.ServiceSpec{Ports: []v1.ServicePort{{Name: "web", Port: int32(80 + i), Protocol: v1.ProtocolTCP}}}}
		if rnd.IntN(2) == 0 {
			s.Spec.Ports = append(s.Spec.Ports, v1.ServicePort{Name: "dgram", Port: 53, Protocol: v1.ProtocolUDP})
		}
		switch rnd.IntN(3) {
		case 0:
			s.Spec.ClusterIP = v1.ClusterIPNone
		case 1:
			s.Spec.PublishNotReadyAddresses = true
		}
		made, err := client.CoreV1().Services("default").Create(ctx, s, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		base := name + ".default.svc." + domain
		names = append(names, base, strings.ToUpper(base), "_web._tcp."+base, "_dgram._udp."+base, "_web._udp."+base, "_no._tcp."+base, "web."+base, "nobody."+base)
		if a, err := netip.ParseAddr(made.Spec.ClusterIP); err == nil {
			names = append(names, reverse(a))
		}
		for j := range rnd.IntN(3) {
			slice := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-%d", name, j), Labels: map[string]string{discoveryv1.LabelServiceName: name}},
				AddressType: discoveryv1.AddressTypeIPv4}
			for _, p := range s.Spec.Ports {
				slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{Name: ptr.To(p.Name), Port: ptr.To(p.Port + 8000), Protocol: ptr.To(p.Protocol)})
			}
			for range rnd.IntN(4) {
				a := netip.AddrFrom4([4]byte{10, 244, byte(i*2 + j), byte(1 + rnd.IntN(200))})
				e := discoveryv1.Endpoint{Addresses: []string{a.String()}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(rnd.IntN(3) > 0)}}
				if rnd.IntN(2) == 0 {
					e.Hostname = ptr.To(fmt.Sprintf("host-%d", rnd.IntN(100)))
					names = append(names, *e.Hostname+"."+base)
				}
				names = append(names, strings.ReplaceAll(a.String(), ".", "-")+"."+base, reverse(a))
				slice.Endpoints = append(slice.Endpoints, e)
			}
			if _, err := client.DiscoveryV1().EndpointSlices("default").Create(ctx, slice, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	alias := &v1.Service{ObjectMeta: metav1.ObjectMeta{Name: "alias"}, Spec: v1.ServiceSpec{Type: v1.ServiceTypeExternalName, ExternalName: "s0.default.svc.cluster.local"}}
	if _, err := client.CoreV1().Services("default").Create(ctx, alias, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	return append(names, "x.alias.default.svc."+domain)
}

func reverse(a netip.Addr) string {
	name, err := mdns.ReverseAddr(a.String())
	if err != nil {
		panic(err)
	}
	return name
}

// says formats a message, without what may differ: the order, and the serial
// number of the zone.
func says(m *mdns.Msg) string {
	if m == nil {
		return "nothing"
	}
	part := func(all []mdns.RR) string {
		var out []string
		for _, rr := range all {
			switch rr := rr.(type) {
			case *mdns.OPT:
				continue
			case *mdns.SOA:
				out = append(out, fmt.Sprintf("SOA %s %s %d", strings.ToLower(rr.Hdr.Name), strings.ToLower(rr.Mbox), rr.Minttl))
			default:
				out = append(out, strings.ToLower(rr.String()))
			}
		}
		slices.Sort(out)
		return strings.Join(slices.Compact(out), "; ")
	}
	return fmt.Sprintf("%s\n answer %s\n authority %s\n additional %s", mdns.RcodeToString[m.Rcode], part(m.Answer), part(m.Ns), part(m.Extra))
}

func TestOracle(t *testing.T) {
	c := testcluster.Start(t)
	client := kubernetes.NewForConfigOrDie(c.Config)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	names := objects(t, client, rand.New(rand.NewPCG(seed, 0)))

	file := t.TempDir() + "/kubeconfig"
	if err := harness.WriteKubeconfig(file, c.Config); err != nil {
		t.Fatal(err)
	}
	oracle := coreDNS(t, file)
	factory := informers.NewSharedInformerFactory(client, 0)
	own, err := dns.New(dns.Config{Domain: "cluster.local", Addresses: []netip.Addr{netip.MustParseAddr("10.96.0.10")}, Informers: factory, ResolvConf: "/dev/null"})
	if err != nil {
		t.Fatal(err)
	}
	factory.StartWithContext(t.Context())
	factory.WaitForCacheSync(t.Context().Done())

	asked := 0
	for _, name := range names {
		// For other types CoreDNS denies names that exist.
		for _, qtype := range []uint16{mdns.TypeA, mdns.TypeAAAA, mdns.TypeSRV, mdns.TypePTR} {
			if strings.HasSuffix(name, ".arpa.") && qtype != mdns.TypePTR || strings.HasSuffix(name, ".pod."+domain) && qtype == mdns.TypeSRV {
				continue // CoreDNS's SRV records of pods have the port 0
			}
			r := new(mdns.Msg)
			r.SetQuestion(name, qtype)
			w := dnstest.NewRecorder(&test.ResponseWriter{})
			code, err := oracle.ServeDNS(t.Context(), w, r.Copy())
			want := w.Msg
			if want == nil {
				want = new(mdns.Msg)
				want.SetRcode(r, code)
			}
			if err != nil && want.Rcode == mdns.RcodeSuccess {
				t.Fatal(err)
			}
			got := own.Answer(t.Context(), netip.Addr{}, r)
			if strings.HasSuffix(name, ".arpa.") && got.Rcode == mdns.RcodeServerFailure {
				got.Rcode = mdns.RcodeNameError // it would be forwarded, and there is no resolver
			}
			if asked++; says(got) != says(want) {
				t.Errorf("%s %s: %s\nCoreDNS: %s", name, mdns.TypeToString[qtype], says(got), says(want))
			}
		}
	}
	t.Logf("%d questions", asked)
}
