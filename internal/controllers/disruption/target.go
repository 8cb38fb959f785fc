package disruption

import (
	"context"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/internal/api/podspec"
	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/reconcile"
)

// staleTimeout is how long a pod may have the condition DisruptionTarget without
// being deleted.
const staleTimeout = 2 * time.Minute

// targeted reports whether a pod has a condition DisruptionTarget that is to be
// taken back once wait has passed. A kubelet's stays, however long it needs to end
// the pod.
func (r *controller) targeted(p *v1.Pod) (wait time.Duration, ok bool) {
	c := podspec.Condition(p, v1.DisruptionTarget)
	if c == nil || c.Status != v1.ConditionTrue || c.Reason == v1.PodReasonTerminationByKubelet || !controllers.PodActive(p) {
		return 0, false
	}
	return max(staleTimeout-r.clock.Since(c.LastTransitionTime.Time), 0), true
}

// reset takes a stale condition DisruptionTarget back.
func (r *controller) reset(ctx context.Context, p *v1.Pod) (reconcile.Result, error) {
	wait, ok := r.targeted(p)
	if !ok || wait > 0 {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	next := p.DeepCopy()
	*podspec.Condition(next, v1.DisruptionTarget) = v1.PodCondition{
		Type: v1.DisruptionTarget, Status: v1.ConditionFalse, ObservedGeneration: p.Generation, LastTransitionTime: metav1.NewTime(r.clock.Now()),
	}
	_, err := r.client.CoreV1().Pods(p.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{})
	return reconcile.Result{}, err
}
