package shape

import (
	"reflect"
	"slices"
	"sync"

	"sigs.k8s.io/structured-merge-diff/v6/schema"
	"sigs.k8s.io/structured-merge-diff/v6/value"
)

// Kind is a kind of object with a Go type.
type Kind struct {
	schema *schema.Schema
	root   *node
}

// form is how the values of a node are compared.
type form uint8

const (
	opaque     form = iota // not: their changes have no shape
	leaf                   // as one
	structure              // by the fields of a struct
	dictionary             // by the keys of a map
	keyed                  // by items of a list, which have keys
	set                    // by items of a list, which are their own keys
)

// node is a type in its place of the schema.
type node struct {
	form   form
	t      reflect.Type
	fields []fieldNode
	items  *node
	keys   []keyNode
	// makes the rest, when it is first wanted: some types are recursive.
	once sync.Once
	fill func()
}

// fieldNode is a field of a struct.
type fieldNode struct {
	*value.FieldCacheEntry
	*node
}

// keyNode is a field that is a key of the items of a list.
type keyNode struct {
	*value.FieldCacheEntry
	name string
	// missing stands for the value where there is none; nil is none.
	missing any
}

// NewKind makes the kind whose objects are of type t, a struct, and are described by ref
// in s. Fields at the paths in without, of names in JSON, are not looked at.
func NewKind(t reflect.Type, s *schema.Schema, ref schema.TypeRef, without ...[]string) *Kind {
	k := &Kind{schema: s}
	k.root = k.node(t, ref)
	for _, path := range without {
		k.root.omit(path)
	}
	return k
}

// omit leaves out the field at path.
func (n *node) omit(path []string) {
	n.filled()
	i := slices.IndexFunc(n.fields, func(f fieldNode) bool { return f.JsonName == path[0] })
	switch {
	case i < 0:
	case len(path) == 1:
		n.fields = slices.Delete(n.fields, i, i+1)
	default:
		n.fields[i].omit(path[1:])
	}
}

// node makes the node of t, described by ref.
func (k *Kind) node(t reflect.Type, ref schema.TypeRef) *node {
	n := &node{t: t}
	atom, ok := k.schema.Resolve(ref)
	if !ok || !single(atom) {
		return n
	}
	converts := value.TypeReflectEntryOf(t).CanConvertToUnstructured()
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
		if t.Kind() == reflect.Pointer {
			return n
		}
		converts = converts || value.TypeReflectEntryOf(t).CanConvertToUnstructured()
	}
	switch {
	case atom.Scalar != nil:
		if converts || isScalar(t) {
			n.form = leaf
		}
	case converts:
	case atom.Map != nil && atom.Map.ElementRelationship == schema.Atomic, atom.List != nil && atom.List.ElementRelationship == schema.Atomic:
		n.form = leaf
	case atom.Map != nil && t.Kind() == reflect.Struct && len(value.TypeReflectEntryOf(t).OrderedFields()) < end:
		n.form = structure
		n.fill = func() { k.structure(n, t, atom.Map) }
	case atom.Map != nil && t.Kind() == reflect.Map && t.Key().Kind() == reflect.String && len(atom.Map.Fields) == 0:
		n.form = dictionary
		n.fill = func() { n.items = k.node(t.Elem(), atom.Map.ElementType) }
	case atom.List != nil && atom.List.ElementRelationship == schema.Associative && t.Kind() == reflect.Slice:
		k.list(n, t.Elem(), atom.List)
	}
	return n
}

// single reports whether values of the type are of one kind.
func single(a schema.Atom) bool {
	kinds := 0
	for _, is := range []bool{a.Scalar != nil, a.Map != nil, a.List != nil} {
		if is {
			kinds++
		}
	}
	return kinds == 1
}

func isScalar(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.String, reflect.Bool, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Float32, reflect.Float64:
		return true
	case reflect.Slice:
		return t.Elem().Kind() == reflect.Uint8
	}
	return false
}

func (k *Kind) structure(n *node, t reflect.Type, m *schema.Map) {
	for _, f := range value.TypeReflectEntryOf(t).OrderedFields() {
		ref := m.ElementType
		if described, ok := m.FindField(f.JsonName); ok {
			ref = described.Type
		}
		n.fields = append(n.fields, fieldNode{f, k.node(typeOf(t, f), ref)})
	}
}

// typeOf returns the type of the field f of t.
func typeOf(t reflect.Type, f *value.FieldCacheEntry) reflect.Type {
	return f.GetFrom(reflect.Zero(t)).Type()
}

// list describes a list of items of type t.
func (k *Kind) list(n *node, t reflect.Type, l *schema.List) {
	if len(l.Keys) == 0 {
		if isScalar(t) && t.Kind() != reflect.Slice && !value.TypeReflectEntryOf(t).CanConvertToUnstructured() {
			n.form = set
		}
		return
	}
	item, ok := k.schema.Resolve(l.ElementType)
	if t.Kind() != reflect.Struct || !ok || item.Map == nil {
		return
	}
	for _, name := range l.Keys {
		f := value.TypeReflectEntryOf(t).Fields()[name]
		if f == nil {
			return
		}
		switch at := typeOf(t, f); at.Kind() {
		case reflect.String, reflect.Int32, reflect.Int64, reflect.Int:
			if value.TypeReflectEntryOf(at).CanConvertToUnstructured() {
				return
			}
		default:
			return
		}
		key := keyNode{FieldCacheEntry: f, name: name}
		if described, ok := item.Map.FindField(name); ok {
			key.missing = described.Default
		}
		n.keys = append(n.keys, key)
	}
	n.form = keyed
	n.fill = func() { n.items = k.node(t, l.ElementType) }
}

// filled returns n with what its values consist of.
func (n *node) filled() *node {
	if n.fill != nil {
		n.once.Do(n.fill)
	}
	return n
}
