package pod

import (
	"context"
	"os"
	"slices"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/internal/node/cri"
	"keelson.dev/keelson/internal/node/dra"
	"keelson.dev/keelson/internal/node/podspec"
	"keelson.dev/keelson/internal/node/restart"
)

// Failure ends a pod from the node's side.
type Failure struct {
	Reason, Message string
	// rejected reports whether the node has refused the pod.
	rejected bool
	// Grace is the most that the containers have to end, in seconds; nil is no
	// such limit.
	Grace *int64
	// Condition is added to the pod's status; may be nil.
	Condition *v1.PodCondition
}

// ending is how far the end of a pod has come.
type ending struct {
	// imposed ends the pod from outside of the loop.
	imposed atomic.Pointer[Failure]
	// done is closed when nothing of the pod runs and its volumes are gone.
	done chan struct{}

	// The rest is the loop's own.
	why     *Failure  // why the pod must not run here any more
	begun   time.Time // when the taking down began
	cleared bool      // volumes and cgroup are gone
	told    bool      // the API was asked to delete the pod
}

// over reports whether nothing of the pod runs and its volumes are gone.
func (e *ending) over() bool {
	select {
	case <-e.done:
		return true
	default:
		return false
	}
}

// stop takes the pod down, a step further each time, to the end of the pod in
// the API and on the machine.
func (w *worker) stop(ctx context.Context, pod *v1.Pod, gone bool, obs *observed) (time.Duration, bool) {
	w.interrupt()
	if w.ending.begun.IsZero() {
		w.ending.begun = w.Clock.Now()
	}
	if len(obs.running()) > 0 {
		w.probes.keep(pod, obs)
		w.stopContainers(ctx, pod, gone, obs)
		if !gone {
			w.publish(ctx, pod, obs)
		}
		return idle, false
	}
	if w.starts.any() {
		return idle, false // each start ends soon, being interrupted, and wakes us
	}
	w.probes.stop()
	for _, s := range obs.sandboxes {
		if s.State == runtimeapi.PodSandboxState_SANDBOX_READY || gone {
			if _, err := w.CRI.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: s.Id}); err != nil {
				w.Recorder.Eventf(pod, v1.EventTypeWarning, "FailedKillPod", "error killing pod: %v", err)
				return shortRetry, false
			}
			s.State = runtimeapi.PodSandboxState_SANDBOX_NOTREADY
		}
	}
	if !gone {
		w.publish(ctx, pod, obs)
	}
	if !w.ending.cleared {
		if err := w.sandbox.unmapPorts(); err != nil {
			klog.FromContext(ctx).Error(err, "Removing the pod's host ports failed")
			return shortRetry, false
		}
		w.sandbox.dismiss(pod)
		if dra.Has(pod) {
			if err := w.Devices.Unprepare(ctx, w.uid); err != nil {
				klog.FromContext(ctx).Error(err, "Giving back the devices of the pod's claims failed")
				return retryPeriod, false
			}
		}
		if err := w.Volumes.Unmount(ctx, w.uid); err != nil {
			klog.FromContext(ctx).Error(err, "Unmounting the pod's volumes failed")
			return shortRetry, false
		}
		if !w.CRI.MountsImages() && slices.ContainsFunc(pod.Spec.Volumes, func(v v1.Volume) bool { return v.Image != nil }) {
			if err := w.ImageVolumes.Release(ctx, func(uid string) bool { return uid != string(w.uid) }); err != nil {
				klog.FromContext(ctx).Error(err, "Giving back the images of the pod's volumes failed")
				return shortRetry, false
			}
		}
		if err := w.Exclusive.Free(w.uid); err != nil {
			klog.FromContext(ctx).Error(err, "Taking back what the pod had for itself failed")
			return shortRetry, false
		}
		w.Shares.Remove(ctx, pod)
		w.ending.cleared = true
		close(w.ending.done)
		w.wakePending(podsRemoved)
	}
	if !gone {
		if pod.DeletionTimestamp == nil || w.ending.told {
			return idle, false
		}
		if !w.report.settled() {
			return idle, false // the last status goes before the delete; its end wakes us
		}
		zero := int64(0)
		err := w.Client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{
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
		if _, err := w.CRI.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: s.Id}); err != nil {
			klog.FromContext(ctx).Error(err, "Removing the pod's sandbox failed", "sandbox", s.Id)
			return shortRetry, false
		}
	}
	os.RemoveAll(w.Layout.PodLogs(pod))
	if err := os.RemoveAll(w.Layout.Pod(w.uid)); err != nil {
		klog.FromContext(ctx).Error(err, "Removing the pod's directory failed")
	}
	return idle, true
}

// stopContainers stops the running containers: all but sidecars at once, then the sidecars from the last
// to the first, or all together when the time is up. The preStop hooks run all at once
// (https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#termination-with-sidecars).
func (w *worker) stopContainers(ctx context.Context, pod *v1.Pod, gone bool, obs *observed) {
	grace := podspec.GracePeriod(pod)
	if pod.DeletionGracePeriodSeconds != nil {
		grace = *pod.DeletionGracePeriodSeconds
	}
	if gone {
		grace = min(grace, minimumGrace)
	}
	if w.ending.why != nil && w.ending.why.Grace != nil {
		grace = min(grace, *w.ending.why.Grace)
	}
	order := map[string]int{} // of the sidecars
	for i := range pod.Spec.InitContainers {
		if c := &pod.Spec.InitContainers[i]; restart.Sidecar(c) {
			order[c.Name] = i
		}
	}
	var last *runtimeapi.ContainerStatus // of the sidecars that run
	regular := false
	for _, st := range obs.running() {
		name := st.Labels[cri.ContainerNameLabel]
		i, sidecar := order[name]
		if !sidecar {
			regular = true
			w.kills.kill(ctx, pod, st, "", grace)
			continue
		}
		w.kills.killLast(ctx, pod, st, grace)
		if last == nil || i > order[last.Labels[cri.ContainerNameLabel]] {
			last = st
		}
	}
	if !regular && last != nil {
		w.kills.turn(last.Id)
	}
}

// fail makes the worker end its pod; the first reason counts.
func (w *worker) fail(f *Failure) {
	if !w.ending.imposed.CompareAndSwap(nil, f) {
		return
	}
	w.mu.Lock()
	if w.interrupt != nil {
		w.interrupt()
	}
	w.mu.Unlock()
	w.notify()
}
