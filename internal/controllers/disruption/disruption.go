package disruption

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	apps "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	policylisters "k8s.io/client-go/listers/policy/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/scale"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/component-helpers/apps/poddisruptionbudget"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/reconcile"
)

// deletionTimeout is how long after its eviction was allowed a pod must be seen
// to be deleted: it counts as healthy again otherwise.
const deletionTimeout = 2 * time.Minute

type controller struct {
	client    kubernetes.Interface
	recorder  record.EventRecorder
	clock     clock.Clock
	budgets   policylisters.PodDisruptionBudgetLister
	pods      corelisters.PodLister
	workloads *workloads
	queue     reconcile.Queue // of budgets
	targets   reconcile.Queue // of pods that have the condition DisruptionTarget
}

// New makes the controller; it is nil where custom resources cannot be reached.
func New(c controllers.Context) (reconcile.Run, error) {
	if c.Configs == nil || c.Discovery == nil || c.RESTMapper == nil {
		return nil, nil
	}
	scales, err := scaleClient(c)
	if err != nil {
		return nil, err
	}
	return newWith(c, scales)
}

// scaleClient makes the client of the subresource scale.
func scaleClient(c controllers.Context) (scale.ScalesGetter, error) {
	// NewForConfig changes its configuration.
	return scale.NewForConfig(rest.CopyConfig(c.Config()), c.RESTMapper, dynamic.LegacyAPIPathResolverFunc, scale.NewDiscoveryScaleKindResolver(c.Discovery))
}

// newWith makes the controller with the client of the subresource scale.
func newWith(c controllers.Context, scales scale.ScalesGetter) (reconcile.Run, error) {
	budgets, pods := c.Informers.Policy().V1().PodDisruptionBudgets(), c.Informers.Core().V1().Pods()
	deployments, sets := c.Informers.Apps().V1().Deployments(), c.Informers.Apps().V1().ReplicaSets()
	stateful, old := c.Informers.Apps().V1().StatefulSets(), c.Informers.Core().V1().ReplicationControllers()
	r := &controller{
		client: c.Client(), recorder: c.Recorder(), clock: c.Clock, budgets: budgets.Lister(), pods: pods.Lister(),
		workloads: &workloads{
			deployments: deployments.Lister(), replicaSets: sets.Lister(), statefulSets: stateful.Lister(), replicationControllers: old.Lister(),
			mapper: c.RESTMapper, discovery: c.Discovery, scales: scales,
		},
		queue: c.Queue("disruption"), targets: c.Queue("stale_pod_disruption"),
	}
	reconcile.Handle(budgets.Informer(), reconcile.Enqueue[*policy.PodDisruptionBudget](r.queue), nil, nil)
	reconcile.Handle(pods.Informer(), r.podChanged, r.podUpdated, nil)
	rescaled(r, deployments.Informer(), func(d *apps.Deployment) *int32 { return d.Spec.Replicas })
	rescaled(r, sets.Informer(), func(s *apps.ReplicaSet) *int32 { return s.Spec.Replicas })
	rescaled(r, stateful.Informer(), func(s *apps.StatefulSet) *int32 { return s.Spec.Replicas })
	rescaled(r, old.Informer(), func(c *v1.ReplicationController) *int32 { return c.Spec.Replicas })
	reads := []cache.SharedIndexInformer{pods.Informer(), deployments.Informer(), sets.Informer(), stateful.Informer(), old.Informer()}
	return reconcile.Together(
		reconcile.Loop[*policy.PodDisruptionBudget]{Queue: r.queue, Workers: 5, For: budgets.Informer(), Reads: reads, Reconcile: r.reconcile}.Run,
		reconcile.Loop[*v1.Pod]{Queue: r.targets, For: pods.Informer(), Reconcile: r.reset}.Run,
	), nil
}

// rescaled queues the budgets of a namespace when a workload there is scaled: its
// pods may change long after that.
func rescaled[T metav1.Object](r *controller, inf cache.SharedIndexInformer, replicas func(T) *int32) {
	reconcile.Handle(inf, nil, func(old, cur T) {
		if ptr.Equal(replicas(old), replicas(cur)) {
			return
		}
		// A lister's only errors are those of its index.
		list, _ := r.budgets.PodDisruptionBudgets(cur.GetNamespace()).List(labels.Everything())
		for _, b := range list {
			r.queue.Add(reconcile.Key(b))
		}
	}, reconcile.Ignore)
}

