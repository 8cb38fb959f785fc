// Package tracing records the writes of an API server for the trace, and serves what
// it has recorded. It may import packages apiserver, apiserver/history, api/catalogue, store and trace.
package tracing

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"

	"keelson.dev/keelson/internal/api/catalogue"
	"keelson.dev/keelson/internal/apiserver"
	"keelson.dev/keelson/internal/apiserver/history"
	"keelson.dev/keelson/internal/store"
	"keelson.dev/keelson/internal/trace"
	"keelson.dev/keelson/internal/trace/timeline"
)

// Recorder keeps what is written to Store in Trace. It collects the metrics of that.
type Recorder struct {
	Trace     *trace.Recorder
	Store     store.Store
	Catalogue *catalogue.Catalogue
	// Authorizer decides what a user sees of the trace; nil shows all.
	Authorizer authorizer.Authorizer
}

// Path is where an API server has the Recorder as a handler.
const Path = trace.Path

var _ apiserver.Tracer = (*Recorder)(nil)

var lostDesc = prometheus.NewDesc("keelson_trace_lost_steps_total", "Number of steps that did not come into the trace of this server, or into those of the other ones, by the reason.", []string{"reason"}, nil)

// Describe implements prometheus.Collector.
func (r *Recorder) Describe(ch chan<- *prometheus.Desc) { ch <- lostDesc }

// Collect implements prometheus.Collector.
func (r *Recorder) Collect(ch chan<- prometheus.Metric) {
	for _, reason := range trace.Reasons {
		ch <- prometheus.MustNewConstMetric(lostDesc, prometheus.CounterValue, float64(r.Trace.Lost(reason)), reason)
	}
}

// Traces implements apiserver.Tracer: Leases and Events say nothing about the way of an
// object.
func (r *Recorder) Traces(gr schema.GroupResource) bool {
	switch gr {
	case schema.GroupResource{Group: "coordination.k8s.io", Resource: "leases"}, schema.GroupResource{Resource: "events"}, schema.GroupResource{Group: "events.k8s.io", Resource: "events"}:
		return false
	}
	return true
}

// Place implements apiserver.Tracer.
func (r *Recorder) Place(ctx context.Context) (trace.Context, trace.SpanID) {
	return r.Trace.Place(ctx)
}

// Committed implements apiserver.Tracer.
func (r *Recorder) Committed(uid types.UID, version string, at trace.Context) {
	r.Trace.Committed(uid, version, at)
}

// Withdraw implements apiserver.Tracer.
func (r *Recorder) Withdraw(uid types.UID, at trace.Context) { r.Trace.Withdraw(uid, at) }

// Record implements apiserver.Tracer.
func (r *Recorder) Record(ctx context.Context, w apiserver.Write) {
	s := trace.Step{Time: w.Time, Verb: w.Verb, Subresource: w.Subresource, Resource: w.Resource.GroupVersionResource.GroupResource().String()}
	var acc metav1.Object
	if w.Refused != nil {
		if acc = r.refused(ctx, &s, w); acc == nil {
			return
		}
	} else {
		var err error
		if acc, err = meta.Accessor(w.Object); err != nil {
			return
		}
		s.Namespace, s.Name, s.UID, s.ResourceVersion, s.What = acc.GetNamespace(), acc.GetName(), acc.GetUID(), acc.GetResourceVersion(), what(w)
	}
	from(ctx, w, &s)
	about(&s, w, acc)
	r.Trace.Add(s)
}

// from fills in by whom a write is made, because of what, and how long that takes.
func from(ctx context.Context, w apiserver.Write, s *trace.Step) {
	if u, ok := request.UserFrom(ctx); ok {
		s.Actor = actor(u.GetName())
	}
	if t := w.Timing; t != nil {
		t.Fill(ctx, s)
	}
	if cause, ago, ok := trace.WokenBy(ctx); ok {
		s.CauseUID, s.CauseVersion, s.Woke = cause.UID, cause.ResourceVersion, trace.Millis(ago)
	} else {
		s.Client = trace.ShortClient(w.Client)
	}
}

// actor returns what a user is called in a step.
func actor(user string) string {
	return strings.TrimPrefix(user, "system:serviceaccount:kube-system:")
}

// about fills in which other objects a write concerns.
func about(s *trace.Step, w apiserver.Write, acc metav1.Object) {
	if w.Refused == nil {
		s.About = newEndpoints(w)
	}
	if ref := ownerOf(acc.GetOwnerReferences()); s.CauseUID == "" && ref != "" && w.Verb == "create" {
		s.CauseUID = ref
	}
}

// mostReason bounds why a write was refused, in bytes.
const mostReason = 300

