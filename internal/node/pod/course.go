package pod

import (
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/internal/node/restart"
)

// deadline fails the pod when it has run longer than it may.
func (w *worker) deadline(pod *v1.Pod) time.Duration {
	if pod.Spec.ActiveDeadlineSeconds == nil {
		return idle
	}
	start := pod.Status.StartTime
	if last := w.report.last(); last != nil && last.StartTime != nil {
		start = last.StartTime
	}
	if start == nil {
		return idle
	}
	left := time.Duration(*pod.Spec.ActiveDeadlineSeconds)*time.Second - w.Clock.Since(start.Time)
	if left > 0 {
		return left
	}
	w.ending.why = &Failure{Reason: "DeadlineExceeded", Message: "Pod was active on the node longer than the specified deadline"}
	w.Recorder.Event(pod, v1.EventTypeNormal, "DeadlineExceeded", w.ending.why.Message)
	return idle
}

// finished reports whether every container has come to the end that its pod's
// restart policy gives it.
func (w *worker) finished(pod *v1.Pod, obs *observed) bool {
	if w.starts.any() || !w.begun && len(obs.containers) == 0 {
		return false
	}
	// What runs once has run, even if its sandbox did not last.
	if obs.ready() == nil && len(obs.containers) > 0 && len(obs.running()) == 0 && restart.Once(&pod.Spec) {
		return true
	}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if st := obs.newest(c.Name); !restart.Sidecar(c) && st != nil && st.CreatedAt >= obs.anew && exitedBadly(st) && !mayRestart(pod, c, st) {
			return true
		}
	}
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		st := obs.newest(c.Name)
		if st == nil || st.State != runtimeapi.ContainerState_CONTAINER_EXITED || st.CreatedAt < obs.anew || mayRestart(pod, c, st) {
			return false
		}
	}
	return true
}

func exitedBadly(st *runtimeapi.ContainerStatus) bool {
	return st.State == runtimeapi.ContainerState_CONTAINER_EXITED && st.ExitCode != 0
}

// mayRestart reports whether the container runs again after this exit.
func mayRestart(pod *v1.Pod, c *v1.Container, st *runtimeapi.ContainerStatus) bool {
	return restart.After(&pod.Spec, c, st.ExitCode) != restart.Nothing
}

// runsAgain reports whether the container, which has exited, is started again: an init
// container that has completed is not, unless all containers are.
func runsAgain(pod *v1.Pod, c *v1.Container, st *runtimeapi.ContainerStatus) bool {
	if st.ExitCode == 0 && !restart.Sidecar(c) && slices.ContainsFunc(pod.Spec.InitContainers, func(i v1.Container) bool { return i.Name == c.Name }) {
		return false
	}
	return mayRestart(pod, c, st)
}
