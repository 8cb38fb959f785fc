package sim

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
)

// TestPods checks that pods run, those of Jobs to their end.
func TestPods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		pod := func(name string, restart v1.RestartPolicy, owner ...metav1.OwnerReference) *v1.Pod {
			return &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, OwnerReferences: owner},
				Spec: v1.PodSpec{NodeName: "sim-0", RestartPolicy: restart, Containers: []v1.Container{{Name: "c", Image: "i"}}}, Status: v1.PodStatus{Phase: v1.PodPending}}
		}
		job := metav1.OwnerReference{APIVersion: batchv1.SchemeGroupVersion.String(), Kind: "Job", Name: "j", Controller: ptr.To(true)}
		other := metav1.OwnerReference{APIVersion: "example.com/v1", Kind: "Job", Name: "j", Controller: ptr.To(true)}
		client := fake.NewClientset(pod("server", v1.RestartPolicyAlways), pod("once", v1.RestartPolicyNever), pod("job", v1.RestartPolicyNever, job),
			pod("again", v1.RestartPolicyOnFailure, job), pod("other", v1.RestartPolicyNever, other))
		f := informers.NewSharedInformerFactory(client, 0)
		n := New(Options{Client: client, Informers: f, Nodes: 1, Clock: clock.RealClock{}})
		run, stop := context.WithCancel(ctx)
		f.StartWithContext(run)
		done := make(chan struct{})
		go func() { defer close(done); n.Run(run) }()
		phases := func() map[string]v1.PodPhase {
			synctest.Wait()
			l, err := client.CoreV1().Pods("ns").List(ctx, metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			out := map[string]v1.PodPhase{}
			for _, p := range l.Items {
				out[p.Name] = p.Status.Phase
			}
			return out
		}
		time.Sleep(jobTime / 2)
		for name, got := range phases() {
			if got != v1.PodRunning {
				t.Errorf("%s is %s at first", name, got)
			}
		}
		time.Sleep(2 * jobTime)
		for name, got := range phases() {
			want := v1.PodRunning
			if name == "job" || name == "again" {
				want = v1.PodSucceeded
			}
			if got != want {
				t.Errorf("%s is %s, want %s", name, got, want)
			}
		}
		p, err := client.CoreV1().Pods("ns").Get(ctx, "job", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		c := p.Status.ContainerStatuses[0]
		if c.Ready || c.State.Terminated == nil || c.State.Terminated.ExitCode != 0 || c.State.Terminated.Reason != "Completed" || c.State.Running != nil {
			t.Errorf("the container of the Job's pod: %+v", c)
		}
		for _, cond := range p.Status.Conditions {
			if ready := cond.Type == v1.PodReady || cond.Type == v1.ContainersReady; ready && (cond.Status != v1.ConditionFalse || cond.Reason != "PodCompleted") {
				t.Errorf("condition %+v", cond)
			}
		}
		stop()
		<-done
		f.Shutdown()
	})
}

// TestDeletion checks that a deleted pod is removed, and that one with a
// finalizer has the phase Failed first, for its controller to see.
func TestDeletion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		now := metav1.Now()
		pod := func(name string, finalizers ...string) *v1.Pod {
			return &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, Finalizers: finalizers},
				Spec: v1.PodSpec{NodeName: "sim-0", Containers: []v1.Container{{Name: "c", Image: "i"}}}}
		}
		client := fake.NewClientset(pod("free"), pod("held", "example.com/hold"))
		f := informers.NewSharedInformerFactory(client, 0)
		n := New(Options{Client: client, Informers: f, Nodes: 1, Clock: clock.RealClock{}})
		run, stop := context.WithCancel(ctx)
		f.StartWithContext(run)
		done := make(chan struct{})
		go func() { defer close(done); n.Run(run) }()
		time.Sleep(time.Second)
		synctest.Wait()
		l, err := client.CoreV1().Pods("ns").List(ctx, metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range l.Items {
			p.DeletionTimestamp = &now
			if _, err := client.CoreV1().Pods("ns").Update(ctx, &p, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		synctest.Wait()
		ended := map[string]v1.PodPhase{}
		for _, a := range client.Actions() {
			if u, ok := a.(clienttesting.UpdateAction); ok && a.GetSubresource() == "status" {
				if p := u.GetObject().(*v1.Pod); !alive(p) {
					ended[p.Name] = p.Status.Phase
					if c := p.Status.ContainerStatuses[0].State.Terminated; c == nil || c.ExitCode != 137 {
						t.Errorf("the container of %s: %+v", p.Name, p.Status.ContainerStatuses[0].State)
					}
				}
			}
		}
		if len(ended) != 1 || ended["held"] != v1.PodFailed {
			t.Errorf("ended before they went: %v, want held to have failed", ended)
		}
		if l, err := client.CoreV1().Pods("ns").List(ctx, metav1.ListOptions{}); err != nil || len(l.Items) != 0 {
			t.Errorf("left: %v, %v", l.Items, err) // the fake client does not know finalizers
		}
		stop()
		<-done
		f.Shutdown()
	})
}
