package controllertest

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
)

// Object is a pointer to an object of a built-in kind.
type Object interface {
	runtime.Object
	metav1.Object
}

// kindOf returns the kind of an object, and the resource that it is stored as.
func kindOf(obj runtime.Object) (schema.GroupVersionKind, schema.GroupVersionResource) {
	kinds, _, err := scheme.Scheme.ObjectKinds(obj)
	if err != nil {
		panic(err) // of a test's own making
	}
	gvr, _ := meta.UnsafeGuessKindToResource(kinds[0])
	return kinds[0], gvr
}

// empty returns a new object of T.
func empty[T Object]() T {
	var t T
	return reflect.New(reflect.TypeOf(t).Elem()).Interface().(T)
}

// Put creates objects, as a user does.
func (c *Cluster) Put(objs ...Object) {
	c.t.Helper()
	for i, o := range objs {
		breathe(i)
		_, gvr := kindOf(o)
		if err := c.server.Create(gvr, o.DeepCopyObject(), o.GetNamespace()); err != nil {
			c.t.Fatal(err)
		}
	}
}

// Find returns the named object; false where there is none.
func Find[T Object](c *Cluster, namespace, name string) (T, bool) {
	c.t.Helper()
	_, gvr := kindOf(empty[T]())
	obj, err := c.server.Get(gvr, namespace, name)
	if apierrors.IsNotFound(err) {
		return empty[T](), false
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return obj.DeepCopyObject().(T), true
}

// All returns the objects of a kind in a namespace, or in all where it is empty, by
// namespace and name.
func All[T Object](c *Cluster, namespace string) []T {
	c.t.Helper()
	gvk, gvr := kindOf(empty[T]())
	list, err := c.server.List(gvr, gvk, namespace)
	if err != nil {
		c.t.Fatal(err)
	}
	var out []T
	if err := meta.EachListItem(list, func(o runtime.Object) error {
		out = append(out, o.DeepCopyObject().(T))
		return nil
	}); err != nil {
		c.t.Fatal(err)
	}
	slices.SortFunc(out, func(a, b T) int {
		return cmp.Or(cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
	})
	return out
}

// Edit changes the named object, status and all. It calls change again where another has
// changed the object meanwhile.
func Edit[T Object](c *Cluster, namespace, name string, change func(T)) {
	c.t.Helper()
	for {
		obj, ok := Find[T](c, namespace, name)
		if !ok {
			c.t.Fatalf("there is no %T %s/%s", obj, namespace, name)
		}
		change(obj)
		_, gvr := kindOf(obj)
		err := c.server.Update(gvr, obj, namespace)
		if apierrors.IsConflict(err) {
			continue
		}
		if err != nil {
			c.t.Fatal(err)
		}
		return
	}
}

// Remove deletes the named object, which waits for its finalizers and, where it is a
// pod, for its kubelet. That there is none is no error.
func Remove[T Object](c *Cluster, namespace, name string, opts ...metav1.DeleteOptions) {
	c.t.Helper()
	_, gvr := kindOf(empty[T]())
	if err := c.server.Delete(gvr, namespace, name, opts...); err != nil && !apierrors.IsNotFound(err) {
		c.t.Fatal(err)
	}
}

// An Action is what somebody does in a Trial.
type Action func(c *Cluster)

// Creates is the creation of objects.
func Creates(objs ...Object) Action { return func(c *Cluster) { c.Put(objs...) } }

// Offers is the creation of an object, and nothing where a controller was faster.
func Offers(obj Object) Action {
	return func(c *Cluster) {
		c.t.Helper()
		_, gvr := kindOf(obj)
		if err := c.server.Create(gvr, obj.DeepCopyObject(), obj.GetNamespace()); err != nil && !apierrors.IsAlreadyExists(err) {
			c.t.Fatal(err)
		}
	}
}

// Edits is a change of the named object, and nothing where there is none yet.
func Edits[T Object](namespace, name string, change func(T)) Action {
	return func(c *Cluster) {
		if _, ok := Find[T](c, namespace, name); ok {
			Edit(c, namespace, name, change)
		}
	}
}

// Removes is the deletion of the named object.
func Removes[T Object](namespace, name string, opts ...metav1.DeleteOptions) Action {
	return func(c *Cluster) { Remove[T](c, namespace, name, opts...) }
}

// Then is several actions at once.
func Then(actions ...Action) Action {
	return func(c *Cluster) {
		for _, a := range actions {
			a(c)
		}
	}
}

// A Fact checks a cluster.
type Fact func(t *testing.T, c *Cluster)

// Are checks that the objects of a kind in a namespace, or in all where it is empty,
// are shown as want, in any order. Those that are shown as "" are left out.
func Are[T Object](namespace string, show func(T) string, want ...string) Fact {
	return func(t *testing.T, c *Cluster) {
		t.Helper()
		var have []string
		for _, o := range All[T](c, namespace) {
			if s := show(o); s != "" {
				have = append(have, s)
			}
		}
		slices.Sort(have)
		want := slices.Sorted(slices.Values(want))
		if !slices.Equal(have, want) {
			t.Errorf("the objects of %T are %q, want %q", empty[T](), have, want)
		}
	}
}

// Name shows an object by its name.
func Name[T Object](o T) string { return o.GetName() }

// Facts is several facts.
func Facts(facts ...Fact) Fact {
	return func(t *testing.T, c *Cluster) {
		t.Helper()
		for _, f := range facts {
			f(t, c)
		}
	}
}

// Is checks the named object, which must be there.
func Is[T Object](namespace, name string, check func(T) error) Fact {
	return func(t *testing.T, c *Cluster) {
		t.Helper()
		o, ok := Find[T](c, namespace, name)
		if !ok {
			t.Errorf("there is no %T %s/%s", o, namespace, name)
			return
		}
		if err := check(o); err != nil {
			t.Errorf("%T %s/%s: %v", o, namespace, name, err)
		}
	}
}

// Unless returns an error with a message unless ok.
func Unless(ok bool, message string, args ...any) error {
	if ok {
		return nil
	}
	return fmt.Errorf(message, args...)
}
