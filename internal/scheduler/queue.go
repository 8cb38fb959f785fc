package scheduler

import (
	"container/heap"
	"context"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	corev1helpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/utils/clock"

	fw "keelson.dev/keelson/internal/scheduler/framework"
)

// Bounds of a pod's backoff between attempts, and how long at most a pod
// waits for an event, upstream's.
const (
	initialBackoff = time.Second
	maxBackoff     = 10 * time.Second
	flushAfter     = 5 * time.Minute
	flushEvery     = 30 * time.Second
)

// waiter is a pod that waits for a node.
type waiter struct {
	pod      *v1.Pod
	priority int32
	added    time.Time // when it first became active
	// since is when it came to where it is now, and why for what it came there.
	since    time.Time
	why      string
	attempts int
	// ready is when its backoff ends.
	ready time.Time
	// parked is since when it waits for an event that one of refused knows of.
	parked  time.Time
	refused sets.Set[string]
	failed  bool // by an error: its backoff is not cut short
	index   int  // in its heap
	where   place
	// seen is how many events had come when its attempt began.
	seen int
	// held reports whether its victims are being ended: it is not tried meanwhile;
	// helped, that an event came that may help it.
	held, helped bool
}

type place uint8

const (
	inActive place = iota + 1
	inBackoff
	isParked
	inFlight
	isBinding
)

// event is a change in the cluster.
type event struct {
	kind     fw.Event
	old, now any
}

// queue has the pods that wait: active by priority, then by time; backing off;
// parked until an event that may help them. A pod being tried is in flight;
// what happens meanwhile is kept for it. Pods with gates do not take part.
type queue struct {
	clock clock.WithTicker
	hints map[string][]fw.EventHint // by plugin
	// refusals is called for plugins with 1 for a pod that they refuse, and with -1
	// when they no longer do.
	refusals func(by sets.Set[string], n float64)
	// incoming is called for each pod that enters a part of the queue.
	incoming func(part, event string)

	mu      sync.Mutex
	all     map[types.UID]*waiter
	active  waiters
	backoff waiters
	errors  waiters // backing off after an error
	parked  map[*waiter]struct{}
	flying  int
	events  []event // since the first pod now in flight began
	wake    chan struct{}
	gated   map[types.UID]*v1.Pod
}

func newQueue(c clock.WithTicker, hints map[string][]fw.EventHint) *queue {
	q := &queue{clock: c, hints: hints, all: map[types.UID]*waiter{}, parked: map[*waiter]struct{}{}, wake: make(chan struct{}, 1), gated: map[types.UID]*v1.Pod{},
		refusals: func(sets.Set[string], float64) {}, incoming: func(string, string) {}}
	q.active.less = func(a, b *waiter) bool {
		if a.priority != b.priority {
			return a.priority > b.priority
		}
		return a.added.Before(b.added)
	}
	byReady := func(a, b *waiter) bool { return a.ready.Before(b.ready) }
	q.backoff.less, q.errors.less = byReady, byReady
	return q
}

type waiters struct {
	list []*waiter
	less func(a, b *waiter) bool
}

func (h *waiters) Len() int           { return len(h.list) }
func (h *waiters) Less(i, j int) bool { return h.less(h.list[i], h.list[j]) }
func (h *waiters) Swap(i, j int) {
	h.list[i], h.list[j] = h.list[j], h.list[i]
	h.list[i].index, h.list[j].index = i, j
}
func (h *waiters) Push(x any) {
	w := x.(*waiter)
	w.index = len(h.list)
	h.list = append(h.list, w)
}
func (h *waiters) Pop() any {
	n := len(h.list) - 1
	w := h.list[n]
	h.list[n] = nil
	h.list = h.list[:n]
	return w
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// put adds a pod, or brings its object up to date. change has the kinds of
// changes of the pod.
func (q *queue) put(old, pod *v1.Pod, change fw.Event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(pod.Spec.SchedulingGates) > 0 {
		if _, ok := q.gated[pod.UID]; !ok {
			q.incoming("gated", "PodAdd")
		}
		q.gated[pod.UID] = pod
		return
	}
	delete(q.gated, pod.UID)
	w := q.all[pod.UID]
	if w == nil {
		w = &waiter{pod: pod, priority: corev1helpers.PodPriority(pod), added: q.clock.Now()}
		q.all[pod.UID] = w
		q.activate(w, "PodAdd")
		return
	}
	w.pod = pod
	if change != 0 && w.where == isParked && q.helps(w, event{change, old, pod}) {
		q.unpark(w, "PodUpdate")
	}
}

func (q *queue) activate(w *waiter, why string) {
	w.where, w.since, w.why = inActive, q.clock.Now(), why
	heap.Push(&q.active, w)
	q.incoming("active", why)
	q.signal()
}

func (q *queue) backOff(w *waiter, why string) {
	w.where, w.since, w.why = inBackoff, q.clock.Now(), why
	if w.failed {
		heap.Push(&q.errors, w)
	} else {
		heap.Push(&q.backoff, w)
	}
	q.incoming("backoff", why)
	q.signal()
}

// leave takes a waiter out of where it is.
func (q *queue) leave(w *waiter) {
	switch w.where {
	case inActive:
		heap.Remove(&q.active, w.index)
	case inBackoff:
		if w.failed {
			heap.Remove(&q.errors, w.index)
		} else {
			heap.Remove(&q.backoff, w.index)
		}
	case isParked:
		delete(q.parked, w)
	case inFlight:
		q.landed()
	}
}

// landed counts one pod less in flight.
func (q *queue) landed() {
	if q.flying--; q.flying == 0 {
		clear(q.events)
		q.events = q.events[:0]
	}
}

func (q *queue) forget(w *waiter) {
	delete(q.all, w.pod.UID)
	q.refusals(w.refused, -1)
	w.refused = nil
}

func (q *queue) delete(uid types.UID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.gated, uid)
	if w := q.all[uid]; w != nil {
		q.leave(w)
		q.forget(w)
	}
}

