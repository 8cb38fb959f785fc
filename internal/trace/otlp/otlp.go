// Package otlp sends the steps of the trace as spans of OpenTelemetry to a collector, by
// OTLP over gRPC or HTTP (https://opentelemetry.io/docs/specs/otlp). It may import package
// trace, OpenTelemetry's SDK, and the types of upstream's TracingConfiguration.
package otlp

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/pflag"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	oteltrace "go.opentelemetry.io/otel/trace"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/internal/trace"
)

// Options select where spans are sent to.
type Options struct {
	// Endpoint is the URL of a collector: grpc://HOST:PORT, grpcs:// with TLS, or http:// and
	// https://, with a path if it is not /v1/traces. Empty sends none.
	Endpoint string
	// Sampling is the share of the traces that are sent, of those whose clients have not
	// decided that by their traceparent.
	Sampling float64
	// ConfigFile has a TracingConfiguration in place of both; empty is none.
	ConfigFile string

	target string // of gRPC, in place of Endpoint
	given  bool   // by --otlp-sampling
}

// Enabled reports whether spans are sent.
func (o *Options) Enabled() bool { return o.Endpoint != "" || o.ConfigFile != "" || o.target != "" }

// AddFlags adds the flags.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.Endpoint, "otlp-endpoint", o.Endpoint, "URL of a collector that the trace is sent to as spans of OpenTelemetry: grpc://HOST:4317, grpcs:// with TLS, or http://HOST:4318 and https:// (headers and certificates by OTEL_EXPORTER_OTLP_HEADERS and others)")
	fs.StringVar(&o.ConfigFile, "tracing-config-file", o.ConfigFile, "file with a TracingConfiguration of apiserver.config.k8s.io, which says the same: endpoint, of gRPC without TLS, and samplingRatePerMillion")
	o.Sampling = 1
	fs.Var((*share)(o), "otlp-sampling", "share of the traces that is sent, from 0 to 1; clients decide it by their traceparent otherwise")
}

// share is the flag value of Options.Sampling.
type share Options

// String implements pflag.Value.
func (s *share) String() string { return strconv.FormatFloat(s.Sampling, 'g', -1, 64) }

// Type implements pflag.Value.
func (s *share) Type() string { return "float64" }

// Set implements pflag.Value.
func (s *share) Set(text string) (err error) {
	s.given = true
	s.Sampling, err = strconv.ParseFloat(text, 64)
	return err
}

// Validate returns an error for invalid values.
func (o *Options) Validate() error {
	if o.ConfigFile != "" {
		if o.Endpoint != "" {
			return errors.New("--tracing-config-file and --otlp-endpoint: both say where spans are sent to: give one of them")
		}
		if o.given {
			return errors.New("--tracing-config-file and --otlp-sampling: both say which traces are sent: give one of them")
		}
		_, err := ReadConfig(o.ConfigFile)
		return err
	}
	if !(o.Sampling >= 0 && o.Sampling <= 1) { // NaN is none
		return fmt.Errorf("--otlp-sampling %v: want a share, from 0 to 1", o.Sampling)
	}
	if o.Endpoint == "" {
		return nil
	}
	u, err := url.Parse(o.Endpoint)
	if err == nil {
		switch u.Scheme {
		case "grpc", "grpcs", "http", "https":
			if u.Host != "" {
				return nil
			}
		}
	}
	return fmt.Errorf("--otlp-endpoint %q: want the URL of a collector, like grpc://192.0.2.1:4317 or http://192.0.2.1:4318", o.Endpoint)
}

const (
	// most is how many steps are sent at once, and pause how long others are waited for.
	most  = 512
	pause = 200 * time.Millisecond
	// patience bounds one sending, with its retries, and the last one of a server that ends.
	patience = 30 * time.Second
	farewell = 2 * time.Second
	// resources bounds the descriptions of components that are kept.
	resources = 4096
)

// Exporter sends what a recorder records. It keeps no steps itself: what it does not
// send in time is lost, and counted.
type Exporter struct {
	Options
	client    sdktrace.SpanExporter
	recorder  *trace.Recorder
	follower  *trace.Follower
	sampled   func(trace.TraceID) bool
	resources map[[2]string]*resource.Resource
	lost      atomic.Uint64
}

