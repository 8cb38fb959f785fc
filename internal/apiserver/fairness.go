package apiserver

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	endpointmetrics "k8s.io/apiserver/pkg/endpoints/metrics"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/server/filters"
	"k8s.io/apiserver/pkg/server/mux"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/util/flowcontrol"
	flowmetrics "k8s.io/apiserver/pkg/util/flowcontrol/metrics"
	flowcontrolrequest "k8s.io/apiserver/pkg/util/flowcontrol/request"

	"keelson.dev/keelson/internal/api/catalogue"
	"keelson.dev/keelson/internal/dash"
	"keelson.dev/keelson/internal/store"
)

type callKey struct{}

// fairness makes each request wait for its turn, by its flow schema and priority
// level (KEP-1040).
type fairness struct {
	flowcontrol.Interface
	// inFlight, if set, replaces all the rest: it refuses requests beyond a fixed number,
	// as upstream does without priority and fairness.
	inFlight http.Handler
	debug    *mux.PathRecorderMux
	estimate flowcontrolrequest.WorkEstimatorFunc
	dropped  flowcontrol.DroppedRequestsTracker
	// serving and waiting count the reads and the writes.
	serving, waiting [2]flowmetrics.RatioedGauge
}

// newMaxInFlight refuses requests beyond a number of each kind.
func newMaxInFlight(reads, writes int) *fairness {
	answer := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r := req.Context().Value(callKey{}).(*call)
		r.w, r.req = w, req
		r.proceed()
	})
	return &fairness{inFlight: filters.WithMaxInFlightLimit(answer, reads, writes, longRunning)}
}

func newFairness(f flowcontrol.Interface, cat *catalogue.Catalogue, s store.Store) *fairness {
	endpointmetrics.Register()
	a := &fairness{Interface: f, debug: mux.NewPathRecorderMux("priority and fairness"), dropped: flowcontrol.NewDroppedRequestsTracker(),
		serving: [2]flowmetrics.RatioedGauge{flowmetrics.GetExecutingReadonlyConcurrency(), flowmetrics.GetExecutingMutatingConcurrency()},
		waiting: [2]flowmetrics.RatioedGauge{flowmetrics.GetWaitingReadonlyConcurrency(), flowmetrics.GetWaitingMutatingConcurrency()}}
	f.Install(a.debug)
	a.estimate = flowcontrolrequest.NewWorkEstimator(stored(cat, s), f.GetInterestedWatchCount, flowcontrolrequest.DefaultWorkEstimatorConfig(), f.GetMaxSeats)
	return a
}

// typicalSize is the assumed size of an object in bytes: a list of a hundred takes
// one seat, as upstream counts where it does not know the size.
const typicalSize = 1000

// stored returns a function that counts the objects of a resource, by its name
// with the group's.
func stored(cat *catalogue.Catalogue, s store.Store) func(string) (storage.Stats, error) {
	var mu sync.Mutex
	var generation uint64
	var prefixes map[string]string
	return func(name string) (storage.Stats, error) {
		mu.Lock()
		if g := cat.Generation(); prefixes == nil || g != generation {
			generation, prefixes = g, map[string]string{}
			for _, row := range cat.Rows() {
				if gr := row.GroupVersionResource.GroupResource(); !row.NotStored {
					prefixes[gr.String()] = row.Prefix("")
				}
			}
		}
		prefix, ok := prefixes[name]
		mu.Unlock()
		if !ok {
			return storage.Stats{}, flowcontrolrequest.ObjectCountNotFoundErr
		}
		return storage.Stats{ObjectCount: int64(s.Count(prefix)), EstimatedAverageObjectSizeBytes: typicalSize}, nil
	}
}

// inTurn calls proceed when it is the request's turn. Components of this process
// do not wait: the requests that they would wait for may depend on them.
func (r *call) inTurn() {
	f := r.s.fairness
	if f == nil || r.inProcess {
		r.proceed()
		return
	}
	// system:masters match the schema "exempt", which is mandatory and comes
	// before all others, and whose level has no limit.
	if slices.Contains(r.user.GetGroups(), user.SystemPrivilegedGroup) && r.s.Exempt != nil {
		schema, level := r.s.Exempt()
		setMatched(r.w.Header(), string(schema), string(level))
		if w, ok := f.Interface.(interface{ Wake(context.Context) }); ok && looksAtFairness(r.info) {
			w.Wake(r.ctx())
		}
		r.proceed()
		return
	}
	if f.inFlight != nil {
		f.inFlight.ServeHTTP(r.w, r.req.WithContext(context.WithValue(r.ctx(), callKey{}, r)))
		return
	}
	if r.info.Verb == "watch" || !r.info.IsResourceRequest && r.info.Path == dash.Path {
		f.watch(r)
		return
	}
	if longRunning(r.req, r.info) {
		r.proceed()
		return
	}
	t := &awaiting{fairness: f, call: r}
	t.handle(r.ctx(), r.proceed)
	if !t.served {
		t.refuse()
	}
}

