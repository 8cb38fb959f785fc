package apiserver

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/client-go/applyconfigurations"
	kubescheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/kube-openapi/pkg/util"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
	"sigs.k8s.io/structured-merge-diff/v6/value"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/definitions"
	"keelson.dev/keelson/internal/objectjson"
)

// NewTypes reads the schemas of the built-in kinds, by which the fields of their
// objects are owned and merged. It takes about 0.1 s.
func NewTypes(scheme *runtime.Scheme) managedfields.TypeConverter {
	return &structuredTypes{TypeConverter: applyconfigurations.NewTypeConverter(scheme)}
}

// structuredTypes converts the objects of built-in kinds that are compared, not
// applied, without validating them: a Go struct has no unknown fields and no
// values of a wrong type, and duplicates are allowed in what is compared.
type structuredTypes struct {
	managedfields.TypeConverter
	kinds sync.Map // schema.GroupVersionKind to *typed.TypedValue, of an empty object
}

// ObjectToTyped implements managedfields.TypeConverter.
func (t *structuredTypes) ObjectToTyped(obj runtime.Object, opts ...typed.ValidationOptions) (*typed.TypedValue, error) {
	if _, ok := obj.(*unstructured.Unstructured); ok || !slices.Contains(opts, typed.AllowDuplicates) {
		return t.TypeConverter.ObjectToTyped(obj, opts...)
	}
	gvk := obj.GetObjectKind().GroupVersionKind()
	kind, ok := t.kinds.Load(gvk)
	if !ok {
		empty := reflect.New(reflect.TypeOf(obj).Elem()).Interface().(runtime.Object)
		empty.GetObjectKind().SetGroupVersionKind(gvk)
		v, err := t.TypeConverter.ObjectToTyped(empty, opts...)
		if err != nil {
			return nil, err
		}
		kind, _ = t.kinds.LoadOrStore(gvk, v)
	}
	value, err := value.NewValueReflect(obj)
	if err != nil {
		return nil, err
	}
	k := kind.(*typed.TypedValue)
	return typed.AsTypedUnvalidated(value, k.Schema(), k.TypeRef()), nil
}

// ownership tracks the owners of the fields of a row's objects.
type ownership struct {
	*managedfields.FieldManager
	types     managedfields.TypeConverter
	creations creations
	// reset is the part of an object, Spec or Status, that is not written through
	// this subresource; empty where there is none.
	reset string
	// outcomes are of changes of objects with a Go type.
	outcomes *outcomes
}

// update records in obj which of its fields manager changed in old.
func (o *ownership) update(old, obj runtime.Object, manager string) runtime.Object {
	if _, custom := obj.(*unstructured.Unstructured); custom {
		return o.UpdateNoErrors(old, obj, manager)
	}
	c := o.outcomes.change(old, obj, manager)
	defer c.done()
	if o.outcomes.known(c) {
		return obj
	}
	if o.reset == "" {
		if updated, err := o.Update(old, obj, manager); err == nil {
			o.outcomes.learn(c)
			return updated
		}
		return o.UpdateNoErrors(old, obj, manager)
	}
	// The part that is not written is not compared.
	compared, err := o.Update(o.written(old), o.written(obj), manager)
	failed := err != nil
	if failed {
		compared = o.UpdateNoErrors(o.written(old), o.written(obj), manager)
	}
	if from, err := meta.Accessor(compared); err == nil {
		if to, err := meta.Accessor(obj); err == nil {
			to.SetManagedFields(from.GetManagedFields())
			if !failed {
				o.outcomes.learn(c)
			}
		}
	}
	return obj
}

// written returns obj without the part that is not written.
func (o *ownership) written(obj runtime.Object) runtime.Object {
	c := shallow(obj)
	if f := reflect.ValueOf(c).Elem().FieldByName(o.reset); f.IsValid() {
		f.SetZero()
	}
	return c
}

// ownershipKey is the key of an ownership. It has the row itself: another row of the
// same custom resource has another schema.
type ownershipKey struct {
	row         *api.Resource
	subresource string
}

