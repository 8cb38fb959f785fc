package admission

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	oteltrace "go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"keelson.dev/keelson/internal/trace"
)

// called follows the calls of webhooks in ctx, of which upstream's plug-ins make spans:
// each becomes a part of the request's timing. end is called with the plug-in's error.
func called(ctx context.Context) (_ context.Context, end func(error)) {
	t := trace.TimingFrom(ctx)
	if t == nil {
		return ctx, func(error) {}
	}
	at, _ := t.Context(ctx)
	ctx = trace.WithContext(ctx, at)
	c := &calls{}
	return oteltrace.ContextWithSpan(ctx, &asked{calls: c}), func(err error) { c.report(t, err) }
}

// calls are those of webhooks in a phase of admission.
type calls struct {
	noop.TracerProvider

	mu   sync.Mutex
	done []*asked
}

// Tracer implements oteltrace.TracerProvider.
func (c *calls) Tracer(string, ...oteltrace.TracerOption) oteltrace.Tracer { return caller{calls: c} }

// report adds the calls that have ended to the timing of their request.
func (c *calls) report(t *trace.Timing, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.done {
		verdict := s.verdict
		if err != nil && strings.Contains(err.Error(), fmt.Sprintf("admission webhook %q denied", s.webhook)) {
			verdict = "denied it"
		}
		t.Part("webhook "+s.webhook, verdict, s.took)
	}
}

// caller makes the spans of calls.
type caller struct {
	noop.Tracer
	calls *calls
}

// Start implements oteltrace.Tracer.
func (t caller) Start(ctx context.Context, _ string, o ...oteltrace.SpanStartOption) (context.Context, oteltrace.Span) {
	s := &asked{calls: t.calls, begin: time.Now(), verdict: "no answer"}
	config := oteltrace.NewSpanStartConfig(o...)
	for _, a := range config.Attributes() {
		if a.Key == "webhook" {
			s.webhook = a.Value.AsString()
		}
	}
	return oteltrace.ContextWithSpan(ctx, s), s
}

// asked is the span of one call.
type asked struct {
	noop.Span
	calls            *calls
	webhook, verdict string
	begin            time.Time
	took             time.Duration
}

// TracerProvider implements oteltrace.Span.
func (s *asked) TracerProvider() oteltrace.TracerProvider { return s.calls }

// AddEvent implements oteltrace.Span: the plug-ins tell of the answer, and of a change.
func (s *asked) AddEvent(name string, _ ...oteltrace.EventOption) {
	switch name {
	case "Request completed":
		s.verdict = "allowed it"
	case "Patch applied":
		s.verdict = "changed it"
	}
}

// End implements oteltrace.Span.
func (s *asked) End(...oteltrace.SpanEndOption) {
	s.took = time.Since(s.begin)
	s.calls.mu.Lock()
	defer s.calls.mu.Unlock()
	if s.webhook != "" {
		s.calls.done = append(s.calls.done, s)
	}
}
