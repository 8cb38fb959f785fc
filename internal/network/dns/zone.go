package dns

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/internal/network/index"
)

// Indexes of Services by cluster address, and of slices by address.
const (
	byClusterIP = "keelson.dev/cluster-ip"
	byAddress   = "keelson.dev/address"
)

const (
	// ttl of the zone's records, in seconds.
	ttl = 5
	// schema is the version of the specification.
	schema = "1.1.0"
)

// zone answers for the cluster's domain.
type zone struct {
	// domain is the cluster's domain, with a dot at the end; server has the
	// addresses of its name server.
	domain     string
	server     []netip.Addr
	services   corelisters.ServiceLister
	namespaces corelisters.NamespaceLister
	byIP       cache.Indexer // of Services
	slices     cache.Indexer
}

func newZone(domain string, server []netip.Addr, f informers.SharedInformerFactory) (*zone, error) {
	core := f.Core().V1()
	services, eps := core.Services().Informer(), f.Discovery().V1().EndpointSlices().Informer()
	if err := index.Slices(eps); err != nil {
		return nil, err
	}
	if err := index.Add(services, byClusterIP, func(obj any) ([]string, error) {
		s, ok := obj.(*v1.Service)
		if !ok || headless(s) {
			return nil, nil
		}
		return clusterIPs(s), nil
	}); err != nil {
		return nil, err
	}
	if err := index.Add(eps, byAddress, func(obj any) (out []string, _ error) {
		s, ok := obj.(*discoveryv1.EndpointSlice)
		if !ok {
			return nil, nil
		}
		for i := range s.Endpoints {
			out = append(out, s.Endpoints[i].Addresses...)
		}
		return out, nil
	}); err != nil {
		return nil, err
	}
	return &zone{domain: dns.CanonicalName(domain), server: server, services: core.Services().Lister(),
		namespaces: core.Namespaces().Lister(), byIP: services.GetIndexer(), slices: eps.GetIndexer()}, nil
}

func headless(s *v1.Service) bool { return s.Spec.ClusterIP == v1.ClusterIPNone }

func clusterIPs(s *v1.Service) []string {
	if len(s.Spec.ClusterIPs) > 0 {
		return s.Spec.ClusterIPs
	}
	if s.Spec.ClusterIP == "" {
		return nil
	}
	return []string{s.Spec.ClusterIP}
}

// answer is the zone's answer to a question.
type answer struct {
	records, extra []dns.RR
	// exists reports whether the name exists, with records of any type.
	exists bool
	// alias is the target of a CNAME, "" if there is none.
	alias string
}

// target is an address of a name, with a port.
type target struct {
	name string // the name of the address
	addr netip.Addr
	port uint16
}

// lookup answers a question for a name in the domain. Answers repeat the name in
// the question's spelling.
func (z *zone) lookup(q dns.Question) answer {
	name := dns.CanonicalName(q.Name)
	below := strings.TrimSuffix(strings.TrimSuffix(name, z.domain), ".")
	var labels []string
	if below != "" {
		labels = dns.SplitDomainName(below)
	}
	n := len(labels)
	switch {
	case n == 0:
		return z.apex(q)
	case n == 1 && labels[0] == "dns-version":
		a := answer{exists: true}
		if q.Qtype == dns.TypeTXT {
			a.records = []dns.RR{&dns.TXT{Hdr: header(q.Name, dns.TypeTXT, ttl), Txt: []string{schema}}}
		}
		return a
	case n == 2 && labels[0] == "ns" && labels[1] == "dns":
		return answer{exists: true, records: addresses(q, z.server)}
	case n == 1 && labels[0] == "dns":
		return answer{exists: true} // the name above exists
	case labels[n-1] == "svc":
		return z.service(q, labels[:n-1])
	case labels[n-1] == "pod":
		return z.pod(q, labels[:n-1])
	}
	return answer{}
}

func header(name string, t uint16, ttl uint32) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: t, Class: dns.ClassINET, Ttl: ttl}
}

// addresses returns the records of the addresses that have the question's type.
func addresses(q dns.Question, all []netip.Addr) (out []dns.RR) {
	for _, a := range all {
		if rr := address(q.Name, a); rr.Header().Rrtype == q.Qtype {
			out = append(out, rr)
		}
	}
	return out
}

func address(name string, a netip.Addr) dns.RR {
	if a.Is4() {
		return &dns.A{Hdr: header(name, dns.TypeA, ttl), A: a.AsSlice()}
	}
	return &dns.AAAA{Hdr: header(name, dns.TypeAAAA, ttl), AAAA: a.AsSlice()}
}

