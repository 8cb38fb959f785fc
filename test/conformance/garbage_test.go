package conformance

import (
	"context"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

func propagate(p metav1.DeletionPropagation) metav1.DeleteOptions {
	return metav1.DeleteOptions{PropagationPolicy: &p}
}

// podsOf waits until exactly n pods have the labels.
func (t *T) podsOf(selector string, n int) []v1.Pod {
	t.Helper()
	var list *v1.PodList
	t.until(fmt.Sprintf("%d pods of %s", n, selector), func(ctx context.Context) (bool, error) {
		var err error
		list, err = t.Client.CoreV1().Pods(t.NS).List(ctx, metav1.ListOptions{LabelSelector: selector})
		return err == nil && len(list.Items) == n, err
	})
	return list.Items
}

func (t *T) makeRC(name string, n int32) {
	t.Helper()
	got[*v1.ReplicationController](t)(t.Client.CoreV1().ReplicationControllers(t.NS).Create(t.Context(), t.rc(name, n), create))
	t.podsOf("rc="+name, int(n))
}

func (t *T) rcGone(name string) {
	t.Helper()
	t.until("the end of "+name, func(ctx context.Context) (bool, error) {
		_, err := t.Client.CoreV1().ReplicationControllers(t.NS).Get(ctx, name, get)
		return apierrors.IsNotFound(err), nil
	})
}

// stay checks that the pods still exist after a while.
func (t *T) stay(selector string, n int) {
	t.Helper()
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if l := got[*v1.PodList](t)(t.Client.CoreV1().Pods(t.NS).List(t.Context(), metav1.ListOptions{LabelSelector: selector})); len(l.Items) != n {
			t.Fatalf("%d pods of %s, want %d", len(l.Items), selector, n)
		}
	}
}

var _ = It("[sig-api-machinery] Garbage collector should delete pods created by rc when not orphaning", func(t *T) {
	t.makeRC("a", 3)
	t.must(t.Client.CoreV1().ReplicationControllers(t.NS).Delete(t.Context(), "a", propagate(metav1.DeletePropagationBackground)))
	t.rcGone("a")
	t.podsOf("rc=a", 0)
})

var _ = It("[sig-api-machinery] Garbage collector should orphan pods created by rc if delete options say so", func(t *T) {
	t.makeRC("a", 20)
	t.must(t.Client.CoreV1().ReplicationControllers(t.NS).Delete(t.Context(), "a", propagate(metav1.DeletePropagationOrphan)))
	t.rcGone("a")
	t.stay("rc=a", 20)
})

var _ = It("[sig-api-machinery] Garbage collector should keep the rc around until all its pods are deleted if the deleteOptions says so", func(t *T) {
	t.makeRC("a", 3)
	held := t.podsOf("rc=a", 3)[0].Name
	patch := func(finalizers string) {
		got[*v1.Pod](t)(t.Client.CoreV1().Pods(t.NS).Patch(t.Context(), held, types.MergePatchType, []byte(`{"metadata":{"finalizers":`+finalizers+`}}`), metav1.PatchOptions{}))
	}
	patch(`["e2e.example.com/hold"]`)
	t.must(t.Client.CoreV1().ReplicationControllers(t.NS).Delete(t.Context(), "a", propagate(metav1.DeletePropagationForeground)))
	t.podsOf("rc=a", 1)
	rc := got[*v1.ReplicationController](t)(t.Client.CoreV1().ReplicationControllers(t.NS).Get(t.Context(), "a", get))
	if rc.DeletionTimestamp == nil || len(rc.Finalizers) != 1 || rc.Finalizers[0] != metav1.FinalizerDeleteDependents {
		t.Errorf("the controller: %v %v", rc.DeletionTimestamp, rc.Finalizers)
	}
	patch("null")
	t.rcGone("a")
	t.podsOf("rc=a", 0)
})

func (t *T) deployment(name string, n int32) *appsv1.Deployment {
	labels := map[string]string{"deployment": name}
	return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: appsv1.DeploymentSpec{Replicas: &n, Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: pod("x", nil).Spec}}}
}

