package authn

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/request/headerrequest"
	"k8s.io/apiserver/pkg/authentication/request/websocket"
	"k8s.io/apiserver/pkg/authentication/token/union"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/reload"
)

// Reviewer checks bearer tokens.
type Reviewer interface {
	Review(ctx context.Context, token string, audiences []string) (u user.Info, matched []string, ok bool, err error)
}

// Config configures an Authenticator.
type Config struct {
	Selection
	// ClientCA verifies client certificates.
	ClientCA *x509.CertPool
	// ProxyCA verifies the certificates of proxies, which are named ProxyNames,
	// unless the selection configures them.
	ProxyCA    *x509.CertPool
	ProxyNames []string
	// Tokens checks service accounts' tokens, which are for Audiences.
	Tokens    Reviewer
	Audiences []string
	// Secrets has the bootstrap tokens.
	Secrets Secrets
	Clock   clock.PassiveClock
}

// Authenticator identifies the user of a request.
type Authenticator struct {
	Config
	proxy   authenticator.Request // nil if there are no proxies
	socket  authenticator.Request // tokens of WebSockets
	token   authenticator.Token
	issuers *configured // nil if there are none
	// clientCA verifies client certificates: Config's, and that of ClientCAFile.
	clientCA  atomic.Pointer[x509.CertPool]
	audiences authenticator.Audiences
	usernames []string // headers

	mu     sync.RWMutex
	certs  map[[32]byte]verified
	tokens map[[32]byte]verified
}

// New makes an authenticator, which works until ctx is done. A request with
// wrong credentials is refused; one without any is anonymous.
func New(ctx context.Context, c Config) (*Authenticator, error) {
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	a := &Authenticator{Config: c, audiences: c.Audiences, usernames: c.RequestHeader.orOwn(nil).UsernameHeaders, certs: map[[32]byte]verified{}, tokens: map[[32]byte]verified{}}
	a.clientCA.Store(c.ClientCA)
	if c.ClientCAFile != "" {
		if err := reload.File(ctx, c.ClientCAFile, a.addClientCA); err != nil {
			return nil, fmt.Errorf("--client-ca-file: %w", err)
		}
	}
	var err error
	if a.proxy, err = c.RequestHeader.proxy(c.ProxyCA, c.ProxyNames, c.Clock); err != nil {
		return nil, err
	}
	others, issuers, err := c.Selection.tokens(ctx, c.Audiences, c.Secrets, c.Clock)
	if err != nil {
		return nil, err
	}
	a.issuers = issuers
	a.token = union.New(append([]authenticator.Token{serviceAccounts{c.Tokens}}, others...)...)
	a.socket = websocket.NewProtocolAuthenticator(authenticator.TokenFunc(a.bearer))
	return a, nil
}

// addClientCA takes the authorities in pem, and no longer those that were there
// before it changed.
func (a *Authenticator) addClientCA(pem []byte) error {
	pool := x509.NewCertPool()
	if a.ClientCA != nil {
		pool = a.ClientCA.Clone()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return fmt.Errorf("%s has no certificate in PEM", a.ClientCAFile)
	}
	a.clientCA.Store(pool)
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.certs)
	return nil
}

// serviceAccounts takes service accounts' tokens.
type serviceAccounts struct{ Reviewer }

// AuthenticateToken implements authenticator.Token.
func (s serviceAccounts) AuthenticateToken(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	if s.Reviewer == nil {
		return nil, false, nil
	}
	audiences, _ := authenticator.AudiencesFrom(ctx)
	u, matched, ok, err := s.Review(ctx, token, audiences)
	if err != nil || !ok {
		return nil, false, err
	}
	return &authenticator.Response{User: u, Audiences: matched}, true, nil
}

// AuthenticateToken implements authenticator.Token: it checks a token for the
// audiences in ctx, or the API server's own where there are none.
func (a *Authenticator) AuthenticateToken(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	if _, ok := authenticator.AudiencesFrom(ctx); !ok {
		ctx = authenticator.WithAudiences(ctx, a.audiences)
	}
	resp, ok, err := a.token.AuthenticateToken(ctx, token)
	if !ok || err != nil {
		return nil, false, err
	}
	u := resp.User
	return &authenticator.Response{Audiences: resp.Audiences, User: &user.DefaultInfo{Name: u.GetName(), UID: u.GetUID(), Groups: authenticated(u), Extra: u.GetExtra()}}, true, nil
}

// verified is the user that a credential belongs to, and how long that result
// is kept.
type verified struct {
	user  user.Info
	until time.Time
}

const (
	// tokenLife is how long a token that was checked is taken without a new
	// check, upstream's.
	tokenLife = 10 * time.Second
	certLife  = 5 * time.Minute
	// cacheSize bounds each cache; a full one starts anew.
	cacheSize = 4096
)

func (a *Authenticator) cached(m map[[32]byte]verified, k [32]byte) user.Info {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if v, ok := m[k]; ok && a.Clock.Now().Before(v.until) {
		return v.user
	}
	return nil
}

