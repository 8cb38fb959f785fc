package apiserver

import (
	"encoding/binary"
	"reflect"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"sigs.k8s.io/structured-merge-diff/v6/typed"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/apiserver/shape"
)

// outcomes are what the field manager has found for changes of a resource's objects with a
// Go type. Most changes have been seen before: pods of one ReplicaSet are made and come to
// run alike, and then the same managers own the same fields.
type outcomes struct {
	gvk         schema.GroupVersionKind
	subresource bool
	kind        func() *shape.Kind // nil if there is none

	mu sync.RWMutex
	// young and old are the latest, by what decides them: when there are maxOutcomes
	// young ones, the old ones are forgotten, and these are old.
	young, old map[string]*outcome
}

const maxOutcomes = 64

// outcome has the managers of an object after a change.
type outcome []manages

// manages is a manager, and the fields that it has after a change.
type manages struct {
	entry metav1.ManagedFieldsEntry // without the fields and the time
	// text is the fields' before, between and after the names that the change has, which
	// are there in the order names.
	text  []string
	names []int
	// since is the number of the manager, before the change, whose time it has, or
	// sinceChange.
	since int
}

// sinceChange is the time of the change.
const sinceChange = -1

func newOutcomes(row *api.Resource, subresource string, types managedfields.TypeConverter, reset string) *outcomes {
	o := &outcomes{gvk: row.GVK(), subresource: subresource != ""}
	o.kind = sync.OnceValue(func() *shape.Kind {
		empty := row.New()
		empty.GetObjectKind().SetGroupVersionKind(row.GVK())
		v, err := types.ObjectToTyped(empty, typed.AllowDuplicates)
		if err != nil {
			return nil
		}
		without := [][]string{{"metadata", "managedFields"}}
		if reset != "" {
			without = append(without, []string{strings.ToLower(reset)})
		}
		return shape.NewKind(reflect.TypeOf(empty).Elem(), v.Schema(), v.TypeRef(), without...)
	})
	return o
}

// change is a change that a manager makes, and what decides its outcome.
type change struct {
	shape.Change
	acc metav1.Object // the new object
	// managers are the managers before, and now is the time.
	managers []metav1.ManagedFieldsEntry
	now      metav1.Time
	manager  string
}

var changes = sync.Pool{New: func() any { return &change{} }}

// done has the memory of c be used again.
func (c *change) done() {
	if c == nil {
		return
	}
	shape := c.Change
	shape.Reset()
	clear(shape.Names[:cap(shape.Names)])
	*c = change{Change: shape}
	changes.Put(c)
}

// change describes the change from old to obj; nil where the field manager has to look at
// it itself.
func (o *outcomes) change(old, obj runtime.Object, manager string) *change {
	kind := o.kind()
	if kind == nil || reflect.TypeOf(old) != reflect.TypeOf(obj) || obj.GetObjectKind().GroupVersionKind() != o.gvk || old.GetObjectKind().GroupVersionKind() != o.gvk {
		return nil
	}
	acc, err := meta.Accessor(obj)
	if err != nil {
		return nil
	}
	oldAcc, err := meta.Accessor(old)
	if err != nil {
		return nil
	}
	managers := oldAcc.GetManagedFields()
	if given := acc.GetManagedFields(); !o.subresource && given != nil && (len(given) == 0 || !sameManagers(given, managers)) {
		return nil
	}
	c := changes.Get().(*change)
	c.acc, c.managers, c.manager = acc, managers, manager
	c.now = metav1.Time{Time: time.Now().UTC().Truncate(time.Second)}
	if o.describe(c, kind, old, obj, oldAcc.GetUID() == "", false) && (c.canFill() || o.describe(c, kind, old, obj, oldAcc.GetUID() == "", true)) {
		return c
	}
	c.done()
	return nil
}

// sameManagers reports whether a and b are equal.
func sameManagers(a, b []metav1.ManagedFieldsEntry) bool {
	if len(a) != len(b) {
		return false
	}
	if sameSlice(a, b) {
		return true
	}
	for i := range a {
		x, y := &a[i], &b[i]
		if !sameManager(x, y) || x.FieldsType != y.FieldsType || !x.Time.Equal(y.Time) || (x.FieldsV1 == nil) != (y.FieldsV1 == nil) || fieldsOf(x) != fieldsOf(y) {
			return false
		}
	}
	return true
}

// sameManager reports whether a and b are of one manager.
func sameManager(a, b *metav1.ManagedFieldsEntry) bool {
	return a.Manager == b.Manager && a.Operation == b.Operation && a.APIVersion == b.APIVersion && a.Subresource == b.Subresource
}

func fieldsOf(e *metav1.ManagedFieldsEntry) string {
	if e.FieldsV1 == nil {
		return ""
	}
	return e.FieldsV1.GetRawString()
}

