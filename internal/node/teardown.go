package node

import (
	"context"
	"os"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
)

// failure ends a pod from the node's side.
type failure struct {
	reason, message string
	// rejected: the node has not taken the pod.
	rejected bool
	// grace is the most that the containers have to end, in seconds; nil is no
	// such limit.
	grace *int64
	// condition is told in the pod's status; may be nil.
	condition *v1.PodCondition
}

// ending is how far the end of a pod has come.
type ending struct {
	// imposed ends the pod from outside of the loop.
	imposed atomic.Pointer[failure]
	// done: nothing of the pod runs, and its volumes are gone.
	done atomic.Bool

	// The rest is the loop's own.
	why     *failure  // why the pod must not run here any more
	begun   time.Time // when the taking down began
	cleared bool      // volumes and cgroup are gone
	told    bool      // the API was asked to delete the pod
}

// stop takes the pod down, a step further each time, to the end of the pod in
// the API and on the machine.
func (w *worker) stop(ctx context.Context, pod *v1.Pod, gone bool, obs *observed) (time.Duration, bool) {
	w.interrupt()
	if w.ending.begun.IsZero() {
		w.ending.begun = w.a.Clock.Now()
	}
	if len(obs.running()) > 0 {
		w.keepProbes(pod, obs)
		w.stopContainers(ctx, pod, gone, obs)
		if !gone {
			w.publish(ctx, pod, obs)
		}
		return idle, false
	}
	w.mu.Lock()
	starting := len(w.starts.busy) > 0
	w.mu.Unlock()
	if starting {
		return idle, false // each start ends soon, being interrupted, and wakes us
	}
	w.stopProbes()
	for _, s := range obs.sandboxes {
		if s.State == runtimeapi.PodSandboxState_SANDBOX_READY || gone {
			if _, err := w.a.cri.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: s.Id}); err != nil {
				w.a.Recorder.Eventf(pod, v1.EventTypeWarning, "FailedKillPod", "error killing pod: %v", err)
				return shortRetry, false
			}
			s.State = runtimeapi.PodSandboxState_SANDBOX_NOTREADY
		}
	}
	if !gone {
		w.publish(ctx, pod, obs)
	}
	if !w.ending.cleared {
		if err := w.unmapHostPorts(); err != nil {
			klog.FromContext(ctx).Error(err, "Removing the pod's host ports failed")
			return shortRetry, false
		}
		if err := w.a.Volumes.Unmount(ctx, w.uid); err != nil {
			klog.FromContext(ctx).Error(err, "Unmounting the pod's volumes failed")
			return shortRetry, false
		}
		w.a.removePodCgroup(ctx, pod)
		w.ending.cleared = true
		w.ending.done.Store(true)
		w.a.wakePending()
	}
	if !gone {
		if pod.DeletionTimestamp == nil || w.ending.told {
			return idle, false
		}
		if !w.settled() {
			return idle, false // the last status goes before the delete; its end wakes us
		}
		zero := int64(0)
		err := w.a.Client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{
			GracePeriodSeconds: &zero, Preconditions: metav1.NewUIDPreconditions(string(w.uid)),
		})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			klog.FromContext(ctx).Error(err, "Deleting the terminated pod failed")
			return shortRetry, false
		}
		w.ending.told = true
		return idle, false
	}
	for _, s := range obs.sandboxes {
		if _, err := w.a.cri.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: s.Id}); err != nil {
			klog.FromContext(ctx).Error(err, "Removing the pod's sandbox failed", "sandbox", s.Id)
			return shortRetry, false
		}
	}
	os.RemoveAll(w.a.podLogDir(pod))
	if err := os.RemoveAll(w.a.podDir(w.uid)); err != nil {
		klog.FromContext(ctx).Error(err, "Removing the pod's directory failed")
	}
	return idle, true
}

// stopContainers stops the running containers: all but sidecars at once, then
// the sidecars from the last to the first.
func (w *worker) stopContainers(ctx context.Context, pod *v1.Pod, gone bool, obs *observed) {
	grace := gracePeriod(pod)
	if pod.DeletionGracePeriodSeconds != nil {
		grace = *pod.DeletionGracePeriodSeconds
	}
	if gone {
		grace = min(grace, minimumGrace)
	}
	if w.ending.why != nil && w.ending.why.grace != nil {
		grace = min(grace, *w.ending.why.grace)
	}
	sidecar := map[string]bool{}
	for i := range pod.Spec.InitContainers {
		if c := &pod.Spec.InitContainers[i]; isSidecar(c) {
			sidecar[c.Name] = true
		}
	}
	regular := false
	for _, st := range obs.running() {
		if !sidecar[st.Labels[labelContainerName]] {
			regular = true
			w.kill(ctx, pod, st, "", grace)
		}
	}
	if regular {
		return
	}
	left := grace - int64(w.a.Clock.Since(w.ending.begun)/time.Second)
	for i := len(pod.Spec.InitContainers) - 1; i >= 0; i-- {
		c := &pod.Spec.InitContainers[i]
		if st := obs.newest(c.Name); isSidecar(c) && st != nil && st.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
			w.kill(ctx, pod, st, "", left)
			return
		}
	}
}

func gracePeriod(pod *v1.Pod) int64 {
	if pod.Spec.TerminationGracePeriodSeconds != nil {
		return *pod.Spec.TerminationGracePeriodSeconds
	}
	return 30
}
