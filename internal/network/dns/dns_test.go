package dns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	testingclock "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
)

// objects returns a small cluster.
func objects() []runtime.Object {
	meta := func(name string, labels ...string) metav1.ObjectMeta {
		m := metav1.ObjectMeta{Namespace: "ns", Name: name, Labels: map[string]string{}}
		for _, l := range labels {
			m.Labels[discoveryv1.LabelServiceName] = l
		}
		return m
	}
	tcp, udp := v1.ProtocolTCP, v1.ProtocolUDP
	ep := func(host string, ready bool, ip string) discoveryv1.Endpoint {
		e := discoveryv1.Endpoint{Addresses: []string{ip}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}
		if host != "" {
			e.Hostname = &host
		}
		return e
	}
	return []runtime.Object{
		&v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}},
		&v1.Service{ObjectMeta: meta("web"), Spec: v1.ServiceSpec{ClusterIP: "10.96.0.7", ClusterIPs: []string{"10.96.0.7", "fd00::7"},
			Ports: []v1.ServicePort{{Name: "http", Port: 80, Protocol: tcp}, {Name: "dns", Port: 53, Protocol: udp}}}},
		&v1.Service{ObjectMeta: meta("db"), Spec: v1.ServiceSpec{ClusterIP: "None", ClusterIPs: []string{"None"}, Ports: []v1.ServicePort{{Name: "sql", Port: 5432, Protocol: tcp}}}},
		&discoveryv1.EndpointSlice{ObjectMeta: meta("db-1", "db"), AddressType: discoveryv1.AddressTypeIPv4,
			Endpoints: []discoveryv1.Endpoint{ep("db-0", true, "10.244.0.4"), ep("", true, "10.244.0.5"), ep("db-2", false, "10.244.0.6")},
			Ports:     []discoveryv1.EndpointPort{{Name: ptr.To("sql"), Port: ptr.To[int32](5432), Protocol: &tcp}}},
		&v1.Service{ObjectMeta: meta("empty"), Spec: v1.ServiceSpec{ClusterIP: "None"}},
		&v1.Service{ObjectMeta: meta("portless"), Spec: v1.ServiceSpec{ClusterIP: "None"}},
		&discoveryv1.EndpointSlice{ObjectMeta: meta("portless-1", "portless"), AddressType: discoveryv1.AddressTypeIPv6, Endpoints: []discoveryv1.Endpoint{ep("", true, "fd00:1::5")}},
		&v1.Service{ObjectMeta: meta("out"), Spec: v1.ServiceSpec{Type: v1.ServiceTypeExternalName, ExternalName: "example.org"}},
		&v1.Service{ObjectMeta: meta("in"), Spec: v1.ServiceSpec{Type: v1.ServiceTypeExternalName, ExternalName: "web.ns.svc.cluster.local"}},
		&v1.Service{ObjectMeta: meta("loop"), Spec: v1.ServiceSpec{Type: v1.ServiceTypeExternalName, ExternalName: "loop.ns.svc.cluster.local"}},
		&v1.Service{ObjectMeta: meta("number"), Spec: v1.ServiceSpec{Type: v1.ServiceTypeExternalName, ExternalName: "192.0.2.1"}},
		&v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "gone", Name: "web"}, Spec: v1.ServiceSpec{ClusterIP: "10.96.0.8"}},
	}
}

type upstream struct {
	addr  string
	asked atomic.Int32
}

// resolver returns the address of a name server that knows example.org, and names
// below slow, which it answers once, by TCP only.
func resolver(t *testing.T, answer func(w dns.ResponseWriter, r *dns.Msg)) *upstream {
	t.Helper()
	u := &upstream{}
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u.addr = conn.LocalAddr().String()
	l, err := net.Listen("tcp", u.addr)
	if err != nil {
		t.Fatal(err)
	}
	h := dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		u.asked.Add(1)
		answer(w, r)
	})
	for _, s := range []*dns.Server{{PacketConn: conn, Handler: h}, {Listener: l, Handler: h}} {
		go func() { _ = s.ActivateAndServe() }()
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	return u
}

func example(w dns.ResponseWriter, r *dns.Msg) {
	m := new(dns.Msg)
	m.SetReply(r)
	_, tcp := w.LocalAddr().(*net.TCPAddr)
	switch q := r.Question[0]; {
	case q.Name == "example.org." && q.Qtype == dns.TypeA:
		m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.IPv4(192, 0, 2, 80)}}
	case q.Name == "big.example.org." && !tcp:
		m.Truncated = true
	case q.Name == "big.example.org.":
		m.Answer = []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 60}, Txt: []string{"by TCP"}}}
	default:
		m.Rcode = dns.RcodeNameError
		m.Ns = []dns.RR{&dns.SOA{Hdr: dns.RR_Header{Name: "org.", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 60}, Ns: "a.", Mbox: "b."}}
	}
	_ = w.WriteMsg(m)
}

