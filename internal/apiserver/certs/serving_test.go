package certs

import (
	"crypto/tls"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"
)

// conn is a connection to an address of this machine.
type conn struct {
	net.Conn
	at netip.Addr
}

func (c conn) LocalAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(c.at, 6443))
}

// TestServing checks that the certificate names the address that the client has connected
// to, of those beside the SANs only this, and is replaced before it ends.
func TestServing(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC))
	b, err := Ensure("", Options{SANs: []string{"kubernetes", "127.0.0.1", "192.0.2.1"}, Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	get := func(at string) *tls.Certificate {
		t.Helper()
		hello := &tls.ClientHelloInfo{}
		if at != "" {
			hello.Conn = conn{at: netip.MustParseAddr(at)}
		}
		c, err := b.Serving.Certificate(hello)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for _, x := range []struct {
		at   string
		want []string
	}{
		{"", []string{"127.0.0.1", "192.0.2.1"}},
		{"127.0.0.1", []string{"127.0.0.1", "192.0.2.1"}},
		{"127.0.0.9", []string{"127.0.0.1", "192.0.2.1"}},
		{"198.51.100.7", []string{"127.0.0.1", "192.0.2.1", "198.51.100.7"}},
		{"::ffff:198.51.100.8", []string{"127.0.0.1", "192.0.2.1", "198.51.100.8"}},
		{"2001:db8::1", []string{"127.0.0.1", "192.0.2.1", "2001:db8::1"}},
		{"fe80::1%eth0", []string{"127.0.0.1", "192.0.2.1", "fe80::1"}},
	} {
		leaf := get(x.at).Leaf
		var got []string
		for _, ip := range leaf.IPAddresses {
			got = append(got, ip.String())
		}
		if !slices.Equal(got, x.want) || !slices.Equal(leaf.DNSNames, []string{"kubernetes"}) {
			t.Errorf("to a client at %q: %v %v, want %v", x.at, got, leaf.DNSNames, x.want)
		}
	}
	first := get("198.51.100.7")
	if get("198.51.100.7") != first {
		t.Error("a certificate is issued for each connection")
	}
	for range 5 {
		clock.Step(leafLife / 4)
		if c := get("198.51.100.7"); c.Leaf.NotAfter.Sub(clock.Now()) < leafLife/4 {
			t.Errorf("at %s a certificate is served that ends at %s", clock.Now(), c.Leaf.NotAfter)
		}
	}
	a := netip.MustParseAddr("2001:db8::")
	for range 2 * servingLimit {
		a = a.Next()
		get(a.String())
	}
	if n := len(b.Serving.certificates); n > servingLimit {
		t.Errorf("%d certificates are kept", n)
	}
}
