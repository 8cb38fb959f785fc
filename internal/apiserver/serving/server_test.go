package serving

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"keelson.dev/keelson/test/harness"
)

func tellProto(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) }

// listen serves s on loopback as the API server does; with patience it has that
// little of it, in place of its own.
func listen(t *testing.T, s *Selection, patience time.Duration, h http.HandlerFunc) *http.Server {
	t.Helper()
	certs := httptest.NewTLSServer(nil) // for its certificate
	defer certs.Close()
	srv, err := s.NewServer(h, &tls.Config{Certificates: certs.TLS.Certificates, NextProtos: []string{"h2", "http/1.1"}}, log.New(io.Discard, "", 0))
	if err != nil {
		t.Fatal(err)
	}
	if patience > 0 {
		srv.ReadHeaderTimeout, srv.IdleTimeout, srv.HTTP2.WriteByteTimeout = patience, patience, patience
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- srv.ServeTLS(l, "", "") }()
	t.Cleanup(func() {
		srv.Close()
		<-done
	})
	srv.Addr = l.Addr().String()
	return srv
}

func dial(t *testing.T, srv *http.Server, proto string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", srv.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if proto == "" {
		return c
	}
	tc := tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{proto}})
	if err := tc.Handshake(); err != nil {
		t.Fatal(err)
	}
	return tc
}

// TestSlowClients checks that the server ends the connections of clients that stall
// at each step before a request, and that nothing of them stays. (Where HTTP/2 was
// agreed on and nothing comes net/http itself waits for ten seconds.)
func TestSlowClients(t *testing.T) {
	srv := listen(t, &Selection{}, 300*time.Millisecond, tellProto)
	before := runtime.NumGoroutine()
	var conns []net.Conn
	for range 10 {
		for _, c := range []struct{ proto, send string }{
			{"", ""},                             // no handshake
			{"", "\x16\x03\x01\x02\x00\x01\x00"}, // a part of one
			{"http/1.1", ""},                     // no request
			{"http/1.1", "GET / HTTP/1.1\r\nHost: a\r\n"},                                                                // headers without end
			{"http/1.1", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"},                                                            // one request, and no other
			{"h2", http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00"},                                         // no request
			{"h2", http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\xff\x01\x04\x00\x00\x00\x01\x82"}, // a part of one
		} {
			conn := dial(t, srv, c.proto)
			if _, err := io.WriteString(conn, c.send); err != nil {
				t.Fatal(err)
			}
			conns = append(conns, conn)
		}
	}
	for i, c := range conns {
		if _, err := io.Copy(io.Discard, c); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Errorf("connection %d was not ended", i)
		}
		c.Close()
	}
	harness.Eventually(t, fmt.Sprintf("the goroutines to end, of which %d were there before", before), func() bool { return runtime.NumGoroutine() <= before+5 })
}

func TestHeaderLimit(t *testing.T) {
	srv := listen(t, &Selection{}, 0, tellProto)
	for _, proto := range []string{"http/1.1", "h2"} {
		for _, c := range []struct {
			size int
			want bool
		}{{900 << 10, true}, {1100 << 10, false}} {
			tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{proto}}, ForceAttemptHTTP2: proto == "h2"}
			req, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+srv.Addr, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("X-Big", strings.Repeat("x", c.size))
			resp, err := tr.RoundTrip(req)
			ok := err == nil && resp.StatusCode == http.StatusOK
			if err == nil {
				resp.Body.Close()
				if !ok && resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
					t.Errorf("%s: %s", proto, resp.Status)
				}
			}
			if ok != c.want {
				t.Errorf("%s with %d bytes of headers: answered: %v, %v", proto, c.size, ok, err)
			}
			tr.CloseIdleConnections()
		}
	}
}

// TestStreams reads the limit of concurrent streams that the server announces.
func TestStreams(t *testing.T) {
	for _, c := range []struct{ given, want int }{{0, 100}, {7, 7}} {
		srv := listen(t, &Selection{MaxStreams: c.given}, 0, tellProto)
		conn := dial(t, srv, "h2")
		if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
			t.Fatal(err)
		}
		f := http2.NewFramer(conn, bufio.NewReader(conn))
		if err := f.WriteSettings(); err != nil {
			t.Fatal(err)
		}
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		settings, ok := frame.(*http2.SettingsFrame)
		if !ok {
			t.Fatalf("%v", frame)
		}
		if n, ok := settings.Value(http2.SettingMaxConcurrentStreams); !ok || int(n) != c.want {
			t.Errorf("%d streams, want %d", n, c.want)
		}
	}
}

// TestClientThatReadsNothing checks that the server ends the connection of an
// HTTP/2 client with unlimited windows that reads nothing.
func TestClientThatReadsNothing(t *testing.T) {
	ended := make(chan error, 1)
	srv := listen(t, &Selection{}, 300*time.Millisecond, func(w http.ResponseWriter, _ *http.Request) {
		block := make([]byte, 64<<10)
		for {
			if _, err := w.Write(block); err != nil {
				ended <- err
				return
			}
		}
	})
	conn := dial(t, srv, "h2")
	var headers bytes.Buffer
	enc := hpack.NewEncoder(&headers)
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "a"}, {":path", "/"}} {
		if err := enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	f := http2.NewFramer(conn, nil)
	if err := errors.Join(f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1}), f.WriteWindowUpdate(0, 1<<30),
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: headers.Bytes(), EndHeaders: true, EndStream: true})); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(harness.Patience):
		t.Error("the server still waits for a client that reads nothing")
	}
}