// ownership returns the tracker for the row's objects, changed through the
// subresource.
func (s *Server) ownership(row *api.Resource, subresource string) (*ownership, error) {
	key := ownershipKey{row, subresource}
	if o, ok := s.ownerships.Load(key); ok {
		return o.(*ownership), nil
	}
	reset, part := fieldpath.NewSet(), ""
	switch {
	case subresource == "status":
		reset.Insert(fieldpath.MakePathOrDie("spec"))
		if isUnstructured(row) {
			reset.Insert(fieldpath.MakePathOrDie("metadata"))
		}
		part = "Spec"
	case subresource == "" && row.Status != nil:
		reset.Insert(fieldpath.MakePathOrDie("status"))
		part = "Status"
	}
	o := rowObjects{row, s.versions(row)}
	filters := map[fieldpath.APIVersion]fieldpath.Filter{}
	for _, v := range o.versions {
		filters[fieldpath.APIVersion(v.GroupVersion().String())] = fieldpath.NewExcludeSetFilter(reset)
	}
	var types managedfields.TypeConverter
	var err error
	build := managedfields.NewDefaultFieldManager
	switch {
	case isUnstructured(row):
		types, err = customTypes(row)
		build = managedfields.NewDefaultCRDFieldManager
	case row == scaleRow || !kubescheme.Scheme.Recognizes(row.GVK()):
		types, err = describedTypes(o.versions)
	default:
		types = s.Types()
	}
	if err != nil {
		return nil, err
	}
	fm, err := build(types, o, o, o, row.GVK(), row.GroupVersion(), subresource, filters)
	if err != nil {
		return nil, err
	}
	s.ownerships.Range(func(key, _ any) bool {
		if row := key.(ownershipKey).row; s.Catalogue.Lookup(row.Group, row.Version, row.Resource) != row {
			s.ownerships.Delete(key) // the custom resource has been changed or deleted since
		}
		return true
	})
	kept, _ := s.ownerships.LoadOrStore(key, &ownership{FieldManager: fm, types: types, reset: part, outcomes: newOutcomes(row, subresource, types, part)})
	return kept.(*ownership), nil
}

// TypesOf returns the schemas of a kind, by which policies merge its objects; nil for
// a kind that has none. They are known as soon as the kind is served.
func (s *Server) TypesOf(gvk schema.GroupVersionKind) managedfields.TypeConverter {
	row := s.Catalogue.ForKind(gvk)
	if row == nil || row.NotStored || kubescheme.Scheme.Recognizes(gvk) {
		return s.Types()
	}
	o, err := s.ownership(row, "")
	if err != nil {
		return nil
	}
	return o.types
}

// versions returns the rows of all versions of row's objects, itself among them:
// the rows with the same place in the store.
func (s *Server) versions(row *api.Resource) []*api.Resource {
	if row.Versions != nil {
		return row.Versions
	}
	out := []*api.Resource{row}
	for _, r := range s.Catalogue.All() {
		if r != row && !r.NotStored && r.StoragePrefix != "" && r.StoragePrefix == row.StoragePrefix {
			out = append(out, r)
		}
	}
	return out
}

// describedTypes returns a converter for the objects of a kind without an apply
// configuration in client-go.
func describedTypes(versions []*api.Resource) (managedfields.TypeConverter, error) {
	models := map[string]*spec.Schema{}
	for _, row := range versions {
		name := util.GetCanonicalTypeName(row.New())
		described, err := definitions.Of(definitions.V2, name)
		if err != nil {
			return nil, err
		}
		for name, d := range described {
			models[name] = &d.Schema
		}
		if models[name] == nil {
			return nil, fmt.Errorf("the type of %s is not described", row.GroupVersionResource)
		}
		gvk := row.GVK()
		models[name].AddExtension("x-kubernetes-group-version-kind", []any{map[string]any{"group": gvk.Group, "version": gvk.Version, "kind": gvk.Kind}})
	}
	return managedfields.NewTypeConverter(models, false)
}

// customTypes returns a converter for the objects of a custom resource, by its
// schema.
func customTypes(row *api.Resource) (managedfields.TypeConverter, error) {
	if row.Models == nil {
		return managedfields.NewDeducedTypeConverter(), nil
	}
	models, err := row.Models()
	if err != nil {
		return nil, err
	}
	return managedfields.NewTypeConverter(models, false)
}

// rowObjects makes and defaults objects of one row for the field manager, and
// converts them between the versions of their kind.
type rowObjects struct {
	row      *api.Resource
	versions []*api.Resource
}

func (o rowObjects) New(gvk schema.GroupVersionKind) (runtime.Object, error) {
	if gvk != o.row.GVK() {
		return nil, runtime.NewNotRegisteredErrForKind("catalogue", gvk)
	}
	obj := o.row.New()
	obj.GetObjectKind().SetGroupVersionKind(gvk)
	return obj, nil
}

func (o rowObjects) Default(obj runtime.Object) {
	if o.row.Default == nil {
		return
	}
	if _, ok := obj.(*unstructured.Unstructured); ok && !isUnstructured(o.row) {
		return
	}
	o.row.Default(obj)
}

func (o rowObjects) Convert(in, out, context any) error {
	return fmt.Errorf("conversion of %T to %T is not served", in, out)
}

// version returns the row of the kind in gv, nil if there is none.
func (o rowObjects) version(gv schema.GroupVersion) *api.Resource {
	if i := slices.IndexFunc(o.versions, func(r *api.Resource) bool { return r.GroupVersion() == gv }); i >= 0 {
		return o.versions[i]
	}
	return nil
}

