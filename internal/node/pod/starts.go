package pod

import (
	"fmt"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"

	"keelson.dev/keelson/internal/node/backoff"
)

// wait is why a container is not running.
type wait struct{ reason, message string }

// starts holds the state of the starts of a pod's containers, by their names.
type starts struct {
	*base
	mu       sync.Mutex
	busy     map[string]bool      // those that are being started
	recent   map[string]bool      // those whose start has ended since observing
	waiting  map[string]wait      // why the last start failed
	retryAt  map[string]time.Time // when to try these again
	restarts map[string]*backoff.Backoff
}

func newStarts(b *base) *starts {
	return &starts{base: b, busy: map[string]bool{}, recent: map[string]bool{}, waiting: map[string]wait{}, retryAt: map[string]time.Time{}, restarts: map[string]*backoff.Backoff{}}
}

// observing is called before the pod is read from the runtime: a start that ends from
// now on may not be seen as ended.
func (s *starts) observing() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.recent)
}

// any reports whether a container is being started, or was when the runtime was read.
func (s *starts) any() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.busy)+len(s.recent) > 0
}

// unsettled reports whether the container is being started, or was when the runtime
// was read: the end of its start, which wakes the loop, is not seen yet.
func (s *starts) unsettled(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.busy[name] || s.recent[name]
}

// isBusy reports whether the container is being started.
func (s *starts) isBusy(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.busy[name]
}

// waitingFor returns why the container is not running, if its last start failed or it
// waits for the next one.
func (s *starts) waitingFor(name string) (wait, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w, ok := s.waiting[name]
	return w, ok
}

// settle forgets why the container is not running: it runs, though its start seemed to
// fail, because the runtime's answer was lost.
func (s *starts) settle(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.busy[name] {
		delete(s.waiting, name)
		delete(s.retryAt, name)
	}
}

// left returns how long the container has to wait before it is started again after a
// start that failed.
func (s *starts) left(name string) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.retryAt[name].Sub(s.Clock.Now())
}

// run starts a container beside the loop.
func (s *starts) run(name string, start func() *startFailure, done func()) {
	s.mu.Lock()
	s.busy[name] = true
	s.mu.Unlock()
	s.wg.Go(func() {
		failed := start()
		s.mu.Lock()
		delete(s.busy, name)
		s.recent[name] = true
		if failed != nil {
			s.waiting[name] = failed.wait
			s.retryAt[name] = s.Clock.Now().Add(failed.after)
		} else {
			delete(s.waiting, name)
			delete(s.retryAt, name)
		}
		s.mu.Unlock()
		s.notify()
		if failed == nil {
			done()
		}
	})
}

// crashLoop returns how long the container has to wait before it starts again after
// its exit at since, 0 if it may start now.
func (s *starts) crashLoop(pod *v1.Pod, c *v1.Container, since time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.Clock.Now()
	b := s.restarts[c.Name]
	if b == nil {
		b = &backoff.Backoff{Limit: s.MaxRestartPause}
		s.restarts[c.Name] = b
	}
	left := b.Wait(since, now)
	if left <= 0 {
		b.Next(now)
		return 0
	}
	if s.waiting[c.Name].reason != "CrashLoopBackOff" {
		s.Recorder.Event(containerRef(pod, c.Name), v1.EventTypeWarning, "BackOff", fmt.Sprintf("Back-off restarting failed container %s in pod %s_%s(%s)", c.Name, pod.Name, pod.Namespace, pod.UID))
	}
	s.waiting[c.Name] = wait{"CrashLoopBackOff", fmt.Sprintf("back-off %s restarting failed container=%s pod=%s_%s(%s)", b.Pause, c.Name, pod.Name, pod.Namespace, pod.UID)}
	return left
}
