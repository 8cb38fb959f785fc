package conformance

import (
	"context"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/ptr"
)

const statefulSets = "[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] "

// makeStatefulSet makes the StatefulSet ss of version one, and its Service.
func (t *T) makeStatefulSet(replicas int32, change ...func(*appsv1.StatefulSet)) *appsv1.StatefulSet {
	t.Helper()
	got[*v1.Service](t)(t.Client.CoreV1().Services(t.NS).Create(t.Context(), &v1.Service{ObjectMeta: metav1.ObjectMeta{Name: "test"},
		Spec: v1.ServiceSpec{ClusterIP: v1.ClusterIPNone, Selector: map[string]string{"app": "ss"}, Ports: []v1.ServicePort{{Port: 80}}}}, create))
	s := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "ss", Labels: map[string]string{"e2e": "testing"}}, Spec: appsv1.StatefulSetSpec{
		Replicas: &replicas, ServiceName: "test", Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "ss"}}, Template: template("ss", "one")}}
	for _, f := range change {
		f(s)
	}
	return got[*appsv1.StatefulSet](t)(t.Client.AppsV1().StatefulSets(t.NS).Create(t.Context(), s, create))
}

// changeStatefulSet changes the StatefulSet ss.
func (t *T) changeStatefulSet(f func(*appsv1.StatefulSet)) {
	t.Helper()
	sets := t.Client.AppsV1().StatefulSets(t.NS)
	t.must(retry.RetryOnConflict(retry.DefaultRetry, func() error {
		s := got[*appsv1.StatefulSet](t)(sets.Get(t.Context(), "ss", get))
		f(s)
		_, err := sets.Update(t.Context(), s, update)
		return err
	}))
}

// statefulSet waits until the controller has observed ss and ok reports true for
// it.
func (t *T) statefulSet(what string, ok func(*appsv1.StatefulSet) bool) *appsv1.StatefulSet {
	t.Helper()
	var s *appsv1.StatefulSet
	t.until(what, func(ctx context.Context) (bool, error) {
		var err error
		s, err = t.Client.AppsV1().StatefulSets(t.NS).Get(ctx, "ss", get)
		return err == nil && s.Status.ObservedGeneration == s.Generation && ok(s), err
	})
	return s
}

func scaleTo(n int32) func(*appsv1.StatefulSet) {
	return func(s *appsv1.StatefulSet) { s.Spec.Replicas = &n }
}

func toVersion(v string) func(*appsv1.StatefulSet) {
	return func(s *appsv1.StatefulSet) { s.Spec.Template.Spec.Containers[0].Env[0].Value = v }
}

func partition(n int32) func(*appsv1.StatefulSet) {
	return func(s *appsv1.StatefulSet) {
		s.Spec.UpdateStrategy = appsv1.StatefulSetUpdateStrategy{Type: appsv1.RollingUpdateStatefulSetStrategyType,
			RollingUpdate: &appsv1.RollingUpdateStatefulSetStrategy{Partition: &n}}
	}
}

// updated waits until a rolling update of ss has ended.
func (t *T) updated(n int32) *appsv1.StatefulSet {
	t.Helper()
	return t.statefulSet("the end of the update", func(s *appsv1.StatefulSet) bool {
		return s.Status.CurrentRevision == s.Status.UpdateRevision && s.Status.CurrentReplicas == n && s.Status.UpdatedReplicas == n
	})
}

