package pod

import (
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/node/restart"
)

// phase sums up the states of the containers. A container that has exited and
// is to run again is between two runs and counts as one that runs.
func (sm *summary) phase(s *v1.PodStatus, initialized bool) v1.PodPhase {
	pod := sm.pod
	stopping := !sm.ending.begun.IsZero()
	if !initialized {
		for i := range s.InitContainerStatuses {
			t, c := s.InitContainerStatuses[i].State.Terminated, &pod.Spec.InitContainers[i]
			if t != nil && t.ExitCode != 0 && !restart.Sidecar(c) && restart.After(&pod.Spec, c, t.ExitCode) == restart.Nothing {
				return v1.PodFailed
			}
		}
		if stopping {
			return v1.PodFailed
		}
		return v1.PodPending
	}
	waiting, running, failed := 0, 0, 0
	for i := range s.ContainerStatuses {
		cs := &s.ContainerStatuses[i]
		t := cs.State.Terminated
		switch {
		case cs.State.Running != nil:
			running++
		case t != nil && !stopping && restart.After(&pod.Spec, &pod.Spec.Containers[i], t.ExitCode) != restart.Nothing:
			running++
		case t != nil && t.ExitCode != 0:
			failed++
		case t != nil:
		case cs.LastTerminationState.Terminated != nil && !stopping:
			running++
		default:
			waiting++
		}
	}
	switch {
	case waiting > 0 && !stopping:
		return v1.PodPending
	case running > 0:
		return v1.PodRunning
	case failed > 0 || waiting > 0:
		return v1.PodFailed
	}
	return v1.PodSucceeded
}

func (sm *summary) conditions(s *v1.PodStatus, initialized bool, now metav1.Time) []v1.PodCondition {
	pod, obs := sm.pod, sm.obs
	old := pod.Status.Conditions
	if sm.last != nil {
		old = merge(sm.last.Conditions, pod.Status.Conditions)
	}
	find := func(t v1.PodConditionType) *v1.PodCondition {
		for i := range old {
			if old[i].Type == t {
				return &old[i]
			}
		}
		return nil
	}
	var out []v1.PodCondition
	add := func(t v1.PodConditionType, ok bool, reason, message string) {
		c := v1.PodCondition{Type: t, Status: v1.ConditionFalse, Reason: reason, Message: message, LastTransitionTime: now, ObservedGeneration: pod.Generation}
		if ok {
			c.Status = v1.ConditionTrue
		}
		if o := find(t); o != nil && o.Status == c.Status {
			c.LastTransitionTime = o.LastTransitionTime
		}
		out = append(out, c)
	}
	done := s.Phase == v1.PodSucceeded
	var unready, uninit []string
	for i := range s.ContainerStatuses {
		if !s.ContainerStatuses[i].Ready {
			unready = append(unready, s.ContainerStatuses[i].Name)
		}
	}
	for i := range s.InitContainerStatuses {
		cs := &s.InitContainerStatuses[i]
		sidecar := restart.Sidecar(&pod.Spec.InitContainers[i])
		if sidecar && !ptr.Deref(cs.Started, false) || !sidecar && !cs.Ready {
			uninit = append(uninit, cs.Name)
		}
		if sidecar && !cs.Ready {
			unready = append(unready, cs.Name)
		}
	}
	listed := func(names []string) string { return "[" + strings.Join(names, " ") + "]" }
	add(v1.PodReadyToStartContainers, obs.ready() != nil, "", "")
	switch {
	case done:
		add(v1.PodInitialized, true, "PodCompleted", "")
	case initialized:
		add(v1.PodInitialized, true, "", "")
	default:
		add(v1.PodInitialized, false, "ContainersNotInitialized", "containers with incomplete status: "+listed(uninit))
	}
	ready, reason, message := true, "", ""
	switch {
	case done:
		ready, reason = false, "PodCompleted"
	case s.Phase == v1.PodFailed:
		ready, reason = false, "PodFailed"
	case len(unready) > 0 || !initialized:
		ready, reason, message = false, "ContainersNotReady", "containers with unready status: "+listed(unready)
	}
	gates, gateMessage := ready, ""
	for _, g := range pod.Spec.ReadinessGates {
		c := find(g.ConditionType)
		switch {
		case c == nil:
			gates = false
			gateMessage = "corresponding condition of pod readiness gate \"" + string(g.ConditionType) + "\" does not exist."
		case c.Status != v1.ConditionTrue:
			gates = false
			gateMessage = "the status of pod readiness gate \"" + string(g.ConditionType) + "\" is not \"True\", but " + string(c.Status)
		}
	}
	if ready && !gates {
		add(v1.PodReady, false, "ReadinessGatesNotReady", gateMessage)
	} else {
		add(v1.PodReady, ready, reason, message)
	}
	add(v1.ContainersReady, ready, reason, message)
	if c := find(v1.PodScheduled); c != nil {
		out = append(out, *c)
	} else {
		add(v1.PodScheduled, true, "", "")
	}
	if restart.CanRestartPod(&pod.Spec) {
		switch {
		case done:
			add(v1.AllContainersRestarting, false, "PodCompleted", "")
		case s.Phase == v1.PodFailed:
			add(v1.AllContainersRestarting, false, "PodFailed", "")
		case obs.stale(pod):
			add(v1.AllContainersRestarting, true, "RestartAllContainersStarted", "container exited with restart policy rule")
		default:
			add(v1.AllContainersRestarting, false, "", "")
		}
	}
	if sm.ending.why != nil && sm.ending.why.Condition != nil {
		f := sm.ending.why.Condition
		add(f.Type, f.Status == v1.ConditionTrue, f.Reason, f.Message)
	}
	for i := range pod.Status.Conditions {
		if slices.ContainsFunc(out, func(c v1.PodCondition) bool { return c.Type == pod.Status.Conditions[i].Type }) {
			continue
		}
		switch c := &pod.Status.Conditions[i]; c.Type {
		case v1.AllContainersRestarting, v1.PodReadyToStartContainers, v1.PodInitialized, v1.PodReady, v1.ContainersReady, v1.PodScheduled,
			v1.PodResizePending, v1.PodResizeInProgress:
		default:
			out = append(out, *c) // another controller's
		}
	}
	for _, c := range []*v1.PodCondition{sm.resizing.pending, sm.resizing.progress} {
		if c != nil {
			out = append(out, *c)
		}
	}
	return out
}

// merge returns own, and the conditions of others whose types own does not have.
func merge(own, others []v1.PodCondition) []v1.PodCondition {
	out := append([]v1.PodCondition{}, own...)
next:
	for i := range others {
		for j := range own {
			if own[j].Type == others[i].Type {
				continue next
			}
		}
		out = append(out, others[i])
	}
	return out
}
