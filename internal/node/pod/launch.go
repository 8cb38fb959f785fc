package pod

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/internal/node/convert"
	"keelson.dev/keelson/internal/node/cri"
	"keelson.dev/keelson/internal/node/dra"
	"keelson.dev/keelson/internal/node/podspec"
	"keelson.dev/keelson/internal/node/restart"
	"keelson.dev/keelson/internal/node/volume"
	"keelson.dev/keelson/internal/trace"
)

// advance takes the next steps of a pod that is to run.
func (w *worker) advance(ctx context.Context, pod *v1.Pod, obs *observed) time.Duration {
	if w.volumes == nil {
		w.publish(ctx, pod, obs) // pending, with its start time
		if err := os.MkdirAll(w.Layout.Pod(w.uid), 0o750); err != nil {
			w.Recorder.Eventf(pod, v1.EventTypeWarning, "FailedSync", "error making pod data directories: %v", err)
			return retryPeriod
		}
		begin := time.Now()
		vols, err := w.Volumes.Mount(w.running, pod)
		var failed *volume.Failed
		switch {
		case w.running.Err() != nil:
			return retryPeriod
		case errors.As(err, &failed):
			if failed.Exhausted() {
				w.fail(&Failure{Reason: "VolumeAttachmentLimitExceeded", Message: "Node has reached its volume attachment limit, rejecting pod: " + failed.Error(), rejected: true})
				return idle
			}
			for _, name := range slices.Sorted(maps.Keys(failed.Errors)) {
				err := failed.Errors[name]
				w.Recorder.Event(pod, v1.EventTypeWarning, volume.Reason(err), volume.Message(name, err))
			}
			return failed.Retry
		case err != nil:
			w.Recorder.Event(pod, v1.EventTypeWarning, "FailedMount", err.Error())
			return retryPeriod
		}
		w.volumes = vols
		if len(vols) > 0 {
			w.Trace.Phase("pods", pod, trace.PhaseVolumes, fmt.Sprintf("%d volumes", len(vols)), begin)
		}
	}
	if !w.prepared && dra.Has(pod) {
		begin := time.Now()
		if err := w.Devices.Prepare(w.running, pod); err != nil {
			if w.running.Err() == nil {
				w.Recorder.Eventf(pod, v1.EventTypeWarning, "FailedPrepareDynamicResources", "Failed to prepare dynamic resources: %v", err)
			}
			return retryPeriod
		}
		w.Trace.Phase("pods", pod, trace.PhaseDevices, "", begin)
	}
	w.prepared = true
	if !w.limited {
		if err := w.Shares.Give(ctx, pod, w.Shares.Of(pod)); err == nil {
			w.limited = true
		} else if obs.ready() == nil {
			w.Recorder.Eventf(pod, v1.EventTypeWarning, "FailedCreatePodContainer", "unable to ensure pod container exists: %v", err)
			return retryPeriod
		} else {
			// What an agent before this one started goes on.
			klog.FromContext(ctx).Error(err, "Giving the pod its share of the machine failed")
			w.limited = true
		}
	}
	if obs.ready() == nil {
		now := w.Clock.Now()
		if left := w.sandbox.retryAt.Sub(now); left > 0 {
			return left
		}
		// What ran in a sandbox that died is taken down before the next one.
		left := false
		for _, c := range obs.running() {
			left = true
			w.kills.kill(ctx, pod, c, "", 0)
		}
		if left {
			return idle
		}
		fresh, err := w.sandbox.create(w.Trace.Within(w.running, w.uid), pod, obs)
		if err != nil {
			if w.running.Err() == nil {
				w.Recorder.Event(pod, v1.EventTypeWarning, "FailedCreatePodSandBox", fmt.Sprintf("Failed to create pod sandbox: %v", err))
				w.sandbox.retryAt = now.Add(retryPeriod)
			}
			return retryPeriod
		}
		*obs = *fresh
	}
	if err := w.sandbox.mapPorts(pod, obs); err != nil {
		w.Recorder.Event(pod, v1.EventTypeWarning, "FailedCreatePodSandBox", fmt.Sprintf("Failed to create pod sandbox: %v", err))
		return retryPeriod
	}
	if err := w.sandbox.admit(w.running, pod, obs); err != nil {
		if w.running.Err() == nil {
			w.Recorder.Event(pod, v1.EventTypeWarning, "FailedCreatePodSandBox", fmt.Sprintf("Failed to create pod sandbox: %v", err))
		}
		return retryPeriod
	}
	return w.startContainers(ctx, pod, obs)
}

