package store

import (
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/runtime"
)

// Entry is one version of the object at a key. It is immutable.
type Entry struct {
	Key string
	// CreateRevision and ModRevision are the revisions at which the key was
	// created and this version was written. ModRevision is the object's
	// resourceVersion.
	CreateRevision, ModRevision int64
	// Object is decoded, with its resourceVersion set.
	Object runtime.Object
	// Form is that of its durable bytes; see Codec.
	Form int64

	encoded [Encodings]atomic.Pointer[[]byte]
	mu      sync.Mutex
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
	b, err := encode(e.Object)
	if err != nil {
		return nil, err
	}
	e.encoded[enc].Store(&b)
	return b, nil
}

// Forget drops the wire forms. They are made anew if they are asked for.
func (e *Entry) Forget() {
	for i := range e.encoded {
		if e.encoded[i].Load() != nil {
			e.encoded[i].Store(nil)
		}
	}
}
