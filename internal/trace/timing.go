package trace

import (
	"context"
	"sync"
	"time"
)

// Timing collects how long the parts of a write take. Several goroutines may add to it. That
// of a request that is not recorded is nil, and keeps nothing.
type Timing struct {
	admission, validation, store time.Duration
	placer                       Placer

	mu    sync.Mutex
	begin time.Time
	parts []Part
	at    Context
	above SpanID
}

// Placer gives writes their places in a distributed trace.
type Placer interface {
	// Place returns the place of a write with that context, and the span that it is below.
	Place(ctx context.Context) (at Context, above SpanID)
}

// mostParts bounds the parts of a step: 64 calls of webhooks are more than anybody reads.
const mostParts = 64

// NewTiming returns the timing of a request that began at a time. The placer may be nil.
func NewTiming(begin time.Time, p Placer) *Timing {
	return &Timing{placer: p, begin: begin}
}

// Again begins anew, for the next write of the request.
func (t *Timing) Again() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.begin, t.parts, t.at, t.above = time.Now(), nil, Context{}, SpanID{}
	t.admission, t.validation, t.store = 0, 0, 0
}

// Admitted adds the time since begin to that of admission.
func (t *Timing) Admitted(begin time.Time) {
	if t != nil {
		t.admission += time.Since(begin)
	}
}

// Validated adds the time since begin to that of validation.
func (t *Timing) Validated(begin time.Time) {
	if t != nil {
		t.validation += time.Since(begin)
	}
}

// Stored adds the time since begin to that of the store.
func (t *Timing) Stored(begin time.Time) {
	if t != nil {
		t.store += time.Since(begin)
	}
}

// Fill sets what a step says of its write's place and times.
func (t *Timing) Fill(ctx context.Context, s *Step) {
	s.Context, s.Parent = t.Context(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	s.Parts, s.Took = t.parts, Millis(time.Since(t.begin))
	s.Admission, s.Validation, s.Store = Millis(t.admission), Millis(t.validation), Millis(t.store)
}

// Context returns the place of the write in a distributed trace, and the span that it is
// below.
func (t *Timing) Context(ctx context.Context) (Context, SpanID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.at.IsValid() && t.placer != nil {
		t.at, t.above = t.placer.Place(ctx)
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
