package controlplane

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/api/catalogue"
	kadmission "keelson.dev/keelson/internal/apiserver/admission"
	"keelson.dev/keelson/internal/apiserver/authn"
	"keelson.dev/keelson/internal/apiserver/certs"
	"keelson.dev/keelson/internal/apiserver/inprocess"
	"keelson.dev/keelson/internal/apiserver/token"
	"keelson.dev/keelson/test/harness"
)

func TestRuntimeConfig(t *testing.T) {
	c := boot(t, Options{Listen: "127.0.0.1:0", NoDrain: true, API: API{RuntimeConfig: catalogue.RuntimeConfig{"api/beta": "false", "node.k8s.io/v1": "false", "batch/v1/cronjobs": "false"}}})
	cfg, err := c.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	client := kubernetes.NewForConfigOrDie(cfg)
	if _, err := client.NodeV1().RuntimeClasses().List(t.Context(), metav1.ListOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("a version that is off: %v", err)
	}
	if _, err := client.BatchV1().CronJobs("default").List(t.Context(), metav1.ListOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("a resource that is off: %v", err)
	}
	if _, err := client.BatchV1().Jobs("default").List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Error(err)
	}
	groups, err := client.Discovery().ServerGroups()
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range groups.Groups {
		for _, v := range g.Versions {
			if g.Name == "node.k8s.io" || strings.Contains(v.Version, "beta") {
				t.Errorf("discovery has %s", v.GroupVersion)
			}
		}
	}
	resources, err := client.Discovery().ServerResourcesForGroupVersion("batch/v1")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range resources.APIResources {
		if strings.HasPrefix(r.Name, "cronjobs") {
			t.Errorf("discovery has %s", r.Name)
		}
	}
}

func TestDebugAndSLIs(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "debug.sock")
	c := boot(t, Options{NoDrain: true, API: API{DebugSocket: socket, HiddenMetrics: []string{"apiserver_request_total"}}})
	if w := ask(c, "GET", "/debug/pprof/cmdline", ""); w.Code != http.StatusOK || w.Body.Len() == 0 {
		t.Errorf("a profile: %d", w.Code)
	}
	before := klog.V(7).Enabled()
	for _, put := range []struct {
		method, body, want string
		code               int
	}{
		{"PUT", "7", "successfully set klog.logging.verbosity to 7\n", 200}, {"PUT", "loud", "strconv.ParseUint: parsing \"loud\": invalid syntax\n", 400},
		{"GET", "", "unsupported http method\n", 406}, {"PUT", "0", "successfully set klog.logging.verbosity to 0\n", 200},
	} {
		w := ask(c, put.method, "/debug/flags/v", put.body)
		if w.Code != put.code || w.Body.String() != put.want {
			t.Errorf("%s %q: %d %q", put.method, put.body, w.Code, w.Body)
		}
		if put.body == "7" && !klog.V(7).Enabled() {
			t.Error("the level is not set")
		}
	}
	if before {
		t.Error("the test's own level is 7 already")
	}
	if w := ask(c, "GET", "/debug/flags/", ""); w.Code != 200 || !strings.Contains(w.Body.String(), "<tr>v<br>") {
		t.Errorf("flags: %d %s", w.Code, w.Body)
	}
	ask(c, "GET", "/readyz", "")
	w := ask(c, "GET", "/metrics/slis", "")
	for _, want := range []string{`kubernetes_healthcheck{name="ping",type="readyz"} 1`, `kubernetes_healthchecks_total{name="etcd",status="success",type="readyz"} `} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("/metrics/slis: %d has no %s in %s", w.Code, want, w.Body)
		}
	}
	if w := ask(c, "GET", "/metrics", ""); strings.Contains(w.Body.String(), "apiserver_request_total") || !strings.Contains(w.Body.String(), "apiserver_request_duration_seconds") {
		t.Error("/metrics has what is disabled, or lacks what is not")
	}
	over := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	resp, err := over.Get("http://debug/debug/pprof/goroutine?debug=1")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(b), "goroutine profile:") {
		t.Errorf("over the socket: %d %v", resp.StatusCode, err)
	}
	off := boot(t, Options{NoDrain: true, API: API{NoProfiling: true, NoLogs: true}})
	for _, path := range []string{"/debug/pprof/", "/debug/flags/v", "/logs/"} {
		if w := ask(off, "GET", path, ""); w.Code != http.StatusNotFound {
			t.Errorf("%s, switched off: %d", path, w.Code)
		}
	}
}

