package conformance

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	v1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"
)

// webhookHost is the address at which the API server reaches the webhooks, which
// run in the test's process.
var webhookHost = flag.String("webhook-host", "127.0.0.1", "address of this machine as the API server reaches it")

type answer func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse

func allow(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	return &admissionv1.AdmissionResponse{Allowed: true}
}

func refuse(message string) answer {
	return func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		return &admissionv1.AdmissionResponse{Result: &metav1.Status{Message: message}}
	}
}

func mutate(patch string) answer {
	return func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		kind := admissionv1.PatchTypeJSONPatch
		return &admissionv1.AdmissionResponse{Allowed: true, PatchType: &kind, Patch: []byte(patch)}
	}
}

// serve runs a TLS server until the end of the test, and returns its webhook
// client configuration.
func (t *T) serve(h http.Handler) dict {
	t.Helper()
	cert, ca := t.servingCert(*webhookHost)
	l := got[net.Listener](t)(tls.Listen("tcp", net.JoinHostPort(*webhookHost, "0"), &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}))
	s := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return dict{"url": "https://" + l.Addr().String() + "/hook", "caBundle": ca}
}

func (t *T) admissionServer(f answer) dict {
	t.Helper()
	return t.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review admissionv1.AdmissionReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil || review.Request == nil {
			http.Error(w, "not a review", http.StatusBadRequest)
			return
		}
		review.Response = f(review.Request)
		review.Response.UID, review.Request = review.Request.UID, nil
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(review)
	}))
}

type hook struct {
	kind  string // Validating or Mutating
	rule  dict
	f     answer
	extra dict // further fields of the webhook
	// everywhere reports whether the webhook is called for all namespaces, not
	// the test's alone.
	everywhere bool
}

// webhook configures a webhook until the end of the test, and waits until it is
// called.
func (t *T) webhook(h hook) string {
	t.Helper()
	var called atomic.Bool
	const markers = "conformance-marker-"
	name := "conformance-" + rand.String(6)
	f := func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		switch {
		case strings.HasPrefix(r.Name, markers+name):
			called.Store(true)
			return allow(r)
		case strings.HasPrefix(r.Name, markers): // the marker of another webhook
			return allow(r)
		}
		return h.f(r)
	}
	w := dict{"name": name + ".example.com", "clientConfig": t.admissionServer(f), "sideEffects": "None", "admissionReviewVersions": []any{"v1"}, "timeoutSeconds": 10,
		"rules": []any{h.rule, dict{"operations": []any{"CREATE"}, "apiGroups": []any{""}, "apiVersions": []any{"v1"}, "resources": []any{"configmaps"}}}}
	if !h.everywhere {
		w["namespaceSelector"] = dict{"matchLabels": dict{"kubernetes.io/metadata.name": t.NS}}
	}
	for k, v := range h.extra {
		w[k] = v
	}
	// Objects with the marker's name are created until the webhook sees one.
	t.configure(h.kind, name, w)
	if h.extra["objectSelector"] == nil && h.extra["failurePolicy"] == nil && h.extra["matchConditions"] == nil {
		t.until("the webhook to be called", func(ctx context.Context) (bool, error) {
			_, _ = t.Client.CoreV1().ConfigMaps(t.NS).Create(ctx, configMap(markers+name+rand.String(5), nil), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			return called.Load(), nil
		})
	}
	return name
}

func configurations(kind string) string { return strings.ToLower(kind) + "webhookconfigurations" }

func (t *T) configure(kind, name string, webhooks ...dict) {
	t.Helper()
	var list []any
	for _, w := range webhooks {
		list = append(list, w)
	}
	u := &unstructured.Unstructured{}
	t.must(json.Unmarshal(patchOf(dict{"apiVersion": admission + "/v1", "kind": kind + "WebhookConfiguration", "metadata": dict{"name": name, "labels": dict{"conformance-test": t.NS}}, "webhooks": list}), &u.Object))
	client := t.Dynamic.Resource(gvr(admission, "v1", configurations(kind)))
	got[*unstructured.Unstructured](t)(client.Create(t.Context(), u, create))
	t.Cleanup(func() { _ = client.Delete(context.Background(), name, remove) })
}

func rule(group, version, resource string, operations ...string) dict {
	ops := []any{}
	for _, o := range operations {
		ops = append(ops, o)
	}
	return dict{"operations": ops, "apiGroups": []any{group}, "apiVersions": []any{version}, "resources": []any{resource}}
}

