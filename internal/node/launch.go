package node

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

	"keelson.dev/keelson/internal/node/volume"
	"keelson.dev/keelson/internal/trace"
)

// wait is why a container is not running.
type wait struct{ reason, message string }

// starts holds the state of the starts of a pod's containers, by their names.
type starts struct {
	busy     map[string]bool      // those that are being started
	waiting  map[string]wait      // why the last start failed
	retryAt  map[string]time.Time // when to try these again
	restarts map[string]*backoff
}

func newStarts() starts {
	return starts{busy: map[string]bool{}, waiting: map[string]wait{}, retryAt: map[string]time.Time{}, restarts: map[string]*backoff{}}
}

// advance takes the next steps of a pod that is to run.
func (w *worker) advance(ctx context.Context, pod *v1.Pod, obs *observed) time.Duration {
	if w.volumes == nil {
		w.publish(ctx, pod, obs) // pending, with its start time
		if err := os.MkdirAll(w.a.podDir(w.uid), 0o750); err != nil {
			w.a.Recorder.Eventf(pod, v1.EventTypeWarning, "FailedSync", "error making pod data directories: %v", err)
			return retryPeriod
		}
		vols, err := w.a.Volumes.Mount(w.running, pod)
		var failed *volume.Failed
		switch {
		case w.running.Err() != nil:
			return retryPeriod
		case errors.As(err, &failed):
			for _, name := range slices.Sorted(maps.Keys(failed.Errors)) {
				w.a.Recorder.Event(pod, v1.EventTypeWarning, "FailedMount", volume.Message(name, failed.Errors[name]))
			}
			return failed.Retry
		case err != nil:
			w.a.Recorder.Event(pod, v1.EventTypeWarning, "FailedMount", err.Error())
			return retryPeriod
		}
		w.volumes = vols
	}
	if n := len(pod.Spec.ResourceClaims); n > 0 {
		w.a.Recorder.Eventf(pod, v1.EventTypeWarning, "FailedPrepareDynamicResources", "Failed to prepare dynamic resources: this node has no driver for the devices of the pod's %d resource claims", n)
		return retryPeriod
	}
	if !w.limited {
		if err := w.a.applyPodCgroup(ctx, pod, w.a.podResources(pod)); err == nil {
			w.limited = true
		} else if obs.ready() == nil {
			w.a.Recorder.Eventf(pod, v1.EventTypeWarning, "FailedCreatePodContainer", "unable to ensure pod container exists: %v", err)
			return retryPeriod
		} else {
			// What an agent before this one started goes on.
			klog.FromContext(ctx).Error(err, "Giving the pod its share of the machine failed")
			w.limited = true
		}
	}
	if obs.ready() == nil {
		now := w.a.Clock.Now()
		if left := w.sandbox.retryAt.Sub(now); left > 0 {
			return left
		}
		// What ran in a sandbox that died is taken down before the next one.
		left := false
		for _, c := range obs.running() {
			left = true
			w.kill(ctx, pod, c, "", 0)
		}
		if left {
			return idle
		}
		fresh, err := w.createSandbox(w.running, pod, obs)
		if err != nil {
			if w.running.Err() == nil {
				w.a.Recorder.Event(pod, v1.EventTypeWarning, "FailedCreatePodSandBox", fmt.Sprintf("Failed to create pod sandbox: %v", err))
				w.sandbox.retryAt = now.Add(retryPeriod)
			}
			return retryPeriod
		}
		*obs = *fresh
	}
	if err := w.mapHostPorts(pod, obs); err != nil {
		w.a.Recorder.Event(pod, v1.EventTypeWarning, "FailedCreatePodSandBox", fmt.Sprintf("Failed to create pod sandbox: %v", err))
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
		next = min(next, w.consider(ctx, pod, asContainer(&pod.Spec.EphemeralContainers[i]), false, obs))
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
		case isSidecar(c):
			next = min(next, w.consider(ctx, pod, c, true, obs))
			if !initialized && !w.started(c, st) {
				return next
			}
		case initialized:
		case st != nil && st.State == runtimeapi.ContainerState_CONTAINER_EXITED && st.ExitCode == 0 && !w.isBusy(c.Name):
		default:
			return min(next, w.consider(ctx, pod, c, true, obs))
		}
	}
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		next = min(next, w.consider(ctx, pod, c, false, obs))
		// A postStart hook holds up the containers after it.
		if c.Lifecycle != nil && c.Lifecycle.PostStart != nil && w.isBusy(c.Name) {
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
		if st.CreatedAt < obs.anew && !isEphemeral(pod, st.Labels[labelContainerName]) {
			left = true
			w.kill(ctx, pod, st, "", gracePeriod(pod))
		}
	}
	if left || !obs.stale(pod) {
		return idle, !left
	}
	c := specOf(pod, obs.anewBy)
	if w.isBusy(c.Name) {
		return idle, false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if wait := w.crashLoop(pod, c, time.Unix(0, obs.anew)); wait > 0 {
		return wait, false
	}
	return idle, true
}

