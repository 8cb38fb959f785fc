package why

import (
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/apiserver/history"
	"keelson.dev/keelson/internal/trace"
	"keelson.dev/keelson/internal/trace/timeline"
)

// TestExplain explains a pod of a Deployment at different moments of its life.
func TestExplain(t *testing.T) {
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	at := func(ago time.Duration) metav1.Time { return metav1.NewTime(now.Add(-ago)) }
	change := func(revision int64, ago time.Duration, verb, sub, user, client, cause string) history.Change {
		return history.Change{Revision: revision, Time: now.Add(-ago), Verb: verb, Note: trace.Note{User: user, Client: client, Subresource: sub, Cause: cause}}
	}
	const controllers = "system:serviceaccount:kube-system:"
	changes := []*history.Object{
		{Group: "apps", Resource: "deployments", Namespace: "default", Name: "web", UID: "d", Changes: []history.Change{
			change(1, 10*time.Minute, "created", "", "jane", "kubectl/v1.37", ""), change(10, 3*time.Minute, "updated", "", "ann", "kubectl/v1.37", ""), change(20, 2*time.Minute, "updated", "scale", "joe", "kubectl/v1.37", "")}},
		{Group: "apps", Resource: "replicasets", Namespace: "default", Name: "web-1", UID: "r", Changes: []history.Change{
			change(2, 10*time.Minute, "created", "", controllers+"deployment-controller", "", "d@9"),
			change(21, 2*time.Minute, "updated", "", controllers+"deployment-controller", "", "d@20")}},
		{Resource: "pods", Namespace: "default", Name: "web-1-a", UID: "p", Changes: []history.Change{
			change(3, 10*time.Minute, "created", "", controllers+"replicaset-controller", "", "r@2"),
			change(4, 9*time.Minute, "updated", "binding", "system:kube-scheduler", "", "p@3"),
		}},
	}
	deleted := *changes[2]
	end := change(22, time.Minute, "updated", "", controllers+"replicaset-controller", "", "r@21")
	end.Ends = true
	deleted.Changes = append(deleted.Changes[:2:2], end, change(23, time.Minute, "deleted", "", "system:node:n", "", "p@22"))
	pod := func(f func(*v1.Pod)) *unstructured.Unstructured {
		p := &v1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web-1-a", UID: "p", CreationTimestamp: at(10 * time.Minute),
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web-1", UID: "r", Controller: ptr.To(true)}}},
			Spec: v1.PodSpec{NodeName: "n"}, Status: v1.PodStatus{Phase: v1.PodRunning, Conditions: []v1.PodCondition{{Type: v1.PodReady, Status: v1.ConditionTrue, LastTransitionTime: at(8 * time.Minute)}}}}
		f(p)
		m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(p)
		if err != nil {
			t.Fatal(err)
		}
		return &unstructured.Unstructured{Object: m}
	}
	const made = "pod/web-1-a was created 10m ago by replicaset-controller, because of replicaset/web-1, which was created by deployment-controller, because of deployment/web, which was created by jane with kubectl.\n" +
		"replicaset/web-1 controls it, and makes another in its place if it goes.\n"
	for _, c := range []struct {
		name  string
		facts Facts
		want  string
	}{
		{"it runs", Facts{Object: pod(func(*v1.Pod) {}), Changes: changes}, made + "It is on n: kube-scheduler put it there 9m ago.\nIt is Ready, since 8m."},
		{"the trace knows more", Facts{Object: pod(func(p *v1.Pod) { p.Status.Conditions = nil }), Changes: changes, Way: &timeline.Timeline{
			Steps: []trace.Step{{UID: "other", Phase: trace.PhaseSchedule, Detail: "another pod"}, {UID: "p", Phase: trace.PhaseSchedule, Detail: "n: 1 of 3 nodes fit, NodeAffinity rejects 2",
				Parts: []trace.Part{{Name: "waiting in the queue", Took: trace.Millis(120 * time.Millisecond)}}}},
			Waits: []timeline.Wait{{Object: "pod/web-1-a", For: "its readiness gate g", Who: "the controller that sets it"}, {Object: "pod/other", For: "x", Who: "y"}}}},
			made + "It is on n: kube-scheduler put it there 9m ago.\nThe scheduler found: n: 1 of 3 nodes fit, NodeAffinity rejects 2 (after 120ms in its queue).\n" +
				"It waits for its readiness gate g: it is for the controller that sets it."},
		{"it is not remembered", Facts{Object: pod(func(p *v1.Pod) { p.OwnerReferences = nil })}, "pod/web-1-a was created 10m ago; the history does not reach back to who did it.\nIt is on n.\nIt is Ready, since 8m."},
		{"it does not start", Facts{Changes: changes, Object: pod(func(p *v1.Pod) {
			p.Status.Phase = v1.PodPending
			p.Status.Conditions = []v1.PodCondition{{Type: v1.PodReady, Status: v1.ConditionFalse, Reason: "ContainersNotReady", Message: "containers with unready status: [c]"}}
			p.Status.ContainerStatuses = []v1.ContainerStatus{{Name: "c", RestartCount: 3, State: v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: "back-off 40s"}},
				LastTerminationState: v1.ContainerState{Terminated: &v1.ContainerStateTerminated{ExitCode: 137, Reason: "OOMKilled", FinishedAt: at(30 * time.Second)}}}}
		}), Events: []v1.Event{
			{Type: "Normal", Reason: "Pulled", LastTimestamp: at(time.Minute)},
			{Type: "Warning", Reason: "BackOff", Message: "Back-off restarting failed container", LastTimestamp: at(20 * time.Second)},
		}}, made + "It is on n: kube-scheduler put it there 9m ago.\nContainer c waits: CrashLoopBackOff: back-off 40s\n" +
			"Container c has restarted 3 times, last because it ended with exit code 137 (OOMKilled) 30s ago.\n" +
			"It is not Ready: ContainersNotReady: containers with unready status: [c]\nWarning 20s ago: BackOff: Back-off restarting failed container"},
		{"it finds no node", Facts{Object: pod(func(p *v1.Pod) {
			p.OwnerReferences, p.Spec.NodeName, p.Status.Phase = nil, "", v1.PodPending
			p.Status.Conditions = []v1.PodCondition{{Type: v1.PodScheduled, Status: v1.ConditionFalse, Reason: "Unschedulable", Message: "0/1 nodes are available: 1 Insufficient cpu."}}
		})}, "pod/web-1-a was created 10m ago; the history does not reach back to who did it.\nIt has no node: Unschedulable: 0/1 nodes are available: 1 Insufficient cpu."},
		{"it is gone", Facts{Gone: true, Object: pod(func(*v1.Pod) {}), Changes: []*history.Object{changes[0], changes[1], &deleted}},
			strings.SplitAfter(made, "\n")[0] + "It was on n: kube-scheduler put it there 9m ago.\n" +
				"It was deleted 60s ago by replicaset-controller, because of replicaset/web-1, which was updated by deployment-controller, because of deployment/web, which was scaled by joe with kubectl.\n" +
				"It does not exist any more."},
	} {
		c.facts.Now = now
		if got := strings.Join(Explain(c.facts), "\n"); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
	}
}