// New connects to a collector, which need not be there yet, and makes the recorder decide
// which traces are sent. Run sends.
func New(ctx context.Context, o Options, r *trace.Recorder) (*Exporter, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.ConfigFile != "" {
		var err error
		if o, err = ReadConfig(o.ConfigFile); err != nil {
			return nil, err
		}
	}
	u, err := url.Parse(o.Endpoint)
	if err != nil {
		return nil, err
	}
	var client otlptrace.Client
	switch {
	case o.target != "":
		o.Endpoint = o.target
		client = otlptracegrpc.NewClient(otlptracegrpc.WithEndpoint(o.target), otlptracegrpc.WithInsecure())
	case u.Scheme == "grpc" || u.Scheme == "grpcs":
		opts := []otlptracegrpc.Option{otlptracegrpc.WithEndpoint(u.Host)}
		if u.Scheme == "grpc" {
			opts = append(opts, otlptracegrpc.WithInsecure())
		}
		client = otlptracegrpc.NewClient(opts...)
	default:
		if strings.Trim(u.Path, "/") == "" {
			u.Path = "/v1/traces"
		}
		client = otlptracehttp.NewClient(otlptracehttp.WithEndpointURL(u.String()))
	}
	e := &Exporter{Options: o, recorder: r, resources: map[[2]string]*resource.Resource{}}
	if e.client, err = otlptrace.New(ctx, client); err != nil {
		return nil, fmt.Errorf("a collector at %s: %w", o.Endpoint, err)
	}
	sampler := sdktrace.TraceIDRatioBased(o.Sampling)
	e.sampled = func(id trace.TraceID) bool {
		return sampler.ShouldSample(sdktrace.SamplingParameters{ParentContext: context.Background(), TraceID: oteltrace.TraceID(id)}).Decision == sdktrace.RecordAndSample
	}
	r.Sample(e.sampled)
	e.follower = r.Follow()
	return e, nil
}

// Lost is how many steps could not be sent.
func (e *Exporter) Lost() uint64 { return e.lost.Load() }

// Run sends until ctx ends, and then what is left.
func (e *Exporter) Run(ctx context.Context) {
	defer e.follower.Close()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-e.follower.Wake():
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
		}
		for ctx.Err() == nil && e.send(ctx, patience) {
		}
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
	defer cancel()
	for last.Err() == nil && e.send(last, farewell) {
	}
	_ = e.client.Shutdown(last)
}

