package authz

import (
	"errors"
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/load"
	apiservervalidation "k8s.io/apiserver/pkg/apis/apiserver/validation"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	authorizationcel "k8s.io/apiserver/pkg/authorization/cel"
	"k8s.io/apiserver/pkg/authorization/union"
	utilwebhook "k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/apiserver/plugin/pkg/authorizer/webhook"
	"k8s.io/apiserver/plugin/pkg/authorizer/webhook/metrics"
	"k8s.io/client-go/rest"

	"keelson.dev/keelson/internal/apiserver/answer"
)

// The authorizers that there are, as flags and configuration files name them.
const (
	ModeNode        = "Node"
	ModeRBAC        = "RBAC"
	ModeWebhook     = "Webhook"
	ModeAlwaysAllow = "AlwaysAllow"
	ModeAlwaysDeny  = "AlwaysDeny"
)

// DefaultModes are asked when nothing else is said.
var DefaultModes = []string{ModeNode, ModeRBAC}

var modes = sets.New(ModeNode, ModeRBAC, ModeWebhook, ModeAlwaysAllow, ModeAlwaysDeny)

// Selection names the authorizers that are asked, in their order. The zero
// value stands for DefaultModes.
type Selection struct {
	// Modes are the authorizers' types.
	Modes []string
	// ConfigFile is an AuthorizationConfiguration of apiserver.config.k8s.io,
	// in place of all the rest.
	ConfigFile string
	// WebhookConfigFile is the kubeconfig of the webhook.
	WebhookConfigFile string
	// WebhookVersion of the SubjectAccessReview that the webhook is sent.
	WebhookVersion string
	// AuthorizedTTL and UnauthorizedTTL are how long its answers are kept.
	AuthorizedTTL, UnauthorizedTTL time.Duration
}

// configuration returns the selection as a file would say it.
func (s *Selection) configuration(compiler authorizationcel.Compiler) (*apiserver.AuthorizationConfiguration, error) {
	if s.ConfigFile == "" {
		return s.fromFlags()
	}
	if len(s.Modes) > 0 || s.WebhookConfigFile != "" {
		return nil, errors.New("--authorization-config can not be specified when --authorization-mode or --authorization-webhook-* flags are defined")
	}
	c, err := load.LoadFromFile(s.ConfigFile)
	if err != nil {
		return nil, fmt.Errorf("--authorization-config: %w", err)
	}
	errs := apiservervalidation.ValidateAuthorizationConfiguration(compiler, field.NewPath(""), c, modes, sets.New(ModeWebhook))
	if len(errs) > 0 {
		return nil, fmt.Errorf("--authorization-config %s: %w", s.ConfigFile, errs.ToAggregate())
	}
	return c, nil
}

func (s *Selection) fromFlags() (*apiserver.AuthorizationConfiguration, error) {
	list := s.Modes
	if len(list) == 0 {
		list = DefaultModes
	}
	c, seen := &apiserver.AuthorizationConfiguration{}, sets.New[string]()
	for _, mode := range list {
		switch {
		case !modes.Has(mode):
			return nil, fmt.Errorf("authorization-mode %q is not a valid mode: there are %v", mode, sets.List(modes))
		case seen.Has(mode):
			return nil, fmt.Errorf("authorization-mode %q has mode specified more than once", mode)
		case mode == ModeWebhook && s.WebhookConfigFile == "":
			return nil, errors.New("authorization-mode Webhook's authorization config file not passed: give it with --authorization-webhook-config-file")
		}
		seen.Insert(mode)
		a := apiserver.AuthorizerConfiguration{Type: apiserver.AuthorizerType(mode), Name: strings.ToLower(mode)}
		if mode == ModeWebhook {
			a.Webhook = &apiserver.WebhookConfiguration{AuthorizedTTL: metav1.Duration{Duration: s.AuthorizedTTL}, UnauthorizedTTL: metav1.Duration{Duration: s.UnauthorizedTTL},
				CacheAuthorizedRequests: true, CacheUnauthorizedRequests: true,
				Timeout: metav1.Duration{Duration: 30 * time.Second}, FailurePolicy: apiserver.FailurePolicyNoOpinion, SubjectAccessReviewVersion: s.WebhookVersion,
				ConnectionInfo: apiserver.WebhookConnectionInfo{Type: apiserver.AuthorizationWebhookConnectionInfoTypeKubeConfigFile, KubeConfigFile: &s.WebhookConfigFile}}
		}
		c.Authorizers = append(c.Authorizers, a)
	}
	if s.WebhookConfigFile != "" && !seen.Has(ModeWebhook) {
		return nil, errors.New("cannot specify --authorization-webhook-config-file without mode Webhook")
	}
	return c, nil
}