var _ = It(statefulSets+"should perform rolling updates and roll backs of template modifications", func(t *T) {
	t.makeStatefulSet(3)
	t.readied("3 pods", "ss", nil, ready(3, "one"))
	first := t.updated(3).Status.CurrentRevision
	for _, p := range t.podsWith("ss") {
		if rev := p.Labels[appsv1.StatefulSetRevisionLabel]; rev != first {
			t.Errorf("%s is of revision %s, want %s", p.Name, rev, first)
		}
	}
	for _, c := range []struct{ version, before string }{{"two", "one"}, {"one", "two"}} {
		t.serves("ss-1", false)
		t.changeStatefulSet(toVersion(c.version))
		s := t.statefulSet("another revision", func(s *appsv1.StatefulSet) bool { return s.Status.CurrentRevision != s.Status.UpdateRevision })
		if back := s.Status.UpdateRevision == first; back != (c.version == "one") {
			t.Errorf("of version %s the revision is %s; the first was %s", c.version, s.Status.UpdateRevision, first)
		}
		// A pod that is not ready holds up the update.
		t.stay("app=ss", 3)
		if have := versions(t.podsWith("ss")); slices.Contains(have, c.version) {
			t.Errorf("versions while a pod is not ready: %v", have)
		}
		t.serves("ss-1", true)
		t.readied("3 pods of version "+c.version, "ss", nil, func(pods []v1.Pod) bool {
			// Pods are updated in reverse order: no pod has the new version before all later
			// ones.
			have := versions(pods)
			if i := slices.Index(have, c.version); i >= 0 && len(have) == 3 && slices.Contains(have[i:], c.before) {
				t.Fatalf("versions are %v", have)
			}
			return ready(3, c.version)(pods)
		})
		t.updated(3)
	}
	if list := got[*appsv1.ControllerRevisionList](t)(t.Client.AppsV1().ControllerRevisions(t.NS).List(t.Context(), all)); len(list.Items) != 2 {
		t.Errorf("%d revisions, want 2", len(list.Items))
	}
})

var _ = It(statefulSets+"should perform canary updates and phased rolling updates of template modifications", func(t *T) {
	t.makeStatefulSet(3, partition(3))
	t.readied("3 pods", "ss", nil, ready(3, "one"))
	first := t.updated(3).Status.CurrentRevision
	t.changeStatefulSet(toVersion("two"))
	t.statefulSet("another revision", func(s *appsv1.StatefulSet) bool {
		return s.Status.CurrentRevision == first && s.Status.UpdateRevision != first
	})
	t.stay("app=ss", 3)
	for _, c := range []struct {
		partition int32
		want      []string
	}{{3, []string{"one", "one", "one"}}, {2, []string{"one", "one", "two"}}, {1, []string{"one", "two", "two"}}, {0, []string{"two", "two", "two"}}} {
		t.changeStatefulSet(partition(c.partition))
		as := func(pods []v1.Pod) bool { return ready(3, "")(pods) && slices.Equal(versions(pods), c.want) }
		t.readied("the update down to the partition", "ss", nil, as)
		// Deleted pods come back with the version of their side of the partition.
		before := uids(t.podsWith("ss"))
		for _, name := range []string{"ss-0", "ss-2"} {
			t.must(t.Client.CoreV1().Pods(t.NS).Delete(t.Context(), name, remove))
		}
		t.readied("the deleted pods to come back", "ss", nil, func(pods []v1.Pod) bool {
			now := uids(pods)
			return as(pods) && now["ss-0"] != before["ss-0"] && now["ss-2"] != before["ss-2"]
		})
	}
	t.updated(3)
})

// podOrder returns the names of pods in the order in which events of that kind come.
func (t *T) podOrder(w watch.Interface, kind watch.EventType, n int) []string {
	t.Helper()
	var out []string
	for len(out) < n {
		out = append(out, t.event(w, kind, nil).(*v1.Pod).Name)
	}
	return out
}

// watchPods watches the pods of ss from now on.
func (t *T) watchPods() watch.Interface {
	t.Helper()
	list := got[*v1.PodList](t)(t.Client.CoreV1().Pods(t.NS).List(t.Context(), metav1.ListOptions{LabelSelector: "app=ss"}))
	return got[watch.Interface](t)(t.Client.CoreV1().Pods(t.NS).Watch(t.Context(), metav1.ListOptions{LabelSelector: "app=ss", ResourceVersion: list.ResourceVersion}))
}

