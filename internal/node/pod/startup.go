package pod

import (
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"

	"keelson.dev/keelson/internal/node/restart"
)

// startup measures the start of a pod that this agent has seen from its beginning.
type startup struct {
	seen time.Time
	mu   sync.Mutex
	done bool // it was measured, or cannot be
}

// reported is called when the API has a status of the worker's pod. The first one in which
// all containers have started ends the pod's start.
func (s *startup) reported(w *worker, status *v1.PodStatus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done || len(status.ContainerStatuses) == 0 {
		return
	}
	for i := range status.ContainerStatuses {
		if c := &status.ContainerStatuses[i].State; c.Running == nil && c.Terminated == nil {
			return
		}
	}
	s.done = true
	pod, now := w.latest(), w.Clock.Now()
	excluded := w.pulls.Took()
	for i := range status.InitContainerStatuses {
		if t := status.InitContainerStatuses[i].State.Terminated; t != nil && i < len(pod.Spec.InitContainers) && !restart.Sidecar(&pod.Spec.InitContainers[i]) {
			excluded += t.FinishedAt.Sub(t.StartedAt.Time)
		}
	}
	w.Metrics.PodStarted(now.Sub(s.seen), now.Sub(pod.CreationTimestamp.Time), excluded)
}
