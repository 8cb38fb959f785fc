package conformance

import (
	"context"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/ptr"
)

const (
	deployments = "[sig-apps] Deployment "
	// revision is the annotation with the number of a rollout.
	revision = "deployment.kubernetes.io/revision"
)

// makeDeployment makes the Deployment d, of version one.
func (t *T) makeDeployment(replicas int32, change ...func(*appsv1.Deployment)) *appsv1.Deployment {
	t.Helper()
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "d", Labels: map[string]string{"e2e": t.NS}}, Spec: appsv1.DeploymentSpec{
		Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "d"}}, Template: template("d", "one")}}
	for _, f := range change {
		f(d)
	}
	return got[*appsv1.Deployment](t)(t.Client.AppsV1().Deployments(t.NS).Create(t.Context(), d, create))
}

func deployVersion(v string) func(*appsv1.Deployment) {
	return func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Env[0].Value = v }
}

func rolling(surge, unavailable int) func(*appsv1.Deployment) {
	return func(d *appsv1.Deployment) {
		d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType, RollingUpdate: &appsv1.RollingUpdateDeployment{
			MaxSurge: ptr.To(intstr.FromInt(surge)), MaxUnavailable: ptr.To(intstr.FromInt(unavailable))}}
	}
}

// changeDeployment changes the Deployment d.
func (t *T) changeDeployment(f func(*appsv1.Deployment)) {
	t.Helper()
	t.must(retry.RetryOnConflict(retry.DefaultRetry, func() error {
		d := got[*appsv1.Deployment](t)(t.Client.AppsV1().Deployments(t.NS).Get(t.Context(), "d", get))
		f(d)
		_, err := t.Client.AppsV1().Deployments(t.NS).Update(t.Context(), d, update)
		return err
	}))
}

// rollout makes all pods of d ready, except those of the version bad, until the
// controller has observed d and ok reports true for it.
func (t *T) rollout(what string, ok func(*appsv1.Deployment) bool) *appsv1.Deployment {
	t.Helper()
	var d *appsv1.Deployment
	t.keepReady(what, "d", func(p *v1.Pod) bool { return versionOf(p) != "bad" }, func([]v1.Pod) bool {
		d = got[*appsv1.Deployment](t)(t.Client.AppsV1().Deployments(t.NS).Get(t.Context(), "d", get))
		return d.Status.ObservedGeneration == d.Generation && ok(d)
	})
	return d
}

// rolledOut returns a function that reports whether all of n pods are of the last
// version and available.
func rolledOut(n int32) func(*appsv1.Deployment) bool {
	return func(d *appsv1.Deployment) bool {
		s := d.Status
		return s.Replicas == n && s.UpdatedReplicas == n && s.ReadyReplicas == n && s.AvailableReplicas == n && s.UnavailableReplicas == 0
	}
}

// sizes waits until the ReplicaSets of d have, by version, these numbers of replicas in spec
// and status.
func (t *T) sizes(want map[string]int32) {
	t.Helper()
	t.rollout("the sizes of the replica sets", func(d *appsv1.Deployment) bool {
		list := got[*appsv1.ReplicaSetList](t)(t.Client.AppsV1().ReplicaSets(t.NS).List(t.Context(), metav1.ListOptions{LabelSelector: "app=d"})).Items
		return len(list) == len(want) && !slices.ContainsFunc(list, func(rs appsv1.ReplicaSet) bool {
			n, ok := want[rs.Spec.Template.Spec.Containers[0].Env[0].Value]
			return !ok || *rs.Spec.Replicas != n || rs.Status.Replicas != n || !metav1.IsControlledBy(&rs, d)
		})
	})
}