// looksAtFairness reports whether the answer depends on the controller of priorities:
// its metrics, its dumps, the status of its objects.
func looksAtFairness(i *request.RequestInfo) bool {
	return i.APIGroup == flowcontrolv1.GroupName || !i.IsResourceRequest && (strings.HasPrefix(i.Path, "/metrics") || strings.HasPrefix(i.Path, "/debug/api_priority"))
}

func setMatched(h http.Header, schema, level string) {
	h[flowSchemaHeader] = []string{schema}
	h[priorityLevelHeader] = []string{level}
}

var (
	flowSchemaHeader    = http.CanonicalHeaderKey(flowcontrolv1.ResponseHeaderMatchedFlowSchemaUID)
	priorityLevelHeader = http.CanonicalHeaderKey(flowcontrolv1.ResponseHeaderMatchedPriorityLevelConfigurationUID)
)

// awaiting is a request that waits for its turn.
type awaiting struct {
	*fairness
	*call
	schema *flowcontrolv1.FlowSchema
	level  *flowcontrolv1.PriorityLevelConfiguration
	served bool
}

// kind returns the index of the request's gauges.
func (t *awaiting) kind() int {
	switch t.info.Verb {
	case "get", "list", "watch":
		return 0
	}
	return 1
}

// handle calls serve when it is the request's turn, and refuses the request if
// its turn does not come in time.
func (t *awaiting) handle(ctx context.Context, serve func()) {
	k := t.kind()
	t.Handle(ctx, flowcontrol.RequestDigest{RequestInfo: t.info, User: t.user},
		func(fs *flowcontrolv1.FlowSchema, pl *flowcontrolv1.PriorityLevelConfiguration, _ string) {
			t.schema, t.level = fs, pl
		},
		func() flowcontrolrequest.WorkEstimate {
			e := t.estimate(t.req, t.schema.Name, t.level.Name)
			flowmetrics.ObserveWorkEstimatedSeats(t.level.Name, t.schema.Name, e.MaxSeats())
			return e
		},
		func(in bool) {
			if in {
				t.waiting[k].Add(1)
			} else {
				t.waiting[k].Add(-1)
			}
		},
		func() {
			t.serving[k].Add(1)
			defer t.serving[k].Add(-1)
			t.served = true
			setMatched(t.w.Header(), string(t.schema.UID), string(t.level.UID))
			serve()
		})
}

// refuse answers with 429 and Retry-After.
func (t *awaiting) refuse() {
	endpointmetrics.RecordDroppedRequest(t.req, t.info, component, t.kind() == 1)
	endpointmetrics.RecordRequestTermination(t.req, t.info, component, http.StatusTooManyRequests)
	t.dropped.RecordDroppedRequest(t.level.Name)
	h := t.w.Header()
	setMatched(h, string(t.schema.UID), string(t.level.UID))
	h.Set("Retry-After", strconv.FormatInt(t.dropped.GetRetryAfter(t.level.Name), 10))
	t.code = http.StatusTooManyRequests
	http.Error(t.w, "Too many requests, please try again later.", t.code)
}

// watch makes a watch, or the stream of keelson dash, wait for its turn. It holds its seat
// until its initial state has been read.
func (f *fairness) watch(r *call) {
	t := &awaiting{fairness: f, call: r}
	begun, ready := make(chan struct{}), flowcontrol.NewInitializationSignal()
	ended := make(chan any, 1)
	var forget flowcontrol.ForgetWatchFunc
	go func() {
		defer func() { ended <- recover() }()
		t.handle(r.ctx(), func() {
			forget = f.RegisterWatch(r.req)
			close(begun)
			ready.Wait()
		})
	}()
	select {
	case <-begun:
	case p := <-ended:
		if p != nil {
			panic(p)
		}
		t.refuse()
		return
	}
	defer func() {
		ready.Signal() // also where the initial events were not sent
		if p := <-ended; p != nil {
			panic(p)
		}
		if forget != nil {
			forget()
		}
	}()
	r.req = r.req.WithContext(flowcontrol.WithInitializationSignal(r.ctx(), ready))
	r.proceed()
}
