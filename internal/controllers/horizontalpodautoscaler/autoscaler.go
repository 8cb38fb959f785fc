package horizontalpodautoscaler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	v2 "k8s.io/api/autoscaling/v2"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/scale"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/retry"
	"k8s.io/klog/v2"
	resourceclient "k8s.io/metrics/pkg/client/clientset/versioned/typed/metrics/v1beta1"
	customclient "k8s.io/metrics/pkg/client/custom_metrics"
	externalclient "k8s.io/metrics/pkg/client/external_metrics"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/reconcile"
)

const (
	// lag is the time after which an autoscaler is looked at again if the cache
	// is behind.
	lag     = 100 * time.Millisecond
	workers = 5
)

type controller struct {
	client   kubernetes.Interface
	scales   scale.ScalesGetter
	mapper   meta.RESTMapper
	source   *source
	recorder record.EventRecorder
	clock    clock.Clock
	pods     corelisters.PodLister
	writes   controllers.Writes
	metrics  *metrics
	tuning   controllers.HorizontalPodAutoscaler

	mu    sync.Mutex
	known map[string]*known // by key
}

// known is the state that the controller keeps for an autoscaler.
type known struct {
	past     past // of one worker at a time
	selector labels.Selector
}

// New makes the controller. It needs to know the cluster's resources, and a client of
// any kind.
func New(c controllers.Context) (reconcile.Run, error) {
	if c.Discovery == nil || c.RESTMapper == nil || c.Configs == nil {
		return nil, nil
	}
	config := c.Config()
	scales, err := scale.NewForConfig(config, c.RESTMapper, dynamic.LegacyAPIPathResolverFunc, scale.NewDiscoveryScaleKindResolver(c.Discovery))
	if err != nil {
		return nil, err
	}
	resources, err := resourceclient.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	external, err := externalclient.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	versions := customclient.NewAvailableAPIsGetter(c.Discovery)
	run := newRun(c, scales, &source{resource: resources, custom: customclient.NewForConfig(config, c.RESTMapper, versions), external: external})
	// A metrics adapter may be installed, or replaced, at any time.
	refresh := reconcile.Every(c.Clock, c.Tuned().HorizontalPodAutoscaler.SyncPeriod, func(context.Context) { versions.Invalidate() })
	return reconcile.Together(run, refresh), nil
}

func newRun(c controllers.Context, scales scale.ScalesGetter, from *source) reconcile.Run {
	hpas, pods := c.Informers.Autoscaling().V2().HorizontalPodAutoscalers().Informer(), c.Informers.Core().V1().Pods()
	h := &controller{client: c.Client(), scales: scales, mapper: c.RESTMapper, source: from, recorder: c.Recorder(), clock: c.Clock,
		pods: pods.Lister(), metrics: newMetrics(c.Metrics), known: map[string]*known{}, tuning: c.Tuned().HorizontalPodAutoscaler}
	queue := c.Queue("horizontalpodautoscaler")
	reconcile.Handle(hpas, reconcile.Enqueue[*v2.HorizontalPodAutoscaler](queue), func(old, cur *v2.HorizontalPodAutoscaler) {
		if old.Generation != cur.Generation || old.UID != cur.UID {
			queue.Add(reconcile.Key(cur))
		}
	}, nil)
	return reconcile.Loop[*v2.HorizontalPodAutoscaler]{Queue: queue, Workers: c.Workers(workers), For: hpas, Reads: []cache.SharedIndexInformer{pods.Informer()},
		Reconcile: h.reconcile, Gone: h.gone}.Run
}

// of returns what is remembered of an autoscaler.
func (c *controller) of(key string) *known {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.known[key]
	if k == nil {
		k = &known{selector: labels.Nothing()}
		c.known[key] = k
		c.metrics.count.Set(float64(len(c.known)))
	}
	return k
}

func (c *controller) gone(_ context.Context, key string) error {
	c.writes.Forget(key)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.known, key)
	c.metrics.count.Set(float64(len(c.known)))
	c.metrics.desired.DeleteLabelValues(reconcile.SplitKey(key))
	return nil
}

