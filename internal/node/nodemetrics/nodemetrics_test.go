package nodemetrics

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
)

func TestOperation(t *testing.T) {
	for method, want := range map[string]string{
		"/runtime.v1.RuntimeService/RunPodSandbox": "run_podsandbox", "/runtime.v1.RuntimeService/CreateContainer": "create_container",
		"/runtime.v1.RuntimeService/UpdateContainerResources": "update_container", "/runtime.v1.ImageService/PullImage": "pull_image",
		"/runtime.v1.RuntimeService/ExecSync": "exec_sync", "/runtime.v1.RuntimeService/Status": "status", "/runtime.v1.RuntimeService/ListContainerStats": "list_container_stats",
	} {
		if got := operation(method); got != want {
			t.Errorf("%s: %s, want %s", method, got, want)
		}
	}
}

func TestMetrics(t *testing.T) {
	m := New("n")
	call := func(method string, err error) {
		_ = m.Calls()(context.Background(), method, nil, nil, nil, func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error { return err })
	}
	call("/runtime.v1.RuntimeService/RunPodSandbox", nil)
	call("/runtime.v1.RuntimeService/StartContainer", nil)
	call("/runtime.v1.RuntimeService/StartContainer", errors.New("no"))
	m.Evicted("memory.available")
	m.Probe("Readiness", "successful", "c", "p", "ns", "u", time.Second)
	m.Probe("Readiness", "failed", "c", "p2", "ns", "u2", time.Second)
	m.Forget("ns", "p2", "u2")
	for name, want := range map[string]string{
		"kubelet_runtime_operations_errors_total": `kubelet_runtime_operations_errors_total{operation_type="start_container"} 1`,
		"kubelet_started_pods_total":              `kubelet_started_pods_total 1`,
		"kubelet_started_containers_total":        `kubelet_started_containers_total{container_type="container"} 1`,
		"kubelet_evictions":                       `kubelet_evictions{eviction_signal="memory.available"} 1`,
		"kubelet_node_name":                       `kubelet_node_name{node="n"} 1`,
	} {
		if err := compare(m, name, want, false); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := compare(m, "prober_probe_total", `prober_probe_total{container="c",namespace="ns",pod="p",pod_uid="u",probe_type="Readiness",result="successful"} 1`, true); err != nil {
		t.Error(err)
	}
}

// compare reports whether a metric has just this one line.
func compare(m *Metrics, name, line string, probes bool) error {
	from := m.Registry
	if probes {
		from = m.Probes
	}
	families, err := from.Gather()
	if err != nil {
		return err
	}
	for _, f := range families {
		if f.GetName() == name {
			text := "# HELP " + name + " " + f.GetHelp() + "\n# TYPE " + name + " " + strings.ToLower(f.GetType().String()) + "\n" + line + "\n"
			return testutil.GatherAndCompare(from, strings.NewReader(text), name)
		}
	}
	return errors.New("there is no such metric")
}
