package upkeep

import (
	"context"
	"time"

	"k8s.io/utils/clock"
)

const (
	// inspection is how often the tables are checked for changes by other processes.
	inspection = 2 * time.Second
	// retryMin is the time until the first retry; it doubles up to retryMax.
	retryMin = time.Second
	retryMax = 30 * time.Second
)

// Loop keeps tables in the wanted state.
type Loop struct {
	Clock clock.WithTicker
	// Wake receives when something has changed.
	Wake <-chan struct{}
	// Sync writes what has changed.
	Sync func() error
	// Inspect reports whether there is something to write without a Wake.
	Inspect func(ctx context.Context) bool
	// Failed is called with an error of Sync, and the time until the retry.
	Failed func(err error, again time.Duration)
}

// Run calls Sync at once, and again whenever something is to be written, until
// ctx ends.
func (l Loop) Run(ctx context.Context) {
	ticks := l.Clock.NewTicker(inspection)
	defer ticks.Stop()
	retry := retryMin
	var later <-chan time.Time // nil unless Sync has failed
	for {
		if err := l.Sync(); err != nil {
			l.Failed(err, retry)
			later = l.Clock.After(retry)
			retry = min(2*retry, retryMax)
		} else {
			later, retry = nil, retryMin
		}
	wait:
		for {
			select {
			case <-ctx.Done():
				return
			case <-l.Wake:
				if later == nil {
					break wait
				}
			case <-later:
				break wait
			case <-ticks.C():
				if later == nil && l.Inspect(ctx) {
					break wait
				}
			}
		}
	}
}
