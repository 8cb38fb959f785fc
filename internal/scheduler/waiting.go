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
)

// waiter is a pod that waits for a node.
type waiter struct {
	pod      *v1.Pod
	priority int32
	added    time.Time // when it first became active
	attempts int
	// ready is when its backoff ends.
	ready time.Time
	// parked is since when it waits for an event that one of refused knows of;
	// zero if it does not.
	parked  time.Time
	refused sets.Set[string]
	index   int // in its heap
	where   place
	// moved says that an event came while the pod was being tried.
	moved bool
}

type place uint8

const (
	inActive place = iota + 1
	inBackoff
	isParked
	inFlight
)

// waiting is the queue: active by priority, then by time; backing off; parked
// until an event. A pod being tried is in flight.
type waiting struct {
	clock clock.WithTicker
	hints map[string][]fw.EventHint // by plugin

	mu      sync.Mutex
	all     map[types.UID]*waiter
	active  waiters
	backoff waiters
	wake    chan struct{}
	gated   map[types.UID]*v1.Pod
}

func newWaiting(c clock.WithTicker, hints map[string][]fw.EventHint) *waiting {
	q := &waiting{clock: c, hints: hints, all: map[types.UID]*waiter{}, wake: make(chan struct{}, 1), gated: map[types.UID]*v1.Pod{}}
	q.active.less = func(a, b *waiter) bool {
		if a.priority != b.priority {
			return a.priority > b.priority
		}
		return a.added.Before(b.added)
	}
	q.backoff.less = func(a, b *waiter) bool { return a.ready.Before(b.ready) }
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

func (q *waiting) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// put adds a pod, or brings its object up to date.
func (q *waiting) put(pod *v1.Pod, changed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(pod.Spec.SchedulingGates) > 0 {
		q.gated[pod.UID] = pod
		return
	}
	delete(q.gated, pod.UID)
	w := q.all[pod.UID]
	if w == nil {
		w = &waiter{pod: pod, priority: corev1helpers.PodPriority(pod), added: q.clock.Now()}
		q.all[pod.UID] = w
		q.activate(w)
		return
	}
	w.pod = pod
	if changed && w.where == isParked && w.refused.Len() > 0 {
		q.unpark(w)
	}
}

func (q *waiting) activate(w *waiter) {
	w.where, w.parked = inActive, time.Time{}
	heap.Push(&q.active, w)
	q.signal()
}

func (q *waiting) delete(uid types.UID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.gated, uid)
	w := q.all[uid]
	if w == nil {
		return
	}
	delete(q.all, uid)
	switch w.where {
	case inActive:
		heap.Remove(&q.active, w.index)
	case inBackoff:
		heap.Remove(&q.backoff, w.index)
	}
}

// next blocks until a pod is active; nil when ctx is done.
func (q *waiting) next(ctx context.Context) *waiter {
	for {
		q.mu.Lock()
		now := q.clock.Now()
		for q.backoff.Len() > 0 && !q.backoff.list[0].ready.After(now) {
			q.activate(heap.Pop(&q.backoff).(*waiter))
		}
		if q.active.Len() > 0 {
			w := heap.Pop(&q.active).(*waiter)
			w.where, w.moved = inFlight, false
			w.attempts++
			q.mu.Unlock()
			return w
		}
		var timer clock.Timer
		var fired <-chan time.Time
		if q.backoff.Len() > 0 {
			timer = q.clock.NewTimer(q.backoff.list[0].ready.Sub(now))
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
			return nil
		}
	}
}

// done forgets a pod that has been placed.
func (q *waiting) done(w *waiter) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.all[w.pod.UID] == w {
		delete(q.all, w.pod.UID)
	}
}

// refuse puts a pod back that could not be placed: parked until an event that
// a plugin in refused knows of, or backing off after an error (refused empty).
func (q *waiting) refuse(w *waiter, refused sets.Set[string]) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.all[w.pod.UID] != w {
		return // deleted meanwhile
	}
	now := q.clock.Now()
	wait := initialBackoff << min(w.attempts-1, 4)
	w.ready = now.Add(min(wait, maxBackoff))
	w.refused = refused
	if refused.Len() == 0 || w.moved {
		w.where = inBackoff
		heap.Push(&q.backoff, w)
		q.signal()
		return
	}
	w.where, w.parked = isParked, now
}

func (q *waiting) unpark(w *waiter) {
	if w.ready.After(q.clock.Now()) {
		w.where, w.parked = inBackoff, time.Time{}
		heap.Push(&q.backoff, w)
		q.signal()
		return
	}
	q.activate(w)
}

// happened moves the pods that the event may help.
func (q *waiting) happened(e fw.Event, oldObj, newObj any) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, w := range q.all {
		switch w.where {
		case inFlight:
			w.moved = true
		case isParked:
			if q.helps(w, e, oldObj, newObj) {
				q.unpark(w)
			}
		}
	}
}

func (q *waiting) helps(w *waiter, e fw.Event, oldObj, newObj any) bool {
	for name := range w.refused {
		hints, known := q.hints[name]
		if !known {
			return true
		}
		for _, h := range hints {
			if h.Events&e != 0 && (h.Hint == nil || h.Hint(w.pod, e, oldObj, newObj)) {
				return true
			}
		}
	}
	return false
}

// flush moves pods that have waited for an event for too long.
func (q *waiting) flush() {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.clock.Now()
	for _, w := range q.all {
		if w.where == isParked && now.Sub(w.parked) > flushAfter {
			q.unpark(w)
		}
	}
}
