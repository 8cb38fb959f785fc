package store

import (
	"reflect"
	"sync"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// ReadBack makes obj what it is when it is read back from its protobuf form, in
// place: that does not tell an empty list or map from none, nor one that is missing in
// a list or map from an empty one. Without it clients would see a restart. Custom resources,
// whose form is JSON, stay as they are.
func ReadBack(obj runtime.Object) {
	v := reflect.ValueOf(obj)
	if v.Kind() != reflect.Pointer || v.IsNil() {
		return
	}
	if fix := readBackOf(v.Type().Elem()); fix != nil {
		fix(v.Elem())
	}
}

// readBack changes an addressable value as ReadBack does, and reports whether there was
// something to change. What is right already is not written: it may be shared with
// objects that are being read.
type readBack func(reflect.Value) bool

// readBacks has the readBack of each type that was asked for; nil for those that
// have nothing to change.
var readBacks sync.Map // reflect.Type → readBack

// untouched are types that have a protobuf form of their own, which keeps all of
// their value, or that are not stored.
var untouched = map[reflect.Type]bool{
	reflect.TypeFor[metav1.TypeMeta]():      true,
	reflect.TypeFor[metav1.Time]():          true,
	reflect.TypeFor[metav1.MicroTime]():     true,
	reflect.TypeFor[metav1.Duration]():      true,
	reflect.TypeFor[metav1.FieldsV1]():      true,
	reflect.TypeFor[resource.Quantity]():    true,
	reflect.TypeFor[intstr.IntOrString]():   true,
	reflect.TypeFor[runtime.RawExtension](): true,
}

func readBackOf(t reflect.Type) readBack {
	if fix, ok := readBacks.Load(t); ok {
		return fix.(readBack)
	}
	b := builder{}
	fix := b.build(t)
	kept, _ := readBacks.LoadOrStore(t, fix)
	return kept.(readBack)
}

// builder makes the readBack of a type and of those in it. A type that is being made
// further up is found at the time of use: some types are recursive.
type builder map[reflect.Type]bool

func (b builder) build(t reflect.Type) readBack {
	switch {
	case untouched[t]:
		return nil
	case b[t]:
		return func(v reflect.Value) bool {
			fix := readBackOf(t)
			return fix != nil && fix(v)
		}
	}
	switch t.Kind() {
	case reflect.Struct:
		b[t] = true
		defer delete(b, t)
		return b.fields(t)
	case reflect.Pointer:
		if fix := b.build(t.Elem()); fix != nil {
			return func(v reflect.Value) bool { return !v.IsNil() && fix(v.Elem()) }
		}
	case reflect.Slice:
		if t.Elem().Kind() != reflect.Uint8 {
			return b.list(t)
		}
	case reflect.Map:
		return b.dictionary(t)
	}
	return nil
}

func (b builder) fields(t reflect.Type) readBack {
	type part struct {
		index int
		fix   readBack
	}
	var parts []part
	for i := range t.NumField() {
		if f := t.Field(i); f.IsExported() {
			if fix := b.build(f.Type); fix != nil {
				parts = append(parts, part{i, fix})
			}
		}
	}
	if len(parts) == 0 {
		return nil
	}
	return func(v reflect.Value) (changed bool) {
		for _, p := range parts {
			changed = p.fix(v.Field(p.index)) || changed
		}
		return changed
	}
}

func (b builder) list(t reflect.Type) readBack {
	item := b.item(t.Elem())
	return func(v reflect.Value) (changed bool) {
		n := v.Len()
		if n == 0 {
			return clear(v)
		}
		if item == nil {
			return false
		}
		for i := range n {
			changed = item(v.Index(i)) || changed
		}
		return changed
	}
}

// clear has no empty list or map where there is one.
func clear(v reflect.Value) bool {
	if v.IsNil() {
		return false
	}
	v.SetZero()
	return true
}

// item returns the readBack of the items of a list or map, of which none is left out.
func (b builder) item(t reflect.Type) readBack {
	if t.Kind() != reflect.Slice {
		return b.build(t)
	}
	whole := b.build(t)
	return func(v reflect.Value) bool {
		switch {
		case v.Len() > 0 && whole != nil:
			return whole(v)
		case v.IsNil():
			v.Set(reflect.MakeSlice(t, 0, 0))
			return true
		}
		return false
	}
}

func (b builder) dictionary(t reflect.Type) readBack {
	item := b.item(t.Elem())
	return func(v reflect.Value) (changed bool) {
		n := v.Len()
		if n == 0 {
			return clear(v)
		}
		if item == nil {
			return false
		}
		// The values of a map cannot be changed in place.
		value := reflect.New(t.Elem()).Elem()
		for i := v.MapRange(); i.Next(); {
			value.Set(i.Value())
			if item(value) {
				v.SetMapIndex(i.Key(), value)
				changed = true
			}
		}
		return changed
	}
}
