package row

import (
	"reflect"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/operation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/validation"
)

// Object is an API object of a known Go type.
type Object interface {
	runtime.Object
	metav1.Object
}

// Kind holds what is particular to objects of type T, in functions over that type;
// each may be nil. api.Resource documents them.
type Kind[T Object] struct {
	// Spec returns a pointer to what the user wishes of the object: a change of it
	// advances the generation (if Generation is set), and a status update may not
	// touch it. A kind whose wish is in several fields may give any comparable value
	// when it has no status.
	Spec func(T) any
	// Status returns a pointer to the status. It makes the status subresource.
	Status func(T) any
	// Generation reports whether the kind counts generations of Spec.
	Generation bool
	// Counted returns what else advances the generation.
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
	// Warnings returns the warnings for a creation, and for an update unless
	// UpdateWarnings is set.
	Warnings       func(T) []string
	UpdateWarnings func(obj, old T) []string
	// Updates are further subresources that update the whole object, by name.
	Updates map[string]Update[T]
	// Scale returns what the scale subresource shows and changes. It makes it.
	Scale func(T) Scale

	GracePeriod   func(obj T, wanted *int64) int64
	BeforeDelete  func(T)
	Finalizing    func(T) bool
	TTL           func(T) time.Duration
	Fields        func(T) fields.Set
	Cells         func(T, time.Time) []any
	RowConditions func(T) []metav1.TableRowCondition
}

// Update holds the rules for updates through a subresource.
type Update[T Object] struct {
	Prepare  func(obj, old T)
	Validate func(obj, old T) field.ErrorList
}

// Scale is the scale of an object.
type Scale struct {
	// Replicas is the field of the wanted replicas.
	Replicas **int32
	Current  int32
	Selector string
}

// pointer is the type of pointers to T, which are objects.
type pointer[T any] interface {
	*T
	Object
}

// list is the type of pointers to L, which are lists of objects.
type list[L any] interface {
	*L
	runtime.Object
}

// New makes the row of the objects of type T, with lists of type L, in a version of
// their group: r with the names, which follow from T's, and the functions of k.
func New[L, T any, P pointer[T], PL list[L]](gv schema.GroupVersion, r api.Resource, k Kind[P]) *api.Resource {
	r.NewList = func() runtime.Object { return PL(new(L)) }
	return complete[T](gv, r, k)
}

// NewComputed makes the row of objects that are not stored and have no lists: the
// answer to their creation, unless r has other verbs, is computed.
func NewComputed[T any, P pointer[T]](gv schema.GroupVersion, r api.Resource, k Kind[P]) *api.Resource {
	r.NotStored = true
	if r.Verbs == nil {
		r.Verbs = []string{"create"}
	}
	return complete[T](gv, r, k)
}

func complete[T any, P pointer[T]](gv schema.GroupVersion, r api.Resource, k Kind[P]) *api.Resource {
	r.Kind = reflect.TypeFor[T]().Name()
	plural, singular := meta.UnsafeGuessKindToResource(gv.WithKind(r.Kind))
	r.GroupVersionResource, r.Singular = plural, singular.Resource
	if r.StoragePrefix == "" && !r.NotStored {
		r.StoragePrefix = r.Resource
	}
	r.New = func() runtime.Object { return P(new(T)) }
	k.fill(&r)
	return &r
}

