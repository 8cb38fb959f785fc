package token

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"
	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	signer "k8s.io/externaljwt/apis/v1"
	testingclock "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
)

// signing is an external signer.
type signing struct {
	signer.UnimplementedExternalJWTSignerServer
	mu      sync.Mutex
	private *ecdsa.PrivateKey
	kid     string
	header  string // in place of the right one
	keys    []*signer.Key
	maxLife int64
	fetched int
}

func (s *signing) Metadata(context.Context, *signer.MetadataRequest) (*signer.MetadataResponse, error) {
	return &signer.MetadataResponse{MaxTokenExpirationSeconds: s.maxLife}, nil
}

func (s *signing) FetchKeys(context.Context, *signer.FetchKeysRequest) (*signer.FetchKeysResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fetched++
	return &signer.FetchKeysResponse{Keys: s.keys, DataTimestamp: timestamppb.Now(), RefreshHintSeconds: 600}, nil
}

func (s *signing) Sign(_ context.Context, r *signer.SignJWTRequest) (*signer.SignJWTResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	header := s.header
	if header == "" {
		header = fmt.Sprintf(`{"alg":"ES256","kid":%q,"typ":"JWT"}`, s.kid)
	}
	h := base64.RawURLEncoding.EncodeToString([]byte(header))
	sum := sha256.Sum256([]byte(h + "." + r.Claims))
	x, y, err := ecdsa.Sign(rand.Reader, s.private, sum[:])
	if err != nil {
		return nil, err
	}
	signature := append(x.FillBytes(make([]byte, 32)), y.FillBytes(make([]byte, 32))...)
	return &signer.SignJWTResponse{Header: h, Signature: base64.RawURLEncoding.EncodeToString(signature)}, nil
}

// add makes a key, the one to sign with from now on.
func (s *signing) add(t *testing.T, kid string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.private, s.kid = k, kid
	s.keys = append(s.keys, publicOf(t, kid, k.Public()))
}

func publicOf(t *testing.T, kid string, k crypto.PublicKey) *signer.Key {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return &signer.Key{KeyId: kid, Key: der}
}

func (s *signing) serve(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	signer.RegisterExternalJWTSignerServer(g, s)
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	return path
}

func TestExternalSigner(t *testing.T) {
	s := &signing{maxLife: 86400}
	s.add(t, "first")
	old, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	hidden := publicOf(t, "hidden", old.Public())
	hidden.ExcludeFromOidcDiscovery = true
	s.keys = append(s.keys, hidden)
	clk := testingclock.NewFakeClock(time.Now())
	o := &objects{sa: &v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "sa", UID: "1"}}}
	a, err := New(nil, Selection{SigningEndpoint: s.serve(t)}, o, clk)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.external.conn.Close() })
	request := func(seconds int64) (string, error) {
		tr := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: a.Audiences(), ExpirationSeconds: ptr.To(seconds)}}
		err := a.Request(t.Context(), o.sa, tr)
		return tr.Status.Token, err
	}
	token, err := request(3600)
	if err != nil {
		t.Fatal(err)
	}
	if u, _, ok, err := a.Review(t.Context(), token, nil); err != nil || !ok || u.GetName() != "system:serviceaccount:ns:sa" || u.GetUID() != "1" {
		t.Errorf("%v, %v, %v", u, ok, err)
	}
	// No token lives longer than the signer lets it.
	long, err := request(2 * 86400)
	if err != nil {
		t.Fatal(err)
	}
	payload, _ := base64.RawURLEncoding.DecodeString(strings.Split(long, ".")[1])
	var times struct{ Exp, Iat int64 }
	if err := json.Unmarshal(payload, &times); err != nil || times.Exp-times.Iat != 86400 {
		t.Errorf("a token lives %d s: %s", times.Exp-times.Iat, payload)
	}
	// A new key is asked for when it is met, but not more than once a second.
	s.add(t, "second")
	clk.Step(time.Minute)
	next, err := request(3600)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, ok, err := a.Review(t.Context(), next, nil); !ok || err != nil {
		t.Errorf("of the new key: %v, %v", ok, err)
	}
	before := s.fetched
	for i := range 5 {
		forged := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"alg":"ES256","kid":"k%d"}`, i)) + next[strings.Index(next, "."):]
		if _, _, ok, err := a.Review(t.Context(), forged, nil); ok || err == nil {
			t.Errorf("forged: %v, %v", ok, err)
		}
	}
	if s.fetched > before+1 {
		t.Errorf("the keys were asked for %d times because of keys that do not exist", s.fetched-before)
	}
	// The documents have the keys that sign, and no others.
	pages, err := a.Discovery(func() string { return "https://a" })
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	pages[KeysPath].ServeHTTP(w, httptest.NewRequest("GET", KeysPath, nil))
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(w.Body.Bytes(), &set); err != nil || len(set.Keys) != 2 || set.Keys[0].KeyID != "first" || set.Keys[1].KeyID != "second" || w.Header().Get("Cache-Control") != "public, max-age=600" {
		t.Errorf("%s %s (%v)", w.Body, w.Header(), err)
	}
	// What the signer may not answer.
	for header, want := range map[string]string{
		`{"alg":"ES256","kid":"second","typ":"JWT","jku":"x"}`: `unknown field "jku"`,
		`{"alg":"ES256","kid":"second","typ":"at+jwt"}`:        `typ "at+jwt": want "JWT"`,
		`{"alg":"ES256","typ":"JWT"}`:                          `a kid of 0 bytes`,
		`{"alg":"none","kid":"second","typ":"JWT"}`:            `alg "none"`,
		`{"alg":"RS256","kid":"hidden","typ":"JWT"}`:           `(kid: hidden) is excluded from OIDC discovery docs`,
		`{"alg":"ES256","kid":"unknown","typ":"JWT"}`:          `"unknown"`,
		`{"alg":"ES256","kid":"first","typ":"JWT"}`:            `the signature is not of the key "first"`,
	} {
		s.header = header
		if _, err := request(3600); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", header, err, want)
		}
	}
	if _, err := a.Legacy(o.sa, &v1.Secret{}); err == nil {
		t.Error("a token of a secret was signed")
	}
}

func TestExternalSignerRefused(t *testing.T) {
	good := func(t *testing.T) *signing {
		s := &signing{maxLife: 3600}
		s.add(t, "k")
		return s
	}
	for name, c := range map[string]struct {
		change func(t *testing.T, s *signing, sel *Selection)
		want   string
	}{
		"short":    {func(_ *testing.T, s *signing, _ *Selection) { s.maxLife = 599 }, "max token life supported by external-jwt-signer (599s) should be at least 600s"},
		"flag":     {func(_ *testing.T, _ *signing, sel *Selection) { sel.MaxExpiration = 2 * time.Hour }, "service-account-max-token-expiration cannot be set longer"},
		"key ID":   {func(_ *testing.T, s *signing, _ *Selection) { s.keys[0].KeyId = "" }, "key ID of 0 bytes"},
		"key":      {func(_ *testing.T, s *signing, _ *Selection) { s.keys[0].Key = []byte("x") }, `key "k"`},
		"key file": {func(_ *testing.T, _ *signing, sel *Selection) { sel.KeyFiles = []string{"x"} }, "simultaneously"},
	} {
		s := good(t)
		sel := Selection{}
		c.change(t, s, &sel)
		sel.SigningEndpoint = s.serve(t)
		if _, err := New(nil, sel, &objects{}, testingclock.NewFakeClock(time.Now())); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}
