package pod

import (
	"testing"

	"k8s.io/utils/clock"
)

// TestUnsettled checks that a start that ends after the runtime began to be read is
// not known to have ended by what is read.
func TestUnsettled(t *testing.T) {
	m := &Manager{Config: Config{Clock: clock.RealClock{}}}
	s := newStarts(&base{Manager: m, wake: make(chan struct{}, 1)})
	end := make(chan struct{})
	s.run("c", func() *startFailure { <-end; return nil }, func() {})
	s.observing()
	if !s.isBusy("c") || !s.unsettled("c") || !s.any() {
		t.Error("a start that is under way counts as ended")
	}
	close(end)
	m.wg.Wait()
	if s.isBusy("c") || !s.unsettled("c") || !s.any() {
		t.Error("a start that ended meanwhile counts as seen")
	}
	select {
	case <-s.wake:
	default:
		t.Error("the end of the start does not wake the loop")
	}
	if s.observing(); s.unsettled("c") || s.any() {
		t.Error("a start that ended before counts as not seen")
	}
}
