package statefulset

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
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers/controllertest"
)

var ctx = context.Background()

func newSet(n int32) *apps.StatefulSet {
	app := map[string]string{"app": "web"}
	return &apps.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web"},
		Spec: apps.StatefulSetSpec{
			Replicas: &n, ServiceName: "svc", Selector: &metav1.LabelSelector{MatchLabels: app},
			Template: v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: app}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "one"}}}},
			UpdateStrategy: apps.StatefulSetUpdateStrategy{Type: apps.RollingUpdateStatefulSetStrategyType,
				RollingUpdate: &apps.RollingUpdateStatefulSetStrategy{Partition: ptr.To[int32](0)}},
			PodManagementPolicy: apps.OrderedReadyPodManagement, RevisionHistoryLimit: ptr.To[int32](10),
		},
	}
}

func withClaims(s *apps.StatefulSet, scaled, deleted apps.PersistentVolumeClaimRetentionPolicyType) *apps.StatefulSet {
	s.Spec.VolumeClaimTemplates = []v1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data", Labels: map[string]string{"own": "label"}}}}
	s.Spec.PersistentVolumeClaimRetentionPolicy = &apps.StatefulSetPersistentVolumeClaimRetentionPolicy{WhenScaled: scaled, WhenDeleted: deleted}
	return s
}

type suite struct {
	*controllertest.Cluster
	t *testing.T
}

func run(t *testing.T, f func(s suite)) {
	synctest.Test(t, func(t *testing.T) {
		s := suite{controllertest.New(t, New), t}
		s.GracefulPods()
		f(s)
	})
}

func (s suite) create(set *apps.StatefulSet) {
	s.t.Helper()
	controllertest.Must[*apps.StatefulSet](s.t)(s.Client.AppsV1().StatefulSets("ns").Create(ctx, set, metav1.CreateOptions{}))
	synctest.Wait()
}

func (s suite) get() *apps.StatefulSet {
	s.t.Helper()
	synctest.Wait()
	return controllertest.Must[*apps.StatefulSet](s.t)(s.Client.AppsV1().StatefulSets("ns").Get(ctx, "web", metav1.GetOptions{}))
}

func (s suite) change(f func(*apps.StatefulSet)) {
	s.t.Helper()
	set := s.get()
	f(set)
	controllertest.Must[*apps.StatefulSet](s.t)(s.Client.AppsV1().StatefulSets("ns").Update(ctx, set, metav1.UpdateOptions{}))
	synctest.Wait()
}