// others returns the keys of the autoscalers of a namespace that select one of pods.
func (c *controller) others(namespace string, pods []*v1.Pod) (out []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, k := range c.known {
		ns, _ := reconcile.SplitKey(key)
		if ns == namespace && slices.ContainsFunc(pods, func(p *v1.Pod) bool { return k.selector.Matches(labels.Set(p.Labels)) }) {
			out = append(out, key)
		}
	}
	slices.Sort(out)
	return out
}

// errSpec is the error of an invalid spec of an autoscaler.
var errSpec = errors.New("")

// reconcile looks at an autoscaler. Failures are reported in its conditions and
// events, and it is looked at again after the usual period.
func (c *controller) reconcile(ctx context.Context, shared *v2.HorizontalPodAutoscaler) (reconcile.Result, error) {
	if shared.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	if c.writes.Behind(shared) {
		return reconcile.Result{RequeueAfter: lag}, nil
	}
	begun := c.clock.Now()
	did, err := c.autoscale(ctx, shared.DeepCopy())
	failure := none
	switch {
	case errors.Is(err, errSpec):
		failure = specError
	case err != nil:
		failure = internal
	}
	if err != nil && ctx.Err() == nil {
		klog.FromContext(ctx).V(2).Info("Autoscaling failed", "hpa", klog.KObj(shared), "err", err)
	}
	c.metrics.reconciled(did, failure, c.clock.Since(begun))
	return reconcile.Result{RequeueAfter: c.tuning.SyncPeriod}, nil
}

