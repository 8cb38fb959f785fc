package deployment

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apps "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/controllers/controllertest"
	"keelson.dev/keelson/internal/controllers/replicaset"
)

var ctx = context.Background()

func newDeployment(n int32) *apps.Deployment {
	return &apps.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web", Annotations: map[string]string{"team": "a"}},
		Spec: apps.DeploymentSpec{
			Replicas: &n,
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
			Template: v1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}},
				Spec:       v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "one"}}},
			},
			Strategy: apps.DeploymentStrategy{Type: apps.RollingUpdateDeploymentStrategyType,
				RollingUpdate: &apps.RollingUpdateDeployment{MaxSurge: ptr.To(intstr.FromInt32(1)), MaxUnavailable: ptr.To(intstr.FromInt32(1))}},
			RevisionHistoryLimit:    ptr.To[int32](10),
			ProgressDeadlineSeconds: ptr.To[int32](600),
		},
	}
}

type suite struct {
	*controllertest.Cluster
	t *testing.T
}

func run(t *testing.T, f func(s suite)) {
	synctest.Test(t, func(t *testing.T) { f(suite{controllertest.New(t, New, replicaset.New), t}) })
}

func (s suite) create(d *apps.Deployment) {
	s.t.Helper()
	controllertest.Must[*apps.Deployment](s.t)(s.Client.AppsV1().Deployments("ns").Create(ctx, d, metav1.CreateOptions{}))
	synctest.Wait()
}

func (s suite) get() *apps.Deployment {
	s.t.Helper()
	synctest.Wait()
	return controllertest.Must[*apps.Deployment](s.t)(s.Client.AppsV1().Deployments("ns").Get(ctx, "web", metav1.GetOptions{}))
}

func (s suite) change(f func(*apps.Deployment)) {
	s.t.Helper()
	d := s.get()
	f(d)
	controllertest.Must[*apps.Deployment](s.t)(s.Client.AppsV1().Deployments("ns").Update(ctx, d, metav1.UpdateOptions{}))
	synctest.Wait()
	time.Sleep(time.Second)
	synctest.Wait()
}

func (s suite) image(i string) {
	s.t.Helper()
	s.change(func(d *apps.Deployment) { d.Spec.Template.Spec.Containers[0].Image = i })
}

// sets returns the ReplicaSets by image.
func (s suite) sets() map[string]apps.ReplicaSet {
	s.t.Helper()
	synctest.Wait()
	list := controllertest.Must[*apps.ReplicaSetList](s.t)(s.Client.AppsV1().ReplicaSets("ns").List(ctx, metav1.ListOptions{}))
	out := map[string]apps.ReplicaSet{}
	for _, rs := range list.Items {
		out[rs.Spec.Template.Spec.Containers[0].Image] = rs
	}
	if len(out) != len(list.Items) {
		s.t.Errorf("%d ReplicaSets for %d images", len(list.Items), len(out))
	}
	return out
}

func (s suite) condition(t apps.DeploymentConditionType) string {
	s.t.Helper()
	for _, c := range s.get().Status.Conditions {
		if c.Type == t {
			return fmt.Sprintf("%s %s %s", c.Status, c.Reason, c.Message)
		}
	}
	return ""
}

func TestCreateAndScale(t *testing.T) {
	run(t, func(s suite) {
		d := newDeployment(3)
		hash := controllers.TemplateHash(&d.Spec.Template, nil)
		s.create(d)
		rs, ok := s.sets()["one"]
		if !ok {
			t.Fatal("no ReplicaSet")
		}
		if rs.Name != "web-"+hash || rs.Labels["pod-template-hash"] != hash || rs.Spec.Selector.MatchLabels["pod-template-hash"] != hash ||
			rs.Spec.Template.Labels["pod-template-hash"] != hash {
			t.Errorf("hash %s is not on all of %+v", hash, rs)
		}
		for k, v := range map[string]string{revisionAnnotation: "1", desiredAnnotation: "3", maxAnnotation: "4", "team": "a"} {
			if rs.Annotations[k] != v {
				t.Errorf("annotation %s is %q, want %q", k, rs.Annotations[k], v)
			}
		}
		s.HasEvent("Normal ScalingReplicaSet Scaled up replica set " + rs.Name + " from 0 to 3")
		s.RunPods("ns", nil)
		d = s.get()
		if st := d.Status; st.Replicas != 3 || st.UpdatedReplicas != 3 || st.ReadyReplicas != 3 || st.AvailableReplicas != 3 ||
			st.UnavailableReplicas != 0 || st.ObservedGeneration != d.Generation || st.TerminatingReplicas == nil || *st.TerminatingReplicas != 0 {
			t.Errorf("status %+v", st)
		}
		if d.Annotations[revisionAnnotation] != "1" {
			t.Errorf("revision %q", d.Annotations[revisionAnnotation])
		}
		if got, want := s.condition(apps.DeploymentProgressing), fmt.Sprintf("True NewReplicaSetAvailable ReplicaSet %q has successfully progressed.", rs.Name); got != want {
			t.Errorf("progressing: %s, want %s", got, want)
		}
		if got := s.condition(apps.DeploymentAvailable); got != "True MinimumReplicasAvailable Deployment has minimum availability." {
			t.Errorf("available: %s", got)
		}
		s.change(func(d *apps.Deployment) { d.Spec.Replicas = ptr.To[int32](5) })
		s.HasEvent("Normal ScalingReplicaSet Scaled up replica set " + rs.Name + " from 3 to 5")
		s.RunPods("ns", nil)
		s.GracefulPods()
		s.change(func(d *apps.Deployment) { d.Spec.Replicas = ptr.To[int32](2) })
		s.HasEvent("Normal ScalingReplicaSet Scaled down replica set " + rs.Name + " from 5 to 2")
		if st := s.get().Status; st.TerminatingReplicas == nil || *st.TerminatingReplicas != 3 {
			t.Errorf("terminating replicas of %+v, want 3", st)
		}
		s.RunPods("ns", nil)
		if st := s.get().Status; st.Replicas != 2 || *st.TerminatingReplicas != 0 {
			t.Errorf("status %+v", st)
		}
	})
}

