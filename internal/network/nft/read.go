package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// socket is a netlink socket to netfilter.
type socket struct {
	fd  int
	buf []byte
}

// answerTimeout bounds the wait for the kernel's answer, which is usually there
// when the sending call returns.
var answerTimeout = unix.Timeval{Sec: 60}

func dial(size int) (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil, fmt.Errorf("netlink: %w: this kernel has no nftables: load it (modprobe nf_tables)", err)
	}
	if err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	// The kernel accepts no message larger than the send buffer.
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, size+64<<10),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<20),
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &answerTimeout),
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
	)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("netlink: %w", err)
	}
	return &socket{fd, make([]byte, 64<<10)}, nil
}

func (s *socket) close() { unix.Close(s.fd) }

func (s *socket) send(b []byte) error {
	return unix.Sendto(s.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// receive calls f with each message of one datagram.
func (s *socket) receive(f func(typ uint16, seq uint32, body []byte)) error {
	var n int
	var err error
	for {
		if n, _, err = unix.Recvfrom(s.fd, s.buf, 0); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	for b := s.buf[:n]; len(b) >= unix.SizeofNlMsghdr; {
		n := int(binary.NativeEndian.Uint32(b))
		if n < unix.SizeofNlMsghdr || n > len(b) {
			return errors.New("netlink: a damaged message")
		}
		f(binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint32(b[8:]), b[unix.SizeofNlMsghdr:n])
		b = b[min(align(n), len(b)):]
	}
	return nil
}

// dump requests a dump of objects and calls each with the attributes of each.
func dump(f Family, typ, flags uint16, attrs func(*encoder), each func(body []byte)) error {
	s, err := dial(4 << 10)
	if err != nil {
		return err
	}
	defer s.close()
	t := &Tx{open: -1}
	at := t.begin(unix.NFNL_SUBSYS_NFTABLES<<8|typ, flags|unix.NLM_F_ACK, f, 1)
	attrs(&t.e)
	t.end(at)
	if err := s.send(t.e.b); err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	for done := false; !done; {
		var failed error
		err := s.receive(func(typ uint16, _ uint32, b []byte) {
			switch typ {
			case unix.NLMSG_ERROR, unix.NLMSG_DONE:
				done = true
				if len(b) >= 4 {
					if code := int32(binary.NativeEndian.Uint32(b)); code < 0 {
						failed = unix.Errno(-code)
					}
				}
			default:
				if len(b) >= 4 {
					each(b[4:])
				}
			}
		})
		if err = errors.Join(err, failed); err != nil {
			return err
		}
	}
	return nil
}

// Generation returns a number that changes with each transaction on any table of
// the network namespace.
func Generation() (uint32, error) {
	var id uint32
	err := dump(0, unix.NFT_MSG_GETGEN, nothing, func(*encoder) {}, func(b []byte) {
		attributes(b, func(typ uint16, v []byte) {
			if typ == unix.NFTA_GEN_ID && len(v) == 4 {
				id = binary.BigEndian.Uint32(v)
			}
		})
	})
	if err != nil {
		return 0, fmt.Errorf("nftables: reading the generation: %w", err)
	}
	return id, nil
}

// Rules counts the rules of a chain, 0 if the chain does not exist.
func Rules(f Family, table, chain string) (n int, err error) {
	err = dump(f, unix.NFT_MSG_GETRULE, unix.NLM_F_DUMP, func(e *encoder) {
		e.string(unix.NFTA_RULE_TABLE, table)
		e.string(unix.NFTA_RULE_CHAIN, chain)
	}, func([]byte) { n++ })
	if errors.Is(err, unix.ENOENT) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("nftables: reading the rules of table %s: %w", table, err)
	}
	return n, nil
}

// Sets returns the names of a table's sets and maps; none if the table does not
// exist.
func Sets(f Family, table string) (names []string, err error) {
	err = dump(f, unix.NFT_MSG_GETSET, unix.NLM_F_DUMP, func(e *encoder) { e.string(unix.NFTA_SET_TABLE, table) }, func(b []byte) {
		attributes(b, func(typ uint16, v []byte) {
			if typ == unix.NFTA_SET_NAME && len(v) > 0 {
				names = append(names, string(v[:len(v)-1]))
			}
		})
	})
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("nftables: reading the sets of table %s: %w", table, err)
	}
	return names, nil
}

// Elements returns the keys and values of a set or map, without verdicts.
func Elements(f Family, table, set string) (out []Element, err error) {
	err = dump(f, unix.NFT_MSG_GETSETELEM, unix.NLM_F_DUMP, func(e *encoder) {
		e.string(unix.NFTA_SET_ELEM_LIST_TABLE, table)
		e.string(unix.NFTA_SET_ELEM_LIST_SET, set)
	}, func(b []byte) {
		attributes(b, func(typ uint16, v []byte) {
			if typ != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
				return
			}
			attributes(v, func(_ uint16, v []byte) {
				var x Element
				attributes(v, func(typ uint16, v []byte) {
					value := func(to *[]byte) {
						attributes(v, func(typ uint16, v []byte) {
							if typ == unix.NFTA_DATA_VALUE {
								*to = append([]byte(nil), v...)
							}
						})
					}
					ms := func() time.Duration {
						if len(v) != 8 {
							return 0
						}
						return time.Duration(binary.BigEndian.Uint64(v)) * time.Millisecond
					}
					switch typ {
					case unix.NFTA_SET_ELEM_KEY:
						value(&x.Key)
					case unix.NFTA_SET_ELEM_DATA:
						value(&x.Value)
					case unix.NFTA_SET_ELEM_TIMEOUT:
						x.Timeout = ms()
					case unix.NFTA_SET_ELEM_EXPIRATION:
						x.Expires = ms()
					}
				})
				out = append(out, x)
			})
		})
	})
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("nftables: reading set %s of table %s: %w", set, table, err)
	}
	return out, nil
}
