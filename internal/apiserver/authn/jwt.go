package authn

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apiserver/pkg/apis/apiserver"
	apiserverinstall "k8s.io/apiserver/pkg/apis/apiserver/install"
	apiservervalidation "k8s.io/apiserver/pkg/apis/apiserver/validation"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	authenticationcel "k8s.io/apiserver/pkg/authentication/cel"
	"k8s.io/apiserver/pkg/authentication/token/union"
	"k8s.io/apiserver/plugin/pkg/authenticator/token/oidc"
	certutil "k8s.io/client-go/util/cert"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/apiserver/answer"
	"keelson.dev/keelson/internal/reload"
)

// OIDC is one issuer of ID tokens, as upstream's --oidc-* flags say it.
type OIDC struct {
	IssuerURL, ClientID, CAFile   string
	UsernameClaim, UsernamePrefix string
	GroupsClaim, GroupsPrefix     string
	RequiredClaims                map[string]string
	SigningAlgs                   []string
}

// configured authenticates by the present AuthenticationConfiguration.
type configured struct {
	audiences []string
	state     atomic.Pointer[configuration]
}

type configuration struct {
	tokens    authenticator.Token
	anonymous *apiserver.AnonymousAuthConfig
	end       context.CancelFunc
}

// AuthenticateToken implements authenticator.Token.
func (c *configured) AuthenticateToken(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	return c.state.Load().tokens.AuthenticateToken(ctx, token)
}

// issuers makes the authenticator of ID tokens; nil if none are taken. A
// configuration file is read again when it changes.
func (s *Selection) issuers(ctx context.Context, audiences []string) (*configured, error) {
	c := &configured{audiences: audiences}
	switch {
	case s.ConfigFile != "":
		apply := func(data []byte) error {
			cfg, err := loadConfiguration(data)
			if err == nil && cfg.Anonymous != nil && s.AnonymousSet {
				err = errors.New("--anonymous-auth flag cannot be set when anonymous field is configured in authentication configuration file")
			}
			if err == nil {
				err = c.apply(ctx, cfg, oidc.AllValidSigningAlgorithms())
			}
			if err != nil {
				return fmt.Errorf("--authentication-config %s: %w", s.ConfigFile, err)
			}
			return nil
		}
		return c, reload.File(ctx, s.ConfigFile, apply)
	case s.OIDC.IssuerURL != "":
		cfg, err := s.OIDC.configuration()
		if err != nil {
			return nil, err
		}
		if err := c.apply(ctx, cfg, s.OIDC.SigningAlgs); err != nil {
			return nil, fmt.Errorf("--oidc-*: %w", err)
		}
		return c, nil
	}
	return nil, nil
}

func loadConfiguration(data []byte) (*apiserver.AuthenticationConfiguration, error) {
	scheme := runtime.NewScheme()
	apiserverinstall.Install(scheme)
	obj, err := runtime.Decode(serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDecoder(), data)
	if err != nil {
		return nil, err
	}
	cfg, ok := obj.(*apiserver.AuthenticationConfiguration)
	if !ok {
		return nil, fmt.Errorf("expected AuthenticationConfiguration, got %T", obj)
	}
	return cfg, nil
}

// apply puts cfg in place of what there was, if it can be.
func (c *configured) apply(ctx context.Context, cfg *apiserver.AuthenticationConfiguration, algorithms []string) error {
	compiler := authenticationcel.NewDefaultCompiler()
	if errs := apiservervalidation.ValidateAuthenticationConfiguration(compiler, cfg, nil); len(errs) > 0 {
		return errs.ToAggregate()
	}
	ctx, end := context.WithCancel(ctx)
	var issuers []authenticator.Token
	for _, j := range cfg.JWT {
		o := oidc.Options{JWTAuthenticator: j, SupportedSigningAlgs: algorithms, Compiler: compiler}
		if j.Issuer.EgressSelectorType == "" { // else the library reports a missing one
			client, err := issuerClient(j.Issuer.CertificateAuthority)
			if err != nil {
				end()
				return err
			}
			o.Client = client
		}
		a, err := oidc.New(ctx, o)
		if err != nil {
			end()
			return err
		}
		issuers = append(issuers, a)
	}
	was := c.state.Swap(&configuration{tokens: union.New(issuers...), anonymous: cfg.Anonymous, end: end})
	if was != nil {
		// Requests that are being authenticated may still need the keys.
		time.AfterFunc(time.Minute, was.end)
	}
	return nil
}

// issuerClient asks an issuer for its keys, whose certificate is of the authorities
// in ca, in PEM, or where that is empty of those that the machine trusts.
func issuerClient(ca string) (*http.Client, error) {
	trusted := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		var err error
		if trusted.RootCAs, err = certutil.NewPoolFromBytes([]byte(ca)); err != nil {
			return nil, fmt.Errorf("failed to read the CA contents: %w", err)
		}
	}
	rt := utilnet.SetTransportDefaults(&http.Transport{TLSClientConfig: trusted})
	return &http.Client{Transport: answer.Bounded(rt, answer.MaxBytes), Timeout: 30 * time.Second}, nil
}

func (o *OIDC) configuration() (*apiserver.AuthenticationConfiguration, error) {
	j := apiserver.JWTAuthenticator{Issuer: apiserver.Issuer{URL: o.IssuerURL, Audiences: []string{o.ClientID}}}
	if o.CAFile != "" {
		ca, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("--oidc-ca-file: %w", err)
		}
		j.Issuer.CertificateAuthority = string(ca)
	}
	prefix := o.UsernamePrefix
	switch {
	case prefix == "-":
		prefix = ""
	case prefix == "" && o.UsernameClaim != "email":
		prefix = o.IssuerURL + "#"
	}
	j.ClaimMappings.Username = apiserver.PrefixedClaimOrExpression{Claim: o.UsernameClaim, Prefix: ptr.To(prefix)}
	if o.GroupsClaim != "" {
		j.ClaimMappings.Groups = apiserver.PrefixedClaimOrExpression{Claim: o.GroupsClaim, Prefix: ptr.To(o.GroupsPrefix)}
	}
	for claim, value := range o.RequiredClaims {
		j.ClaimValidationRules = append(j.ClaimValidationRules, apiserver.ClaimValidationRule{Claim: claim, RequiredValue: value})
	}
	return &apiserver.AuthenticationConfiguration{JWT: []apiserver.JWTAuthenticator{j}}, nil
}

// allowsAnonymous reports whether a request without credentials may come to path.
func (c *configured) allowsAnonymous(path string) (decided, allowed bool) {
	a := c.state.Load().anonymous
	if a == nil {
		return false, false
	}
	if !a.Enabled || len(a.Conditions) == 0 {
		return true, a.Enabled
	}
	for _, condition := range a.Conditions {
		if condition.Path == path {
			return true, true
		}
	}
	return true, false
}