func TestRollingUpdateAndRollback(t *testing.T) {
	run(t, func(s suite) {
		s.GracefulPods()
		s.create(newDeployment(4))
		s.RunPods("ns", nil)
		bounds := func(pods []v1.Pod) {
			alive, ready := 0, 0
			for i := range pods {
				if controllers.PodActive(&pods[i]) {
					alive++
					if controllers.PodReady(&pods[i]) {
						ready++
					}
				}
			}
			if alive > 5 || ready < 3 {
				t.Errorf("%d pods, %d ready; want at most 5 and at least 3", alive, ready)
			}
		}
		s.image("two")
		bounds(s.Pods("ns"))
		s.RunPods("ns", bounds)
		sets := s.sets()
		one, two := sets["one"], sets["two"]
		if *one.Spec.Replicas != 0 || *two.Spec.Replicas != 4 || two.Annotations[revisionAnnotation] != "2" {
			t.Errorf("old has %d, new has %d at revision %s", *one.Spec.Replicas, *two.Spec.Replicas, two.Annotations[revisionAnnotation])
		}
		s.HasEvent("Normal ScalingReplicaSet Scaled up replica set " + two.Name + " from 0 to 1")
		s.HasEvent("Normal ScalingReplicaSet Scaled down replica set " + one.Name + " from 4 to 3")
		if rev := s.get().Annotations[revisionAnnotation]; rev != "2" {
			t.Errorf("the Deployment's revision is %s", rev)
		}
		s.image("one")
		s.RunPods("ns", bounds)
		one = s.sets()["one"]
		if *one.Spec.Replicas != 4 || one.Annotations[revisionAnnotation] != "3" || one.Annotations[historyAnnotation] != "1" {
			t.Errorf("after the rollback: %d replicas, annotations %v", *one.Spec.Replicas, one.Annotations)
		}
		if rev := s.get().Annotations[revisionAnnotation]; rev != "3" {
			t.Errorf("the Deployment's revision is %s", rev)
		}
	})
}

func TestRecreateWaitsForOldPods(t *testing.T) {
	run(t, func(s suite) {
		s.GracefulPods()
		d := newDeployment(2)
		d.Spec.Strategy = apps.DeploymentStrategy{Type: apps.RecreateDeploymentStrategyType}
		s.create(d)
		s.RunPods("ns", nil)
		s.image("two")
		if _, ok := s.sets()["two"]; ok {
			t.Error("the new ReplicaSet was made while old pods were terminating")
		}
		s.RunPods("ns", func(pods []v1.Pod) {
			images := map[string]bool{}
			for _, p := range pods {
				images[p.Spec.Containers[0].Image] = true
			}
			if len(images) > 1 {
				t.Errorf("pods of both revisions at once")
			}
		})
		if rs := s.sets()["two"]; rs.Status.AvailableReplicas != 2 {
			t.Errorf("new ReplicaSet %+v", rs.Status)
		}
	})
}

func TestPause(t *testing.T) {
	run(t, func(s suite) {
		s.create(newDeployment(2))
		s.RunPods("ns", nil)
		s.change(func(d *apps.Deployment) { d.Spec.Paused = true })
		if got := s.condition(apps.DeploymentProgressing); got != "Unknown DeploymentPaused Deployment is paused" {
			t.Errorf("progressing: %s", got)
		}
		s.image("two")
		if _, ok := s.sets()["two"]; ok {
			t.Error("a paused Deployment rolled out")
		}
		s.change(func(d *apps.Deployment) { d.Spec.Replicas = ptr.To[int32](3) })
		if rs := s.sets()["one"]; *rs.Spec.Replicas != 3 {
			t.Errorf("a paused Deployment did not scale: %d", *rs.Spec.Replicas)
		}
		s.change(func(d *apps.Deployment) { d.Spec.Paused = false })
		s.RunPods("ns", nil)
		if rs := s.sets()["two"]; rs.Status.AvailableReplicas != 3 {
			t.Errorf("after resuming: %+v", rs.Status)
		}
	})
}