// autoscale sets the replicas of hpa's target, and hpa's status; it returns the
// action that it has taken.
func (c *controller) autoscale(ctx context.Context, hpa *v2.HorizontalPodAutoscaler) (did string, err error) {
	was := hpa.Status.DeepCopy()
	ref := hpa.Spec.ScaleTargetRef
	reference := fmt.Sprintf("%s/%s/%s", ref.Kind, hpa.Namespace, ref.Name)
	gr, now, err := c.scale(ctx, hpa)
	if err != nil {
		c.recorder.Event(hpa, v1.EventTypeWarning, "FailedGetScale", err.Error())
		c.set(hpa, v2.AbleToScale, v1.ConditionFalse, "FailedGetScale", fmt.Sprintf("the HPA controller was unable to get the target's current scale: %v", err))
		return none, errors.Join(fmt.Errorf("failed to query scale subresource for %s: %w", reference, err), c.write(ctx, was, hpa))
	}
	c.set(hpa, v2.AbleToScale, v1.ConditionTrue, "SucceededGetScale", "the HPA controller was able to get the target's current scale")
	current, least := now.Spec.Replicas, int32(1)
	if hpa.Spec.MinReplicas != nil {
		least = *hpa.Spec.MinReplicas
	}
	k := c.of(reconcile.Key(hpa))
	if len(k.past.recommended) == 0 {
		k.past.recommended = []moment{{current, c.clock.Now()}}
	}

	outside := slices.ContainsFunc(hpa.Spec.Metrics, func(m v2.MetricSpec) bool {
		return m.Type == v2.ObjectMetricSourceType || m.Type == v2.ExternalMetricSourceType
	})
	// A target that was scaled to zero by hand stays there.
	ours := slices.ContainsFunc(hpa.Status.Conditions, func(c v2.HorizontalPodAutoscalerCondition) bool {
		return c.Type == v2.ScaledToZero && c.Status == v1.ConditionTrue
	})
	desired, reason := current, ""
	var statuses []v2.MetricStatus
	var invalid error
	switch {
	case current == 0 && !(ours && (outside || least != 0)):
		c.set(hpa, v2.ScalingActive, v1.ConditionFalse, "ScalingDisabled", "scaling is disabled since the replica count of the target is zero")
	case current > hpa.Spec.MaxReplicas:
		desired, reason = hpa.Spec.MaxReplicas, "Current number of replicas above Spec.MaxReplicas"
	case current != 0 && current < least:
		desired, reason = least, "Current number of replicas below Spec.MinReplicas"
	default:
		var best answer
		var ok bool
		best, statuses, ok, invalid = c.measure(ctx, hpa, now, k)
		if !ok {
			c.recorder.Event(hpa, v1.EventTypeWarning, "FailedComputeMetricsReplicas", invalid.Error())
			c.fill(hpa, current, hpa.Status.DesiredReplicas, statuses)
			return none, errors.Join(fmt.Errorf("failed to compute desired number of replicas based on listed metrics for %s: %w", reference, invalid), c.write(ctx, was, hpa))
		}
		desired = max(best.replicas, 0)
		switch {
		case desired > current:
			reason = best.name + " above target"
		case desired < current:
			reason = "All metrics below target"
		}
		v := k.past.judge(desired, bounds{current: current, least: least, most: hpa.Spec.MaxReplicas, behavior: hpa.Spec.Behavior, stabilization: c.tuning.DownscaleStabilization}, c.clock.Now())
		c.set(hpa, v2.AbleToScale, v1.ConditionTrue, v.able, v.ableMessage)
		limited := v1.ConditionFalse
		if v.limited {
			limited = v1.ConditionTrue
		}
		c.set(hpa, v2.ScalingLimited, limited, v.limit, v.limitedMessage)
		desired = v.replicas
		if current == 0 && least > 0 && reason == "" {
			// minReplicas was raised while there were no replicas.
			desired, reason = max(desired, least), "Current number of replicas below Spec.MinReplicas"
		}
	}
	did = action(current, desired)
	if desired != current {
		if err := c.rescale(ctx, hpa, gr, now, desired); err != nil {
			c.recorder.Eventf(hpa, v1.EventTypeWarning, "FailedRescale", "New size: %d; reason: %s; error: %v", desired, reason, err.Error())
			c.set(hpa, v2.AbleToScale, v1.ConditionFalse, "FailedUpdateScale", fmt.Sprintf("the HPA controller was unable to update the target scale: %v", err))
			c.fill(hpa, current, hpa.Status.DesiredReplicas, statuses)
			return none, errors.Join(fmt.Errorf("failed to rescale %s: %w", reference, err), c.write(ctx, was, hpa))
		}
		c.set(hpa, v2.AbleToScale, v1.ConditionTrue, "SucceededRescale", fmt.Sprintf("the HPA controller was able to update the target scale to %d", desired))
		c.recorder.Eventf(hpa, v1.EventTypeNormal, "SuccessfulRescale", "New size: %d; reason: %s", desired, reason)
		k.past.changed(hpa.Spec.Behavior, current, desired, c.clock.Now())
		if desired == 0 && least == 0 && outside {
			c.set(hpa, v2.ScaledToZero, v1.ConditionTrue, "ScaledToZero", "the HPA controller scaled the workload to zero")
		} else {
			c.set(hpa, v2.ScaledToZero, v1.ConditionFalse, "NotScaledToZero", "the HPA controller did not scale the workload to zero")
		}
		hpa.Status.LastScaleTime = &metav1.Time{Time: c.clock.Now()}
	}
	c.fill(hpa, current, desired, statuses)
	c.metrics.desired.WithLabelValues(hpa.Namespace, hpa.Name).Set(float64(desired))
	return did, errors.Join(invalid, c.write(ctx, was, hpa))
}