func (t *T) deployed(policy metav1.DeletionPropagation, sets int) []appsv1.ReplicaSet {
	t.Helper()
	got[*appsv1.Deployment](t)(t.Client.AppsV1().Deployments(t.NS).Create(t.Context(), t.deployment("d", 2), create))
	count := func(n int) []appsv1.ReplicaSet {
		var l *appsv1.ReplicaSetList
		t.until("the replica sets", func(ctx context.Context) (bool, error) {
			var err error
			l, err = t.Client.AppsV1().ReplicaSets(t.NS).List(ctx, metav1.ListOptions{LabelSelector: "deployment=d"})
			return err == nil && len(l.Items) == n, err
		})
		return l.Items
	}
	count(1)
	t.must(t.Client.AppsV1().Deployments(t.NS).Delete(t.Context(), "d", propagate(policy)))
	t.until("the end of the deployment", func(ctx context.Context) (bool, error) {
		_, err := t.Client.AppsV1().Deployments(t.NS).Get(ctx, "d", get)
		return apierrors.IsNotFound(err), nil
	})
	return count(sets)
}

var _ = It("[sig-api-machinery] Garbage collector should delete RS created by deployment when not orphaning", func(t *T) {
	t.deployed(metav1.DeletePropagationBackground, 0)
})

var _ = It("[sig-api-machinery] Garbage collector should orphan RS created by deployment when deleteOptions.PropagationPolicy is Orphan", func(t *T) {
	rs := t.deployed(metav1.DeletePropagationOrphan, 1)
	if len(rs[0].OwnerReferences) > 0 {
		t.Errorf("owners: %v", rs[0].OwnerReferences)
	}
	t.stay("deployment=d", 2)
})

var _ = It("[sig-api-machinery] Garbage collector should not delete dependents that have both valid owner and owner that's waiting for dependents to be deleted", func(t *T) {
	t.makeRC("going", 6)
	got[*v1.ReplicationController](t)(t.Client.CoreV1().ReplicationControllers(t.NS).Create(t.Context(), t.rc("staying", 0), create))
	staying := got[*v1.ReplicationController](t)(t.Client.CoreV1().ReplicationControllers(t.NS).Get(t.Context(), "staying", get))
	pods := t.podsOf("rc=going", 6)
	for _, p := range pods[:3] {
		got[*v1.Pod](t)(t.Client.CoreV1().Pods(t.NS).Patch(t.Context(), p.Name, types.StrategicMergePatchType,
			patchOf(dict{"metadata": dict{"ownerReferences": []any{dict{"apiVersion": "v1", "kind": "ReplicationController", "name": "staying", "uid": staying.UID}}}}), metav1.PatchOptions{}))
	}
	t.must(t.Client.CoreV1().ReplicationControllers(t.NS).Delete(t.Context(), "going", propagate(metav1.DeletePropagationForeground)))
	t.rcGone("going")
	left := t.podsOf("rc=going", 3)
	for _, p := range left {
		if len(p.OwnerReferences) != 1 || p.OwnerReferences[0].Name != "staying" || p.DeletionTimestamp != nil {
			t.Errorf("%s: %v, deleted %v", p.Name, p.OwnerReferences, p.DeletionTimestamp)
		}
	}
})

var _ = It("[sig-api-machinery] Garbage collector should not be blocked by dependency circle", func(t *T) {
	pods := map[string]*v1.Pod{}
	for _, name := range []string{"a", "b", "c"} {
		pods[name] = t.makePod(pod(name, map[string]string{"circle": "yes"}))
	}
	for name, owner := range map[string]string{"a": "c", "b": "a", "c": "b"} {
		got[*v1.Pod](t)(t.Client.CoreV1().Pods(t.NS).Patch(t.Context(), name, types.StrategicMergePatchType,
			patchOf(dict{"metadata": dict{"ownerReferences": []any{dict{"apiVersion": "v1", "kind": "Pod", "name": owner, "uid": pods[owner].UID, "controller": true, "blockOwnerDeletion": true}}}}), metav1.PatchOptions{}))
	}
	o := propagate(metav1.DeletePropagationForeground)
	o.GracePeriodSeconds = ptr.To[int64](0)
	t.must(t.Client.CoreV1().Pods(t.NS).Delete(t.Context(), "a", o))
	t.podsOf("circle=yes", 0)
})
