package trace

import "slices"

// Follower reads steps as they are recorded. It keeps none itself: one that reads
// slowly misses those that the recorder has forgotten.
type Follower struct {
	r    *Recorder
	next uint64
	wake chan struct{}
}

// Follow returns a follower of what is recorded from now on. Close ends it.
func (r *Recorder) Follow() *Follower {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := &Follower{r: r, next: r.first + uint64(len(r.steps)), wake: make(chan struct{}, 1)}
	r.followers = append(r.followers, f)
	return f
}

// Wake returns a channel that receives once there is something to read.
func (f *Follower) Wake() <-chan struct{} { return f.wake }

// Read returns the next steps, most at most, which the caller must not change, and how
// many were lost before them.
func (f *Follower) Read(most int) (steps []*Step, lost uint64) {
	f.r.mu.RLock()
	defer f.r.mu.RUnlock()
	if f.next < f.r.first {
		lost = f.r.first - f.next
		f.next = f.r.first
	}
	left := f.r.steps[f.next-f.r.first:]
	steps = slices.Clone(left[:min(len(left), most)])
	f.next += uint64(len(steps))
	if len(steps) < len(left) {
		f.notify()
	}
	return steps, lost
}

// Skip passes over what has not been read, and returns how many steps that were.
func (f *Follower) Skip() uint64 {
	f.r.mu.RLock()
	defer f.r.mu.RUnlock()
	end := f.r.first + uint64(len(f.r.steps))
	lost := end - f.next
	f.next = end
	return lost
}

func (f *Follower) notify() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// Close ends the following.
func (f *Follower) Close() {
	f.r.mu.Lock()
	defer f.r.mu.Unlock()
	f.r.followers = slices.DeleteFunc(slices.Clone(f.r.followers), func(o *Follower) bool { return o == f })
}