// scale returns the resource that hpa names, and its scale.
func (c *controller) scale(ctx context.Context, hpa *v2.HorizontalPodAutoscaler) (gr schema.GroupResource, s *autoscalingv1.Scale, err error) {
	ref := hpa.Spec.ScaleTargetRef
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return gr, nil, fmt.Errorf("%w%w", err, errSpec)
	}
	gk := schema.GroupKind{Group: gv.Group, Kind: ref.Kind}
	mappings, err := c.mapper.RESTMappings(gk)
	if r, ok := c.mapper.(meta.ResettableRESTMapper); ok && meta.IsNoMatchError(err) {
		r.Reset() // the kind may be younger than what was discovered
		mappings, err = c.mapper.RESTMappings(gk)
	}
	if err != nil {
		return gr, nil, err
	}
	var first error
	for _, m := range mappings {
		gr := m.Resource.GroupResource()
		if s, err = c.scales.Scales(hpa.Namespace).Get(ctx, gr, ref.Name, metav1.GetOptions{}); err == nil {
			return gr, s, nil
		}
		if first == nil {
			first = err
		}
	}
	if first == nil {
		first = errors.New("unrecognized resource")
	}
	return gr, nil, first
}

// rescale sets the replicas that are wanted. It does so anew where the target has
// changed since it was read.
func (c *controller) rescale(ctx context.Context, hpa *v2.HorizontalPodAutoscaler, gr schema.GroupResource, s *autoscalingv1.Scale, desired int32) error {
	scales := c.scales.Scales(hpa.Namespace)
	return retry.RetryOnConflict(retry.DefaultRetry, func() error {
		s.Spec.Replicas = desired
		_, err := scales.Update(ctx, gr, s, metav1.UpdateOptions{})
		if err != nil {
			if latest, err := scales.Get(ctx, gr, hpa.Spec.ScaleTargetRef.Name, metav1.GetOptions{}); err == nil {
				s = latest
			}
		}
		return err
	})
}

// measure evaluates all metrics, and returns the result with the most replicas. It
// is ok unless all have failed, or one has that could have kept the number from
// decreasing; the error has the failures in any case.
func (c *controller) measure(ctx context.Context, hpa *v2.HorizontalPodAutoscaler, s *autoscalingv1.Scale, k *known) (best answer, statuses []v2.MetricStatus, ok bool, err error) {
	selector, pods, err := c.selected(hpa, s.Status.Selector, k)
	if err != nil {
		return best, nil, false, err
	}
	q := question{hpa: hpa, selector: selector, pods: pods, spec: s.Spec.Replicas, status: s.Status.Replicas, within: c.tolerances(hpa)}
	statuses = make([]v2.MetricStatus, len(hpa.Spec.Metrics))
	var first *failure
	invalid := 0
	for i := range hpa.Spec.Metrics {
		m := &hpa.Spec.Metrics[i]
		begun := c.clock.Now()
		a, failed := c.ask(ctx, q, m)
		if failed != nil {
			kind := internal
			if failed.reason == "InvalidMetricSourceType" {
				kind = specError
			}
			c.metrics.computed(none, kind, m.Type, c.clock.Since(begun))
			c.recorder.Event(hpa, v1.EventTypeWarning, failed.reason, failed.cause.Error())
			if first == nil {
				first = failed
			}
			invalid++
			continue
		}
		c.metrics.computed(action(hpa.Status.CurrentReplicas, a.replicas), none, m.Type, c.clock.Since(begun))
		statuses[i] = a.status
		if best.replicas == 0 || a.replicas > best.replicas {
			best = a
		}
	}
	if first != nil {
		err = fmt.Errorf("invalid metrics (%v invalid out of %v), first error is: %w", invalid, len(hpa.Spec.Metrics), first.error)
		if invalid == len(hpa.Spec.Metrics) || best.replicas < q.spec {
			c.set(hpa, v2.ScalingActive, v1.ConditionFalse, first.reason, fmt.Sprintf("the HPA was unable to compute the replica count: %v", first.cause))
			return best, statuses, false, err
		}
	}
	c.set(hpa, v2.ScalingActive, v1.ConditionTrue, "ValidMetricFound", "the HPA was able to successfully calculate a replica count from "+best.name)
	return best, statuses, true, err
}

