package store

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// packed returns the entry of a custom resource that has these members of its metadata,
// before its uid.
func packed(t testing.TB, members string) *Entry {
	t.Helper()
	plain := fmt.Sprintf(`{"apiVersion":"bench.example.com/v1","kind":"Fish","metadata":{%s"uid":"u"},"spec":{"metadata":{"labels":{"no":"no"}},"tags":["a","b"]}}`, members)
	e := NewEntry("/registry/bench.example.com/fish/ns/a", 1, 7, Value{Plain: []byte(plain)})
	if e.encoded[JSON].Load() == nil {
		t.Fatalf("%s is not packed", plain)
	}
	return e
}

// decodedLabels returns the labels of e's decoded object.
func decodedLabels(t testing.TB, e *Entry) map[string]string {
	obj, err := meta.Accessor(e.Object())
	if err != nil {
		t.Fatal(err)
	}
	return obj.GetLabels()
}

// TestLabels checks that labels read alone are equal to those of the decoded
// object.
func TestLabels(t *testing.T) {
	const alone, whole = true, false // how it is read
	for members, want := range map[string]struct {
		alone bool
		count int
	}{
		``:                               {alone, 0},
		`"labels":{},`:                   {alone, 0},
		`"labels":null,`:                 {whole, 0},
		`"labels":{"a":1},`:              {whole, 0},
		`"labels":{"a":null,"b":"c"},`:   {whole, 2},
		`"labels":["a"],`:                {whole, 0},
		`"labels":{"app":"x","b/c":""},`: {alone, 2},
		`"annotations":{"labels":"{\"labels\":{\"a\":\"b\"}}"},"creationTimestamp":null,"generation":2,"labels":{"a":"\u00e9\n"},"managedFields":[{}],`: {alone, 1},
		`"annotations":{"labels":"a"},"name":"labels",`:                                               {alone, 0},
		`"annotations":{"metadata":{"labels":{}}},"managedFields":[{"labels":{"a":"b"}}],"name":"a",`: {alone, 0},
	} {
		e := packed(t, members)
		got := e.Labels()
		if (e.last.Value() == nil) != want.alone {
			t.Errorf("%s: read alone: %t", members, !want.alone)
		}
		if all := decodedLabels(t, e); !maps.Equal(got, all) || len(got) != want.count {
			t.Errorf("%s: %v, want %v", members, got, all)
		}
	}
	u := &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"labels": map[string]any{"a": "b"}}}}
	if got := Unstored(u).Labels(); got["a"] != "b" {
		t.Errorf("of an object that is not stored: %v", got)
	}
}

// BenchmarkLabels has an object of the size of many: 20 properties, each owned.
func BenchmarkLabels(b *testing.B) {
	var owned []string
	for i := range 20 {
		owned = append(owned, fmt.Sprintf(`"f:property%02d":{}`, i))
	}
	members := `"annotations":{"note":"as long as notes are"},"creationTimestamp":"2026-01-01T00:00:00Z","generation":1,"labels":{"app":"bench","tier":"db"},` +
		`"managedFields":[{"apiVersion":"bench.example.com/v1","fieldsType":"FieldsV1","fieldsV1":{"f:spec":{` + strings.Join(owned, ",") + `}},"manager":"kubectl","operation":"Update"}],"name":"a","namespace":"ns",`
	e := packed(b, members)
	b.Run("alone", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if len(e.Labels()) != 2 {
				b.Fatal("not found")
			}
		}
	})
	b.Run("decoded", func(b *testing.B) {
		b.ReportAllocs()
		wire := *e.encoded[JSON].Load()
		for b.Loop() {
			u, err := decodeJSON(wire)
			if err != nil || len(u.GetLabels()) != 2 {
				b.Fatal("not found")
			}
		}
	})
}
