package proxy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/network/index"
	"keelson.dev/keelson/internal/network/reserved"
	"keelson.dev/keelson/internal/network/upkeep"
	"keelson.dev/keelson/internal/trace"
)

// Config configures a Proxy.
type Config struct {
	// NodeName is the name of this node, NodeIPs are its addresses until its Node
	// has them.
	NodeName string
	NodeIPs  []netip.Addr
	// Informers provide Services, EndpointSlices and Nodes. The caller starts them.
	Informers informers.SharedInformerFactory
	// IPv4 and IPv6 hold the tables; nil leaves a family out.
	IPv4, IPv6 Kernel
	// Flows is the kernel's connection tracking; nil leaves it alone.
	Flows Flows
	// NodePortAddresses returns the addresses that node ports are served on; nil
	// means the Node's first address of each family.
	NodePortAddresses func() ([]netip.Addr, error)
	// NoHealthChecks leaves out health check node ports, which are served at the
	// addresses of node ports. HealthCheckFailed, if set, is told of one whose port is
	// another's.
	NoHealthChecks    bool
	HealthCheckFailed func(s *v1.Service, port int32, err error)
	// Healthz is the address, with a port, at which the proxy's own health is served;
	// "" leaves it out. HealthzFailed, if set, is told that it is another's.
	Healthz       string
	HealthzFailed func(error)
	// Listening returns the ports of this machine that programs have; nil means that
	// there are none.
	Listening func() (*Sockets, error)
	// Follows, if set, reports whether the kernel tracks connections of a protocol,
	// which it needs to translate them. Unsupported is called for a Service with a
	// port of another protocol.
	Follows     func(v1.Protocol) bool
	Unsupported func(s *v1.Service, proto v1.Protocol)
	// Reserved are the addresses that are not served as external ones or as load balancers',
	// since their Service would get the packets to another one, or to the machines'
	// programs. NotServed, if set, is called for a Service with such an address.
	Reserved  *reserved.Addresses
	NotServed func(s *v1.Service, at netip.AddrPort, why string)
	// PortInUse, if set, is called for a Service whose port of this machine is in
	// use by a program, which keeps it.
	PortInUse func(s *v1.Service, at netip.AddrPort, proto v1.Protocol)
	Clock     clock.WithTicker
	// Trace is told when the rules for EndpointSlices with endpoints on this node are
	// written; it may be nil.
	Trace *trace.Reporter
	// Problem, if set, is called with an error that keeps the rules from being
	// written.
	Problem func(error)
}

// Flow is a tracked connection: its original destination, and the source of its
// replies.
type Flow struct{ To, Answers netip.AddrPort }

// Flows deletes the connection tracking entries of UDP flows: the kernel would
// keep sending a flow, which has no end, to its old endpoint.
type Flows interface {
	Forget(ipv6 bool, stale func(Flow) bool) (int, error)
}

// Proxy keeps the tables in step with Services and their endpoints.
type Proxy struct {
	Config
	services corelisters.ServiceLister
	slices   cache.Indexer
	nodes    corelisters.NodeLister
	synced   []cache.InformerSynced
	tables   []*table
	health   *healthServers
	own      *listener // of healthz; nil without

	mu sync.Mutex
	// dirty are the Services that changed since they were planned; all marks every
	// Service as changed.
	dirty map[types.NamespacedName]bool
	all   bool
	// exposed marks the Services with external addresses as changed.
	exposed bool
	// triggered are the times of changes of endpoints that are not written yet, from
	// the slices' annotations.
	triggered []time.Time
	// traced are the slices of which the trace is told once they are written, from when
	// they were seen, and running says that the first ones have been written.
	traced  map[types.UID]seen
	running bool
	// since is when the oldest change was seen that is not written, zero if all are;
	// updated is when they were last.
	since, updated time.Time
	wake           chan struct{}

	// unsupported are the Services that were reported, by UID.
	unsupported map[types.UID]bool
	// sockets holds the programs' sockets at the last Sync that needed them.
	sockets *Sockets
}