func (z *zone) apex(q dns.Question) answer {
	a := answer{exists: true}
	switch q.Qtype {
	case dns.TypeSOA:
		a.records = []dns.RR{z.soa()}
	case dns.TypeNS:
		ns := "ns.dns." + z.domain
		a.records = []dns.RR{&dns.NS{Hdr: header(q.Name, dns.TypeNS, ttl), Ns: ns}}
		for _, ip := range z.server {
			a.extra = append(a.extra, address(ns, ip))
		}
	}
	return a
}

// soa returns the record that accompanies negative answers: it has the time for
// which they may be cached.
func (z *zone) soa() dns.RR {
	return &dns.SOA{Hdr: header(z.domain, dns.TypeSOA, ttl), Ns: "ns.dns." + z.domain, Mbox: "hostmaster." + z.domain,
		Serial: serial(), Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: ttl}
}

func (z *zone) namespace(name string) bool {
	_, err := z.namespaces.Get(name)
	return err == nil
}

// service answers for [[_port._protocol or endpoint.] service.] namespace.
func (z *zone) service(q dns.Question, labels []string) answer {
	n := len(labels)
	if n == 0 {
		return answer{exists: true}
	}
	namespace := labels[n-1]
	if n == 1 {
		return answer{exists: z.namespace(namespace)}
	}
	s, err := z.services.Services(namespace).Get(labels[n-2])
	if err != nil || n > 4 || !z.namespace(namespace) {
		return answer{}
	}
	port, proto, endpoint := "", "", ""
	switch n {
	case 3:
		endpoint = labels[0]
	case 4:
		if labels[0][0] != '_' || labels[1][0] != '_' {
			return answer{}
		}
		port, proto = labels[0][1:], labels[1][1:]
	}
	if s.Spec.Type == v1.ServiceTypeExternalName {
		if n > 2 || !alias(s.Spec.ExternalName) {
			return answer{}
		}
		to := dns.Fqdn(s.Spec.ExternalName)
		return answer{exists: true, alias: to, records: []dns.RR{&dns.CNAME{Hdr: header(q.Name, dns.TypeCNAME, ttl), Target: to}}}
	}
	matches := func(name string, p v1.Protocol) bool {
		return n != 4 || strings.EqualFold(name, port) && strings.EqualFold(string(p), proto)
	}
	own := s.Name + "." + s.Namespace + ".svc." + z.domain
	var all []target
	if headless(s) || endpoint != "" {
		all = z.endpoints(s, own, endpoint, matches)
	} else {
		for _, text := range clusterIPs(s) {
			ip, err := netip.ParseAddr(text)
			if err != nil {
				continue
			}
			for i := range s.Spec.Ports {
				if p := &s.Spec.Ports[i]; matches(p.Name, p.Protocol) {
					all = append(all, target{own, ip, uint16(p.Port)})
				}
			}
		}
	}
	return describe(q, all)
}

// alias reports whether the external name of a Service is a name, not an
// address.
func alias(name string) bool {
	_, err := netip.ParseAddr(name)
	return err != nil && name != ""
}

// endpoints returns the ready endpoints of a Service, all or those of a hostname.
func (z *zone) endpoints(s *v1.Service, own, hostname string, matches func(string, v1.Protocol) bool) (all []target) {
	for _, slice := range index.Of(z.slices, s.Namespace, s.Name) {
		for i := range slice.Endpoints {
			e := &slice.Endpoints[i]
			if !ready(e) {
				continue
			}
			for _, text := range e.Addresses {
				ip, err := netip.ParseAddr(text)
				host := hostOf(e, text)
				if err != nil || hostname != "" && !strings.EqualFold(hostname, host) {
					continue
				}
				if len(slice.Ports) == 0 && matches("", "") {
					all = append(all, target{host + "." + own, ip, 0})
				}
				for j := range slice.Ports {
					p := &slice.Ports[j]
					name, proto, number := "", v1.ProtocolTCP, uint16(0)
					if p.Name != nil {
						name = *p.Name
					}
					if p.Protocol != nil {
						proto = *p.Protocol
					}
					if p.Port != nil {
						number = uint16(*p.Port)
					}
					if matches(name, proto) {
						all = append(all, target{host + "." + own, ip, number})
					}
				}
			}
		}
	}
	return all
}

func ready(e *discoveryv1.Endpoint) bool { return e.Conditions.Ready == nil || *e.Conditions.Ready }

// hostOf returns the first label of an endpoint's name: its hostname or, where it has
// none, its address with dashes.
func hostOf(e *discoveryv1.Endpoint, ip string) string {
	if e.Hostname != nil && *e.Hostname != "" {
		return *e.Hostname
	}
	return dashes.Replace(ip)
}

