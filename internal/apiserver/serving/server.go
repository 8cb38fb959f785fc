package serving

import (
	"cmp"
	"crypto/tls"
	"log"
	"net/http"
	"time"
)

const (
	// defaultMaxStreams is upstream's: a client that opens more is one that does not
	// keep to what it was told.
	defaultMaxStreams = 100
	// streamBuffer is the number of bytes of a request's body that are buffered
	// before it is read. Nearly every object is smaller, so that its body comes
	// at once.
	streamBuffer = 256 << 10
	// connBuffer is the same for all requests of a connection: the most that net/http
	// takes.
	connBuffer = 4<<20 - 1

	// headerTime is how long a client may take for the TLS handshake, and for the
	// headers of a request; idleTime how long it may have a connection without a
	// request; deafTime how long it may take nothing of what it was sent over HTTP/2.
	headerTime = 32 * time.Second
	idleTime   = 90 * time.Second
	deafTime   = time.Minute
	// maxHeader is the greatest size of a request's headers.
	maxHeader = 1 << 20
)

// NewServer returns a server of h behind what is selected, with the TLS of c as far as
// nothing else is. Whatever a client does or leaves undone, its connection ends,
// but while the handler wants to go on.
func (s *Selection) NewServer(h http.Handler, c *tls.Config, errorLog *log.Logger) (*http.Server, error) {
	if err := s.ConfigureTLS(c); err != nil {
		return nil, err
	}
	return &http.Server{
		Handler: s.Handler(h), TLSConfig: c, ErrorLog: errorLog,
		ReadHeaderTimeout: headerTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:      cmp.Or(s.MaxStreams, defaultMaxStreams),
			MaxReceiveBufferPerStream: streamBuffer, MaxReceiveBufferPerConnection: connBuffer,
			WriteByteTimeout: deafTime,
		},
	}, nil
}