// describe makes c.Shape what decides the outcome: the manager, the managers before, the
// order of their times, and the shape of the change.
func (o *outcomes) describe(c *change, kind *shape.Kind, old, obj runtime.Object, creation, literal bool) bool {
	c.Reset()
	b := appendText(c.Shape, c.manager)
	if creation {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	b = append(b, byte(len(c.managers)))
	if len(c.managers) > 0xff {
		return false
	}
	version := o.gvk.GroupVersion().String()
	for i := range c.managers {
		e := &c.managers[i]
		if e.APIVersion != version || e.FieldsType != "FieldsV1" || e.FieldsV1 == nil {
			return false
		}
		b = appendText(b, e.Manager)
		b = appendText(b, string(e.Operation))
		b = appendText(b, e.Subresource)
		b = appendText(b, fieldsOf(e))
		// The managers are in the order of their times.
		at, rank := seconds(e.Time), byte(0)
		for j := range c.managers {
			if seconds(c.managers[j].Time) < at {
				rank++
			}
		}
		b = append(b, rank, byte(1+compareSeconds(at, c.now.Unix())))
	}
	c.Shape = b
	return kind.Append(&c.Change, reflect.ValueOf(old).Elem(), reflect.ValueOf(obj).Elem(), literal)
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func seconds(t *metav1.Time) int64 {
	if t == nil {
		return 0
	}
	return t.Unix()
}

func compareSeconds(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// itemPrefix is how an item of a list is named in the text of a set of fields, before its name.
func itemPrefix(n shape.Name) string { return `"k:{\"` + n.Key + `\":\"` }

func itemText(n shape.Name) string { return itemPrefix(n) + n.Value + `\"}"` }

// canFill reports whether the names of the change are told from all else in the texts of
// sets of fields: they differ, and none of the managers before has an item of such a list.
func (c *change) canFill() bool {
	for i, n := range c.Names {
		for _, other := range c.Names[:i] {
			if n == other {
				return false
			}
		}
		if i > 0 && c.Names[i-1].Key == n.Key {
			continue // it has been looked for
		}
		for j := range c.managers {
			if strings.Contains(fieldsOf(&c.managers[j]), `"k:{\"`+n.Key+`\":`) {
				return false
			}
		}
	}
	return true
}

// known sets the managers of the changed object, if the outcome of such a change is known.
func (o *outcomes) known(c *change) bool {
	if c == nil {
		return false
	}
	o.mu.RLock()
	out, ok := o.young[string(c.Shape)]
	if !ok {
		out, ok = o.old[string(c.Shape)]
	}
	o.mu.RUnlock()
	if !ok {
		return false
	}
	if len(*out) == 0 {
		c.acc.SetManagedFields(nil)
		return true
	}
	entries := make([]metav1.ManagedFieldsEntry, len(*out))
	for i := range *out {
		m := &(*out)[i]
		entries[i] = m.entry
		entries[i].FieldsV1 = metav1.NewFieldsV1(m.fields(c.Names))
		if m.since == sinceChange {
			at := c.now
			entries[i].Time = &at
		} else {
			entries[i].Time = c.managers[m.since].Time.DeepCopy()
		}
	}
	c.acc.SetManagedFields(entries)
	return true
}

// fields is the text of the set of fields with the names filled in.
func (m *manages) fields(names []shape.Name) string {
	if len(m.names) == 0 {
		return m.text[0]
	}
	var b strings.Builder
	b.WriteString(m.text[0])
	for i, n := range m.names {
		b.WriteString(names[n].Value)
		b.WriteString(m.text[i+1])
	}
	return b.String()
}

// learn notes the outcome of c: the managers that the field manager has set.
func (o *outcomes) learn(c *change) {
	if c == nil {
		return
	}
	entries := c.acc.GetManagedFields()
	out := make(outcome, len(entries))
	filled := make([]bool, len(c.Names))
	for i := range entries {
		m, ok := c.manages(&entries[i], filled)
		if !ok {
			return
		}
		out[i] = m
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.young) >= maxOutcomes || o.young == nil {
		o.young, o.old = make(map[string]*outcome, maxOutcomes), o.young
	}
	o.young[string(c.Shape)] = &out
}

// manages returns how e is made of what c has. Each name is filled in once.
func (c *change) manages(e *metav1.ManagedFieldsEntry, filled []bool) (manages, bool) {
	m := manages{entry: metav1.ManagedFieldsEntry{Manager: e.Manager, Operation: e.Operation, APIVersion: e.APIVersion, Subresource: e.Subresource, FieldsType: e.FieldsType}, since: sinceChange}
	for i := range c.managers {
		// A manager that has not changed keeps its time, that very value.
		if before := &c.managers[i]; sameManager(before, e) && before.Time == e.Time {
			m.since = i
		}
	}
	if e.FieldsV1 == nil || m.since == sinceChange && (e.Time == nil || e.Time.Unix() != c.now.Unix() || e.Operation != metav1.ManagedFieldsOperationUpdate) {
		return m, false // in the second that has just begun, the managers' order may be another one
	}
	text := fieldsOf(e)
	for text != "" {
		name, at := -1, len(text)
		for i, n := range c.Names {
			if j := strings.Index(text, itemText(n)); j >= 0 && j < at {
				name, at = i, j
			}
		}
		if name < 0 {
			break
		}
		if filled[name] {
			return m, false
		}
		filled[name] = true
		at += len(itemPrefix(c.Names[name]))
		m.text, m.names = append(m.text, text[:at]), append(m.names, name)
		text = text[at+len(c.Names[name].Value):]
	}
	m.text = append(m.text, text)
	return m, true
}
