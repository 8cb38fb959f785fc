package apiserver

import (
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"keelson.dev/keelson/internal/api/catalogue"
)

// TestVersionsOfKinds converts, for the field manager, an object of each built-in kind
// that is served in several versions between all these versions.
func TestVersionsOfKinds(t *testing.T) {
	s := &Server{Config: Config{Catalogue: catalogue.New(catalogue.Builtin())}}
	several := 0
	for _, row := range catalogue.Builtin() {
		versions := s.versions(row)
		if row.NotStored || len(versions) == 1 {
			continue
		}
		several++
		o := rowObjects{row, versions}
		in := &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"name": "o", "labels": map[string]any{"a": "b"}}}}
		in.SetGroupVersionKind(row.GVK())
		for _, to := range versions {
			out, err := o.ConvertToVersion(in, to.GroupVersion())
			if err != nil {
				t.Errorf("%s to %s: %v", row.GVK(), to.GroupVersion(), err)
				continue
			}
			want := to.New()
			if gvk := out.GetObjectKind().GroupVersionKind(); gvk != to.GVK() || !sameType(out, want) {
				t.Errorf("%s to %s gives %v, a %T", row.GVK(), to.GroupVersion(), gvk, out)
			}
			if acc := out.(interface{ GetLabels() map[string]string }); acc.GetLabels()["a"] != "b" {
				t.Errorf("%s to %s loses the labels", row.GVK(), to.GroupVersion())
			}
		}
		if _, err := o.ConvertToVersion(in, schema.GroupVersion{Group: row.Group, Version: "v0"}); !runtime.IsNotRegisteredError(err) {
			t.Errorf("%s to a version that is not there: %v", row.GVK(), err)
		}
	}
	if several < 6 {
		t.Errorf("%d rows of kinds in several versions", several)
	}
}

func sameType(a, b runtime.Object) bool {
	gvks, _, err := catalogue.Scheme.ObjectKinds(a)
	others, _, oerr := catalogue.Scheme.ObjectKinds(b)
	return err == nil && oerr == nil && gvks[0] == others[0]
}
