package apiserver

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/waitgroup"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/util/flowcontrol"
	"k8s.io/apiserver/pkg/warning"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"k8s.io/utils/lru"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/catalogue"
	"keelson.dev/keelson/internal/apiserver/aggregation"
	"keelson.dev/keelson/internal/apiserver/auditing"
	"keelson.dev/keelson/internal/apiserver/serving"
	"keelson.dev/keelson/internal/store"
	"keelson.dev/keelson/internal/trace"
)

// MaxBody is the greatest size of a request's body in bytes, upstream's limit.
const MaxBody = 3 * 1024 * 1024

// Config configures a Server.
type Config struct {
	Store     store.Store
	Catalogue *catalogue.Catalogue
	Scheme    *runtime.Scheme

	// Authenticator identifies the user of a request; nil takes every request
	// as anonymous.
	Authenticator authenticator.Request
	// Authorizer decides; nil allows everything.
	Authorizer authorizer.Authorizer
	// RuleResolver serves SelfSubjectRulesReviews.
	RuleResolver authorizer.RuleResolver
	// Admission is the chain that every write passes; may be nil.
	Admission admission.Interface
	// Objects are admission's object interfaces; nil means those of the scheme.
	Objects admission.ObjectInterfaces
	// Reservations allocate what a new or changed object of a resource needs outside
	// of the store: a Service's addresses and ports.
	Reservations map[schema.GroupResource]Reservation
	// Computed computes the objects of resources that are not stored; New adds the
	// ComponentStatuses.
	Computed map[schema.GroupResource]Computed
	// Views are the reduced forms of resources, by the views' names.
	Views map[string]map[schema.GroupResource]*View
	// Tokens issues tokens for serviceaccounts/token.
	Tokens Tokens
	// TokenAuthenticator checks the tokens in TokenReviews.
	TokenAuthenticator authenticator.Token
	// NoUnsafeDeletion ignores the option that deletes objects that cannot be read.
	NoUnsafeDeletion bool
	// LegacyImpersonation checks the verb "impersonate" only, and none of KEP-5284's.
	LegacyImpersonation bool
	// Nodes reaches the node agents' HTTP servers.
	Nodes NodeTransport
	// Own reports whether an address is this server's own; it may be nil. Nothing is
	// proxied to such an address.
	Own func(netip.AddrPort) bool
	// Fairness, if set, decides when it is a request's turn.
	Fairness flowcontrol.Interface
	// MaxReads and MaxWrites are, without Fairness, the numbers of reads and writes
	// that are served at once; 0 means no limit.
	MaxReads, MaxWrites int
	// StallLimit is how long the client of a watch may leave events unread (default
	// 30 seconds).
	StallLimit time.Duration
	// SendRetryAfter enables Refuse.
	SendRetryAfter bool
	// Exempt, if set, returns the UIDs of the flow schema and the priority level
	// called exempt.
	Exempt func() (schema, level types.UID)
	// Audit, if set, records every request.
	Audit *auditing.Auditor
	// Form, if set, returns the form (encryption key) in which objects at key are
	// stored now: a write that changes nothing still writes an object that is stored
	// in another form.
	Form func(key string) int64
	// Tracer, if set, is told of writes.
	Tracer Tracer
	// Note, if set, describes a write in the history of the store, beside what it writes. The
	// write has no Object yet.
	Note func(ctx context.Context, w Write) string
	// Types returns the schemas of the built-in kinds, as NewTypes makes them; it is
	// called at the first write. The default calls NewTypes then.
	Types func() managedfields.TypeConverter
	// Readiness are further checks of /readyz, by name.
	Readiness map[string]func() error
	// TTL, if set, replaces the time that objects of rows with a limited life are
	// kept.
	TTL time.Duration
	// MinRequestTimeout is the least duration of a watch without timeoutSeconds
	// (default half an hour); it lasts up to twice as long. Below 0 it has no end.
	MinRequestTimeout time.Duration
	// RequestTimeout is how long a request that is no watch or stream may take; 0
	// means a minute.
	RequestTimeout time.Duration
	// NoProfiling and NoLogs leave out /debug/pprof and /debug/flags, and /logs.
	NoProfiling, NoLogs bool
	// HiddenMetrics are the names of the metrics that /metrics leaves out.
	HiddenMetrics []string
	// Version is the answer of /version.
	Version VersionInfo
	// Aggregation passes requests on to aggregated servers; may be nil.
	Aggregation *aggregation.Registry
	// Paths are further handlers, by their path, behind authorization. One whose path
	// ends in a slash has all paths below that too.
	Paths map[string]http.Handler
	// Metrics is served under /metrics; New adds the server's own.
	Metrics *prometheus.Registry
	Clock   clock.WithTicker
}

