package store_test

import (
	"runtime"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	apiruntime "k8s.io/apimachinery/pkg/runtime"

	"keelson.dev/keelson/internal/store"
)

func fish() *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{"apiVersion": "example.com/v1", "kind": "Fish", "metadata": map[string]any{"name": "a"}}}
}

// TestForget checks that forms that can be made anew are forgotten. The JSON of
// a custom resource is not one where the entry holds nothing else of the
// object.
func TestForget(t *testing.T) {
	const plain = `{"apiVersion":"example.com/v1","kind":"Fish","metadata":{"name":"a","uid":"1"}}`
	tree := func() *store.Entry { return store.NewEntry("/a", 1, 7, store.Value{Object: fish()}) }
	encoded := tree()
	if _, err := encoded.Encoded(store.JSON, func(o apiruntime.Object) ([]byte, error) { return o.(*unstructured.Unstructured).MarshalJSON() }); err != nil {
		t.Fatal(err)
	}
	for name, e := range map[string]*store.Entry{
		"packed":               store.NewEntry("/a", 1, 7, store.Value{Object: fish(), Plain: []byte(plain)}),
		"loaded":               store.NewEntry("/a", 1, 7, store.Value{Plain: []byte(plain)}),
		"a tree":               tree(),
		"a tree, once encoded": encoded,
	} {
		t.Run(name, func(t *testing.T) {
			e.Forget()
			runtime.GC() // there are no references to the tree any more
			e.Forget()
			u := e.Object().(*unstructured.Unstructured)
			if u.GetName() != "a" || u.GetResourceVersion() != "7" {
				t.Errorf("%v", u.Object)
			}
			if d := e.Deleted(8); d.Object().(*unstructured.Unstructured).GetResourceVersion() != "8" {
				t.Errorf("%v", d.Object())
			}
		})
	}
}