var _ = It(statefulSets+"Scaling should happen in predictable order and halt if any stateful pod is unhealthy", func(t *T) {
	up := t.watchPods()
	defer up.Stop()
	t.makeStatefulSet(1)
	t.readied("a pod", "ss", nil, ready(1, ""))
	t.serves("ss-0", false)
	t.changeStatefulSet(scaleTo(3))
	t.stay("app=ss", 1)
	t.serves("ss-0", true)
	t.readied("3 pods", "ss", nil, ready(3, ""))
	if have := t.podOrder(up, watch.Added, 3); !slices.Equal(have, []string{"ss-0", "ss-1", "ss-2"}) {
		t.Errorf("pods came in the order %v", have)
	}
	t.statefulSet("3 ready replicas", func(s *appsv1.StatefulSet) bool { return s.Status.ReadyReplicas == 3 })
	down := t.watchPods()
	defer down.Stop()
	t.serves("ss-0", false)
	t.changeStatefulSet(scaleTo(1)) // with the first not ready, none may go
	t.stay("app=ss", 3)
	t.serves("ss-0", true)
	t.changeStatefulSet(scaleTo(0))
	t.podsOf("app=ss", 0)
	if have := t.podOrder(down, watch.Deleted, 3); !slices.Equal(have, []string{"ss-2", "ss-1", "ss-0"}) {
		t.Errorf("pods went in the order %v", have)
	}
})

var _ = It(statefulSets+"Burst scaling should run to completion even with unhealthy pods", func(t *T) {
	t.makeStatefulSet(1, func(s *appsv1.StatefulSet) { s.Spec.PodManagementPolicy = appsv1.ParallelPodManagement })
	t.readied("a pod", "ss", nil, ready(1, ""))
	t.serves("ss-0", false)
	t.changeStatefulSet(scaleTo(3))
	t.podsOf("app=ss", 3)
	t.statefulSet("3 replicas of which none is ready", func(s *appsv1.StatefulSet) bool { return s.Status.Replicas == 3 && s.Status.ReadyReplicas == 0 })
	t.readied("all but one to be ready", "ss", map[string]bool{"ss-1": true}, func(pods []v1.Pod) bool { return len(pods) == 3 && isReady(&pods[0]) && isReady(&pods[2]) })
	t.changeStatefulSet(scaleTo(0))
	t.podsOf("app=ss", 0)
	t.statefulSet("no replicas", func(s *appsv1.StatefulSet) bool { return s.Status.Replicas == 0 })
})

var _ = It(statefulSets+"Should recreate evicted statefulset", func(t *T) {
	// The pod's host port is taken, and it bypasses the scheduler.
	port := []v1.ContainerPort{{ContainerPort: 21017, HostPort: 21017, Protocol: v1.ProtocolTCP}}
	blocker := pod("blocker", nil)
	blocker.Spec.Containers[0].Ports = port
	got[*v1.Pod](t)(t.Client.CoreV1().Pods(t.NS).Create(t.Context(), blocker, create))
	var node string
	t.until("the first pod to run", func(ctx context.Context) (bool, error) {
		p, err := t.Client.CoreV1().Pods(t.NS).Get(ctx, "blocker", get)
		if err != nil {
			return false, err
		}
		node = p.Spec.NodeName
		return p.Status.Phase == v1.PodRunning, nil
	})
	w := t.watchPods()
	defer w.Stop()
	t.makeStatefulSet(1, func(s *appsv1.StatefulSet) {
		s.Spec.Template.Spec.NodeName = node
		s.Spec.Template.Spec.Containers[0].Ports = port
	})
	failed := t.event(w, watch.Deleted, nil).(*v1.Pod)
	if failed.Name != "ss-0" || failed.Status.Phase != v1.PodFailed {
		t.Errorf("%s went with %+v", failed.Name, failed.Status)
	}
	t.must(t.Client.CoreV1().Pods(t.NS).Delete(t.Context(), "blocker", remove))
	t.readied("the pod to run in the end", "ss", nil, func(pods []v1.Pod) bool { return ready(1, "")(pods) && pods[0].UID != failed.UID })
})

