package customresource_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	v1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"keelson.dev/keelson/test/harness"
	"keelson.dev/keelson/testcluster"
)

const definition = `
metadata: {name: boats.sea.example.com}
spec:
  group: sea.example.com
  scope: Namespaced
  names: {plural: boats, singular: boat, kind: Boat, shortNames: [bt], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    selectableFields: [{jsonPath: .spec.colour}]
    additionalPrinterColumns:
    - {name: Colour, type: string, jsonPath: .spec.colour}
    - {name: Sails, type: integer, jsonPath: .spec.sails}
    - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.sails, statusReplicasPath: .status.sails, labelSelectorPath: .status.selector}
    schema:
      openAPIV3Schema:
        type: object
        description: A boat at sea.
        required: [spec]
        properties:
          spec:
            type: object
            required: [colour]
            x-kubernetes-validations:
            - {rule: "self.sails <= self.masts * 4", message: "too many sails"}
            - {rule: "self.colour == oldSelf.colour", message: "the colour is for ever"}
            properties:
              colour: {type: string, enum: [red, blue], description: What one sees of it.}
              sails: {type: integer, default: 2, minimum: 0}
              masts: {type: integer, default: 1}
              crew:
                type: array
                x-kubernetes-list-type: map
                x-kubernetes-list-map-keys: [name]
                items: {type: object, required: [name], properties: {name: {type: string}, rank: {type: string}}}
          status: {type: object, properties: {sails: {type: integer}, selector: {type: string}, where: {type: string}}}
`

var boats = schema.GroupVersionResource{Group: "sea.example.com", Version: "v1", Resource: "boats"}

type env struct {
	*testing.T
	ctx     context.Context
	cfg     *rest.Config
	crds    apiextensions.Interface
	dynamic dynamic.Interface
	core    kubernetes.Interface
}

func start(t *testing.T) *env {
	ctx, cancel := context.WithTimeout(t.Context(), 2*harness.Patience)
	t.Cleanup(cancel)
	cfg := testcluster.Start(t).Config
	return &env{t, ctx, cfg, apiextensions.NewForConfigOrDie(cfg), dynamic.NewForConfigOrDie(cfg), kubernetes.NewForConfigOrDie(cfg)}
}