// refused fills in a step that was refused, and returns the object that it was to change,
// an empty one if there is none; nil if it concerns nothing that is known.
func (r *Recorder) refused(ctx context.Context, s *trace.Step, w apiserver.Write) metav1.Object {
	reason := w.Refused.Error()
	s.Refused, s.Namespace, s.Name, s.What = true, w.Namespace, w.Name, "refused: "+cut(reason, mostReason)
	if gr := w.Resource.GroupVersionResource.GroupResource(); gr == (schema.GroupResource{Resource: "secrets"}) {
		s.What = "refused" // the reason may quote the secret
	}
	if w.Name != "" {
		if e, err := r.Store.Get(ctx, w.Resource.Key(w.Namespace, w.Name)); err == nil && e != nil {
			if acc, err := meta.Accessor(e.Object()); err == nil {
				s.UID, s.ResourceVersion = acc.GetUID(), acc.GetResourceVersion()
				return acc
			}
		}
	}
	cause, ok := trace.CauseFrom(ctx)
	if !ok {
		return nil
	}
	s.About = []types.UID{cause.UID}
	return &metav1.ObjectMeta{}
}

// Note returns trace.Note of a write, for the history of the store.
func Note(ctx context.Context, w apiserver.Write) string { return note(ctx, w).String() }

func note(ctx context.Context, w apiserver.Write) trace.Note {
	n := trace.Note{Client: w.Client, Subresource: w.Subresource}
	if u, ok := request.UserFrom(ctx); ok {
		n.User = u.GetName()
	}
	if c, ok := trace.CauseFrom(ctx); ok {
		n.Cause = c.String()
	}
	return n
}

// newEndpoints returns the pods that became ready endpoints by a write of an
// EndpointSlice, or ceased to be.
func newEndpoints(w apiserver.Write) []types.UID {
	now, ok := w.Object.(*discoveryv1.EndpointSlice)
	if !ok {
		return nil
	}
	old, _ := w.Old.(*discoveryv1.EndpointSlice)
	was := map[types.UID]bool{}
	if old != nil {
		for i := range old.Endpoints {
			if e := &old.Endpoints[i]; e.TargetRef != nil {
				was[e.TargetRef.UID] = served(e)
			}
		}
	}
	var out []types.UID
	for i := range now.Endpoints {
		e := &now.Endpoints[i]
		if e.TargetRef != nil && e.TargetRef.Kind == "Pod" && served(e) != was[e.TargetRef.UID] {
			out = append(out, e.TargetRef.UID)
		}
	}
	return out
}

// served reports whether an endpoint gets traffic.
func served(e *discoveryv1.Endpoint) bool {
	return e.Conditions.Ready == nil || *e.Conditions.Ready
}

// what describes a write of a pod in a few words.
func what(w apiserver.Write) string {
	p, ok := w.Object.(*v1.Pod)
	if !ok {
		return ""
	}
	old, _ := w.Old.(*v1.Pod)
	if w.Subresource == "binding" {
		return boundTo + p.Spec.NodeName
	}
	var out []string
	if old != nil && old.Status.Phase != p.Status.Phase {
		out = append(out, string(p.Status.Phase))
	}
	for i := range p.Status.ContainerStatuses {
		cs := &p.Status.ContainerStatuses[i]
		var was v1.ContainerStatus
		if old != nil {
			for j := range old.Status.ContainerStatuses {
				if old.Status.ContainerStatuses[j].Name == cs.Name {
					was = old.Status.ContainerStatuses[j]
				}
			}
		}
		switch {
		case cs.Ready && !was.Ready:
			out = append(out, "container "+cs.Name+" ready")
		case cs.State.Running != nil && was.State.Running == nil:
			out = append(out, "container "+cs.Name+" running")
		case cs.State.Terminated != nil && was.State.Terminated == nil:
			out = append(out, fmt.Sprintf("container %s ended with %d", cs.Name, cs.State.Terminated.ExitCode))
		}
	}
	return strings.Join(out, ", ")
}

