package conformance

import (
	"context"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/ptr"
)

const (
	replicaSets = "[sig-apps] ReplicaSet "
	controllers = "[sig-apps] ReplicationController "
)

// makeReplicaSet makes a ReplicaSet of pods of an app, at version one.
func (t *T) makeReplicaSet(name, app string, replicas int32, change ...func(*appsv1.ReplicaSet)) *appsv1.ReplicaSet {
	t.Helper()
	rs := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"e2e": t.NS}}, Spec: appsv1.ReplicaSetSpec{
		Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}, Template: template(app, "one")}}
	for _, f := range change {
		f(rs)
	}
	return got[*appsv1.ReplicaSet](t)(t.Client.AppsV1().ReplicaSets(t.NS).Create(t.Context(), rs, create))
}

var _ = It(replicaSets+"should adopt matching pods on creation and release no longer matching pods", func(t *T) {
	got[*v1.Pod](t)(t.Client.CoreV1().Pods(t.NS).Create(t.Context(), pod("orphan", map[string]string{"app": "rs"}), create))
	rs := t.makeReplicaSet("rs", "rs", 1)
	t.controlled("orphan", rs.UID)
	t.podsOf("app=rs", 1)
	t.unmatch("orphan")
	t.controlled("orphan", "")
	t.podsOf("app=rs", 1) // with one in its place
})

var _ = It(replicaSets+"Replicaset should have a working scale subresource", func(t *T) {
	t.makeReplicaSet("rs", "rs", 1)
	t.scales(gvr("apps", "v1", "replicasets"), "rs")
})

var _ = It(replicaSets+"Replace and Patch tests", func(t *T) {
	t.makeReplicaSet("rs", "rs", 1)
	t.readied("a pod", "rs", nil, ready(1, ""))
	sets := t.Client.AppsV1().ReplicaSets(t.NS)
	t.must(retry.RetryOnConflict(retry.DefaultRetry, func() error {
		rs := got[*appsv1.ReplicaSet](t)(sets.Get(t.Context(), "rs", get))
		rs.Spec.Replicas = ptr.To[int32](2)
		_, err := sets.Update(t.Context(), rs, update)
		return err
	}))
	t.readied("2 pods", "rs", nil, ready(2, "one"))
	patch := patchOf(dict{"metadata": dict{"labels": dict{"test-rs": "patched"}}, "spec": dict{"replicas": 3, "template": dict{
		"spec": dict{"containers": []dict{{"name": "web", "env": []dict{{"name": "VERSION", "value": "two"}}}}}}}})
	rs := got[*appsv1.ReplicaSet](t)(sets.Patch(t.Context(), "rs", types.StrategicMergePatchType, patch, metav1.PatchOptions{}))
	if rs.Labels["test-rs"] != "patched" || *rs.Spec.Replicas != 3 || rs.Spec.Template.Spec.Containers[0].Env[0].Value != "two" {
		t.Errorf("after the patch the set is %+v", rs)
	}
	t.readied("3 pods", "rs", nil, ready(3, ""))
	have := versions(t.podsWith("rs"))
	if slices.Sort(have); !slices.Equal(have, []string{"one", "one", "two"}) { // a new template changes new pods only
		t.Errorf("the pods are of versions %v", have)
	}
	t.until("the status to say so", func(ctx context.Context) (bool, error) {
		rs, err := sets.Get(ctx, "rs", get)
		return err == nil && rs.Status.ObservedGeneration == rs.Generation && rs.Status.AvailableReplicas == 3, err
	})
})

var _ = It(replicaSets+"should list and delete a collection of ReplicaSets", func(t *T) {
	t.makeReplicaSet("rs", "rs", 3)
	t.readied("3 pods", "rs", nil, ready(3, ""))
	mine := metav1.ListOptions{LabelSelector: "e2e=" + t.NS}
	everywhere := func() int {
		return len(got[*appsv1.ReplicaSetList](t)(t.Client.AppsV1().ReplicaSets("").List(t.Context(), mine)).Items)
	}
	if n := everywhere(); n != 1 {
		t.Errorf("%d sets are listed over all namespaces, want 1", n)
	}
	t.must(t.Client.AppsV1().ReplicaSets(t.NS).DeleteCollection(t.Context(), metav1.DeleteOptions{}, mine))
	t.until("the end of the set", func(context.Context) (bool, error) { return everywhere() == 0, nil })
	t.podsOf("app=rs", 0)
})

