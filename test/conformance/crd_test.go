package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
)

func (t *T) condition(f func() bool) func(context.Context) (bool, error) {
	return func(context.Context) (bool, error) { return f(), nil }
}

func (t *T) crds() clientset.Interface { return clientset.NewForConfigOrDie(t.Config) }

type crdOptions struct {
	// schema is the schema of each version in YAML; "" preserves unknown fields.
	schema string
	// versions are the served versions, the first of which is stored; default v1.
	versions []string
	group    string
	change   func(*apiextensionsv1.CustomResourceDefinition)
}

// custom is a custom resource that a test has defined.
type custom struct {
	gvr  schema.GroupVersionResource
	kind string
	def  *apiextensionsv1.CustomResourceDefinition
}

// crd defines a resource until the end of the test, and waits until it is served.
func (t *T) crd(o crdOptions) custom {
	t.Helper()
	id := rand.String(6)
	if o.group == "" {
		o.group = "conformance-" + id + ".example.com"
	}
	if o.versions == nil {
		o.versions = []string{"v1"}
	}
	c := custom{schema.GroupVersionResource{Group: o.group, Version: o.versions[0], Resource: "foo" + id + "s"}, "Foo" + id, nil}
	def := &apiextensionsv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: c.gvr.Resource + "." + o.group, Labels: map[string]string{"conformance-test": t.NS}},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{Group: o.group, Scope: apiextensionsv1.NamespaceScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: c.gvr.Resource, Singular: "foo" + id, Kind: c.kind, ListKind: c.kind + "List"}}}
	for i, v := range o.versions {
		s := &apiextensionsv1.JSONSchemaProps{Type: "object"}
		if o.schema == "" {
			preserve := true
			s.XPreserveUnknownFields = &preserve
		} else {
			u := t.object("%s", o.schema)
			b := got[[]byte](t)(json.Marshal(u.Object))
			t.must(json.Unmarshal(b, s))
		}
		def.Spec.Versions = append(def.Spec.Versions, apiextensionsv1.CustomResourceDefinitionVersion{Name: v, Served: true, Storage: i == 0,
			Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: s}})
	}
	if o.change != nil {
		o.change(def)
	}
	client := t.crds().ApiextensionsV1().CustomResourceDefinitions()
	c.def = got[*apiextensionsv1.CustomResourceDefinition](t)(client.Create(t.Context(), def, create))
	t.Cleanup(func() {
		if err := client.Delete(context.Background(), def.Name, remove); err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	})
	t.established(def.Name)
	return c
}

func (t *T) established(name string) {
	t.Helper()
	t.until(name+" to be established", func(ctx context.Context) (bool, error) {
		d, err := t.crds().ApiextensionsV1().CustomResourceDefinitions().Get(ctx, name, get)
		if err != nil {
			return false, err
		}
		for _, c := range d.Status.Conditions {
			if c.Type == apiextensionsv1.Established && c.Status == apiextensionsv1.ConditionTrue {
				return true, nil
			}
		}
		return false, nil
	})
}

func (t *T) of(c custom) dynamic.ResourceInterface { return t.Dynamic.Resource(c.gvr).Namespace(t.NS) }

func (c custom) object(t *T, name, rest string) *unstructured.Unstructured {
	return t.object("{apiVersion: %s, kind: %s, metadata: {name: %s}%s}", c.gvr.GroupVersion(), c.kind, name, rest)
}

const validated = `{type: object, description: Foo CRD for Testing, properties: {
  spec: {type: object, description: Specification of Foo, properties: {bars: {type: array, description: List of Bars and their specs., items: {type: object, required: [name],
    properties: {name: {type: string, description: Name of Bar.}, age: {type: string, description: Age of Bar.}, feeling: {type: string, enum: [Great, Down]}, bazs: {type: array, items: {type: string}}}}}}},
  status: {type: object, properties: {bars: {type: array, items: {type: object, properties: {name: {type: string}, available: {type: boolean}}}}}}}}`

var _ = It("[sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] Simple CustomResourceDefinition creating/deleting custom resource definition objects works", func(t *T) {
	c := t.crd(crdOptions{})
	client := t.crds().ApiextensionsV1().CustomResourceDefinitions()
	t.must(client.Delete(t.Context(), c.def.Name, remove))
	t.until("the end of the definition", func(ctx context.Context) (bool, error) {
		_, err := client.Get(ctx, c.def.Name, get)
		return apierrors.IsNotFound(err), nil
	})
})

