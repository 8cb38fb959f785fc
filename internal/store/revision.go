package store

import (
	"strconv"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
)

// SetRevision puts a revision into an object as its resourceVersion; 0 empties
// it.
func SetRevision(obj runtime.Object, revision int64) {
	m, err := meta.Accessor(obj)
	if err != nil {
		return
	}
	if revision == 0 {
		m.SetResourceVersion("")
		return
	}
	if v := strconv.FormatInt(revision, 10); m.GetResourceVersion() != v { // else a reader may have it
		m.SetResourceVersion(v)
	}
}
