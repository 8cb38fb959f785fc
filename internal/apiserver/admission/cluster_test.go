package admission_test

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	arv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/test/harness"
	"keelson.dev/keelson/testcluster"
)

// hook returns a webhook with TLS that answers with what review gives.
func hook(t *testing.T, review func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse) arv1.WebhookClientConfig {
	t.Helper()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in admissionv1.AdmissionReview
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		out := admissionv1.AdmissionReview{TypeMeta: in.TypeMeta, Response: review(in.Request)}
		out.Response.UID = in.Request.UID
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(out)
	}))
	t.Cleanup(s.Close)
	return arv1.WebhookClientConfig{URL: ptr.To(s.URL + "/review"), CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})}
}

func rules(group, version, resource string, ops ...arv1.OperationType) []arv1.RuleWithOperations {
	return []arv1.RuleWithOperations{{Operations: ops, Rule: arv1.Rule{APIGroups: []string{group}, APIVersions: []string{version}, Resources: []string{resource}}}}
}

func allow(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	return &admissionv1.AdmissionResponse{Allowed: true}
}

func configMap(name string, labels map[string]string) *v1.ConfigMap {
	return &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}, Data: map[string]string{"a": "b"}}
}

// warnings keeps those of a client's answers.
type warnings struct {
	mu  sync.Mutex
	all []string
}

func (w *warnings) HandleWarningHeader(_ int, _, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, text)
}

