package proxy

import (
	"net"
	"net/http"
	"time"
)

// listener serves HTTP at an address, from when that is free.
type listener struct {
	at      string
	handler http.Handler
	server  *http.Server // nil as long as the address is another's
	failed  bool
}

// open serves if it does not yet. It returns why it cannot once, until it could.
func (l *listener) open() error {
	if l.server != nil {
		return nil
	}
	n, err := net.Listen("tcp", l.at)
	if err != nil {
		if l.failed {
			return nil
		}
		l.failed = true
		return err
	}
	l.failed = false
	l.server = &http.Server{Handler: l.handler, ReadHeaderTimeout: 5 * time.Second}
	go func(s *http.Server) { _ = s.Serve(n) }(l.server)
	return nil
}

func (l *listener) close() {
	if l.server != nil {
		l.server.Close()
		l.server = nil
	}
}
