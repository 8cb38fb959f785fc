package remote

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"

	"keelson.dev/keelson/internal/trace"
)

// TestReport reports to a server that answers late: what there is no room for is lost and
// counted, and nothing that reports waits.
func TestReport(t *testing.T) {
	at := trace.NewContext()
	arrived, answer := make(chan Batch, 100), make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var b Batch
		if err := json.NewDecoder(r.Body).Decode(&b); err != nil || r.URL.Path != Path || r.Method != http.MethodPost {
			t.Errorf("%s %s: %v", r.Method, r.URL, err)
		}
		arrived <- b
		<-answer
		_ = json.NewEncoder(w).Encode(Answer{Taken: len(b.Steps), Traces: map[types.UID]trace.Context{"pod": at}})
	}))
	defer s.Close()
	client, err := rest.RESTClientFor(&rest.Config{Host: s.URL, ContentConfig: rest.ContentConfig{GroupVersion: &schema.GroupVersion{}, NegotiatedSerializer: scheme.Codecs.WithoutConversion()}})
	if err != nil {
		t.Fatal(err)
	}
	c := New(client, "kubelet", "node-1")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { c.Run(ctx); close(ended) }()
	defer func() { cancel(); <-ended }()
	report := c.Reporter()
	pod := &metav1.ObjectMeta{Namespace: "a", Name: "p", UID: "pod", ResourceVersion: "7"}
	report.Phase("pods", pod, trace.PhasePull, "image", time.Now().Add(-time.Second))
	first := <-arrived
	if len(first.Steps) != 1 || first.Steps[0].UID != "pod" || first.Steps[0].Node != "node-1" || time.Duration(first.Steps[0].Took) < time.Second {
		t.Fatalf("sent %+v", first)
	}
	const many = waiting + 100
	for range many {
		report.Phase("pods", pod, trace.PhaseStart, "", time.Now())
	}
	if lost := c.Lost(); lost != many-waiting {
		t.Errorf("%d steps are lost, want %d", lost, many-waiting)
	}
	close(answer)
	told := uint64(0)
	for got := 0; got < waiting; {
		b := <-arrived
		if told += b.Lost; b.Lost > 0 && time.Since(b.LostSince) > time.Minute {
			t.Errorf("lost since %v", b.LostSince)
		}
		if len(b.Steps) > MostSteps {
			t.Errorf("a batch of %d steps", len(b.Steps))
		}
		got += len(b.Steps)
	}
	if told != many-waiting {
		t.Errorf("the server is told of %d lost steps, want %d", told, many-waiting)
	}
	if got, ok := report.Of("pod"); !ok || got != at {
		t.Errorf("the pod's place in a trace is %v, want %v", got, at)
	}
	if got, ok := trace.ContextOf(report.Within(ctx, "pod")); !ok || got != at {
		t.Errorf("the pod's calls are in the trace %v, want %v", got, at)
	}
}
