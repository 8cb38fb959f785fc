package apiserver_test

import (
	"context"
	"encoding/json"
	"testing"

	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/trace"
	"keelson.dev/keelson/internal/trace/timeline"
	"keelson.dev/keelson/testcluster"
)

func TestEviction(t *testing.T) {
	ctx := t.Context()
	client := kubernetes.NewForConfigOrDie(testcluster.Start(t, testcluster.WithoutControllers()).InProcess)
	pods, pdbs := client.CoreV1().Pods("default"), client.PolicyV1().PodDisruptionBudgets("default")
	if _, err := client.CoreV1().ServiceAccounts("default").Create(ctx, &v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	ready := []v1.PodCondition{{Type: v1.PodReady, Status: v1.ConditionTrue}}
	for name, c := range map[string]struct {
		status v1.PodStatus
		budget *policyv1.PodDisruptionBudgetStatus
		policy *policyv1.UnhealthyPodEvictionPolicyType
		stale  bool // the budget's controller has not seen its spec
		opts   *metav1.DeleteOptions
		// err and cause are those of the answer; allowed is what is left of the budget.
		err, cause string
		allowed    int32
	}{
		"free":    {status: v1.PodStatus{Phase: v1.PodRunning, Conditions: ready}},
		"allowed": {status: v1.PodStatus{Phase: v1.PodRunning, Conditions: ready}, budget: &policyv1.PodDisruptionBudgetStatus{DisruptionsAllowed: 1, CurrentHealthy: 2, DesiredHealthy: 1}},
		"dry": {status: v1.PodStatus{Phase: v1.PodRunning, Conditions: ready}, budget: &policyv1.PodDisruptionBudgetStatus{DisruptionsAllowed: 1, CurrentHealthy: 2, DesiredHealthy: 1},
			opts: &metav1.DeleteOptions{DryRun: []string{"All"}}, allowed: 1},
		"spent": {status: v1.PodStatus{Phase: v1.PodRunning, Conditions: ready}, budget: &policyv1.PodDisruptionBudgetStatus{CurrentHealthy: 1, DesiredHealthy: 1},
			err: "Cannot evict pod as it would violate the pod's disruption budget.", cause: "The disruption budget spent needs 1 healthy pods and has 1 currently"},
		"stale": {status: v1.PodStatus{Phase: v1.PodRunning, Conditions: ready}, budget: &policyv1.PodDisruptionBudgetStatus{DisruptionsAllowed: 1}, stale: true, allowed: 1,
			err: "Cannot evict pod as it would violate the pod's disruption budget.", cause: "The disruption budget stale is still being processed by the server."},
		"pending": {status: v1.PodStatus{Phase: v1.PodPending}, budget: &policyv1.PodDisruptionBudgetStatus{CurrentHealthy: 1, DesiredHealthy: 1}},
		"ended":   {status: v1.PodStatus{Phase: v1.PodSucceeded}, budget: &policyv1.PodDisruptionBudgetStatus{CurrentHealthy: 1, DesiredHealthy: 1}},
		"sick":    {status: v1.PodStatus{Phase: v1.PodRunning}, budget: &policyv1.PodDisruptionBudgetStatus{CurrentHealthy: 1, DesiredHealthy: 1}},
		"sickest": {status: v1.PodStatus{Phase: v1.PodRunning}, budget: &policyv1.PodDisruptionBudgetStatus{CurrentHealthy: 0, DesiredHealthy: 1},
			err: "Cannot evict pod as it would violate the pod's disruption budget.", cause: "The disruption budget sickest needs 1 healthy pods and has 0 currently"},
		"always": {status: v1.PodStatus{Phase: v1.PodRunning}, budget: &policyv1.PodDisruptionBudgetStatus{CurrentHealthy: 0, DesiredHealthy: 1}, policy: ptr.To(policyv1.AlwaysAllow)},
		"moved": {status: v1.PodStatus{Phase: v1.PodRunning, Conditions: ready}, opts: &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: ptr.To("1")}},
			err: "Operation cannot be fulfilled on pods \"moved\": Precondition failed: ResourceVersion in precondition: 1, ResourceVersion in object meta: "},
	} {
		t.Run(name, func(t *testing.T) {
			// The finalizer keeps the pod for a look at it.
			pod, err := pods.Create(ctx, &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": name}, Finalizers: []string{"example.com/keep"}},
				Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "i"}}}}, metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			pod.Status = c.status
			if _, err = pods.UpdateStatus(ctx, pod, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
			if c.budget != nil {
				pdb, err := pdbs.Create(ctx, &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: policyv1.PodDisruptionBudgetSpec{
					MinAvailable: ptr.To(intstr.FromInt32(1)), UnhealthyPodEvictionPolicy: c.policy,
					Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}}}, metav1.CreateOptions{})
				if err != nil {
					t.Fatal(err)
				}
				pdb.Status = *c.budget
				if !c.stale {
					pdb.Status.ObservedGeneration = pdb.Generation
				}
				if _, err := pdbs.UpdateStatus(ctx, pdb, metav1.UpdateOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			// A typed client would wait and retry after 429.
			err = client.PolicyV1().RESTClient().Post().AbsPath("/api/v1/namespaces/default/pods/" + name + "/eviction").MaxRetries(0).
				Body(&policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: name}, DeleteOptions: c.opts}).Do(ctx).Error()
			got, cause := "", ""
			if err != nil {
				got = err.Error()
				if details := err.(apierrors.APIStatus).Status().Details; details != nil && len(details.Causes) > 0 { //nolint:errorlint // a client's error
					cause = details.Causes[0].Message
				}
			}
			if c.err == "" && got != "" || len(got) < len(c.err) || got[:len(c.err)] != c.err || cause != c.cause {
				t.Errorf("answer %q, cause %q; want %q, %q", got, cause, c.err, c.cause)
			}
			dry := c.opts != nil && len(c.opts.DryRun) > 0
			after, err := pods.Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if gone := after.DeletionTimestamp != nil; gone != (c.err == "" && !dry) {
				t.Errorf("deleted: %v", gone)
			}
			told := false
			for _, cond := range after.Status.Conditions {
				told = told || cond.Type == v1.DisruptionTarget && cond.Reason == "EvictionByEvictionAPI" && cond.Message == "Eviction API: evicting"
			}
			if want := c.err == "" && !dry && c.status.Phase != v1.PodSucceeded; told != want {
				t.Errorf("the pod says that it is evicted: %v, want %v", told, want)
			}
			if c.budget != nil {
				pdb, err := pdbs.Get(ctx, name, metav1.GetOptions{})
				if err != nil {
					t.Fatal(err)
				}
				_, counted := pdb.Status.DisruptedPods[name]
				if pdb.Status.DisruptionsAllowed != c.allowed || counted != (c.budget.DisruptionsAllowed > c.allowed) {
					t.Errorf("the budget allows %d (want %d), has the pod: %v", pdb.Status.DisruptionsAllowed, c.allowed, counted)
				}
			}
		})
	}
	// The trace has each write as what it was: of the budget, one of its status.
	for resource, want := range map[string]string{"poddisruptionbudgets.policy": "update status", "pods": "delete eviction"} {
		gr := schema.ParseGroupResource(resource)
		data, err := client.Discovery().RESTClient().Get().AbsPath(trace.Path).Param("resource", gr.Resource).Param("group", gr.Group).Param("namespace", "default").Param("name", "allowed").DoRaw(ctx)
		var way timeline.Timeline
		if err == nil {
			err = json.Unmarshal(data, &way)
		}
		if err != nil {
			t.Fatal(err)
		}
		if last := way.Steps[len(way.Steps)-1]; last.Resource != resource || last.Verb+" "+last.Subresource != want {
			t.Errorf("the last step of %s is %s %s of %s, want %s", resource, last.Verb, last.Subresource, last.Resource, want)
		}
	}
	err := pods.EvictV1(context.Background(), &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "none"}})
	if !apierrors.IsNotFound(err) {
		t.Errorf("evicting no pod: %v", err)
	}
}
