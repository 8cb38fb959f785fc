package harness

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"testing"
)

// SlowClient returns a client over HTTP/1 or HTTP/2 that buffers little of what is sent
// to it, so that a server notices soon when a body is not read: the socket has room for
// about unread bytes, and a stream of HTTP/2 for twice as many.
func SlowClient(t testing.TB, config *tls.Config, http2 bool, unread int) *http.Client {
	t.Helper()
	tr := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: http2, HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: 2 * unread},
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			if err == nil {
				err = conn.(*net.TCPConn).SetReadBuffer(unread)
			}
			return conn, err
		}}
	if !http2 {
		tr.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}