// fill puts the functions of k into r.
func (k Kind[T]) fill(r *api.Resource) {
	r.Default = one(k.Default)
	r.PrepareForCreate = func(obj runtime.Object) { k.prepareForCreate(obj.(T)) }
	if k.PrepareForRequest != nil {
		r.PrepareForRequest = func(req api.Request, obj runtime.Object) { k.PrepareForRequest(req, obj.(T)) }
	}
	k.declare()
	r.Validate = gives(k.Validate)
	r.UpdateStrategy = api.UpdateStrategy{
		PrepareForUpdate: func(obj, old runtime.Object) { k.prepareForUpdate(obj.(T), old.(T)) },
		ValidateUpdate:   compares(k.ValidateUpdate),
		ValidateRequest:  ofRequest(k.ValidateRequest),
	}
	if k.Status != nil {
		r.Status = &api.UpdateStrategy{
			PrepareForUpdate: func(obj, old runtime.Object) { k.prepareForStatusUpdate(obj.(T), old.(T)) },
			ValidateUpdate:   compares(k.ValidateStatusUpdate),
			ValidateRequest:  ofRequest(k.ValidateStatusRequest),
		}
	}
	for name, u := range k.Updates {
		if r.Updates == nil {
			r.Updates = map[string]*api.UpdateStrategy{}
		}
		r.Updates[name] = &api.UpdateStrategy{
			PrepareForUpdate: func(obj, old runtime.Object) { u.Prepare(obj.(T), old.(T)) },
			ValidateUpdate:   compares(u.Validate),
		}
	}
	if k.Scale != nil {
		r.Scale = k.scale()
	}
	if k.Warnings != nil || k.UpdateWarnings != nil {
		r.Warnings = k.warnings
	}
	if k.GracePeriod != nil {
		r.GracePeriod = func(obj runtime.Object, wanted *int64) int64 { return k.GracePeriod(obj.(T), wanted) }
	}
	r.BeforeDelete = one(k.BeforeDelete)
	r.Finalizing = gives(k.Finalizing)
	r.TTL = gives(k.TTL)
	r.Fields = gives(k.Fields)
	if k.Cells != nil {
		r.Cells = func(obj runtime.Object, now time.Time) []any { return k.Cells(obj.(T), now) }
	}
	r.RowConditions = gives(k.RowConditions)
}

// declare puts what the kind's markers declare beside its own rules, in creations and
// in updates of the object and of its subresources.
func (k *Kind[T]) declare() {
	f := declared[T](validation.For[T]())
	if f == nil {
		return
	}
	own, ownUpdate := k.Validate, k.ValidateUpdate
	k.Validate = func(obj T) (errs field.ErrorList) {
		if own != nil {
			errs = own(obj)
		}
		var none T
		return f.beside(errs, operation.Create, obj, none)
	}
	if ownUpdate == nil && own != nil {
		ownUpdate = func(obj, _ T) field.ErrorList { return own(obj) }
	}
	k.ValidateUpdate = f.inUpdates(ownUpdate)
	k.ValidateStatusUpdate = f.inUpdates(k.ValidateStatusUpdate)
	updates := make(map[string]Update[T], len(k.Updates))
	for name, u := range k.Updates {
		updates[name] = Update[T]{u.Prepare, f.inUpdates(u.Validate)}
	}
	k.Updates = updates
}

// one, gives, compares and ofRequest take functions over T for functions over
// objects; nil stays nil.
func one[T Object](f func(T)) func(runtime.Object) {
	if f == nil {
		return nil
	}
	return func(obj runtime.Object) { f(obj.(T)) }
}

func gives[T Object, R any](f func(T) R) func(runtime.Object) R {
	if f == nil {
		return nil
	}
	return func(obj runtime.Object) R { return f(obj.(T)) }
}

func compares[T Object](f func(obj, old T) field.ErrorList) func(obj, old runtime.Object) field.ErrorList {
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

// replicasPath is the field of the replicas of the kinds that are built in.
var replicasPath = []string{"spec", "replicas"}

func (k Kind[T]) scale() *api.Scale {
	return &api.Scale{
		Path: replicasPath,
		Get: func(obj runtime.Object) (*int32, int32, string, error) {
			s := k.Scale(obj.(T))
			return *s.Replicas, s.Current, s.Selector, nil
		},
		Set: func(obj runtime.Object, replicas int32) error {
			*k.Scale(obj.(T)).Replicas = &replicas
			return nil
		},
	}
}

func (k Kind[T]) warnings(obj, old runtime.Object) []string {
	switch {
	case old != nil && k.UpdateWarnings != nil:
		return k.UpdateWarnings(obj.(T), old.(T))
	case k.Warnings != nil:
		return k.Warnings(obj.(T))
	}
	return nil
}

func (k Kind[T]) prepareForCreate(obj T) {
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

func (k Kind[T]) prepareForUpdate(obj, old T) {
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

func (k Kind[T]) prepareForStatusUpdate(obj, old T) {
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
