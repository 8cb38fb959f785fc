package replicaset

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	apps "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/controllers/controllertest"
)

var ctx = context.Background()

func template() v1.PodTemplateSpec {
	return v1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}},
		Spec:       v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "i"}}},
	}
}

func newSet(n int32) *apps.ReplicaSet {
	return &apps.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web"},
		Spec: apps.ReplicaSetSpec{Replicas: &n, Template: template(),
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}},
	}
}

type suite struct {
	*controllertest.Cluster
	t *testing.T
}

func (s suite) create(rs *apps.ReplicaSet) {
	s.t.Helper()
	controllertest.Must[*apps.ReplicaSet](s.t)(s.Client.AppsV1().ReplicaSets("ns").Create(ctx, rs, metav1.CreateOptions{}))
	synctest.Wait()
}

func (s suite) get() *apps.ReplicaSet {
	s.t.Helper()
	synctest.Wait()
	return controllertest.Must[*apps.ReplicaSet](s.t)(s.Client.AppsV1().ReplicaSets("ns").Get(ctx, "web", metav1.GetOptions{}))
}

func (s suite) resize(n int32) {
	s.t.Helper()
	rs := s.get()
	rs.Spec.Replicas = &n
	controllertest.Must[*apps.ReplicaSet](s.t)(s.Client.AppsV1().ReplicaSets("ns").Update(ctx, rs, metav1.UpdateOptions{}))
	synctest.Wait()
}

func run(t *testing.T, f func(s suite)) {
	synctest.Test(t, func(t *testing.T) { f(suite{controllertest.New(t, New, NewReplicationController), t}) })
}

func TestScale(t *testing.T) {
	run(t, func(s suite) {
		s.create(newSet(3))
		pods := s.Pods("ns")
		if len(pods) != 3 {
			t.Fatalf("%d pods, want 3", len(pods))
		}
		for _, p := range pods {
			if ref := metav1.GetControllerOf(&p); ref == nil || ref.Kind != "ReplicaSet" || ref.Name != "web" || !*ref.BlockOwnerDeletion {
				t.Errorf("controller reference %v", ref)
			}
			if !strings.HasPrefix(p.Name, "web-") {
				t.Errorf("name %q", p.Name)
			}
			s.HasEvent("Normal SuccessfulCreate Created pod: " + p.Name)
		}
		s.RunPods("ns", nil)
		rs := s.get()
		want := apps.ReplicaSetStatus{Replicas: 3, FullyLabeledReplicas: 3, ReadyReplicas: 3, AvailableReplicas: 3,
			TerminatingReplicas: ptr.To[int32](0), ObservedGeneration: 1}
		if got := rs.Status; got.Replicas != want.Replicas || got.FullyLabeledReplicas != want.FullyLabeledReplicas ||
			got.ReadyReplicas != want.ReadyReplicas || got.AvailableReplicas != want.AvailableReplicas ||
			got.TerminatingReplicas == nil || *got.TerminatingReplicas != 0 || got.ObservedGeneration != 1 {
			t.Errorf("status %+v", got)
		}
		s.Events()
		s.GracefulPods()
		s.resize(1)
		rs = s.get()
		if rs.Status.Replicas != 1 || *rs.Status.TerminatingReplicas != 2 || rs.Status.ObservedGeneration != 2 {
			t.Errorf("status after scaling down %+v, terminating %d", rs.Status, *rs.Status.TerminatingReplicas)
		}
		n := 0
		for _, p := range s.Pods("ns") {
			if p.DeletionTimestamp != nil {
				n++
				s.HasEvent("Normal SuccessfulDelete Deleted pod: " + p.Name)
			}
		}
		if n != 2 {
			t.Errorf("%d pods deleted, want 2", n)
		}
		s.RunPods("ns", nil)
		if rs = s.get(); *rs.Status.TerminatingReplicas != 0 {
			t.Errorf("terminating %d after the pods went", *rs.Status.TerminatingReplicas)
		}
	})
}

func TestReplacesLostAndFailedPods(t *testing.T) {
	run(t, func(s suite) {
		s.create(newSet(2))
		s.RunPods("ns", nil)
		pods := s.Pods("ns")
		s.SetPhase(&pods[0], v1.PodFailed)
		if n := len(s.Pods("ns")); n != 3 {
			t.Errorf("%d pods after one failed, want 3 with the failed one", n)
		}
		if err := s.Client.CoreV1().Pods("ns").Delete(ctx, pods[1].Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if n := len(s.Pods("ns")); n != 3 {
			t.Errorf("%d pods after one was deleted, want 3", n)
		}
	})
}

func TestAdoptsAndReleases(t *testing.T) {
	run(t, func(s suite) {
		orphan := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "orphan", Labels: map[string]string{"app": "web"}}}
		controllertest.Must[*v1.Pod](t)(s.Client.CoreV1().Pods("ns").Create(ctx, orphan, metav1.CreateOptions{}))
		synctest.Wait()
		s.create(newSet(1))
		pods := s.Pods("ns")
		if len(pods) != 1 || metav1.GetControllerOf(&pods[0]) == nil {
			t.Fatalf("the orphan was not adopted: %v", pods)
		}
		p := pods[0]
		p.Labels = map[string]string{"app": "other"}
		controllertest.Must[*v1.Pod](t)(s.Client.CoreV1().Pods("ns").Update(ctx, &p, metav1.UpdateOptions{}))
		pods = s.Pods("ns")
		if len(pods) != 2 {
			t.Fatalf("%d pods, want the released one and another", len(pods))
		}
		for _, p := range pods {
			if owned := metav1.GetControllerOf(&p) != nil; owned == (p.Name == "orphan") {
				t.Errorf("pod %s owned: %v", p.Name, owned)
			}
		}
	})
}

