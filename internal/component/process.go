package component

import (
	"context"
	"net"
	"net/netip"
	"os"
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	v1core "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"

	"keelson.dev/keelson/internal/api/catalogue"
)

// Process is a group of goroutines that end together: a function that Go runs
// must return when Ctx is done.
type Process struct {
	Ctx context.Context
	// End ends Ctx, and so all that the process runs.
	End context.CancelFunc
	sync.WaitGroup
}

// NewProcess makes a process that ends with ctx.
func NewProcess(ctx context.Context) *Process {
	p := &Process{}
	p.Ctx, p.End = context.WithCancel(ctx)
	return p
}

// Stop ends the process and waits for all that it runs.
func (p *Process) Stop() {
	p.End()
	p.Wait()
}

// Recorder returns a recorder of events as component on host, through a client of
// its identity.
func (p *Process) Recorder(client kubernetes.Interface, component, host string) record.EventRecorder {
	b := record.NewBroadcaster(record.WithContext(p.Ctx))
	Record(p.Ctx, b, &v1core.EventSinkImpl{Interface: client.CoreV1().Events("")})
	p.Go(func() {
		<-p.Ctx.Done()
		b.Shutdown()
	})
	return b.NewRecorder(catalogue.Scheme, v1.EventSource{Component: component, Host: host})
}

// Hostname returns the machine's name, empty where it has none.
func Hostname() string {
	h, _ := os.Hostname()
	return h
}

// Address returns the source address of the machine's default route, else
// loopback. It sends no packets.
func Address() netip.Addr {
	if a, ok := AddressOf(true); ok {
		return a
	}
	return netip.MustParseAddr("127.0.0.1")
}

// AddressOf returns the machine's address towards its default route of a family, if it
// has one. Nothing is sent.
func AddressOf(four bool) (netip.Addr, bool) {
	network, to := "udp4", "192.0.2.1:9"
	if !four {
		network, to = "udp6", "[2001:db8::1]:9"
	}
	conn, err := net.Dial(network, to)
	if err != nil {
		return netip.Addr{}, false
	}
	defer conn.Close()
	a, ok := conn.LocalAddr().(*net.UDPAddr)
	if !ok {
		return netip.Addr{}, false
	}
	ip := a.AddrPort().Addr().Unmap().WithZone("")
	return ip, !ip.IsLinkLocalUnicast()
}
