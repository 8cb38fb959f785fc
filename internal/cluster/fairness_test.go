package cluster

import (
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	v1 "k8s.io/api/core/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/apiserver/controlplane"
	"keelson.dev/keelson/internal/apiserver/priority"
	"keelson.dev/keelson/test/harness"
)

// TestFirstRequest checks that the first request after the start is already matched
// to its flow schema.
func TestFirstRequest(t *testing.T) {
	c := boot(t, Options{Options: controlplane.Options{NoDrain: true}, NoScheduler: true, NoControllers: true})
	begin := time.Now()
	w := httptest.NewRecorder()
	c.Server.ServeHTTP(w, httptest.NewRequest("GET", "/version", nil))
	fs, err := c.Informers.Flowcontrol().V1().FlowSchemas().Lister().Get("global-default")
	if err != nil || w.Code != http.StatusOK || w.Header().Get("X-Kubernetes-PF-FlowSchema-UID") != string(fs.UID) {
		t.Errorf("anonymous: %d, schema %q: %v", w.Code, w.Header().Get("X-Kubernetes-PF-FlowSchema-UID"), err)
	}
	if took := time.Since(begin); took >= priority.WakeLimit {
		t.Errorf("the controller was not seen to be ready within %v", took)
	}
	if w := ask(c, "GET", "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/global-default", ""); !strings.Contains(w.Body.String(), `"type":"Dangling","status":"False"`) {
		t.Errorf("no status: %s", w.Body)
	}
}

