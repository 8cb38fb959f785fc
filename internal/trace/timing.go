package trace

import (
	"context"
	"sync"
	"time"
)

// Timing collects how long the parts of a write take. Several goroutines may add to it.
type Timing struct {
	Admission, Validation, Store time.Duration
	// Place, if set, gives the write its place in a distributed trace, and the span that it
	// is below.
	Place func(context.Context) (Context, SpanID)

	mu    sync.Mutex
	begin time.Time
	parts []Part
	at    Context
	above SpanID
}

// mostParts bounds the parts of a step: 64 calls of webhooks are more than anybody reads.
const mostParts = 64

// Begin begins anew.
func (t *Timing) Begin(at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.begin, t.parts, t.at, t.above = at, nil, Context{}, SpanID{}
	t.Admission, t.Validation, t.Store = 0, 0, 0
}

// Context returns the place of the write in a distributed trace, and the span that it is
// below.
func (t *Timing) Context(ctx context.Context) (Context, SpanID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.at.IsValid() && t.Place != nil {
		t.at, t.above = t.Place(ctx)
	}
	return t.at, t.above
}

// Part adds a part that ends now.
func (t *Timing) Part(name, detail string, took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.parts) < mostParts {
		t.parts = append(t.parts, Part{Name: name, Detail: detail, After: Millis(max(0, time.Since(t.begin)-took)), Took: Millis(took)})
	}
}

// Parts returns what was added, and how long ago the beginning was.
func (t *Timing) Parts() ([]Part, time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.parts, time.Since(t.begin)
}

type timingKey struct{}

// WithTiming returns a context whose parts are added to t.
func WithTiming(ctx context.Context, t *Timing) context.Context {
	return context.WithValue(ctx, timingKey{}, t)
}

// TimingFrom returns the timing that ctx carries, nil if none.
func TimingFrom(ctx context.Context) *Timing {
	t, _ := ctx.Value(timingKey{}).(*Timing)
	return t
}
