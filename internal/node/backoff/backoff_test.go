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

// TestLimit checks that no pause is longer than the limit.
func TestLimit(t *testing.T) {
	now := time.Unix(1, 0)
	for limit, want := range map[time.Duration][]time.Duration{5 * time.Second: {5 * time.Second, 5 * time.Second}, 15 * time.Second: {10 * time.Second, 15 * time.Second}} {
		b := Backoff{Limit: limit}
		for _, w := range want {
			if b.Next(now); b.Pause != w {
				t.Errorf("limit %v: a pause of %v, want %v", limit, b.Pause, w)
			}
		}
	}
}