// TestFairness has one user fill the priority level that is its own: its next
// request is refused, and others do not notice.
func TestFairness(t *testing.T) {
	c := boot(t, Options{Options: controlplane.Options{Listen: "127.0.0.1:0", NoDrain: true}, NoScheduler: true})
	cfg, err := c.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	cfg.QPS = -1
	admin, ctx := kubernetes.NewForConfigOrDie(cfg), t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	as := func(name string) kubernetes.Interface {
		u := rest.CopyConfig(cfg)
		u.Impersonate.UserName = name
		return kubernetes.NewForConfigOrDie(u)
	}
	for _, name := range []string{"greedy", "modest"} {
		_, err := admin.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name},
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"}, Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: name}}}, metav1.CreateOptions{})
		must(err)
	}
	level, err := admin.FlowcontrolV1().PriorityLevelConfigurations().Create(ctx, &flowcontrolv1.PriorityLevelConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "narrow"},
		Spec: flowcontrolv1.PriorityLevelConfigurationSpec{Type: flowcontrolv1.PriorityLevelEnablementLimited, Limited: &flowcontrolv1.LimitedPriorityLevelConfiguration{
			NominalConcurrencyShares: ptr.To[int32](1), BorrowingLimitPercent: ptr.To[int32](0), LimitResponse: flowcontrolv1.LimitResponse{Type: flowcontrolv1.LimitResponseTypeReject}}}}, metav1.CreateOptions{})
	must(err)
	schema, err := admin.FlowcontrolV1().FlowSchemas().Create(ctx, &flowcontrolv1.FlowSchema{ObjectMeta: metav1.ObjectMeta{Name: "greedy"}, Spec: flowcontrolv1.FlowSchemaSpec{
		PriorityLevelConfiguration: flowcontrolv1.PriorityLevelConfigurationReference{Name: "narrow"}, MatchingPrecedence: 100,
		Rules: []flowcontrolv1.PolicyRulesWithSubjects{{Subjects: []flowcontrolv1.Subject{{Kind: "User", User: &flowcontrolv1.UserSubject{Name: "greedy"}}},
			ResourceRules: []flowcontrolv1.ResourcePolicyRule{{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}, Namespaces: []string{"*"}}}}}}}, metav1.CreateOptions{})
	must(err)
	harness.Eventually(t, "the schema's turn", func() bool {
		fs, err := admin.FlowcontrolV1().FlowSchemas().Get(ctx, "greedy", metav1.GetOptions{})
		must(err)
		return len(fs.Status.Conditions) > 0 && fs.Status.Conditions[0].Type == flowcontrolv1.FlowSchemaConditionDangling && fs.Status.Conditions[0].Status == flowcontrolv1.ConditionFalse
	})

	// A webhook holds greedy's requests until they are let go.
	held, release := make(chan struct{}, 100), make(chan struct{})
	hook := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review admissionv1.AdmissionReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			t.Error(err)
		}
		if review.Request.UserInfo.Username == "greedy" {
			held <- struct{}{}
			<-release
		}
		review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(review)
	}))
	defer hook.Close()
	_, err = admin.AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(ctx, &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "hold"},
		Webhooks: []admissionregistrationv1.ValidatingWebhook{{Name: "hold.example.com", SideEffects: ptr.To(admissionregistrationv1.SideEffectClassNone), AdmissionReviewVersions: []string{"v1"}, TimeoutSeconds: ptr.To[int32](30),
			ClientConfig: admissionregistrationv1.WebhookClientConfig{URL: ptr.To(hook.URL), CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: hook.Certificate().Raw})},
			Rules:        []admissionregistrationv1.RuleWithOperations{{Operations: []admissionregistrationv1.OperationType{"CREATE"}, Rule: admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"}}}}}}}, metav1.CreateOptions{})
	must(err)
	greedy, modest := as("greedy"), as("modest")
	create := func(client kubernetes.Interface) error {
		_, err := client.CoreV1().ConfigMaps("default").Create(ctx, &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "a-"}}, metav1.CreateOptions{})
		return err
	}
	done := make(chan error, 100)
	started := 0
	refused := func() bool {
		// Without a retry of the client's.
		r := greedy.CoreV1().RESTClient().Post().Namespace("default").Resource("configmaps").MaxRetries(0).Body(&v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "a-"}})
		result := make(chan error, 1)
		go func() { result <- r.Do(ctx).Error() }()
		select {
		case <-held:
			started++
			go func() { done <- <-result }()
			return false
		case err := <-result:
			if !apierrors.IsTooManyRequests(err) {
				t.Fatalf("got %v", err)
			}
			if s, ok := apierrors.SuggestsClientDelay(err); !ok || s < 1 {
				t.Errorf("no time to wait: %v", err)
			}
			return true
		}
	}
	harness.Eventually(t, "a refusal", refused)
	if started < 1 || started > 10 {
		t.Errorf("%d requests of greedy are held", started)
	}
	for range 5 {
		if err := create(modest); err != nil {
			t.Errorf("modest: %v", err)
		}
	}
	dump, err := admin.RESTClient().Get().AbsPath("/debug/api_priority_and_fairness/dump_priority_levels").Do(ctx).Raw()
	if err != nil || !strings.Contains(string(dump), "narrow") {
		t.Errorf("dump: %s %v", dump, err)
	}
	close(release)
	for range started {
		if err := <-done; err != nil {
			t.Errorf("a held request: %v", err)
		}
	}
	if err := create(greedy); err != nil {
		t.Errorf("greedy, afterwards: %v", err)
	}

	t.Run("Headers", func(t *testing.T) {
		rt, err := rest.TransportFor(cfg)
		must(err)
		req, err := http.NewRequestWithContext(ctx, "GET", cfg.Host+"/api/v1/namespaces/default/configmaps", nil)
		must(err)
		req.Header.Set("Impersonate-User", "greedy")
		resp, err := rt.RoundTrip(req)
		must(err)
		resp.Body.Close()
		if fs, pl := resp.Header.Get("X-Kubernetes-PF-FlowSchema-UID"), resp.Header.Get("X-Kubernetes-PF-PriorityLevel-UID"); fs != string(schema.UID) || pl != string(level.UID) {
			t.Errorf("headers %q and %q", fs, pl)
		}
	})
	t.Run("Mandatory", func(t *testing.T) {
		must(admin.FlowcontrolV1().FlowSchemas().Delete(ctx, "catch-all", metav1.DeleteOptions{}))
		harness.Eventually(t, "its return", func() bool {
			_, err := admin.FlowcontrolV1().FlowSchemas().Get(ctx, "catch-all", metav1.GetOptions{})
			return err == nil
		})
	})
}