var dashes = strings.NewReplacer(".", "-", ":", "-")

// describe answers a question with the targets of its name.
func describe(q dns.Question, all []target) answer {
	a := answer{exists: len(all) > 0}
	seen := map[netip.Addr]bool{}
	if q.Qtype != dns.TypeSRV {
		for _, t := range all {
			if !seen[t.addr] {
				seen[t.addr] = true
				a.records = append(a.records, addresses(q, []netip.Addr{t.addr})...)
			}
		}
		return a
	}
	type service struct {
		name string
		port uint16
	}
	var targets []service
	for _, t := range all {
		s := service{t.name, t.port}
		if t.port != 0 && !slices.Contains(targets, s) {
			targets = append(targets, s)
		}
		if !seen[t.addr] {
			seen[t.addr] = true
			a.extra = append(a.extra, address(t.name, t.addr))
		}
	}
	for _, t := range targets {
		a.records = append(a.records, &dns.SRV{Hdr: header(q.Name, dns.TypeSRV, ttl), Weight: uint16(100 / len(targets)), Port: t.port, Target: t.name})
	}
	if len(a.records) == 0 {
		a.extra = nil
	}
	return a
}

// pod answers for address-with-dashes.namespace: as by upstream's default,
// without checking that there is such a pod.
func (z *zone) pod(q dns.Question, labels []string) answer {
	switch len(labels) {
	case 0:
		return answer{exists: true}
	case 1:
		return answer{exists: z.namespace(labels[0])}
	case 2:
	default:
		return answer{}
	}
	if !z.namespace(labels[1]) {
		return answer{}
	}
	for _, sep := range []string{".", ":"} {
		if ip, err := netip.ParseAddr(strings.ReplaceAll(labels[0], "-", sep)); err == nil {
			return answer{exists: true, records: addresses(q, []netip.Addr{ip})}
		}
	}
	return answer{}
}

// reverse answers a question for the name of an address in in-addr.arpa or
// ip6.arpa. A query for an address without a name in the cluster is forwarded.
func (z *zone) reverse(q dns.Question) (answer, bool) {
	ip, ok := addressOf(dns.CanonicalName(q.Name))
	if !ok {
		return answer{}, false
	}
	var names []string
	if all, err := z.byIP.ByIndex(byClusterIP, ip.String()); err == nil {
		for _, o := range all {
			if s, ok := o.(*v1.Service); ok {
				names = append(names, s.Name+"."+s.Namespace+".svc."+z.domain)
			}
		}
	}
	if len(names) == 0 {
		names = z.endpointNames(ip.String())
	}
	if len(names) == 0 {
		return answer{}, false
	}
	slices.Sort(names)
	a := answer{exists: true}
	if q.Qtype == dns.TypePTR {
		for _, n := range slices.Compact(names) {
			a.records = append(a.records, &dns.PTR{Hdr: header(q.Name, dns.TypePTR, ttl), Ptr: n})
		}
	}
	return a, true
}

// endpointNames returns the names of the endpoints with this address.
func (z *zone) endpointNames(ip string) (names []string) {
	all, err := z.slices.ByIndex(byAddress, ip)
	if err != nil {
		return nil
	}
	for _, o := range all {
		s, ok := o.(*discoveryv1.EndpointSlice)
		if !ok || index.ServiceOf(s) == "" {
			continue
		}
		for i := range s.Endpoints {
			if e := &s.Endpoints[i]; ready(e) && slices.Contains(e.Addresses, ip) {
				names = append(names, hostOf(e, ip)+"."+s.Labels[discoveryv1.LabelServiceName]+"."+s.Namespace+".svc."+z.domain)
			}
		}
	}
	return names
}

// addressOf returns the address in a name below in-addr.arpa or ip6.arpa.
func addressOf(name string) (netip.Addr, bool) {
	sep, group := ".", 1
	below, ok := strings.CutSuffix(name, ".in-addr.arpa.")
	if !ok {
		if below, ok = strings.CutSuffix(name, ".ip6.arpa."); !ok {
			return netip.Addr{}, false
		}
		sep, group = ":", 4
	}
	labels := strings.Split(below, ".")
	slices.Reverse(labels)
	if group == 4 && len(labels) != 32 || group == 1 && len(labels) != 4 {
		return netip.Addr{}, false
	}
	var parts []string
	for chunk := range slices.Chunk(labels, group) {
		parts = append(parts, strings.Join(chunk, ""))
	}
	ip, err := netip.ParseAddr(strings.Join(parts, sep))
	return ip, err == nil
}
