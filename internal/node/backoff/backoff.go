// Package backoff has the growing pauses between the restarts of a container,
// and between the pulls of an image.
package backoff

import (
	"cmp"
	"time"
)

// The pauses, upstream's.
const (
	Initial = 10 * time.Second
	Max     = 300 * time.Second
)

// Backoff is a pause that doubles with each try; it starts over when nothing
// failed for twice its maximum.
type Backoff struct {
	Pause time.Duration
	// Limit is the longest pause, Max where 0.
	Limit time.Duration
	last  time.Time
}

// Wait returns how much of the pause after a failure at since is left at now.
func (b *Backoff) Wait(since, now time.Time) time.Duration {
	if b.Pause == 0 || since.Sub(b.last) > 2*Max {
		return 0
	}
	return since.Add(b.Pause).Sub(now)
}

// Next makes the pause longer, for a try at now.
func (b *Backoff) Next(now time.Time) {
	if b.Pause == 0 || now.Sub(b.last) > 2*Max {
		b.Pause = min(Initial, b.limit())
	} else {
		b.Pause = min(2*b.Pause, b.limit())
	}
	b.last = now
}

func (b *Backoff) limit() time.Duration { return cmp.Or(b.Limit, Max) }