// Tracer records writes.
type Tracer interface {
	// Traces reports whether writes of a resource are recorded. The other methods are called
	// for those only.
	Traces(gr schema.GroupResource) bool
	trace.Placer
	// Committed is told of a write of an object that is committed at a version, before any
	// watch has the change. It must not block. Record follows, or else Withdraw.
	Committed(uid types.UID, version string, at trace.Context)
	Withdraw(uid types.UID, at trace.Context)
	// Record is called after a committed write, and for one that was refused, with the
	// request's context, which carries its cause.
	Record(ctx context.Context, w Write)
}

// Write is a committed change, or one that was refused.
type Write struct {
	Resource    *api.Resource
	Subresource string
	Verb        string         // create, update, patch, delete
	Object      runtime.Object // nil if it was refused
	Old         runtime.Object // nil for a creation
	Time        time.Time
	// Refused is why it was not made: admission or validation did not allow it. Namespace
	// and Name are then what the request named.
	Refused         error
	Namespace, Name string
	// Client is the User-Agent of the request.
	Client string
	// Timing has how long the parts of it took.
	Timing *trace.Timing
}

// Reservation allocates something that an object needs outside of the store.
type Reservation interface {
	// Reserve allocates what obj needs (old is nil for a creation) and fills it in.
	// done is called once and tells whether the write was committed.
	Reserve(ctx context.Context, obj, old runtime.Object, dryRun bool) (done func(committed bool), err error)
	// Release frees what a deleted object had.
	Release(obj runtime.Object)
}

// Server is the API server's handler.
type Server struct {
	Config
	info      *request.RequestInfoFactory
	codecs    codecs
	discovery discoveryCache
	openapi   openapiCache
	metrics   *metrics
	fairness  *fairness    // nil if every request is answered at once
	debug     http.Handler // nil if there is no profiling
	backends  http.RoundTripper

	impersonation func() http.Handler // made when it is first called

	ownerships sync.Map // ownershipKey → *ownership

	draining, refusing atomic.Bool
	// requests counts the requests that are not long-running, if
	// SendRetryAfter.
	requests waitgroup.SafeWaitGroup
	// streams is the number of watches that are being served.
	streams atomic.Int64
	// watches ends all watches when the server shuts down.
	watches context.Context
	stop    context.CancelFunc
}

// New makes a server.
func New(cfg Config) *Server {
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	if cfg.StallLimit == 0 {
		cfg.StallLimit = stallLimit
	}
	if cfg.Metrics == nil {
		cfg.Metrics = prometheus.NewRegistry()
	}
	if cfg.Types == nil {
		cfg.Types = sync.OnceValue(func() managedfields.TypeConverter { return NewTypes(cfg.Scheme) })
	}
	if cfg.MinRequestTimeout == 0 {
		cfg.MinRequestTimeout = 30 * time.Minute
	}
	if cfg.RequestTimeout == 0 {
		cfg.RequestTimeout = time.Minute
	}
	if cfg.Objects == nil {
		cfg.Objects = admission.NewObjectInterfacesFromScheme(cfg.Scheme)
	}
	s := &Server{
		Config: cfg,
		info: &request.RequestInfoFactory{
			APIPrefixes:          sets.NewString("api", "apis"),
			GrouplessAPIPrefixes: sets.NewString("api"),
		},
		codecs:  newCodecs(cfg.Scheme),
		metrics: newMetrics(cfg.Metrics, cfg.Catalogue, cfg.Store),
	}
	if !cfg.NoProfiling {
		s.debug = serving.Debug()
	}
	switch {
	case cfg.Fairness != nil:
		s.fairness = newFairness(cfg.Fairness, cfg.Catalogue, cfg.Store)
	case cfg.MaxReads > 0 || cfg.MaxWrites > 0:
		s.fairness = newMaxInFlight(cfg.MaxReads, cfg.MaxWrites)
	}
	s.Computed = maps.Clone(s.Computed)
	if s.Computed == nil {
		s.Computed = map[schema.GroupResource]Computed{}
	}
	s.Computed[componentStatuses] = components{s}
	s.impersonation = sync.OnceValue(s.newImpersonation)
	s.backends = s.newBackends()
	s.openapi.recent = lru.New(recentDocuments)
	s.watches, s.stop = context.WithCancel(context.Background())
	return s
}

