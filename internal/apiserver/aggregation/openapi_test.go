package aggregation

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
	v1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// TestBadDocumentIsLeftOut merges the documents of four servers, of which two
// are bad: one is not JSON, and one the library cannot merge.
func TestBadDocumentIsLeftOut(t *testing.T) {
	const own = `{"swagger":"2.0","info":{"title":"own","version":"1"},"paths":{"/api/v1/pods":{"get":{"responses":{"200":{"description":"OK"}}}}},
		"definitions":{"Options":{"type":"object"},"Pod":{"type":"object","x-kubernetes-group-version-kind":[{"group":"","kind":"Pod","version":"v1"}]}}}`
	document := func(group, kinds string) []byte {
		return []byte(`{"swagger":"2.0","paths":{"/apis/` + group + `/v1/fish":{"get":{"responses":{"200":{"description":"OK","schema":{"$ref":"#/definitions/Options"}}}}}},
			"definitions":{"Options":{"type":"object","x-kubernetes-group-version-kind":` + kinds + `}}}`)
	}
	r := New(nil, nil)
	found := map[schema.GroupVersion]*backend{}
	for group, doc := range map[string][]byte{
		"a.example.com": document("a.example.com", `[{"group":"a.example.com","kind":"Options","version":"v1"}]`),
		"b.example.com": []byte("<html>"),
		"c.example.com": document("c.example.com", `"a kind"`),
		"d.example.com": document("d.example.com", `[{"group":"d.example.com","kind":"Options","version":"v1"}]`),
	} {
		found[schema.GroupVersion{Group: group, Version: "v1"}] = &backend{service: &v1.APIService{}, found: &findings{openapiV2: doc}}
	}
	r.current.Store(&found)
	all := &spec.Swagger{}
	if err := all.UnmarshalJSON([]byte(own)); err != nil {
		t.Fatal(err)
	}
	got, err := r.MergeV2(all).MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{
		"/api/v1/pods": true, "/apis/a.example.com/v1/fish": true, "/apis/b.example.com/v1/fish": false, "/apis/c.example.com/v1/fish": false, "/apis/d.example.com/v1/fish": true,
		`{"group":"d.example.com","kind":"Options","version":"v1"}`: true,
	} {
		if strings.Contains(string(got), text) != want {
			t.Errorf("%s is there: %v\n%s", text, !want, got)
		}
	}
}
