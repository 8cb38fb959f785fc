package dns

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// shares divides places among clients: one more is given to a client that has fewer than are
// free. So a client alone gets half of them, and n greedy ones leave a share as large as their
// own to the next: a dynamic threshold, as switches have for the queues that share a buffer
// (Choudhury and Hahne, 1998).
type shares struct {
	mu    sync.Mutex
	free  int
	taken map[netip.Addr]int
}

func newShares(places int) *shares {
	return &shares{free: places, taken: map[netip.Addr]int{}}
}

// take takes a place for a client, and reports whether there was one for it.
func (s *shares) take(client netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken[client] >= s.free {
		return false
	}
	s.free--
	s.taken[client]++
	return true
}

// release gives back a place that the client has taken.
func (s *shares) release(client netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free++
	if s.taken[client]--; s.taken[client] == 0 {
		delete(s.taken, client)
	}
}

// host returns the address of a client, of either transport.
func host(a net.Addr) netip.Addr {
	switch a := a.(type) {
	case *net.UDPAddr:
		return a.AddrPort().Addr().Unmap()
	case *net.TCPAddr:
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// sharing is a listener whose connections are shared among clients: one that is too many is
// closed at once.
type sharing struct {
	net.Listener
	shares *shares
}

func (l sharing) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		client := host(c.RemoteAddr())
		if l.shares.take(client) {
			return &shared{Conn: c, release: sync.OnceFunc(func() { l.shares.release(client) })}, nil
		}
		_ = c.Close()
	}
}

// shared is a connection with a place. An answer that the client does not read in time ends it:
// dns.Server has deadlines for reading only.
type shared struct {
	net.Conn
	release func()
}

func (c *shared) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

func (c *shared) Close() error {
	defer c.release()
	return c.Conn.Close()
}