// New makes a proxy. It does nothing before Run.
func New(c Config) (*Proxy, error) {
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	core, disc := c.Informers.Core().V1(), c.Informers.Discovery().V1()
	p := &Proxy{Config: c, services: core.Services().Lister(), slices: disc.EndpointSlices().Informer().GetIndexer(), nodes: core.Nodes().Lister(),
		dirty: map[types.NamespacedName]bool{}, traced: map[types.UID]seen{}, all: true, wake: make(chan struct{}, 1), unsupported: map[types.UID]bool{}}
	if err := index.Slices(disc.EndpointSlices().Informer()); err != nil {
		return nil, err
	}
	if !c.NoHealthChecks {
		p.health = newHealthServers(p.healthy, p.checkFailed)
	}
	if c.Healthz != "" {
		p.own = &listener{at: c.Healthz, handler: p.healthz()}
	}
	for _, f := range []struct {
		k      Kernel
		family discoveryv1.AddressType
	}{{c.IPv4, discoveryv1.AddressTypeIPv4}, {c.IPv6, discoveryv1.AddressTypeIPv6}} {
		if f.k != nil {
			p.tables = append(p.tables, newTable(f.k, here{node: c.NodeName, family: f.family}))
		}
	}
	err := errors.Join(
		p.on(core.Services().Informer(), func(obj any) {
			if s, ok := obj.(*v1.Service); ok {
				p.mark(types.NamespacedName{Namespace: s.Namespace, Name: s.Name}, nil)
				serviceChanges.Inc()
			}
		}),
		p.on(disc.EndpointSlices().Informer(), func(obj any) {
			if s, ok := obj.(*discoveryv1.EndpointSlice); ok && s.Labels[v1.IsHeadlessService] != "" {
				return
			} else if ok && index.ServiceOf(s) != "" {
				p.mark(types.NamespacedName{Namespace: s.Namespace, Name: s.Labels[discoveryv1.LabelServiceName]}, s)
				endpointChanges.Inc()
			}
		}),
		p.on(core.Nodes().Informer(), func(obj any) {
			if n, ok := obj.(*v1.Node); ok && n.Name == p.NodeName {
				p.poke()
			}
		}),
	)
	c.Reserved.OnChange(func() {
		p.mu.Lock()
		p.exposed = true
		p.mu.Unlock()
		p.poke()
	})
	registerMetrics()
	return p, err
}

func (p *Proxy) on(i cache.SharedIndexInformer, f func(any)) error {
	reg, err := i.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: f,
		UpdateFunc: func(old, obj any) {
			if was, ok := old.(*discoveryv1.EndpointSlice); ok {
				if now, ok := obj.(*discoveryv1.EndpointSlice); ok && index.ServiceOf(was) != index.ServiceOf(now) {
					f(old)
				}
			}
			f(obj)
		},
		DeleteFunc: func(obj any) {
			if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = gone.Obj
			}
			f(obj)
		},
	})
	if err == nil {
		p.synced = append(p.synced, reg.HasSynced)
	}
	return err
}

func (p *Proxy) mark(n types.NamespacedName, s *discoveryv1.EndpointSlice) {
	p.mu.Lock()
	if p.dirty[n] = true; p.since.IsZero() {
		p.since = p.Clock.Now()
	}
	if s != nil && p.running && p.Trace != nil && len(p.traced) < mostTraced && s.DeletionTimestamp == nil && p.local(s) {
		if was, ok := p.traced[s.UID]; ok {
			p.traced[s.UID] = seen{s, was.at}
		} else {
			p.traced[s.UID] = seen{s, time.Now()}
		}
	}
	if s != nil {
		if t, err := time.Parse(time.RFC3339Nano, s.Annotations[v1.EndpointsLastChangeTriggerTime]); err == nil {
			p.triggered = append(p.triggered, t)
		}
	}
	p.mu.Unlock()
	p.poke()
}

// seen is a slice, and when it was first seen since the last writing.
type seen struct {
	slice *discoveryv1.EndpointSlice
	at    time.Time
}

// mostTraced bounds the slices of one writing of which the trace is told, mostTriggered the
// times of changes that are kept while writing fails.
const mostTraced, mostTriggered = 256, 10000

// local reports whether a slice has an endpoint on this node: its node tells of it.
func (p *Proxy) local(s *discoveryv1.EndpointSlice) bool {
	return slices.ContainsFunc(s.Endpoints, func(e discoveryv1.Endpoint) bool { return e.NodeName != nil && *e.NodeName == p.NodeName })
}

