package tracing

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"keelson.dev/keelson/internal/api/catalogue"
	"keelson.dev/keelson/internal/apiserver/authz"
	"keelson.dev/keelson/internal/store"
	"keelson.dev/keelson/internal/trace"
	"keelson.dev/keelson/internal/trace/remote"
)

// Reports takes the phases of components of other processes: those of a node, for the
// pods that are bound to it and the EndpointSlices that have endpoints on it, and those
// of the scheduler. A node cannot report for another one's, and not as another one.
type Reports struct {
	Trace     *trace.Recorder
	Store     store.Store
	Catalogue *catalogue.Catalogue

	mu     sync.Mutex
	limits map[string]*rate.Limiter // by user
}

const (
	// perSecond and burst bound the steps of one sender.
	perSecond = 200
	burst     = 4 * remote.MostSteps
	// senders bounds the limits that are kept.
	senders = 10_000
	// mostText bounds what a step says, mostName the name of a part in bytes, and mostTook
	// how long ago it may have begun.
	mostText  = 1024
	mostName  = 128
	mostParts = 16
	mostTook  = 24 * time.Hour
	// mostLost bounds how many steps a sender may say at once that it has lost.
	mostLost = 1 << 20
)

// phases are those that may be reported for objects of a resource, and by what part of a
// node.
var phases = map[string]map[string]string{
	"pods": {trace.PhaseVolumes: "kubelet", trace.PhaseDevices: "kubelet", trace.PhaseSandbox: "kubelet", trace.PhasePull: "kubelet", trace.PhaseCreate: "kubelet",
		trace.PhaseStart: "kubelet", trace.PhaseHook: "kubelet", trace.PhaseProbe: "kubelet", trace.PhasePolicies: "kubelet"},
	"endpointslices.discovery.k8s.io": {trace.PhaseRules: "kube-proxy", trace.PhaseName: "dns"},
}

// ServeHTTP takes a remote.Batch.
func (r *Reports) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	u, ok := request.UserFrom(req.Context())
	if !ok {
		http.Error(w, "reports are taken from nodes and the scheduler", http.StatusForbidden)
		return
	}
	node, isNode := authz.NodeName(u)
	if !(isNode && node != "") && u.GetName() != user.KubeScheduler {
		http.Error(w, fmt.Sprintf("reports are taken from nodes and the scheduler, and not from %q", u.GetName()), http.StatusForbidden)
		return
	}
	if req.Method != http.MethodPost {
		http.Error(w, "want POST", http.StatusMethodNotAllowed)
		return
	}
	var batch remote.Batch
	if err := json.NewDecoder(http.MaxBytesReader(w, req.Body, remote.MostBytes)).Decode(&batch); err != nil {
		http.Error(w, "reading a report: "+err.Error(), http.StatusBadRequest)
		return
	}
	now := time.Now()
	shift := batch.Shift(now)
	answer := remote.Answer{Traces: map[types.UID]trace.Context{}}
	limit := r.limit(u.GetName())
	over := trace.Gap{Node: node, Who: reporter(node), Why: fmt.Sprintf("it reported more than %d a second", perSecond)}
	for i := range batch.Steps {
		s, ok := r.checked(req.Context(), &batch.Steps[i], node)
		if !ok {
			continue
		}
		s.Time = recent(s.Time.Add(shift), now)
		if !limit.AllowN(now, 1) {
			over.Steps++
			over.Cover(s.Time)
			continue
		}
		r.Trace.Add(s)
		answer.Taken++
		if at, ok := r.Trace.Of(s.UID); ok {
			answer.Traces[s.UID] = at
		}
	}
	r.Trace.CountLost(trace.LostRate, over.Steps)
	r.Trace.AddGap(over)
	lost := min(batch.Lost, mostLost)
	r.Trace.CountLost(trace.LostReporting, lost)
	r.Trace.AddGap(trace.Gap{From: recent(batch.LostSince.Add(shift), now), To: now, Node: node, Who: reporter(node), Why: "it had no room for them, or could not send them", Steps: lost})
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
}

// recent returns a time that a sender tells, or now if it cannot be.
func recent(t, now time.Time) time.Time {
	if t.After(now) || t.Before(now.Add(-mostTook)) {
		return now
	}
	return t
}

// reporter names who reports from a node, and without one the scheduler.
func reporter(node string) string { return cmp.Or(node, "the scheduler") }

func (r *Reports) limit(name string) *rate.Limiter {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.limits[name]
	if l == nil {
		if r.limits == nil || len(r.limits) >= senders {
			r.limits = map[string]*rate.Limiter{}
		}
		l = rate.NewLimiter(perSecond, burst)
		r.limits[name] = l
	}
	return l
}

// checked returns what is recorded of a step that a node reports (the scheduler, where
// node is empty), and whether it may: what is known here is taken from here.
func (r *Reports) checked(ctx context.Context, s *trace.Step, node string) (trace.Step, bool) {
	actor, ok := phases[s.Resource][s.Phase]
	if node == "" {
		actor, ok = "scheduler", s.Resource == "pods" && s.Phase == trace.PhaseSchedule
	}
	if !ok || len(s.Namespace) > mostName*2 || len(s.Name) > mostName*2 || strings.ContainsAny(s.Namespace+s.Name, "/") || s.Namespace == "" || s.Name == "" {
		return trace.Step{}, false
	}
	out := trace.Step{Time: s.Time, Actor: actor, Node: node, Resource: s.Resource, Namespace: s.Namespace, Name: s.Name, Phase: s.Phase, Sent: s.Sent,
		Detail: cut(s.Detail, mostText), Took: within(s.Took), Parts: parts(s.Parts)}
	var version string
	switch s.Resource {
	case "pods":
		e, err := r.Store.Get(ctx, r.Catalogue.Must("", "v1", "pods").Key(s.Namespace, s.Name))
		if err != nil || e == nil {
			return out, false
		}
		p, ok := e.Object().(*v1.Pod)
		if !ok || p.UID != s.UID || node != "" && p.Spec.NodeName != node {
			return out, false
		}
		out.UID, version = p.UID, p.ResourceVersion
	default:
		e, err := r.Store.Get(ctx, r.Catalogue.Must("discovery.k8s.io", "v1", "endpointslices").Key(s.Namespace, s.Name))
		if err != nil || e == nil {
			return out, false
		}
		slice, ok := e.Object().(*discoveryv1.EndpointSlice)
		if !ok || slice.UID != s.UID || !slices.ContainsFunc(slice.Endpoints, func(p discoveryv1.Endpoint) bool { return p.NodeName != nil && *p.NodeName == node }) {
			return out, false
		}
		out.UID, version = slice.UID, slice.ResourceVersion
	}
	// It was done for a version that was there.
	if out.ResourceVersion = s.ResourceVersion; strings.Trim(s.ResourceVersion, "0123456789") != "" || !trace.Reaches(version, s.ResourceVersion) {
		out.ResourceVersion = version
	}
	return out, true
}

func parts(in []trace.Part) []trace.Part {
	in = in[:min(len(in), mostParts)]
	for i := range in {
		p := &in[i]
		p.Name, p.Detail, p.After, p.Took = cut(p.Name, mostName), cut(p.Detail, mostText), within(p.After), within(p.Took)
	}
	return in
}

// within bounds a duration that is reported.
func within(d trace.Millis) trace.Millis { return min(max(d, 0), trace.Millis(mostTook)) }

func cut(s string, most int) string { return strings.ToValidUTF8(s[:min(len(s), most)], "") }
