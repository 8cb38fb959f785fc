package authn

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/request/headerrequest"
	tokencache "k8s.io/apiserver/pkg/authentication/token/cache"
	"k8s.io/apiserver/pkg/authentication/token/tokenfile"
	webhookutil "k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/apiserver/plugin/pkg/authenticator/token/webhook"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/apiserver/answer"
)

// Selection configures the credentials that are accepted besides client
// certificates and service accounts' tokens, as upstream's flags do.
type Selection struct {
	// ClientCAFile has certificates of authorities whose client certificates are
	// taken besides those of the cluster's own; it is read again when it changes.
	ClientCAFile  string
	RequestHeader RequestHeader
	// TokenFile has static tokens: lines of token, user, uid, "group,group".
	TokenFile string
	// Bootstrap takes the tokens in secrets of type bootstrap.kubernetes.io/token.
	Bootstrap bool
	// WebhookConfigFile is the kubeconfig of the webhook, which is sent TokenReviews
	// of WebhookVersion. Its answers are kept for WebhookTTL.
	WebhookConfigFile, WebhookVersion string
	WebhookTTL                        time.Duration
	// ConfigFile is an AuthenticationConfiguration of apiserver.config.k8s.io; OIDC
	// is one issuer of tokens, in its place.
	ConfigFile string
	OIDC       OIDC
	// NoAnonymous refuses requests without credentials.
	NoAnonymous bool
	// AnonymousSet reports whether Anonymous was set, and is not left to
	// ConfigFile.
	AnonymousSet bool
}

// RequestHeader configures the proxies that may name the user of a request in
// headers.
type RequestHeader struct {
	ClientCAFile    string
	AllowedNames    []string
	UsernameHeaders []string
	UIDHeaders      []string
	GroupHeaders    []string
	ExtraPrefixes   []string
}

// Validate returns an error for settings that do not go together.
func (s *Selection) Validate() error {
	var errs []error
	if h := s.RequestHeader; h.ClientCAFile != "" && len(h.UsernameHeaders) == 0 {
		errs = append(errs, errors.New("--requestheader-client-ca-file needs at least one --requestheader-username-headers, such as X-Remote-User"))
	}
	if s.ConfigFile != "" && s.OIDC.IssuerURL != "" {
		errs = append(errs, errors.New("authentication-config file and oidc-* flags are mutually exclusive"))
	}
	if s.OIDC.IssuerURL == "" && s.OIDC.ClientID != "" || s.OIDC.IssuerURL != "" && s.OIDC.ClientID == "" {
		errs = append(errs, errors.New("oidc-issuer-url and oidc-client-id must be specified together when any oidc-* flags are set"))
	}
	if v := s.WebhookVersion; v != "" && v != "v1" && v != "v1beta1" {
		errs = append(errs, fmt.Errorf("--authentication-token-webhook-version %q: there are v1 and v1beta1", v))
	}
	return errors.Join(errs...)
}

// orOwn returns h, or what stands for it where there is none: the cluster's own
// proxies, whose certificates ca has issued to names.
func (h RequestHeader) orOwn(names []string) RequestHeader {
	if h.ClientCAFile != "" {
		return h
	}
	return RequestHeader{AllowedNames: names, UsernameHeaders: []string{"X-Remote-User"}, UIDHeaders: []string{"X-Remote-Uid"},
		GroupHeaders: []string{"X-Remote-Group"}, ExtraPrefixes: []string{"X-Remote-Extra-"}}
}

// Published returns what kube-system/extension-apiserver-authentication tells
// aggregated API servers of the proxies. ownCA, in PEM, and ownNames are the
// cluster's own.
func (h RequestHeader) Published(ownCA []byte, ownNames []string) (map[string]string, error) {
	pem := ownCA
	if h.ClientCAFile != "" {
		var err error
		if pem, err = os.ReadFile(h.ClientCAFile); err != nil {
			return nil, fmt.Errorf("--requestheader-client-ca-file: %w", err)
		}
	}
	h = h.orOwn(ownNames)
	out := map[string]string{"requestheader-client-ca-file": string(pem)}
	for key, values := range map[string][]string{
		"allowed-names": h.AllowedNames, "extra-headers-prefix": h.ExtraPrefixes, "group-headers": h.GroupHeaders,
		"uid-headers": h.UIDHeaders, "username-headers": h.UsernameHeaders,
	} {
		if values == nil {
			values = []string{}
		}
		b, err := json.Marshal(values)
		if err != nil {
			return nil, err
		}
		out["requestheader-"+key] = string(b)
	}
	return out, nil
}

// proxy takes users from the headers of a request whose client certificate is
// one of the allowed proxies'.
func (h *RequestHeader) proxy(own *x509.CertPool, ownNames []string, c clock.PassiveClock) (authenticator.Request, error) {
	pool := own
	if h.ClientCAFile != "" {
		pem, err := os.ReadFile(h.ClientCAFile)
		if err != nil {
			return nil, fmt.Errorf("--requestheader-client-ca-file: %w", err)
		}
		if pool = x509.NewCertPool(); !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("--requestheader-client-ca-file %s has no certificate in PEM", h.ClientCAFile)
		}
	}
	if pool == nil {
		return nil, nil
	}
	o := h.orOwn(ownNames)
	verify := func() (x509.VerifyOptions, bool) {
		return x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, CurrentTime: c.Now()}, true
	}
	return headerrequest.NewDynamicVerifyOptionsSecure(verify, headerrequest.StaticStringSlice(o.AllowedNames), headerrequest.StaticStringSlice(o.UsernameHeaders),
		headerrequest.StaticStringSlice(o.UIDHeaders), headerrequest.StaticStringSlice(o.GroupHeaders), headerrequest.StaticStringSlice(o.ExtraPrefixes)), nil
}

// tokens makes the authenticators of tokens that are selected.
func (s *Selection) tokens(ctx context.Context, audiences []string, secrets Secrets, c clock.PassiveClock) ([]authenticator.Token, *configured, error) {
	var out []authenticator.Token
	if s.TokenFile != "" {
		f, err := tokenfile.NewCSV(s.TokenFile)
		if err != nil {
			return nil, nil, fmt.Errorf("--token-auth-file: %w", err)
		}
		out = append(out, authenticator.WrapAudienceAgnosticToken(audiences, f))
	}
	if s.Bootstrap {
		out = append(out, authenticator.WrapAudienceAgnosticToken(audiences, &bootstrap{secrets, c}))
	}
	issuers, err := s.issuers(ctx, audiences)
	if err != nil {
		return nil, nil, err
	}
	if issuers != nil {
		out = append(out, authenticator.WrapAudienceAgnosticToken(audiences, issuers))
	}
	if s.WebhookConfigFile != "" {
		cfg, err := webhookutil.LoadKubeconfig(s.WebhookConfigFile, nil)
		if err != nil {
			return nil, nil, fmt.Errorf("--authentication-token-webhook-config-file: %w", err)
		}
		w, err := webhook.New(answer.Config(cfg), s.WebhookVersion, audiences, wait.Backoff{Duration: 500 * time.Millisecond, Factor: 1.5, Jitter: 0.2, Steps: 5})
		if err != nil {
			return nil, nil, fmt.Errorf("--authentication-token-webhook-config-file: %w", err)
		}
		out = append(out, tokencache.New(w, false, s.WebhookTTL, s.WebhookTTL))
	}
	return out, issuers, nil
}
