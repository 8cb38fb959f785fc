package cri

import (
	"strconv"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The labels and annotations by which the runtime keeps what the agent must
// know of a container; the names are upstream's.
const (
	PodNameLabel       = "io.kubernetes.pod.name"
	PodNamespaceLabel  = "io.kubernetes.pod.namespace"
	ContainerNameLabel = "io.kubernetes.container.name"

	HashAnnotation              = "io.kubernetes.container.hash"
	RestartCountAnnotation      = "io.kubernetes.container.restartCount"
	TerminationPathAnnotation   = "io.kubernetes.container.terminationMessagePath"
	TerminationPolicyAnnotation = "io.kubernetes.container.terminationMessagePolicy"
	// PreStopAnnotation has the preStop hook, for what stops containers without an
	// agent.
	PreStopAnnotation = "io.kubernetes.container.preStopHandler"
)

// RestartCount returns how often the container had been started before this run.
func RestartCount(c *runtimeapi.ContainerStatus) int32 {
	if n, err := strconv.Atoi(c.Annotations[RestartCountAnnotation]); err == nil {
		return int32(n)
	}
	return int32(c.GetMetadata().GetAttempt())
}
