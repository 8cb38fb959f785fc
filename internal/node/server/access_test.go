package server

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// TestAccess checks that each path of a node's server wants the permission that a kubelet
// wants for it.
func TestAccess(t *testing.T) {
	for _, c := range []struct {
		method, path string
		want         []string // any of them is enough
	}{
		{"GET", "/metrics", []string{"get metrics"}},
		{"GET", "/metrics/resource", []string{"get metrics"}},
		{"GET", "/metricsx", []string{"get proxy"}},
		{"GET", "/stats/summary", []string{"get stats"}},
		{"GET", "/logs/syslog", []string{"get log"}},
		{"POST", "/checkpoint/ns/pod/c", []string{"create checkpoint"}},
		{"GET", "/pods", []string{"get pods", "get proxy"}},
		{"GET", "/runningpods/", []string{"get pods", "get proxy"}},
		{"GET", "/healthz", []string{"get healthz", "get proxy"}},
		{"GET", "/healthz/syncloop", []string{"get healthz", "get proxy"}},
		{"GET", "/configz", []string{"get configz", "get proxy"}},
		{"GET", "/containerLogs/ns/pod/c", []string{"get proxy"}},
		{"POST", "/exec/ns/pod/c", []string{"create proxy"}},
		{"GET", "/exec/ns/pod/c", []string{"create proxy"}}, // a WebSocket
		{"GET", "/attach/ns/pod/c", []string{"create proxy"}},
		{"GET", "/portForward/ns/pod", []string{"create proxy"}},
		{"PUT", "/anything", []string{"update proxy"}},
		{"TRACE", "/anything", []string{" proxy"}},
	} {
		var asked []string
		authz := func(allow string) authorizer.Authorizer {
			return authorizer.AuthorizerFunc(func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
				if a.GetUser().GetName() != "jane" || a.GetResource() != "nodes" || a.GetName() != "n1" || !a.IsResourceRequest() || a.GetAPIGroup() != "" {
					t.Errorf("%s %s asks for %+v", c.method, c.path, a)
				}
				is := a.GetVerb() + " " + a.GetSubresource()
				asked = append(asked, is)
				if is == allow {
					return authorizer.DecisionAllow, "", nil
				}
				return authorizer.DecisionNoOpinion, "", nil
			})
		}
		call := func(a *Access) *http.Response {
			w := httptest.NewRecorder()
			r := httptest.NewRequest(c.method, c.path, nil)
			r.Header.Set("Authorization", "Bearer secret")
			a.Guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Authorization") != "" {
					t.Error("the handler got the caller's credential")
				}
			})).ServeHTTP(w, r)
			return w.Result()
		}
		jane := authenticator.RequestFunc(func(*http.Request) (*authenticator.Response, bool, error) {
			return &authenticator.Response{User: &user.DefaultInfo{Name: "jane"}}, true, nil
		})
		resp := call(&Access{Node: "n1", Authenticator: jane, Authorizer: authz("nothing")})
		if resp.StatusCode != http.StatusForbidden || !slices.Equal(asked, c.want) {
			t.Errorf("%s %s: %d, asks for %q, want %q", c.method, c.path, resp.StatusCode, asked, c.want)
		}
		for _, allow := range c.want {
			if resp := call(&Access{Node: "n1", Authenticator: jane, Authorizer: authz(allow)}); resp.StatusCode != http.StatusOK {
				t.Errorf("%s %s with %q: %d", c.method, c.path, allow, resp.StatusCode)
			}
		}
	}
}

// TestRefusals checks that callers whose identity or permission cannot be
// determined are refused.
func TestRefusals(t *testing.T) {
	jane := authenticator.RequestFunc(func(*http.Request) (*authenticator.Response, bool, error) {
		return &authenticator.Response{User: &user.DefaultInfo{Name: "jane"}}, true, nil
	})
	for _, c := range []struct {
		name  string
		authn authenticator.RequestFunc
		d     authorizer.Decision
		err   error
		code  int
		text  string
	}{
		{"no credential", func(*http.Request) (*authenticator.Response, bool, error) { return nil, false, nil }, authorizer.DecisionAllow, nil, 401, "Unauthorized"},
		{"a bad one", func(*http.Request) (*authenticator.Response, bool, error) { return nil, true, errors.New("bad") }, authorizer.DecisionAllow, nil, 401, "Unauthorized"},
		{"denied", jane, authorizer.DecisionDeny, nil, 403, "Forbidden (user=jane, verb=get, resource=nodes, subresource(s)=[pods proxy])"},
		{"no opinion", jane, authorizer.DecisionNoOpinion, nil, 403, "Forbidden (user=jane, verb=get, resource=nodes, subresource(s)=[pods proxy])"},
		{"nobody to ask", jane, authorizer.DecisionNoOpinion, errors.New("down"), 500, "Authorization error (user=jane, verb=get, resource=nodes, subresource=pods)"},
	} {
		w := httptest.NewRecorder()
		a := &Access{Authenticator: c.authn, Authorizer: authorizer.AuthorizerFunc(func(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
			return c.d, "", c.err
		})}
		a.Guard(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Errorf("%s: let in", c.name) })).ServeHTTP(w, httptest.NewRequest("GET", "/pods", nil))
		body, _ := io.ReadAll(w.Body)
		if w.Code != c.code || strings.TrimSpace(string(body)) != c.text {
			t.Errorf("%s: %d %q, want %d %q", c.name, w.Code, body, c.code, c.text)
		}
	}
}