// next blocks until there is a pod to try; nil when ctx is done. Where no pod
// is active, one whose backoff has not ended is tried early: there is nothing
// better to do. Only errors are waited out.
func (q *queue) next(ctx context.Context) (*waiter, *v1.Pod) {
	for {
		q.mu.Lock()
		now := q.clock.Now()
		for _, h := range []*waiters{&q.backoff, &q.errors} {
			for h.Len() > 0 && !h.list[0].ready.After(now) {
				q.activate(heap.Pop(h).(*waiter), "BackoffComplete")
			}
		}
		var w *waiter
		switch {
		case q.active.Len() > 0:
			w = heap.Pop(&q.active).(*waiter)
		case q.backoff.Len() > 0:
			w = heap.Pop(&q.backoff).(*waiter)
		}
		if w != nil {
			w.where, w.seen = inFlight, len(q.events)
			q.flying++
			w.attempts++
			pod := w.pod
			q.mu.Unlock()
			return w, pod
		}
		var timer clock.Timer
		var fired <-chan time.Time
		if q.errors.Len() > 0 {
			timer = q.clock.NewTimer(q.errors.list[0].ready.Sub(now))
			fired = timer.C()
		}
		q.mu.Unlock()
		select {
		case <-fired:
		case <-q.wake:
		case <-ctx.Done():
		}
		if timer != nil {
			timer.Stop()
		}
		if ctx.Err() != nil {
			return nil, nil
		}
	}
}

// binding notes that a pod has its node: events from now on do not matter to it.
func (q *queue) binding(w *waiter) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.all[w.pod.UID] == w && w.where == inFlight {
		w.where = isBinding
		q.landed()
	}
}

// done forgets a pod that has been placed.
func (q *queue) done(w *waiter) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.all[w.pod.UID] == w {
		q.leave(w)
		q.forget(w)
	}
}

// refuse puts a pod back that could not be placed: parked until an event that a
// plugin in refused knows of, or backing off after an error (refused empty).
// held keeps it there until release. It reports whether the pod still waits: it
// may be gone, or have got a node otherwise.
func (q *queue) refuse(w *waiter, refused sets.Set[string], held bool) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.all[w.pod.UID] != w {
		return false
	}
	var meanwhile []event
	if w.where == inFlight {
		meanwhile = q.events[w.seen:]
	}
	now := q.clock.Now()
	w.ready = now.Add(min(initialBackoff<<min(w.attempts-1, 4), maxBackoff))
	q.refusals(w.refused, -1)
	w.refused, w.failed, w.held, w.helped = refused, refused.Len() == 0, held, false
	q.refusals(w.refused, 1)
	helped := false
	for _, e := range meanwhile {
		helped = helped || q.helps(w, e)
	}
	q.leave(w)
	switch {
	case w.failed:
		q.backOff(w, "ScheduleAttemptFailure")
	case helped && !held:
		q.backOff(w, "ScheduleAttemptFailure")
	default:
		w.where, w.parked, w.helped = isParked, now, helped
		q.parked[w] = struct{}{}
		q.incoming("unschedulable", "ScheduleAttemptFailure")
	}
	return true
}

// release lets a held pod be tried again; again says at once.
func (q *queue) release(w *waiter, again bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	w.held = false
	if q.all[w.pod.UID] == w && w.where == isParked && (w.helped || again) {
		q.unpark(w, "ForceActivate")
	}
}

func (q *queue) unpark(w *waiter, why string) {
	if w.held {
		w.helped = true
		return
	}
	delete(q.parked, w)
	if w.ready.After(q.clock.Now()) {
		q.backOff(w, why)
		return
	}
	q.activate(w, why)
}

// happened moves the pods that the event may help.
func (q *queue) happened(kind fw.Event, old, now any) {
	q.mu.Lock()
	defer q.mu.Unlock()
	e := event{kind, old, now}
	if q.flying > 0 {
		q.events = append(q.events, e)
	}
	for w := range q.parked {
		if q.helps(w, e) {
			q.unpark(w, kind.String())
		}
	}
}

// helps reports whether the event may make the pod fit, by the hint of a plugin
// that refused it.
func (q *queue) helps(w *waiter, e event) bool {
	for name := range w.refused {
		hints, known := q.hints[name]
		if !known {
			return true
		}
		for _, h := range hints {
			if k := h.Events & e.kind; k != 0 && (h.Hint == nil || h.Hint(w.pod, k, e.old, e.now)) {
				return true
			}
		}
	}
	return false
}

// flush moves pods that have waited for an event for too long.
func (q *queue) flush() {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.clock.Now()
	for w := range q.parked {
		if now.Sub(w.parked) > flushAfter {
			q.unpark(w, "UnschedulableTimeout")
		}
	}
}

// pending counts the pods by part of the queue.
func (q *queue) pending() map[string]int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return map[string]int{"active": q.active.Len(), "backoff": q.backoff.Len() + q.errors.Len(), "unschedulable": len(q.parked), "gated": len(q.gated)}
}
