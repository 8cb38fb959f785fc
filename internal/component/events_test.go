package component

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"

	"keelson.dev/keelson/test/harness"
)

// TestCorrelate compares the correlator with client-go's.
func TestCorrelate(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	now := clocktesting.NewFakeClock(time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC))
	theirs := record.NewEventCorrelator(now)
	ours := newCorrelator(now)
	patched, skipped, combined := 0, 0, 0
	for i := range 20_000 {
		now.Step(time.Duration(r.IntN(3000)) * time.Millisecond)
		at := metav1.NewTime(now.Now())
		e := &v1.Event{
			ObjectMeta:     metav1.ObjectMeta{Namespace: "ns", Name: fmt.Sprint("e", i)},
			InvolvedObject: v1.ObjectReference{Kind: "Pod", Namespace: "ns", Name: fmt.Sprint("p", r.IntN(20))},
			Source:         v1.EventSource{Component: "c"}, Type: v1.EventTypeNormal, Reason: fmt.Sprint("R", r.IntN(3)), Message: fmt.Sprint("m", r.IntN(6)),
			FirstTimestamp: at, LastTimestamp: at, Count: 1,
		}
		switch {
		case e.Reason == "R2": // which of similar events are one is random, unless none repeats
			e.Message = fmt.Sprint("m", i)
		case r.IntN(30) == 0:
			e.Message = ""
		}
		first, second := *e, *e
		want, err := theirs.EventCorrelate(&first)
		if err != nil {
			t.Fatal(err)
		}
		got, patch, skip := ours.correlate(&second)
		if skip != want.Skip {
			t.Fatalf("event %d is left out: %v, want %v", i, skip, want.Skip)
		}
		if skip {
			skipped++
			continue
		}
		if !equality.Semantic.DeepEqual(got, want.Event) {
			t.Fatalf("event %d is %v, want %v", i, got, want.Event)
		}
		if update := want.Event.Count > 1; update != (patch != nil) || update && !bytes.Equal(patch, want.Patch) {
			t.Fatalf("the patch of event %d is %s, want %s", i, patch, want.Patch)
		}
		if patch != nil {
			patched++
		}
		if got.Message != e.Message {
			combined++
		}
	}
	if patched == 0 || skipped == 0 || combined == 0 {
		t.Errorf("%d patched, %d left out, %d combined", patched, skipped, combined)
	}
}

// slowSink is an API server that does not answer until it is let.
type slowSink struct {
	record.EventSink
	answer chan struct{}
	mu     sync.Mutex
	names  map[string]bool
}

func (s *slowSink) Create(e *v1.Event) (*v1.Event, error) {
	<-s.answer
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names[e.InvolvedObject.Name] = true
	return e, nil
}

func (s *slowSink) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.names)
}

// TestBurst checks that all events of a burst are written which is longer than the queue
// of a broadcaster, and that those which wait when the process ends are written then.
func TestBurst(t *testing.T) {
	const burst, n = 500, 5000
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	b := record.NewBroadcaster(record.WithContext(t.Context()))
	defer b.Shutdown()
	s := &slowSink{answer: make(chan struct{}), names: map[string]bool{}}
	Record(ctx, b, s)
	var mu sync.Mutex
	seen := 0
	b.StartEventWatcher(func(*v1.Event) {
		mu.Lock()
		defer mu.Unlock()
		seen++
	})
	recorder := b.NewRecorder(scheme.Scheme, v1.EventSource{Component: "c"})
	for i := range n {
		recorder.Event(&v1.ObjectReference{Kind: "Pod", Namespace: "ns", Name: fmt.Sprint("p", i)}, v1.EventTypeNormal, "Made", "made")
		if i%burst == burst-1 {
			harness.Eventually(t, "the broadcaster to pass the events on", func() bool {
				mu.Lock()
				defer mu.Unlock()
				return seen == i+1
			})
		}
	}
	cancel()
	close(s.answer)
	harness.Eventually(t, "all events", func() bool { return s.count() == n })
}

// BenchmarkCorrelate measures events about one object, most of which are left out.
func BenchmarkCorrelate(b *testing.B) {
	c := newCorrelator(clock.RealClock{})
	for i := range b.N {
		c.correlate(&v1.Event{InvolvedObject: v1.ObjectReference{Kind: "ReplicaSet", Namespace: "ns", Name: "rs"}, Reason: "SuccessfulCreate", Message: fmt.Sprint("Created pod: rs-", i), Count: 1})
	}
}