var _ = It(replicaSets+"should validate Replicaset Status endpoints", func(t *T) {
	t.makeReplicaSet("rs", "rs", 1)
	t.readied("a pod", "rs", nil, ready(1, ""))
	t.until("the status to say so", func(ctx context.Context) (bool, error) {
		rs, err := t.Client.AppsV1().ReplicaSets(t.NS).Get(ctx, "rs", get)
		return err == nil && rs.Status.AvailableReplicas == 1, err
	})
	t.statusEndpoints("replicasets", "rs")
})

// answers checks that each pod of an app answers with its name.
func (t *T) answers(app string, n int) {
	t.Helper()
	t.until("the pods to answer", func(ctx context.Context) (bool, error) {
		pods := t.podsWith(app)
		for _, p := range pods {
			b, err := t.Client.CoreV1().Pods(t.NS).ProxyGet("http", p.Name, "80", "/", nil).DoRaw(ctx)
			if err != nil || !strings.Contains(string(b), p.Name) {
				return false, nil //nolint:nilerr // retried
			}
		}
		return len(pods) == n, nil
	})
}

var _ = OverNetwork(replicaSets+"should serve a basic image on each replica with a public image", func(t *T) {
	t.makeReplicaSet("rs", "rs", 2)
	t.answers("rs", 2)
})

var _ = OverNetwork(controllers+"should serve a basic image on each replica with a public image", func(t *T) {
	t.makeController(2)
	t.answers("rc", 2)
})

// makeController makes the ReplicationController rc, of version one.
func (t *T) makeController(replicas int32) *v1.ReplicationController {
	t.Helper()
	pods := template("rc", "one")
	return got[*v1.ReplicationController](t)(t.Client.CoreV1().ReplicationControllers(t.NS).Create(t.Context(), &v1.ReplicationController{
		ObjectMeta: metav1.ObjectMeta{Name: "rc", Labels: map[string]string{"e2e": t.NS}},
		Spec:       v1.ReplicationControllerSpec{Replicas: &replicas, Selector: map[string]string{"app": "rc"}, Template: &pods}}, create))
}

// controller waits until the controller has observed rc and ok reports true for
// it.
func (t *T) controller(what string, ok func(*v1.ReplicationController) bool) {
	t.Helper()
	t.until(what, func(ctx context.Context) (bool, error) {
		rc, err := t.Client.CoreV1().ReplicationControllers(t.NS).Get(ctx, "rc", get)
		return err == nil && rc.Status.ObservedGeneration == rc.Generation && ok(rc), err
	})
}

// patchController patches rc, or a subresource of it.
func (t *T) patchController(patch dict, subresources ...string) {
	t.Helper()
	got[*unstructured.Unstructured](t)(t.Dynamic.Resource(gvr("", "v1", "replicationcontrollers")).Namespace(t.NS).Patch(t.Context(), "rc",
		types.MergePatchType, patchOf(patch), metav1.PatchOptions{}, subresources...))
}

var _ = It(controllers+"should adopt matching pods on creation", func(t *T) {
	got[*v1.Pod](t)(t.Client.CoreV1().Pods(t.NS).Create(t.Context(), pod("orphan", map[string]string{"app": "rc"}), create))
	t.controlled("orphan", t.makeController(1).UID)
	t.podsOf("app=rc", 1)
})

var _ = It(controllers+"should release no longer matching pods", func(t *T) {
	rc := t.makeController(1)
	name := t.podsOf("app=rc", 1)[0].Name
	t.controlled(name, rc.UID)
	t.unmatch(name)
	t.controlled(name, "")
	t.podsOf("app=rc", 1) // with one in its place
})

