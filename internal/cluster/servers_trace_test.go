package cluster

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"keelson.dev/keelson/internal/trace"
	"keelson.dev/keelson/internal/trace/otlp"
	"keelson.dev/keelson/internal/trace/timeline"
	"keelson.dev/keelson/test/harness"
)

// TestTraceOfTwoServers makes a Deployment through a server whose controllers and scheduler
// stand by: each server tells the whole of its trace, and a collector that both send to gets
// it once.
func TestTraceOfTwoServers(t *testing.T) {
	r := &receiver{}
	collector := httptest.NewServer(r)
	defer collector.Close()
	_, servers, clients := pair(t, func(o *Options) { o.OTLP = otlp.Options{Endpoint: collector.URL, Sampling: 1} })
	// The first server's components lead, and so does its scheduler.
	harness.Eventually(t, "the first server's controllers to lead", func() bool {
		return holder(t, clients[0], "kube-controller-manager") != "" && holder(t, clients[0], "kube-scheduler") != ""
	})
	cfg, err := servers[1].RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	cfg.Wrap(trace.Propagate)
	parent := trace.NewContext()
	d, err := kubernetes.NewForConfigOrDie(cfg).AppsV1().Deployments("default").Create(trace.WithContext(t.Context(), parent), deployment("web", 2), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, "two available replicas", func() bool {
		got, err := clients[1].AppsV1().Deployments("default").Get(t.Context(), d.Name, metav1.GetOptions{})
		return err == nil && got.Status.AvailableReplicas == 2
	})
	// way returns what a server tells: of each step its span, and what it is.
	way := func(i int) map[trace.SpanID]string {
		data, err := clients[i].Discovery().RESTClient().Get().AbsPath(trace.Path).Param("group", "apps").Param("resource", "deployments").Param("namespace", "default").Param("name", "web").DoRaw(t.Context())
		var tl timeline.Timeline
		if err == nil {
			err = json.Unmarshal(data, &tl)
		}
		if err != nil {
			t.Fatal(err)
		}
		out := map[trace.SpanID]string{}
		for j := range tl.Steps {
			s := &tl.Steps[j]
			if s.TraceID != parent.TraceID {
				t.Errorf("server %d has %s %s %s of %s in the trace %s, want %s", i, s.Verb, s.Phase, s.Resource, s.Name, s.TraceID, parent.TraceID)
			}
			out[s.SpanID] = fmt.Sprint(s.Verb, s.Phase, " ", s.Resource, " ", s.Subresource, " ", s.Name, " ", s.ResourceVersion, " ", s.Actor, " ", s.CauseUID, " ", s.What)
		}
		return out
	}
	var ways [2]map[trace.SpanID]string
	defer func() {
		if t.Failed() {
			t.Log(ways)
		}
	}()
	harness.Eventually(t, "both servers to tell the same", func() bool {
		for i := range ways {
			ways[i] = way(i)
		}
		if len(ways[0]) != len(ways[1]) {
			return false
		}
		for span, what := range ways[0] {
			if ways[1][span] != what {
				return false
			}
		}
		return true
	})
	for _, want := range []string{"create deployments.apps", "create replicasets.apps", "create pods", "update pods binding", "schedule pods", "simulate pods"} {
		found := false
		for _, what := range ways[1] {
			found = found || strings.HasPrefix(what, want)
		}
		if !found {
			t.Errorf("no step %q", want)
		}
	}
	harness.Eventually(t, "all spans", func() bool {
		sent := map[trace.SpanID]bool{}
		for _, s := range r.in(parent.TraceID) {
			sent[trace.SpanID(s.SpanId)] = true
		}
		for span := range ways[1] {
			if !sent[span] {
				return false
			}
		}
		return true
	})
	ids := []string{}
	for _, s := range r.in(parent.TraceID) {
		ids = append(ids, string(s.SpanId))
	}
	slices.Sort(ids)
	if once := slices.Compact(slices.Clone(ids)); len(once) != len(ids) {
		t.Errorf("%d spans were sent, of which %d are different", len(ids), len(once))
	}
}
