package persistentvolume

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/resourceversion"

	"keelson.dev/keelson/internal/reconcile"
)

// newest holds objects as they were written, until the informer has them. It is
// used by one worker only.
type newest[T metav1.Object] struct {
	m map[string]T // by key
}

// wrote notes o, as the API server answered it.
func (n *newest[T]) wrote(o T) {
	if n.m == nil {
		n.m = map[string]T{}
	}
	n.m[reconcile.Key(o)] = o
}

// of returns what was written of o, if that is newer than o.
func (n *newest[T]) of(o T) T {
	key := reconcile.Key(o)
	w, ok := n.m[key]
	if !ok {
		return o
	}
	if w.GetUID() == o.GetUID() {
		if order, err := resourceversion.CompareResourceVersion(o.GetResourceVersion(), w.GetResourceVersion()); err == nil && order < 0 {
			return w
		}
	}
	delete(n.m, key)
	return o
}

// forget drops what is known of key.
func (n *newest[T]) forget(key string) { delete(n.m, key) }