// former makes a ReplicaSet of one ready pod, of version one, for d to adopt.
func (t *T) former(change ...func(*appsv1.ReplicaSet)) {
	t.Helper()
	t.makeReplicaSet("former", "d", 1, append(change, func(rs *appsv1.ReplicaSet) {
		rs.Labels["app"] = "d"
		rs.Spec.Selector.MatchLabels["pod"], rs.Spec.Template.Labels["pod"] = "former", "former"
	})...)
	t.readied("the former pod", "d", nil, ready(1, "one"))
}

var _ = It(deployments+"Deployment should have a working scale subresource", func(t *T) {
	t.makeDeployment(1)
	t.scales(gvr("apps", "v1", "deployments"), "d")
})

var _ = It(deployments+"RecreateDeployment should delete old pods and create new ones", func(t *T) {
	t.makeDeployment(2, func(d *appsv1.Deployment) { d.Spec.Strategy.Type = appsv1.RecreateDeploymentStrategyType })
	t.rollout("the first rollout", rolledOut(2))
	t.changeDeployment(deployVersion("two"))
	t.rollout("the second rollout", func(d *appsv1.Deployment) bool {
		if have := versions(t.podsWith("d")); slices.Contains(have, "one") && slices.Contains(have, "two") {
			t.Fatalf("pods of both versions at a time: %v", have)
		}
		return rolledOut(2)(d) && d.Annotations[revision] == "2"
	})
	t.readied("pods of the second version only", "d", nil, ready(2, "two"))
})

var _ = It(deployments+"RollingUpdateDeployment should delete old pods and create new ones", func(t *T) {
	t.former(func(rs *appsv1.ReplicaSet) { rs.Annotations = map[string]string{revision: "3546343826724305832"} })
	t.makeDeployment(1, deployVersion("two"))
	t.rollout("the rollout after the former's", func(d *appsv1.Deployment) bool {
		return rolledOut(1)(d) && d.Annotations[revision] == "3546343826724305833"
	})
	t.sizes(map[string]int32{"one": 0, "two": 1})
	t.readied("a pod of the Deployment only", "d", nil, ready(1, "two"))
})

var _ = It(deployments+"deployment should delete old replica sets", func(t *T) {
	t.former()
	w := got[watch.Interface](t)(t.Client.CoreV1().Pods(t.NS).Watch(t.Context(), metav1.ListOptions{LabelSelector: "app=d,pod=former"}))
	defer w.Stop()
	t.event(w, watch.Added, nil) // the existing one
	t.makeDeployment(1, deployVersion("two"), func(d *appsv1.Deployment) { d.Spec.RevisionHistoryLimit = ptr.To[int32](0) })
	t.rollout("the rollout", rolledOut(1))
	t.sizes(map[string]int32{"two": 1})
	for e := range w.ResultChan() { // until it is deleted; none is added in between
		if e.Type == watch.Added {
			t.Fatalf("the former replica set has made another pod: %+v", e.Object)
		}
		if e.Type == watch.Deleted {
			break
		}
	}
})

var _ = It(deployments+"deployment should support rollover", func(t *T) {
	t.former()
	t.makeDeployment(1, deployVersion("bad"), rolling(1, 0), func(d *appsv1.Deployment) { d.Spec.MinReadySeconds = 1 })
	t.sizes(map[string]int32{"one": 1, "bad": 1})
	if d := t.rollout("the number of the rollout", func(d *appsv1.Deployment) bool { return d.Status.UpdatedReplicas == 1 }); d.Annotations[revision] != "1" {
		t.Errorf("annotations are %v", d.Annotations)
	}
	t.changeDeployment(deployVersion("two"))
	t.rollout("the rollout of another version", func(d *appsv1.Deployment) bool {
		if d.Status.AvailableReplicas < 1 {
			t.Fatalf("no pod is available: %+v", d.Status)
		}
		return rolledOut(1)(d) && d.Annotations[revision] == "2"
	})
	t.sizes(map[string]int32{"one": 0, "bad": 0, "two": 1})
})

