package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
)

// Errors of the contract. Engines wrap them with the key or the revisions, so
// compare with errors.Is.
var (
	// ErrExists is returned by Create if the key exists.
	ErrExists = errors.New("key already exists")
	// ErrNotFound is returned by Update and Delete if there is no such key.
	ErrNotFound = errors.New("key not found")
	// ErrConflict is returned if the key is at another revision than the
	// expected one.
	ErrConflict = errors.New("key was modified")
	// ErrCompacted is returned if the revision asked for has been compacted
	// away.
	ErrCompacted = errors.New("required revision has been compacted")
	// ErrFuture is returned if the revision asked for has not been reached.
	ErrFuture = errors.New("required revision is in the future")
	// ErrClosed is returned if the store is closed or has failed; nothing more
	// is accepted.
	ErrClosed = errors.New("store is closed")
)

// CompactedError is an ErrCompacted that names the oldest revision that can be
// read.
type CompactedError struct{ Asked, Oldest int64 }

func (e *CompactedError) Error() string {
	return fmt.Sprintf("%v: asked for %d, oldest is %d", ErrCompacted, e.Asked, e.Oldest)
}

// Is makes errors.Is(err, ErrCompacted) true.
func (e *CompactedError) Is(target error) bool { return target == ErrCompacted }

// Store is a revisioned map from keys to objects. All methods are safe for
// concurrent use. Objects handed to Create and Update belong to the store from
// then on; objects that it hands out must not be changed.
type Store interface {
	// Revision returns the revision of the last committed write.
	Revision() int64
	// Get returns the live entry at key, or nil. It sees every acknowledged
	// write (it is linearizable).
	Get(ctx context.Context, key string) (*Entry, error)
	// Create stores obj at key, which must be absent (else ErrExists). A ttl
	// above zero deletes the entry that much later. It returns when the
	// write is durable.
	Create(ctx context.Context, key string, obj runtime.Object, ttl time.Duration) (*Entry, error)
	// Update replaces the entry at key, whose ModRevision must be revision
	// (else ErrConflict, or ErrNotFound).
	Update(ctx context.Context, key string, revision int64, obj runtime.Object, ttl time.Duration) (*Entry, error)
	// Delete removes the entry at key, whose ModRevision must be revision.
	// The entry that it returns is the last state, its object carrying the
	// revision of the deletion as resourceVersion.
	Delete(ctx context.Context, key string, revision int64) (*Entry, error)
	// List reads the keys that begin with prefix, in order.
	List(ctx context.Context, prefix string, opts ListOptions) (*ListResult, error)
	// Count returns the number of live keys that begin with prefix.
	Count(prefix string) int
	// Watch begins a watch of the keys that begin with prefix.
	Watch(prefix string, opts WatchOptions) (Watcher, error)
	// Unreadable returns what is stored at keys that begin with prefix and cannot be
	// decrypted or decoded, in order. The other methods leave it out, except that
	// Create finds its key taken.
	Unreadable(prefix string) []Unreadable
	// DeleteUnreadable removes what is stored at key and cannot be read (else
	// ErrNotFound). Watches are not told: they never knew it.
	DeleteUnreadable(ctx context.Context, key string) error
	// Reach waits until the store is at revision or after it, or until ctx is
	// done, and returns its error.
	Reach(ctx context.Context, revision int64) error
	// Compact forgets the history up to and with revision.
	Compact(ctx context.Context, revision int64) error
	// Close flushes and closes the store; pending calls fail with ErrClosed.
	Close() error
}

// Unreadable is an entry whose object cannot be read, and why.
type Unreadable struct {
	Key      string
	Revision int64
	Err      error
}

// ListOptions narrows a List.
type ListOptions struct {
	// Revision of the snapshot to read; 0 is the latest.
	Revision int64
	// After is the key after which the list starts (a continue token's
	// place); empty starts at the prefix.
	After string
	// Limit is the greatest number of entries; 0 is no limit.
	Limit int
	// Index and Value restrict the list to the entries whose index of that
	// name has that value (see Indexer). Empty means no restriction.
	Index, Value string
	// Match, if set, drops the entries that it refuses before they count
	// towards Limit.
	Match func(*Entry) bool
	// Past allows a Revision that is older than those which watches can begin at,
	// where the store implements Past.
	Past bool
}

// ListResult is a consistent part of the store.
type ListResult struct {
	// Revision of the snapshot.
	Revision int64
	Entries  []*Entry
	// More reports whether Limit cut the list; Remaining is then the number of
	// entries after the last one, or -1 where Match or Index made it unknown.
	More      bool
	Remaining int64
}

// WatchOptions narrows a Watch.
type WatchOptions struct {
	// Revision after which the events start: a watch from the
	// resourceVersion of a list passes it unchanged. 0 starts at the
	// present. Fails with ErrCompacted or ErrFuture.
	Revision int64
	// Index and Value restrict the watch to the events whose entry or
	// previous entry has that value, found by index and not by trial.
	Index, Value string
}

// EventType is the kind of a change of a key.
type EventType uint8

// The two kinds of events; a Put with a nil Prev is a creation.
const (
	Put EventType = iota + 1
	Delete
)

// Event is one committed change.
type Event struct {
	Type EventType
	// Entry is the state written; for Delete the last state, its object
	// carrying the revision of the deletion.
	Entry *Entry
	// Prev is the state before, nil for a creation.
	Prev *Entry
	// Revision of the change.
	Revision int64
	// Note is the note of the write's context, where the engine keeps it.
	Note string
}

// Watcher is a cursor over the committed changes. A slow reader holds no
// memory of its own: it reads from the shared history, and fails with
// ErrCompacted if that has gone. It is for one goroutine.
type Watcher interface {
	// Next blocks until there are events, and returns them in order of
	// revision (at most a few hundred at once), or until ctx is done, and
	// returns its error. The slice is valid until the next call.
	Next(ctx context.Context) ([]Event, error)
	// Revision returns the revision up to which Next has returned every event:
	// what a bookmark carries. It advances with the store's revision even
	// where no event matched, once Next has nothing more to return.
	Revision() int64
	// Stop ends the watch and frees what it holds.
	Stop()
}

// Codec turns objects into durable bytes and back. Encode leaves out the
// resourceVersion, as upstream does in etcd.
type Codec interface {
	Encode(obj runtime.Object) (plain []byte, err error)
	// Decode reverses Encode.
	Decode(plain []byte) (runtime.Object, error)
	// Seal returns the value that is stored at key for the bytes of Encode, and its
	// form.
	Seal(key string, plain []byte) (value []byte, form int64, err error)
	// Open reverses Seal.
	Open(key string, value []byte) (plain []byte, form int64, err error)
	// Form returns the form of the values that Seal makes now. A write stores an entry
	// of another form anew even if its object does not change.
	Form(key string) int64
}

// Indexer gives the value of an index for an object, e.g. spec.nodeName for a
// Pod; false where the object has none.
type Indexer struct {
	Name   string
	Prefix string
	Value  func(runtime.Object) (string, bool)
}