func newServer(t *testing.T, clock *testingclock.FakeClock, resolvers ...string) (*Server, informers.SharedInformerFactory) {
	t.Helper()
	f := informers.NewSharedInformerFactory(nil, 0)
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(conf, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{Domain: "cluster.local", Addresses: []netip.Addr{netip.MustParseAddr("10.96.0.10")}, Informers: f, ResolvConf: conf, Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects() {
		add(t, f, o)
	}
	// The file has no place for ports.
	if err := s.forward.readResolvers(); err != nil {
		t.Fatal(err)
	}
	s.forward.resolvers = resolvers
	return s, f
}

func add(t *testing.T, f informers.SharedInformerFactory, o runtime.Object) {
	t.Helper()
	i := f.Core().V1().Services().Informer()
	switch o.(type) {
	case *v1.Namespace:
		i = f.Core().V1().Namespaces().Informer()
	case *v1.ConfigMap:
		i = f.Core().V1().ConfigMaps().Informer()
	case *discoveryv1.EndpointSlice:
		i = f.Discovery().V1().EndpointSlices().Informer()
	}
	if err := i.GetIndexer().Update(o); err != nil {
		t.Fatal(err)
	}
}

// ask returns the answer in a line: the code if it is not NOERROR, the records, "+"
// and the additional ones, "soa" for the record of a negative answer.
func ask(t *testing.T, s *Server, name string, qtype uint16) string {
	t.Helper()
	r := new(dns.Msg)
	r.SetQuestion(name, qtype)
	m := s.Answer(t.Context(), netip.Addr{}, r)
	var out []string
	if m.Rcode != dns.RcodeSuccess {
		out = append(out, dns.RcodeToString[m.Rcode])
	}
	text := func(all []dns.RR) (lines []string) {
		for _, rr := range all {
			h := rr.Header()
			lines = append(lines, dns.TypeToString[h.Rrtype]+" "+strings.TrimSpace(strings.TrimPrefix(rr.String(), h.String())))
		}
		slices.Sort(lines)
		return lines
	}
	out = append(out, text(m.Answer)...)
	if len(m.Extra) > 0 {
		out = append(append(out, "+"), text(m.Extra)...)
	}
	for _, rr := range m.Ns {
		if rr.Header().Rrtype == dns.TypeSOA && m.Authoritative {
			out = append(out, "soa")
		}
	}
	return strings.Join(out, " ")
}

func TestZone(t *testing.T) {
	u := resolver(t, example)
	s, _ := newServer(t, testingclock.NewFakeClock(time.Now()), u.addr)
	A, AAAA, SRV, PTR, CNAME, TXT := dns.TypeA, dns.TypeAAAA, dns.TypeSRV, dns.TypePTR, dns.TypeCNAME, dns.TypeTXT
	for _, c := range []struct {
		name  string
		qtype uint16
		want  string
	}{
		{"web.ns.svc.cluster.local.", A, "A 10.96.0.7"},
		{"WEB.ns.SVC.cluster.local.", A, "A 10.96.0.7"},
		{"web.ns.svc.cluster.local.", AAAA, "AAAA fd00::7"},
		{"web.ns.svc.cluster.local.", TXT, "soa"},
		{"_http._tcp.web.ns.svc.cluster.local.", SRV, "SRV 0 100 80 web.ns.svc.cluster.local. + A 10.96.0.7 AAAA fd00::7"},
		{"_http._udp.web.ns.svc.cluster.local.", SRV, "NXDOMAIN soa"},
		{"http._tcp.web.ns.svc.cluster.local.", SRV, "NXDOMAIN soa"},
		{"web.ns.svc.cluster.local.", SRV, "SRV 0 50 53 web.ns.svc.cluster.local. SRV 0 50 80 web.ns.svc.cluster.local. + A 10.96.0.7 AAAA fd00::7"},
		{"nobody.ns.svc.cluster.local.", A, "NXDOMAIN soa"},
		{"web.gone.svc.cluster.local.", A, "NXDOMAIN soa"},
		{"a.b.c.web.ns.svc.cluster.local.", A, "NXDOMAIN soa"},
		{"web.cluster.local.", A, "NXDOMAIN soa"},

		{"db.ns.svc.cluster.local.", A, "A 10.244.0.4 A 10.244.0.5"},
		{"db.ns.svc.cluster.local.", AAAA, "soa"},
		{"db-0.db.ns.svc.cluster.local.", A, "A 10.244.0.4"},
		{"10-244-0-5.db.ns.svc.cluster.local.", A, "A 10.244.0.5"},
		{"db-2.db.ns.svc.cluster.local.", A, "NXDOMAIN soa"},
		{"_sql._tcp.db.ns.svc.cluster.local.", SRV, "SRV 0 50 5432 10-244-0-5.db.ns.svc.cluster.local. SRV 0 50 5432 db-0.db.ns.svc.cluster.local. + A 10.244.0.4 A 10.244.0.5"},
		{"empty.ns.svc.cluster.local.", A, "NXDOMAIN soa"},
		{"portless.ns.svc.cluster.local.", AAAA, "AAAA fd00:1::5"},
		{"portless.ns.svc.cluster.local.", SRV, "soa"},

		{"7.0.96.10.in-addr.arpa.", PTR, "PTR web.ns.svc.cluster.local."},
		{"4.0.244.10.in-addr.arpa.", PTR, "PTR db-0.db.ns.svc.cluster.local."},
		{"5.0.244.10.in-addr.arpa.", PTR, "PTR 10-244-0-5.db.ns.svc.cluster.local."},
		{"6.0.244.10.in-addr.arpa.", PTR, "NXDOMAIN"}, // forwarded
		{"7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.", PTR, "PTR web.ns.svc.cluster.local."},

		{"10-0-0-9.ns.pod.cluster.local.", A, "A 10.0.0.9"},
		{"10-0-0-9.ns.pod.cluster.local.", AAAA, "soa"},
		{"fd00--9.ns.pod.cluster.local.", AAAA, "AAAA fd00::9"},
		{"10-0-0-9.gone.pod.cluster.local.", A, "NXDOMAIN soa"},
		{"mypod.ns.pod.cluster.local.", A, "NXDOMAIN soa"},

		{"out.ns.svc.cluster.local.", CNAME, "CNAME example.org."},
		{"out.ns.svc.cluster.local.", A, "A 192.0.2.80 CNAME example.org."},
		{"in.ns.svc.cluster.local.", A, "A 10.96.0.7 CNAME web.ns.svc.cluster.local."},
		{"number.ns.svc.cluster.local.", A, "NXDOMAIN soa"},
		{"_x._tcp.out.ns.svc.cluster.local.", SRV, "NXDOMAIN soa"},

		{"dns-version.cluster.local.", TXT, `TXT "1.1.0"`},
		{"cluster.local.", dns.TypeNS, "NS ns.dns.cluster.local. + A 10.96.0.10"},
		{"ns.dns.cluster.local.", A, "A 10.96.0.10"},
		{"cluster.local.", A, "soa"},
		{"svc.cluster.local.", A, "soa"},
		{"ns.svc.cluster.local.", A, "soa"},
		{"gone.svc.cluster.local.", A, "NXDOMAIN soa"},

		{"example.org.", A, "A 192.0.2.80"},
		{"nothing.example.org.", A, "NXDOMAIN"},
		{"big.example.org.", TXT, `TXT "by TCP"`},
		{"cluster.local.", dns.TypeAXFR, "REFUSED"},
	} {
		if got := ask(t, s, c.name, c.qtype); got != c.want {
			t.Errorf("%s %s: %q, want %q", c.name, dns.TypeToString[c.qtype], got, c.want)
		}
	}
	if got := ask(t, s, "loop.ns.svc.cluster.local.", A); !strings.HasPrefix(got, "SERVFAIL") {
		t.Errorf("an alias of itself: %q", got)
	}
}

// TestMessage checks the parts of an answer that do not depend on the name.
func TestMessage(t *testing.T) {
	s, f := newServer(t, testingclock.NewFakeClock(time.Now()))
	r := new(dns.Msg)
	r.SetQuestion("Web.ns.svc.cluster.local.", dns.TypeA)
	r.SetEdns0(4096, true)
	m := s.Answer(t.Context(), netip.Addr{}, r)
	if o := m.IsEdns0(); o == nil || !o.Do() || o.UDPSize() != ednsSize || !m.Authoritative || !m.RecursionAvailable || m.Answer[0].Header().Name != "Web.ns.svc.cluster.local." {
		t.Errorf("%v", m)
	}
	r.IsEdns0().SetVersion(1)
	if m := s.Answer(t.Context(), netip.Addr{}, r); m.Rcode != dns.RcodeBadVers {
		t.Errorf("EDNS version 1: %v", m)
	}
	// Without a resolver only names of the cluster are resolved.
	if got := ask(t, s, "example.org.", dns.TypeA); got != "SERVFAIL" {
		t.Errorf("without a resolver: %q", got)
	}
	if got := ask(t, s, "out.ns.svc.cluster.local.", dns.TypeA); got != "SERVFAIL CNAME example.org." {
		t.Errorf("an alias to what cannot be resolved: %q", got)
	}
	// A change is seen as soon as the informer has it.
	add(t, f, &v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "new"}, Spec: v1.ServiceSpec{ClusterIP: "10.96.0.9",
		Ports: []v1.ServicePort{{Port: 80, Protocol: v1.ProtocolTCP}}}})
	if got := ask(t, s, "new.ns.svc.cluster.local.", dns.TypeA); got != "A 10.96.0.9" {
		t.Errorf("a new Service: %q", got)
	}
}

