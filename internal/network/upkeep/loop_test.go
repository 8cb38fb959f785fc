package upkeep

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/utils/clock"
)

// TestLoop checks that Sync is called at once, when woken, when an inspection
// asks for it, and with backoff after a failure.
func TestLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin, wake := time.Now(), make(chan struct{}, 1)
		var at, again []time.Duration
		failures, changed := 0, false
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go Loop{
			Clock: clock.RealClock{}, Wake: wake,
			Sync: func() error {
				at = append(at, time.Since(begin))
				if failures > 0 {
					failures--
					return errors.New("busy")
				}
				return nil
			},
			Inspect: func(context.Context) bool { was := changed; changed = false; return was },
			Failed:  func(_ error, d time.Duration) { again = append(again, d) },
		}.Run(ctx)
		step := func(what string, f func(), d time.Duration, want ...time.Duration) {
			t.Helper()
			at, again = nil, nil
			f()
			time.Sleep(d)
			synctest.Wait()
			if !slices.Equal(at, want) {
				t.Errorf("%s: written at %v, want %v", what, at, want)
			}
		}
		const s = time.Second
		step("begin", func() {}, 500*time.Millisecond, 0)
		step("nothing", func() {}, 10*s)
		step("woken", func() { wake <- struct{}{} }, s/2, 10*s+s/2)
		step("changed by others", func() { changed = true }, 2*s, 12*s)
		step("failing", func() { failures = 7; wake <- struct{}{} }, 130*s, 13*s, 14*s, 16*s, 20*s, 28*s, 44*s, 74*s, 104*s)
		if want := []time.Duration{s, 2 * s, 4 * s, 8 * s, 16 * s, 30 * s, 30 * s}; !slices.Equal(again, want) {
			t.Errorf("tried again after %v, want %v", again, want)
		}
		stop()
		synctest.Wait()
	})
}
