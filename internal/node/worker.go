package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/internal/node/restart"
	"keelson.dev/keelson/internal/node/volume"
	"keelson.dev/keelson/internal/trace"
)

const (
	// retryPeriod is the pause after a step that failed for a reason which no
	// event will tell us the end of.
	retryPeriod = 10 * time.Second
	// shortRetry is the pause after the runtime or the API refused a step of
	// the taking down of a pod.
	shortRetry = time.Second
	// idle is a worker's sleep when only an event can give it work.
	idle = time.Duration(1<<63 - 1)
)

// wait is why a container is not running.
type wait struct{ reason, message string }

// worker brings one pod from what the API wants to what the runtime has. Its
// loop is the only one that decides; starts, stops and probes run beside it
// and wake it when they are done.
type worker struct {
	a    *Agent
	uid  types.UID
	wake chan struct{}
	// deferred: a resize waits for room on the node.
	deferred atomic.Bool
	// imposed ends the pod from outside of the loop.
	imposed atomic.Pointer[failure]
	// ended: nothing of the pod runs, and its volumes are gone.
	ended atomic.Bool

	exitedMu sync.Mutex
	exited   map[string]*runtimeapi.ContainerStatus // by ID

	isStatic bool // the pod is from a manifest of the node

	mu        sync.Mutex
	pod       *v1.Pod
	mirror    *v1.Pod // of a static pod, in the API; nil if there is none
	gone      bool
	interrupt context.CancelFunc     // ends what the pod's running needs, when it must not run any more
	running   context.Context        // ends with interrupt
	busy      map[string]bool        // container names that are being started
	waiting   map[string]wait        // container names whose start failed
	retryAt   map[string]time.Time   // when to try these again
	restarts  map[string]*backoff    // by container name
	pulls     map[string]*backoff    // by image
	pullFail  map[string]pullFailure // by image
	probes    map[string]*probing    // by container ID
	kills     map[string]*kill       // by container ID
	status    v1.PodStatus           // as last computed
	statusSet bool
	given     resources
	posted    *v1.PodStatus // as the API last had it from us
	posting   bool

	// The rest is the loop's own.
	admitted  bool
	failed    *failure // why the pod must not run here any more
	volumes   map[string]volume.Mounted
	limited   bool             // the pod's cgroup has its limits
	sandboxAt time.Time        // when to try the sandbox again
	stopping  time.Time        // when the taking down began
	stopped   bool             // volumes and cgroup are gone
	deleted   bool             // the API was told
	seq       uint32           // attempts at a sandbox
	mapped    string           // the sandbox that the host ports lead to
	pending   *v1.PodCondition // of a resize that the node cannot do now
	progress  *v1.PodCondition // of a resize that is under way
}

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

func newWorker(a *Agent, pod *v1.Pod) *worker {
	return &worker{
		a: a, uid: pod.UID, pod: pod,
		wake:     make(chan struct{}, 1),
		exited:   map[string]*runtimeapi.ContainerStatus{},
		busy:     map[string]bool{},
		waiting:  map[string]wait{},
		retryAt:  map[string]time.Time{},
		restarts: map[string]*backoff{},
		pulls:    map[string]*backoff{},
		pullFail: map[string]pullFailure{},
		probes:   map[string]*probing{},
		kills:    map[string]*kill{},
	}
}

func (w *worker) notify() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *worker) runtimeChanged() { w.notify() }

func (w *worker) podChanged(pod *v1.Pod) {
	w.mu.Lock()
	w.pod = pod
	if pod.DeletionTimestamp != nil && w.interrupt != nil {
		w.interrupt()
	}
	w.mu.Unlock()
	w.notify()
}

func (w *worker) podGone() {
	w.mu.Lock()
	w.gone = true
	if w.interrupt != nil {
		w.interrupt()
	}
	w.mu.Unlock()
	w.notify()
}

func (w *worker) latest() *v1.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pod
}

// snapshot is the pod with the status last computed here.
func (w *worker) snapshot() *v1.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.statusSet {
		return w.pod
	}
	p := *w.allocated(w.pod)
	p.Status = w.status
	return &p
}

