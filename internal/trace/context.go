package trace

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/propagation"
	oteltrace "go.opentelemetry.io/otel/trace"
	"k8s.io/apimachinery/pkg/types"
)

// TraceID is the ID of a distributed trace, and SpanID that of a span in one: in JSON and as
// text, hexadecimal digits.
type (
	TraceID oteltrace.TraceID
	SpanID  oteltrace.SpanID
)

// IsValid reports whether the ID is one.
func (id TraceID) IsValid() bool { return id != TraceID{} }

// String returns the ID as hexadecimal digits.
func (id TraceID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText implements encoding.TextMarshaler.
func (id TraceID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, id[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *TraceID) UnmarshalText(text []byte) error { return decode(id[:], text) }

// IsValid reports whether the ID is one.
func (id SpanID) IsValid() bool { return id != SpanID{} }

// String returns the ID as hexadecimal digits.
func (id SpanID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText implements encoding.TextMarshaler.
func (id SpanID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, id[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *SpanID) UnmarshalText(text []byte) error { return decode(id[:], text) }

func decode(id, text []byte) error {
	if len(text) != hex.EncodedLen(len(id)) {
		return fmt.Errorf("an ID of %d bytes in hexadecimal digits: %q is none", len(id), text)
	}
	_, err := hex.Decode(id, text)
	return err
}

// Context is a place in a distributed trace.
type Context struct {
	TraceID TraceID `json:"traceID,omitzero"`
	SpanID  SpanID  `json:"spanID,omitzero"`
	// Unsampled reports whether the client asked that its trace not be kept.
	Unsampled bool `json:"unsampled,omitempty"`
}

// IsValid reports whether there is a trace.
func (c Context) IsValid() bool { return c.TraceID.IsValid() }

// Span returns the context as OpenTelemetry's.
func (c Context) Span() oteltrace.SpanContext {
	var flags oteltrace.TraceFlags
	if !c.Unsampled {
		flags = oteltrace.FlagsSampled
	}
	return oteltrace.NewSpanContext(oteltrace.SpanContextConfig{TraceID: oteltrace.TraceID(c.TraceID), SpanID: oteltrace.SpanID(c.SpanID), TraceFlags: flags, Remote: true})
}

// NewSpanID returns a new span's ID.
func NewSpanID() (id SpanID) {
	binary.BigEndian.PutUint64(id[:], rand.Uint64()|1)
	return id
}

// NewContext returns the place of a trace's first span.
func NewContext() Context {
	c := Context{SpanID: NewSpanID()}
	binary.BigEndian.PutUint64(c.TraceID[:8], rand.Uint64()|1)
	binary.BigEndian.PutUint64(c.TraceID[8:], rand.Uint64())
	return c
}

// Sample makes sampled decide which of the traces that begin here are sampled; before that
// none is. It is called before the first step is recorded.
func (r *Recorder) Sample(sampled func(TraceID) bool) { r.sampled = sampled }

// begin returns the place of a new trace's first span.
func (r *Recorder) begin() Context {
	c := NewContext()
	c.Unsampled = r.sampled == nil || !r.sampled(c.TraceID)
	return c
}

// inherited is how old a step may be for those that it causes to be of its trace: what an
// object causes for years is no one trace.
const inherited = 10 * time.Minute

// place gives a step its place in a trace: below its cause, or else in a new one. r.mu is
// held.
func (r *Recorder) place(s *Step) {
	from, ok := r.cause(s)
	if !ok {
		s.Context = r.begin()
		return
	}
	s.TraceID, s.Unsampled, s.Parent, s.SpanID = from.TraceID, from.Unsampled, from.SpanID, NewSpanID()
}

// cause returns the place of the write that caused a step, and whether it is known. r.mu is
// held.
func (r *Recorder) cause(s *Step) (at Context, ok bool) {
	uid, version := s.CauseUID, s.CauseVersion
	if uid == "" && s.Phase != "" {
		uid, version = s.UID, s.ResourceVersion
	}
	if uid == "" {
		return Context{}, false
	}
	// Those on the object itself come first: it caused most of them.
	for _, o := range slices.Backward(r.on[uid]) {
		if !o.wrote() || version != "" && !Reaches(version, o.ResourceVersion) {
			continue
		}
		if at, ok := r.committed.last(uid, version, o.ResourceVersion); ok {
			return at, true
		}
		return o.Context, time.Since(r.start)-o.at <= inherited
	}
	return r.committed.last(uid, version, "")
}

// Committed tells of a write of an object that is committed at a version, and of its place
// in a trace, before anybody sees the change: what is written because of it is of its trace,
// even if that is recorded before it. Add ends that, and Withdraw. It does not wait for
// those who read the record.
func (r *Recorder) Committed(uid types.UID, version string, at Context) {
	r.committed.add(uid, version, at)
}

// Withdraw tells that the write with that place is not recorded after all.
func (r *Recorder) Withdraw(uid types.UID, at Context) { r.committed.remove(uid, at.SpanID) }

// commits has the writes that are committed and not yet recorded, in the order of their
// versions for each object: at most one for each request that is being served, which are few
// enough to be searched.
type commits struct {
	mu  sync.Mutex
	all []commit
}

type commit struct {
	uid     types.UID
	version string
	at      Context
}

func (c *commits) add(uid types.UID, version string, at Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, commit{uid, version, at})
}

func (c *commits) remove(uid types.UID, span SpanID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = slices.DeleteFunc(c.all, func(o commit) bool { return o.uid == uid && o.at.SpanID == span })
}

// last returns the place of the last write of an object up to a version (any, if that is
// empty) and after another one.
func (c *commits) last(uid types.UID, version, after string) (at Context, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.all {
		o := &c.all[i]
		if o.uid == uid && (version == "" || Reaches(version, o.version)) && (after == "" || !Reaches(after, o.version)) {
			at, after, ok = o.at, o.version, true
		}
	}
	return at, ok
}

// Of returns the place in a trace of the last write of an object.
func (r *Recorder) Of(uid types.UID) (Context, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var after string
	var last Context
	for _, o := range slices.Backward(r.on[uid]) {
		if o.wrote() {
			last, after = o.Context, o.ResourceVersion
			break
		}
	}
	if at, ok := r.committed.last(uid, "", after); ok {
		last = at
	}
	return last, last.IsValid()
}

// Place returns a place in a trace for a write with that context, and the span that it is
// below: that of the write that caused it, or the one that its client names. Otherwise it
// begins a trace.
func (r *Recorder) Place(ctx context.Context) (Context, SpanID) {
	from, ok := ContextOf(ctx)
	if c, caused := CauseFrom(ctx); caused {
		r.mu.RLock()
		if at, known := r.cause(&Step{CauseUID: c.UID, CauseVersion: c.ResourceVersion}); known {
			from, ok = at, true
		}
		r.mu.RUnlock()
	}
	if !ok {
		return r.begin(), SpanID{}
	}
	return Context{TraceID: from.TraceID, Unsampled: from.Unsampled, SpanID: NewSpanID()}, from.SpanID
}

type contextKey struct{}

// ContextOf returns the place in a distributed trace that ctx carries.
func ContextOf(ctx context.Context) (Context, bool) {
	c, ok := ctx.Value(contextKey{}).(Context)
	return c, ok
}

// WithContext returns a context that carries a place in a distributed trace.
func WithContext(ctx context.Context, c Context) context.Context {
	return context.WithValue(ctx, contextKey{}, c)
}

// propagator reads and writes the W3C's traceparent.
var propagator propagation.TraceContext

// Parent reads the place in a trace of which a request says that it is below it, by the
// W3C's traceparent.
func Parent(h http.Header) (Context, bool) {
	if h.Get("Traceparent") == "" {
		return Context{}, false
	}
	s := oteltrace.SpanContextFromContext(propagator.Extract(context.Background(), propagation.HeaderCarrier(h)))
	return Context{TraceID: TraceID(s.TraceID()), SpanID: SpanID(s.SpanID()), Unsampled: !s.IsSampled()}, s.IsValid()
}

// Inject writes the traceparent of a request that is made below c.
func Inject(c Context, h http.Header) {
	propagator.Inject(oteltrace.ContextWithRemoteSpanContext(context.Background(), c.Span()), propagation.HeaderCarrier(h))
}

// Traceparent returns the traceparent of what is made below c.
func Traceparent(c Context) string {
	h := http.Header{}
	Inject(c, h)
	return h.Get("Traceparent")
}
