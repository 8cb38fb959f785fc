package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd/api"

	"keelson.dev/keelson/test/harness"
)

// backend stands for an API server: it answers with what it was asked.
type backend struct {
	*httptest.Server
	gone chan struct{} // has an element for each stream that has ended
}

func newBackend(t *testing.T) *backend {
	b := &backend{gone: make(chan struct{}, 1)}
	b.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Upgrade") != "":
			conn, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Asked: %s %s %s\r\n\r\n", r.URL, r.Header.Get("Authorization"), r.Header.Get("Origin"))
			rw.Flush()
			line, err := rw.ReadString('\n')
			if err != nil {
				return
			}
			fmt.Fprint(rw, "echo ", line)
			rw.Flush()
		case r.URL.Path == "/base/dash/stream":
			fmt.Fprintln(w, "first")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			b.gone <- struct{}{}
		default:
			w.Header().Set("Set-Cookie", "evil=1")
			w.Header().Set("Access-Control-Allow-Origin", "*")
			w.Header().Set("Content-Type", "text/html")
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return
			}
			fmt.Fprintf(w, "%s %s %s\n", r.Method, r.URL, body)
			_ = r.Header.Write(w)
		}
	}))
	t.Cleanup(b.Close)
	return b
}

// start runs a proxy to b, with a token.
func start(t *testing.T, b *backend) (*Proxy, chan string) {
	return startWith(t, b, &rest.Config{BearerToken: "secret"})
}

// startWith runs a proxy to b, with the credentials of cfg.
func startWith(t *testing.T, b *backend, cfg *rest.Config) (*Proxy, chan string) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	renewed := make(chan string, 10)
	cfg.Host, cfg.TLSClientConfig = b.URL+"/base", rest.TLSClientConfig{Insecure: true}
	p, err := New(Config{Listener: l, Renewed: func(u string) { renewed <- u }, Client: cfg})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return p, renewed
}

// ask sends a request to the proxy, with headers that are "name: value".
func ask(t *testing.T, p *Proxy, method, path string, headers ...string) (*http.Response, string) {
	t.Helper()
	var content io.Reader
	if method != http.MethodGet {
		content = strings.NewReader("body")
	}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+p.host, content)
	if err != nil {
		t.Fatal(err)
	}
	req.URL.Opaque = path // as it is
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if name == "Host" {
			req.Host = value
		}
		req.Header.Add(name, value)
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return resp, ""
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// enter opens the page with the proxy's URL, and returns the cookie as a header.
func enter(t *testing.T, p *Proxy) string {
	t.Helper()
	u, err := url.Parse(p.URL())
	if err != nil {
		t.Fatal(err)
	}
	resp, body := ask(t, p, "GET", u.RequestURI())
	all := resp.Cookies()
	if resp.StatusCode != http.StatusOK || len(all) != 1 || !strings.Contains(body, "url=/dash/") {
		t.Fatalf("the URL is answered with %d %v %s", resp.StatusCode, all, body)
	}
	c := all[0]
	if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.Domain != "" {
		t.Errorf("the cookie is %v", c)
	}
	if resp.Header.Get("Cache-Control") != "no-store" || resp.Header.Get("Referrer-Policy") != "no-referrer" {
		t.Errorf("the answer with the cookie has %v", resp.Header)
	}
	return "Cookie: " + c.Name + "=" + c.Value
}

