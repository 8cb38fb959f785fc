package dns

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	testingclock "k8s.io/utils/clock/testing"

	"keelson.dev/keelson/test/harness"
)

func TestShares(t *testing.T) {
	s := newShares(12)
	client := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}) }
	all := func(c netip.Addr) (n int) {
		for s.take(c) {
			n++
		}
		return n
	}
	if got := []int{all(client(1)), all(client(2)), all(client(3)), all(client(1))}; got[0] != 6 || got[1] != 3 || got[2] != 2 || got[3] != 0 {
		t.Errorf("places of greedy clients: %v, want 6, 3, 2 and no more for the first", got)
	}
	s.release(client(1))
	if n := all(client(4)); n != 1 {
		t.Errorf("%d places for one more client, want 1", n)
	}
	for c, n := range s.taken {
		for range n {
			s.release(c)
		}
	}
	if s.free != 12 || len(s.taken) != 0 {
		t.Errorf("%d places are free after all are given back, of %v", s.free, s.taken)
	}
}

// TestGreedyClient has one client send queries that no resolver answers, and open connections
// that it does not use, while others ask.
func TestGreedyClient(t *testing.T) {
	release := make(chan struct{})
	up := resolver(t, func(w dns.ResponseWriter, r *dns.Msg) {
		if dns.IsSubDomain("held.example.", r.Question[0].Name) {
			<-release
		}
		example(w, r)
	})
	s, _ := newServer(t, testingclock.NewFakeClock(time.Now()), up.addr)
	s.Addresses, s.Port = []netip.Addr{netip.MustParseAddr("127.0.0.1")}, uint16(harness.FreePort(t))
	at := netip.AddrPortFrom(s.Addresses[0], s.Port).String()
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- s.serve(ctx) }()
	defer func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	defer close(release) // before the resolver is shut down, which waits for its handlers

	dial := func(network, from string) (net.Conn, error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		if network == "udp" {
			d.LocalAddr = &net.UDPAddr{IP: net.ParseIP(from)}
		}
		return d.DialContext(t.Context(), network, at)
	}
	const greedy, other = "127.0.0.66", "127.0.0.2"
	resolves := func(when string) {
		t.Helper()
		for _, network := range []string{"udp", "tcp"} {
			for _, name := range []string{"example.org.", "web.ns.svc.cluster.local."} {
				harness.Succeeds(t, name+" by "+network+" "+when, func() error {
					c, err := dial(network, other)
					if err != nil {
						return err
					}
					defer c.Close()
					r := new(dns.Msg)
					r.SetQuestion(name, dns.TypeA)
					m, _, err := new(dns.Client).ExchangeWithConnContext(t.Context(), r, &dns.Conn{Conn: c})
					if err == nil && (m.Rcode != dns.RcodeSuccess || len(m.Answer) == 0) {
						err = fmt.Errorf("%s, %d records", dns.RcodeToString[m.Rcode], len(m.Answer))
					}
					return err
				})
				s.forward.cache.Clear() // so that each query goes to the resolver
			}
		}
	}
	resolves("at the beginning")

	taken := func(s *shares) int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.taken[netip.MustParseAddr(greedy)]
	}
	conn, err := dial("udp", greedy)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go func() { _, _ = io.Copy(io.Discard, conn) }()
	n := 0
	harness.Eventually(t, "all places of one client", func() bool {
		for range 50 {
			r := new(dns.Msg)
			// Every second query is the same one: those that share its answer count, too.
			r.SetQuestion(fmt.Sprintf("h%d.held.example.", n*(n%2)), dns.TypeA)
			n++
			if b, err := r.Pack(); err != nil {
				t.Fatal(err)
			} else if _, err := conn.Write(b); err != nil {
				t.Fatal(err)
			}
		}
		return taken(s.forward.waits) == concurrent/2
	})
	resolves("while another client's queries wait")

	closed := make(chan struct{}, connections)
	for range connections/2 + 1 {
		c, err := dial("tcp", greedy)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		go func() {
			_, _ = c.Read(make([]byte, 1))
			closed <- struct{}{}
		}()
	}
	resolves("while another client has connections")
	<-closed // one too many, or one that was idle for long
}

// TestUnreadAnswer checks that a client that does not read its answers loses the connection.
func TestUnreadAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer client.Close()
		released := false
		c := &shared{Conn: server, release: func() { released = true }}
		start := time.Now()
		if _, err := c.Write([]byte("an answer")); err == nil || time.Since(start) != writeTimeout {
			t.Errorf("after %s: %v", time.Since(start), err)
		}
		if _ = c.Close(); !released {
			t.Error("the place is not given back")
		}
	})
}
