package tracing

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"keelson.dev/keelson/internal/trace"
	"keelson.dev/keelson/internal/trace/remote"
)

// TestPosting has a server post more than a message may have, with a store that fails once:
// each step reaches the other server or is counted, here, and there as missing.
func TestPosting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most, many = 4 << 10, 3 * postSteps
		here, there := trace.NewRecorder(trace.DefaultLimit), trace.NewRecorder(trace.DefaultLimit)
		a, b := NewShared(here), NewShared(there)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go b.Take(ctx)
		posts := 0
		go a.Run(ctx, func(_ context.Context, message []byte) error {
			if len(message) > most {
				t.Errorf("a message of %d bytes, want %d at most", len(message), most)
			}
			if posts++; posts == 2 {
				return errors.New("the store is away")
			}
			b.Posted(message)
			return nil
		}, most)
		synctest.Wait()
		pull := trace.Step{Time: time.Now(), Resource: "pods", Namespace: "a", Name: "p", UID: "pod", Phase: trace.PhasePull, Actor: "kubelet", Detail: strings.Repeat("x", 100)}
		for range many {
			here.Add(pull)
		}
		time.Sleep(2 * postPause)
		here.Add(pull) // and it can be told what was lost
		time.Sleep(2 * postPause)
		synctest.Wait()
		taken := uint64(len(there.Way("pod")))
		if lost := here.Lost(trace.LostPosting); taken == 0 || lost == 0 || taken+lost != many+1 {
			t.Errorf("%d steps are taken and %d lost, of %d", taken, lost, many+1)
		}
		missing := uint64(0)
		for _, g := range there.Gaps(pull.Time, time.Now()) {
			missing += g.Steps
		}
		if missing != here.Lost(trace.LostPosting) {
			t.Errorf("the other server misses %d, want %d", missing, here.Lost(trace.LostPosting))
		}
		if len(here.Gaps(pull.Time, time.Now())) > 0 || there.Lost(trace.LostPosting) > 0 {
			t.Error("what is not told is missing here, or counted twice")
		}
	})
}

// TestPosted has messages come faster than they are taken.
func TestPosted(t *testing.T) {
	r := trace.NewRecorder(trace.DefaultLimit)
	s := NewShared(r)
	message, err := json.Marshal(remote.Batch{Now: time.Now(), Steps: make([]trace.Step, 3)})
	if err != nil {
		t.Fatal(err)
	}
	for range backlog + 2 {
		s.Posted(message)
	}
	s.Posted([]byte("of another version"))
	if lost := r.Lost(trace.LostPosted); lost != 6 {
		t.Errorf("%d steps are lost, want 6", lost)
	}
	gaps := r.Gaps(time.Now().Add(-time.Minute), time.Now())
	if len(gaps) != 1 || gaps[0].Steps != 6 || gaps[0].Who != otherServer {
		t.Errorf("missing are %+v", gaps)
	}
}
