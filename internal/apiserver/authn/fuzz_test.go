package authn

import (
	"context"
	"testing"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	oidc "k8s.io/apiserver/plugin/pkg/authenticator/token/oidc"
)

// FuzzConfiguration reads authentication configurations: each is refused, or makes
// an authenticator that identifies no one.
func FuzzConfiguration(f *testing.F) {
	f.Add([]byte(`apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
anonymous: {enabled: true, conditions: [{path: /livez}]}
jwt:
- issuer: {url: 'https://127.0.0.1:1', audiences: [a]}
  claimValidationRules: [{expression: 'claims.hd == "example.com"', message: no}]
  claimMappings:
    username: {expression: '"u:" + claims.sub'}
    groups: {claim: roles, prefix: 'p:'}
    extra: [{key: example.com/tenant, valueExpression: claims.tenant}]
  userValidationRules: [{expression: "!user.username.startsWith('system:')"}]
`))
	f.Add([]byte("apiVersion: apiserver.config.k8s.io/v1beta1\nkind: AuthenticationConfiguration\njwt: [{}]\n"))
	f.Add([]byte(`{"kind":"AuthenticationConfiguration","apiVersion":"apiserver.config.k8s.io/v1alpha1"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, err := loadConfiguration(data)
		if err != nil {
			return
		}
		ctx, end := context.WithCancel(t.Context())
		defer end()
		c := &configured{audiences: authenticator.Audiences{"a"}}
		if err := c.apply(ctx, cfg, oidc.AllValidSigningAlgorithms()); err != nil {
			return
		}
		for _, token := range []string{"", "a.b.c", "eyJhbGciOiJub25lIn0.eyJpc3MiOiJodHRwczovLzEyNy4wLjAuMToxIiwic3ViIjoiYSIsImF1ZCI6ImEifQ."} {
			if _, ok, _ := c.AuthenticateToken(ctx, token); ok {
				t.Errorf("%q is someone's", token)
			}
		}
		c.allowsAnonymous("/livez")
	})
}
