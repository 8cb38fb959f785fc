package harness

import (
	"testing"
	"time"
)

// Patience bounds each wait of a test. It is long because the machine may be busy:
// a test that passes does not wait for it.
const Patience = time.Minute

// Eventually returns when ok reports true, and fails the test if it does not within
// Patience. The argument what names the condition in the failure. It is for
// conditions that have no event to wait for.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(Patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("waited %s for %s", Patience, what)
		case <-t.Context().Done():
			t.Fatalf("the test ended while it waited for %s", what)
		}
	}
}

// Succeeds returns when f returns nil, and fails the test with f's error if it
// does not within Patience.
func Succeeds(t testing.TB, what string, f func() error) {
	t.Helper()
	var last error
	defer func() {
		if last != nil && t.Failed() {
			t.Logf("the last answer was: %v", last)
		}
	}()
	Eventually(t, what, func() bool { last = f(); return last == nil })
}
