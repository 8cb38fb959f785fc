package controlplane

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"keelson.dev/keelson/test/harness"
)

// TestManagedFieldsOfSimilarObjects creates similar custom objects, of which
// the API server analyses only the first, and others that differ a little.
func TestManagedFieldsOfSimilarObjects(t *testing.T) {
	c := boot(t, Options{NoDrain: true})
	const path = "/apis/bench.example.com/v1/namespaces/default/fish"
	if w := ask(c, "POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", fishDefinition); w.Code != http.StatusCreated {
		t.Fatal(w.Body)
	}
	harness.Eventually(t, "the definition to be served", func() bool { return ask(c, "GET", path, "").Code == http.StatusOK })
	n := 0
	create := func(manager, rest string) metav1.ManagedFieldsEntry {
		t.Helper()
		n++
		w := ask(c, "POST", path+"?fieldManager="+manager, fmt.Sprintf(`{"apiVersion":"bench.example.com/v1","kind":"Fish","metadata":{"name":"fish-%d","labels":{"app":"%d"}},%s}`, n, n, rest))
		u := &unstructured.Unstructured{}
		if err := u.UnmarshalJSON(w.Body.Bytes()); err != nil || w.Code != http.StatusCreated {
			t.Fatal(w.Body, err)
		}
		m := u.GetManagedFields()
		if len(m) != 1 || m[0].Manager != manager || m[0].Operation != metav1.ManagedFieldsOperationUpdate || m[0].APIVersion != "bench.example.com/v1" ||
			m[0].FieldsType != "FieldsV1" || m[0].Subresource != "" || time.Since(m[0].Time.Time) > time.Minute {
			t.Fatalf("%+v", m)
		}
		return m[0]
	}
	fields := func(m metav1.ManagedFieldsEntry) (out map[string]any) {
		b, _ := json.Marshal(m.FieldsV1)
		if err := json.Unmarshal(b, &out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	const f = `{"f:metadata":{"f:labels":{".":{},"f:app":{}}},"f:spec":{".":{},%s}}`
	for i, o := range []struct{ manager, rest, owned string }{
		{"one", `"spec":{"colour":"red","length":1}`, `"f:colour":{},"f:length":{}`},
		{"one", `"spec":{"colour":"blue","length":2}`, `"f:colour":{},"f:length":{}`},
		{"two", `"spec":{"colour":"blue","length":3}`, `"f:colour":{},"f:length":{}`},
		{"one", `"spec":{"colour":"blue"}`, `"f:colour":{}`},
		{"one", `"spec":{"colour":"blue","length":2,"tags":["a"]}`, `"f:colour":{},"f:length":{},"f:tags":{}`},
		{"one", `"spec":{"colour":"blue","length":2,"tags":["b"]}`, `"f:colour":{},"f:length":{},"f:tags":{}`},
	} {
		var want map[string]any
		if err := json.Unmarshal(fmt.Appendf(nil, f, o.owned), &want); err != nil {
			t.Fatal(err)
		}
		if got := fields(create(o.manager, o.rest)); !equality.Semantic.DeepEqual(got, want) {
			t.Errorf("%d: %s owns %v, want %v", i, o.manager, got, want)
		}
	}
}