// selected returns the pods that a scale's selector selects, which are those of one
// autoscaler only.
func (c *controller) selected(hpa *v2.HorizontalPodAutoscaler, text string, k *known) (labels.Selector, []*v1.Pod, error) {
	invalid := func(event, reason, message, condition string) error {
		c.recorder.Event(hpa, v1.EventTypeWarning, event, message)
		c.set(hpa, v2.ScalingActive, v1.ConditionFalse, reason, condition)
		return errors.New(message)
	}
	if text == "" {
		return nil, nil, invalid("SelectorRequired", "InvalidSelector", "selector is required", "the HPA target's scale is missing a selector")
	}
	selector, err := labels.Parse(text)
	if err != nil {
		message := fmt.Sprintf("couldn't convert selector into a corresponding internal selector object: %v", err)
		return nil, nil, invalid("InvalidSelector", "InvalidSelector", message, message)
	}
	c.mu.Lock()
	k.selector = selector
	c.mu.Unlock()
	pods, err := c.pods.Pods(hpa.Namespace).List(selector)
	if err != nil {
		return nil, nil, err
	}
	if others := c.others(hpa.Namespace, pods); len(others) > 1 {
		message := fmt.Sprintf("pods by selector %v are controlled by multiple HPAs: %v", text, others)
		return nil, nil, invalid("AmbiguousSelector", "AmbiguousSelector", message, message)
	}
	return selector, pods, nil
}

// starts says for how long pods are at their start.
func (c *controller) starts() starts {
	return starts{c.tuning.CPUInitializationPeriod, c.tuning.InitialReadinessDelay}
}

// tolerances returns those of an autoscaler.
func (c *controller) tolerances(hpa *v2.HorizontalPodAutoscaler) tolerances {
	t := tolerances{c.tuning.Tolerance, c.tuning.Tolerance}
	if b := hpa.Spec.Behavior; b != nil {
		if b.ScaleDown != nil && b.ScaleDown.Tolerance != nil {
			t.down = b.ScaleDown.Tolerance.AsApproximateFloat64()
		}
		if b.ScaleUp != nil && b.ScaleUp.Tolerance != nil {
			t.up = b.ScaleUp.Tolerance.AsApproximateFloat64()
		}
	}
	return t
}

// set sets a condition.
func (c *controller) set(hpa *v2.HorizontalPodAutoscaler, t v2.HorizontalPodAutoscalerConditionType, status v1.ConditionStatus, reason, message string) {
	i := slices.IndexFunc(hpa.Status.Conditions, func(c v2.HorizontalPodAutoscalerCondition) bool { return c.Type == t })
	if i < 0 {
		i = len(hpa.Status.Conditions)
		hpa.Status.Conditions = append(hpa.Status.Conditions, v2.HorizontalPodAutoscalerCondition{Type: t})
	}
	cond := &hpa.Status.Conditions[i]
	if cond.Status != status {
		cond.LastTransitionTime = metav1.NewTime(c.clock.Now())
	}
	cond.Status, cond.Reason, cond.Message = status, reason, message
}

// fill sets the status but for its conditions and the time of the last change.
func (c *controller) fill(hpa *v2.HorizontalPodAutoscaler, current, desired int32, statuses []v2.MetricStatus) {
	hpa.Status.CurrentReplicas, hpa.Status.DesiredReplicas, hpa.Status.CurrentMetrics = current, desired, statuses
	generation := hpa.Generation
	hpa.Status.ObservedGeneration = &generation
}

// write writes the status if it has changed.
func (c *controller) write(ctx context.Context, was *v2.HorizontalPodAutoscalerStatus, hpa *v2.HorizontalPodAutoscaler) error {
	if equality.Semantic.DeepEqual(was, &hpa.Status) {
		return nil
	}
	written, err := c.client.AutoscalingV2().HorizontalPodAutoscalers(hpa.Namespace).UpdateStatus(ctx, hpa, metav1.UpdateOptions{})
	if err != nil {
		c.recorder.Event(hpa, v1.EventTypeWarning, "FailedUpdateStatus", err.Error())
		return fmt.Errorf("failed to update status for %s: %w", hpa.Name, err)
	}
	c.writes.Wrote(written)
	return nil
}
