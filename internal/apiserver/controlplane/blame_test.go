package controlplane

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"

	"keelson.dev/keelson/internal/trace"
	"keelson.dev/keelson/test/harness"
)

// TestBlame names a cause as a user who reports nothing: his write is his own. A component's
// is because of what it says.
func TestBlame(t *testing.T) {
	c := boot(t, Options{NoDrain: true})
	c.Server.Authenticator = authenticator.RequestFunc(func(req *http.Request) (*authenticator.Response, bool, error) {
		return &authenticator.Response{User: &user.DefaultInfo{Name: req.Header.Get("Test-User"), Groups: []string{req.Header.Get("Test-Group"), user.AllAuthenticated}}}, true, nil
	})
	if w := ask(c, "POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", `{"metadata":{"name":"writers"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"admin"},
		"subjects":[{"apiGroup":"rbac.authorization.k8s.io","kind":"User","name":"jane"},{"apiGroup":"rbac.authorization.k8s.io","kind":"Group","name":"system:serviceaccounts:kube-system"}]}`); w.Code != http.StatusCreated {
		t.Fatal(w.Body)
	}
	if w := ask(c, "POST", "/api/v1/namespaces/default/configmaps", `{"metadata":{"name":"blamed"}}`); w.Code != http.StatusCreated {
		t.Fatal(w.Body)
	}
	blamed := c.Trace.Find("configmaps", "default", "blamed")
	at, _ := c.Trace.Of(blamed)
	for name, of := range map[string]struct{ user, group string }{
		"of-jane": {"jane", ""}, "of-a-controller": {"system:serviceaccount:kube-system:deployment-controller", "system:serviceaccounts:kube-system"},
	} {
		harness.Eventually(t, "the write "+name, func() bool {
			req := httptest.NewRequest("POST", "/api/v1/namespaces/default/configmaps", strings.NewReader(`{"metadata":{"name":"`+name+`"}}`))
			req.Header = http.Header{"Content-Type": {"application/json"}, trace.Header: {string(blamed) + "@1000000"}, trace.WokeHeader: {"5"}, "Test-User": {of.user}, "Test-Group": {of.group}, "User-Agent": {"client/1"}}
			w := httptest.NewRecorder()
			trace.Handler(c.Server).ServeHTTP(w, req)
			return w.Code == http.StatusCreated
		})
		steps := c.Trace.Way(c.Trace.Find("configmaps", "default", name))
		s := steps[len(steps)-1]
		if heard := s.CauseUID == blamed && s.TraceID == at.TraceID && s.Woke > 0 && s.Client == ""; heard != (of.group != "") {
			t.Errorf("%s: %+v", name, s)
		}
		if of.group == "" && (s.CauseUID != "" || s.TraceID == at.TraceID || s.Client != "client/1") {
			t.Errorf("%s: %+v", name, s)
		}
	}
}