// denied checks that the error is the webhook's.
func (t *T) denied(err error, message string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), message) || !strings.Contains(err.Error(), "denied the request") {
		t.Errorf("got %v, want a denial: %s", err, message)
	}
}

var _ = It("[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should be able to deny pod and configmap creation", func(t *T) {
	t.webhook(hook{kind: "Validating", rule: rule("", "v1", "pods", "CREATE"), f: func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		if strings.Contains(string(r.Object.Raw), "webhook-disallow") {
			return refuse("the object contains unwanted data")(r)
		}
		return allow(r)
	}})
	_, err := t.Client.CoreV1().Pods(t.NS).Create(t.Context(), pod("bad", map[string]string{"a": "webhook-disallow"}), create)
	t.denied(err, "the object contains unwanted data")
	_, err = t.Client.CoreV1().ConfigMaps(t.NS).Create(t.Context(), configMap("bad", map[string]string{"k": "webhook-disallow"}), create)
	t.denied(err, "the object contains unwanted data")
	got[*v1.ConfigMap](t)(t.Client.CoreV1().ConfigMaps(t.NS).Create(t.Context(), configMap("good", nil), create))
	// The rules do not have updates.
	got[*v1.ConfigMap](t)(t.Client.CoreV1().ConfigMaps(t.NS).Patch(t.Context(), "good", types.MergePatchType, []byte(`{"data":{"k":"webhook-disallow"}}`), metav1.PatchOptions{}))
})

var _ = It("[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should be able to deny attaching pod", func(t *T) {
	t.webhook(hook{kind: "Validating", rule: rule("", "v1", "pods/attach", "CONNECT"), f: func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		if r.Operation == admissionv1.Connect && r.SubResource == "attach" {
			return refuse("attaching to pod 'to-be-attached-pod' is not allowed")(r)
		}
		return allow(r)
	}})
	t.makePod(pod("to-be-attached-pod", map[string]string{"app": "attached"}))
	t.running("app=attached", 1)
	out, err := t.kubectl("", "attach", "to-be-attached-pod", "-i", "-c=web")
	if err == nil {
		t.Error("the pod is attached to")
	}
	t.contains(out, "attaching to pod 'to-be-attached-pod' is not allowed")
})

var _ = It("[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should be able to deny custom resource creation, update and deletion", func(t *T) {
	c := t.crd(crdOptions{})
	t.webhook(hook{kind: "Validating", rule: rule(c.gvr.Group, "*", c.gvr.Resource, "CREATE", "UPDATE", "DELETE"), f: func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		if strings.Contains(string(r.Object.Raw), "webhook-disallow") || r.Operation == admissionv1.Delete && strings.Contains(string(r.OldObject.Raw), "webhook-nondeletable") {
			return refuse("the custom resource contains unwanted data")(r)
		}
		return allow(r)
	}})
	_, err := t.of(c).Create(t.Context(), c.object(t, "bad", ", data: {k: webhook-disallow}"), create)
	t.denied(err, "the custom resource contains unwanted data")
	got[*unstructured.Unstructured](t)(t.of(c).Create(t.Context(), c.object(t, "good", ", data: {k: webhook-nondeletable}"), create))
	_, err = t.of(c).Patch(t.Context(), "good", types.MergePatchType, []byte(`{"data":{"k":"webhook-disallow"}}`), metav1.PatchOptions{})
	t.denied(err, "the custom resource contains unwanted data")
	t.denied(t.of(c).Delete(t.Context(), "good", remove), "the custom resource contains unwanted data")
	got[*unstructured.Unstructured](t)(t.of(c).Patch(t.Context(), "good", types.MergePatchType, []byte(`{"data":{"k":"fine"}}`), metav1.PatchOptions{}))
	t.must(t.of(c).Delete(t.Context(), "good", remove))
})

