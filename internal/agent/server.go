package agent

import (
	"crypto/tls"
	"net"
	"net/netip"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/apiserver/usage"
	"keelson.dev/keelson/internal/component"
	"keelson.dev/keelson/internal/machine"
	"keelson.dev/keelson/internal/trace"
	"keelson.dev/keelson/internal/version"
)

// Server is the API server's process in which an agent runs.
type Server struct {
	*component.Process
	// Step runs a step of the start, and reports how long it took.
	Step func(name string, f func() error) error
	// Informers read the store: the agent uses the store's own objects.
	Informers informers.SharedInformerFactory
	Clock     clock.WithTicker
	// Node is a client with the rights of the agent's node, Admin one with those of
	// the API server, which publishes the Services of the node's parts.
	Node, Admin kubernetes.Interface
	// Measured is called with a function that measures the node from within the
	// process.
	Measured func(node string, stats usage.Stats)
	// Trace returns what a component of a node reports its phases to.
	Trace func(actor, node string) *trace.Reporter
	// Address is the node's address; if it is not valid the machine's, which may change.
	Address netip.Addr
	// ServiceCIDR is the range of the Services' addresses.
	ServiceCIDR netip.Prefix
	// ClientCA is the authority, in PEM, of the client certificates that the node's
	// server accepts. Issue issues the server's own, for the node's addresses.
	ClientCA []byte
	Issue    func([]net.IP) (tls.Certificate, error)
}

// Start starts the node on the machine in the server's process, and returns before
// it is Ready. It ends with the process.
func Start(m *machine.Machine, o Options, s Server) error {
	o.complete(m)
	if err := m.Start(s.Ctx, s.Step); err != nil {
		return err
	}
	return s.Step("node agent", func() error {
		reporter := func(actor string) *trace.Reporter { return s.Trace(actor, o.Name) }
		spans, err := o.spans(s.Process)
		if err != nil {
			return err
		}
		if spans != nil {
			reporter = func(actor string) *trace.Reporter { return spans.Beside(s.Trace(actor, o.Name)) }
		}
		h := &host{Process: s.Process, informers: s.Informers, clock: s.Clock, client: s.Node,
			measured: s.Measured, services: []netip.Prefix{s.ServiceCIDR}, cidrs: s.Informers.Networking().V1().ServiceCIDRs().Informer(), dns: dnsAddress(s.ServiceCIDR), version: version.Info.GitVersion, trace: reporter, clientCA: s.ClientCA}
		var given []netip.Addr
		if s.Address.IsValid() {
			given = append(given, s.Address)
		}
		h.addresses = h.newAddresses(given, m, o)
		certificate := &issued{addresses: h.addresses, issue: s.Issue}
		if o.ExternalCloud {
			certificate.given = func() []net.IP {
				_, ips := h.nodeNames(o.Name)
				return ips
			}
		}
		h.certificate = certificate.get
		s.Go(func() { s.publishDNS(o.Network.DNS != None) })
		s.Go(func() { s.publishRegistry(m.Registry()) })
		if o.Storage != None {
			s.Go(s.publishStorage)
		}
		return h.start(m, o)
	})
}
