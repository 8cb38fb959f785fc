package proxy

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// ownOnly accepts connections from processes of this user and of root, and of the user
// for whom sudo runs this process.
type ownOnly struct{ net.Listener }

// Accept implements net.Listener.
func (l ownOnly) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if uid, ok := peer(c); !ok || welcome(uid) {
			return c, nil
		}
		c.Close()
	}
}

// welcome reports whether a user's processes may connect.
func welcome(uid int) bool {
	sudo, err := strconv.Atoi(os.Getenv("SUDO_UID"))
	return uid == os.Getuid() || uid == 0 || os.Getuid() == 0 && err == nil && uid == sudo
}

// peer returns the user whose process is at the other end of a connection on loopback;
// false where the kernel does not say.
func peer(c net.Conn) (uid int, ok bool) {
	from, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return 0, false
	}
	to, err := netip.ParseAddrPort(c.LocalAddr().String())
	if err != nil {
		return 0, false
	}
	for _, file := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		if uid, ok := owner(file, from, to); ok {
			return uid, true
		}
	}
	return 0, false
}

// owner finds the owner of the socket with a local and a remote address in a table of the
// kernel (proc_net_tcp(5)).
func owner(file string, local, remote netip.AddrPort) (uid int, ok bool) {
	f, err := os.Open(file)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text()) // sl local_address rem_address st tx:rx tr:tm retrnsmt uid …
		if len(fields) < 8 || address(fields[1]) != local || address(fields[2]) != remote {
			continue
		}
		uid, err := strconv.Atoi(fields[7])
		return uid, err == nil
	}
	return 0, false
}

// address reads an address as the kernel's tables have it: words of four bytes in the
// machine's order, and the port.
func address(s string) netip.AddrPort {
	ip, port, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(ip)
	if err != nil || len(b)%4 != 0 {
		return netip.AddrPort{}
	}
	for i := 0; i < len(b); i += 4 {
		binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	a, ok := netip.AddrFromSlice(b)
	n, err := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(n))
}
