package backoff

import (
	"slices"
	"testing"
	"time"
)

func TestBackoff(t *testing.T) {
	b, now := &Backoff{}, time.Unix(1000, 0)
	if b.Wait(now, now) != 0 {
		t.Error("the first restart waits")
	}
	var pauses []time.Duration
	for range 7 {
		b.Next(now)
		pauses = append(pauses, b.Pause)
		now = now.Add(b.Pause)
	}
	want := []time.Duration{10 * time.Second, 20 * time.Second, 40 * time.Second, 80 * time.Second, 160 * time.Second, 300 * time.Second, 300 * time.Second}
	if !slices.Equal(pauses, want) {
		t.Errorf("pauses: %v", pauses)
	}
	if b.Next(now.Add(time.Hour)); b.Pause != 10*time.Second {
		t.Errorf("after an hour without a failure: %v", b.Pause)
	}
}

// TestAllocation checks that a pod's allocated resources outlive the agent, and
// an interrupted write does not lose them.
