package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/grpc"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubeletconfig "k8s.io/kubelet/config/v1beta1"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/node/nodemetrics"
	"keelson.dev/keelson/internal/node/stats"
)

// agent has two pods and no runtime.
type agent struct {
	Agent
	metrics *nodemetrics.Metrics
}

func (a agent) Pods() []*v1.Pod {
	running := v1.PodStatus{Phase: v1.PodRunning, ContainerStatuses: []v1.ContainerStatus{{State: v1.ContainerState{Running: &v1.ContainerStateRunning{}}}}}
	return []*v1.Pod{
		{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Status: running},
		{ObjectMeta: metav1.ObjectMeta{Name: "b", Annotations: map[string]string{"kubernetes.io/config.source": "file"}}, Status: running},
		{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Status: v1.PodStatus{Phase: v1.PodFailed}},
	}
}

func (a agent) Metrics() *nodemetrics.Metrics { return a.metrics }
func (a agent) Stats() *stats.Provider {
	return stats.New(stats.Config{Runtime: none{}, Pods: a.Pods, Clock: clock.RealClock{}})
}

// Configuration has one setting to be found again.
func (a agent) Configuration() *kubeletconfig.KubeletConfiguration {
	return &kubeletconfig.KubeletConfiguration{MaxPods: 7}
}

func TestRoutes(t *testing.T) {
	h := (&server{a: agent{metrics: nodemetrics.New("n")}}).mux()
	call := func(method, path string) (int, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
		return w.Code, w.Body.String()
	}
	for _, c := range []struct {
		method, path string
		code         int
		want         string
	}{
		{"GET", "/healthz", 200, "ok"},
		{"GET", "/healthz/syncloop", 200, "ok"},
		{"GET", "/pods", 200, `"kind":"PodList"`},
		{"GET", "/pods/", 200, `"name":"b"`},
		{"GET", "/configz", 200, `"kubeletconfig":{`},
		{"GET", "/configz", 200, `"maxPods":7`},
		{"GET", "/metrics", 200, "kubernetes_build_info{"},
		{"GET", "/healthz", 200, "ok"},
		{"GET", "/healthz/ping", 200, "ok"},
		{"GET", "/metrics/slis", 200, `kubernetes_healthcheck{name="syncloop",type="healthz"} 1`},
		{"GET", "/metrics/slis", 200, `kubernetes_healthchecks_total{name="ping",status="success",type="healthz"} 3`},
		{"GET", "/metrics", 200, `kubelet_node_name{node="n"} 1`},
		{"GET", "/metrics", 200, `kubelet_http_requests_total{long_running="false",method="GET",path="configz",server_type="readwrite"} 2`},
		{"GET", "/metrics/probes", 200, ""},
		{"GET", "/metrics/resource", 200, "resource_scrape_error 1"},
		{"GET", "/metrics/cadvisor", 200, "container_scrape_error 1"},
		{"GET", "/stats/summary", 500, "no runtime"},
		{"GET", "/stats/summary?only_cpu_and_memory=maybe", 400, "neither true nor false"},
		{"PUT", "/debug/flags/v", 400, "failed set klog.logging.verbosity"},
		{"GET", "/debug/pprof/", 200, "goroutine"},
		{"GET", "/nothing", 404, ""},
		{"DELETE", "/pods", 405, ""},
		{"GET", "/run/ns/pod/c", 405, ""},
	} {
		if code, body := call(c.method, c.path); code != c.code || !strings.Contains(body, c.want) {
			t.Errorf("%s %s: %d, want %d with %q: %.300s", c.method, c.path, code, c.code, c.want, body)
		}
	}
	_, body := call(http.MethodGet, "/pods")
	var list v1.PodList
	if err := json.Unmarshal([]byte(body), &list); err != nil || len(list.Items) != 3 {
		t.Errorf("%d pods, %v", len(list.Items), err)
	}
}

// none is a runtime that does not answer.
type none struct{ stats.Runtime }

func (none) ListContainerStats(context.Context, *runtimeapi.ListContainerStatsRequest, ...grpc.CallOption) (*runtimeapi.ListContainerStatsResponse, error) {
	return nil, errors.New("no runtime")
}

// TestOff checks that parts of the server which are turned off say so.
func TestOff(t *testing.T) {
	for _, c := range []struct {
		o    Options
		path string
		want string
	}{
		{Options{NoDebugging: true}, "/logs/", "Debug endpoints are disabled."},
		{Options{NoDebugging: true}, "/exec/n/p/c", "Debug endpoints are disabled."},
		{Options{NoDebugging: true}, "/debug/pprof/", "Debug endpoints are disabled."},
		{Options{NoDebugging: true}, "/healthz", ""},
		{Options{NoSystemLogs: true}, "/logs/", "logs endpoint is disabled."},
		{Options{NoProfiling: true}, "/debug/pprof/cmdline", "profiling endpoint is disabled."},
		{Options{NoProfiling: true}, "/healthz/ping", ""},
	} {
		w := httptest.NewRecorder()
		(&server{agent{metrics: nodemetrics.New("n")}, c.o}).mux().ServeHTTP(w, httptest.NewRequest(http.MethodGet, c.path, nil))
		if (w.Code == http.StatusMethodNotAllowed) != (c.want != "") || c.want != "" && w.Body.String() != c.want+"\n" {
			t.Errorf("%+v: %s: %d %q, want %q", c.o, c.path, w.Code, w.Body, c.want)
		}
	}
}