func (p *Proxy) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Run keeps the tables until ctx ends, and leaves them as they are: connections
// stay, and the next process takes over.
func (p *Proxy) Run(ctx context.Context) error {
	defer func() {
		if p.health != nil {
			p.health.close()
		}
		if p.own != nil {
			p.own.close()
		}
	}()
	if !cache.WaitForCacheSync(ctx.Done(), p.synced...) {
		return nil
	}
	p.listen(ctx)
	upkeep.Loop{Clock: p.Clock, Wake: p.wake, Sync: p.Sync, Inspect: p.inspect, Failed: func(err error, again time.Duration) {
		klog.FromContext(ctx).Error(err, "Services are not served as they should be; trying again", "in", again)
		if p.Problem != nil {
			p.Problem(err)
		}
	}}.Run(ctx)
	return nil
}

// inspect reports whether there is something to write without a change of
// objects: another process has changed a table, or the machine's addresses have
// changed.
func (p *Proxy) inspect(ctx context.Context) bool {
	p.listen(ctx)
	todo := false
	for _, t := range p.tables {
		if !t.written {
			continue
		}
		intact, err := t.kernel.Intact()
		if err != nil {
			klog.FromContext(ctx).Error(err, "Looking whether the rules for Services are there")
			continue
		}
		if !intact {
			klog.FromContext(ctx).Info("The rules for Services were taken away by others; writing them again", "family", t.here.family)
			t.current = false
			todo = true
		}
	}
	return p.programs(ctx) || todo || p.NodePortAddresses != nil
}

// listen serves what is asked for its health, where the ports are free.
func (p *Proxy) listen(ctx context.Context) {
	if p.health != nil {
		p.health.open()
	}
	if p.own == nil {
		return
	}
	if err := p.own.open(); err != nil {
		klog.FromContext(ctx).Error(err, "The health of the service proxy is not served; trying again")
		if p.HealthzFailed != nil {
			p.HealthzFailed(err)
		}
	}
}

// checkFailed tells of a health check node port that is another's.
func (p *Proxy) checkFailed(n types.NamespacedName, port int32, err error) {
	klog.Background().Error(err, "The health check node port of a Service is not served; trying again", "service", n)
	if s, missing := p.services.Services(n.Namespace).Get(n.Name); missing == nil && p.HealthCheckFailed != nil {
		p.HealthCheckFailed(s, port, err)
	}
}

// programs reports whether a program has begun or ended to listen on a port of a
// Service.
func (p *Proxy) programs(ctx context.Context) bool {
	if p.Listening == nil || !slices.ContainsFunc(p.tables, func(t *table) bool { return len(t.own) > 0 }) {
		return false
	}
	sockets, err := p.Listening()
	if err != nil {
		klog.FromContext(ctx).Error(err, "Looking for programs that have ports of Services")
		return false
	}
	todo := false
	for _, t := range p.tables {
		for n, all := range t.own {
			for k, was := range all {
				if sockets.Has(k) != was {
					p.mark(n, nil)
					todo = true
				}
			}
		}
	}
	return todo
}

// Sync writes what changed. It is called by Run only; tests call it in place of
// Run.
func (p *Proxy) Sync() error {
	if err := p.sync(); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.updated, p.since = p.Clock.Now(), (time.Time{}); len(p.dirty) > 0 {
		p.since = p.updated // meanwhile
	}
	return nil
}

