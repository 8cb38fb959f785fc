package controlplane

import (
	"bufio"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"keelson.dev/keelson/internal/apiserver/auditing"
)

const auditPolicy = `
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Metadata, users: ["system:apiserver"], verbs: [create], resources: [{group: networking.k8s.io, resources: [ipaddresses]}]}
- {level: None, users: ["system:apiserver"]}
- {level: None, userGroups: ["system:serviceaccounts:kube-system"]}
- {level: Metadata, resources: [{resources: [secrets]}], namespaces: [default]}
- {level: RequestResponse, omitManagedFields: true, verbs: [create, patch, list], resources: [{resources: [configmaps]}]}
- {level: Request, verbs: [watch, delete], resources: [{resources: [configmaps]}]}
- {level: Metadata, nonResourceURLs: ["/version"]}
- {level: None}
`

func TestAudit(t *testing.T) {
	dir := t.TempDir()
	policy, log := filepath.Join(dir, "policy.yaml"), filepath.Join(dir, "log", "audit.log")
	if err := os.WriteFile(policy, []byte(auditPolicy), 0o600); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	sent := map[types.UID]bool{}
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var l auditv1.EventList
		if err := json.NewDecoder(r.Body).Decode(&l); err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, e := range l.Items {
			sent[e.AuditID] = true
		}
	}))
	defer hook.Close()
	kubeconfig := filepath.Join(dir, "hook")
	if err := clientcmd.WriteToFile(clientcmdapi.Config{CurrentContext: "c", Clusters: map[string]*clientcmdapi.Cluster{"c": {Server: hook.URL}},
		Contexts: map[string]*clientcmdapi.Context{"c": {Cluster: "c", AuthInfo: "u"}}, AuthInfos: map[string]*clientcmdapi.AuthInfo{"u": {}}}, kubeconfig); err != nil {
		t.Fatal(err)
	}
	a := auditing.Default()
	a.PolicyFile, a.Log.Path, a.Webhook.ConfigFile = policy, log, kubeconfig
	c := boot(t, Options{Listen: "127.0.0.1:0", NoDrain: true, Audit: a})
	cfg, err := c.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	client := kubernetes.NewForConfigOrDie(cfg)
	ctx := t.Context()
	inDefault := client.CoreV1().ConfigMaps("default")
	if _, err := client.CoreV1().Secrets("default").Create(ctx, &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}, StringData: map[string]string{"k": "confidential"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := inDefault.Create(ctx, &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Data: map[string]string{"k": "v"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := inDefault.Patch(ctx, "a", types.MergePatchType, []byte(`{"data":{"k":"w"}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := inDefault.List(ctx, metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	// The server makes an IPAddress in the course of it.
	if _, err := client.CoreV1().Services("default").Create(ctx, &v1.Service{ObjectMeta: metav1.ObjectMeta{Name: "s"},
		Spec: v1.ServiceSpec{ClusterIP: "10.96.0.77", Ports: []v1.ServicePort{{Port: 80}}}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	w, err := inDefault.Watch(ctx, metav1.ListOptions{TimeoutSeconds: new(int64(1))})
	if err != nil {
		t.Fatal(err)
	}
	for range w.ResultChan() { //nolint:revive // until it ends
	}
	as := rest.CopyConfig(cfg)
	as.Impersonate = rest.ImpersonationConfig{UserName: "jane"}
	if err := kubernetes.NewForConfigOrDie(as).CoreV1().ConfigMaps("default").Delete(ctx, "a", metav1.DeleteOptions{}); err == nil {
		t.Fatal("jane may delete")
	}
	res := client.RESTClient().Get().AbsPath("/version").SetHeader("Audit-ID", "my-id").Do(ctx)
	if res.Error() != nil {
		t.Fatal(res.Error())
	}
	past := rest.CopyConfig(cfg)
	past.Host += "/at/0s"
	if _, err := kubernetes.NewForConfigOrDie(past).CoreV1().Secrets("default").Get(ctx, "s", metav1.GetOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := c.Stop(); err != nil { // what is buffered is written first
		t.Fatal(err)
	}

	f, err := os.Open(log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := map[string]auditv1.Event{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var e auditv1.Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		key := e.Verb + " " + e.RequestURI + " " + string(e.Stage)
		if e.ObjectRef != nil {
			key = e.Verb + " " + e.ObjectRef.Resource + "/" + e.ObjectRef.Name + " " + string(e.Stage)
		}
		got[key] = e
		if strings.Contains(lines.Text(), "confidential") || strings.Contains(lines.Text(), "Y29uZmlkZW50aWFs") || strings.Contains(lines.Text(), "managedFields") {
			t.Errorf("the log has what it must not: %s", lines.Text())
		}
		mu.Lock()
		if !sent[e.AuditID] {
			t.Errorf("%s was not sent to the webhook", key)
		}
		mu.Unlock()
	}
	expect := func(key string, code int32, request, response string) auditv1.Event {
		t.Helper()
		e, ok := got[key]
		if !ok {
			t.Fatalf("no event %q among %v", key, keys(got))
		}
		delete(got, key)
		text := func(u interface{ MarshalJSON() ([]byte, error) }, none bool) string {
			if none {
				return ""
			}
			b, _ := u.MarshalJSON()
			return string(b)
		}
		if r := text(e.RequestObject, e.RequestObject == nil); (request == "") != (r == "") || !strings.Contains(r, request) {
			t.Errorf("%s: request %s", key, r)
		}
		if r := text(e.ResponseObject, e.ResponseObject == nil); (response == "") != (r == "") || !strings.Contains(r, response) {
			t.Errorf("%s: response %s", key, r)
		}
		if e.ResponseStatus == nil || e.ResponseStatus.Code != code || e.User.Username != "kubernetes-admin" || len(e.SourceIPs) != 1 || e.SourceIPs[0] != "127.0.0.1" ||
			!strings.Contains(e.UserAgent, "controlplane.test") || e.StageTimestamp.Before(&e.RequestReceivedTimestamp) || e.AuditID == "" {
			t.Errorf("%s: %+v", key, e)
		}
		return e
	}
	expect("create secrets/s ResponseComplete", 201, "", "")
	e := expect("create configmaps/a ResponseComplete", 201, `"kind":"ConfigMap"`, `"uid":`)
	if e.Annotations["authorization.k8s.io/decision"] != "allow" || e.Annotations["authorization.k8s.io/reason"] != "" {
		t.Errorf("annotations: %v", e.Annotations)
	}
	expect("patch configmaps/a ResponseComplete", 200, `{"data":{"k":"w"}}`, `"k":"w"`)
	expect("list configmaps/ ResponseComplete", 200, "", `"kind":"ConfigMapList"`)
	expect("watch configmaps/ ResponseStarted", 200, "", "")
	expect("watch configmaps/ ResponseComplete", 200, "", "")
	e = expect("delete configmaps/a ResponseComplete", 403, "", "")
	if e.ImpersonatedUser == nil || e.ImpersonatedUser.Username != "jane" || e.Annotations["authorization.k8s.io/decision"] != "forbid" || e.ResponseStatus.Reason != metav1.StatusReasonForbidden {
		t.Errorf("impersonation: %+v", e)
	}
	if e = expect("get /version ResponseComplete", 200, "", ""); e.AuditID != "my-id" {
		t.Errorf("ID %q", e.AuditID)
	}
	if e = expect("get secrets/s ResponseComplete", 200, "", ""); e.Annotations["keelson.dev/at"] != "0s" {
		t.Errorf("a read of the past: %v", e.Annotations)
	}
	if e := got["create ipaddresses/10.96.0.77 ResponseComplete"]; e.User.Username != "system:apiserver" || e.ResponseStatus == nil || e.ResponseStatus.Code != 201 || e.AuditID == "" {
		t.Errorf("the IPAddress of a Service: %+v", e)
	}
	maps.DeleteFunc(got, func(key string, _ auditv1.Event) bool { return strings.HasPrefix(key, "create ipaddresses/") })
	if len(got) > 0 {
		t.Errorf("events that were not to be logged: %v", keys(got))
	}
}

func keys[T any](m map[string]T) (out []string) {
	for k := range m {
		out = append(out, k)
	}
	return out
}

func TestAuditErrors(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "policy")
	if err := os.WriteFile(bad, []byte("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Everything}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*auditing.Selection){
		`Unsupported value: "Everything"`: func(a *auditing.Selection) { a.PolicyFile = bad },
		"failed to read file path":        func(a *auditing.Selection) { a.PolicyFile = bad + "x" },
		"allowed modes are":               func(a *auditing.Selection) { a.Log.Mode = "often" },
		"allowed formats are":             func(a *auditing.Selection) { a.Log.Format = "yaml" },
		"can't be a negative number":      func(a *auditing.Selection) { a.Log.MaxAge = -1 },
		"must be greater than":            func(a *auditing.Selection) { a.Log.Sizes.MaxBatchSize = 1 },
	} {
		a := auditing.Default()
		a.Log.Path = "-"
		change(&a)
		if _, err := auditing.New(a); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