var _ = It("[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should unconditionally reject operations on fail closed webhook", func(t *T) {
	l := got[net.Listener](t)(net.Listen("tcp", net.JoinHostPort(*webhookHost, "0")))
	address := l.Addr().String()
	t.must(l.Close())
	_, ca := t.servingCert(*webhookHost)
	t.configure("Validating", "conformance-closed-"+rand.String(6), dict{"name": "closed.example.com", "clientConfig": dict{"url": "https://" + address, "caBundle": ca}, "failurePolicy": "Fail",
		"sideEffects": "None", "admissionReviewVersions": []any{"v1"}, "rules": []any{rule("", "v1", "configmaps", "CREATE")}, "namespaceSelector": dict{"matchLabels": dict{"kubernetes.io/metadata.name": t.NS}}})
	t.until("the refusal", func(ctx context.Context) (bool, error) {
		_, err := t.Client.CoreV1().ConfigMaps(t.NS).Create(ctx, configMap("foo"+rand.String(5), nil), create)
		return apierrors.IsInternalError(err) && strings.Contains(err.Error(), "failed calling webhook"), nil
	})
})

var _ = It("[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should mutate configmap", func(t *T) {
	for i, key := range []string{"mutation-stage-1", "mutation-stage-2"} {
		t.webhook(hook{kind: "Mutating", rule: rule("", "v1", "configmaps", "CREATE"), f: func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
			if i == 1 && !strings.Contains(string(r.Object.Raw), "mutation-stage-1") {
				return allow(r)
			}
			return mutate(fmt.Sprintf(`[{"op":"add","path":"/data/%s","value":"yes"}]`, key))(r)
		}})
	}
	cm := got[*v1.ConfigMap](t)(t.Client.CoreV1().ConfigMaps(t.NS).Create(t.Context(), configMap("m", map[string]string{"mutation-start": "yes"}), create))
	if cm.Data["mutation-start"] != "yes" || cm.Data["mutation-stage-1"] != "yes" {
		t.Errorf("data: %v", cm.Data)
	}
})

var _ = It("[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should mutate pod and apply defaults after mutation", func(t *T) {
	t.webhook(hook{kind: "Mutating", rule: rule("", "v1", "pods", "CREATE"), f: func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		if r.Resource.Resource != "pods" {
			return allow(r)
		}
		return mutate(`[{"op":"add","path":"/spec/initContainers","value":[{"image":"webhook-added-image","name":"webhook-added-init-container","resources":{}}]}]`)(r)
	}})
	p := t.makePod(pod("m", nil))
	if len(p.Spec.InitContainers) != 1 || p.Spec.InitContainers[0].Name != "webhook-added-init-container" || p.Spec.InitContainers[0].TerminationMessagePolicy != v1.TerminationMessageReadFile {
		t.Errorf("init containers: %+v", p.Spec.InitContainers)
	}
})

func (t *T) mutatesCustom(c custom, version string, wanted map[string]any) {
	t.Helper()
	t.webhook(hook{kind: "Mutating", rule: rule(c.gvr.Group, "*", c.gvr.Resource, "CREATE", "UPDATE"), f: func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		if r.Resource.Resource == "configmaps" {
			return allow(r)
		}
		return mutate(`[{"op":"add","path":"/data/mutation-stage-1","value":"yes"},{"op":"add","path":"/data/mutation-stage-2","value":"yes"}]`)(r)
	}})
	u := got[*unstructured.Unstructured](t)(t.Dynamic.Resource(c.gvr.GroupResource().WithVersion(version)).Namespace(t.NS).Create(t.Context(),
		t.object("{apiVersion: %s/%s, kind: %s, metadata: {name: m}, data: {mutation-start: 'yes'}}", c.gvr.Group, version, c.kind), create))
	data, _, _ := unstructured.NestedMap(u.Object, "data")
	if fmt.Sprint(data) != fmt.Sprint(wanted) {
		t.Errorf("data: %v, want %v", data, wanted)
	}
}

var both = dict{"mutation-start": "yes", "mutation-stage-1": "yes", "mutation-stage-2": "yes"}

var _ = It("[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should mutate custom resource", func(t *T) {
	t.mutatesCustom(t.crd(crdOptions{}), "v1", both)
})

var _ = It("[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should mutate custom resource with pruning", func(t *T) {
	t.mutatesCustom(t.crd(crdOptions{schema: "{type: object, properties: {data: {type: object, properties: {mutation-start: {type: string}, mutation-stage-1: {type: string}}}}}"}), "v1",
		dict{"mutation-start": "yes", "mutation-stage-1": "yes"})
})

