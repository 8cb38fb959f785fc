package apiserver

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"testing"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	"google.golang.org/protobuf/proto"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/controller/openapi/builder"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/catalogue"
	"keelson.dev/keelson/internal/api/customresource"
)

// thing returns the row of a custom resource with 50 properties.
func thing(t testing.TB, n int) *api.Resource {
	t.Helper()
	properties := map[string]apiextensionsv1.JSONSchemaProps{}
	for p := range 50 {
		properties[fmt.Sprintf("property%02d", p)] = apiextensionsv1.JSONSchemaProps{Type: "string", Description: "A property, whose description is as long as that of many others."}
	}
	names := apiextensionsv1.CustomResourceDefinitionNames{Plural: fmt.Sprintf("things%d", n), Singular: fmt.Sprintf("thing%d", n), Kind: fmt.Sprintf("Thing%d", n), ListKind: fmt.Sprintf("Thing%dList", n)}
	crd := &apiextensionsv1.CustomResourceDefinition{Spec: apiextensionsv1.CustomResourceDefinitionSpec{
		Group: fmt.Sprintf("group%d.example.com", n%100), Names: names, Scope: apiextensionsv1.NamespaceScoped,
		Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
			Name: "v1", Served: true, Storage: true,
			Subresources: &apiextensionsv1.CustomResourceSubresources{Status: &apiextensionsv1.CustomResourceSubresourceStatus{}},
			Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{
				"spec": {Type: "object", Properties: properties},
			}}},
		}},
	}}
	crd.Status.AcceptedNames = names
	return customresource.Rows(crd, customresource.SameInAll)[0]
}

func described2(t testing.TB) *spec.Swagger {
	t.Helper()
	s := &Server{Config: Config{Catalogue: catalogue.New(catalogue.Builtin()), Version: VersionInfo{Major: "1", Minor: "37"}}}
	all, err := s.describeV2()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestParts checks that the parts of the document of everything, one after the
// other, are equal to what upstream's library makes of all documents, in JSON as in
// protobuf.
func TestParts(t *testing.T) {
	all := described2(t)
	p, err := newParts(all)
	if err != nil {
		t.Fatal(err)
	}
	rows := []*api.Resource{thing(t, 2), thing(t, 1), thing(t, 102)}
	var documents []*spec.Swagger
	for _, row := range rows {
		doc, err := row.DocumentV2()
		if err != nil {
			t.Fatal(err)
		}
		for name := range doc.Definitions { // the library would rename these
			if p.has[name] {
				delete(doc.Definitions, name)
			}
		}
		documents = append(documents, doc)
	}
	merged, err := builder.MergeSpecs(all, documents...)
	if err != nil {
		t.Fatal(err)
	}
	want, err := merged.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	p.set(rows)
	doc, err := p.document()
	if err != nil {
		t.Fatal(err)
	}
	whole := bytes.Join(doc.json, nil)
	var got, expected any
	if err := json.Unmarshal(whole, &got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(want, &expected); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, expected) {
		t.Errorf("the document of %d bytes differs from that of the library, of %d", len(whole), len(want))
	}
	pieces, err := doc.proto()
	if err != nil {
		t.Fatal(err)
	}
	var decoded openapi_v2.Document
	if err := proto.Unmarshal(bytes.Join(pieces, nil), &decoded); err != nil {
		t.Fatal(err)
	}
	parsed, err := openapi_v2.ParseDocument(whole)
	if err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(&decoded, parsed) {
		t.Error("the document in protobuf is another than that in JSON")
	}
	// A changed row takes the place of the old one; the others are kept.
	kept := p.custom[rows[0]]
	rows[1] = thing(t, 3)
	if p.set(rows); len(p.custom) != 3 || p.custom[rows[0]] != kept || p.custom[rows[1]] == nil {
		t.Errorf("%d parts", len(p.custom))
	}
}

// BenchmarkOpenAPIV2 measures the document of everything: that of the built-in
// resources, what each custom resource adds to it, and the whole with one of 1,000
// changed.
func BenchmarkOpenAPIV2(b *testing.B) {
	b.Run("built-in", func(b *testing.B) {
		for b.Loop() {
			if _, err := newParts(described2(b)); err != nil {
				b.Fatal(err)
			}
		}
	})
	p, err := newParts(described2(b))
	if err != nil {
		b.Fatal(err)
	}
	b.Run("custom", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			p.set(nil)
			p.set([]*api.Resource{thing(b, 1)})
		}
	})
	b.Run("protobuf", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			p.set(nil)
			p.set([]*api.Resource{thing(b, 1)})
			b.StartTimer()
			for _, part := range p.custom {
				if _, err := part.proto(); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
	b.Run("one of 1000", func(b *testing.B) {
		rows := make([]*api.Resource, 1000)
		for n := range rows {
			rows[n] = thing(b, n)
		}
		p.set(rows)
		for b.Loop() {
			rows[7] = thing(b, 7)
			p.set(rows)
			if _, err := p.document(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
