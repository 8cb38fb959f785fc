package pod

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/internal/node/image"
	"keelson.dev/keelson/internal/node/podspec"
	"keelson.dev/keelson/internal/node/volume"
	"keelson.dev/keelson/internal/trace"
)

const (
	// retryPeriod is the pause after a step that failed for a reason whose end
	// no event reports.
	retryPeriod = 10 * time.Second
	// shortRetry is the pause after the runtime or the API refused a step of
	// the taking down of a pod.
	shortRetry = time.Second
	// idle is a worker's sleep when only an event can give it work.
	idle = time.Duration(1<<63 - 1)
)

// base has the fields that the parts of a worker share.
type base struct {
	*Manager
	uid  types.UID
	wake chan struct{}
}

// notify wakes the worker, which looks at the pod.
func (b *base) notify() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// worker brings one pod from what the API wants to what the runtime has. Its
// loop is the only one that decides; starts, stops and probes run beside it
// and wake it when they are done.
type worker struct {
	*base
	isStatic bool // the pod is from a manifest of the node
	history  *history
	kills    *kills
	probes   *probes
	starts   *starts
	pulls    *image.Pulls
	resizing *resizing
	report   *report
	sandbox  *sandbox
	ending   ending
	startup  startup

	mu        sync.Mutex // over what follows
	pod       *v1.Pod
	mirror    *v1.Pod // of a static pod, in the API; nil if there is none
	gone      bool
	interrupt context.CancelFunc // ends what the pod's running needs, when it must not run any more
	running   context.Context    // ends with interrupt

	admitted atomic.Bool // the pod has its place on the node; only the loop sets it

	// The rest is the loop's own.
	begun    bool // what the pod is given is kept
	volumes  map[string]volume.Mounted
	prepared bool // the devices of its claims are
	limited  bool // the pod's cgroup has its limits
}

func newWorker(m *Manager, pod *v1.Pod) *worker {
	b := &base{m, pod.UID, make(chan struct{}, 1)}
	w := &worker{base: b, pod: pod, pulls: m.Images.Pod(), starts: newStarts(b), sandbox: &sandbox{base: b}}
	w.history = newHistory(b)
	w.kills = newKills(b, w.history)
	w.probes = newProbes(b, w.kills)
	w.resizing = newResizing(b, w.kills)
	// An agent before this one, or a machine that has restarted, has begun the others.
	w.ending.done = make(chan struct{})
	w.startup.seen, w.startup.done = m.Clock.Now(), pod.Status.StartTime != nil
	w.report = &report{base: b, inAPI: w.inAPI, written: w.written, ending: func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.running != nil && w.running.Err() != nil
	}}
	return w
}

func (w *worker) podChanged(pod *v1.Pod) {
	w.mu.Lock()
	if older(pod, w.pod) { // than what the API gave for a status
		w.mu.Unlock()
		return
	}
	was := w.pod
	w.pod = pod
	if pod.DeletionTimestamp != nil && w.interrupt != nil {
		w.interrupt()
	}
	w.mu.Unlock()
	// The status that was written last comes back as a change. One that comes back before it
	// counts as written wakes the worker then, if there is more to it.
	switch {
	case pod.ResourceVersion == was.ResourceVersion && pod.ResourceVersion != "":
	case pod.Generation == was.Generation && pod.DeletionTimestamp.Equal(was.DeletionTimestamp) && w.report.underWay():
	default:
		w.notify()
	}
}

// older reports whether a is an older version of a pod than b.
func older(a, b *v1.Pod) bool {
	c, err := resourceversion.CompareResourceVersion(a.ResourceVersion, b.ResourceVersion)
	return err == nil && c < 0
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

// snapshot returns the pod with the status last computed here.
func (w *worker) snapshot() *v1.Pod {
	pod := w.latest()
	status := w.report.last()
	if status == nil {
		return pod
	}
	p := *w.resizing.allocated(pod)
	p.Status = *status
	return &p
}

func (w *worker) run(ctx context.Context) {
	pod := w.latest()
	ctx = klog.NewContext(ctx, klog.FromContext(ctx).WithValues("pod", klog.KObj(pod), "uid", w.uid))
	w.mu.Lock()
	w.running, w.interrupt = context.WithCancel(ctx)
	w.mu.Unlock()
	defer w.interrupt()
	w.Metrics.PodAdded(len(pod.Spec.Containers), w.Clock.Since(w.startup.seen))
	timer := w.Clock.NewTimer(0)
	defer timer.Stop()
	operation := "create"
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-timer.C():
		}
		begun := w.Clock.Now()
		next, done := w.sync(ctx)
		w.Metrics.PodSynced(operation, w.Clock.Since(begun))
		operation = "sync"
		if done {
			w.forget(w)
			return
		}
		timer.Stop()
		if next < 0 {
			next = 0
		}
		if next != idle {
			timer = w.Clock.NewTimer(next)
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
	w.starts.observing()
	obs, err := w.history.observe(ctx)
	if err != nil {
		if ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Reading the pod from the container runtime failed")
		}
		return shortRetry, false
	}
	obs.recall(pod)
	obs.restartAll(pod)
	if f := w.ending.imposed.Load(); f != nil && w.ending.why == nil {
		w.ending.why = f
	}
	next := idle
	if w.ending.why == nil && pod.DeletionTimestamp == nil && !gone {
		next = w.deadline(pod)
	}
	if gone || pod.DeletionTimestamp != nil || w.ending.why != nil || podspec.Terminal(pod.Status.Phase) || w.finished(pod, obs) {
		return w.stop(ctx, pod, gone, obs)
	}
	if !w.begun {
		switch {
		case w.admitted.Load():
		case len(obs.sandboxes) == 0 && pod.Status.StartTime == nil:
			if r := w.admit(ctx, pod); r != nil {
				w.ending.why = &Failure{Reason: r.Reason, Message: r.Message, rejected: true}
				w.Recorder.Event(pod, v1.EventTypeWarning, r.Reason, r.Message)
				return w.stop(ctx, pod, false, obs)
			}
			if w.running.Err() != nil {
				return 0, false // the pod has ended while it waited
			}
		default:
			w.admitted.Store(true)
			if err := w.Exclusive.Restore(pod); err != nil {
				klog.FromContext(ctx).Error(err, "Giving a pod that runs what it has for itself failed")
			}
		}
		if err := w.resizing.allocate(pod); err != nil {
			klog.FromContext(ctx).Error(err, "Keeping what the pod is given failed")
			return retryPeriod, false
		}
		w.begun = true
	}
	pod, err = w.resizing.resize(ctx, pod, obs)
	if err != nil {
		klog.FromContext(ctx).Error(err, "Resizing the pod failed")
		next = min(next, retryPeriod)
	}
	if w.resizing.deferred.Load() != nil {
		next = min(next, resizeRetry)
	}
	w.probes.keep(pod, obs)
	next = min(next, w.advance(ctx, pod, obs))
	w.publish(ctx, pod, obs)
	return next, false
}

// publish computes the pod's status and sends it if it has changed.
func (w *worker) publish(ctx context.Context, pod *v1.Pod, obs *observed) {
	s := &summary{Manager: w.Manager, pod: pod, obs: obs, starts: w.starts, probes: w.probes, resizing: w.resizing, ending: &w.ending, last: w.report.last()}
	base := pod
	if w.isStatic {
		base = w.inAPI()
	}
	w.report.publish(ctx, base, s.status())
}
