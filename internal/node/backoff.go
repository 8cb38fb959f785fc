package node

import "time"

const (
	backoffInitial = 10 * time.Second
	backoffMax     = 300 * time.Second
)

// backoff is the growing pause between the restarts of one container, or the
// pulls of one image; it starts over when nothing failed for twice its maximum.
type backoff struct {
	pause time.Duration
	last  time.Time
}

// wait is how much of the pause after a failure at since is left at now.
func (b *backoff) wait(since, now time.Time) time.Duration {
	if b.pause == 0 || since.Sub(b.last) > 2*backoffMax {
		return 0
	}
	return since.Add(b.pause).Sub(now)
}

// next makes the pause longer, for a try at now.
func (b *backoff) next(now time.Time) {
	if b.pause == 0 || now.Sub(b.last) > 2*backoffMax {
		b.pause = backoffInitial
	} else {
		b.pause = min(2*b.pause, backoffMax)
	}
	b.last = now
}
