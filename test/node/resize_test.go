package node_test

import (
	"fmt"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	scheduling "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/test/harness"
)

// resizer changes what pods ask for.
type resizer struct{ *env }

// ask changes the requests of a pod's container: the CPU, in thousandths, and the limit of
// its memory.
func (r resizer) ask(name string, milliCPU int64, memory string) {
	r.Helper()
	p, err := r.client.CoreV1().Pods("default").Get(r.Context(), name, metav1.GetOptions{})
	if err != nil {
		r.Fatal(err)
	}
	p.Spec.Containers[0].Resources = r.resources(milliCPU, memory)
	if _, err := r.client.CoreV1().Pods("default").UpdateResize(r.Context(), name, p, metav1.UpdateOptions{}); err != nil {
		r.Fatal(err)
	}
}

func (resizer) resources(milliCPU int64, memory string) v1.ResourceRequirements {
	return v1.ResourceRequirements{Requests: v1.ResourceList{v1.ResourceCPU: *resource.NewMilliQuantity(milliCPU, resource.DecimalSI), v1.ResourceMemory: resource.MustParse("1Mi")},
		Limits: v1.ResourceList{v1.ResourceMemory: resource.MustParse(memory)}}
}

func (r resizer) start(name, class string, milliCPU int64) {
	r.Helper()
	p := sleeper(name)
	p.Spec.PriorityClassName = class
	p.Spec.Containers[0].Resources = r.resources(milliCPU, "64Mi")
	r.create(p)
	r.pod(name, ready)
}

// waits waits until the change of a pod is pending, or under way, with this reason, and a
// message that has all these parts.
func (r resizer) waits(name string, condition v1.PodConditionType, reason string, message ...string) {
	r.Helper()
	p := r.pod(name, func(p *v1.Pod) bool {
		c := conditionOf(p, condition)
		return c != nil && c.Status == v1.ConditionTrue && c.Reason == reason && c.ObservedGeneration == p.Generation
	})
	for _, part := range message {
		if c := conditionOf(p, condition); !strings.Contains(c.Message, part) {
			r.Errorf("%s: %s: %q, want %q", name, reason, c.Message, part)
		}
	}
}

// has waits until a pod has its CPU, and nothing of a change is left.
func (r resizer) has(name string, milliCPU int64) {
	r.Helper()
	r.pod(name, func(p *v1.Pod) bool {
		if len(p.Status.ContainerStatuses) == 0 || p.Status.ContainerStatuses[0].Resources == nil {
			return false
		}
		s := &p.Status.ContainerStatuses[0]
		return s.Resources.Requests.Cpu().MilliValue() == milliCPU && s.AllocatedResources.Cpu().MilliValue() == milliCPU && s.RestartCount == 0 &&
			conditionOf(p, v1.PodResizePending) == nil && conditionOf(p, v1.PodResizeInProgress) == nil
	})
}

func conditionOf(p *v1.Pod, t v1.PodConditionType) *v1.PodCondition {
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == t {
			return &p.Status.Conditions[i]
		}
	}
	return nil
}

// TestResizeTurns checks changes of pods' resources that the node cannot make now, or ever,
// and the order in which they are made when it can.
func TestResizeTurns(t *testing.T) {
	r := resizer{start(t)}
	node, err := r.client.CoreV1().Nodes().Get(t.Context(), "node", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	all := node.Status.Allocatable.Cpu().MilliValue()
	for name, value := range map[string]int32{"first": 1000, "last": -1000} {
		if _, err := r.client.SchedulingV1().PriorityClasses().Create(t.Context(), &scheduling.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Value: value,
			PreemptionPolicy: ptr.To(v1.PreemptNever)}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	r.start("low", "last", 100)
	r.start("middle", "", 100)
	r.start("high", "first", 100)
	r.start("filler", "", all-600) // 300 of the node's are left
	capacity := fmt.Sprintf("capacity: %d", all)

	// What the node can never have is infeasible, and no longer in the way when it is asked for no more.
	r.ask("low", all+1, "64Mi")
	r.waits("low", v1.PodResizePending, v1.PodReasonInfeasible, "Node didn't have enough capacity: cpu, requested: "+fmt.Sprint(all+1)+", "+capacity)
	r.ask("low", 200, "64Mi")
	r.has("low", 200)

	// 200 are left. The least important pod has waited for the longest.
	for _, name := range []string{"low", "middle", "high"} {
		r.ask(name, 600, "64Mi")
		r.waits(name, v1.PodResizePending, v1.PodReasonDeferred, "Node didn't have enough resource: cpu, requested: 600, ", capacity)
	}
	// 500 are what the pod of the highest priority lacks.
	r.ask("filler", all-900, "64Mi")
	r.has("filler", all-900)
	r.has("high", 600)
	for _, name := range []string{"middle", "low"} {
		r.waits(name, v1.PodResizePending, v1.PodReasonDeferred, "Node didn't have enough resource: cpu, requested: 600, ", capacity)
	}
	// A pod that wants less than before goes first.
	r.ask("low", 100, "64Mi")
	r.has("low", 100)
	r.ask("low", 600, "64Mi")
	r.waits("low", v1.PodResizePending, v1.PodReasonDeferred)
	// A pod that ends leaves room for the others.
	r.remove("high")
	r.has("middle", 600)
	r.remove("filler")
	r.has("low", 600)

	// A limit below what is in use is not set.
	r.ask("low", 600, "1Mi")
	r.waits("low", v1.PodResizeInProgress, v1.PodReasonError, "cannot decrease memory limits: [attempting to set pod memory limit (1048576) below current usage (",
		"), attempting to set container \"c\" memory limit (1048576) below current usage (")
	r.ask("low", 600, "48Mi")
	r.has("low", 600)
	if got := strings.TrimSpace(r.exec("low", "c", "", "/bin/demo", "cat", memoryLimit())); got != fmt.Sprint(48<<20) {
		t.Errorf("the cgroup's limit is %s", got)
	}

	harness.Succeeds(t, "the events", func() error {
		got, err := r.events("low")
		if err != nil {
			return err
		}
		for _, want := range []string{
			fmt.Sprintf(`Warning ResizeInfeasible Pod resize Infeasible: {"containers":[{"name":"c","resources":{"limits":{"memory":"64Mi"},"requests":{"cpu":"%dm","memory":"1Mi"}}}],"generation":`, all+1),
			`Warning ResizeDeferred Pod resize Deferred: {"containers":[{"name":"c","resources":{"limits":{"memory":"64Mi"},"requests":{"cpu":"600m","memory":"1Mi"}}}],"generation":`,
			`Normal ResizeStarted Pod resize started: {"containers":[{"name":"c","resources":{"limits":{"memory":"64Mi"},"requests":{"cpu":"600m","memory":"1Mi"}}}],"generation":`,
			`Normal ResizeCompleted Pod resize completed: {"containers":[{"name":"c","resources":{"limits":{"memory":"48Mi"},"requests":{"cpu":"600m","memory":"1Mi"}}}],"generation":`,
			`Warning ResizeError Pod resize error: {"containers":[{"name":"c","resources":{"limits":{"memory":"1Mi"},"requests":{"cpu":"600m","memory":"1Mi"}}}],"generation":`,
		} {
			found := false
			for _, g := range got {
				found = found || strings.HasPrefix(g, want)
			}
			if !found {
				return fmt.Errorf("no event %q of %q", want, got)
			}
		}
		return nil
	})
	metrics := r.raw("metrics")
	for _, want := range []string{`kubelet_pod_deferred_accepted_resizes_total{retry_trigger="pod_resized"} 1`, `kubelet_pod_deferred_accepted_resizes_total{retry_trigger="pods_removed"} 2`,
		`kubelet_pod_infeasible_resizes_total{reason_detail="insufficient_node_allocatable"} 1`, `kubelet_pod_pending_resizes{reason="deferred"} 0`, "kubelet_pod_in_progress_resizes 0"} {
		if !strings.Contains(metrics, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
	for _, name := range []string{"low", "middle"} {
		r.remove(name)
	}
}
