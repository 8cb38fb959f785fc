package authz

import (
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// AddFlags adds upstream's flags of authorization.
func (s *Selection) AddFlags(fs *pflag.FlagSet) {
	fs.StringSliceVar(&s.Modes, "authorization-mode", nil, "authorizers to ask, in this order: Node, RBAC, Webhook, AlwaysAllow, AlwaysDeny (default: "+strings.Join(DefaultModes, ",")+")")
	fs.StringVar(&s.ConfigFile, "authorization-config", "", "file with an AuthorizationConfiguration, in place of the other authorization flags")
	fs.StringVar(&s.WebhookConfigFile, "authorization-webhook-config-file", "", "kubeconfig of the authorization webhook")
	fs.StringVar(&s.WebhookVersion, "authorization-webhook-version", "v1", "version of the SubjectAccessReview that the webhook is sent")
	fs.DurationVar(&s.AuthorizedTTL, "authorization-webhook-cache-authorized-ttl", 5*time.Minute, "how long the webhook's 'authorized' answers are kept")
	fs.DurationVar(&s.UnauthorizedTTL, "authorization-webhook-cache-unauthorized-ttl", 30*time.Second, "how long the webhook's 'unauthorized' answers are kept")
}
