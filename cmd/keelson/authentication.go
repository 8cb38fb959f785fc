package main

import (
	"time"

	"github.com/spf13/cobra"
)

// addAuthentication adds upstream's flags of authentication.
func (f *serverFlags) addAuthentication(c *cobra.Command) {
	a, flags := &f.authentication, c.Flags()
	h := &a.RequestHeader
	flags.StringVar(&h.ClientCAFile, "requestheader-client-ca-file", "", "certificates of the authority whose clients may name the user of a request in headers (default: this cluster's own front proxies)")
	flags.StringSliceVar(&h.AllowedNames, "requestheader-allowed-names", nil, "common names of the client certificates of those; empty allows every name")
	flags.StringSliceVar(&h.UsernameHeaders, "requestheader-username-headers", nil, "headers that may have the user's name; X-Remote-User is common")
	flags.StringSliceVar(&h.UIDHeaders, "requestheader-uid-headers", nil, "headers that may have the user's UID; X-Remote-Uid is common")
	flags.StringSliceVar(&h.GroupHeaders, "requestheader-group-headers", nil, "headers that have the user's groups; X-Remote-Group is common")
	flags.StringSliceVar(&h.ExtraPrefixes, "requestheader-extra-headers-prefix", nil, "prefixes of the headers that have more of the user; X-Remote-Extra- is common")
	flags.StringVar(&a.TokenFile, "token-auth-file", "", "file with static bearer tokens: lines of token,user,uid,\"group1,group2\"")
	flags.BoolVar(&a.Bootstrap, "enable-bootstrap-token-auth", false, "take the tokens in secrets of type bootstrap.kubernetes.io/token in kube-system")
	flags.StringVar(&a.WebhookConfigFile, "authentication-token-webhook-config-file", "", "kubeconfig of the webhook that tells whose a bearer token is")
	flags.StringVar(&a.WebhookVersion, "authentication-token-webhook-version", "v1beta1", "version of the TokenReview that the webhook is sent: v1 or v1beta1")
	flags.DurationVar(&a.WebhookTTL, "authentication-token-webhook-cache-ttl", 2*time.Minute, "how long the webhook's answers are kept")
	flags.StringVar(&a.ConfigFile, "authentication-config", "", "file with an AuthenticationConfiguration: issuers of ID tokens, and who may be anonymous; it is read again when it changes. Not with --oidc-*")
	flags.BoolVar(&f.anonymous, "anonymous-auth", true, "take requests without credentials as those of system:anonymous, in the group system:unauthenticated")
	o := &a.OIDC
	flags.StringVar(&o.IssuerURL, "oidc-issuer-url", "", "URL of an OpenID issuer, https only, whose ID tokens are taken")
	flags.StringVar(&o.ClientID, "oidc-client-id", "", "client ID that the ID tokens have to be for")
	flags.StringVar(&o.CAFile, "oidc-ca-file", "", "certificates of the authority that has issued the OpenID issuer's certificate (default: the machine's)")
	flags.StringVar(&o.UsernameClaim, "oidc-username-claim", "sub", "claim that is the user's name")
	flags.StringVar(&o.UsernamePrefix, "oidc-username-prefix", "", "put before each user's name; - is nothing (default: the issuer's URL and #, unless the claim is email)")
	flags.StringVar(&o.GroupsClaim, "oidc-groups-claim", "", "claim that is the user's groups, a string or a list of strings")
	flags.StringVar(&o.GroupsPrefix, "oidc-groups-prefix", "", "put before each group's name")
	flags.StringToStringVar(&o.RequiredClaims, "oidc-required-claim", nil, "claim=value that an ID token has to have; may be given several times")
	flags.StringSliceVar(&o.SigningAlgs, "oidc-signing-algs", []string{"RS256"}, "algorithms that an ID token may be signed with")
}
