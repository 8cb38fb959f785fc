package join

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestServers checks that requests go to a server that answers and shows a certificate of
// the cluster, and that the next process begins with it.
func TestServers(t *testing.T) {
	answering := func(name string) *httptest.Server {
		s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			_, _ = io.WriteString(w, name+" "+r.Host+" "+string(b))
		}))
		t.Cleanup(s.Close)
		return s
	}
	one, two, three := answering("one"), answering("two"), answering("three")
	// Another machine may have got an address.
	stranger := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a stranger got a request") }))
	key, cert := newSigner(t, time.Hour).issue(&x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}, nil)
	stranger.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}}}
	stranger.StartTLS()
	t.Cleanup(stranger.Close)
	authorities := x509.NewCertPool()
	authorities.AddCert(one.Certificate())
	host := func(s *httptest.Server) string { return s.Listener.Addr().String() }

	c := &Client{Dir: t.TempDir(), Node: "n", Servers: []string{one.URL}}
	var mu sync.Mutex
	var dialed []string
	open := func(c *Client) (*Servers, *http.Client) {
		t.Helper()
		s, err := c.OpenServers(one.URL)
		if err != nil {
			t.Fatal(err)
		}
		transport := one.Client().Transport.(*http.Transport).Clone()
		transport.TLSClientConfig.RootCAs, transport.DisableKeepAlives = authorities, true
		transport.DialContext = s.Dial(func(ctx context.Context, network, address string) (net.Conn, error) {
			mu.Lock()
			dialed = append(dialed, address)
			mu.Unlock()
			return (&net.Dialer{}).DialContext(ctx, network, address)
		})
		t.Cleanup(transport.CloseIdleConnections)
		return s, &http.Client{Transport: s.Transport(transport)}
	}
	ask := func(client *http.Client, body, want string) {
		t.Helper()
		resp, err := client.Post(one.URL+"/api", "text/plain", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if b, err := io.ReadAll(resp.Body); err != nil || string(b) != want {
			t.Errorf("%q %v, want %q", b, err, want)
		}
	}
	servers, client := open(c)
	ask(client, "a", "one "+host(one)+" a")
	servers.Learn([]string{host(two), host(one), host(two)})
	servers.Learn(nil)
	ask(client, "b", "one "+host(one)+" b")
	one.Close()
	ask(client, "c", "two "+host(two)+" c")

	// The next process, with nothing but its files.
	dialed = nil
	servers, client = open(&Client{Dir: c.Dir, Node: "n"})
	ask(client, "d", "two "+host(two)+" d")
	if !slices.Equal(dialed, []string{host(two)}) {
		t.Errorf("it asked %v, and the server was %s", dialed, host(two))
	}
	servers.Learn([]string{host(stranger), host(three)})
	two.Close()
	ask(client, "e", "three "+host(three)+" e")
	three.Close()
	if resp, err := client.Get(one.URL); err == nil {
		resp.Body.Close()
		t.Error("an answer of nobody")
	}

	// What is given comes first.
	four := answering("four")
	_, client = open(&Client{Dir: c.Dir, Node: "n", Servers: []string{four.URL, one.URL}})
	ask(client, "f", "four "+host(four)+" f")
	for _, x := range []struct {
		given []string
		fails bool
	}{{[]string{"https://proxy.test/k8s"}, false}, {[]string{"https://proxy.test/k8s", four.URL}, true}} {
		if s, err := (&Client{Dir: t.TempDir(), Servers: x.given}).OpenServers(x.given[0]); s != nil || (err != nil) != x.fails {
			t.Errorf("%v: %+v, %v", x.given, s, err)
		}
	}
}
