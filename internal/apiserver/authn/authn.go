package authn

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/utils/clock"
)

// Reviewer checks bearer tokens.
type Reviewer interface {
	Review(ctx context.Context, token string, audiences []string) (u user.Info, matched []string, ok bool, err error)
}

// Config is what is accepted.
type Config struct {
	// ClientCA verifies client certificates.
	ClientCA *x509.CertPool
	Tokens   Reviewer
	Clock    clock.PassiveClock
}

// New makes an authenticator. A request with wrong credentials is refused; one
// without any is anonymous.
func New(c Config) authenticator.Request {
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	return &requests{Config: c, certs: map[[32]byte]verified{}, tokens: map[[32]byte]verified{}}
}

// verified is who a credential has been found to be of, until when.
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

type requests struct {
	Config
	mu     sync.RWMutex
	certs  map[[32]byte]verified
	tokens map[[32]byte]verified
}

func (a *requests) cached(m map[[32]byte]verified, k [32]byte) user.Info {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if v, ok := m[k]; ok && a.Clock.Now().Before(v.until) {
		return v.user
	}
	return nil
}

func (a *requests) keep(m map[[32]byte]verified, k [32]byte, u user.Info, life time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(m) >= cacheSize {
		clear(m)
	}
	m[k] = verified{u, a.Clock.Now().Add(life)}
}

// AuthenticateRequest implements authenticator.Request.
func (a *requests) AuthenticateRequest(req *http.Request) (*authenticator.Response, bool, error) {
	if req.TLS != nil && len(req.TLS.PeerCertificates) > 0 && a.ClientCA != nil {
		u, err := a.certificate(req.TLS.PeerCertificates)
		if err == nil {
			return &authenticator.Response{User: u}, true, nil
		}
		if req.Header.Get("Authorization") == "" {
			return nil, false, err
		}
	}
	if h := strings.TrimSpace(req.Header.Get("Authorization")); h != "" {
		scheme, token, _ := strings.Cut(h, " ")
		token = strings.TrimSpace(token)
		if !strings.EqualFold(scheme, "bearer") || token == "" {
			return nil, false, errors.New("invalid bearer token")
		}
		u, err := a.bearer(req.Context(), token)
		if err != nil {
			return nil, false, err
		}
		return &authenticator.Response{User: u}, true, nil
	}
	return &authenticator.Response{User: anonymous}, true, nil
}

var anonymous = &user.DefaultInfo{Name: user.Anonymous, Groups: []string{user.AllUnauthenticated}}

func (a *requests) certificate(chain []*x509.Certificate) (user.Info, error) {
	key := sha256.Sum256(chain[0].Raw)
	if u := a.cached(a.certs, key); u != nil {
		return u, nil
	}
	opts := x509.VerifyOptions{Roots: a.ClientCA, Intermediates: x509.NewCertPool(), CurrentTime: a.Clock.Now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
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
	a.keep(a.certs, key, u, certLife)
	return u, nil
}

func (a *requests) bearer(ctx context.Context, token string) (user.Info, error) {
	key := sha256.Sum256([]byte(token))
	if u := a.cached(a.tokens, key); u != nil {
		return u, nil
	}
	if a.Tokens == nil {
		return nil, errors.New("invalid bearer token")
	}
	info, _, ok, err := a.Tokens.Review(ctx, token, nil)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, errors.New("invalid bearer token")
	}
	u := &user.DefaultInfo{Name: info.GetName(), UID: info.GetUID(), Groups: append(append([]string{}, info.GetGroups()...), user.AllAuthenticated), Extra: info.GetExtra()}
	a.keep(a.tokens, key, u, tokenLife)
	return u, nil
}
