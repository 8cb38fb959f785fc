package shape

import (
	"encoding/binary"
	"reflect"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/structured-merge-diff/v6/value"
)

// Name is the name of an item that a change adds to a list or takes from it: the value
// of the one key of its items.
type Name struct{ Key, Value string }

// Change is the shape of a change of an object.
type Change struct {
	// Shape is equal for equal shapes.
	Shape []byte
	// Names are to be filled in where Shape has its holes, in their order.
	Names []Name
}

// What begins a part of a shape within a value. The end of a value is told from them.
const (
	none byte = iota
	aText
	aNumber
	aHole
	gone
	come
	end = 0xff
)

// Reset empties c, so that its memory can be used again.
func (c *Change) Reset() { c.Shape, c.Names = c.Shape[:0], c.Names[:0] }

const (
	// maxDepth and maxItems bound what is looked at.
	maxDepth = 32
	maxItems = 64
)

// The states of a value.
const (
	absent byte = iota
	null
	empty
	present
)

// Append adds to c the shape of the change from before to after, two structs of the kind
// that are addressable. With literal it has no holes. It reports false where the change
// has none that this package knows.
func (k *Kind) Append(c *Change, before, after reflect.Value, literal bool) bool {
	w := walker{c, literal}
	_, ok := w.value(k.root, before, after, true, true, 0)
	return ok
}

type walker struct {
	*Change
	literal bool
}

// value appends the shape of the change from l to r, of which at least one is there, and
// nothing if they are the same. It reports that, and whether the change has a shape.
func (w walker) value(n *node, l, r reflect.Value, hasL, hasR bool, depth int) (same, ok bool) {
	if n.form == opaque || depth > maxDepth {
		return false, false
	}
	if n.form == leaf {
		return w.leaf(l, r, hasL, hasR), true
	}
	n = n.filled()
	l, r = deref(l), deref(r)
	sl, sr := state(l, hasL), state(r, hasR)
	begin := len(w.Shape)
	w.Shape = append(w.Shape, sl<<4|sr)
	head := len(w.Shape)
	l, r, hasL, hasR = inside(l, sl), inside(r, sr), sl >= empty, sr >= empty
	switch {
	case !hasL && !hasR:
		ok = true
	case n.form == structure:
		ok = w.structure(n, l, r, hasL, hasR, depth)
	case n.form == dictionary:
		ok = w.dictionary(n, l, r, hasL, hasR, depth)
	case n.form == keyed:
		ok = w.keyed(n, l, r, hasL, hasR, depth)
	default:
		ok = w.set(l, r, hasL, hasR)
	}
	if ok && sl == sr && len(w.Shape) == head {
		w.Shape = w.Shape[:begin]
		return true, true
	}
	w.Shape = append(w.Shape, end)
	return false, ok
}

func deref(v reflect.Value) reflect.Value {
	if v.IsValid() && v.Kind() == reflect.Pointer && !v.IsNil() {
		return v.Elem()
	}
	return v
}

// state returns that of a value other than a leaf.
func state(v reflect.Value, has bool) byte {
	switch {
	case !has:
		return absent
	case v.Kind() == reflect.Struct:
		return present
	case v.IsNil():
		return null
	case v.Len() == 0:
		return empty
	}
	return present
}

// inside returns v, invalid where nothing is in it.
func inside(v reflect.Value, state byte) reflect.Value {
	if state < empty {
		return reflect.Value{}
	}
	return v
}

// leaf appends whether the value has come, gone or been changed.
func (w walker) leaf(l, r reflect.Value, hasL, hasR bool) bool {
	switch {
	case !hasL:
		w.Shape = append(w.Shape, absent<<4|present)
	case !hasR:
		w.Shape = append(w.Shape, present<<4) // and absent, which is 0
	case equal(l, r):
		return true
	default:
		w.Shape = append(w.Shape, present<<4|present)
	}
	return false
}

var timeType = reflect.TypeFor[metav1.Time]()

