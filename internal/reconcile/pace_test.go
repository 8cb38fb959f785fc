package reconcile_test

import (
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"keelson.dev/keelson/internal/reconcile"
)

// TestPace checks how long an object rests after a look at it.
func TestPace(t *testing.T) {
	clk := clocktesting.NewFakePassiveClock(time.Unix(1000, 0))
	p := reconcile.Pace{Clock: clk}
	if d := p.Rest("new"); d != 0 {
		t.Errorf("a new object rests for %v", d)
	}
	for _, c := range []struct{ took, want time.Duration }{
		{100 * time.Microsecond, 0}, {5 * time.Millisecond, 100 * time.Millisecond}, {time.Second, 500 * time.Millisecond}, {time.Microsecond, 0},
	} {
		p.Took("o", c.took)
		if d := p.Rest("o"); d != c.want {
			t.Errorf("after a look of %v it rests for %v, want %v", c.took, d, c.want)
		}
	}
	p.Took("o", 5*time.Millisecond)
	clk.SetTime(clk.Now().Add(99 * time.Millisecond))
	if d := p.Rest("o"); d != time.Millisecond {
		t.Errorf("it rests for %v more, want 1ms", d)
	}
	clk.SetTime(clk.Now().Add(time.Second))
	if d := p.Rest("o"); d != 0 {
		t.Errorf("it rests for %v after its rest", d)
	}
	p.Took("o", time.Second)
	if d := p.Begin("o"); d != 500*time.Millisecond {
		t.Errorf("a look begins in %v", d)
	}
	p.Hurry("o")
	p.Took("o", time.Second) // of a look that began before
	if d := p.Begin("o"); d != 0 {
		t.Errorf("a look in a hurry begins in %v", d)
	}
	if d := p.Begin("o"); d != 500*time.Millisecond {
		t.Errorf("the look after one in a hurry begins in %v", d)
	}
	p.Forget("o")
	if d := p.Rest("o"); d != 0 {
		t.Errorf("it rests for %v though it is forgotten", d)
	}
}