func TestForward(t *testing.T) {
	clock := testingclock.NewFakeClock(time.Now())
	broken := resolver(t, func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg)
		_ = w.WriteMsg(m.SetRcode(r, dns.RcodeServerFailure))
	})
	good := resolver(t, example)
	stub := resolver(t, func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(r)
		m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: r.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.IPv4(192, 0, 2, 9)}}
		_ = w.WriteMsg(m)
	})
	s, f := newServer(t, clock, broken.addr, good.addr)
	for range 3 {
		if got := ask(t, s, "example.org.", dns.TypeA); got != "A 192.0.2.80" {
			t.Fatalf("the second resolver's answer: %q", got)
		}
	}
	if n := good.asked.Load(); n != 1 {
		t.Errorf("asked %d times for what is kept", n)
	}
	clock.Step(10 * time.Second)
	r := new(dns.Msg)
	r.SetQuestion("EXAMPLE.org.", dns.TypeA)
	if m := s.Answer(t.Context(), netip.Addr{}, r); m.Answer[0].Header().Ttl != 50 || m.Answer[0].Header().Name != "EXAMPLE.org." {
		t.Errorf("after ten seconds: %v", m.Answer)
	}
	clock.Step(cacheMax)
	ask(t, s, "example.org.", dns.TypeA)
	if n := good.asked.Load(); n != 2 {
		t.Errorf("asked %d times after the answer's time", n)
	}
	if got := ask(t, s, "x.acme.local.", dns.TypeA); got != "NXDOMAIN" {
		t.Errorf("before the stub domain: %q", got)
	}
	add(t, f, &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: ConfigMap, ResourceVersion: "1"},
		Data: map[string]string{"stubDomains": fmt.Sprintf(`{"acme.local": [%q]}`, stub.addr)}})
	if got := ask(t, s, "x.acme.local.", dns.TypeA); got != "A 192.0.2.9" {
		t.Errorf("in the stub domain: %q", got)
	}
	add(t, f, &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: ConfigMap, ResourceVersion: "2"},
		Data: map[string]string{"upstreamNameservers": fmt.Sprintf(`[%q]`, stub.addr)}})
	if got := ask(t, s, "other.example.", dns.TypeA); got != "A 192.0.2.9" {
		t.Errorf("by another upstream: %q", got)
	}
}

