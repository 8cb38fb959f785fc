package token

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	testingclock "k8s.io/utils/clock/testing"
)

// TestDiscoveryFollows checks that the place of the keys is where the API server is now, unless
// one is given.
func TestDiscoveryFollows(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for uri, want := range map[string][]string{
		"":                             {"https://192.0.2.1:6443/openid/v1/jwks", "https://192.0.2.2:6443/openid/v1/jwks"},
		"https://keys.test/given/jwks": {"https://keys.test/given/jwks", "https://keys.test/given/jwks"},
	} {
		a, err := New(key, Selection{JWKSURI: uri}, &objects{}, testingclock.NewFakeClock(time.Now()))
		if err != nil {
			t.Fatal(err)
		}
		base := ""
		pages, err := a.Discovery(func() string { return base })
		if err != nil {
			t.Fatal(err)
		}
		for i, now := range []string{"https://192.0.2.1:6443", "https://192.0.2.2:6443"} {
			base = now
			w := httptest.NewRecorder()
			pages[ConfigurationPath].ServeHTTP(w, httptest.NewRequest("GET", ConfigurationPath, nil))
			if !strings.Contains(w.Body.String(), `"jwks_uri":"`+want[i]+`"`) {
				t.Errorf("at %s, with the place %q: %s, want %s", now, uri, w.Body, want[i])
			}
		}
	}
}
