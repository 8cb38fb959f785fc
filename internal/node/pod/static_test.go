package pod

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/internal/node/eviction"
	"keelson.dev/keelson/internal/node/static"
)

// TestFromAPI checks that a pod of the API cannot say that it is from a manifest, and so escape
// its eviction.
func TestFromAPI(t *testing.T) {
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{static.SourceAnnotation: "file", "other": "kept"}}}
	got := fromAPI(p)
	if eviction.IsCritical(got) || static.IsStatic(got) || got.Annotations["other"] != "kept" {
		t.Errorf("the pod is taken with %v", got.Annotations)
	}
	if p.Annotations[static.SourceAnnotation] != "file" {
		t.Error("the informer's pod was changed")
	}
	for _, p := range []*v1.Pod{{}, got} {
		if fromAPI(p) != p {
			t.Errorf("a pod with %v was copied", p.Annotations)
		}
	}
}
