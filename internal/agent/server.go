package agent

import (
	"crypto/tls"
	"net/netip"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/apiserver/usage"
	"keelson.dev/keelson/internal/component"
	"keelson.dev/keelson/internal/machine"
	"keelson.dev/keelson/internal/version"
)

// Server is an API server's process, which an agent may run in.
type Server struct {
	*component.Process
	// Step does a step of the start, and tells how long it took.
	Step func(name string, f func() error) error
	// Informers are of all objects; the agent reads the store's own by them.
	Informers informers.SharedInformerFactory
	Clock     clock.WithTicker
	// Node is a client with the rights of the agent's node, Admin one with those of
	// the API server, which publishes what the node serves to the cluster.
	Node, Admin kubernetes.Interface
	// Measured is told how the node is measured from within the process.
	Measured func(node string, stats usage.Stats)
	// Address is the one that the node is reached by.
	Address netip.Addr
	// ServiceCIDR is the range of the Services' addresses.
	ServiceCIDR netip.Prefix
	// ClientCA is the authority, in PEM, of the certificates of the node's callers;
	// Certificate is that of the node's own server.
	ClientCA    []byte
	Certificate tls.Certificate
}

// Start starts the node on the machine in the server's process, with which it ends.
// The node is Ready some time later.
func Start(m *machine.Machine, o Options, s Server) error {
	o.complete(m)
	if err := m.Start(s.Ctx, s.Step); err != nil {
		return err
	}
	return s.Step("node agent", func() error {
		h := &host{Process: s.Process, informers: s.Informers, clock: s.Clock, client: s.Node,
			measured: s.Measured, ip: s.Address, dns: dnsAddress(s.ServiceCIDR), version: version.Info.GitVersion, clientCA: s.ClientCA,
			certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &s.Certificate, nil }}
		s.Go(func() { s.publishDNS(o.Network.DNS != None) })
		s.Go(func() { s.publishRegistry(m.Registry()) })
		if o.Storage != None {
			s.Go(s.publishStorage)
		}
		return h.start(m, o)
	})
}