var _ = It("[sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] Simple CustomResourceDefinition listing custom resource definition objects works", func(t *T) {
	for range 3 {
		t.crd(crdOptions{})
	}
	client := t.crds().ApiextensionsV1().CustomResourceDefinitions()
	mine := metav1.ListOptions{LabelSelector: "conformance-test=" + t.NS}
	if l := got[*apiextensionsv1.CustomResourceDefinitionList](t)(client.List(t.Context(), mine)); len(l.Items) != 3 {
		t.Errorf("%d are listed", len(l.Items))
	}
	t.must(client.DeleteCollection(t.Context(), remove, mine))
	t.until("the end of the definitions", func(ctx context.Context) (bool, error) {
		l, err := client.List(ctx, mine)
		return err == nil && len(l.Items) == 0, err
	})
})

var _ = It("[sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] Simple CustomResourceDefinition getting/updating/patching custom resource definition status sub-resource works", func(t *T) {
	c := t.crd(crdOptions{})
	client := t.crds().ApiextensionsV1().CustomResourceDefinitions()
	t.until("an update of the status", func(ctx context.Context) (bool, error) {
		d, err := client.Get(ctx, c.def.Name, get)
		if err != nil {
			return false, err
		}
		d.Status.Conditions = append(d.Status.Conditions, apiextensionsv1.CustomResourceDefinitionCondition{Type: "StatusUpdate", Status: apiextensionsv1.ConditionTrue, Reason: "E2E"})
		_, err = client.UpdateStatus(ctx, d, update)
		if apierrors.IsConflict(err) {
			return false, nil
		}
		return err == nil, err
	})
	got[*unstructured.Unstructured](t)(t.Dynamic.Resource(apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions")).Get(t.Context(), c.def.Name, get, "status"))
	d := got[*apiextensionsv1.CustomResourceDefinition](t)(client.Patch(t.Context(), c.def.Name, types.StrategicMergePatchType,
		[]byte(`{"metadata":{"annotations":{"test-patch":"true"}},"status":{"conditions":[{"type":"StatusPatched","status":"True","reason":"E2E"}]}}`), metav1.PatchOptions{}, "status"))
	updated, patched := false, false
	for _, c := range d.Status.Conditions {
		updated, patched = updated || c.Type == "StatusUpdate", patched || c.Type == "StatusPatched"
	}
	if !patched {
		t.Errorf("conditions: %+v", d.Status.Conditions)
	}
})

var _ = It("[sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] should include custom resource definition resources in discovery documents", func(t *T) {
	groups := got[*metav1.APIGroupList](t)(t.Client.Discovery().ServerGroups())
	found := false
	for _, g := range groups.Groups {
		if g.Name == apiextensionsv1.GroupName {
			for _, v := range g.Versions {
				found = found || v.Version == "v1"
			}
		}
	}
	if !found {
		t.Error("apiextensions.k8s.io/v1 is not in /apis")
	}
	if _, _, code := t.raw("/apis/apiextensions.k8s.io", "application/json"); code != http.StatusOK {
		t.Errorf("/apis/apiextensions.k8s.io: %d", code)
	}
	l := got[*metav1.APIResourceList](t)(t.Client.Discovery().ServerResourcesForGroupVersion("apiextensions.k8s.io/v1"))
	found = false
	for _, r := range l.APIResources {
		found = found || r.Name == "customresourcedefinitions"
	}
	if !found {
		t.Error("customresourcedefinitions are not discovered")
	}
})

var _ = It("[sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] custom resource defaulting for requests and from storage works", func(t *T) {
	c := t.crd(crdOptions{schema: "{type: object, properties: {a: {type: string, default: A}, b: {type: string}}}"})
	u := got[*unstructured.Unstructured](t)(t.of(c).Create(t.Context(), c.object(t, "x", ""), create))
	if u.Object["a"] != "A" {
		t.Errorf("a is %v", u.Object["a"])
	}
	if _, ok := u.Object["b"]; ok {
		t.Error("b has a value")
	}
	client := t.crds().ApiextensionsV1().CustomResourceDefinitions()
	got[*apiextensionsv1.CustomResourceDefinition](t)(client.Patch(t.Context(), c.def.Name, types.JSONPatchType,
		[]byte(`[{"op":"add","path":"/spec/versions/0/schema/openAPIV3Schema/properties/b/default","value":"B"}]`), metav1.PatchOptions{}))
	t.until("the default of b", func(ctx context.Context) (bool, error) {
		u, err := t.of(c).Get(ctx, "x", get)
		return err == nil && u.Object["b"] == "B", err
	})
	u = got[*unstructured.Unstructured](t)(t.of(c).Patch(t.Context(), "x", types.MergePatchType, []byte(`{"a":"mine"}`), metav1.PatchOptions{}))
	if u.Object["a"] != "mine" || u.Object["b"] != "B" {
		t.Errorf("%v", u.Object)
	}
})

var _ = It("[sig-api-machinery] CustomResourceDefinition Watch [Privileged:ClusterAdmin] CustomResourceDefinition Watch watch on custom resource definition objects", func(t *T) {
	c := t.crd(crdOptions{})
	for _, name := range []string{"name1", "name2"} {
		w := got[watch.Interface](t)(t.of(c).Watch(t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=" + name}))
		defer w.Stop()
		got[*unstructured.Unstructured](t)(t.of(c).Create(t.Context(), c.object(t, name, ", content: {key: value}"), create))
		t.event(w, watch.Added, nil)
		got[*unstructured.Unstructured](t)(t.of(c).Patch(t.Context(), name, types.MergePatchType, []byte(`{"content":{"key":"changed"}}`), metav1.PatchOptions{}))
		t.event(w, watch.Modified, nil)
		t.must(t.of(c).Delete(t.Context(), name, remove))
		t.event(w, watch.Deleted, nil)
	}
})

var _ = It("[sig-api-machinery] CustomResourceFieldSelectors [Privileged:ClusterAdmin] CustomResourceFieldSelectors MUST list and watch custom resources matching the field selector", func(t *T) {
	c := t.crd(crdOptions{schema: "{type: object, properties: {hostPort: {type: string}}}", change: func(d *apiextensionsv1.CustomResourceDefinition) {
		d.Spec.Versions[0].SelectableFields = []apiextensionsv1.SelectableField{{JSONPath: ".hostPort"}}
	}})
	selected := metav1.ListOptions{FieldSelector: "hostPort=host:8080"}
	w := got[watch.Interface](t)(t.of(c).Watch(t.Context(), selected))
	defer w.Stop()
	for name, port := range map[string]string{"a": "host:80", "b": "host:8080"} {
		got[*unstructured.Unstructured](t)(t.of(c).Create(t.Context(), c.object(t, name, ", hostPort: '"+port+"'"), create))
	}
	t.event(w, watch.Added, func(o runtime.Object) bool {
		if n := o.(*unstructured.Unstructured).GetName(); n != "b" {
			t.Errorf("the watch has %s", n)
		}
		return true
	})
	l := got[*unstructured.UnstructuredList](t)(t.of(c).List(t.Context(), selected))
	if len(l.Items) != 1 || l.Items[0].GetName() != "b" {
		t.Errorf("the list has %v", l.Items)
	}
	got[*unstructured.Unstructured](t)(t.of(c).Patch(t.Context(), "b", types.MergePatchType, []byte(`{"hostPort":"other:1"}`), metav1.PatchOptions{}))
	t.event(w, watch.Deleted, nil)
	t.must(t.of(c).DeleteCollection(t.Context(), remove, metav1.ListOptions{FieldSelector: "hostPort=other:1"}))
	if l := got[*unstructured.UnstructuredList](t)(t.of(c).List(t.Context(), all)); len(l.Items) != 1 || l.Items[0].GetName() != "a" {
		t.Errorf("after the deletion: %v", l.Items)
	}
})

// published returns the definition of the resource's kind in /openapi/v2, nil if
// there is none.
func (t *T) published(c custom, version string) dict {
	t.Helper()
	b, _, code := t.raw("/openapi/v2", "application/json")
	if code != http.StatusOK {
		t.Fatalf("/openapi/v2: %d", code)
	}
	var doc struct {
		Definitions map[string]dict `json:"definitions"`
	}
	t.must(json.Unmarshal(b, &doc))
	parts := strings.Split(c.gvr.Group, ".")
	for i, j := 0, len(parts)-1; i < j; i, j = i+1, j-1 {
		parts[i], parts[j] = parts[j], parts[i]
	}
	return doc.Definitions[strings.Join(parts, ".")+"."+version+"."+c.kind]
}

func (t *T) publishes(c custom, version string, ok func(dict) bool) {
	t.Helper()
	t.until(fmt.Sprintf("%s %s in OpenAPI", version, c.kind), t.condition(func() bool {
		d := t.published(c, version)
		return d != nil && ok(d)
	}))
}

func anything(dict) bool { return true }

var _ = It("[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for CRD with validation schema", func(t *T) {
	c := t.crd(crdOptions{schema: validated})
	t.publishes(c, "v1", func(d dict) bool { return d["description"] == "Foo CRD for Testing" })
	good, bad := c.object(t, "x", ", spec: {bars: [{name: test-bar}]}"), c.object(t, "x", ", spec: {bars: [{feeling: NonExistent}]}")
	for _, u := range []*unstructured.Unstructured{good, bad} {
		file := t.file(u)
		out, err := t.kubectl("", "create", "-f", file)
		if (err == nil) != (u == good) {
			t.Errorf("kubectl create: %v: %s", err, out)
		}
	}
	if out, err := t.kubectl("", "apply", "-f", t.file(c.object(t, "other", ", spec: {bars: [{name: a, unknown: b}]}"))); err == nil || !strings.Contains(out, "unknown field") {
		t.Errorf("kubectl apply of an unknown field: %v: %s", err, out)
	}
	out := t.kubectlOK("explain", c.gvr.Resource+".spec.bars")
	if !strings.Contains(out, "List of Bars and their specs.") || !strings.Contains(out, "age") {
		t.Errorf("kubectl explain: %s", out)
	}
	if out, err := t.kubectl("", "explain", c.gvr.Resource+".spec.bars2"); err == nil {
		t.Errorf("kubectl explain of what is not there: %s", out)
	}
})

var _ = It("[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for CRD without validation schema", func(t *T) { t.unvalidated("", "x: 1") })

var _ = It("[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for CRD preserving unknown fields at the schema root", func(t *T) {
	t.unvalidated("{type: object, x-kubernetes-preserve-unknown-fields: true}", "spec: {a: 1}")
})

var _ = It("[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for CRD preserving unknown fields in an embedded object", func(t *T) {
	t.unvalidated("{type: object, description: preserve-unknown-properties in nested field for Testing, properties: {spec: {type: object, description: Specification of Waldo, x-kubernetes-preserve-unknown-fields: true, properties: {dummy: {type: string}}}}}", "spec: {b: [{c: d}]}")
})

// unvalidated checks that kubectl accepts unknown properties.
func (t *T) unvalidated(schema, field string) {
	c := t.crd(crdOptions{schema: schema})
	t.publishes(c, "v1", anything)
	for _, verb := range []string{"create", "apply"} {
		t.kubectlOK(verb, "-f", t.file(c.object(t, verb, ", "+field)))
	}
	if out := t.kubectlOK("explain", c.gvr.Resource); !strings.Contains(out, c.kind) {
		t.Errorf("kubectl explain: %s", out)
	}
}

var _ = It("[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for multiple CRDs of different groups", func(t *T) {
	for range 2 {
		t.publishes(t.crd(crdOptions{schema: validated}), "v1", anything)
	}
})

var _ = It("[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for multiple CRDs of same group but different versions", func(t *T) {
	group := "shared-" + rand.String(6) + ".example.com"
	t.publishes(t.crd(crdOptions{schema: validated, group: group, versions: []string{"v3"}}), "v3", anything)
	t.publishes(t.crd(crdOptions{schema: validated, group: group, versions: []string{"v2"}}), "v2", anything)
	c := t.crd(crdOptions{schema: validated, versions: []string{"v4", "v5"}})
	t.publishes(c, "v4", anything)
	t.publishes(c, "v5", anything)
})

var _ = It("[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for multiple CRDs of same group and version but different kinds", func(t *T) {
	group := "shared-" + rand.String(6) + ".example.com"
	for range 2 {
		t.publishes(t.crd(crdOptions{schema: validated, group: group}), "v1", anything)
	}
})

var _ = It("[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] updates the published spec when one version gets renamed", func(t *T) {
	c := t.crd(crdOptions{schema: validated, versions: []string{"v2", "v3"}})
	t.publishes(c, "v2", anything)
	t.publishes(c, "v3", anything)
	got[*apiextensionsv1.CustomResourceDefinition](t)(t.crds().ApiextensionsV1().CustomResourceDefinitions().Patch(t.Context(), c.def.Name, types.JSONPatchType,
		[]byte(`[{"op":"test","path":"/spec/versions/1/name","value":"v3"},{"op":"replace","path":"/spec/versions/1/name","value":"v4"}]`), metav1.PatchOptions{}))
	t.publishes(c, "v4", anything)
	t.until("the end of v3", t.condition(func() bool { return t.published(c, "v3") == nil }))
	t.publishes(c, "v2", anything)
})

var _ = It("[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] removes definition from spec when one version gets changed to not be served", func(t *T) {
	c := t.crd(crdOptions{schema: validated, versions: []string{"v5", "v6alpha1"}})
	t.publishes(c, "v6alpha1", anything)
	got[*apiextensionsv1.CustomResourceDefinition](t)(t.crds().ApiextensionsV1().CustomResourceDefinitions().Patch(t.Context(), c.def.Name, types.JSONPatchType,
		[]byte(`[{"op":"test","path":"/spec/versions/1/name","value":"v6alpha1"},{"op":"replace","path":"/spec/versions/1/served","value":false}]`), metav1.PatchOptions{}))
	t.until("the end of v6alpha1", t.condition(func() bool { return t.published(c, "v6alpha1") == nil }))
	t.publishes(c, "v5", anything)
})
