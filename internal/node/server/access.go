package server

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/authenticatorfactory"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/apiserver/pkg/util/webhook"
	authorizerwebhook "k8s.io/apiserver/plugin/pkg/authorizer/webhook"
	"k8s.io/apiserver/plugin/pkg/authorizer/webhook/metrics"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
)

// Access authenticates and authorizes the requests to the server of a node.
type Access struct {
	// Node is the name of the node.
	Node string
	// Authenticator identifies the caller.
	Authenticator authenticator.Request
	// Authorizer decides whether the caller may do what the request asks for.
	Authorizer authorizer.Authorizer
}

// The kubelet's defaults: how long the API server's answers about tokens and
// permissions are kept.
const (
	tokenTTL        = 2 * time.Minute
	authorizedTTL   = 5 * time.Minute
	unauthorizedTTL = 30 * time.Second
	reviewTimeout   = 10 * time.Second
)

// NewAccess makes the access to node that a kubelet has in its webhook modes: callers
// prove themselves by a certificate of the authority in ca (PEM), or by a token, which a
// TokenReview confirms; SubjectAccessReviews authorize them. Both go to client.
// Anonymous requests are refused.
func NewAccess(node string, client kubernetes.Interface, ca []byte) (*Access, error) {
	authority, err := dynamiccertificates.NewStaticCAContent("client-ca", ca)
	if err != nil {
		return nil, fmt.Errorf("the authority of clients' certificates: %w", err)
	}
	retry := webhook.DefaultRetryBackoffWithInitialDelay(500 * time.Millisecond)
	authn, _, err := authenticatorfactory.DelegatingAuthenticatorConfig{
		TokenAccessReviewClient: client.AuthenticationV1(), TokenAccessReviewTimeout: reviewTimeout,
		WebhookRetryBackoff: &retry, CacheTTL: tokenTTL, ClientCertificateCAContentProvider: authority,
	}.New()
	if err != nil {
		return nil, err
	}
	authz, err := authorizerwebhook.NewFromInterface(client.AuthorizationV1(), authorizedTTL, unauthorizedTTL, retry,
		authorizer.DecisionNoOpinion, metrics.NoopAuthorizerMetrics{}, nil)
	if err != nil {
		return nil, err
	}
	return &Access{Node: node, Authenticator: authn, Authorizer: authz}, nil
}

// Guard lets those requests through to h that access allows.
func (a *Access) Guard(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, ok, err := a.Authenticator.AuthenticateRequest(r)
		if err != nil || !ok {
			if err != nil {
				klog.FromContext(r.Context()).Error(err, "Unable to authenticate the request due to an error")
			}
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		// The credential is this server's to see, and not that of what it calls.
		r.Header.Del("Authorization")
		asked := a.attributes(who.User, r)
		var subresources []string
		for _, attrs := range asked {
			decision, _, err := a.Authorizer.Authorize(r.Context(), attrs)
			if err != nil {
				klog.FromContext(r.Context()).Error(err, "Authorization error", "user", attrs.User.GetName(), "verb", attrs.Verb, "subresource", attrs.Subresource)
				http.Error(w, fmt.Sprintf("Authorization error (user=%s, verb=%s, resource=%s, subresource=%s)", attrs.User.GetName(), attrs.Verb, attrs.Resource, attrs.Subresource),
					http.StatusInternalServerError)
				return
			}
			if decision == authorizer.DecisionAllow {
				h.ServeHTTP(w, r)
				return
			}
			subresources = append(subresources, attrs.Subresource)
		}
		http.Error(w, fmt.Sprintf("Forbidden (user=%s, verb=%s, resource=%s, subresource(s)=%v)", who.User.GetName(), asked[0].Verb, asked[0].Resource, subresources), http.StatusForbidden)
	})
}

// verbs are the API's by HTTP's.
var verbs = map[string]string{http.MethodPost: "create", http.MethodGet: "get", http.MethodPut: "update", http.MethodPatch: "patch", http.MethodDelete: "delete"}

// fine are the subresources of a node that stand for parts of its server's API, by path.
// Where proxy is set, that of the whole server allows them as well (KEP-2862).
var fine = []struct {
	path, subresource string
	proxy             bool
}{
	{"/stats", "stats", false},
	{"/metrics", "metrics", false},
	{"/logs", "log", false},
	{"/checkpoint", "checkpoint", false},
	{"/pods", "pods", true},
	{"/runningpods", "pods", true},
	{"/healthz", "healthz", true},
	{"/configz", "configz", true},
}

// commanding are the paths by which something is run in a container, or reached. A
// WebSocket to them is a GET, which must not make of a right to read one to act.
var commanding = []string{"/exec", "/attach", "/portForward", "/run", "/cri"}

// attributes returns the accesses to a subresource of the node of which u has to be
// allowed one to make the request.
func (a *Access) attributes(u user.Info, r *http.Request) []authorizer.AttributesRecord {
	verb := verbs[r.Method]
	if verb == "get" && slices.ContainsFunc(commanding, func(p string) bool { return below(p, r.URL.Path) }) {
		verb = "create"
	}
	on := func(subresource string) authorizer.AttributesRecord {
		return authorizer.AttributesRecord{User: u, Verb: verb, APIVersion: "v1", Resource: "nodes", Subresource: subresource, Name: a.Node, ResourceRequest: true, Path: r.URL.Path}
	}
	for _, f := range fine {
		if !below(f.path, r.URL.Path) {
			continue
		}
		if f.proxy {
			return []authorizer.AttributesRecord{on(f.subresource), on("proxy")}
		}
		return []authorizer.AttributesRecord{on(f.subresource)}
	}
	return []authorizer.AttributesRecord{on("proxy")}
}

// below reports whether path is dir or in it.
func below(dir, path string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }
