package node_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/test/harness"
)

func (e *env) create(p *v1.Pod) {
	e.Helper()
	p.Spec.TerminationGracePeriodSeconds = ptr.To[int64](1)
	if _, err := e.client.CoreV1().Pods("default").Create(e.Context(), p, metav1.CreateOptions{}); err != nil {
		e.Fatal(err)
	}
}

// remove deletes the pod and waits for its end.
func (e *env) remove(name string) {
	e.Helper()
	if err := e.client.CoreV1().Pods("default").Delete(e.Context(), name, metav1.DeleteOptions{}); err != nil {
		e.Fatal(err)
	}
	harness.Eventually(e, "the end of pod "+name, func() bool {
		_, err := e.client.CoreV1().Pods("default").Get(e.Context(), name, metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
}

func web(name string) *v1.Pod {
	return &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "web", Image: image}}}}
}

// hostPort checks that the machine's port leads to the pod from the machine,
// from another pod and from the pod itself, until the pod has gone.
func (e *env) hostPort() {
	port := int32(harness.FreePort(e))
	p := web("hosted")
	p.Spec.Containers[0].Ports = []v1.ContainerPort{{ContainerPort: 80, HostPort: port}}
	e.create(p)
	p = e.pod("hosted", ready)
	if !e.answers(p) {
		e.Fatal("the pod does not answer")
	}
	for _, host := range []string{"127.0.0.1", p.Status.HostIP} {
		if got := e.get(fmt.Sprintf("http://%s/x", net.JoinHostPort(host, fmt.Sprint(port)))); got != "Hello from hosted\nGET /x\n" {
			e.Errorf("%s says %q", host, got)
		}
	}
	other := web("other")
	e.create(other)
	e.pod("other", ready)
	for _, from := range []string{"other", "hosted"} {
		if got := e.exec(from, "web", "", "/bin/demo", "get", fmt.Sprintf("http://%s:%d/y", p.Status.HostIP, port)); got != "Hello from hosted\nGET /y\n" {
			e.Errorf("in %s: %q", from, got)
		}
	}
	e.remove("other")
	// A pod that bypasses the scheduler is refused.
	second := web("second")
	second.Spec.NodeName = p.Spec.NodeName
	second.Spec.Containers[0].Ports = p.Spec.Containers[0].Ports
	e.create(second)
	second = e.pod("second", func(p *v1.Pod) bool { return p.Status.Phase == v1.PodFailed })
	if want := "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"; second.Status.Reason != "NodePorts" || second.Status.Message != want {
		e.Errorf("second: %s: %s", second.Status.Reason, second.Status.Message)
	}
	e.remove("second")
	e.remove("hosted")
	if r, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", port)); err == nil { //nolint:noctx // a test
		r.Body.Close()
		e.Error("the port is still mapped")
	}
}

// ephemeral checks that a debugging container sees the processes of its target.
func (e *env) ephemeral() {
	e.create(web("debugged"))
	p := e.pod("debugged", ready)
	add := func(name, target string, args ...string) {
		p.Spec.EphemeralContainers = append(p.Spec.EphemeralContainers, v1.EphemeralContainer{TargetContainerName: target,
			EphemeralContainerCommon: v1.EphemeralContainerCommon{Name: name, Image: image, Args: args}})
		got, err := e.client.CoreV1().Pods("default").UpdateEphemeralContainers(e.Context(), p.Name, p, metav1.UpdateOptions{})
		if err != nil {
			e.Fatal(err)
		}
		p = got
	}
	status := func(p *v1.Pod, name string) *v1.ContainerState {
		for i := range p.Status.EphemeralContainerStatuses {
			if s := &p.Status.EphemeralContainerStatuses[i]; s.Name == name {
				return &s.State
			}
		}
		return &v1.ContainerState{}
	}
	for name, target := range map[string]string{"alone": "", "beside": "web"} {
		add(name, target, "cat", "/proc/1/cmdline")
		p = e.pod("debugged", func(p *v1.Pod) bool {
			s := status(p, name).Terminated
			return s != nil && s.Reason == "Completed"
		})
		log, err := e.client.CoreV1().Pods("default").GetLogs("debugged", &v1.PodLogOptions{Container: name}).DoRaw(e.Context())
		if err != nil || strings.Contains(string(log), "cmdline") != (target == "") {
			e.Errorf("%s: process 1 is %q, %v", name, log, err)
		}
	}
	add("running", "", "sleep")
	p = e.pod("debugged", func(p *v1.Pod) bool { return status(p, "running").Running != nil })
	if got := e.exec("debugged", "running", "typed", "/bin/demo", "cat"); got != "typed" {
		e.Errorf("exec: %q", got)
	}
	if !ready(p) || p.Status.ContainerStatuses[0].RestartCount != 0 {
		e.Errorf("the pod suffers: %+v", p.Status)
	}
	e.remove("debugged")
}

// rotation checks that a log that has grown is rotated, and a client that
// follows it misses nothing.
func (e *env) rotation() {
	e.create(web("logging"))
	p := e.pod("logging", ready)
	if !e.answers(p) {
		e.Fatal("the pod does not answer")
	}
	ctx, cancel := context.WithTimeout(e.Context(), 2*time.Minute)
	defer cancel()
	follow, err := e.client.CoreV1().Pods("default").GetLogs("logging", &v1.PodLogOptions{Follow: true, TailLines: ptr.To[int64](0)}).Stream(ctx)
	if err != nil {
		e.Fatal(err)
	}
	defer follow.Close()
	seen := bufio.NewScanner(follow)
	request := 0
	get := func() {
		e.get(fmt.Sprintf("http://%s/%d", p.Status.PodIP, request))
		want := fmt.Sprintf("GET /%d from ", request)
		if !seen.Scan() || !strings.HasPrefix(seen.Text(), want) {
			e.Fatalf("the log says %q (%v), want %q", seen.Text(), seen.Err(), want)
		}
		request++
	}
	rotated := func() bool {
		found, err := filepath.Glob(filepath.Join(e.logs, "*", "web", "0.log.*"))
		if err != nil {
			e.Fatal(err)
		}
		return len(found) > 0
	}
	for written := 0; written <= maxLog; written += len("2026-01-01T00:00:00.000000000Z stdout F GET /") {
		get()
	}
	harness.Eventually(e, "the rotation of the log", rotated)
	// The log has the lines after the rotation, to the last one. The runtime
	// opens its new file a moment after the old one has got its other name.
	var log []byte
	harness.Eventually(e, "a line in the log after its rotation", func() bool {
		get()
		log, err = e.client.CoreV1().Pods("default").GetLogs("logging", &v1.PodLogOptions{}).DoRaw(e.Context())
		if err != nil {
			e.Fatal(err)
		}
		return len(log) > 0
	})
	left := strings.Split(strings.TrimSuffix(string(log), "\n"), "\n")
	first := request - len(left)
	for i, l := range left {
		if first < 1 || !strings.HasPrefix(l, fmt.Sprintf("GET /%d from ", first+i)) {
			e.Fatalf("the log after its rotation, with %d requests: %q", request, log)
		}
	}
	follow.Close()
	e.remove("logging")
}

// resize checks that resources change in place, or by a restart where the
// policy says so.
func (e *env) resize() {
	list := func(cpu, memory string) v1.ResourceList {
		return v1.ResourceList{v1.ResourceCPU: resource.MustParse(cpu), v1.ResourceMemory: resource.MustParse(memory)}
	}
	p := web("resized")
	p.Spec.Containers[0].Resources = v1.ResourceRequirements{Requests: list("20m", "32Mi"), Limits: list("200m", "64Mi")}
	p.Spec.Containers[0].ResizePolicy = []v1.ContainerResizePolicy{
		{ResourceName: v1.ResourceCPU, RestartPolicy: v1.RestartContainer}, {ResourceName: v1.ResourceMemory, RestartPolicy: v1.NotRequired}}
	e.create(p)
	p = e.pod("resized", ready)
	condition := func(p *v1.Pod, t v1.PodConditionType) *v1.PodCondition {
		for i := range p.Status.Conditions {
			if p.Status.Conditions[i].Type == t {
				return &p.Status.Conditions[i]
			}
		}
		return nil
	}
	resize := func(cpu, memory string) {
		p.Spec.Containers[0].Resources.Limits = list(cpu, memory)
		if _, err := e.client.CoreV1().Pods("default").UpdateResize(e.Context(), p.Name, p, metav1.UpdateOptions{}); err != nil {
			e.Fatal(err)
		}
	}
	given := func(cpu, memory string, restarts int32) {
		p = e.pod("resized", func(p *v1.Pod) bool {
			s := p.Status.ContainerStatuses[0]
			return s.Resources.Limits.Cpu().String() == cpu && s.Resources.Limits.Memory().String() == memory && s.RestartCount == restarts &&
				condition(p, v1.PodResizeInProgress) == nil && condition(p, v1.PodResizePending) == nil && ready(p)
		})
		want := resource.MustParse(memory)
		limit := strings.TrimSpace(e.exec("resized", "web", "", "/bin/demo", "cat", memoryLimit()))
		if limit != fmt.Sprint(want.Value()) {
			e.Errorf("the cgroup's limit is %s, want %s", limit, memory)
		}
	}
	resize("200m", "96Mi")
	given("200m", "96Mi", 0)
	resize("300m", "96Mi")
	given("300m", "96Mi", 1)
	p.Spec.Containers[0].Resources.Requests = list("500", "32Mi")
	resize("1000", "96Mi")
	p = e.pod("resized", func(p *v1.Pod) bool { return condition(p, v1.PodResizePending) != nil })
	if c := condition(p, v1.PodResizePending); c.Reason != v1.PodReasonInfeasible || !strings.HasPrefix(c.Message, "Node didn't have enough capacity: cpu, requested: 500000, capacity: ") {
		e.Errorf("condition: %+v", c)
	}
	p.Spec.Containers[0].Resources.Requests = list("20m", "32Mi")
	resize("300m", "96Mi")
	given("300m", "96Mi", 1)
	e.remove("resized")
}

// memoryLimit returns the file in which a container finds its limit.
func memoryLimit() string {
	if _, err := os.Stat("/sys/fs/cgroup/memory"); err == nil {
		return "/sys/fs/cgroup/memory/memory.limit_in_bytes"
	}
	return "/sys/fs/cgroup/memory.max"
}