func (w *worker) run(ctx context.Context) {
	pod := w.latest()
	ctx = klog.NewContext(ctx, klog.FromContext(ctx).WithValues("pod", klog.KObj(pod), "uid", w.uid))
	w.mu.Lock()
	w.running, w.interrupt = context.WithCancel(ctx)
	w.mu.Unlock()
	defer w.interrupt()
	timer := w.a.Clock.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-timer.C():
		}
		next, done := w.sync(ctx)
		if done {
			w.a.forget(w)
			return
		}
		timer.Stop()
		if next < 0 {
			next = 0
		}
		if next != idle {
			timer = w.a.Clock.NewTimer(next)
		}
	}
}

// sync compares once and takes the next steps. It returns when to look again
// if nothing happens before, and whether the pod is no more.
func (w *worker) sync(ctx context.Context) (time.Duration, bool) {
	w.mu.Lock()
	pod, gone := w.pod, w.gone
	w.mu.Unlock()
	ctx = trace.WithCause(ctx, pod)
	obs, err := w.observe(ctx)
	if err != nil {
		if ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Reading the pod from the container runtime failed")
		}
		return shortRetry, false
	}
	obs.recall(pod)
	obs.restartAll(pod)
	if f := w.imposed.Load(); f != nil && w.failed == nil {
		w.failed = f
	}
	next := idle
	if w.failed == nil && pod.DeletionTimestamp == nil && !gone {
		next = w.deadline(pod)
	}
	if gone || pod.DeletionTimestamp != nil || w.failed != nil || terminal(pod.Status.Phase) || w.finished(pod, obs) {
		return w.stop(ctx, pod, gone, obs)
	}
	if !w.admitted {
		if len(obs.sandboxes) == 0 && pod.Status.StartTime == nil {
			if f := w.a.admit(ctx, pod); f != nil {
				w.failed = f
				w.a.Recorder.Event(pod, v1.EventTypeWarning, f.reason, f.message)
				return w.stop(ctx, pod, false, obs)
			}
		}
		if err := w.allocate(pod); err != nil {
			klog.FromContext(ctx).Error(err, "Keeping what the pod is given failed")
			return retryPeriod, false
		}
		w.admitted = true
	}
	pod, err = w.resize(ctx, pod, obs)
	if err != nil {
		klog.FromContext(ctx).Error(err, "Resizing the pod failed")
		next = min(next, retryPeriod)
	}
	w.keepProbes(pod, obs)
	next = min(next, w.advance(ctx, pod, obs))
	w.publish(ctx, pod, obs)
	return next, false
}

// deadline fails the pod when it has run longer than it may.
func (w *worker) deadline(pod *v1.Pod) time.Duration {
	if pod.Spec.ActiveDeadlineSeconds == nil {
		return idle
	}
	w.mu.Lock()
	start := w.status.StartTime
	w.mu.Unlock()
	if start == nil {
		start = pod.Status.StartTime
	}
	if start == nil {
		return idle
	}
	left := time.Duration(*pod.Spec.ActiveDeadlineSeconds)*time.Second - w.a.Clock.Since(start.Time)
	if left > 0 {
		return left
	}
	w.failed = &failure{reason: "DeadlineExceeded", message: "Pod was active on the node longer than the specified deadline"}
	w.a.Recorder.Event(pod, v1.EventTypeNormal, "DeadlineExceeded", w.failed.message)
	return idle
}

func terminal(p v1.PodPhase) bool { return p == v1.PodSucceeded || p == v1.PodFailed }

// finished reports whether every container has come to the end that its pod's
// restart policy gives it.
func (w *worker) finished(pod *v1.Pod, obs *observed) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.busy) > 0 || !w.admitted && len(obs.containers) == 0 {
		return false
	}
	// What runs once has run, even if its sandbox did not last.
	if obs.ready() == nil && len(obs.containers) > 0 && len(obs.running()) == 0 && restart.Once(&pod.Spec) {
		return true
	}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if st := obs.newest(c.Name); !isSidecar(c) && st != nil && st.CreatedAt >= obs.anew && exitedBadly(st) && !mayRestart(pod, c, st) {
			return true
		}
	}
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		st := obs.newest(c.Name)
		if st == nil || st.State != runtimeapi.ContainerState_CONTAINER_EXITED || st.CreatedAt < obs.anew || mayRestart(pod, c, st) {
			return false
		}
	}
	return true
}