func TestProgressDeadline(t *testing.T) {
	run(t, func(s suite) {
		s.create(newDeployment(1))
		s.Advance(605 * time.Second)
		want := fmt.Sprintf("False ProgressDeadlineExceeded ReplicaSet %q has timed out progressing.", s.sets()["one"].Name)
		if got := s.condition(apps.DeploymentProgressing); got != want {
			t.Errorf("progressing: %s, want %s", got, want)
		}
		if got := s.condition(apps.DeploymentAvailable); got != "True MinimumReplicasAvailable Deployment has minimum availability." &&
			!strings.HasPrefix(got, "False MinimumReplicasUnavailable") {
			t.Errorf("available: %s", got)
		}
		s.RunPods("ns", nil)
		if got := s.condition(apps.DeploymentProgressing); !strings.HasPrefix(got, "True NewReplicaSetAvailable") {
			t.Errorf("after all: %s", got)
		}
	})
}

func TestHistoryLimit(t *testing.T) {
	run(t, func(s suite) {
		d := newDeployment(1)
		d.Spec.RevisionHistoryLimit = ptr.To[int32](1)
		s.create(d)
		for _, i := range []string{"one", "two", "three", "four"} {
			s.image(i)
			s.RunPods("ns", nil)
			s.Advance(time.Second)
		}
		var left []string
		for i := range s.sets() {
			left = append(left, i)
		}
		slices.Sort(left)
		if !slices.Equal(left, []string{"four", "three"}) {
			t.Errorf("left are %v", left)
		}
	})
}

func TestHashCollision(t *testing.T) {
	run(t, func(s suite) {
		d := newDeployment(1)
		name := "web-" + controllers.TemplateHash(&d.Spec.Template, nil)
		other := &apps.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name},
			Spec: apps.ReplicaSetSpec{Replicas: ptr.To[int32](0), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"x": "y"}},
				Template: v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"x": "y"}},
					Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "other"}}}}}}
		controllertest.Must[*apps.ReplicaSet](t)(s.Client.AppsV1().ReplicaSets("ns").Create(ctx, other, metav1.CreateOptions{}))
		s.create(d)
		s.Advance(time.Second)
		if n := s.get().Status.CollisionCount; n == nil || *n != 1 {
			t.Errorf("collision count %v", n)
		}
		if rs, ok := s.sets()["one"]; !ok || rs.Name == name {
			t.Errorf("no ReplicaSet under another hash: %v", rs.Name)
		}
	})
}

func TestProportionalScaling(t *testing.T) {
	run(t, func(s suite) {
		d := newDeployment(10)
		d.Spec.Strategy.RollingUpdate.MaxSurge = ptr.To(intstr.FromInt32(3))
		d.Spec.Strategy.RollingUpdate.MaxUnavailable = ptr.To(intstr.FromInt32(2))
		s.create(d)
		s.RunPods("ns", nil)
		s.image("two")
		// The rollout stands at 8 + 5, since none of the new is ready.
		s.change(func(d *apps.Deployment) { d.Spec.Replicas = ptr.To[int32](15) })
		sets := s.sets()
		if one, two := *sets["one"].Spec.Replicas, *sets["two"].Spec.Replicas; one != 11 || two != 7 {
			t.Errorf("scaled to %d and %d, want 11 and 7", one, two)
		}
	})
}

func TestKeepHistoryIsBounded(t *testing.T) {
	rs := &apps.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{historyAnnotation: strings.Repeat("1,", 998) + "1"}}}
	for i := range 10 {
		keepHistory(rs, fmt.Sprint(100+i), "200")
	}
	h := rs.Annotations[historyAnnotation]
	if len(h) > maxHistory || !strings.HasSuffix(h, ",108,109") {
		t.Errorf("history of %d characters ends in %q", len(h), h[len(h)-8:])
	}
}

func TestResolveFenceposts(t *testing.T) {
	for _, c := range []struct {
		surge, unavailable string
		n                  int32
		wantS, wantU       int32
	}{
		{"25%", "25%", 10, 3, 2}, {"25%", "25%", 1, 1, 0}, {"0%", "0%", 5, 0, 1}, {"0%", "10%", 3, 0, 1},
	} {
		d := newDeployment(c.n)
		d.Spec.Strategy.RollingUpdate.MaxSurge = ptr.To(intstr.FromString(c.surge))
		d.Spec.Strategy.RollingUpdate.MaxUnavailable = ptr.To(intstr.FromString(c.unavailable))
		if s, u := fenceposts(d); s != c.wantS || u != c.wantU {
			t.Errorf("%s and %s of %d: %d and %d, want %d and %d", c.surge, c.unavailable, c.n, s, u, c.wantS, c.wantU)
		}
	}
}