// Authorizers are asked one after another, until one decides.
type Authorizers struct {
	authorizer.Authorizer
	authorizer.RuleResolver
}

// New makes the selected authorizers. Members of system:masters are allowed
// everything whichever there are. own is how the API server reaches itself,
// for webhooks in the cluster.
func New(s Selection, node *Node, rbac *RBAC, own *rest.Config) (*Authorizers, error) {
	// The compiler is slow to make, and most configurations have no conditions.
	var compiler authorizationcel.Compiler
	if s.ConfigFile != "" {
		compiler = authorizationcel.NewDefaultCompiler()
	}
	c, err := s.configuration(compiler)
	if err != nil {
		return nil, err
	}
	list := []union.NamedAuthorizer{{AuthorizerName: "system:masters", Authorizer: authorizerfactory.NewPrivilegedGroups("system:masters")}}
	var resolvers []authorizer.RuleResolver
	for _, a := range c.Authorizers {
		var made resolving
		switch string(a.Type) {
		case ModeNode:
			made = ofNow{node}
		case ModeRBAC:
			made = rbac
		case ModeAlwaysAllow:
			made = authorizerfactory.NewAlwaysAllowAuthorizer()
		case ModeAlwaysDeny:
			made = authorizerfactory.NewAlwaysDenyAuthorizer()
		case ModeWebhook:
			w, err := newWebhook(&a, own, compiler)
			if err != nil {
				return nil, err
			}
			made = ofNow{w}
		}
		list = append(list, union.NamedAuthorizer{AuthorizerName: a.Name, Authorizer: made})
		resolvers = append(resolvers, made)
	}
	u, err := union.New(list...)
	if err != nil {
		return nil, err
	}
	return &Authorizers{u, union.NewRuleResolvers(resolvers...)}, nil
}

func newWebhook(a *apiserver.AuthorizerConfiguration, own *rest.Config, compiler authorizationcel.Compiler) (*webhook.WebhookAuthorizer, error) {
	w := a.Webhook
	config := own
	if w.ConnectionInfo.Type == apiserver.AuthorizationWebhookConnectionInfoTypeKubeConfigFile {
		var err error
		if config, err = utilwebhook.LoadKubeconfig(*w.ConnectionInfo.KubeConfigFile, nil); err != nil {
			return nil, fmt.Errorf("authorization webhook %s: %w", a.Name, err)
		}
	}
	config = answer.Config(config)
	config.Timeout = w.Timeout.Duration
	onError := authorizer.DecisionNoOpinion
	if w.FailurePolicy == apiserver.FailurePolicyDeny {
		onError = authorizer.DecisionDeny
	}
	authorized, unauthorized := w.AuthorizedTTL.Duration, w.UnauthorizedTTL.Duration
	if !w.CacheAuthorizedRequests {
		authorized = 0
	}
	if !w.CacheUnauthorizedRequests {
		unauthorized = 0
	}
	if compiler == nil && len(w.MatchConditions) > 0 {
		compiler = authorizationcel.NewDefaultCompiler()
	}
	retry := wait.Backoff{Duration: 500 * time.Millisecond, Factor: 1.5, Jitter: 0.2, Steps: 5}
	made, err := webhook.New(config, w.SubjectAccessReviewVersion, authorized, unauthorized, retry, onError, w.MatchConditions, a.Name, metrics.NoopAuthorizerMetrics{}, compiler)
	if err != nil {
		return nil, fmt.Errorf("authorization webhook %s: %w", a.Name, err)
	}
	return made, nil
}