// pods returns the pods as "name image", with a "-" after those that are being
// deleted.
func (s suite) pods() string {
	s.t.Helper()
	var out []string
	for _, p := range s.Pods("ns") {
		line := p.Name + " " + p.Spec.Containers[0].Image
		if p.DeletionTimestamp != nil {
			line += "-"
		}
		out = append(out, line)
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

func (s suite) want(pods string) {
	s.t.Helper()
	if have := s.pods(); have != pods {
		s.t.Fatalf("pods are %q, want %q", have, pods)
	}
}

func (s suite) pod(name string) *v1.Pod {
	s.t.Helper()
	synctest.Wait()
	return controllertest.Must[*v1.Pod](s.t)(s.Client.CoreV1().Pods("ns").Get(ctx, name, metav1.GetOptions{}))
}

func (s suite) ready(name string, ok bool) { s.t.Helper(); s.SetReady(s.pod(name), ok) }

// end ends a pod that is being deleted.
func (s suite) end(name string) {
	s.t.Helper()
	if err := s.Client.CoreV1().Pods("ns").Delete(ctx, name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}); err != nil {
		s.t.Fatal(err)
	}
	synctest.Wait()
}

func TestOrder(t *testing.T) {
	run(t, func(s suite) {
		s.create(withClaims(newSet(3), apps.RetainPersistentVolumeClaimRetentionPolicyType, apps.RetainPersistentVolumeClaimRetentionPolicyType))
		s.want("web-0 one")
		s.HasEvent("Normal SuccessfulCreate create Claim data-web-0 Pod web-0 in StatefulSet web success")
		s.HasEvent("Normal SuccessfulCreate create Pod web-0 in StatefulSet web successful")
		p := s.pod("web-0")
		if p.Spec.Hostname != "web-0" || p.Spec.Subdomain != "svc" || p.Labels[apps.StatefulSetPodNameLabel] != "web-0" || p.Labels[apps.PodIndexLabel] != "0" ||
			p.Labels[apps.StatefulSetRevisionLabel] != s.get().Status.UpdateRevision || p.Spec.Volumes[0].PersistentVolumeClaim.ClaimName != "data-web-0" {
			t.Errorf("the first pod: %+v", p)
		}
		claim := controllertest.Must[*v1.PersistentVolumeClaim](t)(s.Client.CoreV1().PersistentVolumeClaims("ns").Get(ctx, "data-web-0", metav1.GetOptions{}))
		if claim.Labels["app"] != "web" || claim.Labels["own"] != "label" || len(claim.OwnerReferences) != 0 {
			t.Errorf("the first claim: %+v", claim)
		}
		s.ready("web-0", true)
		s.want("web-0 one, web-1 one")
		// An earlier pod that is not ready any more holds up the next.
		s.ready("web-0", false)
		s.ready("web-1", true)
		s.want("web-0 one, web-1 one")
		s.ready("web-0", true)
		s.want("web-0 one, web-1 one, web-2 one")
		s.ready("web-2", true)
		st := s.get().Status
		if st.Replicas != 3 || st.ReadyReplicas != 3 || st.AvailableReplicas != 3 || st.CurrentReplicas != 3 || st.UpdatedReplicas != 3 || st.ObservedGeneration != 1 {
			t.Errorf("status: %+v", st)
		}
		s.change(func(set *apps.StatefulSet) { set.Spec.Replicas = ptr.To[int32](1) })
		s.want("web-0 one, web-1 one, web-2 one-")
		s.ready("web-0", false) // a predecessor that is not ready holds up the end of the next
		s.end("web-2")
		s.want("web-0 one, web-1 one")
		s.ready("web-0", true)
		s.want("web-0 one, web-1 one-")
		s.end("web-1")
		s.change(func(set *apps.StatefulSet) { set.Spec.Replicas = ptr.To[int32](0) })
		s.end("web-0")
		s.want("")
		s.HasEvent("Normal SuccessfulDelete delete Pod web-0 in StatefulSet web successful")
		if n := len(controllertest.Must[*v1.PersistentVolumeClaimList](t)(s.Client.CoreV1().PersistentVolumeClaims("ns").List(ctx, metav1.ListOptions{})).Items); n != 3 {
			t.Errorf("%d claims, want 3", n)
		}
		if st := s.get().Status; st.Replicas != 0 || st.CurrentReplicas != 0 {
			t.Errorf("status: %+v", st)
		}
	})
}

func TestParallel(t *testing.T) {
	run(t, func(s suite) {
		set := newSet(3)
		set.Spec.PodManagementPolicy = apps.ParallelPodManagement
		set.Spec.Ordinals = &apps.StatefulSetOrdinals{Start: 5}
		s.create(set)
		s.want("web-5 one, web-6 one, web-7 one")
		s.change(func(set *apps.StatefulSet) { set.Spec.Replicas = ptr.To[int32](1) })
		s.want("web-5 one, web-6 one-, web-7 one-")
	})
}

func TestRollingUpdate(t *testing.T) {
	run(t, func(s suite) {
		s.create(newSet(3))
		s.RunPods("ns", nil)
		first := s.get().Status.CurrentRevision
		s.change(func(set *apps.StatefulSet) {
			set.Spec.UpdateStrategy.RollingUpdate.Partition = ptr.To[int32](2)
			set.Spec.Template.Spec.Containers[0].Image = "two"
		})
		s.want("web-0 one, web-1 one, web-2 one-")
		s.end("web-2")
		s.want("web-0 one, web-1 one, web-2 two")
		s.ready("web-2", true)
		st := s.get().Status
		if st.CurrentRevision != first || st.UpdateRevision == first || st.CurrentReplicas != 2 || st.UpdatedReplicas != 1 {
			t.Errorf("status of a canary: %+v", st)
		}
		// A pod below the partition comes back as it was.
		s.end("web-0")
		s.want("web-0 one, web-1 one, web-2 two")
		s.ready("web-0", true)
		s.change(func(set *apps.StatefulSet) { set.Spec.UpdateStrategy.RollingUpdate.Partition = ptr.To[int32](0) })
		s.RunPods("ns", func(pods []v1.Pod) {
			down := 3 - len(slices.DeleteFunc(pods, func(p v1.Pod) bool { return p.DeletionTimestamp != nil || !ready(&p) }))
			if down > 1 {
				t.Errorf("%d pods are down", down)
			}
		})
		s.want("web-0 two, web-1 two, web-2 two")
		st = s.get().Status
		if st.CurrentRevision != st.UpdateRevision || st.CurrentReplicas != 3 {
			t.Errorf("status at the end: %+v", st)
		}
		// Back again: the revision of old is the latest now.
		s.change(func(set *apps.StatefulSet) { set.Spec.Template.Spec.Containers[0].Image = "one" })
		s.RunPods("ns", nil)
		s.want("web-0 one, web-1 one, web-2 one")
		if now := s.get().Status.CurrentRevision; now != first {
			t.Errorf("after the rollback the revision is %s, want %s", now, first)
		}
		list := controllertest.Must[*apps.ControllerRevisionList](t)(s.Client.AppsV1().ControllerRevisions("ns").List(ctx, metav1.ListOptions{}))
		numbers := map[string]int64{}
		for _, r := range list.Items {
			numbers[r.Name] = r.Revision
		}
		if len(numbers) != 2 || numbers[first] != 3 {
			t.Errorf("revisions: %v", numbers)
		}
	})
}

func TestMaxUnavailable(t *testing.T) {
	run(t, func(s suite) {
		set := newSet(4)
		set.Spec.PodManagementPolicy = apps.ParallelPodManagement
		set.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable = ptr.To(intstr.FromString("50%"))
		s.create(set)
		s.RunPods("ns", nil)
		s.ready("web-0", false)
		s.change(func(set *apps.StatefulSet) { set.Spec.Template.Spec.Containers[0].Image = "two" })
		// web-0 is missed already, so one more may be.
		s.want("web-0 one-, web-1 one, web-2 one, web-3 one-")
		s.RunPods("ns", nil)
		s.want("web-0 two, web-1 two, web-2 two, web-3 two")
	})
}

func TestOnDelete(t *testing.T) {
	run(t, func(s suite) {
		set := newSet(2)
		set.Spec.UpdateStrategy = apps.StatefulSetUpdateStrategy{Type: apps.OnDeleteStatefulSetStrategyType}
		s.create(set)
		s.RunPods("ns", nil)
		s.change(func(set *apps.StatefulSet) { set.Spec.Template.Spec.Containers[0].Image = "two" })
		s.want("web-0 one, web-1 one")
		s.end("web-1")
		s.want("web-0 one, web-1 two")
	})
}

func TestMinReadySeconds(t *testing.T) {
	run(t, func(s suite) {
		set := newSet(2)
		set.Spec.MinReadySeconds = 60
		s.create(set)
		s.ready("web-0", true)
		s.want("web-0 one")
		if st := s.get().Status; st.ReadyReplicas != 1 || st.AvailableReplicas != 0 {
			t.Errorf("status: %+v", st)
		}
		s.Advance(time.Minute)
		s.want("web-0 one, web-1 one")
		if st := s.get().Status; st.AvailableReplicas != 1 {
			t.Errorf("status: %+v", st)
		}
	})
}

// TestEndedPods checks that a pod that ends is replaced, whether it failed or
// not.
func TestEndedPods(t *testing.T) {
	run(t, func(s suite) {
		s.create(newSet(1))
		for _, phase := range []v1.PodPhase{v1.PodFailed, v1.PodSucceeded} {
			before := s.pod("web-0").UID
			s.SetPhase(s.pod("web-0"), phase)
			s.want("web-0 one-")
			s.end("web-0")
			if p := s.pod("web-0"); p.UID == before || p.Status.Phase == phase {
				t.Errorf("after a pod that is %s: %+v", phase, p.Status)
			}
		}
	})
}

func TestRetention(t *testing.T) {
	const keep, drop = apps.RetainPersistentVolumeClaimRetentionPolicyType, apps.DeletePersistentVolumeClaimRetentionPolicyType
	other := metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: "x", UID: "x"}
	boss := other
	boss.Controller = ptr.To(true)
	for _, c := range []struct {
		scaled, deleted apps.PersistentVolumeClaimRetentionPolicyType
		ordinal         int
		had             []metav1.OwnerReference
		want            string
		conflict        bool
	}{
		{scaled: keep, deleted: keep, ordinal: 0},
		{scaled: keep, deleted: keep, ordinal: 9},
		{scaled: keep, deleted: drop, ordinal: 0, want: "StatefulSet/web"},
		{scaled: keep, deleted: drop, ordinal: 9, want: "StatefulSet/web"},
		{scaled: drop, deleted: keep, ordinal: 0},
		{scaled: drop, deleted: keep, ordinal: 9, want: "Pod/web-9"},
		{scaled: drop, deleted: drop, ordinal: 0, want: "StatefulSet/web"},
		{scaled: drop, deleted: drop, ordinal: 9, want: "Pod/web-9"},
		{scaled: keep, deleted: keep, ordinal: 0, had: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "web", UID: "set"}}},
		{scaled: keep, deleted: drop, ordinal: 0, had: []metav1.OwnerReference{other}, want: "ConfigMap/x StatefulSet/web"},
		{scaled: keep, deleted: drop, ordinal: 0, had: []metav1.OwnerReference{boss}, want: "ConfigMap/x", conflict: true},
	} {
		set := withClaims(newSet(1), c.scaled, c.deleted)
		set.UID = "set"
		pod := newPod(set, &set.Spec.Template, "r", c.ordinal)
		pod.UID = types.UID("pod")
		refs, conflict := owners(&v1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{OwnerReferences: c.had}}, set, pod)
		var have []string
		for _, r := range refs {
			have = append(have, r.Kind+"/"+r.Name)
		}
		if got := strings.Join(have, " "); got != c.want || conflict != c.conflict {
			t.Errorf("%+v: %s, %v", c, got, conflict)
		}
	}
}

