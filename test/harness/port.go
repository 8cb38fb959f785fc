package harness

import (
	"net"
	"testing"
)

// FreeAddress returns an address on loopback at which nothing listens (host:port).
func FreeAddress(t testing.TB) string {
	t.Helper()
	return free(t).String()
}

// FreePort returns the port of a FreeAddress.
func FreePort(t testing.TB) int {
	t.Helper()
	return free(t).Port
}

func free(t testing.TB) *net.TCPAddr {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr)
}