func (p *Proxy) sync() error {
	begin := p.Clock.Now()
	p.mu.Lock()
	dirty, all, triggered, traced, exposed := p.dirty, p.all, p.triggered, p.traced, p.exposed
	p.dirty, p.all, p.triggered, p.traced, p.running, p.exposed = map[types.NamespacedName]bool{}, false, nil, map[types.UID]seen{}, true, false
	p.mu.Unlock()
	var errs []error
	if exposed && !all {
		list, err := p.services.List(labels.Everything())
		if err != nil {
			errs = append(errs, err)
		}
		for _, s := range list {
			if external(s) {
				dirty[types.NamespacedName{Namespace: s.Namespace, Name: s.Name}] = true
			}
		}
	}
	node, err := p.here()
	if err != nil {
		errs = append(errs, err)
	}
	checks := map[types.NamespacedName]health{}
	wrote := false
	if p.Listening != nil && (all || p.external(dirty)) {
		if sockets, err := p.Listening(); err != nil {
			errs = append(errs, err) // and programs keep the ports that they had
		} else {
			p.sockets = sockets
		}
	}
	node.sockets = p.sockets
	for _, t := range p.tables {
		names := dirty
		moved := t.move(node)
		if all || !t.current || moved {
			if names, err = p.every(t); err != nil {
				t.current = false // the node may have moved
				errs = append(errs, err)
				continue
			}
		}
		if len(names) == 0 {
			continue
		}
		wrote = true
		errs = append(errs, p.write(t, names, checks))
	}
	if p.health != nil {
		p.health.set(checks, node.nodePorts)
	}
	now := p.Clock.Now()
	if wrote {
		lastQueued.SetToCurrentTime()
	}
	if err := errors.Join(errs...); err != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		maps.Copy(p.dirty, dirty)
		p.all, p.exposed = p.all || all, p.exposed || exposed
		if len(p.triggered) < mostTriggered {
			p.triggered = append(p.triggered, triggered...)
		}
		for uid, s := range traced {
			if now, ok := p.traced[uid]; ok {
				s.slice = now.slice
			}
			p.traced[uid] = s
		}
		return err
	}
	if !wrote {
		return nil
	}
	lastSync.SetToCurrentTime()
	for _, s := range traced {
		p.Trace.Phase("endpointslices.discovery.k8s.io", s.slice, trace.PhaseRules, "Service "+s.slice.Labels[discoveryv1.LabelServiceName], s.at)
	}
	syncDuration.Observe(now.Sub(begin).Seconds())
	for _, at := range triggered {
		if at.After(begin.Add(-time.Hour)) { // changes from before this process began are not measured
			programming.Observe(now.Sub(at).Seconds())
		}
	}
	return nil
}

// external reports whether one of these Services has external addresses.
func (p *Proxy) external(names map[types.NamespacedName]bool) bool {
	for n := range names {
		if s, err := p.services.Services(n.Namespace).Get(n.Name); err == nil && external(s) {
			return true
		}
	}
	return false
}

// noteOwn records the ports of this machine that a Service has, and reports those
// that a program has taken.
func (p *Proxy) noteOwn(t *table, n types.NamespacedName, s *v1.Service, next *plan) {
	was := t.own[n]
	delete(t.own, n)
	if next == nil || len(next.own) == 0 {
		return
	}
	t.own[n] = next.own
	for k, busy := range next.own {
		if busy && !was[k] && p.PortInUse != nil {
			p.PortInUse(s, netip.AddrPortFrom(k.Addr, k.Port), k.Proto)
		}
	}
}

// support records events about a Service with a port that the kernel cannot serve, or with
// an external address that is reserved.
func (p *Proxy) support(s *v1.Service) {
	if p.unsupported[s.UID] {
		return
	}
	for _, a := range externalAddresses(s) {
		for i := range s.Spec.Ports {
			at := netip.AddrPortFrom(a, uint16(s.Spec.Ports[i].Port))
			if why := p.Reserved.Why(at); why != "" && !p.Reserved.Elsewhere(a) && p.NotServed != nil {
				p.unsupported[s.UID] = true
				p.NotServed(s, at, why)
				break
			}
		}
	}
	if p.Follows == nil {
		return
	}
	for i := range s.Spec.Ports {
		if proto := protocol(&s.Spec.Ports[i]); !p.Follows(proto) {
			p.unsupported[s.UID] = true
			p.Unsupported(s, proto)
			return
		}
	}
}

// every returns the names of all Services that exist or are in the table.
func (p *Proxy) every(t *table) (map[types.NamespacedName]bool, error) {
	list, err := p.services.List(labels.Everything())
	if err != nil {
		return nil, err
	}
	out := make(map[types.NamespacedName]bool, len(list))
	for _, s := range list {
		out[types.NamespacedName{Namespace: s.Namespace, Name: s.Name}] = true
	}
	for n := range t.services {
		out[n] = true
	}
	return out, nil
}

