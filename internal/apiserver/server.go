package apiserver

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
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
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
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
	// Objects is admission's view of the objects; nil is the scheme's.
	Objects admission.ObjectInterfaces
	// Reservations take what a new or changed object of a resource needs
	// beyond itself: a Service's addresses and ports.
	Reservations map[schema.GroupResource]Reservation
	// Computed gives the objects of resources that are not stored; New adds the
	// states of components.
	Computed map[schema.GroupResource]Computed
	// Tokens issues tokens for serviceaccounts/token.
	Tokens Tokens
	// TokenAuthenticator checks the tokens in TokenReviews.
	TokenAuthenticator authenticator.Token
	// NoUnsafeDeletion ignores the option that deletes objects that cannot be read.
	NoUnsafeDeletion bool
	// LegacyImpersonation knows the verb "impersonate" alone, and none of KEP-5284's.
	LegacyImpersonation bool
	// Nodes reaches the node agents' HTTP servers.
	Nodes NodeTransport
	// Own reports whether an address is one that this server is reached at; it may be
	// nil. Nothing is passed on to those.
	Own func(netip.AddrPort) bool
	// Fairness, if set, says when it is a request's turn.
	Fairness flowcontrol.Interface
	// MaxReads and MaxWrites are, without Fairness, how many requests of each are
	// answered at once; 0 is without limit.
	MaxReads, MaxWrites int
	// StallLimit is how long the client of a watch may leave unread what it was
	// sent (default 30 seconds).
	StallLimit time.Duration
	// SendRetryAfter lets Refuse have an effect.
	SendRetryAfter bool
	// Exempt, if set, gives the UIDs of the flow schema and the priority level
	// called exempt.
	Exempt func() (schema, level types.UID)
	// Audit, if set, is told of every request.
	Audit *auditing.Auditor
	// Form, if set, is the form that an object at key is stored in now: one that
	// is stored in another is written anew by a write that changes nothing.
	Form func(key string) int64
	// Recorded, if set, is told of every committed write with the request's
	// context, which carries its cause.
	Recorded func(ctx context.Context, w Write)
	// Types are the schemas of the built-in kinds, as NewTypes makes them;
	// asked for at the first write. Default makes them then.
	Types func() managedfields.TypeConverter
	// Readiness are named checks behind /readyz.
	Readiness map[string]func() error
	// TTL, if set, is how long an object is kept whose row says that it has a limited
	// life, in place of what the row says.
	TTL time.Duration
	// MinRequestTimeout, if set, is how long a watch lasts at least that says
	// nothing else, in place of half an hour; it lasts up to twice as long. Below 0
	// it lasts until it is ended.
	MinRequestTimeout time.Duration
	// RequestTimeout is how long a request may take that is no watch or stream;
	// 0 is a minute.
	RequestTimeout time.Duration
	// NoProfiling and NoLogs leave out /debug/pprof and /debug/flags, and /logs.
	NoProfiling, NoLogs bool
	// HiddenMetrics are the names of those that /metrics leaves out.
	HiddenMetrics []string
	// Version is the answer of /version.
	Version VersionInfo
	// Aggregation passes on what other servers serve; may be nil.
	Aggregation *aggregation.Registry
	// Paths are further handlers, by their path, behind authorization.
	Paths map[string]http.Handler
	// Metrics is served under /metrics; New adds the server's own.
	Metrics *prometheus.Registry
	Clock   clock.WithTicker
}

// Write is a committed change.
type Write struct {
	Resource    *api.Resource
	Subresource string
	Verb        string // create, update, patch, delete
	Object      runtime.Object
	Old         runtime.Object // nil for a creation
	Time        time.Time
}

