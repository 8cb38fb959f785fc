package server

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-base/metrics/legacyregistry"
	_ "k8s.io/component-base/metrics/prometheus/version" // kubernetes_build_info
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	kubeletconfig "k8s.io/kubelet/config/v1beta1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/node/cri"
)

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		klog.Background().V(2).Info("Writing an answer failed", "err", err)
	}
}

func (s *server) pods(w http.ResponseWriter, _ *http.Request) { writeJSON(w, podList(s.a.Pods())) }

func podList(pods []*v1.Pod) *v1.PodList {
	l := &v1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, Items: []v1.Pod{}}
	for _, p := range pods {
		l.Items = append(l.Items, *p)
	}
	return l
}

// runningPods lists what the runtime has, whatever the API says: the pods with a
// running container, of each no more than the names.
func (s *server) runningPods(w http.ResponseWriter, r *http.Request) {
	list, err := s.a.CRI().ListContainers(r.Context(), &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{
		State: &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING}}})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	byUID := map[string]*v1.Pod{}
	var pods []*v1.Pod
	for _, c := range list.Containers {
		uid := c.Labels[cri.PodUIDLabel]
		if uid == "" {
			continue
		}
		p := byUID[uid]
		if p == nil {
			p = &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: types.UID(uid), Name: c.Labels[cri.PodNameLabel], Namespace: c.Labels[cri.PodNamespaceLabel]}}
			byUID[uid], pods = p, append(pods, p)
		}
		p.Spec.Containers = append(p.Spec.Containers, v1.Container{Name: c.Labels[cri.ContainerNameLabel], Image: c.GetImage().GetImage()})
	}
	writeJSON(w, podList(pods))
}

func (s *server) configz(w http.ResponseWriter, _ *http.Request) {
	c := s.a.Configuration()
	c.EnableDebuggingHandlers, c.EnableProfilingHandler, c.EnableDebugFlagsHandler = ptr.To(!s.o.NoDebugging), ptr.To(!s.o.NoProfiling), ptr.To(!s.o.NoDebugFlags)
	c.EnableSystemLogHandler, c.EnableSystemLogQuery = ptr.To(!s.o.NoSystemLogs), ptr.To(s.o.SystemLogQuery)
	writeJSON(w, map[string]*kubeletconfig.KubeletConfiguration{"kubeletconfig": c})
}

func (s *server) summary(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		http.Error(w, fmt.Sprintf("parse form failed: %v", err), http.StatusBadRequest)
		return
	}
	var sum *statsapi.Summary
	var err error
	switch only := r.Form.Get("only_cpu_and_memory"); only {
	case "true":
		sum, err = s.a.Stats().CPUAndMemory(r.Context())
	case "", "false":
		sum, err = s.a.Stats().Summary(r.Context())
	default:
		http.Error(w, fmt.Sprintf("parse only_cpu_and_memory failed: %q is neither true nor false", only), http.StatusBadRequest)
		return
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	writeJSON(w, sum)
}

// serve shows metrics in the formats of Prometheus.
func serve(w http.ResponseWriter, r *http.Request, from prometheus.Gatherer) {
	promhttp.HandlerFor(from, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}).ServeHTTP(w, r)
}

// gathered has the metrics of these collectors.
func gathered(all ...prometheus.Collector) prometheus.Gatherer {
	r := prometheus.NewRegistry()
	r.MustRegister(all...)
	return r
}

func (s *server) metrics(w http.ResponseWriter, r *http.Request) {
	serve(w, r, prometheus.Gatherers{s.a.Metrics().Registry, gathered(s.a.Stats().Disks()), counted})
}

// counted has those of the process's metrics that a kubelet has, too.
var counted = prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
	all, err := legacyregistry.DefaultGatherer.Gather()
	return slices.DeleteFunc(all, func(f *dto.MetricFamily) bool {
		for _, of := range []string{"kubernetes_build_info", "kubernetes_feature_enabled", "registered_metrics_total", "disabled_metrics_total", "hidden_metrics_total",
			"running_managed_controllers", "rest_client_", "workqueue_"} {
			if strings.HasPrefix(f.GetName(), of) {
				return false
			}
		}
		return true
	}), err
})

func (s *server) resources(w http.ResponseWriter, r *http.Request) {
	serve(w, r, gathered(s.a.Stats().Resources()))
}

func (s *server) containers(w http.ResponseWriter, r *http.Request) {
	serve(w, r, gathered(s.a.Stats().Containers()))
}

func (s *server) slis(w http.ResponseWriter, r *http.Request) {
	serve(w, r, s.a.Metrics().SLIs)
}

func (s *server) probes(w http.ResponseWriter, r *http.Request) {
	serve(w, r, s.a.Metrics().Probes)
}

// run runs a command in a container to its end and answers with its output.
func (s *server) run(w http.ResponseWriter, r *http.Request) {
	id, ok := s.container(w, r)
	if !ok {
		return
	}
	resp, err := s.a.CRI().ExecSync(r.Context(), &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: strings.Fields(r.URL.Query().Get("cmd"))})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if resp.ExitCode != 0 {
		http.Error(w, fmt.Sprintf("command '%s' exited with %d: %s%s", r.URL.Query().Get("cmd"), resp.ExitCode, resp.Stdout, resp.Stderr), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	_, _ = w.Write(append(resp.Stdout, resp.Stderr...))
}

// verbosity sets the level of the log.
func (s *server) verbosity(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(io.LimitReader(r.Body, 100))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var l klog.Level
	if err := l.Set(string(b)); err != nil {
		http.Error(w, fmt.Sprintf("failed set klog.logging.verbosity %s: %v", b, err), http.StatusBadRequest)
		return
	}
	fmt.Fprintf(w, "successfully set klog.logging.verbosity to %s", b)
}