var _ = It(statefulSets+"should have a working scale subresource", func(t *T) {
	t.makeStatefulSet(1)
	t.readied("a pod", "ss", nil, ready(1, ""))
	sets := t.Client.AppsV1().StatefulSets(t.NS)
	scale := got[*autoscalingv1.Scale](t)(sets.GetScale(t.Context(), "ss", get))
	if scale.Spec.Replicas != 1 || scale.Status.Selector != "app=ss" {
		t.Errorf("the scale is %+v", scale)
	}
	scale.ResourceVersion, scale.Spec.Replicas = "", 2
	if s := got[*autoscalingv1.Scale](t)(sets.UpdateScale(t.Context(), "ss", scale, update)); s.Spec.Replicas != 2 {
		t.Errorf("the scale after an update is %+v", s)
	}
	t.readied("2 pods", "ss", nil, ready(2, ""))
	got[*unstructured.Unstructured](t)(t.Dynamic.Resource(appsv1.SchemeGroupVersion.WithResource("statefulsets")).Namespace(t.NS).Patch(t.Context(), "ss",
		types.MergePatchType, patchOf(dict{"spec": dict{"replicas": 4}}), metav1.PatchOptions{}, "scale"))
	t.readied("4 pods", "ss", nil, ready(4, ""))
	if s := got[*autoscalingv1.Scale](t)(sets.GetScale(t.Context(), "ss", get)); s.Spec.Replicas != 4 {
		t.Errorf("the scale after a patch is %+v", s)
	}
})

var _ = It(statefulSets+"should list, patch and delete a collection of StatefulSets", func(t *T) {
	t.makeStatefulSet(1)
	t.readied("a pod", "ss", nil, ready(1, ""))
	mine := metav1.ListOptions{LabelSelector: "e2e=testing"}
	sets := t.Client.AppsV1().StatefulSets(t.NS)
	if l := got[*appsv1.StatefulSetList](t)(t.Client.AppsV1().StatefulSets("").List(t.Context(), mine)); len(l.Items) == 0 {
		t.Error("no set is listed over all namespaces")
	}
	patch := patchOf(dict{"metadata": dict{"labels": dict{"test-ss": "patched"}}, "spec": dict{"replicas": 2, "template": dict{
		"spec": dict{"terminationGracePeriodSeconds": 0, "containers": []dict{{"name": "web", "env": []dict{{"name": "VERSION", "value": "two"}}}}}}}})
	s := got[*appsv1.StatefulSet](t)(sets.Patch(t.Context(), "ss", types.StrategicMergePatchType, patch, metav1.PatchOptions{}))
	if s.Labels["test-ss"] != "patched" || *s.Spec.Replicas != 2 || s.Spec.Template.Spec.Containers[0].Env[0].Value != "two" {
		t.Errorf("after the patch the set is %+v", s)
	}
	t.readied("2 pods of the patched template", "ss", nil, ready(2, "two"))
	t.must(sets.DeleteCollection(t.Context(), metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}, mine))
	t.until("the end of the set", func(ctx context.Context) (bool, error) {
		_, err := sets.Get(ctx, "ss", get)
		return apierrors.IsNotFound(err), nil
	})
	t.podsOf("app=ss", 0)
})

var _ = It(statefulSets+"should validate Statefulset Status endpoints", func(t *T) {
	t.makeStatefulSet(1)
	t.readied("a pod", "ss", nil, ready(1, ""))
	t.statefulSet("a ready replica", func(s *appsv1.StatefulSet) bool { return s.Status.AvailableReplicas == 1 })
	t.statusEndpoints("statefulsets", "ss")
	// The controller leaves conditions that are not its own.
	t.changeStatefulSet(scaleTo(2))
	t.readied("2 pods", "ss", nil, ready(2, ""))
	s := t.statefulSet("2 ready replicas", func(s *appsv1.StatefulSet) bool { return s.Status.AvailableReplicas == 2 })
	if len(s.Status.Conditions) != 1 || s.Status.Conditions[0].Reason != "Patched" {
		t.Errorf("conditions are %+v", s.Status.Conditions)
	}
})