// TestScaledClaims checks that a claim goes with the pod that is scaled down, and
// the next pod of the name waits until it has.
func TestScaledClaims(t *testing.T) {
	run(t, func(s suite) {
		s.create(withClaims(newSet(2), apps.DeletePersistentVolumeClaimRetentionPolicyType, apps.RetainPersistentVolumeClaimRetentionPolicyType))
		s.RunPods("ns", nil)
		s.change(func(set *apps.StatefulSet) { set.Spec.Replicas = ptr.To[int32](1) })
		s.end("web-1")
		claims := s.Client.CoreV1().PersistentVolumeClaims("ns")
		claim := controllertest.Must[*v1.PersistentVolumeClaim](t)(claims.Get(ctx, "data-web-1", metav1.GetOptions{}))
		if refs := claim.OwnerReferences; len(refs) != 1 || refs[0].Kind != "Pod" {
			t.Fatalf("owners of the claim: %+v", refs)
		}
		s.change(func(set *apps.StatefulSet) { set.Spec.Replicas = ptr.To[int32](2) })
		s.want("web-0 one")
		if err := claims.Delete(ctx, claim.Name, metav1.DeleteOptions{}); err != nil { // as the garbage collector does
			t.Fatal(err)
		}
		s.want("web-0 one, web-1 one")
	})
}