// Reservation is something that a write holds outside of the store.
type Reservation interface {
	// Reserve takes what obj needs (old is nil for a creation) and fills it
	// in. done is called once, with whether the write was committed; obj has
	// not been written with false.
	Reserve(ctx context.Context, obj, old runtime.Object, dryRun bool) (done func(committed bool), err error)
	// Release frees what a deleted object held.
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

	impersonation func() http.Handler // made when it is first wanted

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

func (s *Server) stale(e *store.Entry) bool { return s.Form != nil && s.Form(e.Key) != e.Form }

type inProcessKey struct{}

// WithUser marks the requests of a component in this process: they come from u
// without further authentication.
func WithUser(ctx context.Context, u user.Info) context.Context {
	return context.WithValue(ctx, inProcessKey{}, u)
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	growStack(len(req.Method))
	info, err := s.info.NewRequestInfo(req)
	if err != nil {
		http.Error(w, fmt.Sprintf("failed to create RequestInfo: %v", err), http.StatusInternalServerError)
		return
	}
	long := longRunning(req, info)
	leave, ok := s.enter(w, req, long)
	if !ok {
		return
	}
	defer leave()
	r := &call{s: s, w: w, req: req, info: info, started: s.Clock.Now()}
	r.long = long
	r.conn, _ = w.(connection)
	rec := &warnings{}
	ctx := warning.WithWarningRecorder(request.WithRequestInfo(req.Context(), info), rec)
	r.warnings = rec
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler { //nolint:errorlint // it is that very value
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
		_ = r.conn.SetReadDeadline(time.Now().Add(s.RequestTimeout)) // until it is allowed
	}
	r.req = req.WithContext(ctx)
	r.identify()
	defer s.metrics.begin(r).Add(-1)
	err = r.authenticate()
	s.metrics.identified(r.user, err)
	if req.ProtoMajor == 2 && (err != nil || anonymous(r.user)) {
		// Connections of HTTP/2 are cheap for a client, and dear for the server
		// (CVE-2023-44487): this one ends with the answer.
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

// call is one request on its way.
type call struct {
	s        *Server
	w        http.ResponseWriter
	req      *http.Request
	info     *request.RequestInfo
	user     user.Info
	row      *api.Resource
	warnings *warnings
	started  time.Time
	// conn is the client's connection, nil within the process.
	conn connection
	// long reports whether the request lasts as long as its client likes.
	long bool
	code int  // of the answer, 0 before it
	bare bool // writes pass no admission
	// inProcess reports whether it comes from a component of this process.
	inProcess bool
	// managed is where manage has put the managers of an object without a Go type.
	managed *any
}

func (r *call) ctx() context.Context { return r.req.Context() }

func (r *call) authenticate() error {
	ctx := r.ctx()
	u, inProcess := ctx.Value(inProcessKey{}).(user.Info)
	r.inProcess = inProcess
	switch {
	case inProcess:
	case r.s.Authenticator == nil:
		u = &user.DefaultInfo{Name: user.Anonymous, Groups: []string{user.AllUnauthenticated}}
	default:
		resp, ok, err := r.s.Authenticator.AuthenticateRequest(r.req)
		if err != nil || !ok {
			if err != nil {
				klog.FromContext(ctx).V(3).Info("Unable to authenticate the request", "err", err)
			}
			return apierrors.NewUnauthorized("Unauthorized")
		}
		u = resp.User
	}
	r.user = u
	forget(r.req.Header)
	r.req = r.req.WithContext(request.WithUser(ctx, r.user))
	return nil
}

// anonymous reports whether u is the anonymous user.
func anonymous(u user.Info) bool {
	return u.GetName() == user.Anonymous || slices.Contains(u.GetGroups(), user.AllUnauthenticated)
}

func (r *call) authorize() error {
	if r.s.Authorizer == nil {
		return nil
	}
	a := r.Attributes()
	decision, reason, err := r.s.Authorizer.Authorize(r.ctx(), a)
	r.decided(decision, reason)
	switch decision {
	case authorizer.DecisionAllow:
		r.s.metrics.allowed.Inc()
	case authorizer.DecisionDeny:
		r.s.metrics.denied.Inc()
	default:
		r.s.metrics.undecided.Inc()
	}
	return r.judged(a, decision, reason, err)
}

// judged is the answer to a decision about a: nil, or upstream's Forbidden.
func (r *call) judged(a authorizer.AttributesRecord, decision authorizer.Decision, reason string, err error) error {
	if decision == authorizer.DecisionAllow {
		return nil
	}
	if err != nil {
		klog.FromContext(r.ctx()).V(3).Info("Authorization failed", "err", err)
	}
	return responsewriters.ForbiddenStatusError(a, reason)
}

// notFoundPath is the answer to a path that nothing serves.
func (r *call) notFoundPath() error {
	http.Error(r.w, "404 page not found", http.StatusNotFound)
	r.code = http.StatusNotFound
	r.row = nil // what it is counted by is the client's invention
	return nil
}

// serve routes an allowed request.
func (r *call) serve() error {
	if !r.info.IsResourceRequest {
		return r.serveNonResource()
	}
	i := r.info
	if r.aggregated(i.APIGroup, i.APIVersion) {
		return nil
	}
	r.row = r.s.Catalogue.Lookup(i.APIGroup, i.APIVersion, i.Resource)
	if r.row == nil || r.s.Catalogue.Hides(r.row.GroupVersionResource) && !r.inProcess || (!r.row.Namespaced && i.Namespace != "" && !r.row.IsNamespace) {
		return r.notFoundPath()
	}
	if r.row.Deprecation != "" {
		r.warnings.AddWarning("", r.row.Deprecation)
	}
	if i.Subresource != "" {
		return r.serveSubresource()
	}
	if r.row.NotStored {
		return r.serveComputed()
	}
	verb := i.Verb
	if r.row.Namespaced && i.Namespace == "" && verb != "list" && verb != "watch" {
		return r.methodNotSupported()
	}
	if (verb == "update" || verb == "patch") && i.Name == "" || verb == "create" && i.Name != "" {
		return r.methodNotSupported()
	}
	if !r.row.HasVerb(verb) {
		return r.methodNotSupported()
	}
	switch verb {
	case "get":
		return r.get()
	case "list":
		return r.list()
	case "watch":
		return r.watch()
	case "create":
		if r.row.Terminating != "" {
			err := r.methodNotSupported()
			err.(*apierrors.StatusError).ErrStatus.Message = r.row.Terminating //nolint:errorlint // it is that very type
			return err
		}
		return r.create()
	case "update":
		return r.update(&r.row.UpdateStrategy)
	case "patch":
		return r.patch(&r.row.UpdateStrategy)
	case "delete":
		return r.delete()
	case "deletecollection":
		return r.deleteCollection()
	}
	return r.methodNotSupported()
}

// aggregated passes the request on if another server serves the group version.
func (r *call) aggregated(group, version string) bool {
	if r.s.Aggregation == nil {
		return false
	}
	h := r.s.Aggregation.Handler(group, version)
	if h == nil {
		return false
	}
	r.code = http.StatusOK
	h.ServeHTTP(r.w, r.req)
	return true
}

func (r *call) methodNotSupported() error {
	return apierrors.NewMethodNotSupported(r.row.GroupVersionResource.GroupResource(), r.info.Verb)
}

func (r *call) groupResource() schema.GroupResource {
	return r.row.GroupVersionResource.GroupResource()
}