// TestOtherQuestion checks that an answer to another question than was asked is not taken.
func TestOtherQuestion(t *testing.T) {
	wrong := resolver(t, func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(r)
		m.Question[0].Name = "other.example."
		m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: r.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.IPv4(192, 0, 2, 66)}}
		_ = w.WriteMsg(m)
	})
	good := resolver(t, example)
	s, _ := newServer(t, testingclock.NewFakeClock(time.Now()), wrong.addr, good.addr)
	if got := ask(t, s, "example.org.", dns.TypeA); got != "A 192.0.2.80" || wrong.asked.Load() == 0 {
		t.Errorf("%q, and the first resolver was asked %d times", got, wrong.asked.Load())
	}
}

// TestLoop checks that a resolver which asks this server is detected.
func TestLoop(t *testing.T) {
	var told atomic.Pointer[error]
	s, _ := newServer(t, testingclock.NewFakeClock(time.Now()))
	s.forward.problem = func(err error) { told.Store(&err) }
	looped := resolver(t, func(w dns.ResponseWriter, r *dns.Msg) {
		_ = w.WriteMsg(s.Answer(context.Background(), netip.Addr{}, r))
	})
	good := resolver(t, example)
	s.forward.resolvers = []string{looped.addr, good.addr}
	for _, u := range s.forward.resolvers {
		s.forward.probeOne(t.Context(), u)
	}
	if err := told.Load(); err == nil || !strings.Contains((*err).Error(), looped.addr) {
		t.Fatalf("the loop is not told: %v", err)
	}
	before := looped.asked.Load()
	if got := ask(t, s, "example.org.", dns.TypeA); got != "A 192.0.2.80" || looped.asked.Load() != before {
		t.Errorf("%q, and the resolver that loops was asked %d times", got, looped.asked.Load()-before)
	}
}