func TestAdoption(t *testing.T) {
	run(t, func(s suite) {
		for name, app := range map[string]string{"web-0": "web", "web-x": "web", "other-0": "web", "web-1": "other"} {
			controllertest.Must[*v1.Pod](t)(s.Client.CoreV1().Pods("ns").Create(ctx, &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": app}},
				Spec: v1.PodSpec{Containers: []v1.Container{{Image: "old"}}}, Status: v1.PodStatus{Phase: v1.PodPending}}, metav1.CreateOptions{}))
		}
		set := newSet(2)
		set.Spec.UpdateStrategy = apps.StatefulSetUpdateStrategy{Type: apps.OnDeleteStatefulSetStrategyType}
		s.create(set)
		s.ready("web-0", true)
		for name, owned := range map[string]bool{"web-0": true, "web-x": false, "other-0": false, "web-1": false} {
			if have := len(s.pod(name).OwnerReferences) == 1; have != owned {
				t.Errorf("%s is adopted: %v", name, have)
			}
		}
		if p := s.pod("web-0"); p.Labels[apps.StatefulSetPodNameLabel] != "web-0" {
			t.Errorf("labels of the adopted pod: %v", p.Labels)
		}
		if e := s.Events(); !slices.ContainsFunc(e, func(e string) bool {
			return strings.HasPrefix(e, "Warning FailedCreate create Pod web-1 in StatefulSet web failed error: ")
		}) {
			t.Errorf("events where a name is taken: %q", e)
		}
	})
}