// crashLoop is how long the container has to wait before it starts again after
// its exit at since, 0 if it may start now; w.mu is held.
func (w *worker) crashLoop(pod *v1.Pod, c *v1.Container, since time.Time) time.Duration {
	now := w.a.Clock.Now()
	b := w.starts.restarts[c.Name]
	if b == nil {
		b = &backoff{}
		w.starts.restarts[c.Name] = b
	}
	left := b.wait(since, now)
	if left <= 0 {
		b.next(now)
		return 0
	}
	if w.starts.waiting[c.Name].reason != "CrashLoopBackOff" {
		w.a.Recorder.Event(containerRef(pod, c.Name), v1.EventTypeWarning, "BackOff", fmt.Sprintf("Back-off restarting failed container %s in pod %s_%s(%s)", c.Name, pod.Name, pod.Namespace, pod.UID))
	}
	w.starts.waiting[c.Name] = wait{"CrashLoopBackOff", fmt.Sprintf("back-off %s restarting failed container=%s pod=%s_%s(%s)", b.pause, c.Name, pod.Name, pod.Namespace, pod.UID)}
	return left
}

func (w *worker) isBusy(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.starts.busy[name]
}

// started reports whether a sidecar lets the next container begin.
func (w *worker) started(c *v1.Container, st *runtimeapi.ContainerStatus) bool {
	if st == nil || st.State != runtimeapi.ContainerState_CONTAINER_RUNNING || w.isBusy(c.Name) {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.probeStarted(c, st.Id)
}

// consider looks at one container and starts or stops it if that is due.
func (w *worker) consider(ctx context.Context, pod *v1.Pod, c *v1.Container, init bool, obs *observed) time.Duration {
	st := obs.current(c.Name)
	now := w.a.Clock.Now()
	if st != nil && st.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
		if h := st.Annotations[annHash]; h != "" && h != containerHash(c) && !w.isBusy(c.Name) {
			w.kill(ctx, pod, st, fmt.Sprintf("Container %s definition changed, will be restarted", c.Name), gracePeriod(pod))
		}
		return idle
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.starts.busy[c.Name] || w.running.Err() != nil {
		return idle
	}
	if left := w.starts.retryAt[c.Name].Sub(now); left > 0 {
		return left
	}
	count := int32(0)
	if last := obs.newest(c.Name); last != nil {
		count = restartCount(last) + 1
		if st != nil && st.State == runtimeapi.ContainerState_CONTAINER_EXITED {
			if !mayRestart(pod, c, st) {
				return idle
			}
			if left := w.crashLoop(pod, c, time.Unix(0, st.FinishedAt)); left > 0 {
				return left
			}
		} else if st == nil && !init && last.CreatedAt >= obs.anew && last.State == runtimeapi.ContainerState_CONTAINER_EXITED && !mayRestart(pod, c, last) {
			return idle // ran to its end in a sandbox before this one
		}
	}
	w.starts.busy[c.Name] = true
	sandbox := obs.ready()
	ips := obs.ips()
	old := obs.containers[c.Name]
	wake := w.notify
	run := w.running
	w.a.wg.Go(func() {
		failed := w.start(trace.WithCause(run, pod), pod, c, sandbox, ips, count)
		w.mu.Lock()
		delete(w.starts.busy, c.Name)
		if failed != nil {
			w.starts.waiting[c.Name] = failed.wait
			w.starts.retryAt[c.Name] = w.a.Clock.Now().Add(failed.after)
		} else {
			delete(w.starts.waiting, c.Name)
			delete(w.starts.retryAt, c.Name)
		}
		w.mu.Unlock()
		wake()
		// Of the containers before this one the last is kept, for its logs.
		if failed == nil && len(old) > 1 {
			for _, o := range old[1:] {
				w.removeContainer(ctx, pod, o)
			}
		}
	})
	return idle
}
