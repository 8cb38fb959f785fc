package conformance

import (
	"context"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	typedpolicyv1 "k8s.io/client-go/kubernetes/typed/policy/v1"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/ptr"
)

const disruption = "[sig-apps] DisruptionController "

func (t *T) budgets(namespace string) typedpolicyv1.PodDisruptionBudgetInterface {
	return t.Client.PolicyV1().PodDisruptionBudgets(namespace)
}

// makeBudget makes a budget that keeps that number of the pods of app=web
// available.
func (t *T) makeBudget(namespace, name, available string) {
	t.Helper()
	got[*policyv1.PodDisruptionBudget](t)(t.budgets(namespace).Create(t.Context(), &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"e2e": t.NS}},
		Spec: policyv1.PodDisruptionBudgetSpec{
			MinAvailable: ptr.To(intstr.Parse(available)), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}},
	}, create))
}

// updateBudget changes the budget b, or its status by UpdateStatus.
func (t *T) updateBudget(change func(*policyv1.PodDisruptionBudget), write func(context.Context, *policyv1.PodDisruptionBudget, metav1.UpdateOptions) (*policyv1.PodDisruptionBudget, error)) (b *policyv1.PodDisruptionBudget) {
	t.Helper()
	t.must(retry.RetryOnConflict(retry.DefaultRetry, func() error {
		now := got[*policyv1.PodDisruptionBudget](t)(t.budgets(t.NS).Get(t.Context(), "b", get))
		change(now)
		var err error
		b, err = write(t.Context(), now, update)
		return err
	}))
	return b
}

func (t *T) patchBudget(patch dict, subresources ...string) *policyv1.PodDisruptionBudget {
	t.Helper()
	return got[*policyv1.PodDisruptionBudget](t)(t.budgets(t.NS).Patch(t.Context(), "b", types.MergePatchType, patchOf(patch), metav1.PatchOptions{}, subresources...))
}

// budgeted waits until the controller has observed the budget b and ok reports true
// for it.
func (t *T) budgeted(what string, ok func(*policyv1.PodDisruptionBudgetStatus) bool) {
	t.Helper()
	t.until(what, func(ctx context.Context) (bool, error) {
		b, err := t.budgets(t.NS).Get(ctx, "b", get)
		return err == nil && b.Status.ObservedGeneration == b.Generation && ok(&b.Status), err
	})
}

// evict requests the eviction of a pod.
func (t *T) evict(pod string) error {
	return t.Client.CoreV1().Pods(t.NS).EvictV1(t.Context(), &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: t.NS, Name: pod}})
}

// blocked checks that a budget keeps a pod from being evicted.
func (t *T) blocked(pod string) {
	t.Helper()
	if err := t.evict(pod); !apierrors.IsTooManyRequests(err) || !apierrors.HasStatusCause(err, policyv1.DisruptionBudgetCause) {
		t.Errorf("the eviction: %v, want one that the budget blocks", err)
	}
}

// webs waits until n pods of app=web are ready and returns the first.
func (t *T) webs(n int) string {
	t.Helper()
	name := ""
	t.until("the pods to be ready", func(context.Context) (bool, error) {
		pods := t.podsWith("web")
		if ready(n, "")(pods) {
			name = pods[0].Name
		}
		return name != "", nil
	})
	return name
}

var _ = It(disruption+"Listing PodDisruptionBudgets for all namespaces should list and delete a collection of PodDisruptionBudgets", func(t *T) {
	other := t.NS + "-2"
	got[*v1.Namespace](t)(t.Client.CoreV1().Namespaces().Create(t.Context(), &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: other}}, create))
	defer func() {
		t.must(t.Client.CoreV1().Namespaces().Delete(context.WithoutCancel(t.Context()), other, remove))
	}()
	t.makeBudget(t.NS, "a", "2")
	t.makeBudget(t.NS, "b", "1%")
	t.makeBudget(other, "c", "2")
	mine := metav1.ListOptions{LabelSelector: "e2e=" + t.NS}
	has := func(namespace string, want ...string) {
		t.Helper()
		var names []string
		for _, b := range got[*policyv1.PodDisruptionBudgetList](t)(t.budgets(namespace).List(t.Context(), mine)).Items {
			names = append(names, b.Name)
		}
		if slices.Sort(names); !slices.Equal(names, want) {
			t.Errorf("in namespace %q are %q, want %q", namespace, names, want)
		}
	}
	has("", "a", "b", "c")
	has(t.NS, "a", "b")
	t.must(t.budgets(t.NS).DeleteCollection(t.Context(), remove, metav1.ListOptions{}))
	has(t.NS)
	has(other, "c")
})