func TestHistoryLimit(t *testing.T) {
	run(t, func(s suite) {
		set := newSet(1)
		set.Spec.RevisionHistoryLimit = ptr.To[int32](2)
		s.create(set)
		for i := range 6 {
			s.RunPods("ns", nil)
			s.change(func(set *apps.StatefulSet) { set.Spec.Template.Spec.Containers[0].Image = fmt.Sprint(i) })
		}
		s.RunPods("ns", nil)
		list := controllertest.Must[*apps.ControllerRevisionList](t)(s.Client.AppsV1().ControllerRevisions("ns").List(ctx, metav1.ListOptions{}))
		if len(list.Items) != 3 {
			t.Errorf("%d revisions, want the one in use and 2", len(list.Items))
		}
	})
}

// TestFailedCreate checks that where pods cannot be made there is an event, and a
// later try.
func TestFailedCreate(t *testing.T) {
	run(t, func(s suite) {
		refuse := true
		s.Client.PrependReactor("create", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
			return refuse, nil, fmt.Errorf("exceeded quota")
		})
		s.create(newSet(1))
		s.HasEvent("Warning FailedCreate create Pod web-0 in StatefulSet web failed error: exceeded quota")
		refuse = false
		s.Advance(time.Minute)
		s.want("web-0 one")
	})
}

// TestBehind checks that there is no event for a pod that the set has and its cache has
// not, and one for a pod of somebody else.
func TestBehind(t *testing.T) {
	run(t, func(s suite) {
		behind, set := true, newSet(1)
		set.UID = "set"
		s.Client.PrependReactor("create", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
			return behind, nil, apierrors.NewAlreadyExists(v1.Resource("pods"), "web-0")
		})
		s.Client.PrependReactor("get", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
			return behind, &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web-0", Namespace: "ns", OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(set, gvk)}}}, nil
		})
		s.create(set)
		s.Advance(time.Minute)
		if events := s.Events(); len(events) != 0 {
			t.Errorf("events %q", events)
		}
		behind = false
		s.change(func(set *apps.StatefulSet) { set.Spec.MinReadySeconds = 1 })
		s.want("web-0 one")
	})
	run(t, func(s suite) {
		other := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web-0", Namespace: "ns"}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "other"}}}}
		controllertest.Must[*v1.Pod](s.t)(s.Client.CoreV1().Pods("ns").Create(ctx, other, metav1.CreateOptions{}))
		s.create(newSet(1))
		s.want("web-0 other")
		s.HasEvent(`Warning FailedCreate create Pod web-0 in StatefulSet web failed error: pods "web-0" already exists`)
	})
}
