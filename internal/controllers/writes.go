package controllers

import (
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"

	"keelson.dev/keelson/internal/reconcile"
)

// Writes remembers the resource versions that a controller has written, so that
// it does not act on what its cache had before: a status from before a write may
// have it count or make something twice.
type Writes struct {
	mu sync.Mutex
	m  map[string]write // by key
}

type write struct {
	uid     types.UID
	version string
}

// Wrote notes obj, as the API server answered it.
func (w *Writes) Wrote(obj metav1.Object) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.m == nil {
		w.m = map[string]write{}
	}
	w.m[reconcile.Key(obj)] = write{obj.GetUID(), obj.GetResourceVersion()}
}

// Behind reports whether obj, of a cache, is older than what was written: the
// newer one is on its way, and will wake the controller.
func (w *Writes) Behind(obj metav1.Object) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	last, ok := w.m[reconcile.Key(obj)]
	if !ok || last.uid != obj.GetUID() {
		return false
	}
	order, err := resourceversion.CompareResourceVersion(obj.GetResourceVersion(), last.version)
	return err == nil && order < 0
}

// Forget drops what is known of key.
func (w *Writes) Forget(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.m, key)
}
