package containerd

import (
	"context"
	"time"

	"k8s.io/klog/v2"
)

const (
	// firstPause and maxPause are between starts of a containerd that fails at
	// once; one that ran for steady is started again without a pause.
	firstPause = 100 * time.Millisecond
	maxPause   = 10 * time.Second
	steady     = 10 * time.Second
)

// Supervise starts containerd again whenever it has ended, until ctx ends. The
// containers, which are children of their shims, are not affected; the new
// containerd finds them by its state.
func (r *Runtime) Supervise(ctx context.Context) {
	log := klog.FromContext(ctx)
	pause := firstPause
	for ctx.Err() == nil {
		begun := time.Now()
		if p := r.alive(); p != nil {
			err := p.wait(ctx)
			p.Close()
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				log.Error(err, "Waiting for the end of containerd failed")
			}
		}
		if time.Since(begun) >= steady {
			pause = firstPause
		} else {
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return
			}
			pause = min(2*pause, maxPause)
		}
		log.Error(nil, "containerd has ended; starting it again", "log", r.o.log())
		if err := r.launch(ctx); err != nil && ctx.Err() == nil {
			log.Error(err, "Starting containerd again failed")
		}
	}
}
