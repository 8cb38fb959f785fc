package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/trace"
)

// Config configures a Server.
type Config struct {
	// Domain of the cluster, without a dot at the end.
	Domain string
	// Addresses to listen on, port 53: those of the Service kube-dns.
	Addresses []netip.Addr
	// Port is 53 where 0.
	Port uint16
	// Informers provide Services, EndpointSlices, Namespaces and ConfigMaps. The
	// caller starts them.
	Informers informers.SharedInformerFactory
	// Links adds the addresses to this machine; nil if it has them already.
	Links Links
	// ResolvConf is the file with the machine's resolvers (default
	// /etc/resolv.conf).
	ResolvConf string
	Clock      clock.WithTicker
	// NodeName is the node's, and Trace is told when the names of EndpointSlices with
	// endpoints on it are answered for; it may be nil.
	NodeName string
	Trace    *trace.Reporter
	// Problem, if set, is called with an error that keeps names from being resolved.
	Problem func(error)
}

// Links adds addresses to the machine.
type Links interface {
	// Add adds the addresses.
	Add(addrs []netip.Addr) error
}

// Server is the name server of one node.
type Server struct {
	Config
	zone    *zone
	forward *forwarder
	synced  []cache.InformerSynced
}

// ednsSize is the size of datagrams that is announced to clients, by the advice
// of DNS flag day 2020.
const ednsSize = 1232

// New makes a server. It does nothing before Run.
func New(c Config) (*Server, error) {
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	if c.Port == 0 {
		c.Port = 53
	}
	if c.ResolvConf == "" {
		c.ResolvConf = "/etc/resolv.conf"
	}
	z, err := newZone(c.Domain, c.Addresses, c.Informers)
	if err != nil {
		return nil, err
	}
	core := c.Informers.Core().V1()
	s := &Server{Config: c, zone: z, forward: newForwarder(c)}
	for _, i := range []cache.SharedIndexInformer{core.Services().Informer(), core.Namespaces().Informer(), core.ConfigMaps().Informer(),
		c.Informers.Discovery().V1().EndpointSlices().Informer()} {
		s.synced = append(s.synced, i.HasSynced)
	}
	if c.Trace != nil {
		if err := s.tell(c.Informers.Discovery().V1().EndpointSlices().Informer()); err != nil {
			return nil, err
		}
	}
	s.forward.config = core.ConfigMaps().Lister().ConfigMaps(metav1.NamespaceSystem)
	return s, nil
}

// tell tells the trace of slices that have come or changed: the zone answers from the
// informer's objects, so that it has them by then.
func (s *Server) tell(slices cache.SharedIndexInformer) error {
	changed := func(obj any) {
		e, ok := obj.(*discoveryv1.EndpointSlice)
		if !ok {
			return
		}
		service := e.Labels[discoveryv1.LabelServiceName]
		for i := range e.Endpoints {
			if n := e.Endpoints[i].NodeName; service != "" && n != nil && *n == s.NodeName {
				s.Trace.Phase("endpointslices.discovery.k8s.io", e, trace.PhaseName, service+"."+e.Namespace+".svc."+s.Domain, time.Now())
				return
			}
		}
	}
	_, err := slices.AddEventHandler(cache.ResourceEventHandlerDetailedFuncs{
		AddFunc: func(obj any, initial bool) {
			if !initial {
				changed(obj)
			}
		},
		UpdateFunc: func(_, obj any) { changed(obj) },
	})
	return err
}

const (
	retryMin = time.Second
	retryMax = 30 * time.Second
	// connections bounds the TCP connections at one time, those of all clients, and
	// writeTimeout how long a client may take to read an answer.
	connections  = 1000
	writeTimeout = 2 * time.Second
)

// Run serves until ctx ends. An error that keeps it from listening is reported,
// and it tries again.
func (s *Server) Run(ctx context.Context) error {
	if !cache.WaitForCacheSync(ctx.Done(), s.synced...) {
		return nil
	}
	for retry := retryMin; ; retry = min(2*retry, retryMax) {
		err := s.serve(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the end of ctx is no failure
		}
		klog.FromContext(ctx).Error(err, "Names of the cluster are not resolved; trying again", "in", retry)
		if s.Problem != nil {
			s.Problem(err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.Clock.After(retry):
		}
	}
}

// serve listens until ctx ends or a listener fails.
func (s *Server) serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if s.Links != nil {
		if err := s.Links.Add(s.Addresses); err != nil {
			return err
		}
	}
	var servers []*dns.Server
	defer func() {
		for _, x := range servers {
			_ = x.Shutdown()
		}
	}()
	failed := make(chan error, 2*len(s.Addresses))
	var started sync.WaitGroup
	conns := newShares(connections)
	for _, a := range s.Addresses {
		at := netip.AddrPortFrom(a, s.Port).String()
		conn, err := net.ListenPacket("udp", at)
		if err != nil {
			return busy(at, err)
		}
		l, err := net.Listen("tcp", at)
		if err != nil {
			conn.Close()
			return busy(at, err)
		}
		for _, x := range []*dns.Server{{PacketConn: conn}, {Listener: sharing{l, conns}}} {
			x.Handler, x.UDPSize = dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) { s.handle(ctx, w, r) }), dns.DefaultMsgSize
			x.NotifyStartedFunc = started.Done
			started.Add(1)
			servers = append(servers, x)
			go func() { failed <- x.ActivateAndServe() }()
		}
	}
	started.Wait()
	go s.forward.detectLoops(ctx)
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return fmt.Errorf("dns: %w", err)
	}
}

