package store

import (
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"weak"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"keelson.dev/keelson/internal/objectjson"
)

// Entry is one version of the object at a key. It is immutable.
type Entry struct {
	Key string
	// CreateRevision and ModRevision are the revisions at which the key was
	// created and this version was written. ModRevision is the object's
	// resourceVersion.
	CreateRevision, ModRevision int64
	// Form is the form of the durable bytes; see Codec.
	Form int64
	// Size is about the number of durable bytes before they are sealed. It is 0 where
	// it is unknown: for a custom resource without durable bytes.
	Size int

	// typed is the object, unless it is a custom resource's. Those are many
	// small pieces, which take several times the memory of their JSON and long
	// to collect, and are asked for seldom: tree is there only until the JSON
	// is, and decoded again from that when it is wanted.
	typed runtime.Object

	encoded [Encodings]atomic.Pointer[[]byte]

	mu   sync.Mutex // of what follows
	tree *unstructured.Unstructured
	last weak.Pointer[unstructured.Unstructured] // the latest tree, if there are references to it
}

// Encoding names a cached serialization of an entry.
type Encoding int

// The wire forms that are cached per entry. Their bytes are those of the
// resource's storage version.
const (
	JSON Encoding = iota
	Protobuf
	CBOR
	Encodings
)

// Value is the object of an entry to be.
type Value struct {
	// Object belongs to the entry from then on.
	Object runtime.Object
	// Plain is the object's Codec.Encode, or nil. With the Plain of a custom
	// resource, Object may be nil.
	Plain []byte
	Form  int64
	place int // of the resourceVersion in Plain; 0 is unknown
}

// Placed is v, prepared to become an entry quickly.
func (v Value) Placed() Value {
	if len(v.Plain) > 0 && v.Plain[0] == '{' {
		v.place, _ = objectjson.RevisionPlace(v.Plain)
	}
	return v
}

// NewEntry makes the entry of a version that was written at revision.
func NewEntry(key string, created, revision int64, v Value) *Entry {
	e := &Entry{Key: key, CreateRevision: created, ModRevision: revision, Form: v.Form, Size: len(v.Plain)}
	if v.Object != nil {
		SetRevision(v.Object, revision)
	}
	u, custom := v.Object.(*unstructured.Unstructured)
	if v.Object != nil && !custom {
		if m, ok := v.Object.(interface{ Size() int }); ok && e.Size == 0 {
			e.Size = m.Size()
		}
		e.typed = v.Object
		return e
	}
	if v.place == 0 {
		v = v.Placed()
	}
	if v.place == 0 {
		e.tree = u
		return e
	}
	wire := make([]byte, 0, len(v.Plain)+len(`"resourceVersion":"",`)+20)
	wire = append(append(wire, v.Plain[:v.place]...), `"resourceVersion":"`...)
	wire = append(strconv.AppendInt(wire, revision, 10), `",`...)
	wire = append(wire, v.Plain[v.place:]...)
	e.encoded[JSON].Store(&wire)
	if u != nil {
		e.last = weak.Make(u)
	}
	return e
}

// Load makes the entry of the value that is stored at key.
func Load(c Codec, key string, created, revision int64, value []byte) (*Entry, error) {
	plain, form, err := c.Open(key, value)
	if err != nil {
		return nil, err
	}
	v := Value{Plain: plain, Form: form}.Placed()
	if v.place == 0 {
		if v.Object, err = c.Decode(plain); err != nil {
			return nil, err
		}
	}
	return NewEntry(key, created, revision, v), nil
}

// Unstored returns an entry of an object that is not stored, with whatever
// resourceVersion it has.
func Unstored(obj runtime.Object) *Entry {
	if u, ok := obj.(*unstructured.Unstructured); ok {
		return &Entry{tree: u}
	}
	return &Entry{typed: obj}
}

// Deleted returns the last state of e's key, which was deleted at revision.
func (e *Entry) Deleted(revision int64) *Entry {
	d := NewEntry(e.Key, e.CreateRevision, revision, Value{Object: e.Object().DeepCopyObject(), Form: e.Form})
	d.Size = e.Size
	return d
}

// Custom reports whether the object is a custom resource's: an Unstructured.
func (e *Entry) Custom() bool { return e.typed == nil }

// Object is decoded, with its resourceVersion set. It is shared: do not change
// it. That of a custom resource may be decoded anew at each call.
func (e *Entry) Object() runtime.Object {
	if e.typed != nil {
		return e.typed
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.object()
}

func (e *Entry) object() runtime.Object {
	switch {
	case e.typed != nil:
		return e.typed
	case e.tree != nil:
		return e.tree
	}
	if u := e.last.Value(); u != nil {
		return u
	}
	u, err := decodeJSON(*e.encoded[JSON].Load())
	if err != nil {
		// The bytes were made or checked here.
		panic(fmt.Sprintf("decoding %s at revision %d: %v", e.Key, e.ModRevision, err))
	}
	e.last = weak.Make(u)
	return u
}

// Labels returns the object's labels without decoding the rest of it. They are
// shared: do not change them.
func (e *Entry) Labels() map[string]string {
	if e.typed == nil {
		if b := e.encoded[JSON].Load(); b != nil {
			if labels, ok := objectjson.Labels(*b); ok {
				return labels
			}
		}
	}
	obj, err := meta.Accessor(e.Object())
	if err != nil {
		return nil
	}
	return obj.GetLabels()
}

// Encoded returns the wire form enc of the entry's object, made by encode at
// most once for each entry. The bytes are shared: do not change them.
func (e *Entry) Encoded(enc Encoding, encode func(runtime.Object) ([]byte, error)) ([]byte, error) {
	if b := e.encoded[enc].Load(); b != nil {
		return *b, nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if b := e.encoded[enc].Load(); b != nil {
		return *b, nil
	}
	b, err := encode(e.object())
	if err != nil {
		return nil, err
	}
	e.encoded[enc].Store(&b)
	if enc == JSON && e.tree != nil {
		e.last, e.tree = weak.Make(e.tree), nil
	}
	return b, nil
}

// Forget drops the wire forms, but for one that is all there is of the object.
// They are made anew if they are asked for.
func (e *Entry) Forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	packed := e.typed == nil && e.tree == nil
	for i := range e.encoded {
		if e.encoded[i].Load() != nil && !(packed && Encoding(i) == JSON) {
			e.encoded[i].Store(nil)
		}
	}
}
