package prober

import (
	"context"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"
)

// Report is called after each run of a probe with its outcome, its output,
// whether the outcome has by now come often enough in a row to count, and how
// long it took.
type Report func(r Result, output string, err error, decided bool, took time.Duration)

// attempts is how often a probe that could not be run is tried at once.
const attempts = 3

// Watch runs the probe on its schedule until ctx ends: the first time after
// the initial delay counted from started, then each period.
func Watch(ctx context.Context, clk clock.WithTicker, p *v1.Probe, t Target, started time.Time, report Report) {
	period := seconds(p.PeriodSeconds, 10)
	timeout := seconds(p.TimeoutSeconds, 1)
	if wait := time.Duration(p.InitialDelaySeconds)*time.Second - clk.Since(started); p.InitialDelaySeconds > 0 && wait > 0 {
		select {
		case <-ctx.Done():
			return
		case <-clk.After(wait):
		}
	}
	ticker := clk.NewTicker(period)
	defer ticker.Stop()
	last, run := Unknown, int32(0)
	for {
		var (
			r   Result
			out string
			err error
		)
		begun := clk.Now()
		for i := 0; i < attempts; i++ {
			if r, out, err = Once(ctx, p.ProbeHandler, t, timeout); err == nil {
				break
			}
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			report(Unknown, out, err, false, clk.Since(begun))
		} else {
			if r == last {
				run++
			} else {
				last, run = r, 1
			}
			need := max(p.SuccessThreshold, 1)
			if r == Failure {
				need = p.FailureThreshold
				if need < 1 {
					need = 3
				}
			}
			report(r, out, nil, run >= need, clk.Since(begun))
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C():
		}
	}
}

func seconds(n, otherwise int32) time.Duration {
	if n < 1 {
		n = otherwise
	}
	return time.Duration(n) * time.Second
}
