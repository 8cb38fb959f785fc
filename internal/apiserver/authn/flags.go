package authn

import (
	"strconv"
	"time"

	"github.com/spf13/pflag"
)

// AddFlags adds upstream's flags of authentication.
func (s *Selection) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&s.ClientCAFile, "client-ca-file", "", "certificates of authorities whose client certificates are accepted besides the cluster's own; the file is read again when it changes")
	h := &s.RequestHeader
	fs.StringVar(&h.ClientCAFile, "requestheader-client-ca-file", "", "certificates of the authority whose clients may name the user of a request in headers (default: this cluster's own front proxies)")
	fs.StringSliceVar(&h.AllowedNames, "requestheader-allowed-names", nil, "common names of the client certificates of those; empty allows every name")
	fs.StringSliceVar(&h.UsernameHeaders, "requestheader-username-headers", nil, "headers that may have the user's name; X-Remote-User is common")
	fs.StringSliceVar(&h.UIDHeaders, "requestheader-uid-headers", nil, "headers that may have the user's UID; X-Remote-Uid is common")
	fs.StringSliceVar(&h.GroupHeaders, "requestheader-group-headers", nil, "headers that have the user's groups; X-Remote-Group is common")
	fs.StringSliceVar(&h.ExtraPrefixes, "requestheader-extra-headers-prefix", nil, "prefixes of the headers that have more of the user; X-Remote-Extra- is common")
	fs.StringVar(&s.TokenFile, "token-auth-file", "", "file with static bearer tokens: lines of token,user,uid,\"group1,group2\"")
	fs.BoolVar(&s.Bootstrap, "enable-bootstrap-token-auth", s.Bootstrap, "take the tokens in secrets of type bootstrap.kubernetes.io/token in kube-system")
	fs.StringVar(&s.WebhookConfigFile, "authentication-token-webhook-config-file", "", "kubeconfig of the webhook that authenticates bearer tokens")
	fs.StringVar(&s.WebhookVersion, "authentication-token-webhook-version", "v1beta1", "version of the TokenReview that the webhook is sent: v1 or v1beta1")
	fs.DurationVar(&s.WebhookTTL, "authentication-token-webhook-cache-ttl", 2*time.Minute, "how long the webhook's answers are kept")
	fs.StringVar(&s.ConfigFile, "authentication-config", "", "file with an AuthenticationConfiguration: issuers of ID tokens, and who may be anonymous; it is read again when it changes. Not with --oidc-*")
	fs.VarPF(anonymousAuth{s}, "anonymous-auth", "", "take requests without credentials as those of system:anonymous, in the group system:unauthenticated").NoOptDefVal = "true"
	o := &s.OIDC
	fs.StringVar(&o.IssuerURL, "oidc-issuer-url", "", "URL of an OpenID issuer, https only, whose ID tokens are accepted")
	fs.StringVar(&o.ClientID, "oidc-client-id", "", "client ID that the ID tokens have to be for")
	fs.StringVar(&o.CAFile, "oidc-ca-file", "", "certificates of the authority that has issued the OpenID issuer's certificate (default: the machine's)")
	fs.StringVar(&o.UsernameClaim, "oidc-username-claim", "sub", "claim that is the user's name")
	fs.StringVar(&o.UsernamePrefix, "oidc-username-prefix", "", "put before each user's name; - is nothing (default: the issuer's URL and #, unless the claim is email)")
	fs.StringVar(&o.GroupsClaim, "oidc-groups-claim", "", "claim that is the user's groups, a string or a list of strings")
	fs.StringVar(&o.GroupsPrefix, "oidc-groups-prefix", "", "put before each group's name")
	fs.StringToStringVar(&o.RequiredClaims, "oidc-required-claim", nil, "claim=value that an ID token has to have; may be given several times")
	fs.StringSliceVar(&o.SigningAlgs, "oidc-signing-algs", []string{"RS256"}, "algorithms that an ID token may be signed with")
}

// anonymousAuth is --anonymous-auth.
type anonymousAuth struct{ *Selection }

// Set implements pflag.Value.
func (a anonymousAuth) Set(s string) error {
	v, err := strconv.ParseBool(s)
	a.NoAnonymous, a.AnonymousSet = !v, true
	return err
}

// String implements pflag.Value.
func (a anonymousAuth) String() string { return strconv.FormatBool(!a.NoAnonymous) }

// Type implements pflag.Value.
func (a anonymousAuth) Type() string { return "bool" }
