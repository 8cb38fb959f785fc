package controlplane

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	kadmission "keelson.dev/keelson/internal/apiserver/admission"
	"keelson.dev/keelson/internal/apiserver/inprocess"
)

// staticAdmission writes a configuration of a plug-in with manifests, and returns its selection.
func staticAdmission(t *testing.T, plugin, kind, manifests string) kadmission.Selection {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "manifests"), 0o755); err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: %s
  configuration:
    apiVersion: apiserver.config.k8s.io/v1
    kind: %s
    staticManifestsDir: %s
`, plugin, kind, filepath.Join(dir, "manifests"))
	for path, text := range map[string]string{"config.yaml": config, "manifests/all.yaml": manifests} {
		if err := os.WriteFile(filepath.Join(dir, path), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return kadmission.Selection{ConfigFile: filepath.Join(dir, "config.yaml")}
}

const staticPolicy = `apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: no-bad.static.k8s.io}
spec:
  matchConstraints: {resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}]}
  validations: [{expression: "object.metadata.name != 'bad'", message: no such name}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: no-bad.static.k8s.io}
spec: {policyName: no-bad.static.k8s.io, validationActions: [Deny]}
`

// TestStaticAdmission checks that a policy in a file is in force from the first
// request on, is no object of the API, and no object of the API may look like one.
func TestStaticAdmission(t *testing.T) {
	o := Options{NoDrain: true, Admission: staticAdmission(t, "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyConfiguration", staticPolicy)}
	c := boot(t, o)
	ctx, client := t.Context(), c.Client(inprocess.Admin)
	make := func(name string) error {
		_, err := client.CoreV1().ConfigMaps("default").Create(ctx, &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		return err
	}
	if err := make("bad"); err == nil || !strings.Contains(err.Error(), "ValidatingAdmissionPolicy 'no-bad.static.k8s.io' with binding 'no-bad.static.k8s.io' denied request: no such name") {
		t.Errorf("bad: %v", err)
	}
	if err := make("good"); err != nil {
		t.Errorf("good: %v", err)
	}
	list, err := client.AdmissionregistrationV1().ValidatingAdmissionPolicies().List(ctx, metav1.ListOptions{})
	if err != nil || len(list.Items) != 0 {
		t.Errorf("%d policies in the API, %v", len(list.Items), err)
	}
	_, err = client.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings().Create(ctx, &admissionv1.ValidatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: "x.static.k8s.io"},
		Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{PolicyName: "no-bad.static.k8s.io", ValidationActions: []admissionv1.ValidationAction{admissionv1.Audit}}}, metav1.CreateOptions{})
	if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "static.k8s.io") {
		t.Errorf("a reserved name: %v", err)
	}
}

// TestStaticAdmissionRefused checks that the server does not start with manifests that
// are wrong.
func TestStaticAdmissionRefused(t *testing.T) {
	const webhook = `apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: w.static.k8s.io}
webhooks: [{name: a.b.c, sideEffects: None, admissionReviewVersions: [v1], clientConfig: {service: {name: s, namespace: n}}}]
`
	for name, c := range map[string]struct{ plugin, kind, manifests, want string }{
		"name":    {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyConfiguration", strings.ReplaceAll(staticPolicy, "no-bad.static.k8s.io", "no-bad"), `must have a name ending with ".static.k8s.io"`},
		"kind":    {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyConfiguration", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n", `"ConfigMap": want ValidatingAdmissionPolicy or ValidatingAdmissionPolicyBinding`},
		"CEL":     {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyConfiguration", strings.Replace(staticPolicy, "!= 'bad'", "!=", 1), "compilation failed"},
		"field":   {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyConfiguration", strings.Replace(staticPolicy, "validations:", "validation:", 1), `unknown field "validation"`},
		"binding": {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyConfiguration", strings.Replace(staticPolicy, "policyName: no-bad", "policyName: other", 1), `is of policy "other.static.k8s.io"`},
		"service": {"ValidatingAdmissionWebhook", "WebhookAdmissionConfiguration", webhook, "clientConfig.service is not allowed"},
	} {
		o := Options{NoDrain: true, Admission: staticAdmission(t, c.plugin, c.kind, c.manifests)}
		s, err := Start(context.WithoutCancel(t.Context()), o)
		if err == nil {
			_ = s.Stop()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}
