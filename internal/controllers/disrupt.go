package controllers

import (
	"context"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"
)

// SetPodCondition puts c into s in place of the condition of its type. Its last
// transition is now.
func SetPodCondition(s *v1.PodStatus, c v1.PodCondition, clk clock.PassiveClock) {
	c.LastTransitionTime = metav1.NewTime(clk.Now().UTC().Truncate(time.Second))
	s.Conditions = append(slices.DeleteFunc(s.Conditions, func(old v1.PodCondition) bool { return old.Type == c.Type }), c)
}

// Disrupt says in the pod's condition DisruptionTarget why the pod is deleted, and
// deletes it. It reports whether it has: a pod that is gone, or whose name is another's
// now, is left.
func Disrupt(ctx context.Context, client kubernetes.Interface, clk clock.PassiveClock, pod *v1.Pod, reason, message string) (bool, error) {
	pods, next := client.CoreV1().Pods(pod.Namespace), pod.DeepCopy()
	SetPodCondition(&next.Status, v1.PodCondition{Type: v1.DisruptionTarget, Status: v1.ConditionTrue, Reason: reason, Message: message}, clk)
	if _, err := pods.UpdateStatus(ctx, next, metav1.UpdateOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return false, err
	}
	err := pods.Delete(ctx, pod.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(pod.UID))})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return false, nil
	}
	return err == nil, err
}
