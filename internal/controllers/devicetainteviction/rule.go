package devicetainteviction

import (
	"context"
	"fmt"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/sets"
	metav1apply "k8s.io/client-go/applyconfigurations/meta/v1"
	resourceapply "k8s.io/client-go/applyconfigurations/resource/v1"

	"keelson.dev/keelson/internal/reconcile"
)

const (
	// statusPeriod is the shortest time between two writes of a rule's status for
	// one generation.
	statusPeriod = 10 * time.Second
	fieldManager = "device-taint-eviction-controller"
)

// reconcileRule reports in a rule's EvictionInProgress condition how many pods
// are to be evicted because of it, and how many were.
func (e *controller) reconcileRule(ctx context.Context, rule *resourceapi.DeviceTaintRule) (reconcile.Result, error) {
	before := meta.FindStatusCondition(rule.Status.Conditions, resourceapi.DeviceTaintConditionEvictionInProgress)
	now := e.clock.Now()
	if before != nil && before.ObservedGeneration == rule.Generation {
		if rule.Spec.Taint.Effect == resourceapi.DeviceTaintEffectNone {
			return reconcile.Result{}, nil // the preview is made once
		}
		if since := now.Sub(before.LastTransitionTime.Time); since >= 0 && since < statusPeriod {
			return reconcile.Result{RequeueAfter: statusPeriod - since}, nil
		}
	}
	e.mu.Lock()
	evicted := e.evicted[rule.UID]
	e.mu.Unlock()
	c, err := e.condition(rule, evicted)
	if err != nil {
		return reconcile.Result{}, err
	}
	if before != nil {
		c.LastTransitionTime = before.LastTransitionTime
	}
	again := reconcile.Result{}
	if c.Status == metav1.ConditionTrue {
		again.RequeueAfter = statusPeriod // pods also end for other reasons
	}
	if before != nil && c == *before {
		return again, nil
	}
	apply := resourceapply.DeviceTaintRule(rule.Name).WithUID(rule.UID).WithStatus(resourceapply.DeviceTaintRuleStatus().WithConditions(
		metav1apply.Condition().WithType(c.Type).WithStatus(c.Status).WithReason(c.Reason).WithMessage(c.Message).
			WithObservedGeneration(c.ObservedGeneration).WithLastTransitionTime(metav1.NewTime(now))))
	if _, err := e.client.ResourceV1().DeviceTaintRules().ApplyStatus(ctx, apply, metav1.ApplyOptions{FieldManager: fieldManager, Force: true}); err != nil {
		return reconcile.Result{}, fmt.Errorf("add condition to DeviceTaintRule status: %w", err)
	}
	return again, nil
}

// condition returns the condition that a rule is to have; its time is not set.
func (e *controller) condition(rule *resourceapi.DeviceTaintRule, evicted int) (metav1.Condition, error) {
	c := metav1.Condition{Type: resourceapi.DeviceTaintConditionEvictionInProgress, Status: metav1.ConditionFalse, ObservedGeneration: rule.Generation}
	switch rule.Spec.Taint.Effect {
	case resourceapi.DeviceTaintEffectNoExecute:
		pods, namespaces, err := e.pending(rule)
		if err != nil {
			return c, err
		}
		switch {
		case pods > 0:
			c.Status, c.Reason = metav1.ConditionTrue, "PodsPendingEviction"
			c.Message = number(pods, "pod needs", "pods need") + " to be evicted in " + number(namespaces, "namespace", "different namespaces") + "."
		case evicted > 0:
			c.Reason = "Completed"
		default:
			c.Reason = "NotStarted"
		}
	case resourceapi.DeviceTaintEffectNone:
		pods, namespaces, err := e.pending(rule)
		if err != nil {
			return c, err
		}
		published, allocated := e.selectedDevices(rule)
		c.Reason = "NoEffect"
		c.Message = number(published, "published device", "published devices") + " selected. " + number(allocated, "allocated device", "allocated devices") + " selected. " +
			number(pods, "pod", "pods") + " would be evicted in " + number(namespaces, "namespace", "different namespaces") +
			" if the effect was NoExecute. This information will not be updated again. Recreate the DeviceTaintRule to trigger an update."
	default:
		c.Reason, c.Message = "OtherEffect", "Eviction only happens for the NoExecute effect."
	}
	if evicted > 0 {
		if c.Message != "" {
			c.Message += " "
		}
		c.Message += number(evicted, "pod", "pods") + " evicted since starting the controller."
	}
	return c, nil
}

// number returns "1 pod", "2 pods".
func number(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// pending counts the pods that a rule evicts, or would with effect NoExecute, and
// their namespaces.
func (e *controller) pending(rule *resourceapi.DeviceTaintRule) (pods, namespaces int, err error) {
	list, err := e.pods.List(labels.Everything())
	if err != nil {
		return 0, 0, fmt.Errorf("determine pending pods: %w", err)
	}
	in := sets.New[string]()
	for _, p := range list {
		if e.dueBy(p, []*resourceapi.DeviceTaintRule{rule}, false) != nil {
			pods++
			in.Insert(p.Namespace)
		}
	}
	return pods, in.Len(), nil
}

// selectedDevices counts the devices that a rule selects in the newest slices, and
// the allocated ones among them.
func (e *controller) selectedDevices(rule *resourceapi.DeviceTaintRule) (published, allocated int) {
	for _, key := range e.sliceIndex.ListIndexFuncValues(poolIndex) {
		for _, s := range e.pool(key) {
			for i := range s.Spec.Devices {
				if selects(rule, s.Spec.Driver, s.Spec.Pool.Name, s.Spec.Devices[i].Name) {
					published++
				}
			}
		}
	}
	for _, o := range e.claimIndex.List() {
		for _, d := range devices(o.(*resourceapi.ResourceClaim)) {
			if selects(rule, d.Driver, d.Pool, d.Device) {
				allocated++
			}
		}
	}
	return published, allocated
}
