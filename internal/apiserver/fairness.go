package apiserver

import (
	"context"
	"net/http"
	"slices"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/server/filters"
	"k8s.io/apiserver/pkg/server/mux"
	"k8s.io/apiserver/pkg/util/flowcontrol"
	flowcontrolrequest "k8s.io/apiserver/pkg/util/flowcontrol/request"
)

type callKey struct{}

// fairness has each request wait for its turn, by its flow schema and priority
// level: KEP-1040.
type fairness struct {
	http.Handler
	debug *mux.PathRecorderMux // nil where none waits
}

// answer is the handler behind those that have requests wait or refuse them.
var answer = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
	r := req.Context().Value(callKey{}).(*call)
	r.w, r.req = w, req
	r.proceed()
})

// newFairness makes one in which a request waits for a quarter of its time at most,
// as upstream's does.
func newFairness(f flowcontrol.Interface, timeout time.Duration) *fairness {
	debug := mux.NewPathRecorderMux("priority and fairness")
	f.Install(debug)
	return &fairness{filters.WithPriorityAndFairness(answer, longRunning, f, estimate, timeout/4), debug}
}

// newMaxInFlight refuses what is too much at once: what upstream does without
// priority and fairness.
func newMaxInFlight(reads, writes int) *fairness {
	return &fairness{Handler: filters.WithMaxInFlightLimit(answer, reads, writes, longRunning)}
}

// estimate is the share of its level that a request takes. A list is answered
// from shared bytes and a write costs its watchers little here, so that there is
// no need to tell requests apart as upstream's estimator does.
func estimate(*http.Request, string, string) flowcontrolrequest.WorkEstimate {
	return flowcontrolrequest.WorkEstimate{InitialSeats: 1}
}

// inTurn has the request proceed when it is its turn. Components of this process
// do not wait: what they would wait for may need them.
func (r *call) inTurn() {
	if r.s.fairness == nil || r.inProcess {
		r.proceed()
		return
	}
	// system:masters match the schema "exempt", which is mandatory and comes
	// before all others, and whose level has no limit.
	if slices.Contains(r.user.GetGroups(), user.SystemPrivilegedGroup) && r.s.Exempt != nil {
		h := r.w.Header()
		schema, level := r.s.Exempt()
		h.Set(flowcontrolv1.ResponseHeaderMatchedFlowSchemaUID, string(schema))
		h.Set(flowcontrolv1.ResponseHeaderMatchedPriorityLevelConfigurationUID, string(level))
		r.proceed()
		return
	}
	ctx := context.WithValue(r.ctx(), callKey{}, r)
	r.s.fairness.ServeHTTP(r.w, r.req.WithContext(ctx))
}

// proceed answers the request, whose user is known.
func (r *call) proceed() {
	err := r.authorize()
	if err == nil {
		if r.long && r.hasUnboundBody() {
			_ = r.conn.SetReadDeadline(time.Time{}) // as long as its client likes
		}
		err = r.serve()
	}
	if err != nil {
		r.fail(err)
	}
}