// Streams returns the number of watches that are being served.
func (s *Server) Streams() int64 { return s.streams.Load() }

func (s *Server) stale(e *store.Entry) bool { return s.Form != nil && s.Form(e.Key) != e.Form }

type inProcessKey struct{}

// WithUser returns a context for requests of a component in this process: they
// are u's, without further authentication.
func WithUser(ctx context.Context, u user.Info) context.Context {
	return context.WithValue(ctx, inProcessKey{}, u)
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	growStack(len(req.Method))
	req = inView(atMoment(req))
	info, err := s.info.NewRequestInfo(req)
	if err != nil {
		http.Error(w, fmt.Sprintf("failed to create RequestInfo: %v", err), http.StatusInternalServerError)
		return
	}
	if name, ok := req.Context().Value(viewKey{}).(string); ok && info.Subresource == "" {
		info.Subresource = name
	}
	long := longRunning(req, info)
	leave, ok := s.enter(w, req, long)
	if !ok {
		return
	}
	defer leave()
	r := &call{response: response{incoming: incoming{s: s, req: req, info: info}, w: w}, started: s.Clock.Now(), came: time.Now()}
	r.long = long
	r.conn, _ = w.(connection)
	rec := &warnings{}
	ctx := warning.WithWarningRecorder(request.WithRequestInfo(req.Context(), info), rec)
	r.warnings = rec
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler { //nolint:errorlint // net/http compares it so, too
				panic(p)
			}
			klog.FromContext(ctx).Error(fmt.Errorf("%v", p), "A request's handler panicked", "verb", info.Verb, "path", req.URL.Path, "stack", string(debug.Stack()))
			if r.code == 0 {
				r.fail(apierrors.NewInternalError(fmt.Errorf("this request caused apiserver to panic. Look in the logs for details")))
			}
		}
		s.metrics.observe(r, s.Clock.Since(r.started))
	}()
	allotted, timeoutErr := r.allotted()
	switch {
	case allotted > 0:
		var end func()
		ctx, end = r.limit(ctx, allotted)
		defer end()
	case long && info.Verb != "watch":
		var end context.CancelFunc
		ctx, end = context.WithCancel(ctx)
		defer end()
		defer context.AfterFunc(s.watches, end)()
	}
	if long && r.hasUnboundBody() {
		_ = r.conn.SetReadDeadline(time.Now().Add(s.RequestTimeout)) // until the user is known
	}
	r.req = req.WithContext(ctx)
	r.identify()
	defer s.metrics.begin(r).Add(-1)
	err = r.authenticate()
	s.metrics.identified(r.user, err)
	if req.ProtoMajor == 2 && (err != nil || anonymous(r.user)) {
		// Streams of HTTP/2 are cheap for a client and expensive for the server
		// (CVE-2023-44487): the connection ends with the answer.
		w.Header().Set("Connection", "close")
	}
	if err != nil {
		r.auditUnauthenticated(func() { r.fail(err) })
		return
	}
	r.audited(func() {
		if timeoutErr != nil {
			r.fail(timeoutErr)
			return
		}
		if err := r.impersonate(); err != nil {
			r.fail(err)
			return
		}
		r.inTurn()
	})
}