// ConvertToVersion converts in, an object of any of the versions, to that of
// target.
func (o rowObjects) ConvertToVersion(in runtime.Object, target runtime.GroupVersioner) (runtime.Object, error) {
	from := o.row
	if gvk := in.GetObjectKind().GroupVersionKind(); !gvk.Empty() {
		from = o.version(gvk.GroupVersion())
	}
	gv, ok := target.(schema.GroupVersion)
	to := o.version(gv)
	if from == nil || to == nil || !ok {
		return nil, runtime.NewNotRegisteredErrForTarget("catalogue", nil, target)
	}
	if u, ok := in.(*unstructured.Unstructured); ok && !isUnstructured(from) {
		obj := from.New()
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, obj); err != nil {
			return nil, err
		}
		in = obj
	}
	out := in
	if from != to {
		var err error
		if from.Hub != nil {
			if out, err = from.Hub.ToHub(out); err != nil {
				return nil, err
			}
		}
		if out, err = versioned(to, out); err != nil {
			return nil, err
		}
	}
	if out.GetObjectKind().GroupVersionKind() == to.GVK() {
		return out, nil
	}
	if out == in {
		out = shallow(in)
	}
	out.GetObjectKind().SetGroupVersionKind(to.GVK())
	return out, nil
}

func (o rowObjects) ConvertFieldLabel(_ schema.GroupVersionKind, label, value string) (string, string, error) {
	return label, value, nil
}

// manage records in obj which of its fields the request's manager changed. old
// is nil for a creation.
func (r *writer) manage(obj, old runtime.Object, manager, subresource string) runtime.Object {
	acc, err := meta.Accessor(obj)
	if err != nil {
		return obj
	}
	fields, err := r.s.ownership(r.row, subresource)
	if err != nil {
		return obj
	}
	manager = r.manager(manager)
	u, custom := obj.(*unstructured.Unstructured)
	var shape map[string]any
	if old == nil {
		old = r.row.New()
		// An emptied list of managed fields in a creation asks for no managers.
		given := acc.GetManagedFields()
		if given != nil && len(given) == 0 {
			return obj
		}
		if custom && given == nil {
			if fields.created(u, r.row.GroupVersion().String(), manager, time.Now()) {
				r.managed = managers(u)
				return obj
			}
			shape = objectjson.Shape(u.Object).(map[string]any)
		}
	}
	obj.GetObjectKind().SetGroupVersionKind(r.row.GVK())
	obj = fields.update(withGVK(r.row.GVK(), old), obj, manager)
	wholeSeconds(obj)
	if u, custom = obj.(*unstructured.Unstructured); custom {
		objectjson.ShareManagedFields(u.Object)
		r.managed = managers(u)
		if shape != nil {
			fields.learn(shape, u)
		}
	}
	return obj
}

// wholeSeconds rounds the times of obj's managers to what clients see: else a
// client that writes back what it has read would change them.
func wholeSeconds(obj runtime.Object) {
	acc, err := meta.Accessor(obj)
	if _, custom := obj.(*unstructured.Unstructured); custom || err != nil {
		return
	}
	for i, m := range acc.GetManagedFields() {
		if m.Time != nil && m.Time.Nanosecond() != 0 {
			acc.GetManagedFields()[i].Time = &metav1.Time{Time: m.Time.Truncate(time.Second)}
		}
	}
}

// managers returns a pointer to the list of u's managers, nil if there is none.
func managers(u *unstructured.Unstructured) *any {
	metadata, _ := u.Object["metadata"].(map[string]any)
	if l, _ := metadata["managedFields"].([]any); len(l) > 0 {
		return &l[0]
	}
	return nil
}

// unmanaged is metadata without the managers, which are slow to read from maps.
type unmanaged struct{ metav1.Object }

// GetManagedFields implements metav1.Object.
func (unmanaged) GetManagedFields() []metav1.ManagedFieldsEntry { return nil }

// toValidate returns acc without the managers if manage has set them: these need
// no validation.
func (r *writer) toValidate(acc metav1.Object) metav1.Object {
	if u, ok := acc.(*unstructured.Unstructured); ok && r.managed != nil && managers(u) == r.managed {
		return unmanaged{acc}
	}
	return acc
}

// manager returns the name of the field manager: the one given, or the client's
// name.
func (r *writer) manager(given string) string {
	if given != "" {
		return given
	}
	name, _, _ := strings.Cut(r.req.UserAgent(), "/")
	if len(name) > 128 {
		name = name[:128]
		for !utf8.ValidString(name) {
			name = name[:len(name)-1]
		}
	}
	if name == "" {
		return "unknown"
	}
	return name
}