var _ = It(deployments+"deployment should support proportional scaling", func(t *T) {
	t.makeDeployment(10, rolling(3, 2))
	t.rollout("the first rollout", rolledOut(10))
	t.changeDeployment(deployVersion("bad"))
	t.sizes(map[string]int32{"one": 8, "bad": 5})
	if d := t.rollout("the pods to be counted", func(d *appsv1.Deployment) bool { return d.Status.Replicas == 13 }); d.Status.AvailableReplicas != 8 {
		t.Errorf("the status is %+v", d.Status)
	}
	t.changeDeployment(func(d *appsv1.Deployment) { d.Spec.Replicas = ptr.To[int32](30) })
	t.sizes(map[string]int32{"one": 20, "bad": 13}) // 8 + 20*8/13 and 5 + 20*5/13
})

var _ = It(deployments+"should run the lifecycle of a Deployment", func(t *T) {
	mine := metav1.ListOptions{LabelSelector: "e2e=" + t.NS}
	client := t.Client.AppsV1().Deployments(t.NS)
	w := got[watch.Interface](t)(client.Watch(t.Context(), mine))
	defer w.Stop()
	labelled := func(value string) func(runtime.Object) bool {
		return func(o runtime.Object) bool { return o.(*appsv1.Deployment).Labels["test-deployment"] == value }
	}
	t.makeDeployment(2)
	t.event(w, watch.Added, nil)
	t.rollout("2 pods", rolledOut(2))
	patch := patchOf(dict{"metadata": dict{"labels": dict{"test-deployment": "patched"}}, "spec": dict{"replicas": 1, "template": dict{
		"spec": dict{"containers": []dict{{"name": "web", "env": []dict{{"name": "VERSION", "value": "two"}}}}}}}})
	got[*appsv1.Deployment](t)(client.Patch(t.Context(), "d", types.StrategicMergePatchType, patch, metav1.PatchOptions{}))
	t.event(w, watch.Modified, labelled("patched"))
	t.rollout("a pod of the patched template", rolledOut(1))
	everywhere := func() int {
		return len(got[*appsv1.DeploymentList](t)(t.Client.AppsV1().Deployments("").List(t.Context(), mine)).Items)
	}
	if n := everywhere(); n != 1 {
		t.Errorf("%d Deployments are listed over all namespaces, want 1", n)
	}
	t.changeDeployment(func(d *appsv1.Deployment) {
		d.Labels["test-deployment"], d.Spec.Replicas = "updated", ptr.To[int32](2)
		deployVersion("three")(d)
	})
	t.event(w, watch.Modified, labelled("updated"))
	t.rollout("2 pods of the updated template", rolledOut(2))
	// A client's write of the status is visible until the controller overwrites it, and
	// changes no label.
	patch = patchOf(dict{"metadata": dict{"labels": dict{"test-deployment": "patched-status"}}, "status": dict{"readyReplicas": 0, "availableReplicas": 0}})
	got[*appsv1.Deployment](t)(client.Patch(t.Context(), "d", types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status"))
	t.event(w, watch.Modified, func(o runtime.Object) bool {
		return labelled("updated")(o) && o.(*appsv1.Deployment).Status.ReadyReplicas == 0
	})
	t.rollout("the status to be mended", rolledOut(2))
	t.readied("pods of the last version only", "d", nil, ready(2, "three"))
	t.must(client.Delete(t.Context(), "d", propagate(metav1.DeletePropagationBackground)))
	t.event(w, watch.Deleted, nil)
	t.until("the end of its replica sets", func(ctx context.Context) (bool, error) {
		l, err := t.Client.AppsV1().ReplicaSets(t.NS).List(ctx, all)
		return err == nil && len(l.Items) == 0, err
	})
	t.podsOf("app=d", 0)
})

var _ = It(deployments+"should validate Deployment Status endpoints", func(t *T) {
	t.makeDeployment(1)
	t.rollout("a pod", rolledOut(1))
	t.statusEndpoints("deployments", "d")
})
