package dns

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"k8s.io/utils/lru"
)

// ConfigMap is the name of the ConfigMap in kube-system with the addresses of
// other name servers: stubDomains is an object of lists by domain,
// upstreamNameservers a list that replaces the machine's resolvers. Both are
// JSON.
const ConfigMap = "kube-dns"

const (
	// cacheSize is how many answers are kept, of keptSize bytes at most: pods choose what
	// is asked, and others what is answered.
	cacheSize, keptSize = 10_000, 4096
	// cacheMax and negativeMax bound how long an answer is kept.
	cacheMax    = 30 * time.Second
	negativeMax = 5 * time.Second
	// askTimeout is how long one resolver may take to answer, attempts how many
	// queries are sent.
	askTimeout = 2 * time.Second
	attempts   = 2
	// concurrent bounds the queries that wait for resolvers, those of all clients.
	concurrent = 1000
	// loopCheck is how often resolvers are checked for loops.
	loopCheck = 30 * time.Second
)

// forwarder forwards queries to other name servers, and caches their answers.
type forwarder struct {
	config     corelisters.ConfigMapNamespaceLister
	resolvConf string
	own        []netip.Addr
	port       uint16
	clock      clock.WithTicker
	problem    func(error)
	cache      *lru.Cache
	waits      *shares
	udp, tcp   *dns.Client

	mu sync.Mutex
	// resolvers of the machine, from the file as it was at modified.
	resolvers []string
	modified  time.Time
	// probe is the name of the query that checks for loops; looped are the resolvers
	// that sent it back here.
	probe  string
	probes int
	looped map[string]bool
	// stubs are read from the ConfigMap of this version.
	version  string
	stubs    map[string][]string
	upstream []string
	// waiting are queries that have been sent, so that equal ones share an answer.
	waiting map[question]*waiter
}

type question struct {
	name    string
	qtype   uint16
	do, cd  bool
	servers string // the servers of a stub domain, "" for the machine's
}

type waiter struct {
	done chan struct{}
	m    *dns.Msg
	err  error
}

type cached struct {
	m       *dns.Msg
	at, end time.Time
}

func newForwarder(c Config) *forwarder {
	return &forwarder{resolvConf: c.ResolvConf, own: c.Addresses, port: c.Port, clock: c.Clock, problem: c.Problem,
		cache: lru.New(cacheSize), waits: newShares(concurrent), looped: map[string]bool{}, waiting: map[question]*waiter{},
		udp: &dns.Client{Net: "udp", Timeout: askTimeout, UDPSize: ednsSize}, tcp: &dns.Client{Net: "tcp", Timeout: askTimeout}}
}

// ask returns the answer to a question of a message from client. It belongs to the caller.
func (f *forwarder) ask(ctx context.Context, client netip.Addr, q dns.Question, r *dns.Msg) (*dns.Msg, error) {
	servers, stub, err := f.servers(dns.CanonicalName(q.Name))
	if err != nil {
		return nil, err
	}
	k := question{name: dns.CanonicalName(q.Name), qtype: q.Qtype, cd: r.CheckingDisabled}
	if o := r.IsEdns0(); o != nil {
		k.do = o.Do()
	}
	if stub {
		k.servers = strings.Join(servers, " ")
	}
	if m := f.kept(k, q.Name); m != nil {
		return m, nil
	}
	if !f.waits.take(client) {
		return nil, fmt.Errorf("too many queries of %s wait for resolvers already", client)
	}
	defer f.waits.release(client)
	f.mu.Lock()
	w, asked := f.waiting[k]
	if !asked {
		w = &waiter{done: make(chan struct{})}
		f.waiting[k] = w
	}
	f.mu.Unlock()
	if asked {
		select {
		case <-w.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	} else {
		w.m, w.err = f.exchange(ctx, k, servers)
		f.mu.Lock()
		delete(f.waiting, k)
		f.mu.Unlock()
		close(w.done)
	}
	if w.err != nil {
		return nil, w.err
	}
	return named(w.m, q.Name), nil
}

// named returns a copy of an answer whose question has this spelling.
func named(m *dns.Msg, name string) *dns.Msg {
	out := m.Copy()
	for _, rr := range out.Answer {
		if strings.EqualFold(rr.Header().Name, name) {
			rr.Header().Name = name
		}
	}
	return out
}

// kept returns an answer from the cache, with its remaining TTL.
func (f *forwarder) kept(k question, name string) *dns.Msg {
	x, ok := f.cache.Get(k)
	if !ok {
		return nil
	}
	c := x.(cached)
	now := f.clock.Now()
	if !now.Before(c.end) {
		f.cache.Remove(k)
		return nil
	}
	m := named(c.m, name)
	age := uint32(now.Sub(c.at) / time.Second)
	for _, part := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range part {
			if h := rr.Header(); h.Rrtype != dns.TypeOPT {
				h.Ttl -= min(age, h.Ttl)
			}
		}
	}
	return m
}

