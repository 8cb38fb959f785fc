package core

import (
	"fmt"
	"strconv"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/internal/api/row"
)

func podColumns() []metav1.TableColumnDefinition {
	spec, status := v1.PodSpec{}.SwaggerDoc(), v1.PodStatus{}.SwaggerDoc()
	return []metav1.TableColumnDefinition{
		row.Name(),
		row.String("Ready", "The aggregate readiness state of this pod for accepting traffic."),
		row.String("Status", "The aggregate status of the containers in this pod."),
		row.String("Restarts", "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted."),
		row.Age(),
		row.Wide("IP", status["podIP"]),
		row.Wide("Node", spec["nodeName"]),
		row.Wide("Nominated Node", status["nominatedNodeName"]),
		row.Wide("Readiness Gates", spec["readinessGates"]),
	}
}

// podRowConditions say of a pod that it has come to its end: clients may show it in
// grey, or not at all.
func podRowConditions(p *v1.Pod) []metav1.TableRowCondition {
	completed := metav1.TableRowCondition{Type: metav1.RowCompleted, Status: metav1.ConditionTrue}
	switch phase := p.Status.Phase; phase {
	case v1.PodSucceeded:
		completed.Reason, completed.Message = string(phase), "The pod has completed successfully."
	case v1.PodFailed:
		completed.Reason, completed.Message = string(phase), "The pod failed."
	default:
		return nil
	}
	return []metav1.TableRowCondition{completed}
}

func orNone(s string) string {
	if s == "" {
		return "<none>"
	}
	return s
}

func podCells(p *v1.Pod, now time.Time) []any {
	s := summarize(p)
	restarts := strconv.Itoa(s.restarts)
	if s.restarts != 0 && !s.lastRestart.IsZero() {
		restarts = fmt.Sprintf("%d (%s ago)", s.restarts, row.Since(s.lastRestart, now))
	}
	ip := p.Status.PodIP
	if len(p.Status.PodIPs) > 0 {
		ip = p.Status.PodIPs[0].IP
	}
	gates := "<none>"
	if n := len(p.Spec.ReadinessGates); n > 0 {
		open := 0
		for _, g := range p.Spec.ReadinessGates {
			for _, c := range p.Status.Conditions {
				if c.Type == g.ConditionType {
					if c.Status == v1.ConditionTrue {
						open++
					}
					break
				}
			}
		}
		gates = fmt.Sprintf("%d/%d", open, n)
	}
	return []any{
		p.Name, fmt.Sprintf("%d/%d", s.ready, s.total), s.reason, restarts, row.Created(p, now),
		orNone(ip), orNone(p.Spec.NodeName), orNone(p.Status.NominatedNodeName), gates,
	}
}

// summary is a pod in a line.
type summary struct {
	ready, total int
	reason       string
	restarts     int
	lastRestart  time.Time
}

func summarize(p *v1.Pod) summary {
	s := summary{total: len(p.Spec.Containers), reason: string(p.Status.Phase)}
	if p.Status.Reason != "" {
		s.reason = p.Status.Reason
	}
	for _, c := range p.Status.Conditions {
		if c.Type == v1.PodScheduled && c.Reason == v1.PodReasonSchedulingGated {
			s.reason = v1.PodReasonSchedulingGated
		}
	}
	sidecars := map[string]bool{}
	for i := range p.Spec.InitContainers {
		if r := p.Spec.InitContainers[i].RestartPolicy; r != nil && *r == v1.ContainerRestartPolicyAlways {
			sidecars[p.Spec.InitContainers[i].Name] = true
			s.total++
		}
	}
	initializing := s.init(p, sidecars)
	if !initializing || initialized(p) {
		s.main(p)
	}
	if p.DeletionTimestamp != nil {
		switch {
		case p.Status.Reason == "NodeLost":
			s.reason = "Unknown"
		case p.Status.Phase != v1.PodSucceeded && p.Status.Phase != v1.PodFailed:
			s.reason = "Terminating"
		}
	}
	return s
}

func initialized(p *v1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == v1.PodInitialized {
			return c.Status == v1.ConditionTrue
		}
	}
	return false
}

// init counts the init containers, up to the first that is not done, whose
// state is the pod's reason; it reports whether there is one.
func (s *summary) init(p *v1.Pod, sidecars map[string]bool) bool {
	sidecarRestarts, lastSidecar := 0, time.Time{}
	for i := range p.Status.InitContainerStatuses {
		c := &p.Status.InitContainerStatuses[i]
		s.restarts += int(c.RestartCount)
		s.restartedAt(c, &s.lastRestart)
		sidecar := sidecars[c.Name]
		if sidecar {
			sidecarRestarts += int(c.RestartCount)
			s.restartedAt(c, &lastSidecar)
		}
		switch {
		case c.State.Terminated != nil && c.State.Terminated.ExitCode == 0:
			continue
		case sidecar && c.Started != nil && *c.Started:
			if c.Ready {
				s.ready++
			}
			continue
		case c.State.Terminated != nil:
			s.reason = "Init:" + ended(c.State.Terminated)
		case c.State.Waiting != nil && c.State.Waiting.Reason != "" && c.State.Waiting.Reason != "PodInitializing":
			s.reason = "Init:" + c.State.Waiting.Reason
		default:
			s.reason = fmt.Sprintf("Init:%d/%d", i, len(p.Spec.InitContainers))
		}
		return true
	}
	// The init containers are done: of those, only sidecars count on.
	s.restarts, s.lastRestart = sidecarRestarts, lastSidecar
	return false
}

func (s *summary) restartedAt(c *v1.ContainerStatus, last *time.Time) {
	if t := c.LastTerminationState.Terminated; t != nil && last.Before(t.FinishedAt.Time) {
		*last = t.FinishedAt.Time
	}
}

func ended(t *v1.ContainerStateTerminated) string {
	switch {
	case t.Reason != "":
		return t.Reason
	case t.Signal != 0:
		return fmt.Sprintf("Signal:%d", t.Signal)
	}
	return fmt.Sprintf("ExitCode:%d", t.ExitCode)
}

// main counts the containers; the first that is in trouble gives the reason.
func (s *summary) main(p *v1.Pod) {
	running := false
	for i := len(p.Status.ContainerStatuses) - 1; i >= 0; i-- {
		c := &p.Status.ContainerStatuses[i]
		s.restarts += int(c.RestartCount)
		s.restartedAt(c, &s.lastRestart)
		switch {
		case c.State.Waiting != nil && c.State.Waiting.Reason != "":
			s.reason = c.State.Waiting.Reason
		case c.State.Terminated != nil:
			s.reason = ended(c.State.Terminated)
		case c.Ready && c.State.Running != nil:
			running = true
			s.ready++
		}
	}
	// Some have completed and the others run on.
	if s.reason == "Completed" && running {
		s.reason = "NotReady"
		for _, c := range p.Status.Conditions {
			if c.Type == v1.PodReady && c.Status == v1.ConditionTrue {
				s.reason = "Running"
			}
		}
	}
}
