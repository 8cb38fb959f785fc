package row

import (
	"reflect"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/internal/api"
)

// Object is an API object of a known Go type.
type Object interface {
	runtime.Object
	metav1.Object
}

// Kind holds the functions particular to objects of type T; each may be nil.
type Kind[T Object] struct {
	// Spec gives a pointer to what the user wishes of the object: a change of
	// it advances the generation (if Generation is set), and a status update
	// may not touch it. A kind whose wish is in several fields may give any
	// comparable value when it has no status.
	Spec func(T) any
	// Status gives a pointer to the status. It makes the status subresource.
	Status func(T) any
	// Generation reports whether the kind counts generations of Spec.
	Generation bool
	// Counted gives what else advances the generation.
	Counted func(T) any

	Default          func(T)
	PrepareForCreate func(T)
	// PrepareForRequest fills in what a new object has of its request.
	PrepareForRequest func(api.Request, T)
	PrepareForUpdate  func(obj, old T)
	Validate          func(T) field.ErrorList
	ValidateUpdate    func(obj, old T) field.ErrorList
	// ValidateRequest and ValidateStatusRequest check what depends on the request
	// or on other objects; old is nil for a creation.
	ValidateRequest, ValidateStatusRequest func(req api.Request, obj, old T) field.ErrorList
	// StatusOnly reports whether an update of the status leaves the metadata alone.
	StatusOnly           bool
	PrepareStatusUpdate  func(obj, old T)
	ValidateStatusUpdate func(obj, old T) field.ErrorList
	// Warnings gives the warnings for a creation, and for an update unless
	// UpdateWarnings is set.
	Warnings       func(T) []string
	UpdateWarnings func(obj, old T) []string
	TTL            func(T) time.Duration
	Fields         func(T) fields.Set
	Cells          func(T, time.Time) []any
}

// New completes r with the functions of k.
func New[T Object](r api.Resource, k Kind[T]) *api.Resource {
	if k.Default != nil {
		r.Default = func(obj runtime.Object) { k.Default(obj.(T)) }
	}
	r.PrepareForCreate = func(obj runtime.Object) { k.prepareForCreate(obj.(T)) }
	r.PrepareForUpdate = func(obj, old runtime.Object) { k.prepareForUpdate(obj.(T), old.(T)) }
	if k.PrepareForRequest != nil {
		r.PrepareForRequest = func(req api.Request, obj runtime.Object) { k.PrepareForRequest(req, obj.(T)) }
	}
	if k.Validate != nil {
		r.Validate = func(obj runtime.Object) field.ErrorList { return k.Validate(obj.(T)) }
	}
	r.ValidateUpdate = untyped(k.ValidateUpdate)
	r.ValidateRequest = ofRequest(k.ValidateRequest)
	if k.Warnings != nil || k.UpdateWarnings != nil {
		r.Warnings = k.warnings
	}
	if k.TTL != nil {
		r.TTL = func(obj runtime.Object) time.Duration { return k.TTL(obj.(T)) }
	}
	if k.Fields != nil {
		r.Fields = func(obj runtime.Object) fields.Set { return k.Fields(obj.(T)) }
	}
	if k.Cells != nil {
		r.Cells = func(obj runtime.Object, now time.Time) []any { return k.Cells(obj.(T), now) }
	}
	if k.Status != nil {
		r.Status = &api.UpdateStrategy{
			PrepareForUpdate: func(obj, old runtime.Object) { k.prepareForStatusUpdate(obj.(T), old.(T)) },
			ValidateUpdate:   untyped(k.ValidateStatusUpdate),
			ValidateRequest:  ofRequest(k.ValidateStatusRequest),
		}
	}
	return &r
}

func untyped[T Object](f func(obj, old T) field.ErrorList) func(obj, old runtime.Object) field.ErrorList {
	if f == nil {
		return nil
	}
	return func(obj, old runtime.Object) field.ErrorList { return f(obj.(T), old.(T)) }
}

func ofRequest[T Object](f func(req api.Request, obj, old T) field.ErrorList) func(req api.Request, obj, old runtime.Object) field.ErrorList {
	if f == nil {
		return nil
	}
	return func(req api.Request, obj, old runtime.Object) field.ErrorList {
		was, _ := old.(T)
		return f(req, obj.(T), was)
	}
}

func (k *Kind[T]) warnings(obj, old runtime.Object) []string {
	switch {
	case old != nil && k.UpdateWarnings != nil:
		return k.UpdateWarnings(obj.(T), old.(T))
	case k.Warnings != nil:
		return k.Warnings(obj.(T))
	}
	return nil
}

func (k *Kind[T]) prepareForCreate(obj T) {
	if k.Status != nil {
		reflect.ValueOf(k.Status(obj)).Elem().SetZero()
	}
	if k.Generation {
		obj.SetGeneration(1)
	}
	if k.PrepareForCreate != nil {
		k.PrepareForCreate(obj)
	}
}

func (k *Kind[T]) prepareForUpdate(obj, old T) {
	if k.Status != nil {
		assign(k.Status(obj), k.Status(old))
	}
	if k.PrepareForUpdate != nil {
		k.PrepareForUpdate(obj, old)
	}
	obj.SetGeneration(old.GetGeneration())
	if !k.Generation || k.Spec == nil {
		return
	}
	if !equality.Semantic.DeepEqual(k.Spec(obj), k.Spec(old)) || k.Counted != nil && !equality.Semantic.DeepEqual(k.Counted(obj), k.Counted(old)) {
		obj.SetGeneration(old.GetGeneration() + 1)
	}
}

func (k *Kind[T]) prepareForStatusUpdate(obj, old T) {
	if k.Spec != nil {
		assign(k.Spec(obj), k.Spec(old))
	}
	obj.SetGeneration(old.GetGeneration())
	if k.StatusOnly {
		metav1.ResetObjectMetaForStatus(obj, old)
	}
	if k.PrepareStatusUpdate != nil {
		k.PrepareStatusUpdate(obj, old)
	}
}

// assign copies *src to *dst. The copy is shallow: dst shares src's immutable
// parts.
func assign(dst, src any) {
	d := reflect.ValueOf(dst)
	if d.Kind() == reflect.Pointer {
		d.Elem().Set(reflect.ValueOf(src).Elem())
	}
}