// exchange asks one server after the other, and keeps the answer.
func (f *forwarder) exchange(ctx context.Context, k question, servers []string) (*dns.Msg, error) {
	r := new(dns.Msg)
	r.SetQuestion(k.name, k.qtype)
	r.CheckingDisabled = k.cd
	r.SetEdns0(ednsSize, k.do)
	var errs []error
	for range attempts {
		for _, s := range servers {
			m, _, err := f.udp.ExchangeContext(ctx, r, s)
			if err == nil && m.Truncated {
				m, _, err = f.tcp.ExchangeContext(ctx, r, s)
			}
			switch {
			case err != nil:
				errs = append(errs, fmt.Errorf("%s: %w", s, err))
			case !answers(m, r):
				errs = append(errs, fmt.Errorf("%s: the answer is to another question", s))
			case m.Rcode == dns.RcodeServerFailure || m.Rcode == dns.RcodeRefused || m.Rcode == dns.RcodeNotImplemented:
				errs = append(errs, fmt.Errorf("%s: %s", s, dns.RcodeToString[m.Rcode]))
			default:
				f.keep(k, m)
				return m, nil
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
		}
	}
	return nil, errors.Join(errs...)
}

// answers reports whether m is a response to the question of r, and not to one that somebody
// else has made up.
func answers(m, r *dns.Msg) bool {
	return m.Response && len(m.Question) == 1 && m.Question[0].Qtype == r.Question[0].Qtype && m.Question[0].Qclass == r.Question[0].Qclass &&
		strings.EqualFold(m.Question[0].Name, r.Question[0].Name)
}

func (f *forwarder) keep(k question, m *dns.Msg) {
	life := cacheMax
	if m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError || m.Len() > keptSize {
		return
	}
	if m.Rcode == dns.RcodeNameError || len(m.Answer) == 0 {
		life = negativeMax
	}
	for _, part := range [][]dns.RR{m.Answer, m.Ns} {
		for _, rr := range part {
			life = min(life, time.Duration(rr.Header().Ttl)*time.Second)
		}
	}
	if life > 0 {
		now := f.clock.Now()
		f.cache.Add(k, cached{m, now, now.Add(life)})
	}
}

// servers returns the name servers for a name, and whether it is in a stub
// domain.
func (f *forwarder) servers(name string) (list []string, stub bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.readConfig()
	best := ""
	for d := range f.stubs {
		if dns.IsSubDomain(d, name) && len(d) > len(best) {
			best = d
		}
	}
	if best != "" {
		return f.stubs[best], true, nil
	}
	all := f.upstream
	if len(all) == 0 {
		if err := f.readResolvers(); err != nil {
			return nil, false, err
		}
		all = f.resolvers
	}
	for _, s := range all {
		if !f.looped[s] {
			list = append(list, s)
		}
	}
	if len(list) == 0 {
		if len(all) > 0 {
			return nil, false, fmt.Errorf("the resolvers %s ask this server in turn: give others in %s", strings.Join(all, ", "), f.resolvConf)
		}
		return nil, false, fmt.Errorf("%s names no resolver but this one", f.resolvConf)
	}
	return list, false, nil
}

// readResolvers reads the machine's resolvers again if their file has changed.
func (f *forwarder) readResolvers() error {
	info, err := os.Stat(f.resolvConf)
	if err != nil {
		return fmt.Errorf("the machine's resolvers: %w", err)
	}
	if info.ModTime().Equal(f.modified) {
		return nil
	}
	c, err := dns.ClientConfigFromFile(f.resolvConf)
	if err != nil {
		return fmt.Errorf("the machine's resolvers: %w", err)
	}
	f.modified, f.resolvers = info.ModTime(), nil
	f.looped = map[string]bool{}
	for _, s := range c.Servers {
		if at, ok := f.server(s, c.Port); ok {
			f.resolvers = append(f.resolvers, at)
		}
	}
	return nil
}

// server returns the address of a server, unless it is this one.
func (f *forwarder) server(s, port string) (string, bool) {
	if host, p, err := net.SplitHostPort(s); err == nil {
		s, port = host, p
	}
	a, err := netip.ParseAddr(s)
	if err != nil || slices.Contains(f.own, a.Unmap()) && port == fmt.Sprint(f.port) {
		return "", false
	}
	return net.JoinHostPort(s, port), true
}

// readConfig reads the ConfigMap if it has changed. Invalid values are reported
// and ignored.
func (f *forwarder) readConfig() {
	if f.config == nil {
		return
	}
	cm, err := f.config.Get(ConfigMap)
	if apierrors.IsNotFound(err) {
		cm = &v1.ConfigMap{}
	} else if err != nil {
		return
	}
	if cm.ResourceVersion == f.version && f.stubs != nil {
		return
	}
	f.version, f.stubs, f.upstream = cm.ResourceVersion, map[string][]string{}, nil
	list := func(field string, in []string) (out []string) {
		for _, s := range in {
			at, ok := f.server(s, "53")
			if !ok {
				f.tell(fmt.Errorf("ConfigMap kube-system/%s: %s: %q is not the address of another name server", ConfigMap, field, s))
				continue
			}
			out = append(out, at)
		}
		return out
	}
	if text := cm.Data["stubDomains"]; text != "" {
		stubs := map[string][]string{}
		if err := json.Unmarshal([]byte(text), &stubs); err != nil {
			f.tell(fmt.Errorf("ConfigMap kube-system/%s: stubDomains: %w: give an object of lists, like {\"acme.local\": [\"192.0.2.53\"]}", ConfigMap, err))
		}
		for d, servers := range stubs {
			if all := list("stubDomains", servers); len(all) > 0 {
				f.stubs[dns.CanonicalName(d)] = all
			}
		}
	}
	if text := cm.Data["upstreamNameservers"]; text != "" {
		var all []string
		if err := json.Unmarshal([]byte(text), &all); err != nil {
			f.tell(fmt.Errorf("ConfigMap kube-system/%s: upstreamNameservers: %w: give a list, like [\"192.0.2.53\"]", ConfigMap, err))
		}
		f.upstream = list("upstreamNameservers", all)
	}
}

func (f *forwarder) tell(err error) {
	klog.Background().Error(err, "Resolving names outside the cluster")
	if f.problem != nil {
		f.problem(err)
	}
}

// detectLoops periodically sends each resolver a query for a random name. A
// resolver that sends the query back here is not used anymore: it would query
// this server without end.
func (f *forwarder) detectLoops(ctx context.Context) {
	for {
		f.mu.Lock()
		err := f.readResolvers()
		f.readConfig()
		all := slices.Concat(f.resolvers, f.upstream)
		f.mu.Unlock()
		if err != nil {
			f.tell(err)
		}
		for _, s := range all {
			f.probeOne(ctx, s)
		}
		select {
		case <-ctx.Done():
			return
		case <-f.clock.After(loopCheck):
		}
	}
}

func (f *forwarder) probeOne(ctx context.Context, server string) {
	b := make([]byte, 16)
	if _, err := rand.Read(b); err != nil {
		return
	}
	name := hex.EncodeToString(b) + "."
	f.mu.Lock()
	f.probe, f.probes = name, 0
	f.mu.Unlock()
	r := new(dns.Msg)
	r.SetQuestion(name, dns.TypeHINFO)
	_, _, _ = f.udp.ExchangeContext(ctx, r, server) // only whether the query comes back matters
	f.mu.Lock()
	loops := f.probes > 0
	f.probe = ""
	news := loops && !f.looped[server]
	f.looped[server] = loops
	f.mu.Unlock()
	if news {
		f.tell(fmt.Errorf("the resolver %s asks this server in turn (a loop): it is not asked anymore; give another in %s", server, f.resolvConf))
	}
}

// probed reports whether this is the name of the query that checks for loops.
func (f *forwarder) probed(name string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.probe == "" || name != f.probe {
		return false
	}
	f.probes++
	return true
}
