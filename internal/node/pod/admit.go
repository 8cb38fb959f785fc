package pod

import (
	"context"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/internal/node/admission"
	"keelson.dev/keelson/internal/node/podspec"
	"keelson.dev/keelson/internal/node/preemption"
)

// admit gives the pod its place on the node, or returns why it cannot have one. Pods are admitted one
// after another, so that each knows what those before it have taken. It returns when the pods that
// make room for this one have ended, or the pod itself is to end.
func (w *worker) admit(ctx context.Context, pod *v1.Pod) *admission.Rejection {
	node := w.Admission.Node(ctx, pod)
	if ctx.Err() != nil {
		return nil // the agent ends
	}
	victims, r := w.take(ctx, node, pod)
	if r != nil || victims == nil {
		return r
	}
	for _, v := range victims.Pods {
		if w.await(ctx, v) {
			w.Metrics.Preempted(string(victims.Resource))
		}
	}
	return nil
}

func (w *worker) take(ctx context.Context, node *admission.Node, pod *v1.Pod) (*admission.Victims, *admission.Rejection) {
	w.taking.Lock()
	defer w.taking.Unlock()
	victims, r := w.Admission.Admit(ctx, node, pod)
	if r != nil {
		return nil, r
	}
	w.admitted.Store(true)
	if victims != nil {
		for _, v := range victims.Pods {
			klog.FromContext(ctx).Info("A pod makes room for this one", "victim", klog.KObj(v), "resource", victims.Resource)
			w.Recorder.Event(v, v1.EventTypeWarning, preemption.Reason, preemption.Message)
			w.Fail(v.UID, &Failure{Reason: preemption.Reason, Message: preemption.Message,
				Condition: &v1.PodCondition{Type: v1.DisruptionTarget, Status: v1.ConditionTrue, Reason: v1.PodReasonTerminationByKubelet, Message: preemption.Condition}})
		}
	}
	return victims, nil
}

// leastKill is the least time that the end of a pod is waited for.
const leastKill = 10 * time.Second

// await waits for the end of a pod that makes room, for half as long again as its containers have to
// end, and reports whether it has ended.
func (w *worker) await(ctx context.Context, victim *v1.Pod) bool {
	grace := time.Duration(podspec.GracePeriod(victim)) * time.Second
	limit := w.Clock.NewTimer(max(grace+grace/2, leastKill))
	defer limit.Stop()
	other := w.worker(victim.UID)
	if other == nil {
		return true
	}
	select {
	case <-other.ending.done:
		return true
	case <-w.running.Done():
	case <-limit.C():
		w.Recorder.Event(victim, v1.EventTypeWarning, "ExceededGracePeriod", "Container runtime did not kill the pod within specified grace period.")
		klog.FromContext(ctx).Error(nil, "A pod that makes room has not ended in time", "victim", klog.KObj(victim))
	}
	return false
}
