package reconcile

import (
	"sync"
	"time"

	"k8s.io/utils/clock"
)

// Pace keeps big objects from taking up a processor: what took long to look at is looked at
// again only after many times as long, however much happens to it until then. What is
// looked at quickly has no pace.
type Pace struct {
	Clock   clock.PassiveClock
	mu      sync.Mutex
	objects map[string]paced
}

type paced struct {
	next  time.Time
	hurry bool
}

const (
	// quick is how long a look may take that has no consequences.
	quick = 500 * time.Microsecond
	// rest is how many times as long as a look lasts its object rests, at most
	// longestRest.
	rest        = 20
	longestRest = 500 * time.Millisecond
)

func (p *Pace) change(key string, f func(*paced)) {
	o := p.objects[key]
	f(&o)
	if o == (paced{}) {
		delete(p.objects, key)
		return
	}
	if p.objects == nil {
		p.objects = map[string]paced{}
	}
	p.objects[key] = o
}

// Begin begins a look at the object at key, and returns 0, or how long it has to wait.
func (p *Pace) Begin(key string) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	wait := p.rest(key)
	if wait == 0 {
		p.change(key, func(o *paced) { o.hurry = false })
	}
	return wait
}

// Took notes that a look at the object at key, which has just ended, took d.
func (p *Pace) Took(key string, d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.change(key, func(o *paced) {
		o.next = time.Time{}
		if d > quick {
			o.next = p.Clock.Now().Add(min(rest*d, longestRest))
		}
	})
}

// Hurry has the next look at the object at key that begins from now on not wait.
func (p *Pace) Hurry(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.change(key, func(o *paced) { o.hurry = true })
}

// Rest returns how long the next look at the object at key has to wait; 0 is not at all.
func (p *Pace) Rest(key string) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rest(key)
}

func (p *Pace) rest(key string) time.Duration {
	o, ok := p.objects[key]
	if !ok || o.hurry {
		return 0
	}
	return max(o.next.Sub(p.Clock.Now()), 0)
}

// Forget drops what is known of key.
func (p *Pace) Forget(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.objects, key)
}