// startContainers starts what may be started now.
func (w *worker) startContainers(ctx context.Context, pod *v1.Pod, obs *observed) time.Duration {
	next, ready := w.clear(ctx, pod, obs)
	if !ready {
		return next
	}
	for i := range pod.Spec.EphemeralContainers {
		next = min(next, w.consider(ctx, pod, podspec.AsContainer(&pod.Spec.EphemeralContainers[i]), false, obs))
	}
	initialized := false
	for i := range pod.Spec.Containers {
		if obs.current(pod.Spec.Containers[i].Name) != nil {
			initialized = true
		}
	}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		st := obs.current(c.Name)
		switch {
		case restart.Sidecar(c):
			next = min(next, w.consider(ctx, pod, c, true, obs))
			if !initialized && !w.started(c, st) {
				return next
			}
		case initialized:
		case st != nil && st.State == runtimeapi.ContainerState_CONTAINER_EXITED && st.ExitCode == 0 && !w.starts.unsettled(c.Name):
		default:
			return min(next, w.consider(ctx, pod, c, true, obs))
		}
	}
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		next = min(next, w.consider(ctx, pod, c, false, obs))
		// A postStart hook holds up the containers after it.
		if c.Lifecycle != nil && c.Lifecycle.PostStart != nil && w.starts.unsettled(c.Name) {
			break
		}
	}
	return next
}

// clear stops what still runs of a pod whose containers are all to start anew,
// and waits as the container that asked for it has to. It reports whether the
// containers may be started.
func (w *worker) clear(ctx context.Context, pod *v1.Pod, obs *observed) (time.Duration, bool) {
	if obs.anew == 0 {
		return idle, true
	}
	left := false
	for _, st := range obs.running() {
		if st.CreatedAt < obs.anew && !podspec.IsEphemeral(pod, st.Labels[cri.ContainerNameLabel]) {
			left = true
			w.kills.kill(ctx, pod, st, "", podspec.GracePeriod(pod))
		}
	}
	if left || !obs.stale(pod) {
		return idle, !left
	}
	c := podspec.Container(pod, obs.anewBy)
	if w.starts.unsettled(c.Name) {
		return idle, false
	}
	if wait := w.starts.crashLoop(pod, c, time.Unix(0, obs.anew)); wait > 0 {
		return wait, false
	}
	return idle, true
}

// started reports whether a sidecar lets the next container begin.
func (w *worker) started(c *v1.Container, st *runtimeapi.ContainerStatus) bool {
	if st == nil || st.State != runtimeapi.ContainerState_CONTAINER_RUNNING || w.starts.unsettled(c.Name) {
		return false
	}
	return w.probes.started(c, st.Id)
}

// consider looks at one container and starts or stops it if that is due.
func (w *worker) consider(ctx context.Context, pod *v1.Pod, c *v1.Container, init bool, obs *observed) time.Duration {
	st := obs.current(c.Name)
	if st != nil && st.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
		w.starts.settle(c.Name)
		if h := st.Annotations[cri.HashAnnotation]; h != "" && h != convert.Hash(c) && !w.starts.unsettled(c.Name) {
			w.kills.kill(ctx, pod, st, fmt.Sprintf("Container %s definition changed, will be restarted", c.Name), podspec.GracePeriod(pod))
		}
		return idle
	}
	if w.starts.unsettled(c.Name) || w.running.Err() != nil {
		return idle
	}
	if left := w.starts.left(c.Name); left > 0 {
		return left
	}
	count := int32(0)
	if last := obs.newest(c.Name); last != nil {
		count = cri.RestartCount(last) + 1
		if st != nil && st.State == runtimeapi.ContainerState_CONTAINER_EXITED {
			if !mayRestart(pod, c, st) {
				return idle
			}
			if left := w.starts.crashLoop(pod, c, time.Unix(0, st.FinishedAt)); left > 0 {
				return left
			}
		} else if st == nil && !init && last.CreatedAt >= obs.anew && last.State == runtimeapi.ContainerState_CONTAINER_EXITED && !mayRestart(pod, c, last) {
			return idle // ran to its end in a sandbox before this one
		}
	}
	sandbox, ips, run, old := obs.ready(), obs.ips(), w.running, obs.containers[c.Name]
	w.starts.run(c.Name, func() *startFailure {
		return w.start(w.Trace.Within(trace.WithCause(run, pod), w.uid), pod, c, sandbox, ips, count)
	}, func() {
		// Of the containers before this one the last is kept, for its logs.
		for _, o := range old[min(1, len(old)):] {
			w.removeContainer(ctx, pod, o)
		}
	})
	return idle
}
