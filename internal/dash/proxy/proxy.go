// Package proxy brings the page of keelson dash, and the API that it asks, to a browser on
// this machine with the credentials of a kubeconfig. It imports internal/dash/page only.
//
// What listens on loopback can be reached by every process of the machine, and by every
// page in every browser on it. So a request is passed on only if it comes from a process
// of the same user (checked where the kernel says so), is addressed to this host and port
// (else a name of another site may have been bound to 127.0.0.1), comes from no other
// origin, and has the cookie that was given for a token. The token is good once, since
// others may read it, in the browser's history for one.
package proxy

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	utilnet "k8s.io/apimachinery/pkg/util/net"
	machineryproxy "k8s.io/apimachinery/pkg/util/proxy"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"
	"k8s.io/streaming/pkg/httpstream"

	"keelson.dev/keelson/internal/dash/page"
)

// UserAgent is what the API server sees in place of the browser's: it names who wrote
// in managed fields and in the trace.
const UserAgent = "keelson-dash"

// Config configures a Proxy.
type Config struct {
	// Client has the API server and the credentials.
	Client *rest.Config
	// Listener accepts connections on loopback.
	Listener net.Listener
	// Renewed, if set, is called with the next URL when the one before has been used.
	Renewed func(url string)
}

// Proxy passes requests of a browser on to an API server.
type Proxy struct {
	Config
	host   string // of the listener, with its port
	hosts  []string
	cookie string // its name: cookies are shared by all ports of a host
	secret string // its value
	next   http.Handler
	server *http.Server
	info   request.RequestInfoFactory

	mu    sync.Mutex
	token string
}

// New makes a Proxy, which Serve runs.
func New(cfg Config) (*Proxy, error) {
	addr, ok := cfg.Listener.Addr().(*net.TCPAddr)
	if !ok || !addr.IP.IsLoopback() {
		return nil, fmt.Errorf("listening on %s, which is not loopback", cfg.Listener.Addr())
	}
	next, err := passOn(cfg.Client)
	if err != nil {
		return nil, err
	}
	port := strconv.Itoa(addr.Port)
	p := &Proxy{Config: cfg, host: addr.String(), hosts: []string{addr.String(), "localhost:" + port}, cookie: "keelson-dash-" + port,
		secret: rand.Text(), token: rand.Text(), next: next,
		info: request.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")}}
	p.server = &http.Server{Handler: p, ReadHeaderTimeout: 10 * time.Second}
	return p, nil
}

// URL returns the URL that opens the page, once.
func (p *Proxy) URL() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return "http://" + p.host + "/?token=" + p.token
}

// Serve serves until ctx is done.
func (p *Proxy) Serve(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { p.server.Close() })()
	err := p.server.Serve(ownOnly{p.Listener})
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	page.Harden(w.Header())
	if msg := p.foreign(r); msg != "" {
		http.Error(w, msg, http.StatusForbidden)
		return
	}
	if r.URL.Path == "/" {
		p.enter(w, r)
		return
	}
	if !p.known(r) {
		http.Error(w, "open the page with the URL that keelson dash prints", http.StatusUnauthorized)
		return
	}
	if msg := p.refused(r); msg != "" {
		http.Error(w, msg, http.StatusForbidden)
		return
	}
	p.next.ServeHTTP(guarded{w, r.URL.Path}, r)
}

// foreign returns what is wrong with where a request is addressed to or comes from; ""
// if nothing is.
func (p *Proxy) foreign(r *http.Request) string {
	ours := false
	for _, h := range p.hosts {
		ours = ours || r.Host == h
	}
	if !ours {
		return fmt.Sprintf("host %q is not this server, which is %s", r.Host, p.host)
	}
	origins := r.Header.Values("Origin")
	for _, o := range origins {
		if o != "http://"+r.Host {
			return fmt.Sprintf("origin %q may not use this server", o)
		}
	}
	switch site := r.Header.Get("Sec-Fetch-Site"); site {
	case "", "same-origin", "none":
	default:
		// Another page may lead here, but not be given anything.
		if r.URL.Path != "/" || r.Header.Get("Sec-Fetch-Mode") != "navigate" || r.Header.Get("Sec-Fetch-Dest") != "document" {
			return fmt.Sprintf("a request from another site (%s) may not use this server", site)
		}
	}
	safe := r.Method == http.MethodGet || r.Method == http.MethodHead
	if (!safe || httpstream.IsUpgradeRequest(r)) && len(origins) == 0 {
		return "a request that may change something must name its origin"
	}
	return ""
}

// known reports whether a request has the cookie.
func (p *Proxy) known(r *http.Request) bool {
	c, err := r.Cookie(p.cookie)
	return err == nil && subtle.ConstantTimeCompare([]byte(c.Value), []byte(p.secret)) == 1
}

// use reports whether a token is the one that was given out, which it is not again.
func (p *Proxy) use(token string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if subtle.ConstantTimeCompare([]byte(token), []byte(p.token)) != 1 {
		return false
	}
	p.token = rand.Text()
	return true
}