func (p *Proxy) write(t *table, names map[types.NamespacedName]bool, checks map[types.NamespacedName]health) error {
	before := t.services
	if !t.current {
		t.reset()
	} else {
		before = some(t.services, names)
	}
	c := make(change, len(names))
	for n := range names {
		c[n] = nil
		check := health{}
		s, err := p.services.Services(n.Namespace).Get(n.Name)
		if err == nil && usable(s) {
			p.support(s)
			c[n], check = planFor(s, index.Of(p.slices, n.Namespace, n.Name), &t.here)
		}
		p.noteOwn(t, n, s, c[n])
		if old, ok := checks[n]; !ok || check.local > old.local {
			checks[n] = check
		}
	}
	t.noteStale(before, c)
	if err := t.write(c); err != nil {
		t.reset()
		syncFailures.WithLabelValues(string(t.here.family)).Inc()
		return fmt.Errorf("rules for Services (%s): %w", t.here.family, err)
	}
	return p.forget(t)
}

// some returns the entries of m that have one of these names.
func some(m map[types.NamespacedName]*installed, names map[types.NamespacedName]bool) map[types.NamespacedName]*installed {
	out := make(map[types.NamespacedName]*installed, len(names))
	for n := range names {
		if i := m[n]; i != nil {
			out[n] = i
		}
	}
	return out
}

// noteStale notes the UDP destinations whose flows are to be forgotten once the change is
// written: those that went, or whose serving endpoints have changed.
func (t *table) noteStale(before map[types.NamespacedName]*installed, c change) {
	for n, next := range c {
		var was, now map[netip.AddrPort]map[netip.AddrPort]bool
		if old := before[n]; old != nil {
			was = old.plan.udp
		}
		if next != nil {
			now = next.udp
		}
		for to := range was {
			if _, still := now[to]; !still {
				t.stale[to] = nil
			}
		}
		for to, serving := range now {
			if old, ok := was[to]; !ok || !maps.Equal(old, serving) {
				t.stale[to] = serving
			}
		}
	}
}

// forget deletes the kernel's entries of UDP flows to endpoints that no longer
// serve, and of flows from before there was an endpoint.
func (p *Proxy) forget(t *table) error {
	if p.Flows == nil || len(t.stale) == 0 {
		clear(t.stale)
		return nil
	}
	_, err := p.Flows.Forget(t.here.family == discoveryv1.AddressTypeIPv6, func(f Flow) bool {
		serving, ours := t.stale[f.To]
		return ours && !serving[f.Answers]
	})
	if err != nil {
		return fmt.Errorf("forgetting flows of UDP: %w", err)
	}
	clear(t.stale)
	return nil
}

// here describes this node.
func (p *Proxy) here() (here, error) {
	h := here{node: p.NodeName, reserved: p.Reserved}
	primary := p.NodeIPs
	if n, err := p.nodes.Get(p.NodeName); err == nil {
		h.zone, h.own = n.Labels[v1.LabelTopologyZone], own(n)
		var all []netip.Addr
		for _, a := range n.Status.Addresses {
			if ip, err := netip.ParseAddr(a.Address); err == nil && a.Type == v1.NodeInternalIP {
				all = append(all, ip)
			}
		}
		if len(all) > 0 {
			primary = all
		}
	}
	if p.NodePortAddresses != nil {
		all, err := p.NodePortAddresses()
		h.nodePorts = all
		return h, err
	}
	four, six := false, false
	for _, a := range primary {
		if a.Is4() && !four || a.Is6() && !six {
			four, six = four || a.Is4(), six || a.Is6()
			h.nodePorts = append(h.nodePorts, a)
		}
	}
	return h, nil
}

// move sets the properties of the node, and reports whether they have changed.
func (t *table) move(h here) bool {
	four := t.here.family == discoveryv1.AddressTypeIPv4
	var ports []netip.Addr
	for _, a := range h.nodePorts {
		if a.Is4() == four {
			ports = append(ports, a)
		}
	}
	same := t.here.node == h.node && t.here.zone == h.zone && equal(t.here.nodePorts, ports) && maps.Equal(t.here.own, h.own)
	t.here.node, t.here.zone, t.here.nodePorts, t.here.own, t.here.sockets = h.node, h.zone, ports, h.own, h.sockets
	t.here.reserved = h.reserved
	return !same
}

func equal(a, b []netip.Addr) bool {
	in := map[netip.Addr]bool{}
	for _, x := range a {
		in[x] = true
	}
	for _, x := range b {
		if !in[x] {
			return false
		}
		delete(in, x)
	}
	return len(in) == 0
}

// Remove deletes the tables of both families.
func Remove() error {
	return errors.Join(NewNetfilter(false, nil).Remove(), NewNetfilter(true, nil).Remove())
}