// send sends the next steps, and reports whether there were as many as are sent at once.
func (e *Exporter) send(ctx context.Context, patience time.Duration) bool {
	steps, lost := e.follower.Read(most)
	e.lost.Add(lost)
	var spans []sdktrace.ReadOnlySpan
	for _, s := range steps {
		if !s.Unsampled && !s.Foreign && !s.Sent {
			spans = append(spans, e.spans(s)...)
		}
	}
	if len(spans) == 0 {
		return len(steps) == most
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := e.client.ExportSpans(ctx, spans); err != nil {
		e.lost.Add(uint64(len(steps)))
		klog.FromContext(ctx).V(1).Info("Sending spans failed", "endpoint", e.Endpoint, "lost", e.Lost(), "err", err)
	}
	return len(steps) == most
}

// resource describes a component as OpenTelemetry does.
func (e *Exporter) resource(service, node string) *resource.Resource {
	key := [2]string{service, node}
	r := e.resources[key]
	if r == nil {
		all := []attribute.KeyValue{attribute.String("service.name", service), attribute.String("service.namespace", "keelson")}
		if node != "" {
			all = append(all, attribute.String("service.instance.id", node), attribute.String("k8s.node.name", node), attribute.String("host.name", node))
		}
		if len(e.resources) >= resources {
			clear(e.resources)
		}
		r = resource.NewSchemaless(all...)
		e.resources[key] = r
	}
	return r
}

var scope = instrumentation.Scope{Name: "keelson.dev/keelson/internal/trace"}

// spans returns those of a step: the component that woke for a cause and wrote, the
// request, and its parts.
func (e *Exporter) spans(s *trace.Step) []sdktrace.ReadOnlySpan {
	service, node, kind := "kube-apiserver", "", oteltrace.SpanKindServer
	name := strings.TrimSpace(strings.Join([]string{s.Verb, s.Resource, s.Subresource}, " "))
	if s.Phase != "" {
		service, node, kind, name = s.Actor, s.Node, oteltrace.SpanKindInternal, s.Phase
	}
	span := func(id, parent trace.SpanID, service, node, name string, kind oteltrace.SpanKind, begin, end time.Time) *tracetest.SpanStub {
		config := oteltrace.SpanContextConfig{TraceID: oteltrace.TraceID(s.TraceID), SpanID: oteltrace.SpanID(id), TraceFlags: oteltrace.FlagsSampled}
		stub := &tracetest.SpanStub{Name: name, SpanContext: oteltrace.NewSpanContext(config), SpanKind: kind, StartTime: begin, EndTime: end, Resource: e.resource(service, node), InstrumentationScope: scope}
		if parent.IsValid() {
			config.SpanID = oteltrace.SpanID(parent)
			stub.Parent = oteltrace.NewSpanContext(config)
		}
		return stub
	}
	parent := s.Parent
	var out []sdktrace.ReadOnlySpan
	if s.Phase == "" && s.Woke > s.Took {
		// The component's own span is above the request's. Its ID follows from that one's.
		parent = above(s.SpanID)
		actor := strings.TrimPrefix(strings.TrimPrefix(s.Actor, "system:serviceaccount:kube-system:"), "system:")
		machine := ""
		if n, ok := strings.CutPrefix(actor, "node:"); ok {
			actor, machine = "kubelet", n
		}
		out = append(out, span(parent, s.Parent, actor, machine, "reconcile: "+name, oteltrace.SpanKindInternal, s.Time.Add(-time.Duration(s.Woke)), s.Time).Snapshot())
	}
	own := span(s.SpanID, parent, service, node, name, kind, s.Began(), s.Time)
	own.Attributes = attributes(s)
	for _, uid := range s.About {
		if at, ok := e.recorder.Of(uid); ok {
			own.Links = append(own.Links, sdktrace.Link{SpanContext: at.Span()})
		}
	}
	out = append(out, own.Snapshot())
	part := func(name, detail string, begin time.Time, took trace.Millis) {
		p := span(trace.NewSpanID(), s.SpanID, service, node, name, oteltrace.SpanKindInternal, begin, begin.Add(time.Duration(took)))
		if detail != "" {
			p.Attributes = []attribute.KeyValue{attribute.String("keelson.detail", detail)}
		}
		out = append(out, p.Snapshot())
	}
	for i := range s.Parts {
		p := &s.Parts[i]
		part(p.Name, p.Detail, s.Began().Add(time.Duration(p.After)), p.Took)
	}
	if s.Store > 0 {
		part("store", "", s.Time.Add(-time.Duration(s.Store)), s.Store)
	}
	return out
}

// above returns the ID of the span of the component that made a request.
func above(id trace.SpanID) trace.SpanID {
	for i := range id {
		id[i] = ^id[i]
	}
	return id
}

func attributes(s *trace.Step) []attribute.KeyValue {
	var out []attribute.KeyValue
	add := func(key, value string) {
		if value != "" {
			out = append(out, attribute.String(key, value))
		}
	}
	add("k8s.resource", s.Resource)
	add("k8s.subresource", s.Subresource)
	add("k8s.namespace.name", s.Namespace)
	add("k8s.object.name", s.Name)
	add("k8s.object.uid", string(s.UID))
	add("k8s.object.resource_version", s.ResourceVersion)
	add("enduser.id", s.Actor)
	add("user_agent.original", s.Client)
	add("keelson.what", s.What)
	add("keelson.detail", s.Detail)
	add("keelson.cause.uid", string(s.CauseUID))
	add("keelson.cause.resource_version", s.CauseVersion)
	for _, d := range []struct {
		key  string
		took trace.Millis
	}{{"keelson.admission_ms", s.Admission}, {"keelson.validation_ms", s.Validation}, {"keelson.store_ms", s.Store}} {
		if d.took > 0 {
			out = append(out, attribute.Float64(d.key, float64(time.Duration(d.took).Microseconds())/1000))
		}
	}
	return out
}
