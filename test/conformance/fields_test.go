package conformance

import (
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/types"
)

// validate sends a body with that fieldValidation, and returns the warnings and the
// error.
func (t *T) validate(verb, path, kind, mode, body string) (warned string, err error) {
	t.Helper()
	r := t.Client.Discovery().RESTClient().Verb(verb).AbsPath(path).Param("fieldValidation", mode).SetHeader("Content-Type", kind).Body([]byte(body))
	if kind == string(types.ApplyPatchType) {
		r = r.Param("fieldManager", "conformance").Param("force", "true")
	}
	res := r.Do(t.Context())
	var warnings []string
	for _, w := range res.Warnings() {
		warnings = append(warnings, w.Text)
	}
	return strings.Join(warnings, "; "), res.Error()
}

// strict checks that a body is refused with Strict, warned of with Warn and
// accepted with Ignore when it creates an object; an apply needs the fields'
// schemas and refuses it always. The body has NAME for the name.
func (t *T) strict(base, yaml string, wanted ...string) {
	t.Helper()
	body := func(name string) string { return strings.ReplaceAll(yaml, "NAME", name) }
	_, err := t.validate("POST", base, "application/yaml", "Strict", body("strict"))
	if err == nil {
		t.Fatal("Strict takes it")
	}
	t.contains(err.Error(), wanted...)
	warnings, err := t.validate("POST", base, "application/yaml", "Warn", body("warned"))
	t.must(err)
	t.contains(warnings, wanted...)
	warnings, err = t.validate("POST", base, "application/yaml", "Ignore", body("ignored"))
	if err != nil || warnings != "" {
		t.Errorf("Ignore: %v, warnings %s", err, warnings)
	}
	if _, err = t.validate("PATCH", base+"/applied", string(types.ApplyPatchType), "Strict", body("applied")); err == nil {
		t.Error("a strict apply takes it")
	}
}

var _ = It("[sig-api-machinery] FieldValidation should detect unknown and duplicate fields of a typed object", func(t *T) {
	base := "/apis/apps/v1/namespaces/" + t.NS + "/deployments"
	const body = `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"NAME"},"spec":{"unknownNested":"foo","replicas":1,"paused":true,"paused":false,"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}`
	_, err := t.validate("POST", base, "application/json", "Strict", strings.ReplaceAll(body, "NAME", "json"))
	if err == nil {
		t.Fatal("Strict takes it")
	}
	t.contains(err.Error(), `unknown field "spec.unknownNested"`, `duplicate field "spec.paused"`)
	warnings, err := t.validate("POST", base, "application/json", "Warn", strings.ReplaceAll(body, "NAME", "json"))
	t.must(err)
	t.contains(warnings, `unknown field "spec.unknownNested"`, `duplicate field "spec.paused"`)
	t.strict(base, "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: NAME}\nspec: {unknownNested: foo, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}\n", "unknownNested")
})

var _ = It("[sig-api-machinery] FieldValidation should detect unknown metadata fields of a typed object", func(t *T) {
	t.strict("/api/v1/namespaces/"+t.NS+"/configmaps", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: NAME, unknownMeta: foo}\n", "unknownMeta")
})

func (t *T) crBase(c custom) string {
	return "/apis/" + c.gvr.Group + "/" + c.gvr.Version + "/namespaces/" + t.NS + "/" + c.gvr.Resource
}

func (c custom) body(rest string) string {
	return "apiVersion: " + c.gvr.GroupVersion().String() + "\nkind: " + c.kind + "\nmetadata: {name: NAME}\n" + rest
}

// taken checks that each verb accepts the body.
func (t *T) taken(c custom, rest string) {
	t.Helper()
	for verb, path := range map[string]string{"POST": t.crBase(c), "PATCH": t.crBase(c) + "/patch"} {
		kind := map[string]string{"POST": "application/yaml", "PATCH": string(types.ApplyPatchType)}[verb]
		warnings, err := t.validate(verb, path, kind, "Strict", strings.ReplaceAll(c.body(rest), "NAME", strings.ToLower(verb)))
		if err != nil || warnings != "" {
			t.Errorf("%s: %v, warnings %s", verb, err, warnings)
		}
	}
}

const ported = "{type: object, properties: {spec: {type: object, properties: {foo: {type: string}, cronSpec: {type: string}, ports: {type: array, x-kubernetes-list-map-keys: [containerPort, protocol], x-kubernetes-list-type: map, items: {type: object, required: [containerPort, protocol], properties: {containerPort: {type: integer, format: int32}, hostIP: {type: string}, hostPort: {type: integer}, name: {type: string}, protocol: {type: string}}}}}}}}"

var _ = It("[sig-api-machinery] FieldValidation should create/apply a valid CR for CRD with validation schema", func(t *T) {
	t.taken(t.crd(crdOptions{schema: ported}), "spec: {foo: foo1, cronSpec: '* * * * */5', ports: [{containerPort: 80, protocol: TCP, hostPort: 8080}]}\n")
})

var _ = It("[sig-api-machinery] FieldValidation should create/apply a CR with unknown fields for CRD with no validation schema", func(t *T) {
	t.taken(t.crd(crdOptions{}), "spec: {unknown: uk1, cronSpec: '* * * * */5'}\n")
})

var _ = It("[sig-api-machinery] FieldValidation should create/apply an invalid CR with extra properties for CRD with validation schema", func(t *T) {
	c := t.crd(crdOptions{schema: ported})
	t.strict(t.crBase(c), c.body("spec: {foo: foo1, extraProperty: arbitrary-value, ports: [{containerPort: 80, protocol: TCP}]}\n"), "extraProperty")
})

var _ = It("[sig-api-machinery] FieldValidation should detect duplicates in a CR when preserving unknown fields", func(t *T) {
	c := t.crd(crdOptions{})
	body := `{"apiVersion":"` + c.gvr.GroupVersion().String() + `","kind":"` + c.kind + `","metadata":{"name":"x"},"spec":{"unknown":"uk1","cronSpec":"a","cronSpec":"b"}}`
	_, err := t.validate("POST", t.crBase(c), "application/json", "Strict", body)
	if err == nil {
		t.Fatal("Strict takes it")
	}
	t.contains(err.Error(), `duplicate field "spec.cronSpec"`)
	if strings.Contains(err.Error(), "unknown field") {
		t.Errorf("unknown fields are allowed: %v", err)
	}
})

var _ = It("[sig-api-machinery] FieldValidation should detect unknown metadata fields in both the root and embedded object of a CR", func(t *T) {
	embedded := true
	c := t.crd(crdOptions{schema: "{type: object, properties: {spec: {type: object, properties: {template: {type: object, x-kubernetes-preserve-unknown-fields: true, properties: {metadata: {type: object}}}}}}}", change: func(d *apiextensionsv1.CustomResourceDefinition) {
		s := d.Spec.Versions[0].Schema.OpenAPIV3Schema
		spec := s.Properties["spec"]
		template := spec.Properties["template"]
		template.XEmbeddedResource = embedded
		spec.Properties["template"] = template
		s.Properties["spec"] = spec
	}})
	body := strings.Replace(c.body("spec: {template: {apiVersion: foo/v1, kind: Sub, metadata: {name: subobject, unknownSubMeta: bar}}}\n"), "{name: NAME}", "{name: NAME, unknownMeta: foo}", 1)
	t.strict(t.crBase(c), body, `unknown field "metadata.unknownMeta"`, `unknown field "spec.template.metadata.unknownSubMeta"`)
})
