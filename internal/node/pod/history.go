package pod

import (
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/internal/node/cri"
	"keelson.dev/keelson/internal/node/podspec"
	"keelson.dev/keelson/internal/node/restart"
)

// The reason and message of a container that the runtime has lost.
const (
	reasonUnknown   = "ContainerStatusUnknown"
	exitCodeUnknown = 137
	messageGone     = "The container could not be located when the pod was deleted.  The container used to be Running"
	messageLost     = "The container could not be located when the pod was terminated"
)

// recall adds to what the runtime has of the pod the last run of each container
// that the runtime has lost, from the pod's status in the API: a container that
// has completed does not run again, and restart counts continue, after the
// machine has restarted or its containers were removed.
func (o *observed) recall(pod *v1.Pod) {
	for _, c := range podspec.Containers(pod) {
		if len(o.containers[c.Name]) > 0 {
			continue
		}
		if st := lastRun(podspec.Status(pod, c.Name)); st != nil {
			st.Labels = map[string]string{cri.ContainerNameLabel: c.Name}
			o.containers[c.Name] = []*runtimeapi.ContainerStatus{st}
		}
	}
}

// lastRun returns the end of a container's last run by its status, nil if it has
// had none. The end of a run that the status does not have is unknown.
func lastRun(s *v1.ContainerStatus) *runtimeapi.ContainerStatus {
	if s == nil {
		return nil
	}
	out := &runtimeapi.ContainerStatus{
		State: runtimeapi.ContainerState_CONTAINER_EXITED, ImageRef: s.ImageID, Image: &runtimeapi.ImageSpec{Image: s.Image, UserSpecifiedImage: s.Image},
		Annotations: map[string]string{cri.RestartCountAnnotation: strconv.Itoa(int(s.RestartCount))},
	}
	_, out.Id, _ = strings.Cut(s.ContainerID, "://")
	t := s.State.Terminated
	switch {
	case t != nil:
	case s.State.Running != nil:
		out.ExitCode, out.Reason, out.Message = exitCodeUnknown, reasonUnknown, messageGone
		out.StartedAt = s.State.Running.StartedAt.UnixNano()
		return out
	case s.LastTerminationState.Terminated != nil:
		t = s.LastTerminationState.Terminated
	default:
		return nil
	}
	if t.ContainerID != "" {
		_, out.Id, _ = strings.Cut(t.ContainerID, "://")
	}
	out.ExitCode, out.Reason, out.Message = t.ExitCode, t.Reason, t.Message
	if !t.StartedAt.IsZero() {
		out.StartedAt = t.StartedAt.UnixNano()
	}
	if !t.FinishedAt.IsZero() {
		out.FinishedAt = t.FinishedAt.UnixNano()
	}
	return out
}

// locate gives every container of a pod that has ended its end: one that is not
// known to have ended counts as killed. A pod that was never initialized has
// containers that did not begin, and these stay as they are.
func locate(pod *v1.Pod, s *v1.PodStatus) {
	unknown := v1.ContainerState{Terminated: &v1.ContainerStateTerminated{ExitCode: exitCodeUnknown, Reason: reasonUnknown, Message: messageLost}}
	begun := len(s.InitContainerStatuses)
	for begun > 0 {
		c := &s.InitContainerStatuses[begun-1]
		if c.State.Waiting == nil || c.LastTerminationState.Terminated != nil || c.RestartCount > 0 {
			break
		}
		begun--
	}
	initialized := len(pod.Spec.InitContainers) == begun
	for i := range s.InitContainerStatuses[:begun] {
		c := &s.InitContainerStatuses[i]
		if c.State.Terminated == nil {
			c.State = unknown
		}
		if t := c.State.Terminated; t.ExitCode != 0 && !restart.Sidecar(&pod.Spec.InitContainers[i]) {
			initialized = false
		}
	}
	for i := range s.ContainerStatuses {
		if c := &s.ContainerStatuses[i]; c.State.Terminated == nil && (initialized || c.LastTerminationState.Terminated != nil || c.RestartCount > 0) {
			c.State = unknown
		}
	}
	for i := range s.EphemeralContainerStatuses {
		if c := &s.EphemeralContainerStatuses[i]; c.State.Terminated == nil && c.ContainerID != "" {
			c.State = unknown
		}
	}
}
