package proxy

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// Sockets are the ports on which programs of a machine listen.
type Sockets struct {
	at map[Key]bool
	// any holds the sockets that listen at all addresses, with a zero Addr.
	any map[Key]bool
}

// Has reports whether a program of the machine listens at k, one of the
// machine's addresses.
func (s *Sockets) Has(k Key) bool {
	return s != nil && (s.at[k] || s.any[Key{Proto: k.Proto, Port: k.Port}])
}

// Listening returns the sockets of this thread's network namespace.
func Listening() (*Sockets, error) {
	s := &Sockets{map[Key]bool{}, map[Key]bool{}}
	for _, f := range []struct {
		file  string
		proto v1.Protocol
		state string
	}{
		{"tcp", v1.ProtocolTCP, "0A"}, {"tcp6", v1.ProtocolTCP, "0A"}, // TCP_LISTEN
		{"udp", v1.ProtocolUDP, "07"}, {"udp6", v1.ProtocolUDP, "07"}, // TCP_CLOSE: not connected
	} {
		b, err := os.Open("/proc/thread-self/net/" + f.file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // IPv6 is switched off
		}
		if err != nil {
			return nil, fmt.Errorf("the ports that are in use: %w", err)
		}
		err = s.read(b, f.proto, f.state)
		b.Close()
		if err != nil {
			return nil, fmt.Errorf("the ports that are in use: %w", err)
		}
	}
	return s, nil
}

// read reads a file of proc(5): one line per socket, with its address as the
// second field and its state as the fourth. In those of TCP, listening sockets
// come first.
func (s *Sockets) read(f *os.File, proto v1.Protocol, state string) error {
	lines := bufio.NewScanner(f)
	lines.Scan() // the heading
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 {
			continue
		}
		if fields[3] != state {
			if proto == v1.ProtocolTCP {
				break
			}
			continue
		}
		host, port, _ := strings.Cut(fields[1], ":")
		n, err := strconv.ParseUint(port, 16, 16)
		if err != nil {
			return fmt.Errorf("%s: %w", f.Name(), err)
		}
		b, err := hex.DecodeString(host)
		if err != nil {
			return fmt.Errorf("%s: %w", f.Name(), err)
		}
		for i := 0; i+4 <= len(b); i += 4 {
			slices.Reverse(b[i : i+4]) // words are in host byte order, here little-endian
		}
		a, _ := netip.AddrFromSlice(b)
		k := Key{Addr: a.Unmap(), Proto: proto, Port: uint16(n)}
		if s.at[k] = true; a.IsUnspecified() {
			s.any[Key{Proto: proto, Port: k.Port}] = true
		}
	}
	return lines.Err()
}

// own maps the addresses of the node to the machine's addresses at which packets to
// them arrive: these differ where the network translates packets from outside.
func own(n *v1.Node) map[netip.Addr]netip.Addr {
	out := map[netip.Addr]netip.Addr{}
	var four, six netip.Addr
	for _, t := range []v1.NodeAddressType{v1.NodeInternalIP, v1.NodeExternalIP} {
		for _, x := range n.Status.Addresses {
			a, err := netip.ParseAddr(x.Address)
			if err != nil || x.Type != t {
				continue
			}
			first := &six
			if a.Is4() {
				first = &four
			}
			if !first.IsValid() {
				*first = a
			}
			if out[a] = a; t == v1.NodeExternalIP {
				out[a] = *first
			}
		}
	}
	return out
}
