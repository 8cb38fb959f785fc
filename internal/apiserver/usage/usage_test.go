package usage

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	metricsv1 "k8s.io/metrics/pkg/apis/metrics/v1"
	testclock "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
)

func pod(node, name string, phase v1.PodPhase, annotations map[string]string) *v1.Pod {
	return &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID("uid-" + name), Labels: map[string]string{"app": "web"}, Annotations: annotations},
		Spec: v1.PodSpec{NodeName: node, Containers: []v1.Container{{Name: "a"}, {Name: "b"}}}, Status: v1.PodStatus{Phase: phase}}
}

// meter measures the nodes "sim", whose pods are simulated, and "real", whose agent
// is at url.
func meter(t *testing.T, at string, pods ...*v1.Pod) (*Meter, *testclock.FakePassiveClock) {
	t.Helper()
	nodes := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{})
	index := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	for _, n := range []string{"sim", "real"} {
		if err := nodes.Add(&v1.Node{ObjectMeta: metav1.ObjectMeta{Name: n, Labels: map[string]string{"kind": n}}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range pods {
		if err := index.Add(p); err != nil {
			t.Fatal(err)
		}
	}
	clk := testclock.NewFakePassiveClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	return New(Config{
		Nodes: corelisters.NewNodeLister(nodes), Pods: corelisters.NewPodLister(index),
		OfNode: func(_ context.Context, node string) (of []*v1.Pod, _ error) {
			for _, p := range pods {
				if p.Spec.NodeName == node {
					of = append(of, p)
				}
			}
			return of, nil
		},
		Agent: func(context.Context, *v1.Node) (*url.URL, http.RoundTripper, error) {
			u, err := url.Parse(at)
			return u, http.DefaultTransport, err
		},
		Simulated: func(n *v1.Node) bool { return n.Name == "sim" },
		Clock:     clk,
	}), clk
}

// use returns containers and their usage, in order.
func use(o runtime.Object) (out []string) {
	for _, c := range o.(*metricsv1.PodMetrics).Containers {
		out = append(out, c.Name+" "+c.Usage.Cpu().String()+" "+c.Usage.Memory().String())
	}
	return out
}

func TestSimulated(t *testing.T) {
	loaded := pod("sim", "loaded", v1.PodRunning, map[string]string{AnnotationCPU: "250m", AnnotationMemory: "64Mi", AnnotationCPU + ".b": "2"})
	wrong := pod("sim", "wrong", v1.PodRunning, map[string]string{AnnotationCPU: "-1", AnnotationMemory: "much"})
	m, _ := meter(t, "", loaded, wrong, pod("sim", "waiting", v1.PodPending, map[string]string{AnnotationCPU: "1"}))
	all, err := Pods{m}.List(t.Context(), "ns", labels.Everything())
	if err != nil || len(all) != 2 {
		t.Fatalf("%d pods, %v", len(all), err)
	}
	for name, want := range map[string][]string{"loaded": {"a 250m 64Mi", "b 2 64Mi"}, "wrong": {"a 0 0", "b 0 0"}} {
		o, err := Pods{m}.Get(t.Context(), "ns", name)
		if err != nil || o == nil || !slices.Equal(use(o), want) {
			t.Errorf("%s: %v, %v, want %v", name, o, err, want)
		}
	}
	if o, err := (Pods{m}).Get(t.Context(), "ns", "waiting"); err != nil || o != nil {
		t.Errorf("a pod that does not run: %v, %v", o, err)
	}
	o, err := Nodes{m}.Get(t.Context(), "", "sim")
	if err != nil {
		t.Fatal(err)
	}
	n := o.(*metricsv1.NodeMetrics)
	if n.Usage.Cpu().String() != "2250m" || n.Usage.Memory().String() != "128Mi" || n.Labels["kind"] != "sim" {
		t.Errorf("the node: %v", n)
	}
}

func stats(cores uint64) *statsapi.Summary {
	at := metav1.NewTime(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	cpu := func(n uint64) *statsapi.CPUStats { return &statsapi.CPUStats{Time: at, UsageNanoCores: &n} }
	mem := &statsapi.MemoryStats{Time: at, WorkingSetBytes: ptr.To[uint64](1 << 20)}
	return &statsapi.Summary{Node: statsapi.NodeStats{NodeName: "real", CPU: cpu(cores), Memory: mem}, Pods: []statsapi.PodStats{
		{PodRef: statsapi.PodReference{Namespace: "ns", Name: "p", UID: "uid-p"}, Containers: []statsapi.ContainerStats{{Name: "a", CPU: cpu(5e8), Memory: mem}}},
		{PodRef: statsapi.PodReference{Namespace: "ns", Name: "again", UID: "uid-of-an-earlier-one"}, Containers: []statsapi.ContainerStats{{Name: "a", CPU: cpu(5e8), Memory: mem}}},
		{PodRef: statsapi.PodReference{Namespace: "ns", Name: "static", UID: "of-the-file"}, Containers: []statsapi.ContainerStats{{Name: "a", CPU: cpu(1e9), Memory: mem}}},
		{PodRef: statsapi.PodReference{Namespace: "ns", Name: "new", UID: "uid-new"}, Containers: []statsapi.ContainerStats{{Name: "a", CPU: &statsapi.CPUStats{Time: at}, Memory: mem}}},
	}}
}

func pods() []*v1.Pod {
	return []*v1.Pod{pod("real", "p", v1.PodRunning, nil), pod("real", "again", v1.PodRunning, nil), pod("real", "new", v1.PodRunning, nil),
		pod("real", "static", v1.PodRunning, map[string]string{v1.MirrorPodAnnotationKey: "x"}), pod("gone", "lost", v1.PodRunning, nil)}
}

func names(all []runtime.Object) (out []string) {
	for _, o := range all {
		out = append(out, o.(*metricsv1.PodMetrics).Name)
	}
	slices.Sort(out)
	return out
}

// TestAgent checks that an agent is asked once in a while, and only for what it
// knows well.
func TestAgent(t *testing.T) {
	m, clk := meter(t, "", pods()...)
	asked := uint64(0)
	var fail error
	m.Local("real", func(context.Context) (*statsapi.Summary, error) {
		if asked++; fail != nil {
			return nil, fail
		}
		return stats(asked * 1e9), nil
	})
	all, err := Pods{m}.List(t.Context(), "", labels.Everything())
	if err != nil || !slices.Equal(names(all), []string{"p", "static"}) {
		t.Errorf("measured: %v, %v", names(all), err)
	}
	if got := use(all[0]); !slices.Equal(got, []string{"a 500m 1Mi"}) && !slices.Equal(got, []string{"a 1 1Mi"}) {
		t.Errorf("usage %v", got)
	}
	for after, want := range map[time.Duration]string{0: "1", resolution - time.Second: "1"} {
		clk.SetTime(clk.Now().Add(after))
		o, err := Nodes{m}.Get(t.Context(), "", "real")
		if err != nil || o.(*metricsv1.NodeMetrics).Usage.Cpu().String() != want {
			t.Errorf("after %s: %v, %v", after, o, err)
		}
	}
	clk.SetTime(clk.Now().Add(time.Minute))
	if o, err := (Nodes{m}).Get(t.Context(), "", "real"); err != nil || o.(*metricsv1.NodeMetrics).Usage.Cpu().String() != "2" {
		t.Errorf("a minute later: %v, %v", o, err)
	}
	clk.SetTime(clk.Now().Add(time.Minute))
	fail = errors.New("the runtime is gone")
	if o, err := (Nodes{m}).Get(t.Context(), "", "real"); err != nil || o != nil {
		t.Errorf("of an agent that fails: %v, %v", o, err)
	}
	if all, err := (Nodes{m}).List(t.Context(), "", labels.Everything()); err != nil || len(all) != 1 {
		t.Errorf("%d nodes are measured, %v", len(all), err)
	}
}

func TestRemote(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.String() != "/stats/summary?only_cpu_and_memory=true" {
			http.Error(w, r.URL.String(), http.StatusNotFound)
			return
		}
		_, _ = w.Write([]byte(`{"node":{"nodeName":"real","cpu":{"time":"2026-01-01T00:00:00Z","usageNanoCores":1500000},"memory":{"workingSetBytes":4096}},"pods":[]}`))
	}))
	defer s.Close()
	m, _ := meter(t, s.URL)
	o, err := Nodes{m}.Get(t.Context(), "", "real")
	if err != nil || o == nil {
		t.Fatal(o, err)
	}
	if n := o.(*metricsv1.NodeMetrics); n.Usage.Cpu().String() != "1500u" || n.Usage.Memory().String() != "4Ki" {
		t.Errorf("usage %v", n.Usage)
	}
}
