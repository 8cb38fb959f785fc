package scheduler

import (
	"context"
	"runtime"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"

	fw "keelson.dev/keelson/internal/scheduler/framework"
	"keelson.dev/keelson/test/harness"
)

// testQueue has a plugin that new nodes may help, and one that the end of pods
// named "blocker" may help.
func testQueue() (*queue, *clocktesting.FakeClock) {
	c := clocktesting.NewFakeClock(time.Unix(1000, 0))
	return newQueue(c, map[string][]fw.EventHint{
		"Nodes": {{Events: fw.NodeAdd}},
		"Pods":  {{Events: fw.AssignedPodDelete, Hint: func(_ *v1.Pod, _ fw.Event, old, _ any) bool { return old.(*v1.Pod).Name == "blocker" }}},
	}), c
}

// pop takes the next pod, and fails if there is none ready.
func pop(t *testing.T, q *queue) *waiter {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	w, _ := q.next(ctx)
	if w == nil {
		t.Fatal("no pod became ready")
	}
	return w
}

func (q *queue) expect(t *testing.T, active, backoff, unschedulable int) {
	t.Helper()
	if p := q.pending(); p["active"] != active || p["backoff"] != backoff || p["unschedulable"] != unschedulable {
		t.Errorf("pending: %v, want %d active, %d backing off, %d unschedulable", p, active, backoff, unschedulable)
	}
}

func TestQueueOrder(t *testing.T) {
	q, c := testQueue()
	for _, p := range []*v1.Pod{pod("first", nil), pod("second", nil), pod("urgent", func(p *v1.Pod) { p.Spec.Priority = ptr.To[int32](5) })} {
		q.put(nil, p, 0)
		c.Step(time.Millisecond)
	}
	for _, want := range []string{"urgent", "first", "second"} {
		if w := pop(t, q); w.pod.Name != want {
			t.Errorf("%s comes, want %s", w.pod.Name, want)
		}
	}
}

func TestQueueParksUntilAnEventHelps(t *testing.T) {
	q, c := testQueue()
	q.put(nil, pod("p", nil), 0)
	q.refuse(pop(t, q), sets.New("Pods"), false)
	q.expect(t, 0, 0, 1)
	q.happened(fw.NodeAdd, nil, node("n", nil))
	q.happened(fw.AssignedPodDelete, pod("other", nil), nil)
	q.expect(t, 0, 0, 1)
	c.Step(initialBackoff)
	q.happened(fw.AssignedPodDelete, pod("blocker", nil), nil)
	q.expect(t, 1, 0, 0)
}

func TestQueueBacksOff(t *testing.T) {
	q, c := testQueue()
	q.put(nil, pod("p", nil), 0)
	for _, want := range []time.Duration{1, 2, 4, 8, 10, 10} {
		w := pop(t, q)
		q.refuse(w, sets.New("Nodes"), false)
		if got := w.ready.Sub(c.Now()); got != want*time.Second {
			t.Errorf("attempt %d backs off for %v, want %vs", w.attempts, got, int(want))
		}
		q.happened(fw.NodeAdd, nil, node("n", nil))
		q.expect(t, 0, 1, 0)
	}
	// With nothing else to do it need not wait; others go first.
	q.put(nil, pod("other", nil), 0)
	if w := pop(t, q); w.pod.Name != "other" {
		t.Errorf("%s comes before the active pod", w.pod.Name)
	}
	if w := pop(t, q); w.pod.Name != "p" {
		t.Errorf("%s comes", w.pod.Name)
	}
}

func TestQueueWaitsOutErrors(t *testing.T) {
	q, c := testQueue()
	q.put(nil, pod("p", nil), 0)
	q.refuse(pop(t, q), sets.New[string](), false)
	q.expect(t, 0, 1, 0)
	got := make(chan *waiter)
	go func() {
		w, _ := q.next(t.Context())
		got <- w
	}()
	for !c.HasWaiters() {
		runtime.Gosched() // until the queue waits for the clock
	}
	select {
	case <-got:
		t.Fatal("an error is not waited out")
	default:
	}
	c.Step(initialBackoff)
	if w := <-got; w.attempts != 2 {
		t.Errorf("attempt %d", w.attempts)
	}
}

func TestQueueKeepsEventsForPodsInFlight(t *testing.T) {
	q, _ := testQueue()
	q.put(nil, pod("p", nil), 0)
	w := pop(t, q)
	q.happened(fw.NodeAdd, nil, node("n", nil))
	q.refuse(w, sets.New("Nodes"), false)
	q.expect(t, 0, 1, 0)
	if len(q.events) != 0 {
		t.Errorf("%d events are kept for nobody", len(q.events))
	}
	w = pop(t, q)
	q.happened(fw.NodeAdd, nil, node("n", nil))
	q.refuse(w, sets.New("Pods"), false)
	q.expect(t, 0, 0, 1)
}

func TestQueueFlush(t *testing.T) {
	q, c := testQueue()
	q.put(nil, pod("p", nil), 0)
	q.refuse(pop(t, q), sets.New("Nodes"), false)
	c.Step(flushAfter)
	q.flush()
	q.expect(t, 0, 0, 1)
	c.Step(time.Second)
	q.flush()
	q.expect(t, 1, 0, 0)
}

func TestQueueHeld(t *testing.T) {
	q, c := testQueue()
	q.put(nil, pod("p", nil), 0)
	w := pop(t, q)
	q.refuse(w, sets.New("Pods"), true)
	c.Step(initialBackoff)
	q.happened(fw.AssignedPodDelete, pod("blocker", nil), nil)
	q.expect(t, 0, 0, 1) // its other victims are still being ended
	q.release(w, false)
	q.expect(t, 1, 0, 0)
}

func TestQueueUpdates(t *testing.T) {
	q, c := testQueue()
	q.hints["Pods"] = append(q.hints["Pods"], fw.EventHint{Events: fw.PodUpdateToleration})
	gated := pod("gated", func(p *v1.Pod) { p.Spec.SchedulingGates = []v1.PodSchedulingGate{{Name: "g"}} })
	q.put(nil, gated, 0)
	q.expect(t, 0, 0, 0)
	if q.pending()["gated"] != 1 {
		t.Error("a pod with gates does not count as gated")
	}
	q.put(gated, pod("gated", nil), 0)
	if w := pop(t, q); w.pod.Name != "gated" || q.pending()["gated"] != 0 {
		t.Error("a pod without gates any more is not tried")
	} else {
		q.refuse(w, sets.New("Pods"), false)
	}
	c.Step(initialBackoff)
	q.put(nil, pod("gated", nil), fw.PodUpdateLabel)
	q.expect(t, 0, 0, 1)
	q.put(nil, pod("gated", nil), fw.PodUpdateToleration)
	q.expect(t, 1, 0, 0)
	q.delete("gated")
	q.expect(t, 0, 0, 0)
}

// TestQueueForgets checks that a pod that is gone while it is tried does not
// come back.
func TestQueueForgets(t *testing.T) {
	q, _ := testQueue()
	q.put(nil, pod("p", nil), 0)
	w := pop(t, q)
	q.delete("p")
	if q.refuse(w, sets.New("Nodes"), false) {
		t.Error("it still waits")
	}
	q.expect(t, 0, 0, 0)
	if q.flying != 0 {
		t.Errorf("%d pods in flight", q.flying)
	}
}