// TestAttacks sends what another page, another name of this host and another process
// would send.
func TestAttacks(t *testing.T) {
	p, renewed := start(t, newBackend(t))
	first := p.URL()
	cookie := enter(t, p)
	own := "Origin: http://" + p.host
	_, port, err := net.SplitHostPort(p.host)
	if err != nil {
		t.Fatal(err)
	}
	socket := []string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: x"}
	with := func(more ...string) []string { return append(more, socket...) }
	exec := "/api/v1/namespaces/a/pods/b/exec?command=sh"
	for _, c := range []struct {
		name, method, path string
		headers            []string
		code               int
		says               string
	}{
		{"the page", "GET", "/dash/", []string{cookie}, 200, "GET /base/dash/"},
		{"a write of the page", "POST", "/api/v1/x", []string{cookie, own}, 200, "POST /base/api/v1/x body"},
		{"by its other name", "GET", "/dash/", []string{cookie, "Host: localhost:" + port, "Origin: http://localhost:" + port}, 200, ""},
		{"a terminal of the page", "GET", exec, with(cookie, own), 101, ""},

		{"no cookie", "GET", "/dash/", nil, 401, "keelson dash prints"},
		{"no cookie, a write", "POST", "/api/v1/x", []string{own}, 401, ""},
		{"a wrong cookie", "GET", "/dash/", []string{cookie + "x"}, 401, ""},
		{"a cookie of another port", "GET", "/dash/", []string{strings.Replace(cookie, port, "1", 1)}, 401, ""},
		{"no cookie, a terminal", "GET", exec, with(own), 401, ""},

		{"another host: DNS rebinding", "GET", "/dash/", []string{cookie, "Host: evil.example:" + port}, 403, "is not this server"},
		{"another host, a token", "GET", "/?token=x", []string{"Host: evil.example:" + port}, 403, ""},
		{"another port", "GET", "/dash/", []string{cookie, "Host: 127.0.0.1:1"}, 403, ""},
		{"no port", "GET", "/dash/", []string{cookie, "Host: 127.0.0.1"}, 403, ""},
		{"a host in the path", "GET", "http://evil.example/dash/", []string{cookie}, 403, ""},

		{"another origin", "GET", "/api/v1/secrets", []string{cookie, "Origin: https://evil.example"}, 403, "may not use"},
		{"a page in a sandbox", "POST", "/api/v1/x", []string{cookie, "Origin: null"}, 403, ""},
		{"the other name's origin", "POST", "/api/v1/x", []string{cookie, "Origin: http://localhost:" + port}, 403, ""},
		{"two origins", "POST", "/api/v1/x", []string{cookie, own, "Origin: https://evil.example"}, 403, ""},
		{"over TLS", "POST", "/api/v1/x", []string{cookie, "Origin: https://" + p.host}, 403, ""},
		{"a form of another page", "POST", "/api/v1/x", []string{cookie}, 403, "must name its origin"},
		{"a deletion without an origin", "DELETE", "/api/v1/x", []string{cookie}, 403, ""},
		{"a page on another port", "GET", "/api/v1/secrets", []string{cookie, "Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: script"}, 403, "another site"},
		{"an image of another page", "GET", "/dash/icon.svg", []string{cookie, "Sec-Fetch-Site: cross-site", "Sec-Fetch-Dest: image"}, 403, ""},
		{"a frame of another page", "GET", "/", []string{cookie, "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"}, 403, ""},
		{"a link of another page", "GET", "/", []string{cookie, "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"}, 200, "url=/dash/"},
		{"a terminal from another origin", "GET", exec, with(cookie, "Origin: https://evil.example"), 403, ""},
		{"a terminal from another port", "GET", exec, with(cookie, "Origin: http://127.0.0.1:1"), 403, ""},
		{"a terminal without an origin", "GET", exec, with(cookie), 403, ""},

		{"the token again", "GET", strings.TrimPrefix(first, "http://"+p.host), nil, 401, "was used"},
		{"an empty token", "GET", "/?token=", nil, 401, ""},
		{"no token", "GET", "/", nil, 401, ""},
		{"a token by POST", "POST", "/?token=x", []string{own}, 405, ""},

		{"a pod's page", "GET", "/api/v1/namespaces/a/pods/b/proxy/x", []string{cookie}, 403, "port-forward"},
		{"a service's page", "GET", "/api/v1/namespaces/a/services/b:80/proxy", []string{cookie}, 403, ""},
		{"a node's page", "GET", "/api/v1/nodes/n/proxy/logs/", []string{cookie}, 403, ""},
		{"a pod's page, of old", "GET", "/api/v1/proxy/namespaces/a/pods/b/x", []string{cookie}, 403, ""},
		{"a pod's page in the past", "GET", "/at/10m/api/v1/namespaces/a/pods/b/proxy/x", []string{cookie}, 403, ""},
		{"out of the folder", "GET", "/dash/../../etc/passwd", []string{cookie}, 200, "/dash/../../etc/passwd"}, // the API server's own affair
	} {
		resp, body := ask(t, p, c.method, c.path, c.headers...)
		if resp.StatusCode != c.code || !strings.Contains(body, c.says) {
			t.Errorf("%s: %d %s, want %d %s", c.name, resp.StatusCode, body, c.code, c.says)
		}
		if resp.StatusCode != http.StatusSwitchingProtocols && (resp.Header.Get("X-Content-Type-Options") != "nosniff" || resp.Header.Get("X-Frame-Options") != "DENY") {
			t.Errorf("%s: the answer has the headers %v", c.name, resp.Header)
		}
	}
	// The next URL opens another browser, once.
	if next := <-renewed; next != p.URL() || next == first {
		t.Errorf("the next URL is %s, after %s", next, first)
	}
	if again := enter(t, p); again != cookie {
		t.Errorf("another browser has %q, and the first %q", again, cookie)
	}
}

