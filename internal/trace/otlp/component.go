package otlp

import (
	"context"

	"k8s.io/apimachinery/pkg/types"

	"keelson.dev/keelson/internal/trace"
)

// memory bounds what a component's record takes in bytes: it is what waits to be sent.
const memory = 1 << 20

// Component sends what one component reports to a collector of its own, beside the API
// server's. It has those spans in the traces that the API server has put the objects in, if
// that samples them or the component does.
type Component struct {
	*Exporter
	record *trace.Recorder
}

// NewComponent connects to a collector. Run sends.
func NewComponent(ctx context.Context, o Options) (*Component, error) {
	c := &Component{record: trace.NewRecorder(memory)}
	var err error
	c.Exporter, err = New(ctx, o, c.record)
	return c, err
}

// Take sends a step of an object whose last write has that place in a trace; where that is
// not known the step begins one.
func (c *Component) Take(s trace.Step, at trace.Context) {
	s.Sent = false
	if at.IsValid() {
		s.Parent = at.SpanID
		s.Context = trace.Context{TraceID: at.TraceID, SpanID: trace.NewSpanID(), Unsampled: c.unsampled(at)}
	}
	c.record.Add(s)
}

func (c *Component) unsampled(at trace.Context) bool {
	return at.Unsampled && !c.sampled(at.TraceID)
}

// Beside returns a reporter that reports to r, and to the collector.
func (c *Component) Beside(r *trace.Reporter) *trace.Reporter {
	out := *r
	out.Of = func(uid types.UID) (trace.Context, bool) {
		at, ok := r.Of(uid)
		at.Unsampled = c.unsampled(at)
		return at, ok
	}
	out.Add = func(s trace.Step) {
		s.Sent = true
		r.Add(s)
		at, _ := r.Of(s.UID)
		c.Take(s, at)
	}
	return &out
}