// enter exchanges a token for the cookie. The answer is a page that leads on to the
// other, and no redirect: a browser that was led here by another site or program would
// not send the cookie with what follows.
func (p *Proxy) enter(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		http.Error(w, "the page can only be read", http.StatusMethodNotAllowed)
		return
	}
	if !p.known(r) {
		if !p.use(r.URL.Query().Get("token")) {
			http.Error(w, "the token is wrong, or was used: open the page with the URL that keelson dash printed last", http.StatusUnauthorized)
			return
		}
		http.SetCookie(w, &http.Cookie{Name: p.cookie, Value: p.secret, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode})
		if p.Renewed != nil {
			p.Renewed(p.URL())
		}
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	_, _ = fmt.Fprintf(w, `<!doctype html><meta charset="utf-8"><title>keelson dash</title><meta http-equiv="refresh" content="0;url=%s"><p><a href="%[1]s">keelson dash</a>`, page.Prefix)
}

// refused returns why a request of the page is not passed on; "" if it is. What pods,
// services and nodes answer must not come from the origin of the page, whose scripts have
// the user's rights.
func (p *Proxy) refused(r *http.Request) string {
	if rest, ok := strings.CutPrefix(r.URL.Path, "/at/"); ok { // of a moment of the past
		_, path, _ := strings.Cut(rest, "/")
		r = &http.Request{Method: r.Method, URL: &url.URL{Path: "/" + path, RawQuery: r.URL.RawQuery}, Header: r.Header}
	}
	i, err := p.info.NewRequestInfo(r)
	if err != nil {
		return err.Error()
	}
	if i.Verb == "proxy" || i.Subresource == "proxy" {
		return "the page does not show what pods, services and nodes serve: use keelson kubectl port-forward"
	}
	return ""
}

// guarded is the writer of an answer. An answer that is not the page's is nothing that a
// browser would run or show.
type guarded struct {
	http.ResponseWriter
	path string
}

// WriteHeader implements http.ResponseWriter.
func (g guarded) WriteHeader(code int) {
	h := g.Header()
	page.Harden(h)
	h.Del("Set-Cookie")
	h.Del("Access-Control-Allow-Origin")
	if !strings.HasPrefix(g.path, page.Prefix) {
		h.Set("Content-Security-Policy", "default-src 'none'; sandbox; frame-ancestors 'none'")
	}
	g.ResponseWriter.WriteHeader(code)
}

// Unwrap is for http.ResponseController.
func (g guarded) Unwrap() http.ResponseWriter { return g.ResponseWriter }

// Hijack implements http.Hijacker.
func (g guarded) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return http.NewResponseController(g.ResponseWriter).Hijack()
}

// Flush implements http.Flusher.
func (g guarded) Flush() { _ = http.NewResponseController(g.ResponseWriter).Flush() }

// passOn returns a handler that passes requests on with the credentials of cfg.
func passOn(cfg *rest.Config) (http.Handler, error) {
	target, _, err := rest.DefaultServerUrlFor(cfg)
	if err != nil {
		return nil, err
	}
	if target.Path == "" {
		target.Path = "/" // else the handler redirects to paths with a slash at their end
	}
	rt, err := rest.TransportFor(cfg)
	if err != nil {
		return nil, err
	}
	tc, err := cfg.TransportConfig()
	if err != nil {
		return nil, err
	}
	secure, err := transport.TLSConfigFor(tc)
	if err != nil {
		return nil, err
	}
	headers, err := transport.HTTPWrappersForConfig(tc, machineryproxy.MirrorRequest)
	if err != nil {
		return nil, err
	}
	// Connections that are upgraded are no HTTP/2.
	plain := &http.Transport{TLSClientConfig: secure, TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{}, Proxy: cfg.Proxy}
	if cfg.Dial != nil {
		plain.DialContext = cfg.Dial
	}
	up := machineryproxy.NewUpgradeAwareHandler(target, rt, false, false, responder{})
	up.UpgradeTransport = machineryproxy.NewUpgradeRequestRoundTripper(utilnet.SetOldTransportDefaults(plain), headers)
	up.UseRequestLocation = true
	up.UseLocationHost = true
	up.AppendLocationPath = true
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = r.Clone(r.Context())
		strip(r.Header, target)
		up.ServeHTTP(w, r)
	}), nil
}

// strip removes from a request what is for the proxy, or what would change who its user
// is.
func strip(h http.Header, target *url.URL) {
	for name := range h {
		if strings.HasPrefix(name, "Impersonate-") || strings.HasPrefix(name, "X-Remote-") || strings.HasPrefix(name, "Sec-Fetch-") {
			h.Del(name)
		}
	}
	for _, name := range []string{"Authorization", "Cookie", "Referer", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Uri"} {
		h.Del(name)
	}
	if h.Get("Origin") != "" {
		h.Set("Origin", (&url.URL{Scheme: target.Scheme, Host: target.Host}).String())
	}
	h.Set("User-Agent", UserAgent)
}

// responder answers where the API server cannot be reached.
type responder struct{}

// Error implements machineryproxy.ErrorResponder.
func (responder) Error(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		return // the browser has gone
	}
	http.Error(w, "the API server cannot be reached: "+err.Error(), http.StatusBadGateway)
}
