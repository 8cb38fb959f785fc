package tracing

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"

	"keelson.dev/keelson/internal/api/catalogue"
	"keelson.dev/keelson/internal/store"
	"keelson.dev/keelson/internal/store/embedded"
	"keelson.dev/keelson/internal/trace"
)

// TestRights asks for traces as a user who may not get everything.
func TestRights(t *testing.T) {
	st, err := embedded.Open(embedded.Options{Codec: store.NewCodec(catalogue.Scheme)})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	cat := catalogue.New(catalogue.Builtin())
	row := cat.Lookup("", "v1", "pods")
	if _, err := st.Create(t.Context(), row.Key("a", "p"), &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "p", UID: "pod"}}, 0); err != nil {
		t.Fatal(err)
	}
	r := &Recorder{Trace: trace.NewRecorder(trace.DefaultLimit), Store: st, Catalogue: cat,
		Authorizer: authorizer.AuthorizerFunc(func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
			if a.GetResource() == "secrets" || a.GetNamespace() == "b" || a.GetVerb() != "get" {
				return authorizer.DecisionNoOpinion, "", nil
			}
			return authorizer.DecisionAllow, "", nil
		})}
	for _, s := range []trace.Step{
		{Resource: "pods", Namespace: "a", Name: "p", UID: "pod", Verb: "create"},
		{Resource: "secrets", Namespace: "a", Name: "s", UID: "secret", Verb: "create", CauseUID: "pod"},
		{Resource: "pods", Namespace: "b", Name: "q", UID: "other", Verb: "create", CauseUID: "pod"},
		{Resource: "configmaps", Namespace: "a", Name: "c", UID: "map", Verb: "delete", CauseUID: "pod"},
	} {
		r.Trace.Add(s)
	}
	for _, c := range []struct{ name, query, want string }{
		{"an object", "resource=pods&namespace=a&name=p", "p c"},
		{"one that is gone", "resource=configmaps&namespace=a&name=c", "c"},
		{"one that the user may not get", "resource=secrets&namespace=a&name=s", "403"},
		{"one in another namespace", "resource=pods&namespace=b&name=q", "403"},
		{"none", "resource=pods&namespace=a&name=none", "404"},
		{"no resource", "resource=things&namespace=a&name=x", "404"},
	} {
		w := httptest.NewRecorder()
		ctx := request.WithUser(t.Context(), &user.DefaultInfo{Name: "jane"})
		r.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, Path+"?"+c.query, nil))
		got := []string{http.StatusText(w.Code)}
		if w.Code == http.StatusOK {
			var answer struct{ Steps []trace.Step }
			if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
				t.Fatal(err)
			}
			got = nil
			for _, s := range answer.Steps {
				got = append(got, s.Name)
			}
		}
		want := c.want
		switch want {
		case "403":
			want = http.StatusText(http.StatusForbidden)
		case "404":
			want = http.StatusText(http.StatusNotFound)
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s: %s, want %s", c.name, s, want)
		}
	}
}

// TestRightsTaken follows a trace as a user from whom the right to get its objects is taken
// meanwhile: he is shown no more of them.
func TestRightsTaken(t *testing.T) {
	st, err := embedded.Open(embedded.Options{Codec: store.NewCodec(catalogue.Scheme)})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	cat := catalogue.New(catalogue.Builtin())
	if _, err := st.Create(t.Context(), cat.Lookup("", "v1", "pods").Key("a", "p"), &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "p", UID: "pod"}}, 0); err != nil {
		t.Fatal(err)
	}
	var taken atomic.Bool
	r := &Recorder{Trace: trace.NewRecorder(trace.DefaultLimit), Store: st, Catalogue: cat,
		Authorizer: authorizer.AuthorizerFunc(func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
			if a.GetResource() == "pods" && taken.Load() {
				return authorizer.DecisionNoOpinion, "", nil
			}
			return authorizer.DecisionAllow, "", nil
		})}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.ServeHTTP(w, req.WithContext(request.WithUser(req.Context(), &user.DefaultInfo{Name: "jane"})))
	}))
	defer s.Close()
	r.Trace.Add(trace.Step{Resource: "pods", Namespace: "a", Name: "p", UID: "pod", Verb: "create"})
	resp, err := http.Get(s.URL + "?watch=true&resource=pods&namespace=a&name=p")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	dec := json.NewDecoder(resp.Body)
	next := func(want string) {
		t.Helper()
		var step trace.Step
		if err := dec.Decode(&step); err != nil || step.Name != want {
			t.Errorf("%+v (%v), want one of %s", step, err, want)
		}
	}
	next("p")
	taken.Store(true)
	r.Trace.Add(trace.Step{Resource: "pods", Namespace: "a", Name: "p", UID: "pod", Verb: "update"})
	r.Trace.Add(trace.Step{Resource: "configmaps", Namespace: "a", Name: "c", UID: "map", Verb: "create", CauseUID: "pod"})
	next("c")
}
