package otlp

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	spans "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"keelson.dev/keelson/internal/trace"
)

// received is a collector that hands on what it is sent.
type received struct {
	collector.UnimplementedTraceServiceServer
	mu     sync.Mutex
	byName map[string]*spans.Span
	wake   chan struct{}
}

// Export implements collector.TraceServiceServer.
func (r *received) Export(_ context.Context, req *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rs := range req.ResourceSpans {
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				r.byName[s.Name] = s
			}
		}
	}
	select {
	case r.wake <- struct{}{}:
	default:
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

// await waits for a span of that name.
func (r *received) await(t *testing.T, name string) *spans.Span {
	t.Helper()
	for {
		r.mu.Lock()
		s := r.byName[name]
		r.mu.Unlock()
		if s != nil {
			return s
		}
		select {
		case <-r.wake:
		case <-time.After(time.Minute):
			t.Fatalf("no span %s", name)
		}
	}
}

// TestComponent has a node report what it does to an API server that samples nothing, and
// to a collector by what its configuration says.
func TestComponent(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &received{byName: map[string]*spans.Span{}, wake: make(chan struct{}, 1)}
	s := grpc.NewServer()
	collector.RegisterTraceServiceServer(s, r)
	go func() { _ = s.Serve(l) }()
	defer s.Stop()
	o, err := ParseConfig(`{"endpoint":"` + l.Addr().String() + `","samplingRatePerMillion":1000000}`)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	c, err := NewComponent(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); c.Run(ctx) }()
	defer func() { stop(); <-ended }()

	server := trace.NewRecorder(trace.DefaultLimit)
	server.Add(trace.Step{Time: time.Now(), Verb: "create", Resource: "pods", Name: "p", UID: "pod", ResourceVersion: "1"})
	at, _ := server.Of("pod")
	if !at.Unsampled {
		t.Fatal("the server samples")
	}
	node := c.Beside(server.Reporter("kubelet", "node-1"))
	pod := &metav1.ObjectMeta{Name: "p", UID: "pod", ResourceVersion: "1"}
	node.Phase("pods", pod, trace.PhaseSandbox, "10.0.0.1", time.Now())
	if in := r.await(t, trace.PhaseSandbox); trace.TraceID(in.TraceId) != at.TraceID || trace.SpanID(in.ParentSpanId) != at.SpanID {
		t.Errorf("the span is %v, want it in the trace %s below %s", in, at.TraceID, at.SpanID)
	}
	if at, ok := trace.ContextOf(node.Within(t.Context(), "pod")); !ok || at.Unsampled {
		t.Errorf("what is made for the pod is told that it is not sampled: %v", at)
	}
	steps := server.Way("pod")
	if len(steps) != 2 || !steps[1].Sent {
		t.Errorf("the server records %+v", steps)
	}
	// An object of which the server knows nothing.
	node.Phase("pods", &metav1.ObjectMeta{Name: "q", UID: types.UID("other")}, trace.PhasePull, "image", time.Now())
	if in := r.await(t, trace.PhasePull); len(in.TraceId) != 16 || len(in.ParentSpanId) != 0 {
		t.Errorf("the span is %v, want it in a trace of its own", in)
	}
}

// TestSection reads the section tracing of a KubeletConfiguration.
func TestSection(t *testing.T) {
	for text, want := range map[string]string{
		`{}`:                                 "",
		`{"samplingRatePerMillion":1000001}`: "invalid configuration: tracing.samplingRatePerMillion: Invalid value: 1000001: sampling rate per million must be less than or equal to one million",
		`{"endpoints":"x"}`:                  `invalid configuration: tracing: json: unknown field "endpoints"`,
	} {
		if _, err := ParseConfig(text); (err == nil) != (want == "") || err != nil && err.Error() != want {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}
