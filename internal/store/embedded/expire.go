package embedded

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// expirer deletes entries when their time to live ends.
type expirer struct {
	s      *Store
	ctx    context.Context
	cancel context.CancelFunc
	wake   chan struct{}

	mu   sync.Mutex
	heap expiries
}

type expiry struct {
	key      string
	revision int64 // revision of the entry; a newer version has its own expiry
	at       time.Time
}

type expiries []expiry

func (h expiries) Len() int           { return len(h) }
func (h expiries) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h expiries) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *expiries) Push(x any)        { *h = append(*h, x.(expiry)) }
func (h *expiries) Pop() any {
	old := *h
	x := old[len(old)-1]
	old[len(old)-1] = expiry{}
	*h = old[:len(old)-1]
	return x
}

func newExpirer(s *Store) *expirer {
	x := &expirer{s: s, wake: make(chan struct{}, 1)}
	x.ctx, x.cancel = context.WithCancel(context.Background())
	return x
}

func (x *expirer) stop() { x.cancel() }

func (x *expirer) add(key string, revision int64, at time.Time) {
	x.mu.Lock()
	heap.Push(&x.heap, expiry{key, revision, at})
	first := x.heap[0].revision == revision
	x.mu.Unlock()
	if first {
		select {
		case x.wake <- struct{}{}:
		default:
		}
	}
}

// all returns the expiries of entries that have one, by key; of those of older versions,
// the newest version's counts.
func (x *expirer) all() map[string]expiry {
	x.mu.Lock()
	defer x.mu.Unlock()
	out := make(map[string]expiry, len(x.heap))
	for _, e := range x.heap {
		if e.revision >= out[e.key].revision {
			out[e.key] = e
		}
	}
	return out
}

// due pops what has expired, and returns the time until the next.
func (x *expirer) due(now time.Time) (out []expiry, next time.Duration, more bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for len(x.heap) > 0 && !x.heap[0].at.After(now) {
		out = append(out, heap.Pop(&x.heap).(expiry))
	}
	if len(x.heap) == 0 {
		return out, 0, false
	}
	return out, x.heap[0].at.Sub(now), true
}

func (x *expirer) run() {
	for {
		due, next, more := x.due(x.s.opts.Clock.Now())
		for _, e := range due {
			// A conflict means that the entry lives on in a newer version.
			_, _ = x.s.Delete(x.ctx, e.key, e.revision)
		}
		var timer <-chan time.Time
		if more {
			t := x.s.opts.Clock.NewTimer(next)
			timer = t.C()
			select {
			case <-timer:
			case <-x.wake:
			case <-x.ctx.Done():
			}
			t.Stop()
		} else {
			select {
			case <-x.wake:
			case <-x.ctx.Done():
			}
		}
		if x.ctx.Err() != nil {
			return
		}
	}
}