// budgetsOf returns the budgets that select a pod, by name.
func (r *controller) budgetsOf(p *v1.Pod) []*policy.PodDisruptionBudget {
	list, _ := r.budgets.GetPodPodDisruptionBudgets(p) // the error is that there are none
	slices.SortFunc(list, func(a, b *policy.PodDisruptionBudget) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// podChanged queues all budgets of a pod, though the event is upstream's, which
// queues one: the others would count a pod that is no longer ready.
func (r *controller) podChanged(p *v1.Pod) {
	list := r.budgetsOf(p)
	if len(list) > 1 {
		r.recorder.Eventf(p, v1.EventTypeWarning, "MultiplePodDisruptionBudgets",
			"Pod %q/%q matches multiple PodDisruptionBudgets.  Chose %q arbitrarily.", p.Namespace, p.Name, list[0].Name)
	}
	for _, b := range list {
		r.queue.Add(reconcile.Key(b))
	}
	if wait, ok := r.targeted(p); ok {
		r.targets.AddAfter(reconcile.Key(p), wait)
	}
}

func (r *controller) podUpdated(old, p *v1.Pod) {
	if !maps.Equal(old.Labels, p.Labels) {
		for _, b := range r.budgetsOf(old) {
			r.queue.Add(reconcile.Key(b))
		}
	}
	r.podChanged(p)
}

// reconcile writes a budget's status. If that cannot be calculated, it allows no
// disruption, and is tried again.
func (r *controller) reconcile(ctx context.Context, b *policy.PodDisruptionBudget) (reconcile.Result, error) {
	status, recheck, failure := r.calculate(ctx, b)
	next := b.DeepCopy()
	if failure != nil {
		next.Status.DisruptionsAllowed = 0
		meta.SetStatusCondition(&next.Status.Conditions, metav1.Condition{
			Type: policy.DisruptionAllowedCondition, Status: metav1.ConditionFalse, Reason: policy.SyncFailedReason,
			Message: failure.Error(), ObservedGeneration: next.Status.ObservedGeneration,
		})
	} else {
		status.Conditions = next.Status.Conditions
		next.Status = status
		poddisruptionbudget.UpdateDisruptionAllowedCondition(next)
	}
	if !equality.Semantic.DeepEqual(b.Status, next.Status) {
		// An eviction that the cache does not show yet has another version.
		if _, err := r.client.PolicyV1().PodDisruptionBudgets(b.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{}); err != nil {
			return reconcile.Result{}, err
		}
	}
	return reconcile.Result{RequeueAfter: recheck}, failure
}

// calculate returns a budget's status without its conditions. recheck, if positive,
// is when it changes though nothing else does.
func (r *controller) calculate(ctx context.Context, b *policy.PodDisruptionBudget) (status policy.PodDisruptionBudgetStatus, recheck time.Duration, _ error) {
	pods, err := r.podsOf(b)
	if err != nil {
		r.recorder.Eventf(b, v1.EventTypeWarning, "NoPods", "Failed to get pods: %v", err)
		return status, 0, err
	}
	if len(pods) == 0 {
		r.recorder.Event(b, v1.EventTypeNormal, "NoPods", "No matching pods found")
	}
	expected, desired, unmanaged, err := r.expect(ctx, b, pods)
	if err != nil {
		r.recorder.Eventf(b, v1.EventTypeWarning, "CalculateExpectedPodCountFailed", "Failed to calculate the number of expected pods: %v", err)
		return status, 0, err
	}
	if unmanaged {
		r.recorder.Eventf(b, v1.EventTypeWarning, "UnmanagedPods", "Pods selected by this PodDisruptionBudget (selector: %v) were found "+
			"to be unmanaged. As a result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. "+
			"To account for these pods please set \".spec.minAvailable\" field of the PDB to an integer value.", b.Spec.Selector)
	}
	status.ObservedGeneration, status.ExpectedPods, status.DesiredHealthy = b.Generation, expected, desired
	status.DisruptedPods, recheck = r.disrupted(b, pods)
	for _, p := range pods {
		if _, leaving := status.DisruptedPods[p.Name]; !leaving && p.DeletionTimestamp == nil && controllers.PodReady(p) {
			status.CurrentHealthy++
		}
	}
	// A budget without pods allows nothing, so that its first pods are safe until
	// it is calculated for them.
	if expected > 0 {
		status.DisruptionsAllowed = max(status.CurrentHealthy-desired, 0)
	}
	return status, recheck, nil
}

func (r *controller) podsOf(b *policy.PodDisruptionBudget) ([]*v1.Pod, error) {
	selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
	if err != nil {
		return nil, err
	}
	return r.pods.Pods(b.Namespace).List(selector)
}

// expect returns how many pods a budget is of, and how many of them must be
// healthy. unmanaged reports whether it needed the replicas of controllers and
// there are pods that have none.
func (r *controller) expect(ctx context.Context, b *policy.PodDisruptionBudget, pods []*v1.Pod) (expected, desired int32, unmanaged bool, _ error) {
	least, most := b.Spec.MinAvailable, b.Spec.MaxUnavailable
	switch {
	case most == nil && least == nil:
		return 0, 0, false, nil
	case most == nil && least.Type == intstr.Int:
		return int32(len(pods)), least.IntVal, false, nil
	}
	expected, unmanaged, err := r.workloads.replicas(ctx, pods)
	if err != nil {
		return 0, 0, false, err
	}
	if most == nil {
		n, err := intstr.GetScaledValueFromIntOrPercent(least, int(expected), true)
		return expected, int32(n), unmanaged, err
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(most, int(expected), true)
	return expected, max(expected-int32(n), 0), unmanaged, err
}

// disrupted returns the pods whose eviction was allowed and that are not seen to be
// deleted yet; recheck is the time until the first of them is given up.
func (r *controller) disrupted(b *policy.PodDisruptionBudget, pods []*v1.Pod) (out map[string]metav1.Time, recheck time.Duration) {
	for _, p := range pods {
		at, ok := b.Status.DisruptedPods[p.Name]
		if !ok || p.DeletionTimestamp != nil {
			continue
		}
		left := at.Add(deletionTimeout).Sub(r.clock.Now())
		if left <= 0 {
			r.recorder.Eventf(p, v1.EventTypeWarning, "NotDeleted", "Pod was expected by PDB %s/%s to be deleted but it wasn't", b.Namespace, b.Name)
			continue
		}
		if out == nil {
			out = map[string]metav1.Time{}
		}
		out[p.Name] = at
		if recheck == 0 || left < recheck {
			recheck = left
		}
	}
	return out, recheck
}
