package apiserver

import (
	"context"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
)

// Computed computes the objects of a resource that is not stored, in its hub
// version.
type Computed interface {
	// Get returns one object, nil if there is none. Its error is the answer to the
	// request.
	Get(ctx context.Context, namespace, name string) (runtime.Object, error)
	// List returns the objects in a namespace, or in all if it is empty, whose
	// labels match.
	List(ctx context.Context, namespace string, selector labels.Selector) ([]runtime.Object, error)
}

// readComputed answers a get or list of a row that is not stored.
func (r reader) readComputed() error {
	from := r.s.Computed[r.groupResource()]
	if from == nil {
		return apierrors.NewServiceUnavailable("nothing computes " + r.groupResource().String() + " here")
	}
	if r.info.Verb == "get" {
		if r.row.Namespaced && r.info.Namespace == "" {
			return r.methodNotSupported()
		}
		obj, err := from.Get(r.ctx(), r.info.Namespace, r.info.Name)
		if err != nil {
			return err
		}
		if obj == nil {
			return apierrors.NewNotFound(r.groupResource(), r.info.Name)
		}
		if obj, err = versioned(r.row, obj); err != nil {
			return err
		}
		return r.writeObject(http.StatusOK, obj)
	}
	_, sel, err := r.listOptions()
	if err != nil {
		return err
	}
	a, err := r.accept(canTransform)
	if err != nil {
		return err
	}
	found, err := from.List(r.ctx(), r.info.Namespace, sel.label)
	if err != nil {
		return err
	}
	all := make([]runtime.Object, 0, len(found))
	for _, obj := range found {
		if obj, err = versioned(r.row, obj); err != nil {
			return err
		}
		acc, err := meta.Accessor(obj)
		if err != nil {
			return err
		}
		if sel.field.Matches(fields.Set{"metadata.name": acc.GetName(), "metadata.namespace": acc.GetNamespace()}) {
			all = append(all, obj)
		}
	}
	if a.as.Kind == "Table" {
		t, err := r.table(all, metav1.ListMeta{})
		if err != nil {
			return err
		}
		return r.writeAs(http.StatusOK, a, t)
	}
	list, err := listOf(r.row, all, metav1.ListMeta{})
	if err != nil {
		return err
	}
	return r.writeAs(http.StatusOK, a, list)
}