func exitedBadly(st *runtimeapi.ContainerStatus) bool {
	return st.State == runtimeapi.ContainerState_CONTAINER_EXITED && st.ExitCode != 0
}

// mayRestart reports whether the container runs again after it exited so.
func mayRestart(pod *v1.Pod, c *v1.Container, st *runtimeapi.ContainerStatus) bool {
	return restart.After(&pod.Spec, c, st.ExitCode) != restart.Nothing
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
		if left := w.sandboxAt.Sub(now); left > 0 {
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
				w.sandboxAt = now.Add(retryPeriod)
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
		// Who asks for a postStart hook may hold up the containers after it.
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
	b := w.restarts[c.Name]
	if b == nil {
		b = &backoff{}
		w.restarts[c.Name] = b
	}
	left := b.wait(since, now)
	if left <= 0 {
		b.next(now)
		return 0
	}
	if w.waiting[c.Name].reason != "CrashLoopBackOff" {
		w.a.Recorder.Event(containerRef(pod, c.Name), v1.EventTypeWarning, "BackOff", fmt.Sprintf("Back-off restarting failed container %s in pod %s_%s(%s)", c.Name, pod.Name, pod.Namespace, pod.UID))
	}
	w.waiting[c.Name] = wait{"CrashLoopBackOff", fmt.Sprintf("back-off %s restarting failed container=%s pod=%s_%s(%s)", b.pause, c.Name, pod.Name, pod.Namespace, pod.UID)}
	return left
}

func (w *worker) isBusy(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.busy[name]
}

// started tells whether a sidecar lets the next container begin.
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
	if w.busy[c.Name] || w.running.Err() != nil {
		return idle
	}
	if left := w.retryAt[c.Name].Sub(now); left > 0 {
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
	w.busy[c.Name] = true
	sandbox := obs.ready()
	ips := obs.ips()
	old := obs.containers[c.Name]
	wake := w.notify
	run := w.running
	w.a.wg.Go(func() {
		failed := w.start(trace.WithCause(run, pod), pod, c, sandbox, ips, count)
		w.mu.Lock()
		delete(w.busy, c.Name)
		if failed != nil {
			w.waiting[c.Name] = failed.wait
			w.retryAt[c.Name] = w.a.Clock.Now().Add(failed.after)
		} else {
			delete(w.waiting, c.Name)
			delete(w.retryAt, c.Name)
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

// stop takes the pod down, a step further each time, to the end of the pod in
// the API and on the machine.
func (w *worker) stop(ctx context.Context, pod *v1.Pod, gone bool, obs *observed) (time.Duration, bool) {
	w.interrupt()
	if w.stopping.IsZero() {
		w.stopping = w.a.Clock.Now()
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
	starting := len(w.busy) > 0
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
	if !w.stopped {
		if err := w.unmapHostPorts(); err != nil {
			klog.FromContext(ctx).Error(err, "Removing the pod's host ports failed")
			return shortRetry, false
		}
		if err := w.a.Volumes.Unmount(ctx, w.uid); err != nil {
			klog.FromContext(ctx).Error(err, "Unmounting the pod's volumes failed")
			return shortRetry, false
		}
		w.a.removePodCgroup(ctx, pod)
		w.stopped = true
		w.ended.Store(true)
		w.a.wakePending()
	}
	if !gone {
		if pod.DeletionTimestamp == nil || w.deleted {
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
		w.deleted = true
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
	if w.failed != nil && w.failed.grace != nil {
		grace = min(grace, *w.failed.grace)
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
	left := grace - int64(w.a.Clock.Since(w.stopping)/time.Second)
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