var _ = It(controllers+"should get and update a ReplicationController scale", func(t *T) {
	t.makeController(1)
	t.scales(gvr("", "v1", "replicationcontrollers"), "rc")
})

var _ = It(controllers+"should surface a failure condition on a common issue like exceeded quota", func(t *T) {
	t.quota("q", amounts("pods", "2"))
	t.uses("q", amounts("pods", "0"))
	t.makeController(3)
	fails := func(rc *v1.ReplicationController) bool {
		return slices.ContainsFunc(rc.Status.Conditions, func(c v1.ReplicationControllerCondition) bool {
			return c.Type == v1.ReplicationControllerReplicaFailure && c.Status == v1.ConditionTrue && c.Reason == "FailedCreate" && strings.Contains(c.Message, "exceeded quota")
		})
	}
	t.controller("the condition", fails)
	t.patchController(dict{"spec": dict{"replicas": 2}})
	t.controller("the end of the condition", func(rc *v1.ReplicationController) bool { return !fails(rc) })
	t.podsOf("app=rc", 2)
})

var _ = It(controllers+"should test the lifecycle of a ReplicationController", func(t *T) {
	mine := metav1.ListOptions{LabelSelector: "e2e=" + t.NS}
	w := got[watch.Interface](t)(t.Client.CoreV1().ReplicationControllers(t.NS).Watch(t.Context(), mine))
	defer w.Stop()
	t.makeController(1)
	t.event(w, watch.Added, nil)
	t.readied("a pod", "rc", nil, ready(1, ""))
	t.controller("the status to say so", func(rc *v1.ReplicationController) bool { return rc.Status.ReadyReplicas == 1 })
	t.patchController(dict{"metadata": dict{"labels": dict{"test-rc": "patched"}}})
	t.event(w, watch.Modified, func(o runtime.Object) bool { return o.(*v1.ReplicationController).Labels["test-rc"] == "patched" })
	t.patchController(dict{"status": dict{"readyReplicas": 0, "availableReplicas": 0}}, "status")
	t.event(w, watch.Modified, func(o runtime.Object) bool { return o.(*v1.ReplicationController).Status.ReadyReplicas == 0 })
	t.controller("the status to be mended", func(rc *v1.ReplicationController) bool { return rc.Status.ReadyReplicas == 1 })
	t.patchController(dict{"spec": dict{"replicas": 2}}, "scale")
	t.readied("2 pods", "rc", nil, ready(2, ""))
	t.controller("the status to say so", func(rc *v1.ReplicationController) bool {
		return rc.Status.ReadyReplicas == 2 && rc.Labels["test-rc"] == "patched"
	})
	t.change(t.Dynamic.Resource(gvr("", "v1", "replicationcontrollers")).Namespace(t.NS), "rc", "status", func(u *unstructured.Unstructured) {
		t.must(unstructured.SetNestedField(u.Object, int64(1), "status", "availableReplicas"))
		t.must(unstructured.SetNestedField(u.Object, int64(1), "status", "readyReplicas"))
	})
	t.event(w, watch.Modified, func(o runtime.Object) bool {
		rc := o.(*v1.ReplicationController)
		return *rc.Spec.Replicas == 2 && rc.Status.Replicas == 2 && rc.Status.AvailableReplicas == 1
	})
	everywhere := func() int {
		return len(got[*v1.ReplicationControllerList](t)(t.Client.CoreV1().ReplicationControllers("").List(t.Context(), mine)).Items)
	}
	if n := everywhere(); n != 1 {
		t.Errorf("%d controllers are listed over all namespaces, want 1", n)
	}
	t.must(t.Client.CoreV1().ReplicationControllers(t.NS).DeleteCollection(t.Context(), metav1.DeleteOptions{}, mine))
	t.event(w, watch.Deleted, nil)
	if n := everywhere(); n != 0 {
		t.Errorf("%d controllers are listed after their deletion", n)
	}
})
