package tracing

import (
	"bytes"
	"encoding/json"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"keelson.dev/keelson/internal/api/catalogue"
	"keelson.dev/keelson/internal/store"
	"keelson.dev/keelson/internal/store/embedded"
	"keelson.dev/keelson/internal/trace"
	"keelson.dev/keelson/internal/trace/remote"
	"keelson.dev/keelson/internal/trace/timeline"
)

// TestReports sends phases as nodes, as the scheduler and as others, among them some of
// which the sender may not tell.
func TestReports(t *testing.T) {
	st, err := embedded.Open(embedded.Options{Codec: store.NewCodec(catalogue.Scheme)})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	cat := catalogue.New(catalogue.Builtin())
	node := "node-1"
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "p", UID: "pod"}, Spec: v1.PodSpec{NodeName: node}}
	slice := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "s", UID: "slice"}, Endpoints: []discoveryv1.Endpoint{{NodeName: &node}}}
	if _, err := st.Create(t.Context(), cat.Must("", "v1", "pods").Key("a", "p"), pod, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := st.Create(t.Context(), cat.Must("discovery.k8s.io", "v1", "endpointslices").Key("a", "s"), slice, 0); err != nil {
		t.Fatal(err)
	}
	r := &Reports{Trace: trace.NewRecorder(trace.DefaultLimit), Store: st, Catalogue: cat}
	r.Trace.Add(trace.Step{Time: time.Now(), Verb: "create", Resource: "pods", Namespace: "a", Name: "p", UID: "pod", ResourceVersion: "1"})
	send := func(by user.Info, batch any) (int, remote.Answer) {
		t.Helper()
		body, err := json.Marshal(batch)
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		r.ServeHTTP(w, httptest.NewRequestWithContext(request.WithUser(t.Context(), by), http.MethodPost, remote.Path, bytes.NewReader(body)))
		var a remote.Answer
		if w.Code == http.StatusOK {
			if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
				t.Fatal(err)
			}
		}
		return w.Code, a
	}
	kubelet := func(name string) user.Info {
		return &user.DefaultInfo{Name: "system:node:" + name, Groups: []string{user.NodesGroup}}
	}
	scheduler := &user.DefaultInfo{Name: user.KubeScheduler}
	pull := trace.Step{Resource: "pods", Namespace: "a", Name: "p", UID: "pod", Phase: trace.PhasePull, Actor: "admin", Node: "node-2", Verb: "delete", What: "x", CauseUID: "z",
		Detail: strings.Repeat("é", 2000), ResourceVersion: "99999999", Took: trace.Millis(300 * time.Millisecond), Parts: []trace.Part{{Name: "pulling", After: -1, Took: trace.Millis(1000 * time.Hour)}}}
	with := func(f func(s *trace.Step)) trace.Step { s := pull; f(&s); return s }
	for _, c := range []struct {
		name string
		by   user.Info
		step trace.Step
		code int
		want int
	}{
		{"the pod's node", kubelet("node-1"), pull, 200, 1},
		{"another node", kubelet("node-2"), pull, 200, 0},
		{"another pod of that name", kubelet("node-1"), with(func(s *trace.Step) { s.UID = "other" }), 200, 0},
		{"a pod that is not there", kubelet("node-1"), with(func(s *trace.Step) { s.Name = "q" }), 200, 0},
		{"a name that is a path", kubelet("node-1"), with(func(s *trace.Step) { s.Namespace, s.Name = "a/../a", "p" }), 200, 0},
		{"the scheduler's phase", kubelet("node-1"), with(func(s *trace.Step) { s.Phase = trace.PhaseSchedule }), 200, 0},
		{"a write", kubelet("node-1"), with(func(s *trace.Step) { s.Phase = "" }), 200, 0},
		{"another resource", kubelet("node-1"), with(func(s *trace.Step) { s.Resource = "deployments.apps" }), 200, 0},
		{"rules for a slice of the node", kubelet("node-1"), trace.Step{Resource: "endpointslices.discovery.k8s.io", Namespace: "a", Name: "s", UID: "slice", Phase: trace.PhaseRules}, 200, 1},
		{"rules for a slice of others", kubelet("node-2"), trace.Step{Resource: "endpointslices.discovery.k8s.io", Namespace: "a", Name: "s", UID: "slice", Phase: trace.PhaseRules}, 200, 0},
		{"the scheduler", scheduler, with(func(s *trace.Step) { s.Phase = trace.PhaseSchedule }), 200, 1},
		{"the scheduler of a node's phase", scheduler, pull, 200, 0},
		{"a user", &user.DefaultInfo{Name: "jane", Groups: []string{"system:masters"}}, pull, 403, 0},
		{"a node's name without its group", &user.DefaultInfo{Name: "system:node:node-1"}, pull, 403, 0},
	} {
		code, a := send(c.by, remote.Batch{Now: time.Now(), Steps: []trace.Step{c.step}})
		if code != c.code || a.Taken != c.want {
			t.Errorf("%s: %d, %d taken, want %d and %d", c.name, code, a.Taken, c.code, c.want)
		}
		if c.name == "the pod's node" {
			s := r.Trace.Way("pod")[1]
			if s.Actor != "kubelet" || s.Node != "node-1" || s.Verb != "" || s.What != "" || s.CauseUID != "" || len(s.Detail) > mostText || s.ResourceVersion == "99999999" || s.Phase != trace.PhasePull ||
				s.Parts[0].After != 0 || s.Parts[0].Took != trace.Millis(mostTook) {
				t.Errorf("recorded %+v", s)
			}
			if at, ok := r.Trace.Of("pod"); !ok || a.Traces["pod"] != at || s.TraceID != at.TraceID {
				t.Errorf("the node is told of the trace %v, want %v", a.Traces, at)
			}
		}
	}
	// A clock that is an hour behind, and a node that floods.
	late := with(func(s *trace.Step) { s.Time = time.Now().Add(-time.Hour - time.Second) })
	if _, a := send(kubelet("node-1"), remote.Batch{Now: time.Now().Add(-time.Hour), Steps: []trace.Step{late}}); a.Taken != 1 {
		t.Error("the report with another clock is not taken")
	}
	way := r.Trace.Way("pod")
	if ago := time.Since(way[len(way)-1].Time); ago < time.Second || ago > 30*time.Second {
		t.Errorf("the step of a second ago is recorded as of %v ago", ago)
	}
	total, sent := 0, 0
	for range 4 * burst / remote.MostSteps {
		many := make([]trace.Step, remote.MostSteps)
		for i := range many {
			many[i] = trace.Step{Resource: "pods", Namespace: "a", Name: "p", UID: "pod", Phase: trace.PhasePull}
		}
		_, a := send(kubelet("node-1"), remote.Batch{Now: time.Now(), Steps: many})
		total += a.Taken
		sent += len(many)
	}
	if lost := r.Trace.Lost(trace.LostRate); lost != uint64(sent-total) {
		t.Errorf("%d steps are counted as too many, want %d", lost, sent-total)
	}
	// What the node says that it has lost is counted as far as that can be true.
	send(kubelet("node-1"), remote.Batch{Now: time.Now(), Lost: 7, LostSince: time.Now().Add(-time.Second)})
	send(kubelet("node-2"), remote.Batch{Now: time.Now(), Lost: math.MaxUint64})
	if lost := r.Trace.Lost(trace.LostReporting); lost != 7+mostLost {
		t.Errorf("%d steps are counted as lost by nodes, want %d", lost, 7+mostLost)
	}
	// Of the gaps a trace has those of its nodes.
	w := httptest.NewRecorder()
	(&Recorder{Trace: r.Trace, Store: st, Catalogue: cat}).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, Path+"?resource=pods&namespace=a&name=p", nil))
	var tl timeline.Timeline
	if err := json.Unmarshal(w.Body.Bytes(), &tl); err != nil {
		t.Fatal(err)
	}
	got := map[string]uint64{}
	for _, g := range tl.Missing {
		got[g.Node+": "+g.Why] += g.Steps
	}
	if want := map[string]uint64{"node-1: it reported more than 200 a second": uint64(sent - total), "node-1: it had no room for them, or could not send them": 7}; !maps.Equal(got, want) {
		t.Errorf("missing are %v, want %v", got, want)
	}
	if total < burst/2 || total > burst+10*perSecond {
		t.Errorf("%d steps of a flood are taken, want about %d", total, burst)
	}
	if code, _ := send(kubelet("node-1"), map[string]any{"steps": make([]struct{}, remote.MostSteps+1)}); code != http.StatusBadRequest {
		t.Errorf("a report of more steps than there may be: %d", code)
	}
	if code, _ := send(kubelet("node-1"), map[string]any{"steps": strings.Repeat("x", remote.MostBytes)}); code != http.StatusBadRequest {
		t.Errorf("a report that is too long: %d", code)
	}
}