// ServeHTTP answers with the steps on and because of the object ?resource=&group=&namespace=&name=,
// be it that it does not exist any more. The user must be allowed to get the object, and
// sees the steps that were made since he may get their objects.
func (r *Recorder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	q := req.URL.Query()
	gr := schema.GroupResource{Group: q.Get("group"), Resource: q.Get("resource")}
	namespace, name := q.Get("namespace"), q.Get("name")
	row := r.row(gr)
	if row == nil {
		http.Error(w, fmt.Sprintf("no such resource: %s", gr), http.StatusNotFound)
		return
	}
	if !row.Namespaced {
		namespace = ""
	}
	if !r.allowed(req.Context(), gr, namespace, name, "") {
		http.Error(w, fmt.Sprintf("%s %q: you may not get it, and so not its trace", gr, name), http.StatusForbidden)
		return
	}
	e, err := r.Store.Get(req.Context(), row.Key(namespace, name))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	var uid types.UID
	if e == nil {
		uid = r.Trace.Find(gr.String(), namespace, name)
	} else {
		if acc, err := meta.Accessor(e.Object()); err == nil {
			uid = acc.GetUID()
		}
	}
	var steps []trace.Step
	if uid != "" {
		steps = r.Trace.Way(uid)
	}
	v := &view{r: r, ctx: req.Context(), seen: map[[3]string]bool{}, known: map[types.UID]bool{uid: true}}
	steps = slices.DeleteFunc(steps, func(s trace.Step) bool { return !v.sees(&s) })
	if e == nil && len(steps) == 0 { // whatever is recorded is of before the user may get it
		uid = ""
	}
	if uid == "" {
		http.Error(w, fmt.Sprintf("%s %q not found, and nothing is recorded of one", gr, name), http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if q.Get("watch") != "true" {
		t := timeline.New(uid, steps)
		t.Waits = r.waits(req.Context(), steps)
		t.Missing = r.missing(steps)
		_ = json.NewEncoder(w).Encode(t)
		return
	}
	f := r.Trace.Follow()
	defer f.Close()
	r.follow(w, f, uid, v)
}

// late is how long after a way's last step another may have been made that is missing.
const late = 10 * time.Second

// missing returns the gaps of the record in which steps of a way may be: of the nodes that
// it has led to, the scheduler and other servers.
func (r *Recorder) missing(steps []trace.Step) []trace.Gap {
	if len(steps) == 0 {
		return nil
	}
	var way trace.Gap
	nodes := map[string]bool{"": true}
	for i := range steps {
		s := &steps[i]
		way.Cover(s.Began())
		way.Cover(s.Time)
		nodes[s.Node] = true
		for _, name := range []string{strings.TrimPrefix(s.What, boundTo), strings.TrimPrefix(s.Actor, "system:node:")} {
			nodes[name] = true
		}
	}
	return slices.DeleteFunc(r.Trace.Gaps(way.From, way.To.Add(late)), func(g trace.Gap) bool { return !nodes[g.Node] })
}

// boundTo begins what is said of a binding.
const boundTo = "bound to "

// settled is how long a follower waits for more steps before it sends those that there are.
const settled = 20 * time.Millisecond

// follow sends the steps on and because of an object, one a line, until the request ends.
func (r *Recorder) follow(w http.ResponseWriter, f *trace.Follower, uid types.UID, v *view) {
	flush := http.NewResponseController(w)
	enc := json.NewEncoder(w)
	for sent := uint64(0); ; {
		f.Skip()
		clear(v.seen) // rights may have been taken
		for _, s := range r.Trace.Way(uid) {
			if s.Seq() < sent {
				continue
			}
			sent = s.Seq() + 1
			if v.sees(&s) && enc.Encode(&s) != nil {
				return
			}
		}
		if flush.Flush() != nil {
			return
		}
		for related := false; !related; {
			select {
			case <-v.ctx.Done():
				return
			case <-f.Wake():
			}
			select {
			case <-v.ctx.Done():
				return
			case <-time.After(settled):
			}
			steps, lost := f.Read(1000)
			related = lost > 0
			for _, s := range steps {
				related = related || v.concerns(s)
			}
		}
	}
}

// view is what a user may see of the way of an object.
type view struct {
	r     *Recorder
	ctx   context.Context
	seen  map[[3]string]bool
	known map[types.UID]bool // the objects of the way
}

// sees reports whether the user may get the object of a step. What may be seen of an
// object's step, may of its later ones.
func (v *view) sees(s *trace.Step) bool {
	if s.UID != "" {
		v.known[s.UID] = true
	}
	key := [3]string{s.Resource, s.Namespace, s.Name}
	if !v.seen[key] {
		v.seen[key] = v.r.allowed(v.ctx, schema.ParseGroupResource(s.Resource), s.Namespace, s.Name, s.ResourceVersion)
	}
	return v.seen[key]
}

// concerns reports whether a step belongs to the way.
func (v *view) concerns(s *trace.Step) bool {
	return v.known[s.UID] || v.known[s.CauseUID] || slices.ContainsFunc(s.About, func(uid types.UID) bool { return v.known[uid] })
}

// allowed reports whether the user of a request may get an object of a version; "" is as
// it is now.
func (r *Recorder) allowed(ctx context.Context, gr schema.GroupResource, namespace, name, version string) bool {
	revision, err := strconv.ParseInt(cmp.Or(version, "0"), 10, 64)
	return err == nil && history.MayGet(ctx, r.Authorizer, gr.WithVersion("*"), namespace, name, revision)
}

func ownerOf(refs []metav1.OwnerReference) types.UID {
	for i := range refs {
		if refs[i].Controller != nil && *refs[i].Controller {
			return refs[i].UID
		}
	}
	return ""
}