func busy(at string, err error) error {
	return fmt.Errorf("dns: %w: the cluster's name server listens on %s; stop the program that listens there, or use another name server with --dns none", err, at)
}

// handle answers one message.
func (s *Server) handle(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) {
	_, tcp := w.LocalAddr().(*net.TCPAddr)
	m := s.Answer(ctx, host(w.RemoteAddr()), r)
	size := dns.MaxMsgSize
	if !tcp {
		size = dns.MinMsgSize
		if o := r.IsEdns0(); o != nil {
			size = max(size, int(o.UDPSize()))
		}
	}
	m.Truncate(size)
	if err := w.WriteMsg(m); err != nil && ctx.Err() == nil {
		klog.FromContext(ctx).V(4).Info("Writing an answer", "err", err)
	}
}

// Answer returns the answer to a client's message with one question.
func (s *Server) Answer(ctx context.Context, client netip.Addr, r *dns.Msg) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(r)
	m.RecursionAvailable, m.Compress = true, true
	if o := r.IsEdns0(); o != nil {
		m.SetEdns0(ednsSize, o.Do())
		if o.Version() != 0 {
			m.Rcode = dns.RcodeBadVers
			return m
		}
	}
	if len(r.Question) != 1 {
		m.Rcode = dns.RcodeFormatError
		return m
	}
	q := r.Question[0]
	if q.Qclass != dns.ClassINET && q.Qclass != dns.ClassANY || q.Qtype == dns.TypeAXFR || q.Qtype == dns.TypeIXFR {
		m.Rcode = dns.RcodeRefused
		return m
	}
	name := dns.CanonicalName(q.Name)
	if s.forward.probed(name) {
		m.Rcode = dns.RcodeNameError
		return m
	}
	if dns.IsSubDomain(s.zone.domain, name) {
		s.own(ctx, client, m, q)
		return m
	}
	if a, ok := s.zone.reverse(q); ok {
		m.Authoritative, m.Answer = true, a.records
		if len(a.records) == 0 {
			m.Ns = []dns.RR{s.zone.soa()}
		}
		return m
	}
	answer, err := s.forward.ask(ctx, client, q, r)
	if err != nil {
		m.Rcode = dns.RcodeServerFailure
		if !errors.Is(err, context.Canceled) {
			klog.FromContext(ctx).V(2).Info("A name outside the cluster is not resolved", "name", q.Name, "err", err)
		}
		return m
	}
	m.Rcode, m.AuthenticatedData = answer.Rcode, answer.AuthenticatedData
	m.Answer, m.Ns = answer.Answer, answer.Ns
	for _, rr := range answer.Extra {
		if rr.Header().Rrtype != dns.TypeOPT { // OPT is about this hop only
			m.Extra = append(m.Extra, rr)
		}
	}
	return m
}

// aliases bounds the number of CNAMEs that are followed.
const aliases = 8

// own answers a query for a name of the cluster.
func (s *Server) own(ctx context.Context, client netip.Addr, m *dns.Msg, q dns.Question) {
	m.Authoritative = true
	for range aliases {
		a := s.zone.lookup(q)
		m.Answer = append(m.Answer, a.records...)
		m.Extra = append(m.Extra, a.extra...)
		if !a.exists {
			m.Rcode = dns.RcodeNameError
		}
		if a.alias == "" || q.Qtype == dns.TypeCNAME {
			if len(a.records) == 0 {
				m.Ns = []dns.RR{s.zone.soa()}
			}
			return
		}
		q.Name = a.alias
		if dns.IsSubDomain(s.zone.domain, dns.CanonicalName(q.Name)) {
			continue
		}
		r := new(dns.Msg)
		r.SetQuestion(q.Name, q.Qtype)
		answer, err := s.forward.ask(ctx, client, q, r)
		if err != nil {
			m.Rcode = dns.RcodeServerFailure // the client retries, or asks another server
			return
		}
		m.Rcode = answer.Rcode
		m.Answer = append(m.Answer, answer.Answer...)
		m.Ns = append(m.Ns, answer.Ns...)
		return
	}
	m.Rcode = dns.RcodeServerFailure
}

// serial returns the serial of the SOA record, which grows with time.
func serial() uint32 { return uint32(time.Now().Unix()) }