func (a *Authenticator) keep(m map[[32]byte]verified, k [32]byte, u user.Info, life time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(m) >= cacheSize {
		clear(m)
	}
	m[k] = verified{u, a.Clock.Now().Add(life)}
}

// AuthenticateRequest implements authenticator.Request. One right credential is
// enough; a wrong one is refused where there is no right one.
func (a *Authenticator) AuthenticateRequest(req *http.Request) (*authenticator.Response, bool, error) {
	resp, ok, err := a.authenticate(req)
	if ok && a.proxy != nil {
		// The headers by which a proxy names its user are not passed on, and are
		// ignored from any other client.
		type list = headerrequest.StaticStringSlice
		h := a.RequestHeader.orOwn(nil)
		headerrequest.ClearAuthenticationHeaders(req.Header, list(h.UsernameHeaders), list(h.UIDHeaders), list(h.GroupHeaders), list(h.ExtraPrefixes))
	}
	return resp, ok, err
}

func (a *Authenticator) authenticate(req *http.Request) (*authenticator.Response, bool, error) {
	var errs []error
	if a.proxy != nil && req.TLS != nil && len(req.TLS.PeerCertificates) > 0 && a.named(req) {
		resp, ok, err := a.proxy.AuthenticateRequest(req)
		if ok {
			u := resp.User
			return &authenticator.Response{User: &user.DefaultInfo{Name: u.GetName(), UID: u.GetUID(), Groups: authenticated(u), Extra: u.GetExtra()}}, true, nil
		}
		errs = append(errs, err)
	}
	if req.TLS != nil && len(req.TLS.PeerCertificates) > 0 && a.clientCA.Load() != nil {
		u, err := a.certificate(req.TLS.PeerCertificates)
		if err == nil {
			return &authenticator.Response{User: u}, true, nil
		}
		errs = append(errs, err)
	}
	if h := strings.TrimSpace(req.Header.Get("Authorization")); h != "" {
		scheme, token, _ := strings.Cut(h, " ")
		if token = strings.TrimSpace(token); strings.EqualFold(scheme, "bearer") && token != "" {
			resp, ok, err := a.bearer(req.Context(), token)
			if ok && err == nil {
				return resp, true, nil
			}
			errs = append(errs, err, errInvalid)
		}
	}
	if req.Header.Get("Sec-Websocket-Protocol") != "" {
		resp, ok, err := a.socket.AuthenticateRequest(req)
		if ok && err == nil {
			return resp, true, nil
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, false, err
	}
	if !a.anonymous(req.URL.Path) {
		return nil, false, nil
	}
	return &authenticator.Response{User: anonymous}, true, nil
}

var errInvalid = errors.New("invalid bearer token")

// named reports whether the request has a header that names its user.
func (a *Authenticator) named(req *http.Request) bool {
	return slices.ContainsFunc(a.usernames, func(h string) bool { return req.Header.Get(h) != "" })
}

// anonymous reports whether path may be asked for without credentials.
func (a *Authenticator) anonymous(path string) bool {
	if a.issuers != nil {
		if decided, allowed := a.issuers.allowsAnonymous(path); decided {
			return allowed
		}
	}
	return !a.NoAnonymous
}

// authenticated returns the user's groups and system:authenticated.
func authenticated(u user.Info) []string {
	if slices.Contains(u.GetGroups(), user.AllAuthenticated) {
		return u.GetGroups()
	}
	return append(slices.Clone(u.GetGroups()), user.AllAuthenticated)
}

var anonymous = &user.DefaultInfo{Name: user.Anonymous, Groups: []string{user.AllUnauthenticated}}

func (a *Authenticator) certificate(chain []*x509.Certificate) (user.Info, error) {
	key := sha256.Sum256(chain[0].Raw)
	if u := a.cached(a.certs, key); u != nil {
		return u, nil
	}
	opts := x509.VerifyOptions{Roots: a.clientCA.Load(), Intermediates: x509.NewCertPool(), CurrentTime: a.Clock.Now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	for _, c := range chain[1:] {
		opts.Intermediates.AddCert(c)
	}
	if _, err := chain[0].Verify(opts); err != nil {
		return nil, err
	}
	s := chain[0].Subject
	if s.CommonName == "" {
		return nil, errors.New("the client certificate has no common name")
	}
	u := &user.DefaultInfo{Name: s.CommonName, Groups: append(append([]string{}, s.Organization...), user.AllAuthenticated)}
	a.keep(a.certs, key, u, min(certLife, chain[0].NotAfter.Sub(opts.CurrentTime)))
	return u, nil
}

// bearer is AuthenticateToken for the API server itself, with a cache of its
// results.
func (a *Authenticator) bearer(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	key := sha256.Sum256([]byte(token))
	if u := a.cached(a.tokens, key); u != nil {
		return &authenticator.Response{User: u}, true, nil
	}
	resp, ok, err := a.AuthenticateToken(ctx, token)
	if !ok || err != nil {
		return nil, false, err
	}
	a.keep(a.tokens, key, resp.User, tokenLife)
	return resp, true, nil
}