var _ = It(disruption+"should create a PodDisruptionBudget", func(t *T) {
	t.makeBudget(t.NS, "b", "1%")
	b := t.updateBudget(func(b *policyv1.PodDisruptionBudget) { b.Spec.MinAvailable = ptr.To(intstr.FromString("2%")) }, t.budgets(t.NS).Update)
	if v := b.Spec.MinAvailable.String(); v != "2%" {
		t.Errorf("after the update minAvailable is %s", v)
	}
	if v := t.patchBudget(dict{"spec": dict{"minAvailable": "3%"}}).Spec.MinAvailable.String(); v != "3%" {
		t.Errorf("after the patch minAvailable is %s", v)
	}
	t.must(t.budgets(t.NS).Delete(t.Context(), "b", remove))
	t.gone(t.Dynamic.Resource(policyv1.SchemeGroupVersion.WithResource("poddisruptionbudgets")).Namespace(t.NS), "b")
})

var _ = It(disruption+"should observe PodDisruptionBudget status updated", func(t *T) {
	t.makeBudget(t.NS, "b", "1")
	for _, name := range []string{"a", "b", "c"} {
		t.makePod(pod(name, map[string]string{"app": "web"}))
	}
	t.webs(3)
	t.budgeted("two disruptions to be allowed", func(s *policyv1.PodDisruptionBudgetStatus) bool { return s.DisruptionsAllowed == 2 })
})

var _ = It(disruption+"should update/patch PodDisruptionBudget status", func(t *T) {
	t.makeBudget(t.NS, "b", "1")
	t.makePod(pod("a", map[string]string{"app": "web"})) // the controller removes the names of other pods
	t.webs(1)
	t.updateBudget(func(b *policyv1.PodDisruptionBudget) {
		b.Status.DisruptedPods = map[string]metav1.Time{"a": metav1.NewTime(time.Now())}
	}, t.budgets(t.NS).UpdateStatus)
	t.budgeted("the pod not to count", func(s *policyv1.PodDisruptionBudgetStatus) bool { return s.CurrentHealthy == 0 })
	if b := got[*policyv1.PodDisruptionBudget](t)(t.budgets(t.NS).Get(t.Context(), "b", get)); len(b.Status.DisruptedPods) != 1 {
		t.Errorf("after the update of the status the disrupted pods are %v", b.Status.DisruptedPods)
	}
	if b := t.patchBudget(dict{"status": dict{"disruptedPods": nil}}, "status"); len(b.Status.DisruptedPods) != 0 {
		t.Errorf("after the patch of the status the disrupted pods are %v", b.Status.DisruptedPods)
	}
	t.budgeted("the pod to count", func(s *policyv1.PodDisruptionBudgetStatus) bool { return s.CurrentHealthy == 1 })
})

var _ = It(disruption+"should block an eviction until the PDB is updated to allow it", func(t *T) {
	t.makeBudget(t.NS, "b", "3")
	t.makeReplicaSet("web", "web", 3, func(rs *appsv1.ReplicaSet) { rs.Spec.Template.Spec.ReadinessGates = nil })
	healthy := func(desired int32) func(*policyv1.PodDisruptionBudgetStatus) bool {
		return func(s *policyv1.PodDisruptionBudgetStatus) bool {
			return s.CurrentHealthy == 3 && s.DesiredHealthy == desired
		}
	}
	name := t.webs(3)
	t.blocked(name)
	t.updateBudget(func(b *policyv1.PodDisruptionBudget) { b.Spec.MinAvailable = ptr.To(intstr.FromInt32(2)) }, t.budgets(t.NS).Update)
	t.budgeted("2 of 3 pods to be enough", healthy(2))
	t.must(t.evict(name))
	t.patchBudget(dict{"spec": dict{"minAvailable": nil, "maxUnavailable": 0}})
	name = t.webs(3)
	t.budgeted("3 of 3 pods to be needed", healthy(3))
	t.blocked(name)
	t.must(t.budgets(t.NS).Delete(t.Context(), "b", remove))
	t.must(t.evict(name))
})