var _ = It("[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should mutate custom resource with different stored version", func(t *T) {
	c := t.crd(crdOptions{versions: []string{"v1", "v2"}})
	t.mutatesCustom(c, "v1", both)
	client := t.crds().ApiextensionsV1().CustomResourceDefinitions()
	got[*apiextensionsv1.CustomResourceDefinition](t)(client.Patch(t.Context(), c.def.Name, types.JSONPatchType,
		[]byte(`[{"op":"replace","path":"/spec/versions/0/storage","value":false},{"op":"replace","path":"/spec/versions/1/storage","value":true}]`), metav1.PatchOptions{}))
	t.until("the new storage version", func(ctx context.Context) (bool, error) {
		d, err := client.Get(ctx, c.def.Name, get)
		return err == nil && len(d.Status.StoredVersions) == 2, err
	})
	u := got[*unstructured.Unstructured](t)(t.of(c).Patch(t.Context(), "m", types.MergePatchType, []byte(`{"data":{"dummy":"test"}}`), metav1.PatchOptions{}))
	data, _, _ := unstructured.NestedMap(u.Object, "data")
	if data["dummy"] != "test" || data["mutation-stage-2"] != "yes" {
		t.Errorf("data: %v", data)
	}
})

var _ = It("[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should deny crd creation", func(t *T) {
	t.webhook(hook{kind: "Validating", rule: rule("apiextensions.k8s.io", "*", "customresourcedefinitions", "CREATE"), everywhere: true,
		extra: dict{"objectSelector": dict{"matchLabels": dict{"deny": t.NS}}}, f: refuse("the crd contains unwanted label")})
	client := t.crds().ApiextensionsV1().CustomResourceDefinitions()
	preserve := true
	def := &apiextensionsv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: "denieds.deny.example.com", Labels: map[string]string{"deny": t.NS}},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{Group: "deny.example.com", Scope: apiextensionsv1.NamespaceScoped, Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "denieds", Kind: "Denied"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{Name: "v1", Served: true, Storage: true, Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object", XPreserveUnknownFields: &preserve}}}}}}
	t.until("the denial", func(ctx context.Context) (bool, error) {
		_, err := client.Create(ctx, def, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err != nil && strings.Contains(err.Error(), "the crd contains unwanted label"), nil
	})
})

var _ = It("[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should mutate everything except 'skip-me' configmaps", func(t *T) {
	t.webhook(hook{kind: "Mutating", rule: rule("*", "*", "*", "CREATE"), f: mutate(`[{"op":"add","path":"/metadata/labels","value":{"mutated":"yes"}}]`),
		extra: dict{"matchConditions": []any{
			dict{"name": "skip-me", "expression": "object.metadata.name != 'skip-me'"},
			// Objects that are in no namespace are those of other tests too.
			dict{"name": "in-namespace", "expression": "has(request.namespace) && request.namespace == '" + t.NS + "'"},
		}}})
	t.until("the mutation", func(ctx context.Context) (bool, error) {
		cm, err := t.Client.CoreV1().ConfigMaps(t.NS).Create(ctx, configMap("mutate-me"+rand.String(5), nil), create)
		return err == nil && cm.Labels["mutated"] == "yes", err
	})
	if cm := got[*v1.ConfigMap](t)(t.Client.CoreV1().ConfigMaps(t.NS).Create(t.Context(), configMap("skip-me", nil), create)); len(cm.Labels) > 0 {
		t.Errorf("labels: %v", cm.Labels)
	}
})

var _ = It("[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should honor timeout", func(t *T) {
	slow := func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		time.Sleep(3 * time.Second)
		return allow(r)
	}
	try := func(extra dict, fails bool) {
		t.Helper()
		name := t.webhook(hook{kind: "Validating", rule: rule("", "v1", "configmaps", "CREATE"), f: slow, extra: extra})
		// The API server sees the configuration a moment later.
		t.until("the webhook to be called", func(ctx context.Context) (bool, error) {
			begin := time.Now()
			_, err := t.Client.CoreV1().ConfigMaps(t.NS).Create(ctx, configMap("slow"+rand.String(5), nil), create)
			if time.Since(begin) < 900*time.Millisecond {
				return false, nil
			}
			if fails != (err != nil) {
				t.Errorf("%v: %v", extra, err)
			}
			return true, nil
		})
		t.must(t.Dynamic.Resource(gvr(admission, "v1", configurations("Validating"))).Delete(t.Context(), name, remove))
	}
	try(dict{"timeoutSeconds": 1, "failurePolicy": "Fail"}, true)
	try(dict{"timeoutSeconds": 1, "failurePolicy": "Ignore"}, false)
	try(dict{"timeoutSeconds": 10, "failurePolicy": "Fail"}, false)
})

var _ = It("[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should not be able to mutate or prevent deletion of webhook configuration objects", func(t *T) {
	t.webhook(hook{kind: "Validating", rule: rule(admission, "*", "*", "DELETE"), everywhere: true, f: refuse("no"), extra: dict{"objectSelector": dict{"matchLabels": dict{"conformance-test": t.NS}}}})
	t.webhook(hook{kind: "Mutating", rule: rule(admission, "*", "*", "CREATE"), everywhere: true, f: mutate(`[{"op":"add","path":"/metadata/labels/mutated","value":"yes"}]`), extra: dict{"objectSelector": dict{"matchLabels": dict{"conformance-test": t.NS}}}})
	for _, kind := range []string{"Validating", "Mutating"} {
		name := "conformance-dummy-" + rand.String(6)
		_, ca := t.servingCert(*webhookHost)
		t.configure(kind, name, dict{"name": "dummy.example.com", "clientConfig": dict{"url": "https://127.0.0.1:1", "caBundle": ca}, "failurePolicy": "Ignore", "sideEffects": "None", "admissionReviewVersions": []any{"v1"},
			"rules": []any{rule("", "v1", "never", "CREATE")}})
		client := t.Dynamic.Resource(gvr(admission, "v1", configurations(kind)))
		if u := got[*unstructured.Unstructured](t)(client.Get(t.Context(), name, get)); u.GetLabels()["mutated"] != "" {
			t.Errorf("%s %s is mutated", kind, name)
		}
		t.must(client.Delete(t.Context(), name, remove))
	}
})

var _ = It("[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should include webhook resources in discovery documents", func(t *T) {
	l := got[*metav1.APIResourceList](t)(t.Client.Discovery().ServerResourcesForGroupVersion(admission + "/v1"))
	found := map[string]bool{}
	for _, r := range l.APIResources {
		found[r.Name] = true
	}
	if !found["mutatingwebhookconfigurations"] || !found["validatingwebhookconfigurations"] {
		t.Errorf("%v", found)
	}
	for _, path := range []string{"/apis/" + admission, "/apis/" + admission + "/v1"} {
		if _, _, code := t.raw(path, "application/json"); code != http.StatusOK {
			t.Errorf("%s: %d", path, code)
		}
	}
})

// listed checks that two webhooks of a kind work, are listed, and no longer work
// after deletecollection.
func (t *T) listed(kind string, f answer, works func(error, *v1.ConfigMap) bool) {
	for range 2 {
		t.webhook(hook{kind: kind, rule: rule("", "v1", "configmaps", "CREATE"), f: f})
	}
	client := t.Dynamic.Resource(gvr(admission, "v1", configurations(kind)))
	mine := metav1.ListOptions{LabelSelector: "conformance-test=" + t.NS}
	if l := got[*unstructured.UnstructuredList](t)(client.List(t.Context(), mine)); len(l.Items) != 2 {
		t.Errorf("%d are listed", len(l.Items))
	}
	cm, err := t.Client.CoreV1().ConfigMaps(t.NS).Create(t.Context(), configMap("first", map[string]string{"a": "b"}), create)
	if !works(err, cm) {
		t.Errorf("with webhooks: %v %v", cm, err)
	}
	t.must(client.DeleteCollection(t.Context(), remove, mine))
	t.until("the end of the webhooks", func(ctx context.Context) (bool, error) {
		cm, err := t.Client.CoreV1().ConfigMaps(t.NS).Create(ctx, configMap("later"+rand.String(5), map[string]string{"a": "b"}), create)
		return !works(err, cm), nil
	})
}

var _ = It("[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] listing validating webhooks should work", func(t *T) {
	t.listed("Validating", refuse("no"), func(err error, _ *v1.ConfigMap) bool { return err != nil })
})

const addMutated = `[{"op":"add","path":"/data/mutated","value":"yes"}]`

var _ = It("[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] listing mutating webhooks should work", func(t *T) {
	t.listed("Mutating", mutate(addMutated), func(err error, cm *v1.ConfigMap) bool { return err == nil && cm.Data["mutated"] == "yes" })
})

// patched removes CREATE from a webhook's rules by an update, adds it again by a
// patch, and checks the effect of both.
func (t *T) patched(kind string, f answer, works func(error, *v1.ConfigMap) bool) {
	name := t.webhook(hook{kind: kind, rule: rule("", "v1", "configmaps", "CREATE"), f: f})
	client := t.Dynamic.Resource(gvr(admission, "v1", configurations(kind)))
	expect := func(what string, want bool) {
		t.Helper()
		t.until(what, func(ctx context.Context) (bool, error) {
			cm, err := t.Client.CoreV1().ConfigMaps(t.NS).Create(ctx, configMap("c"+rand.String(5), map[string]string{"a": "b"}), create)
			return works(err, cm) == want, nil
		})
	}
	expect("the webhook", true)
	t.change(client, name, "", func(u *unstructured.Unstructured) {
		hooks, _, _ := unstructured.NestedSlice(u.Object, "webhooks")
		hooks[0].(dict)["rules"] = []any{rule("", "v1", "configmaps", "UPDATE")}
		t.must(unstructured.SetNestedSlice(u.Object, hooks, "webhooks"))
	})
	expect("the webhook to leave creations alone", false)
	got[*unstructured.Unstructured](t)(client.Patch(t.Context(), name, types.JSONPatchType, []byte(`[{"op":"replace","path":"/webhooks/0/rules/0/operations","value":["CREATE"]}]`), metav1.PatchOptions{}))
	expect("the webhook to see creations", true)
}

var _ = It("[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] patching/updating a validating webhook should work", func(t *T) {
	t.patched("Validating", refuse("no"), func(err error, _ *v1.ConfigMap) bool { return err != nil })
})

var _ = It("[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] patching/updating a mutating webhook should work", func(t *T) {
	t.patched("Mutating", mutate(addMutated), func(err error, cm *v1.ConfigMap) bool { return err == nil && cm.Data["mutated"] == "yes" })
})

// conditions checks that match conditions are accepted if they compile, and
// refused if they do not.
func (t *T) conditions(kind string, good bool) {
	_, ca := t.servingCert(*webhookHost)
	name := "conformance-" + rand.String(6)
	make := func(expressions ...string) *unstructured.Unstructured {
		var list []any
		for i, e := range expressions {
			list = append(list, dict{"name": fmt.Sprintf("c%d", i), "expression": e})
		}
		u := &unstructured.Unstructured{}
		t.must(json.Unmarshal(patchOf(dict{"apiVersion": admission + "/v1", "kind": kind + "WebhookConfiguration", "metadata": dict{"name": name}, "webhooks": []any{dict{
			"name": "w.example.com", "clientConfig": dict{"url": "https://127.0.0.1:1", "caBundle": ca}, "failurePolicy": "Ignore", "sideEffects": "None", "admissionReviewVersions": []any{"v1"},
			"matchConditions": list, "rules": []any{rule("", "v1", "never", "CREATE")}}}}), &u.Object))
		return u
	}
	client := t.Dynamic.Resource(gvr(admission, "v1", configurations(kind)))
	if !good {
		_, err := client.Create(t.Context(), make("... [] bad expression"), create)
		if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "compilation failed") {
			t.Errorf("got %v", err)
		}
		return
	}
	u := got[*unstructured.Unstructured](t)(client.Create(t.Context(), make("object.metadata.namespace == 'production'"), create))
	defer func() { t.must(client.Delete(context.WithoutCancel(t.Context()), name, remove)) }()
	next := make("object.metadata.namespace == 'production'", "request.kind.kind == 'X'")
	next.SetResourceVersion(u.GetResourceVersion())
	got[*unstructured.Unstructured](t)(client.Update(t.Context(), next, update))
	hooks, _, _ := unstructured.NestedSlice(got[*unstructured.Unstructured](t)(client.Get(t.Context(), name, get)).Object, "webhooks")
	if list := hooks[0].(dict)["matchConditions"].([]any); len(list) != 2 {
		t.Errorf("conditions: %v", list)
	}
}