// define creates a definition and waits until ok holds of it.
func (e *env) define(text string, ok func(*v1.CustomResourceDefinition) bool) *v1.CustomResourceDefinition {
	e.Helper()
	d := &v1.CustomResourceDefinition{}
	if err := yaml.UnmarshalStrict([]byte(text), d); err != nil {
		e.Fatal(err)
	}
	w, err := e.crds.ApiextensionsV1().CustomResourceDefinitions().Watch(e.ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", d.Name).String()})
	if err != nil {
		e.Fatal(err)
	}
	defer w.Stop()
	if _, err := e.crds.ApiextensionsV1().CustomResourceDefinitions().Create(e.ctx, d, metav1.CreateOptions{}); err != nil {
		e.Fatal(err)
	}
	for ev := range w.ResultChan() {
		if d, is := ev.Object.(*v1.CustomResourceDefinition); is && ok(d) {
			return d
		}
	}
	e.Fatalf("%s did not come to be as wanted", d.Name)
	return nil
}

func established(d *v1.CustomResourceDefinition) bool {
	return apihelpers.IsCRDConditionTrue(d, v1.Established)
}

func boat(name, spec string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal(fmt.Appendf(nil, "apiVersion: sea.example.com/v1\nkind: Boat\nmetadata: {name: %s}\nspec: %s\n", name, spec), &u.Object); err != nil {
		panic(err)
	}
	return u
}

func (e *env) raw(path, accept string) string {
	e.Helper()
	b, err := e.core.Discovery().RESTClient().Get().AbsPath(path).SetHeader("Accept", accept).Do(e.ctx).Raw()
	if err != nil {
		e.Fatalf("%s: %v: %s", path, err, b)
	}
	return string(b)
}

func TestCustomResource(t *testing.T) {
	e := start(t)
	e.define(definition, established)
	c := e.dynamic.Resource(boats).Namespace("default")

	// It is served at once, with its defaults and without unknown fields.
	made, err := c.Create(e.ctx, boat("one", `{colour: red, wheels: 4}`), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	spec := made.Object["spec"].(map[string]any)
	if spec["sails"] != int64(2) || spec["masts"] != int64(1) || spec["wheels"] != nil || made.GetGeneration() != 1 || made.GetUID() == "" {
		t.Errorf("made %v", made.Object)
	}
	for _, bad := range []struct{ name, spec, want string }{
		{"colour", `{colour: green}`, `spec.colour: Unsupported value: "green": supported values: "red", "blue"`},
		{"missing", `{}`, `spec.colour: Required value`},
		{"rule", `{colour: red, sails: 9}`, `spec: Invalid value: too many sails`},
		{"negative", `{colour: red, sails: -1}`, `spec.sails: Invalid value: -1: spec.sails in body should be greater than or equal to 0`},
		{"type", `{colour: red, sails: many}`, `spec.sails: Invalid value: "string": spec.sails in body must be of type integer: "string"`},
		{"twice", `{colour: red, crew: [{name: a}, {name: a}]}`, `spec.crew[1]: Duplicate value: {"name":"a"}`},
	} {
		if _, err := c.Create(e.ctx, boat(bad.name, bad.spec), metav1.CreateOptions{}); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%s: got %v, want %s", bad.name, err, bad.want)
		}
	}
	_, err = c.Create(e.ctx, boat("strict", `{colour: red, wheels: 4}`), metav1.CreateOptions{FieldValidation: "Strict"})
	if want := `Boat in version "v1" cannot be handled as a Boat: strict decoding error: unknown field "spec.wheels"`; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("strict: got %v, want %s", err, want)
	}

	// Updates: generation, status, rules about the old state.
	made.Object["spec"].(map[string]any)["sails"] = int64(3)
	made.Object["status"] = map[string]any{"where": "here"}
	changed, err := c.Update(e.ctx, made, metav1.UpdateOptions{})
	if err != nil || changed.GetGeneration() != 2 || changed.Object["status"] != nil {
		t.Errorf("update: %v, %v", changed, err)
	}
	changed.Object["status"] = map[string]any{"where": "there", "sails": int64(1), "selector": "a=b"}
	changed.Object["spec"].(map[string]any)["sails"] = int64(4)
	after, err := c.UpdateStatus(e.ctx, changed, metav1.UpdateOptions{})
	if err != nil || after.GetGeneration() != 2 || after.Object["spec"].(map[string]any)["sails"] != int64(3) || after.Object["status"].(map[string]any)["where"] != "there" {
		t.Errorf("status: %v, %v", after, err)
	}
	_, err = c.Patch(e.ctx, "one", types.MergePatchType, []byte(`{"spec":{"colour":"blue"}}`), metav1.PatchOptions{})
	if err == nil || !strings.Contains(err.Error(), "the colour is for ever") {
		t.Errorf("a rule about the old state: %v", err)
	}
	if _, err := c.Patch(e.ctx, "one", types.StrategicMergePatchType, []byte(`{}`), metav1.PatchOptions{}); !apierrors.IsUnsupportedMediaType(err) {
		t.Errorf("strategic merge patch: %v", err)
	}

	// The scale subresource.
	scale, err := c.Get(e.ctx, "one", metav1.GetOptions{}, "scale")
	if err != nil || scale.GetKind() != "Scale" || scale.Object["spec"].(map[string]any)["replicas"] != int64(3) || scale.Object["status"].(map[string]any)["selector"] != "a=b" {
		t.Errorf("scale: %v, %v", scale, err)
	}
	if _, err := c.Patch(e.ctx, "one", types.MergePatchType, []byte(`{"spec":{"replicas":1}}`), metav1.PatchOptions{}, "scale"); err != nil {
		t.Error(err)
	}
	if got, err := c.Get(e.ctx, "one", metav1.GetOptions{}); err != nil || got.Object["spec"].(map[string]any)["sails"] != int64(1) {
		t.Errorf("scaled: %v, %v", got, err)
	}

	// Server-side apply merges lists by their keys, and knows owners.
	apply := func(manager, spec string) (*unstructured.Unstructured, error) {
		return c.Apply(e.ctx, "two", boat("two", spec), metav1.ApplyOptions{FieldManager: manager})
	}
	if _, err := apply("a", `{colour: red, crew: [{name: ann, rank: mate}]}`); err != nil {
		t.Fatal(err)
	}
	two, err := apply("b", `{colour: red, crew: [{name: bob}]}`)
	if err != nil || len(two.Object["spec"].(map[string]any)["crew"].([]any)) != 2 {
		t.Errorf("apply: %v, %v", two, err)
	}
	if _, err := apply("b", `{colour: red, crew: [{name: ann, rank: cook}]}`); !apierrors.IsConflict(err) {
		t.Errorf("another's field: %v", err)
	}

	// Selectors, tables, discovery, documents.
	list, err := c.List(e.ctx, metav1.ListOptions{FieldSelector: "spec.colour=red"})
	if err != nil || len(list.Items) != 2 || list.GetKind() != "BoatList" {
		t.Errorf("list: %v, %v", list, err)
	}
	if _, err := c.List(e.ctx, metav1.ListOptions{FieldSelector: "spec.sails=1"}); err == nil || !strings.Contains(err.Error(), "field label not supported: spec.sails") {
		t.Errorf("a field that is not selectable: %v", err)
	}
	table := e.raw("/apis/sea.example.com/v1/namespaces/default/boats", "application/json;as=Table;v=v1;g=meta.k8s.io")
	if !strings.Contains(table, `"name":"Colour"`) || !strings.Contains(table, `"cells":["one","red",1,`) {
		t.Errorf("table: %s", table)
	}
	resources, err := e.core.Discovery().ServerResourcesForGroupVersion("sea.example.com/v1")
	if err != nil || len(resources.APIResources) != 3 || resources.APIResources[0].ShortNames[0] != "bt" {
		t.Errorf("discovery: %v, %v", resources, err)
	}
	for path, want := range map[string]string{
		"/openapi/v3/apis/sea.example.com/v1": "What one sees of it.",
		"/openapi/v2":                         "com.example.sea.v1.Boat",
		"/openapi/v3":                         "apis/sea.example.com/v1",
		"/apis":                               "sea.example.com",
	} {
		if !strings.Contains(e.raw(path, "application/json"), want) {
			t.Errorf("%s lacks %s", path, want)
		}
	}

	// What goes takes its objects with it.
	w, err := e.crds.ApiextensionsV1().CustomResourceDefinitions().Watch(e.ctx, metav1.ListOptions{FieldSelector: "metadata.name=boats.sea.example.com"})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if err := e.crds.ApiextensionsV1().CustomResourceDefinitions().Delete(e.ctx, "boats.sea.example.com", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for ev := range w.ResultChan() {
		if ev.Type == watch.Deleted {
			break
		}
	}
	e.define(definition, established)
	if list, err := c.List(e.ctx, metav1.ListOptions{}); err != nil || len(list.Items) != 0 {
		t.Errorf("after a new definition: %v, %v", list, err)
	}
}

func TestNamesAreTaken(t *testing.T) {
	e := start(t)
	e.define(definition, established)
	other := strings.NewReplacer("boats", "ships", "singular: boat", "singular: ship", "[bt]", "[sh]").Replace(definition)
	d := e.define(other, func(d *v1.CustomResourceDefinition) bool { return apihelpers.IsCRDConditionFalse(d, v1.NamesAccepted) })
	cond := apihelpers.FindCRDCondition(d, v1.NamesAccepted)
	if cond.Reason != "ListKindConflict" || cond.Message != `"BoatList" is already in use` || established(d) {
		t.Errorf("conditions %v", d.Status.Conditions)
	}
}

func TestVersions(t *testing.T) {
	e := start(t)
	d := e.define(definition, established)
	c := e.dynamic.Resource(boats).Namespace("default")
	if _, err := c.Create(e.ctx, boat("old", `{colour: red}`), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	v2 := *d.Spec.Versions[0].DeepCopy()
	v2.Name, d.Spec.Versions[0].Storage = "v2", false
	flag := v2.Schema.OpenAPIV3Schema.Properties["spec"]
	flag.Properties["flag"] = v1.JSONSchemaProps{Type: "string", Default: &v1.JSON{Raw: []byte(`"white"`)}}
	// Fields that are the same in all versions, of schemas that are not, are refused.
	v2.SelectableFields = nil
	d.Spec.Versions = append(d.Spec.Versions, v2)
	if _, err := e.crds.ApiextensionsV1().CustomResourceDefinitions().Update(e.ctx, d, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	second := e.dynamic.Resource(boats.GroupResource().WithVersion("v2")).Namespace("default")
	// Nothing in the definition tells when the controller has seen its new version.
	harness.Eventually(t, "the new version to be served", func() bool {
		_, err := second.List(e.ctx, metav1.ListOptions{})
		return err == nil
	})
	var err error
	if d, err = e.crds.ApiextensionsV1().CustomResourceDefinitions().Get(e.ctx, d.Name, metav1.GetOptions{}); err != nil || len(d.Status.StoredVersions) != 2 {
		t.Errorf("stored versions %v, %v", d.Status.StoredVersions, err)
	}
	got, err := second.Get(e.ctx, "old", metav1.GetOptions{})
	if err != nil || got.GetAPIVersion() != "sea.example.com/v2" || got.Object["spec"].(map[string]any)["flag"] != "white" {
		t.Errorf("an old object in the new version: %v, %v", got, err)
	}
	first, err := c.Get(e.ctx, "old", metav1.GetOptions{})
	if err != nil || first.GetAPIVersion() != "sea.example.com/v1" || first.Object["spec"].(map[string]any)["flag"] != nil {
		t.Errorf("in the old version: %v, %v", first, err)
	}
}
