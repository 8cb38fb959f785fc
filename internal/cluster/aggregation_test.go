package cluster_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	watchtools "k8s.io/client-go/tools/watch"
	certutil "k8s.io/client-go/util/cert"
	apiregistration "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/kube-aggregator/pkg/apis/apiregistration/v1/helper"
	aggregator "k8s.io/kube-aggregator/pkg/client/clientset_generated/clientset"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/test/harness"
	"keelson.dev/keelson/testcluster"
)

// fishServer is an API server of the old kind: it has no aggregated discovery.
func fishServer(t *testing.T, proxyCA []byte, down *atomic.Bool) *httptest.Server {
	answer := func(w http.ResponseWriter, body string) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(body))
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/apis", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, `{"kind":"APIGroupList","apiVersion":"v1","groups":[{"name":"fish.example.com","versions":[{"groupVersion":"fish.example.com/v1","version":"v1"}]}]}`)
	})
	mux.HandleFunc("/apis/fish.example.com/v1", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, `{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"fish.example.com/v1","resources":[
			{"name":"trout","singularName":"trout","namespaced":true,"kind":"Trout","verbs":["get","list"],"shortNames":["tr"]},
			{"name":"trout/status","singularName":"","namespaced":true,"kind":"Trout","verbs":["get"]}]}`)
	})
	mux.HandleFunc("/apis/fish.example.com/v1/namespaces/default/trout", func(w http.ResponseWriter, r *http.Request) {
		b, _ := json.Marshal(map[string]any{"user": r.Header.Get("X-Remote-User"), "groups": r.Header["X-Remote-Group"], "authorization": r.Header.Get("Authorization"), "query": r.URL.RawQuery})
		answer(w, string(b))
	})
	var asked atomic.Bool
	mux.HandleFunc("/openapi/v2", func(w http.ResponseWriter, _ *http.Request) {
		if !asked.Swap(true) {
			http.Error(w, "not yet", http.StatusInternalServerError)
			return
		}
		w.Header().Set("ETag", `"one"`)
		answer(w, `{"swagger":"2.0","info":{"title":"fish","version":"1"},"paths":{"/apis/fish.example.com/v1/trout":{"get":{"operationId":"listTrout","responses":{"200":{"description":"OK","schema":{"$ref":"#/definitions/com.example.fish.Trout"}}}}},
			"/healthz":{"get":{"operationId":"health","responses":{"200":{"description":"OK"}}}}},"definitions":{"com.example.fish.Trout":{"type":"object","description":"a fish"}}}`)
	})
	mux.HandleFunc("/openapi/v3", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, `{"paths":{"apis/fish.example.com/v1":{"serverRelativeURL":"/openapi/v3/apis/fish.example.com/v1?hash=AB"}}}`)
	})
	mux.HandleFunc("/openapi/v3/apis/fish.example.com/v1", func(w http.ResponseWriter, _ *http.Request) { answer(w, `{"openapi":"3.0.0","info":{"title":"fish"}}`) })
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(proxyCA)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if down.Load() {
			http.Error(w, "down", http.StatusInternalServerError)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	s.TLS = &tls.Config{ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, Certificates: []tls.Certificate{servingCert(t, "fish.default.svc")}}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func TestAnotherServerServesAGroup(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*harness.Patience)
	defer cancel()
	c := testcluster.Start(t)
	core := kubernetes.NewForConfigOrDie(c.Config)
	agg := aggregator.NewForConfigOrDie(c.Config).ApiregistrationV1().APIServices()
	cm, err := core.CoreV1().ConfigMaps("kube-system").Get(ctx, "extension-apiserver-authentication", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var down atomic.Bool
	server := fishServer(t, []byte(cm.Data["requestheader-client-ca-file"]), &down)
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	n, _ := strconv.Atoi(port)

	// An APIService whose Service is not there is not available.
	_, err = agg.Create(ctx, &apiregistration.APIService{ObjectMeta: metav1.ObjectMeta{Name: "v1.fish.example.com"}, Spec: apiregistration.APIServiceSpec{
		Group: "fish.example.com", Version: "v1", GroupPriorityMinimum: 2000, VersionPriority: 10,
		CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.TLS.Certificates[0].Certificate[1]}),
		Service:  &apiregistration.ServiceReference{Namespace: "default", Name: "fish", Port: ptr.To(int32(n))}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	until := func(reason string) *apiregistration.APIService {
		t.Helper()
		a, err := agg.Get(ctx, "v1.fish.example.com", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		ok := func(a *apiregistration.APIService) bool {
			cond := helper.GetAPIServiceConditionByType(a, apiregistration.Available)
			return cond != nil && cond.Reason == reason
		}
		if ok(a) {
			return a
		}
		lw := &watchOne{agg.Watch}
		ev, err := watchtools.Until(ctx, a.ResourceVersion, lw, func(e watch.Event) (bool, error) {
			a, is := e.Object.(*apiregistration.APIService)
			return is && a.Name == "v1.fish.example.com" && ok(a), nil
		})
		if err != nil {
			t.Fatalf("waiting for %s: %v", reason, err)
		}
		return ev.Object.(*apiregistration.APIService)
	}
	got := helper.GetAPIServiceConditionByType(until("ServiceNotFound"), apiregistration.Available)
	if want := `service/fish in "default" is not present`; got.Message != want || got.Status != apiregistration.ConditionFalse {
		t.Errorf("condition %v, want message %q", got, want)
	}
	raw := func(config *rest.Config, path string) (string, error) {
		b, err := kubernetes.NewForConfigOrDie(config).Discovery().RESTClient().Get().AbsPath(path).Do(ctx).Raw()
		return string(b), err
	}
	if body, err := raw(c.Config, "/apis/fish.example.com/v1"); err == nil || !strings.Contains(err.Error(), "unable to handle the request") {
		t.Errorf("a server that is not there answered %q, %v", body, err)
	}

	_, err = core.CoreV1().Services("default").Create(ctx, &v1.Service{ObjectMeta: metav1.ObjectMeta{Name: "fish"},
		Spec: v1.ServiceSpec{Type: v1.ServiceTypeExternalName, ExternalName: "localhost"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	until("Passed")

	// It is in both forms of discovery, by its priority.
	groups, err := core.Discovery().ServerGroups()
	if err != nil {
		t.Fatal(err)
	}
	// Only metrics.k8s.io has a lower one.
	if last := groups.Groups[len(groups.Groups)-2]; last.Name != "fish.example.com" || last.PreferredVersion.Version != "v1" {
		t.Errorf("the last group but one is %v", last)
	}
	_, lists, err := core.Discovery().ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(lists, func(l *metav1.APIResourceList) bool {
		return l.GroupVersion == "fish.example.com/v1" && len(l.APIResources) == 2 && l.APIResources[0].Kind == "Trout" && l.APIResources[0].Namespaced
	}) {
		t.Error("the server's resources are not in aggregated discovery")
	}

	// Requests are passed on as those of their user, without his credentials.
	as := rest.CopyConfig(c.Config)
	as.Impersonate = rest.ImpersonationConfig{UserName: "angler", Groups: []string{"system:masters"}}
	body, err := raw(as, "/apis/fish.example.com/v1/namespaces/default/trout")
	if want := `{"authorization":"","groups":["system:masters","system:authenticated"],"query":"","user":"angler"}`; err != nil || body != want {
		t.Errorf("the server saw %s, %v; want %s", body, err, want)
	}
	as.Impersonate.Groups = nil
	if _, err := raw(as, "/apis/fish.example.com/v1/namespaces/default/trout"); !apierrors.IsForbidden(err) {
		t.Errorf("a user without rights got %v", err)
	}

	// Its documents are among ours. That it did not have one at once has not kept
	// it from being available.
	var v2 string
	err = wait.PollUntilContextTimeout(ctx, 5*time.Millisecond, harness.Patience, true, func(context.Context) (bool, error) {
		v2, err = raw(c.Config, "/openapi/v2")
		return err != nil || strings.Contains(v2, `"com.example.fish.Trout"`), err
	})
	if err != nil || !strings.Contains(v2, `"/api/v1/namespaces/{namespace}/pods"`) {
		t.Errorf("openapi/v2 of %d bytes lacks the server's or our own, %v", len(v2), err)
	}
	v3, err := raw(c.Config, "/openapi/v3")
	if err != nil || !strings.Contains(v3, `/openapi/v3/apis/fish.example.com/v1?hash=AB`) {
		t.Errorf("openapi/v3: %s, %v", v3, err)
	}
	if doc, err := raw(c.Config, "/openapi/v3/apis/fish.example.com/v1"); err != nil || !strings.Contains(doc, `"title":"fish"`) {
		t.Errorf("the server's v3 document is %s, %v", doc, err)
	}

	// What breaks is seen at the next check.
	down.Store(true)
	if _, err := core.CoreV1().Services("default").Patch(ctx, "fish", "application/merge-patch+json", []byte(`{"metadata":{"labels":{"check":"now"}}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	got = helper.GetAPIServiceConditionByType(until("FailedDiscoveryCheck"), apiregistration.Available)
	if url := "https://localhost:" + port + "/apis/fish.example.com/v1"; got.Message != "failing or missing response from "+url+": bad status from "+url+": 500" {
		t.Errorf("message %q", got.Message)
	}
	if err := agg.Delete(ctx, "v1.fish.example.com", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := wait.PollUntilContextTimeout(ctx, 5*time.Millisecond, harness.Patience, true, func(context.Context) (bool, error) {
		_, err := raw(c.Config, "/apis/fish.example.com/v1")
		return apierrors.IsNotFound(err), nil
	}); err != nil {
		t.Errorf("the group is still served after its APIService has gone: %v", err)
	}
}

func TestOwnGroupsHaveAPIServices(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*harness.Patience)
	defer cancel()
	c := testcluster.Start(t)
	agg := aggregator.NewForConfigOrDie(c.Config).ApiregistrationV1().APIServices()
	list, err := agg.List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{"v1.": true, "v1.apps": true, "v2.autoscaling": true, "v1.autoscaling": true, "v1.rbac.authorization.k8s.io": true}
	seen := func(a *apiregistration.APIService) bool {
		if want[a.Name] && helper.IsAPIServiceConditionTrue(a, apiregistration.Available) && a.Labels["kube-aggregator.kubernetes.io/automanaged"] == "onstart" {
			delete(want, a.Name)
		}
		return len(want) == 0
	}
	for i := range list.Items {
		seen(&list.Items[i])
	}
	if len(want) == 0 {
		return
	}
	if _, err := watchtools.Until(ctx, list.ResourceVersion, &watchOne{agg.Watch}, func(e watch.Event) (bool, error) {
		a, is := e.Object.(*apiregistration.APIService)
		return is && seen(a), nil
	}); err != nil {
		t.Fatalf("%v: not there or not available: %v", err, want)
	}
}

// watchOne is the watch of a typed client.
type watchOne struct {
	watch func(context.Context, metav1.ListOptions) (watch.Interface, error)
}

func (w *watchOne) Watch(o metav1.ListOptions) (watch.Interface, error) {
	return w.watch(context.Background(), o)
}

func (w *watchOne) WatchWithContext(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	return w.watch(ctx, o)
}

// servingCert is self-signed, for name.
func servingCert(t *testing.T, name string) tls.Certificate {
	t.Helper()
	certPEM, keyPEM, err := certutil.GenerateSelfSignedCertKey(name, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	// The first certificate is the leaf; the second its authority.
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}
