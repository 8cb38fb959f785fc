package serving

import (
	"context"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// Listen opens the socket at address, shared with others' where that is selected.
func (s *Selection) Listen(ctx context.Context, address string) (net.Listener, error) {
	l := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		set := func(on bool, option int) {
			if on && err == nil {
				if cerr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, option, 1) }); cerr != nil {
					err = cerr
				}
			}
		}
		set(s.SharePort, unix.SO_REUSEPORT)
		set(s.ShareAddress, unix.SO_REUSEADDR)
		return err
	}}
	return l.Listen(ctx, "tcp", address)
}
