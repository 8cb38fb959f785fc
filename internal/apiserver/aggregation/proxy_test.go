package aggregation

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
	v1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/apiserver/certs"
)

// at resolves every service to one server.
type at struct{ *httptest.Server }

func (a at) ResolveEndpoint(string, string, int32) (*url.URL, error) { return url.Parse(a.URL) }

// TestRedirects checks that another API server may not send this one's clients
// anywhere, for which they would take their credentials along.
func TestRedirects(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", r.URL.Query().Get("to"))
		w.WriteHeader(http.StatusFound)
	}))
	defer s.Close()
	bundle, err := certs.Ensure("", certs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := New(at{s}, func() (certs.Pair, error) { return bundle.FrontProxy.ClientCert("front-proxy-client", nil) })
	a := &v1.APIService{ObjectMeta: metav1.ObjectMeta{Name: "v1.a"}}
	a.Spec = v1.APIServiceSpec{Group: "a", Version: "v1", InsecureSkipTLSVerify: true, Service: &v1.ServiceReference{Name: "s", Namespace: "n", Port: ptr.To[int32](443)}}
	a.Status.Conditions = []v1.APIServiceCondition{{Type: v1.Available, Status: v1.ConditionTrue}}
	r.Set(a)
	for _, to := range []string{"https://evil.example/x", "//evil.example/x", "/api/v1/secrets", "x"} {
		for _, upgrade := range []string{"", "websocket"} {
			req := httptest.NewRequest("GET", "/apis/a/v1/things?to="+url.QueryEscape(to), nil)
			if upgrade != "" {
				req.Header.Set("Connection", "Upgrade")
				req.Header.Set("Upgrade", upgrade)
			}
			req = req.WithContext(request.WithUser(req.Context(), &user.DefaultInfo{Name: "jane"}))
			w := httptest.NewRecorder()
			r.Handler("a", "v1").ServeHTTP(w, req)
			if w.Header().Get("Location") != "" || w.Code < 500 {
				t.Errorf("%s %s: %d to %q", upgrade, to, w.Code, w.Header().Get("Location"))
			}
			if want := "the backend attempted to redirect this request, which is not permitted"; upgrade == "" && (w.Code != http.StatusBadGateway || w.Body.String() != want) {
				t.Errorf("%s: %d %s", to, w.Code, w.Body)
			}
		}
	}
}