func TestFailureCondition(t *testing.T) {
	run(t, func(s suite) {
		var refuse atomic.Bool
		refuse.Store(true)
		s.Client.PrependReactor("create", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
			return refuse.Load(), nil, errors.New("quota exceeded")
		})
		s.create(newSet(1))
		s.HasEvent("Warning FailedCreate Error creating: quota exceeded")
		rs := s.get()
		if len(rs.Status.Conditions) != 1 || rs.Status.Conditions[0].Type != apps.ReplicaSetReplicaFailure ||
			rs.Status.Conditions[0].Reason != "FailedCreate" || rs.Status.Conditions[0].Message != "quota exceeded" {
			t.Fatalf("conditions %v", rs.Status.Conditions)
		}
		refuse.Store(false)
		s.Advance(10 * time.Minute)
		if rs = s.get(); len(rs.Status.Conditions) != 0 || rs.Status.Replicas != 1 {
			t.Errorf("status after recovery %+v", rs.Status)
		}
	})
}

func TestMinReadySeconds(t *testing.T) {
	run(t, func(s suite) {
		rs := newSet(1)
		rs.Spec.MinReadySeconds = 30
		s.create(rs)
		s.RunPods("ns", nil)
		if got := s.get().Status; got.ReadyReplicas != 1 || got.AvailableReplicas != 0 {
			t.Errorf("at once: %+v", got)
		}
		s.Advance(31 * time.Second)
		if got := s.get().Status; got.AvailableReplicas != 1 {
			t.Errorf("after minReadySeconds: %+v", got)
		}
	})
}

func TestReplicationController(t *testing.T) {
	run(t, func(s suite) {
		tmpl := template()
		rc := &v1.ReplicationController{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "rc"},
			Spec: v1.ReplicationControllerSpec{Replicas: ptr.To[int32](2), Selector: map[string]string{"app": "web"}, Template: &tmpl}}
		controllertest.Must[*v1.ReplicationController](t)(s.Client.CoreV1().ReplicationControllers("ns").Create(ctx, rc, metav1.CreateOptions{}))
		s.RunPods("ns", nil)
		for _, p := range s.Pods("ns") {
			if ref := metav1.GetControllerOf(&p); ref == nil || ref.Kind != "ReplicationController" || ref.APIVersion != "v1" {
				t.Errorf("controller reference %v", ref)
			}
		}
		rc = controllertest.Must[*v1.ReplicationController](t)(s.Client.CoreV1().ReplicationControllers("ns").Get(ctx, "rc", metav1.GetOptions{}))
		if rc.Status.Replicas != 2 || rc.Status.ReadyReplicas != 2 || rc.Spec.Template == nil {
			t.Errorf("%+v", rc)
		}
	})
}

func TestRankForDeletion(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	pod := func(name string, f func(*v1.Pod)) *v1.Pod {
		p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(now.Add(-time.Hour))}}
		p.Spec.NodeName = "n"
		p.Status.Phase = v1.PodRunning
		p.Status.Conditions = []v1.PodCondition{{Type: v1.PodReady, Status: v1.ConditionTrue, LastTransitionTime: metav1.NewTime(now.Add(-time.Hour))}}
		f(p)
		return p
	}
	best := pod("best", func(*v1.Pod) {})
	for _, worse := range []*v1.Pod{
		pod("unassigned", func(p *v1.Pod) { p.Spec.NodeName = "" }),
		pod("pending", func(p *v1.Pod) { p.Status.Phase = v1.PodPending }),
		pod("unready", func(p *v1.Pod) { p.Status.Conditions = nil }),
		pod("cheap", func(p *v1.Pod) {
			p.Annotations = map[string]string{"controller.kubernetes.io/pod-deletion-cost": "-1"}
		}),
		pod("crowded", func(p *v1.Pod) { p.Spec.NodeName = "full" }),
		pod("young", func(p *v1.Pod) { p.Status.Conditions[0].LastTransitionTime = metav1.NewTime(now.Add(-time.Second)) }),
		pod("restarted", func(p *v1.Pod) { p.Status.ContainerStatuses = []v1.ContainerStatus{{RestartCount: 3}} }),
	} {
		pods := []*v1.Pod{best, worse}
		controllers.RankForDeletion(pods, map[string]int{"n": 1, "full": 3}, now)
		if pods[0] != worse {
			t.Errorf("%s is not chosen before the best", worse.Name)
		}
	}
}