var _ = It("[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should be able to create and update validating webhook configurations with match conditions", func(t *T) { t.conditions("Validating", true) })
var _ = It("[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should be able to create and update mutating webhook configurations with match conditions", func(t *T) { t.conditions("Mutating", true) })
var _ = It("[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should reject validating webhook configurations with invalid match conditions", func(t *T) { t.conditions("Validating", false) })
var _ = It("[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should reject mutating webhook configurations with invalid match conditions", func(t *T) { t.conditions("Mutating", false) })

// converting returns a definition whose versions a webhook of the test's converts:
// v1 has hostPort "host:port", v2 has host and port.
func (t *T) converting() custom {
	conf := t.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review apiextensionsv1.ConversionReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		review.Response = &apiextensionsv1.ConversionResponse{UID: review.Request.UID, Result: metav1.Status{Status: metav1.StatusSuccess}}
		for _, raw := range review.Request.Objects {
			u := &unstructured.Unstructured{}
			if err := json.Unmarshal(raw.Raw, &u.Object); err != nil {
				review.Response.Result = metav1.Status{Status: metav1.StatusFailure, Message: err.Error()}
				break
			}
			if strings.HasSuffix(review.Request.DesiredAPIVersion, "/v2") {
				if hp, ok := u.Object["hostPort"].(string); ok {
					host, port, _ := strings.Cut(hp, ":")
					delete(u.Object, "hostPort")
					u.Object["host"], u.Object["port"] = host, port
				}
			} else if host, ok := u.Object["host"].(string); ok {
				u.Object["hostPort"] = fmt.Sprintf("%s:%v", host, u.Object["port"])
				delete(u.Object, "host")
				delete(u.Object, "port")
			}
			u.SetAPIVersion(review.Request.DesiredAPIVersion)
			b, _ := json.Marshal(u.Object)
			review.Response.ConvertedObjects = append(review.Response.ConvertedObjects, runtime.RawExtension{Raw: b})
		}
		review.Request = nil
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(review)
	}))
	url := conf["url"].(string)
	return t.crd(crdOptions{versions: []string{"v1", "v2"}, change: func(d *apiextensionsv1.CustomResourceDefinition) {
		d.Spec.Conversion = &apiextensionsv1.CustomResourceConversion{Strategy: apiextensionsv1.WebhookConverter, Webhook: &apiextensionsv1.WebhookConversion{
			ConversionReviewVersions: []string{"v1"}, ClientConfig: &apiextensionsv1.WebhookClientConfig{URL: &url, CABundle: conf["caBundle"].([]byte)}}}
	}})
}

