package store

import (
	"context"
	"time"
)

// Past is implemented by stores that keep their changes longer than watches need
// them, so that earlier states can be read: List does so with ListOptions.Past.
type Past interface {
	// Oldest returns the oldest revision whose state can be read, and the time of
	// the first change after it: now if there was none.
	Oldest() (revision int64, since time.Time, err error)
	// RevisionAt returns the revision that the store had at t, which is now if t
	// is in the future. It fails with ErrCompacted where t is before the oldest
	// revision's last moment.
	RevisionAt(t time.Time) (int64, error)
	// Changes calls f with the changes of keys that begin with prefix, after the
	// revision from, up to and with to, in order, until f returns false. It fails
	// with ErrCompacted where from is before the oldest revision.
	Changes(ctx context.Context, prefix string, from, to int64, f func(*Change) bool) error
}

// Change is a change that was committed in the past.
type Change struct {
	Revision int64
	Time     time.Time
	Key      string
	// Deleted reports whether the key was deleted, not written.
	Deleted bool
	// Note is the note of the write's context.
	Note string
	// Prev returns the entry that was replaced or deleted; nil where there was none. It
	// is for the function that gets the change, until that returns.
	Prev func() (*Entry, error)
}

type noteKey struct{}

// WithNote returns a context whose writes carry a note, which Past returns with
// the change: who made it, and why.
func WithNote(ctx context.Context, note string) context.Context {
	return context.WithValue(ctx, noteKey{}, note)
}

// NoteFrom returns the note that ctx carries, or "".
func NoteFrom(ctx context.Context) string {
	note, _ := ctx.Value(noteKey{}).(string)
	return note
}

type committedKey struct{}

// WithCommitted returns a context whose write calls f with its revision once it is durable,
// before a reader or watcher is shown it; never for a write that fails. f must not block,
// and not call the store.
func WithCommitted(ctx context.Context, f func(revision int64)) context.Context {
	return context.WithValue(ctx, committedKey{}, f)
}

// CommittedFrom returns the function that ctx carries, or nil.
func CommittedFrom(ctx context.Context) func(revision int64) {
	f, _ := ctx.Value(committedKey{}).(func(int64))
	return f
}
