package apiserver

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"slices"
	"strings"
	"testing"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"

	"keelson.dev/keelson/internal/api/catalogue"
	"keelson.dev/keelson/internal/store"
	"keelson.dev/keelson/internal/store/embedded"
)

// as returns a server that takes every request for u's; paths are its further
// handlers.
func as(t *testing.T, u user.Info, a authorizer.Authorizer, paths map[string]http.Handler) *Server {
	t.Helper()
	st, err := embedded.Open(embedded.Options{Codec: store.NewCodec(catalogue.Scheme)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	s := New(Config{Store: st, Catalogue: catalogue.New(catalogue.Builtin()), Scheme: catalogue.Scheme, Authorizer: a, Paths: paths,
		Authenticator: authenticator.RequestFunc(func(*http.Request) (*authenticator.Response, bool, error) {
			return &authenticator.Response{User: u}, u != nil, nil
		})})
	t.Cleanup(s.Shutdown)
	return s
}

// TestImpersonation checks, for the headers of a request, the permissions that are
// asked for and the user that results.
func TestImpersonation(t *testing.T) {
	for _, c := range []struct {
		name   string
		header http.Header
		asked  []string // resource[/subresource] namespace/name
		is     string
		err    string
	}{
		{"nobody", http.Header{}, nil, "root []", ""},
		{"a user", http.Header{"Impersonate-User": {"jane"}}, []string{"users /jane"}, "jane [system:authenticated]", ""},
		{"with groups", http.Header{"Impersonate-User": {"jane"}, "Impersonate-Group": {"a", "b"}}, []string{"users /jane", "groups /a", "groups /b"}, "jane [a b system:authenticated]", ""},
		{"with what all have", http.Header{"Impersonate-User": {"jane"}, "Impersonate-Group": {"system:authenticated"}}, []string{"users /jane", "groups /system:authenticated"}, "jane [system:authenticated]", ""},
		{"as one of the unknown", http.Header{"Impersonate-User": {"jane"}, "Impersonate-Group": {"system:unauthenticated"}}, []string{"users /jane", "groups /system:unauthenticated"}, "jane [system:unauthenticated]", ""},
		{"anonymous", http.Header{"Impersonate-User": {"system:anonymous"}}, []string{"users /system:anonymous"}, "system:anonymous [system:unauthenticated]", ""},
		{"a service account", http.Header{"Impersonate-User": {"system:serviceaccount:ns:sa"}}, []string{"serviceaccounts ns/sa"}, "system:serviceaccount:ns:sa [system:serviceaccounts system:serviceaccounts:ns system:authenticated]", ""},
		{"a service account with groups", http.Header{"Impersonate-User": {"system:serviceaccount:ns:sa"}, "Impersonate-Group": {"g"}}, []string{"serviceaccounts ns/sa", "groups /g"}, "system:serviceaccount:ns:sa [g system:authenticated]", ""},
		{"no service account", http.Header{"Impersonate-User": {"system:serviceaccount:a:b:c"}}, []string{"users /system:serviceaccount:a:b:c"}, "system:serviceaccount:a:b:c [system:authenticated]", ""},
		{"no name of one", http.Header{"Impersonate-User": {"system:serviceaccount:A_b:c"}}, []string{"users /system:serviceaccount:A_b:c"}, "system:serviceaccount:A_b:c [system:authenticated]", ""},
		{"with a UID", http.Header{"Impersonate-User": {"jane"}, "Impersonate-Uid": {"7"}}, []string{"users /jane", "uids /7"}, "jane [system:authenticated] 7", ""},
		{"with extras", http.Header{"Impersonate-User": {"jane"}, "Impersonate-Extra-Example.com%2fscope": {"x", "y"}}, []string{"users /jane", "userextras/example.com/scope /x", "userextras/example.com/scope /y"}, "jane [system:authenticated] example.com/scope=x,y", ""},
		{"groups of nobody", http.Header{"Impersonate-Group": {"a"}}, nil, "", "without impersonating a user name"},
		{"the UID of nobody", http.Header{"Impersonate-Uid": {"7"}}, nil, "", "without impersonating a user name"},
		{"extras of nobody", http.Header{"Impersonate-Extra-Scope": {"x"}}, nil, "", "without impersonating a user name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var asked []string
			authz := func(deny string) authorizer.Authorizer {
				return authorizer.AuthorizerFunc(func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
					switch {
					case strings.HasPrefix(a.GetVerb(), "impersonate") && a.GetVerb() != "impersonate":
						return authorizer.DecisionNoOpinion, "", nil // the verbs of KEP-5284
					case a.GetVerb() != "impersonate":
						return authorizer.DecisionAllow, "", nil
					}
					is := a.GetResource()
					if sub := a.GetSubresource(); sub != "" {
						is += "/" + sub
					}
					is += " " + a.GetNamespace() + "/" + a.GetName()
					asked = append(asked, is)
					if a.GetUser().GetName() != "root" || is == deny {
						return authorizer.DecisionNoOpinion, "", nil
					}
					return authorizer.DecisionAllow, "", nil
				})
			}
			do := func(a authorizer.Authorizer) (is string, w *httptest.ResponseRecorder) {
				s := as(t, &user.DefaultInfo{Name: "root"}, a, map[string]http.Handler{"/who": http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					u, _ := request.UserFrom(r.Context())
					is = u.GetName() + " [" + strings.Join(u.GetGroups(), " ") + "]"
					if u.GetUID() != "" {
						is += " " + u.GetUID()
					}
					for k, v := range u.GetExtra() {
						is += " " + k + "=" + strings.Join(v, ",")
					}
					for h := range r.Header {
						if strings.HasPrefix(h, "Impersonate-") {
							t.Errorf("%s is passed on", h)
						}
					}
				})})
				r := httptest.NewRequest("GET", "/who", nil)
				r.Header = c.header.Clone()
				w = httptest.NewRecorder()
				s.ServeHTTP(w, r)
				return is, w
			}
			is, w := do(authz(""))
			if is != c.is || !slices.Equal(asked, c.asked) {
				t.Errorf("is %q, asked for %q, want %q and %q", is, asked, c.is, c.asked)
			}
			if c.err != "" && (w.Code != 400 || !strings.Contains(w.Body.String(), c.err)) {
				t.Errorf("%d %s, want 400 %s", w.Code, w.Body, c.err)
			}
			for _, deny := range c.asked {
				if is, w := do(authz(deny)); w.Code != 403 || is != "" {
					t.Errorf("without %s: %d, is %q", deny, w.Code, is)
				}
			}
		})
	}
}

// TestUnauthenticatedHTTP2 checks that the HTTP/2 connection of an anonymous client
// ends after one request.
func TestUnauthenticatedHTTP2(t *testing.T) {
	for _, c := range []struct {
		name string
		u    user.Info
		kept bool
	}{
		{"somebody", &user.DefaultInfo{Name: "jane", Groups: []string{user.AllAuthenticated}}, true},
		{"anonymous", &user.DefaultInfo{Name: user.Anonymous}, false},
		{"one of the unknown", &user.DefaultInfo{Name: "jane", Groups: []string{user.AllUnauthenticated}}, false},
		{"unauthenticated", nil, false},
	} {
		s := httptest.NewUnstartedServer(as(t, c.u, nil, nil))
		s.EnableHTTP2 = true
		s.StartTLS()
		for i := range 2 {
			reused := false
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }})
			req, err := http.NewRequestWithContext(ctx, "GET", s.URL+"/livez", nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := s.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if want := c.kept && i == 1; reused != want || resp.ProtoMajor != 2 {
				t.Errorf("%s: request %d over HTTP/%d on a connection reused: %v, want %v", c.name, i, resp.ProtoMajor, reused, want)
			}
		}
		s.Close()
	}
}
