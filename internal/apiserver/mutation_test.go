package apiserver

import (
	"context"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
)

// mutator changes every object that is admitted, as a webhook may, and records what is
// validated.
type mutator struct {
	change func(metav1.Object)
	name   string
}

func (*mutator) Handles(admission.Operation) bool { return true }

func (m *mutator) Admit(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	acc, err := meta.Accessor(a.GetObject())
	if err != nil {
		return nil //nolint:nilerr // a deletion
	}
	m.change(acc)
	return nil
}

func (m *mutator) Validate(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	m.name = a.GetName()
	if acc, err := meta.Accessor(a.GetObject()); err == nil && acc.GetNamespace() != a.GetNamespace() && a.GetSubresource() == "" {
		return fmt.Errorf("validated in %q, of %q", a.GetNamespace(), acc.GetNamespace())
	}
	return nil
}

// TestMutation checks that the checks made before a plug-in changes an object hold
// after the change.
func TestMutation(t *testing.T) {
	const configMaps, pods = "/api/v1/namespaces/a/configmaps", "/api/v1/namespaces/a/pods"
	const wrongNamespace = "the namespace of the provided object does not match the namespace sent on the request"
	namespace := func(o metav1.Object) { o.SetNamespace("b") }
	name := func(o metav1.Object) { o.SetName("other") }
	for _, c := range []struct {
		name               string
		method, path, body string
		contentType        string
		change             func(metav1.Object)
		code               int
		want               string
	}{
		{"create in another namespace", "POST", configMaps, `{"metadata":{"name":"x"}}`, "", namespace, 400, wrongNamespace},
		{"create without a namespace", "POST", configMaps, `{"metadata":{"name":"x"}}`, "", func(o metav1.Object) { o.SetNamespace("") }, 201, `"namespace":"a"`},
		{"create with a namespace in the cluster", "POST", "/api/v1/nodes", `{"metadata":{"name":"x"}}`, "", namespace, 201, `"name":"x","uid"`},
		{"create under another name", "POST", configMaps, `{"metadata":{"name":"x"}}`, "", name, 201, `"name":"other"`},
		{"create of a version", "POST", configMaps, `{"metadata":{"name":"x"}}`, "", func(o metav1.Object) { o.SetResourceVersion("7") }, 500, "resourceVersion should not be set on objects to be created"},
		{"create with a UID", "POST", configMaps, `{"metadata":{"name":"x"}}`, "", func(o metav1.Object) { o.SetUID("mine") }, 201, ""},
		{"create as deleted", "POST", configMaps, `{"metadata":{"name":"x"}}`, "", func(o metav1.Object) { now := metav1.Now(); o.SetDeletionTimestamp(&now) }, 201, ""},
		{"create without a name", "POST", configMaps, `{"metadata":{"name":"x"}}`, "", func(o metav1.Object) { o.SetName("") }, 422, "name or generateName is required"},
		{"create with a generated name", "POST", configMaps, `{"metadata":{"name":"x"}}`, "", func(o metav1.Object) { o.SetName(""); o.SetGenerateName("g-") }, 201, `"name":"g-`},
		{"create with a name to be generated", "POST", configMaps, `{"metadata":{"generateName":"g-"}}`, "", func(metav1.Object) {}, 201, `"name":"g-`},
		{"create with a bad label", "POST", configMaps, `{"metadata":{"name":"x"}}`, "", func(o metav1.Object) { o.SetLabels(map[string]string{"a b": ""}) }, 422, "metadata.labels"},
		{"create by apply, elsewhere", "PATCH", configMaps + "/x?fieldManager=m", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"}}`, "application/apply-patch+yaml", namespace, 400, wrongNamespace},
		{"create by apply, under another name", "PATCH", configMaps + "/x?fieldManager=m", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"}}`, "application/apply-patch+yaml", name, 400, "the name of the object (other) does not match the name on the URL (x)"},
		{"create by update, under another name", "PUT", "/apis/coordination.k8s.io/v1/namespaces/a/leases/x", `{"metadata":{"name":"x"}}`, "", name, 400, "the name of the object (other) does not match the name on the URL (x)"},
		{"create with managed fields that are none", "POST", configMaps, `{"metadata":{"name":"x"},"data":{"a":"b"}}`, "", func(o metav1.Object) {
			o.SetManagedFields([]metav1.ManagedFieldsEntry{{Manager: "bad", Operation: "None", APIVersion: "v1", FieldsType: "x"}})
		}, 201, `"operation":"Update"`},

		{"update into another namespace", "PUT", configMaps + "/old", `{"metadata":{"name":"old"}}`, "", namespace, 400, wrongNamespace},
		{"update to another name", "PUT", configMaps + "/old", `{"metadata":{"name":"old"}}`, "", name, 422, "metadata.name: Invalid value"},
		{"update to another UID", "PUT", configMaps + "/old", `{"metadata":{"name":"old"}}`, "", func(o metav1.Object) { o.SetUID("mine") }, 422, "metadata.uid: Invalid value"},
		{"update without a UID", "PUT", configMaps + "/old", `{"metadata":{"name":"old"}}`, "", func(o metav1.Object) { o.SetUID("") }, 200, `"uid":"u-1"`},
		{"update to another version", "PUT", configMaps + "/old", `{"metadata":{"name":"old"}}`, "", func(o metav1.Object) { o.SetResourceVersion("77") }, 200, `"uid":"u-1"`},
		{"update to another generation", "PUT", configMaps + "/old", `{"metadata":{"name":"old"}}`, "", func(o metav1.Object) { o.SetGeneration(77) }, 200, `"uid":"u-1"`},
		{"patch into another namespace", "PATCH", configMaps + "/old", `{"data":{"a":"b"}}`, "application/merge-patch+json", namespace, 400, wrongNamespace},
		{"apply into another namespace", "PATCH", configMaps + "/old?fieldManager=m", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"old"}}`, "application/apply-patch+yaml", namespace, 400, wrongNamespace},
		{"status into another namespace", "PATCH", pods + "/p/status", `{"status":{"phase":"Running"}}`, "application/merge-patch+json", namespace, 400, wrongNamespace},

		{"binding of another pod", "POST", pods + "/p/binding", `{"metadata":{"name":"p"},"target":{"name":"n"}}`, "", name, 400, "name in URL does not match name in Binding object"},
		{"binding elsewhere", "POST", pods + "/p/binding", `{"metadata":{"name":"p"},"target":{"name":"n"}}`, "", namespace, 400, wrongNamespace},
		{"binding to nothing", "POST", pods + "/p/binding", `{"metadata":{"name":"p"},"target":{"name":"n"}}`, "", func(o metav1.Object) { o.(*v1.Binding).Target.Name = "" }, 422, "target.name: Required value"},
		{"eviction of another pod", "POST", pods + "/p/eviction", `{"metadata":{"name":"p"}}`, "", name, 400, "name in URL does not match name in Eviction object"},
		{"eviction elsewhere", "POST", pods + "/p/eviction", `{"metadata":{"name":"p"}}`, "", namespace, 400, wrongNamespace},
		{"eviction of what is not there any more", "POST", pods + "/p/eviction", `{"metadata":{"name":"p"}}`, "", func(o metav1.Object) {
			uid := types.UID("another")
			o.(*policyv1.Eviction).DeleteOptions = &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}}
		}, 409, "Precondition failed: UID in precondition: another"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := as(t, &user.DefaultInfo{Name: "root"}, nil, nil)
			m := &mutator{change: c.change}
			s.Admission = m
			row := s.Catalogue.Lookup("", "v1", "configmaps")
			if _, err := s.Store.Create(t.Context(), row.Key("a", "old"), &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "old", UID: "u-1", CreationTimestamp: metav1.Now()}}, 0); err != nil {
				t.Fatal(err)
			}
			row = s.Catalogue.Lookup("", "v1", "pods")
			if _, err := s.Store.Create(t.Context(), row.Key("a", "p"), &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "p", UID: "u-2", CreationTimestamp: metav1.Now()},
				Spec: v1.PodSpec{RestartPolicy: v1.RestartPolicyAlways, DNSPolicy: v1.DNSClusterFirst, Containers: []v1.Container{{Name: "c", Image: "i", ImagePullPolicy: v1.PullAlways, TerminationMessagePolicy: v1.TerminationMessageReadFile}}}}, 0); err != nil {
				t.Fatal(err)
			}
			r := httptest.NewRequest(c.method, c.path, strings.NewReader(c.body))
			r.Header.Set("Content-Type", "application/json")
			if c.contentType != "" {
				r.Header.Set("Content-Type", c.contentType)
			}
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			got := w.Body.String()
			if w.Code != c.code || !strings.Contains(got, c.want) {
				t.Errorf("%d %s, want %d %s", w.Code, got, c.code, c.want)
			}
			for _, never := range []string{`"uid":"mine"`, `"deletionTimestamp"`, `"generation":77`, `"resourceVersion":"7"`, `"resourceVersion":"77"`, `"namespace":"b"`, `"manager":"bad"`} {
				if w.Code < 300 && strings.Contains(got, never) {
					t.Errorf("%s in %s", never, got)
				}
			}
			if w.Code == 201 && strings.Contains(c.body, "generateName") && !strings.HasPrefix(m.name, "g-") {
				t.Errorf("validated under the name %q", m.name)
			}
		})
	}
}