// TestTokens checks tokens with several issuers and keys, their audiences and
// their greatest lifetime.
func TestTokens(t *testing.T) {
	dir := t.TempDir()
	keyFile := func(name string, curve elliptic.Curve) string {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalECPrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	old, next := keyFile("old.key", elliptic.P256()), keyFile("next.key", elliptic.P384())
	start := func(dataDir string, s token.Selection) (*Instance, kubernetes.Interface) {
		c := boot(t, Options{DataDir: dataDir, Listen: "127.0.0.1:0", NoDrain: true, Tokens: s, API: API{ExternalHostname: "api.test"}})
		return c, c.Client(inprocess.Admin)
	}
	issue := func(client kubernetes.Interface) *authenticationv1.TokenRequest {
		account := &v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
		if _, err := client.CoreV1().ServiceAccounts("default").Create(t.Context(), account, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
		tr, err := client.CoreV1().ServiceAccounts("default").CreateToken(t.Context(), "default", &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To[int64](86400)}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return tr
	}
	who := func(c *Instance, tok string) string {
		cfg, err := c.RESTConfig()
		if err != nil {
			t.Fatal(err)
		}
		anonymous := rest.AnonymousClientConfig(cfg)
		anonymous.BearerToken = tok
		r, err := kubernetes.NewForConfigOrDie(anonymous).AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
		if err != nil {
			return err.Error()
		}
		return r.Status.UserInfo.Username
	}
	first, client := start(filepath.Join(dir, "data"), token.Selection{Issuers: []string{"https://old.test"}, SigningKeyFile: old, KeyFiles: []string{old}, MaxExpiration: time.Hour})
	tr := issue(client)
	if got := *tr.Spec.ExpirationSeconds; got != 3600 || len(tr.Spec.Audiences) != 1 || tr.Spec.Audiences[0] != "https://old.test" {
		t.Errorf("issued for %d seconds, audiences %q", got, tr.Spec.Audiences)
	}
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}
	second, client := start(filepath.Join(dir, "data"), token.Selection{Issuers: []string{"https://new.test", "https://old.test"}, SigningKeyFile: next, KeyFiles: []string{next, old}, Audiences: []string{"https://new.test", "https://old.test"}})
	const want = "system:serviceaccount:default:default"
	for name, tok := range map[string]string{"of the old key and issuer": tr.Status.Token, "of the new ones": issue(client).Status.Token} {
		if got := who(second, tok); got != want {
			t.Errorf("a token %s is %s's", name, got)
		}
	}
	if doc := ask(second, "GET", token.ConfigurationPath, "").Body.String(); !strings.Contains(doc, `"issuer":"https://new.test"`) || !strings.Contains(doc, `"jwks_uri":"https://api.test:`) ||
		!strings.Contains(doc, `"ES384","ES256"`) {
		t.Errorf("discovery: %s", doc)
	}
	if err := second.Stop(); err != nil {
		t.Fatal(err)
	}
	third, _ := start(filepath.Join(dir, "data"), token.Selection{Issuers: []string{"https://new.test"}, SigningKeyFile: next, KeyFiles: []string{next, old}})
	if got := who(third, tr.Status.Token); got != "Unauthorized" {
		t.Errorf("a token of an issuer that is not accepted any more is %s's", got)
	}
}

func TestAPIServerOptions(t *testing.T) {
	dir := t.TempDir()
	others, err := certs.Ensure("", certs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	caFile := filepath.Join(dir, "ca.crt")
	if err := os.WriteFile(caFile, others.CAPEM, 0o600); err != nil {
		t.Fatal(err)
	}
	c := boot(t, Options{Listen: "127.0.0.1:0", NoDrain: true, Authentication: authn.Selection{ClientCAFile: caFile}, Admission: kadmission.Selection{NotReadySeconds: ptr.To[int64](7)},
		API: API{NodePorts: utilnet.PortRange{Base: 40000, Size: 2}, NodePort: 40001, EventTTL: time.Minute, RequestTimeout: time.Second}})
	ctx, client := t.Context(), c.Client(inprocess.Admin)

	pair, err := others.ClientCert("stranger", nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := c.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	cfg.CertData, cfg.KeyData = pair.Cert, pair.Key
	r, err := kubernetes.NewForConfigOrDie(cfg).AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil || r.Status.UserInfo.Username != "stranger" {
		t.Errorf("a client of the other authority is %v: %v", r, err)
	}
	cm, err := client.CoreV1().ConfigMaps("kube-system").Get(ctx, "extension-apiserver-authentication", metav1.GetOptions{})
	if err != nil || !strings.Contains(cm.Data["client-ca-file"], string(bytes.TrimSpace(others.CAPEM))) {
		t.Errorf("published: %v", err)
	}

	harness.Eventually(t, "the node port of the service kubernetes", func() bool {
		svc, err := client.CoreV1().Services("default").Get(ctx, "kubernetes", metav1.GetOptions{})
		return err == nil && svc.Spec.Type == v1.ServiceTypeNodePort && svc.Spec.Ports[0].NodePort == 40001
	})
	svc, err := client.CoreV1().Services("default").Create(ctx, &v1.Service{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Spec: v1.ServiceSpec{Type: v1.ServiceTypeNodePort, Ports: []v1.ServicePort{{Port: 80}}}}, metav1.CreateOptions{})
	if err != nil || svc.Spec.Ports[0].NodePort != 40000 {
		t.Errorf("a service of the range: %v %v", svc, err)
	}
	if _, err := client.CoreV1().ServiceAccounts("default").Create(ctx, &v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pod, err := client.CoreV1().Pods("default").Create(ctx, &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "a", Image: "a"}}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	stays := map[string]int64{}
	for _, tol := range pod.Spec.Tolerations {
		stays[tol.Key] = *tol.TolerationSeconds
	}
	if stays[v1.TaintNodeNotReady] != 7 || stays[v1.TaintNodeUnreachable] != 300 {
		t.Errorf("tolerations %v", stays)
	}

	// A webhook that does not answer holds up a write until its time is up.
	held := make(chan struct{})
	hook := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-held }))
	defer hook.Close()
	defer close(held)
	_, err = client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(ctx, &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "hold"},
		Webhooks: []admissionregistrationv1.ValidatingWebhook{{Name: "hold.example.com", SideEffects: ptr.To(admissionregistrationv1.SideEffectClassNone), AdmissionReviewVersions: []string{"v1"}, TimeoutSeconds: ptr.To[int32](30),
			ClientConfig: admissionregistrationv1.WebhookClientConfig{URL: ptr.To(hook.URL), CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: hook.Certificate().Raw})},
			Rules:        []admissionregistrationv1.RuleWithOperations{{Operations: []admissionregistrationv1.OperationType{"CREATE"}, Rule: admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"secrets"}}}}}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, "a request without an answer", func() bool {
		w := ask(c, "POST", "/api/v1/namespaces/default/secrets?timeout=300ms", `{"apiVersion":"v1","kind":"Secret","metadata":{"generateName":"a-"}}`)
		return w.Code == http.StatusGatewayTimeout && strings.Contains(w.Body.String(), `"message":"Timeout: request did not complete within the allotted timeout"`)
	})
	if w := ask(c, "GET", "/api/v1/namespaces?timeout=soon", ""); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "invalid timeout specified in the request URL") {
		t.Errorf("a timeout that is none: %d %s", w.Code, w.Body)
	}
}