// equal reports whether two leaves are equal in JSON.
func equal(l, r reflect.Value) bool {
	switch l.Kind() {
	case reflect.String:
		if l.String() == r.String() {
			return true
		}
	case reflect.Bool:
		return l.Bool() == r.Bool()
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return l.Int() == r.Int()
	case reflect.Struct:
		if l.Type() == timeType && l.CanAddr() && r.CanAddr() {
			a, b := l.Addr().Interface().(*metav1.Time), r.Addr().Interface().(*metav1.Time)
			return a.IsZero() == b.IsZero() && (a.IsZero() || a.Unix() == b.Unix())
		}
	case reflect.Pointer:
		if l.Pointer() == r.Pointer() {
			return true
		}
	case reflect.Slice:
		if l.Len() == r.Len() && l.Pointer() == r.Pointer() && l.IsNil() == r.IsNil() {
			return true
		}
	}
	a, err := value.NewValueReflect(pointer(l))
	if err != nil {
		return false
	}
	b, err := value.NewValueReflect(pointer(r))
	return err == nil && value.Equals(a, b)
}

// pointer returns a pointer to v, or v if it is one.
func pointer(v reflect.Value) any {
	switch {
	case v.Kind() == reflect.Pointer:
		return v.Interface()
	case v.CanAddr():
		return v.Addr().Interface()
	}
	p := reflect.New(v.Type())
	p.Elem().Set(v)
	return p.Interface()
}

func (w walker) structure(n *node, l, r reflect.Value, hasL, hasR bool, depth int) bool {
	for i := range n.fields {
		f := &n.fields[i]
		var fl, fr reflect.Value
		var inL, inR bool
		if hasL {
			fl = f.GetFrom(l)
			inL = !f.CanOmit(fl)
		}
		if hasR {
			fr = f.GetFrom(r)
			inR = !f.CanOmit(fr)
		}
		if !inL && !inR {
			continue
		}
		begin := len(w.Shape)
		w.Shape = append(w.Shape, byte(i))
		same, ok := w.value(f.node, fl, fr, inL, inR, depth+1)
		if !ok {
			return false
		}
		if same {
			w.Shape = w.Shape[:begin]
		}
	}
	return true
}

func (w walker) text(s string) {
	w.Shape = binary.AppendUvarint(w.Shape, uint64(len(s)))
	w.Shape = append(w.Shape, s...)
}

func (w walker) dictionary(n *node, l, r reflect.Value, hasL, hasR bool, depth int) bool {
	var keys []string
	of := func(v reflect.Value, has bool) {
		if has {
			for i := v.MapRange(); i.Next(); {
				keys = append(keys, i.Key().String())
			}
		}
	}
	of(l, hasL)
	of(r, hasR)
	slices.Sort(keys)
	keys = slices.Compact(keys)
	at := func(v reflect.Value, has bool, key string) reflect.Value {
		if !has {
			return reflect.Value{}
		}
		return v.MapIndex(reflect.ValueOf(key).Convert(v.Type().Key()))
	}
	for _, key := range keys {
		begin := len(w.Shape)
		w.Shape = append(w.Shape, aText)
		w.text(key)
		vl, vr := at(l, hasL, key), at(r, hasR, key)
		same, ok := w.value(n.items, vl, vr, vl.IsValid(), vr.IsValid(), depth+1)
		if !ok {
			return false
		}
		if same {
			w.Shape = w.Shape[:begin]
		}
	}
	return true
}

// item is an item of a keyed list.
type item struct {
	name string // its keys' values, each with its length
	v    reflect.Value
}