func TestMutatingWebhook(t *testing.T) {
	client := kubernetes.NewForConfigOrDie(testcluster.Start(t, testcluster.WithoutControllers()).Config)
	var calls atomic.Int32
	patch := func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		calls.Add(1)
		return &admissionv1.AdmissionResponse{Allowed: true, Patch: []byte(`[{"op":"add","path":"/data/patched","value":"yes"}]`), PatchType: ptr.To(admissionv1.PatchTypeJSONPatch)}
	}
	_, err := client.AdmissionregistrationV1().MutatingWebhookConfigurations().Create(t.Context(), &arv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "m"},
		Webhooks: []arv1.MutatingWebhook{{
			Name: "m.example.com", ClientConfig: hook(t, patch), Rules: rules("", "v1", "configmaps", arv1.Create, arv1.Update),
			SideEffects: ptr.To(arv1.SideEffectClassNone), AdmissionReviewVersions: []string{"v1"},
			ObjectSelector:  &metav1.LabelSelector{MatchLabels: map[string]string{"patch": "me"}},
			MatchConditions: []arv1.MatchCondition{{Name: "named", Expression: "!object.metadata.name.startsWith('spared')"}},
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cms := client.CoreV1().ConfigMaps("default")
	n := 0
	harness.Succeeds(t, "a config map is patched", func() error {
		n++
		got, err := cms.Create(t.Context(), configMap(fmt.Sprint("cm-", n), map[string]string{"patch": "me"}), metav1.CreateOptions{})
		if err != nil {
			return err
		}
		if got.Data["patched"] != "yes" || got.Data["a"] != "b" {
			return fmt.Errorf("data %v", got.Data)
		}
		return nil
	})
	before := calls.Load()
	for name, labels := range map[string]map[string]string{"unlabelled": nil, "spared": {"patch": "me"}} {
		got, err := cms.Create(t.Context(), configMap(name, labels), metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got.Data["patched"] != "" || calls.Load() != before {
			t.Errorf("%s: the webhook was called, data %v", name, got.Data)
		}
	}
	got, err := cms.Create(t.Context(), configMap("dry", map[string]string{"patch": "me"}), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err != nil || got.Data["patched"] != "yes" {
		t.Errorf("dry run: %v, %v", got, err)
	}
}

func TestValidatingWebhook(t *testing.T) {
	client := kubernetes.NewForConfigOrDie(testcluster.Start(t, testcluster.WithoutControllers()).Config)
	var mu sync.Mutex
	seen := map[admissionv1.Operation]*admissionv1.AdmissionRequest{}
	deny := func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		mu.Lock()
		defer mu.Unlock()
		seen[r.Operation] = r
		if strings.HasPrefix(r.Name, "bad") || r.Operation == admissionv1.Delete {
			return &admissionv1.AdmissionResponse{Result: &metav1.Status{Message: "this is not wanted", Code: http.StatusForbidden}}
		}
		return &admissionv1.AdmissionResponse{Allowed: true, Warnings: []string{"mind this"}}
	}
	cms := client.CoreV1().ConfigMaps("default")
	if _, err := cms.Create(t.Context(), configMap("kept", nil), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	configs := client.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	_, err := configs.Create(t.Context(), &arv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "v"},
		Webhooks: []arv1.ValidatingWebhook{{
			Name: "v.example.com", ClientConfig: hook(t, deny), Rules: rules("", "v1", "configmaps", arv1.Create, arv1.Delete),
			SideEffects: ptr.To(arv1.SideEffectClassNone), AdmissionReviewVersions: []string{"v1"},
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	want := `admission webhook "v.example.com" denied the request: this is not wanted`
	harness.Succeeds(t, "a config map is refused", func() error {
		n++
		_, err := cms.Create(t.Context(), configMap(fmt.Sprint("bad-", n), nil), metav1.CreateOptions{})
		if !apierrors.IsForbidden(err) || err.Error() != want {
			return fmt.Errorf("got %w", err)
		}
		return nil
	})
	for what, err := range map[string]error{
		"delete":           cms.Delete(t.Context(), "kept", metav1.DeleteOptions{}),
		"deletecollection": cms.DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}),
	} {
		if err == nil || err.Error() != want {
			t.Errorf("%s: %v", what, err)
		}
	}
	mu.Lock()
	r := seen[admissionv1.Delete]
	mu.Unlock()
	if r == nil || len(r.OldObject.Raw) == 0 || len(r.Object.Raw) != 0 || !strings.Contains(string(r.Options.Raw), "DeleteOptions") || !strings.Contains(string(r.OldObject.Raw), `"kind":"ConfigMap"`) {
		t.Errorf("delete was reviewed as %+v", r)
	}
	if err := configs.Delete(t.Context(), "v", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	harness.Succeeds(t, "the config map may go", func() error { return cms.Delete(t.Context(), "kept", metav1.DeleteOptions{}) })
}

func TestWebhookFailurePolicy(t *testing.T) {
	client := kubernetes.NewForConfigOrDie(testcluster.Start(t, testcluster.WithoutControllers()).Config)
	away := hook(t, allow)
	away.URL = ptr.To("https://127.0.0.1:1/")
	for _, c := range []struct {
		resource string
		policy   arv1.FailurePolicyType
	}{{"configmaps", arv1.Fail}, {"secrets", arv1.Ignore}} {
		_, err := client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(t.Context(), &arv1.ValidatingWebhookConfiguration{
			ObjectMeta: metav1.ObjectMeta{Name: c.resource},
			Webhooks: []arv1.ValidatingWebhook{{
				Name: c.resource + ".example.com", ClientConfig: away, Rules: rules("", "v1", c.resource, arv1.Create), FailurePolicy: &c.policy,
				SideEffects: ptr.To(arv1.SideEffectClassNone), AdmissionReviewVersions: []string{"v1"}, TimeoutSeconds: ptr.To[int32](1),
			}},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	harness.Succeeds(t, "what cannot be asked about is refused", func() error {
		n++
		_, err := client.CoreV1().ConfigMaps("default").Create(t.Context(), configMap(fmt.Sprint("c", n), nil), metav1.CreateOptions{})
		if !apierrors.IsInternalError(err) || !strings.Contains(err.Error(), `failed calling webhook "configmaps.example.com"`) {
			return fmt.Errorf("got %w", err)
		}
		return nil
	})
	if _, err := client.CoreV1().Secrets("default").Create(t.Context(), &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}}, metav1.CreateOptions{}); err != nil {
		t.Errorf("Ignore: %v", err)
	}
}

func TestConnectIsReviewed(t *testing.T) {
	client := kubernetes.NewForConfigOrDie(testcluster.Start(t, testcluster.WithNodes(1)).Config)
	pods := client.CoreV1().Pods("default")
	if _, err := pods.Create(t.Context(), pod("p", nil), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	deny := func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		ok := r.Operation == admissionv1.Connect && r.SubResource == "attach" && r.Kind.Kind == "PodAttachOptions" && strings.Contains(string(r.Object.Raw), `"stdin":true`)
		return &admissionv1.AdmissionResponse{Result: &metav1.Status{Message: fmt.Sprintf("attaching to pod '%s' is not allowed: %v", r.Name, ok)}}
	}
	_, err := client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(t.Context(), &arv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "deny-attaching"},
		Webhooks: []arv1.ValidatingWebhook{{
			Name: "attach.example.com", ClientConfig: hook(t, deny), Rules: rules("", "v1", "pods/attach", arv1.Connect),
			SideEffects: ptr.To(arv1.SideEffectClassNone), AdmissionReviewVersions: []string{"v1"},
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	harness.Succeeds(t, "attach is refused", func() error {
		err := client.CoreV1().RESTClient().Post().Namespace("default").Resource("pods").Name("p").SubResource("attach").
			Param("stdin", "true").Param("stdout", "true").Do(t.Context()).Error()
		if err == nil || !strings.Contains(err.Error(), "attaching to pod 'p' is not allowed: true") {
			return fmt.Errorf("got %w", err)
		}
		return nil
	})
}

func pod(name string, requests v1.ResourceList) *v1.Pod {
	return &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "i", Resources: v1.ResourceRequirements{Requests: requests}}}}}
}

func TestValidatingPolicyWithParameters(t *testing.T) {
	var w warnings
	cfg := rest.CopyConfig(testcluster.Start(t, testcluster.WithoutControllers()).Config)
	cfg.WarningHandler = &w
	client := kubernetes.NewForConfigOrDie(cfg)
	ar := client.AdmissionregistrationV1()
	params := configMap("limits", nil)
	params.Data = map[string]string{"max": "3"}
	if _, err := client.CoreV1().ConfigMaps("default").Create(t.Context(), params, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err := ar.ValidatingAdmissionPolicies().Create(t.Context(), &arv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "short"},
		Spec: arv1.ValidatingAdmissionPolicySpec{
			ParamKind:        &arv1.ParamKind{APIVersion: "v1", Kind: "ConfigMap"},
			MatchConstraints: &arv1.MatchResources{ResourceRules: []arv1.NamedRuleWithOperations{{RuleWithOperations: rules("", "v1", "secrets", arv1.Create)[0]}}},
			Variables:        []arv1.Variable{{Name: "max", Expression: "int(params.data.max)"}},
			Validations: []arv1.Validation{{Expression: "size(object.metadata.name) <= variables.max",
				MessageExpression: "'in ' + namespaceObject.metadata.name + ' names have at most ' + string(variables.max) + ' letters'"}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	bind := func(name string, actions ...arv1.ValidationAction) *arv1.ValidatingAdmissionPolicyBinding {
		return &arv1.ValidatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: arv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: "short", ValidationActions: actions,
			ParamRef: &arv1.ParamRef{Name: "limits", Namespace: "default", ParameterNotFoundAction: ptr.To(arv1.DenyAction)}}}
	}
	if _, err := ar.ValidatingAdmissionPolicyBindings().Create(t.Context(), bind("warn", arv1.Warn), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	secrets := client.CoreV1().Secrets("default")
	create := func(name string) error {
		_, err := secrets.Create(t.Context(), &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		return err
	}
	n := 0
	harness.Succeeds(t, "a long name is warned of", func() error {
		n++
		if err := create(fmt.Sprint("long-", n)); err != nil {
			return err
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.all) == 0 {
			return fmt.Errorf("no warning")
		}
		if want := "Validation failed for ValidatingAdmissionPolicy 'short' with binding 'warn': in default names have at most 3 letters"; w.all[0] != want {
			t.Fatalf("warning %q", w.all[0])
		}
		return nil
	})
	if _, err := ar.ValidatingAdmissionPolicyBindings().Create(t.Context(), bind("deny", arv1.Deny), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	harness.Succeeds(t, "a long name is refused", func() error {
		n++
		err := create(fmt.Sprint("long-", n))
		if err == nil || !strings.Contains(err.Error(), "ValidatingAdmissionPolicy 'short' with binding 'deny' denied request: in default names have at most 3 letters") {
			return fmt.Errorf("got %w", err)
		}
		return nil
	})
	if err := create("abc"); err != nil {
		t.Errorf("a short name: %v", err)
	}
}

func TestMutatingPolicy(t *testing.T) {
	client := kubernetes.NewForConfigOrDie(testcluster.Start(t, testcluster.WithoutControllers()).Config)
	ar := client.AdmissionregistrationV1()
	for name, m := range map[string]arv1.Mutation{
		"applied": {PatchType: arv1.PatchTypeApplyConfiguration, ApplyConfiguration: &arv1.ApplyConfiguration{Expression: `Object{metadata: Object.metadata{labels: {"applied": "yes"}}}`}},
		"patched": {PatchType: arv1.PatchTypeJSONPatch, JSONPatch: &arv1.JSONPatch{Expression: `[JSONPatch{op: "add", path: "/data/patched", value: "yes"}]`}},
	} {
		_, err := ar.MutatingAdmissionPolicies().Create(t.Context(), &arv1.MutatingAdmissionPolicy{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: arv1.MutatingAdmissionPolicySpec{
				MatchConstraints:   &arv1.MatchResources{ResourceRules: []arv1.NamedRuleWithOperations{{RuleWithOperations: rules("", "v1", "configmaps", arv1.Create)[0]}}},
				ReinvocationPolicy: arv1.NeverReinvocationPolicy,
				Mutations:          []arv1.Mutation{m},
			},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ar.MutatingAdmissionPolicyBindings().Create(t.Context(), &arv1.MutatingAdmissionPolicyBinding{
			ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: arv1.MutatingAdmissionPolicyBindingSpec{PolicyName: name}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	harness.Succeeds(t, "both policies have changed a config map", func() error {
		n++
		got, err := client.CoreV1().ConfigMaps("default").Create(t.Context(), configMap(fmt.Sprint("c", n), nil), metav1.CreateOptions{})
		if err != nil {
			return err
		}
		if got.Labels["applied"] != "yes" || got.Data["patched"] != "yes" || got.Data["a"] != "b" {
			return fmt.Errorf("labels %v, data %v", got.Labels, got.Data)
		}
		return nil
	})
}

func TestQuotaIsExact(t *testing.T) {
	cfg := rest.CopyConfig(testcluster.Start(t).Config)
	cfg.QPS = -1 // all at once
	client := kubernetes.NewForConfigOrDie(cfg)
	quotas := client.CoreV1().ResourceQuotas("default")
	_, err := quotas.Create(t.Context(), &v1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "q"}, Spec: v1.ResourceQuotaSpec{
		Hard: v1.ResourceList{v1.ResourcePods: resource.MustParse("10"), v1.ResourceRequestsCPU: resource.MustParse("2")}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	used := func(pods string) error {
		q, err := quotas.Get(t.Context(), "q", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if got := q.Status.Used[v1.ResourcePods]; len(q.Status.Hard) != 2 || got.Cmp(resource.MustParse(pods)) != 0 {
			return fmt.Errorf("status %v", q.Status)
		}
		return nil
	}
	harness.Succeeds(t, "the quota is counted", func() error { return used("0") })
	pods := client.CoreV1().Pods("default")
	_, err = pods.Create(t.Context(), pod("none", nil), metav1.CreateOptions{})
	if want := `pods "none" is forbidden: failed quota: q: must specify requests.cpu for: c`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	request := v1.ResourceList{v1.ResourceCPU: resource.MustParse("100m")}
	var wg sync.WaitGroup
	var made atomic.Int32
	for i := range 100 {
		wg.Go(func() {
			_, err := pods.Create(t.Context(), pod(fmt.Sprint("p", i), request), metav1.CreateOptions{})
			switch {
			case err == nil:
				made.Add(1)
			case !strings.Contains(err.Error(), "exceeded quota: q, requested: pods=1, used: pods=10, limited: pods=10"):
				t.Errorf("pod %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if made.Load() != 10 {
		t.Errorf("%d pods were admitted, want 10", made.Load())
	}
	if err := used("10"); err != nil {
		t.Error(err)
	}
	if err := pods.DeleteCollection(t.Context(), metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}, metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	harness.Succeeds(t, "the quota is replenished", func() error { return used("0") })
}

func TestQuotaCountsObjects(t *testing.T) {
	client := kubernetes.NewForConfigOrDie(testcluster.Start(t).Config)
	quotas := client.CoreV1().ResourceQuotas("default")
	names := []v1.ResourceName{"count/secrets", "count/deployments.apps", "services.nodeports"}
	hard := v1.ResourceList{}
	for _, n := range names {
		hard[n] = resource.MustParse("1")
	}
	if _, err := quotas.Create(t.Context(), &v1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "q"}, Spec: v1.ResourceQuotaSpec{Hard: hard}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	used := func(n v1.ResourceName, want int64) func() error {
		return func() error {
			q, err := quotas.Get(t.Context(), "q", metav1.GetOptions{})
			if err != nil {
				return err
			}
			if got, ok := q.Status.Used[n]; !ok || got.Value() != want {
				return fmt.Errorf("%s: used %v", n, q.Status.Used)
			}
			return nil
		}
	}
	for _, n := range names {
		harness.Succeeds(t, "the quota is counted", used(n, 0))
	}
	secret := func(name string) error {
		_, err := client.CoreV1().Secrets("default").Create(t.Context(), &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		return err
	}
	if err := secret("a"); err != nil {
		t.Fatal(err)
	}
	if err := secret("b"); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "exceeded quota: q, requested: count/secrets=1, used: count/secrets=1, limited: count/secrets=1") {
		t.Errorf("got %v", err)
	}
	svc := &v1.Service{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Spec: v1.ServiceSpec{Type: v1.ServiceTypeNodePort, Ports: []v1.ServicePort{{Name: "a", Port: 1}, {Name: "b", Port: 2}}}}
	if _, err := client.CoreV1().Services("default").Create(t.Context(), svc, metav1.CreateOptions{}); err == nil || !strings.Contains(err.Error(), "requested: services.nodeports=2, used: services.nodeports=0") {
		t.Errorf("got %v", err)
	}
	if err := client.CoreV1().Secrets("default").Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	harness.Succeeds(t, "the quota is replenished", used("count/secrets", 0))
}

func TestPodSecurity(t *testing.T) {
	var w warnings
	cfg := rest.CopyConfig(testcluster.Start(t, testcluster.WithoutControllers()).Config)
	cfg.WarningHandler = &w
	client := kubernetes.NewForConfigOrDie(cfg)
	ns := &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "safe", Labels: map[string]string{
		"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/warn": "restricted"}}}
	if _, err := client.CoreV1().Namespaces().Create(t.Context(), ns, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().ServiceAccounts("safe").Create(t.Context(), &v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	p := pod("p", nil)
	p.Spec.HostNetwork = true
	_, err := client.CoreV1().Pods("safe").Create(t.Context(), p, metav1.CreateOptions{})
	if want := `pods "p" is forbidden: violates PodSecurity "baseline:latest": host namespaces (hostNetwork=true)`; err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if _, err := client.CoreV1().Pods("safe").Create(t.Context(), pod("q", nil), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !strings.Contains(strings.Join(w.all, "\n"), `would violate PodSecurity "restricted:latest": allowPrivilegeEscalation != false`) {
		t.Errorf("warnings %q", w.all)
	}
	bad := &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "bad", Labels: map[string]string{"pod-security.kubernetes.io/enforce": "none"}}}
	if _, err := client.CoreV1().Namespaces().Create(t.Context(), bad, metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("a level that is not known: %v", err)
	}
}

func TestVolumesInUseStay(t *testing.T) {
	client := kubernetes.NewForConfigOrDie(testcluster.Start(t, testcluster.WithNodes(1)).Config)
	claims := client.CoreV1().PersistentVolumeClaims("default")
	claim := &v1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Spec: v1.PersistentVolumeClaimSpec{
		AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce}, StorageClassName: ptr.To(""),
		Resources: v1.VolumeResourceRequirements{Requests: v1.ResourceList{v1.ResourceStorage: resource.MustParse("1Gi")}}}}
	got, err := claims.Create(t.Context(), claim, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Finalizers) != 1 || got.Finalizers[0] != "kubernetes.io/pvc-protection" {
		t.Errorf("finalizers %v", got.Finalizers)
	}
	p := pod("p", nil)
	p.Spec.NodeName = "sim-0"
	p.Spec.Volumes = []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: "c"}}}}
	if _, err := client.CoreV1().Pods("default").Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := claims.Delete(t.Context(), "c", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if got, err = claims.Get(t.Context(), "c", metav1.GetOptions{}); err != nil || got.DeletionTimestamp == nil {
		t.Fatalf("the claim in use: %v, %v", got, err)
	}
	if err := client.CoreV1().Pods("default").Delete(t.Context(), "p", metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}); err != nil {
		t.Fatal(err)
	}
	harness.Succeeds(t, "the claim goes with its last pod", func() error {
		if got, err := claims.Get(t.Context(), "c", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("still there: %v %w", got.Finalizers, err)
		}
		return nil
	})
}

func TestPolicyTypesAreChecked(t *testing.T) {
	client := kubernetes.NewForConfigOrDie(testcluster.Start(t).Config)
	policies := client.AdmissionregistrationV1().ValidatingAdmissionPolicies()
	_, err := policies.Create(t.Context(), &arv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "typed"},
		Spec: arv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: &arv1.MatchResources{ResourceRules: []arv1.NamedRuleWithOperations{{RuleWithOperations: rules("apps", "v1", "deployments", arv1.Create)[0]}}},
			Validations:      []arv1.Validation{{Expression: "object.spec.replicas > '1'"}, {Expression: "object.spec.replicas > 1"}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	harness.Succeeds(t, "the policy is checked", func() error {
		p, err := policies.Get(t.Context(), "typed", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if p.Status.ObservedGeneration != p.Generation || p.Status.TypeChecking == nil {
			return fmt.Errorf("status %+v", p.Status)
		}
		ws := p.Status.TypeChecking.ExpressionWarnings
		if len(ws) != 1 || ws[0].FieldRef != "spec.validations[0].expression" || !strings.Contains(ws[0].Warning, "no matching overload for '_>_'") {
			t.Fatalf("warnings %+v", ws)
		}
		return nil
	})
}

func TestScaleIsReviewedAsScale(t *testing.T) {
	client := kubernetes.NewForConfigOrDie(testcluster.Start(t, testcluster.WithoutControllers()).Config)
	labels := map[string]string{"app": "web"}
	web := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: appsv1.DeploymentSpec{Replicas: ptr.To[int32](1),
		Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "i"}}}}}}
	deployments := client.AppsV1().Deployments("default")
	if _, err := deployments.Create(t.Context(), web, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	review := func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		var s, old autoscalingv1.Scale
		if r.Kind.Kind != "Scale" || r.SubResource != "scale" || json.Unmarshal(r.Object.Raw, &s) != nil || json.Unmarshal(r.OldObject.Raw, &old) != nil || old.Spec.Replicas != 1 {
			return &admissionv1.AdmissionResponse{Result: &metav1.Status{Message: fmt.Sprintf("reviewed as %+v", r)}}
		}
		return &admissionv1.AdmissionResponse{Allowed: true, Patch: fmt.Appendf(nil, `[{"op":"replace","path":"/spec/replicas","value":%d}]`, s.Spec.Replicas*2), PatchType: ptr.To(admissionv1.PatchTypeJSONPatch)}
	}
	_, err := client.AdmissionregistrationV1().MutatingWebhookConfigurations().Create(t.Context(), &arv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "m"},
		Webhooks: []arv1.MutatingWebhook{{Name: "m.example.com", ClientConfig: hook(t, review), Rules: rules("apps", "v1", "deployments/scale", arv1.Update),
			SideEffects: ptr.To(arv1.SideEffectClassNone), AdmissionReviewVersions: []string{"v1"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	harness.Succeeds(t, "the scale is doubled", func() error {
		s, err := deployments.UpdateScale(t.Context(), "web", &autoscalingv1.Scale{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: autoscalingv1.ScaleSpec{Replicas: 5}}, metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}})
		if err != nil {
			t.Fatal(err)
		}
		if s.Spec.Replicas != 10 {
			return fmt.Errorf("replicas %d", s.Spec.Replicas)
		}
		return nil
	})
}
