package strike

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Point is a moment in the life of a subject: a call about it has been made, and the
// peer does not have it yet, or has answered it.
type Point struct {
	// Subject is what the call is about, as the test names it.
	Subject string
	// Call is the call's name.
	Call string
	// After is set for the moment after the peer's answer.
	After bool
}

func (p Point) String() string {
	when := "before"
	if p.After {
		when = "after"
	}
	return fmt.Sprintf("%s %s of %s", when, p.Call, p.Subject)
}

// ErrLost is the error of a call whose answer was lost.
var ErrLost = errors.New("the answer is lost")

// Points are the points of several subjects at which calls are held.
type Points struct {
	mu    sync.Mutex
	armed map[Point]bool // whether the point has been reached
	// changed is closed when one is reached, and released when they are let go.
	changed, released chan struct{}
	// lost has the answers that were held be lost.
	lost bool
}

// Arm has the next call at each of the points held there.
func (p *Points) Arm(points ...Point) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed = map[Point]bool{}
	for _, at := range points {
		p.armed[at] = false
	}
	p.changed, p.released, p.lost = make(chan struct{}), make(chan struct{}), false
}

// Wait returns when a call is held at each point. The error names the points that were
// not reached before ctx ended.
func (p *Points) Wait(ctx context.Context) error {
	for {
		p.mu.Lock()
		var missing []string
		for at, reached := range p.armed {
			if !reached {
				missing = append(missing, at.String())
			}
		}
		changed := p.changed
		p.mu.Unlock()
		if len(missing) == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			slices.Sort(missing)
			return fmt.Errorf("not reached: %s", strings.Join(missing, ", "))
		}
	}
}

// Release lets the held calls go on: to the peer those that it does not have yet, and
// back the answers of the others, or an error in place of them if they are lost.
func (p *Points) Release(lost bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed, p.lost = nil, lost
	close(p.released)
}

// Pass is called at a point. If it is armed, Pass returns when it is let go, or with
// ctx's error.
func (p *Points) Pass(ctx context.Context, at Point) error {
	p.mu.Lock()
	reached, armed := p.armed[at]
	if !armed || reached {
		p.mu.Unlock()
		return nil
	}
	p.armed[at] = true
	close(p.changed)
	p.changed = make(chan struct{})
	released := p.released
	p.mu.Unlock()
	select {
	case <-released:
	case <-ctx.Done():
		return ctx.Err()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lost && at.After {
		return ErrLost
	}
	return nil
}