func (w walker) keyed(n *node, l, r reflect.Value, hasL, hasR bool, depth int) bool {
	var roomL, roomR [4]item
	before, ok := n.named(roomL[:0], l, hasL)
	if !ok {
		return false
	}
	after, ok := n.named(roomR[:0], r, hasR)
	if !ok {
		return false
	}
	find := func(in []item, name string) int {
		return slices.IndexFunc(in, func(i item) bool { return i.name == name })
	}
	holes := !w.literal && len(n.keys) == 1 && !slices.ContainsFunc(after, func(i item) bool { return find(before, i.name) >= 0 })
	for _, i := range append(before, after...) {
		holes = holes && i.name[0] == aText && plain(i.name[1:])
	}
	write := func(i item, l, r reflect.Value) bool {
		begin := len(w.Shape)
		if holes {
			w.Shape = append(w.Shape, aHole)
			w.Names = append(w.Names, Name{n.keys[0].name, i.name[1:]})
		} else {
			w.Shape = append(w.Shape, aText)
			w.text(i.name)
		}
		same, ok := w.value(n.items, l, r, l.IsValid(), r.IsValid(), depth+1)
		if same {
			w.Shape = w.Shape[:begin]
		}
		return ok
	}
	for _, i := range before {
		var match reflect.Value
		if at := find(after, i.name); at >= 0 {
			match = after[at].v
		}
		if !write(i, i.v, match) {
			return false
		}
	}
	for _, i := range after {
		if find(before, i.name) < 0 && !write(i, reflect.Value{}, i.v) {
			return false
		}
	}
	return true
}

// named returns the items of a list by their names, in the names' order. It reports false
// where two have the same, or one has none.
func (n *node) named(out []item, list reflect.Value, has bool) ([]item, bool) {
	if !has {
		return nil, true
	}
	if list.Len() > maxItems {
		return nil, false
	}
	for i := range list.Len() {
		v := list.Index(i)
		name, ok := n.name(v)
		if !ok {
			return nil, false
		}
		out = append(out, item{name, v})
	}
	slices.SortFunc(out, func(a, b item) int { return strings.Compare(a.name, b.name) })
	for i := 1; i < len(out); i++ {
		if out[i].name == out[i-1].name {
			return nil, false
		}
	}
	return out, true
}

// name returns the name of an item: of each key, whether it has a value, and that.
func (n *node) name(v reflect.Value) (string, bool) {
	var room [64]byte
	name, some := room[:0], false
	for i := range n.keys {
		k := &n.keys[i]
		f := k.GetFrom(v)
		var text string
		switch {
		case !k.CanOmit(f) && f.Kind() == reflect.String:
			text = f.String()
		case !k.CanOmit(f):
			some = true
			name = binary.AppendVarint(append(name, aNumber), f.Int())
			continue
		case k.missing == nil:
			name = append(name, none)
			continue
		default:
			var ok bool
			if text, ok = k.missing.(string); !ok {
				return "", false
			}
		}
		some = true
		name = append(name, aText)
		if len(n.keys) > 1 {
			name = binary.AppendUvarint(name, uint64(len(text)))
		}
		name = append(name, text...)
	}
	return string(name), some
}

// plain reports whether a name is the same in JSON, and no part of another one there.
func plain(name string) bool {
	if name == "" {
		return false
	}
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '.', c == ':', c == '/', c == '_':
		default:
			return false
		}
	}
	return true
}

func (w walker) set(l, r reflect.Value, hasL, hasR bool) bool {
	before, ok := members(l, hasL)
	if !ok {
		return false
	}
	after, ok := members(r, hasR)
	if !ok {
		return false
	}
	write := func(side byte, in, other []reflect.Value) {
		for _, v := range in {
			if slices.ContainsFunc(other, v.Equal) {
				continue
			}
			w.Shape = append(w.Shape, side)
			switch {
			case v.Kind() == reflect.String:
				w.text(v.String())
			case v.CanInt():
				w.Shape = binary.AppendVarint(w.Shape, v.Int())
			}
		}
	}
	write(gone, before, after)
	write(come, after, before)
	return true
}

// members returns the items of a set. It reports false where two are equal.
func members(list reflect.Value, has bool) ([]reflect.Value, bool) {
	if !has {
		return nil, true
	}
	if list.Len() > maxItems {
		return nil, false
	}
	out := make([]reflect.Value, 0, list.Len())
	for i := range list.Len() {
		v := list.Index(i)
		if v.Kind() != reflect.String && !v.CanInt() || slices.ContainsFunc(out, v.Equal) {
			return nil, false
		}
		out = append(out, v)
	}
	return out, true
}