// TestPassedOn looks at what the API server and the browser get of each other.
func TestPassedOn(t *testing.T) {
	p, _ := start(t, newBackend(t))
	cookie := enter(t, p)
	resp, body := ask(t, p, "PATCH", "/api/v1/a%2Fb?x=%20", cookie, "Origin: http://"+p.host, "Authorization: Bearer other", "Impersonate-User: admin", "Impersonate-Extra-X: y",
		"X-Remote-User: admin", "User-Agent: Mozilla/5.0", "Referer: http://"+p.host+"/dash/", "Content-Type: application/merge-patch+json")
	if !strings.HasPrefix(body, "PATCH /base/api/v1/a%2Fb?x=%20 body\n") || !strings.Contains(body, "Authorization: Bearer secret") || !strings.Contains(body, "User-Agent: keelson-dash") ||
		!strings.Contains(body, "Content-Type: application/merge-patch+json") {
		t.Errorf("the API server gets %s", body)
	}
	for _, not := range []string{"Impersonate", "Bearer other", "X-Remote", "Cookie", "Referer", "Mozilla", p.host} {
		if strings.Contains(body, not) {
			t.Errorf("the API server gets %s: %s", not, body)
		}
	}
	for name, want := range map[string]string{"Set-Cookie": "", "Access-Control-Allow-Origin": "", "Content-Security-Policy": "default-src 'none'; sandbox; frame-ancestors 'none'"} {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("the browser gets %s %q, want %q", name, got, want)
		}
	}
	if resp, _ := ask(t, p, "GET", "/dash/", cookie); resp.Header.Get("Content-Security-Policy") != "" {
		t.Errorf("the page gets the policy of others: %v", resp.Header)
	}
}

// TestTerminal sends bytes over a connection that is upgraded, with the credentials that
// a kubeconfig's plug-in gives.
func TestTerminal(t *testing.T) {
	b := newBackend(t)
	p, _ := startWith(t, b, &rest.Config{ExecProvider: &api.ExecConfig{APIVersion: "client.authentication.k8s.io/v1", InteractiveMode: api.NeverExecInteractiveMode,
		Command: "/bin/sh", Args: []string{"-c", `echo '{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":{"token":"plugged"}}'`}}})
	cookie := enter(t, p)
	if _, body := ask(t, p, "GET", "/dash/", cookie); !strings.Contains(body, "Authorization: Bearer plugged") {
		t.Errorf("the API server gets %s", body)
	}
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", p.host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET /api/v1/namespaces/a/pods/b/exec?command=sh HTTP/1.1\r\nHost: %s\r\nOrigin: http://%[1]s\r\n%s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", p.host, cookie)
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if want := "/base/api/v1/namespaces/a/pods/b/exec?command=sh Bearer plugged " + b.URL; resp.Header.Get("X-Asked") != want {
		t.Errorf("%s: asked %q, want %q", resp.Status, resp.Header.Get("X-Asked"), want)
	}
	fmt.Fprintln(conn, "hello")
	if line, err := r.ReadString('\n'); line != "echo hello\n" {
		t.Errorf("the terminal says %q, %v", line, err)
	}
}

// TestStream reads the beginning of an answer that has no end, and leaves.
func TestStream(t *testing.T) {
	b := newBackend(t)
	p, _ := start(t, b)
	cookie := enter(t, p)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.host+"/dash/stream", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Cookie", strings.TrimPrefix(cookie, "Cookie: "))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if line, err := bufio.NewReader(resp.Body).ReadString('\n'); line != "first\n" {
		t.Errorf("the stream begins with %q, %v", line, err)
	}
	cancel()
	select {
	case <-b.gone:
	case <-time.After(harness.Patience):
		t.Error("the API server does not see that the browser has gone")
	}
	b.Server.Close()
	if resp, body := ask(t, p, "GET", "/dash/", cookie); resp.StatusCode != http.StatusBadGateway || !strings.Contains(body, "cannot be reached") {
		t.Errorf("without an API server: %d %s", resp.StatusCode, body)
	}
}

// TestPeer finds out whose a connection is.
func TestPeer(t *testing.T) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if uid, ok := peer(c); !ok || uid != os.Getuid() || !welcome(uid) {
		t.Errorf("the peer of an own connection is user %d, %v", uid, ok)
	}
	if welcome(os.Getuid() + 1) {
		t.Error("another user may connect")
	}
	table := `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     7        0 1 1
   1: 0100007F:9C40 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1001        0 2 1
   2: 0100007F:1F90 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     8        0 3 1
   3: 0000000000000000FFFF00000100007F:9C41 0000000000000000FFFF00000100007F:1F90 01 00000000:00000000 00:00000000 00000000  1002        0 2 1
   4: damaged
`
	file := filepath.Join(t.TempDir(), "tcp")
	if err := os.WriteFile(file, []byte(table), 0o600); err != nil {
		t.Fatal(err)
	}
	to := netip.MustParseAddrPort("127.0.0.1:8080")
	for port, want := range map[uint16]int{0x9c40: 1001, 0x9c41: 1002, 0x9c42: -1} {
		uid, ok := owner(file, netip.AddrPortFrom(to.Addr(), port), to)
		if !ok {
			uid = -1
		}
		if uid != want {
			t.Errorf("the owner of port %d is %d, want %d", port, uid, want)
		}
	}
}

// TestLoopback refuses to listen for others.
func TestLoopback(t *testing.T) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := New(Config{Listener: l, Client: &rest.Config{Host: "https://127.0.0.1:1"}}); err == nil || !strings.Contains(err.Error(), "not loopback") {
		t.Errorf("listening on all addresses: %v", err)
	}
}