var _ = It("[sig-api-machinery] CustomResourceConversionWebhook [Privileged:ClusterAdmin] should be able to convert from CR v1 to CR v2", func(t *T) {
	c := t.converting()
	got[*unstructured.Unstructured](t)(t.of(c).Create(t.Context(), c.object(t, "x", ", hostPort: 'localhost:8080'"), create))
	u := got[*unstructured.Unstructured](t)(t.Dynamic.Resource(c.gvr.GroupResource().WithVersion("v2")).Namespace(t.NS).Get(t.Context(), "x", get))
	if u.Object["host"] != "localhost" || u.Object["port"] != "8080" || u.Object["hostPort"] != nil {
		t.Errorf("as v2: %v", u.Object)
	}
})

var _ = It("[sig-api-machinery] CustomResourceConversionWebhook [Privileged:ClusterAdmin] should be able to convert a non homogeneous list of CRs", func(t *T) {
	c := t.converting()
	v2 := c
	v2.gvr.Version = "v2"
	got[*unstructured.Unstructured](t)(t.of(c).Create(t.Context(), c.object(t, "one", ", hostPort: 'localhost:8080'"), create))
	client := t.crds().ApiextensionsV1().CustomResourceDefinitions()
	got[*apiextensionsv1.CustomResourceDefinition](t)(client.Patch(t.Context(), c.def.Name, types.JSONPatchType,
		[]byte(`[{"op":"replace","path":"/spec/versions/0/storage","value":false},{"op":"replace","path":"/spec/versions/1/storage","value":true}]`), metav1.PatchOptions{}))
	t.until("the new storage version", func(ctx context.Context) (bool, error) {
		d, err := client.Get(ctx, c.def.Name, get)
		return err == nil && len(d.Status.StoredVersions) == 2, err
	})
	got[*unstructured.Unstructured](t)(t.of(c).Create(t.Context(), c.object(t, "two", ", hostPort: 'localhost:8080'"), create))
	for _, v := range []custom{c, v2} {
		l := got[*unstructured.UnstructuredList](t)(t.of(v).List(t.Context(), all))
		if len(l.Items) != 2 {
			t.Fatalf("%d are listed", len(l.Items))
		}
		for _, u := range l.Items {
			if (u.Object["hostPort"] == "localhost:8080") != (v.gvr.Version == "v1") || (u.Object["host"] == "localhost") != (v.gvr.Version == "v2") {
				t.Errorf("as %s: %v", v.gvr.Version, u.Object)
			}
		}
	}
})
