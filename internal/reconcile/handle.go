package reconcile

import (
	"strings"

	"k8s.io/client-go/tools/cache"
)

// Key returns obj's key, also where obj is a tombstone.
func Key(obj any) string {
	key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(obj)
	if err != nil {
		return ""
	}
	return key
}

// SplitKey cuts a key into namespace and name; the key of a cluster-scoped
// object has no namespace.
func SplitKey(key string) (namespace, name string) {
	if ns, n, ok := strings.Cut(key, "/"); ok {
		return ns, n
	}
	return "", key
}

// Indexed returns the objects under a value of an index, all of type T. Without the
// index there are none: a constructor adds those that it reads.
func Indexed[T any](ix interface {
	ByIndex(index, value string) ([]any, error)
}, index, value string) []T {
	found, err := ix.ByIndex(index, value)
	if err != nil {
		return nil
	}
	out := make([]T, len(found))
	for i, o := range found {
		out[i] = o.(T)
	}
	return out
}

// Deleted returns the object of a delete notification, which may be wrapped in a
// tombstone.
func Deleted[T any](obj any) (T, bool) {
	if t, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = t.Obj
	}
	o, ok := obj.(T)
	return o, ok
}

// Handle registers typed handlers with an informer. A nil add does nothing; a
// nil update or del treats what has changed or gone as if it were added.
func Handle[T any](inf cache.SharedIndexInformer, add func(T), update func(old, cur T), del func(T)) {
	if add == nil {
		add = func(T) {}
	}
	if update == nil {
		update = func(_, cur T) { add(cur) }
	}
	if del == nil {
		del = add
	}
	HandleListed(inf, func(o T, _ bool) { add(o) }, update, del)
}

// HandleListed registers handlers as Handle does; all must be set. listed reports
// whether the object is of the informer's first list: its handlers may be called
// when the controller works already, though the controller has not made it.
func HandleListed[T any](inf cache.SharedIndexInformer, add func(o T, listed bool), update func(old, cur T), del func(T)) {
	// An informer that is stopped refuses handlers; there is nothing to hear
	// from it then.
	_, _ = inf.AddEventHandler(cache.ResourceEventHandlerDetailedFuncs{
		AddFunc:    func(o any, listed bool) { add(o.(T), listed) },
		UpdateFunc: func(o, n any) { update(o.(T), n.(T)) },
		DeleteFunc: func(o any) {
			if t, ok := Deleted[T](o); ok {
				del(t)
			}
		},
	})
}

// Ignore is a handler that does nothing.
func Ignore[T any](T) {}

// Enqueue returns a handler that puts an object's key into queue.
func Enqueue[T any](queue Queue) func(T) {
	return func(o T) { queue.Add(Key(o)) }
}
