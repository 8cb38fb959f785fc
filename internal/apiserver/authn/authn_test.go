package authn

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	clocktesting "k8s.io/utils/clock/testing"

	"keelson.dev/keelson/test/harness"
)

func write(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func start(t *testing.T, c Config) *Authenticator {
	t.Helper()
	c.Audiences = []string{"api"}
	a, err := New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func bearing(token string) *http.Request {
	r := httptest.NewRequest("GET", "/api", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	return r
}

// whose returns the name and groups that the request is found to be of, or the error.
func whose(a authenticator.Request, r *http.Request) string {
	resp, ok, err := a.AuthenticateRequest(r)
	switch {
	case err != nil:
		return "error: " + err.Error()
	case !ok:
		return "nobody"
	}
	return resp.User.GetName() + " " + strings.Join(resp.User.GetGroups(), ",")
}

// issuer is an OpenID provider.
type issuer struct {
	*httptest.Server
	mu   sync.Mutex
	keys map[string]any // by id
}

func newIssuer(t *testing.T) *issuer {
	i := &issuer{keys: map[string]any{}}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q,"id_token_signing_alg_values_supported":["RS256","ES256"]}`, i.URL, i.URL+"/keys")
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		i.mu.Lock()
		defer i.mu.Unlock()
		var set jose.JSONWebKeySet
		for id, k := range i.keys {
			set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.(interface{ Public() any }).Public(), KeyID: id, Use: "sig"})
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(set)
	})
	i.Server = httptest.NewTLSServer(mux)
	t.Cleanup(i.Close)
	return i
}

type rsaKey struct{ *rsa.PrivateKey }

func (k rsaKey) Public() any { return k.PrivateKey.Public() }

type ecdsaKey struct{ *ecdsa.PrivateKey }

func (k ecdsaKey) Public() any { return k.PrivateKey.Public() }

func (i *issuer) ca() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.Certificate().Raw}))
}

// rotate signs with a new key from now on, and forgets the others.
func (i *issuer) rotate(t *testing.T, id string, elliptical bool) {
	t.Helper()
	var k any
	if elliptical {
		p, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		k = ecdsaKey{p}
	} else {
		p, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		k = rsaKey{p}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = map[string]any{id: k}
}

func (i *issuer) sign(t *testing.T, claims map[string]any) string {
	t.Helper()
	i.mu.Lock()
	defer i.mu.Unlock()
	for id, k := range i.keys {
		key := jose.SigningKey{}
		switch k := k.(type) {
		case rsaKey:
			key = jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: k.PrivateKey, KeyID: id}}
		case ecdsaKey:
			key = jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: k.PrivateKey, KeyID: id}}
		}
		s, err := jose.NewSigner(key, nil)
		if err != nil {
			t.Fatal(err)
		}
		all := map[string]any{"iss": i.URL, "aud": "keelson", "sub": "jane", "exp": time.Now().Add(time.Hour).Unix()}
		for name, v := range claims {
			all[name] = v
		}
		token, err := jwt.Signed(s).Claims(all).Serialize()
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	return ""
}

// soon asks until the answer is the wanted one: keys are fetched in the background.
func soon(t *testing.T, a authenticator.Request, token, want string) {
	t.Helper()
	harness.Succeeds(t, "the token of "+want, func() error {
		if got := whose(a, bearing(token)); got != want {
			return fmt.Errorf("got %q, want %q", got, want)
		}
		return nil
	})
}

func TestIDTokens(t *testing.T) {
	i := newIssuer(t)
	i.rotate(t, "one", false)
	a := start(t, Config{Selection: Selection{OIDC: OIDC{IssuerURL: i.URL, ClientID: "keelson", CAFile: write(t, "ca.pem", []byte(i.ca())),
		UsernameClaim: "sub", GroupsClaim: "teams", GroupsPrefix: "oidc:", RequiredClaims: map[string]string{"hd": "example.com"}, SigningAlgs: []string{"RS256"}}}})
	good := map[string]any{"teams": []string{"a", "b"}, "hd": "example.com"}
	soon(t, a, i.sign(t, good), i.URL+"#jane oidc:a,oidc:b,system:authenticated")
	for name, claims := range map[string]map[string]any{
		"expired":        {"hd": "example.com", "exp": time.Now().Add(-time.Minute).Unix()},
		"wrong audience": {"hd": "example.com", "aud": "others"},
		"missing claim":  {},
		"wrong issuer":   {"hd": "example.com", "iss": "https://example.com"},
	} {
		if got := whose(a, bearing(i.sign(t, claims))); !strings.HasPrefix(got, "error: ") {
			t.Errorf("%s: %s", name, got)
		}
	}
	if got := whose(a, bearing("nonsense")); got != "error: invalid bearer token" {
		t.Error(got)
	}
}

func TestAuthenticationConfiguration(t *testing.T) {
	i := newIssuer(t)
	i.rotate(t, "one", true)
	config := func(prefix string) []byte {
		c := map[string]any{"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration",
			"anonymous": map[string]any{"enabled": true, "conditions": []any{map[string]any{"path": "/healthz"}}},
			"jwt": []any{map[string]any{
				"issuer":               map[string]any{"url": i.URL, "audiences": []string{"keelson", "other"}, "audienceMatchPolicy": "MatchAny", "certificateAuthority": i.ca()},
				"claimValidationRules": []any{map[string]any{"expression": "claims.hd == 'example.com'", "message": "only example.com"}},
				"claimMappings": map[string]any{
					"username": map[string]any{"expression": "'" + prefix + "' + claims.sub"},
					"groups":   map[string]any{"expression": "claims.teams"},
					"extra":    []any{map[string]any{"key": "example.com/tenant", "valueExpression": "claims.tenant"}},
				},
				"userValidationRules": []any{map[string]any{"expression": "!user.username.startsWith('system:')", "message": "no system users"}},
			}}}
		b, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	path := write(t, "authentication.json", config("x:"))
	a := start(t, Config{Selection: Selection{ConfigFile: path}})
	claims := map[string]any{"aud": "other", "hd": "example.com", "teams": []string{"a", "b"}, "tenant": "t1"}
	token := i.sign(t, claims)
	soon(t, a, token, "x:jane a,b,system:authenticated")
	resp, _, err := a.AuthenticateRequest(bearing(token))
	if err != nil || !slices.Equal(resp.User.GetExtra()["example.com/tenant"], []string{"t1"}) {
		t.Errorf("extra: %+v, %v", resp, err)
	}
	if got := whose(a, bearing(i.sign(t, map[string]any{"hd": "example.org", "teams": []string{"a"}, "tenant": "t"}))); !strings.Contains(got, "only example.com") {
		t.Error(got)
	}
	for path, want := range map[string]string{"/healthz": "system:anonymous system:unauthenticated", "/api": "nobody"} {
		if got := whose(a, httptest.NewRequest("GET", path, nil)); got != want {
			t.Errorf("%s: %s", path, got)
		}
	}
	t.Run("Rotation", func(t *testing.T) {
		i.rotate(t, "two", false)
		claims["tenant"] = "t2"
		soon(t, a, i.sign(t, claims), "x:jane a,b,system:authenticated")
	})
	t.Run("Reload", func(t *testing.T) {
		if err := os.WriteFile(path, []byte(`{"kind":"nothing"}`), 0o600); err != nil {
			t.Fatal(err)
		}
		claims["tenant"] = "t3"
		soon(t, a, i.sign(t, claims), "x:jane a,b,system:authenticated")
		if err := os.WriteFile(path, config("y:"), 0o600); err != nil {
			t.Fatal(err)
		}
		harness.Eventually(t, "the changed configuration to count", func() bool {
			claims["jti"] = time.Now().String() // not a token that has been checked
			return whose(a, bearing(i.sign(t, claims))) == "y:jane a,b,system:authenticated"
		})
	})
}

func TestSelectionErrors(t *testing.T) {
	for want, s := range map[string]Selection{
		"mutually exclusive":                   {ConfigFile: "a", OIDC: OIDC{IssuerURL: "https://a", ClientID: "b"}},
		"must be specified together":           {OIDC: OIDC{IssuerURL: "https://a"}},
		"URL scheme must be https":             {OIDC: OIDC{IssuerURL: "http://a", ClientID: "b", UsernameClaim: "sub"}},
		"--requestheader-username-headers":     {RequestHeader: RequestHeader{ClientCAFile: "a"}},
		"there are v1 and v1beta1":             {WebhookVersion: "v2"},
		"--token-auth-file":                    {TokenFile: "/nonexistent"},
		"expected AuthenticationConfiguration": {ConfigFile: write(t, "c", []byte(`{"apiVersion":"apiserver.config.k8s.io/v1","kind":"AuthorizationConfiguration","authorizers":[]}`))},
		"anonymous-auth flag cannot be set":    {AnonymousSet: true, ConfigFile: write(t, "c", []byte(`{"apiVersion":"apiserver.config.k8s.io/v1","kind":"AuthenticationConfiguration","anonymous":{"enabled":false}}`))},
	} {
		if _, err := New(t.Context(), Config{Selection: s}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// authority issues certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key}
}

func (a *authority) client(t *testing.T, name string) *tls.ConnectionState {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name, Organization: []string{"clients"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

func TestProxies(t *testing.T) {
	clients, proxies, strangers := newAuthority(t), newAuthority(t), newAuthority(t)
	file := write(t, "ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: proxies.cert.Raw}))
	own := start(t, Config{ClientCA: clients.pool(), ProxyCA: proxies.pool(), ProxyNames: []string{"front"}})
	given := start(t, Config{ClientCA: clients.pool(), Selection: Selection{RequestHeader: RequestHeader{ClientCAFile: file, UsernameHeaders: []string{"X-User"}, GroupHeaders: []string{"X-Group"}}}})
	for _, c := range []struct {
		a      authenticator.Request
		tls    *tls.ConnectionState
		header string
		want   string
	}{
		{own, proxies.client(t, "front"), "X-Remote-User", "jane a,b,system:authenticated"},
		{own, proxies.client(t, "other"), "X-Remote-User", "error: "},
		{own, strangers.client(t, "front"), "X-Remote-User", "error: "},
		{own, clients.client(t, "front"), "X-Remote-User", "front clients,system:authenticated"},
		{own, nil, "X-Remote-User", "system:anonymous system:unauthenticated"},
		{given, proxies.client(t, "anyone"), "X-User", "jane system:authenticated"},
		{given, proxies.client(t, "anyone"), "X-Remote-User", "error: "},
	} {
		r := httptest.NewRequest("GET", "/api", nil)
		r.TLS = c.tls
		r.Header.Set(c.header, "jane")
		r.Header["X-Remote-Group"] = []string{"a", "b"}
		if got := whose(c.a, r); got != c.want && (c.want != "error: " || !strings.HasPrefix(got, c.want)) {
			t.Errorf("%s by %v: %q, want %q", c.header, c.tls != nil, got, c.want)
		}
	}
}

type stored map[string]*v1.Secret

func (s stored) Secret(_ context.Context, namespace, name string) (*v1.Secret, error) {
	if x := s[namespace+"/"+name]; x != nil {
		return x, nil
	}
	return nil, apierrors.NewNotFound(v1.Resource("secrets"), name)
}

func TestBootstrapTokens(t *testing.T) {
	clock := clocktesting.NewFakePassiveClock(time.Now())
	make := func(change func(map[string][]byte)) *v1.Secret {
		s := &v1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "bootstrap-token-abcdef"}, Type: "bootstrap.kubernetes.io/token", Data: map[string][]byte{
			"token-id": []byte("abcdef"), "token-secret": []byte("0123456789abcdef"), "usage-bootstrap-authentication": []byte("true"),
			"auth-extra-groups": []byte("system:bootstrappers:workers"), "expiration": []byte(clock.Now().Add(time.Minute).Format(time.RFC3339)),
		}}
		change(s.Data)
		return s
	}
	for name, c := range map[string]struct {
		token, want string
		change      func(map[string][]byte)
	}{
		"right":        {"abcdef.0123456789abcdef", "system:bootstrap:abcdef system:bootstrappers,system:bootstrappers:workers,system:authenticated", func(map[string][]byte) {}},
		"wrong secret": {"abcdef.0123456789abcdee", "error: invalid bearer token", func(map[string][]byte) {}},
		"absent":       {"abcdee.0123456789abcdef", "error: invalid bearer token", func(map[string][]byte) {}},
		"expired":      {"abcdef.0123456789abcdef", "error: invalid bearer token", func(d map[string][]byte) { d["expiration"] = []byte(clock.Now().Format(time.RFC3339)) }},
		"other usage":  {"abcdef.0123456789abcdef", "error: invalid bearer token", func(d map[string][]byte) { delete(d, "usage-bootstrap-authentication") }},
		"bad groups":   {"abcdef.0123456789abcdef", "error: bootstrap token", func(d map[string][]byte) { d["auth-extra-groups"] = []byte("system:masters") }},
	} {
		a := start(t, Config{Clock: clock, Selection: Selection{Bootstrap: true}, Secrets: stored{"kube-system/bootstrap-token-abcdef": make(c.change)}})
		if got := whose(a, bearing(c.token)); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestTokenFileAndWebhook(t *testing.T) {
	asked := 0
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		var review authenticationv1.TokenReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			t.Error(err)
		}
		if review.Spec.Token == "of-the-hook" {
			review.Status = authenticationv1.TokenReviewStatus{Authenticated: true, User: authenticationv1.UserInfo{Username: "hooked", Groups: []string{"g"}}, Audiences: review.Spec.Audiences}
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(review)
	}))
	t.Cleanup(hook.Close)
	kubeconfig, err := clientcmd.Write(clientcmdapi.Config{CurrentContext: "c", Clusters: map[string]*clientcmdapi.Cluster{"c": {Server: hook.URL}},
		Contexts: map[string]*clientcmdapi.Context{"c": {Cluster: "c", AuthInfo: "u"}}, AuthInfos: map[string]*clientcmdapi.AuthInfo{"u": {}}})
	if err != nil {
		t.Fatal(err)
	}
	a := start(t, Config{Audiences: []string{"api"}, Selection: Selection{TokenFile: write(t, "tokens.csv", []byte("of-the-file,filed,u1,\"a,b\"\n")),
		WebhookConfigFile: write(t, "kubeconfig", kubeconfig), WebhookVersion: "v1", WebhookTTL: time.Minute, NoAnonymous: true}})
	for token, want := range map[string]string{
		"of-the-file": "filed a,b,system:authenticated",
		"of-the-hook": "hooked g,system:authenticated",
		"of-nobody":   "error: invalid bearer token",
	} {
		for range 2 {
			if got := whose(a, bearing(token)); got != want {
				t.Errorf("%s: %q, want %q", token, got, want)
			}
		}
	}
	if asked != 2 {
		t.Errorf("the webhook was asked %d times", asked)
	}
	if got := whose(a, httptest.NewRequest("GET", "/api", nil)); got != "nobody" {
		t.Errorf("without credentials: %s", got)
	}
	r := httptest.NewRequest("GET", "/api", nil)
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "websocket")
	r.Header.Set("Sec-Websocket-Protocol", "base64url.bearer.authorization.k8s.io.b2YtdGhlLWZpbGU, v5.channel.k8s.io")
	if got := whose(a, r); got != "filed a,b,system:authenticated" {
		t.Errorf("by WebSocket: %s", got)
	}
	// An audience that is not the API server's is for the webhook alone to know.
	ctx := authenticator.WithAudiences(t.Context(), authenticator.Audiences{"elsewhere"})
	if _, ok, _ := a.AuthenticateToken(ctx, "of-the-file"); ok {
		t.Error("a static token is for another audience")
	}
	if resp, ok, err := a.AuthenticateToken(ctx, "of-the-hook"); !ok || err != nil || !slices.Equal(resp.Audiences, []string{"elsewhere"}) {
		t.Errorf("%+v %v %v", resp, ok, err)
	}
}
