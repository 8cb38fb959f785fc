package node

import (
	"context"
	"fmt"
	"iter"
	"slices"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"
)

// asContainer is an ephemeral container as one that is never started again
// (https://kubernetes.io/docs/concepts/workloads/pods/ephemeral-containers/).
func asContainer(e *v1.EphemeralContainer) *v1.Container {
	c := v1.Container(e.EphemeralContainerCommon)
	c.RestartPolicy = ptr.To(v1.ContainerRestartPolicyNever)
	return &c
}

// containersOf are all containers of a pod, each with the field that it is in.
func containersOf(pod *v1.Pod) iter.Seq2[string, *v1.Container] {
	return func(yield func(string, *v1.Container) bool) {
		for i := range pod.Spec.InitContainers {
			if !yield("spec.initContainers", &pod.Spec.InitContainers[i]) {
				return
			}
		}
		for i := range pod.Spec.Containers {
			if !yield("spec.containers", &pod.Spec.Containers[i]) {
				return
			}
		}
		for i := range pod.Spec.EphemeralContainers {
			if !yield("spec.ephemeralContainers", asContainer(&pod.Spec.EphemeralContainers[i])) {
				return
			}
		}
	}
}

// specOf is the container of that name, nil if the pod has none.
func specOf(pod *v1.Pod, name string) *v1.Container {
	for _, c := range containersOf(pod) {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// targetOf is the container whose processes the ephemeral container of that
// name is to see, if it names one.
func targetOf(pod *v1.Pod, name string) string {
	for i := range pod.Spec.EphemeralContainers {
		if pod.Spec.EphemeralContainers[i].Name == name {
			return pod.Spec.EphemeralContainers[i].TargetContainerName
		}
	}
	return ""
}

// targetNamespaces gives the namespaces of a container that shares the
// processes of another.
func (w *worker) targetNamespaces(ctx context.Context, o *runtimeapi.NamespaceOption, target string) (*runtimeapi.NamespaceOption, error) {
	obs, err := w.observe(ctx)
	if err != nil {
		return nil, err
	}
	st := obs.current(target)
	if st == nil {
		return nil, fmt.Errorf("unable to find target container %v", target)
	}
	if o.Pid == runtimeapi.NamespaceMode_CONTAINER { // else it sees the target's already
		o.Pid, o.TargetId = runtimeapi.NamespaceMode_TARGET, st.Id
	}
	return o, nil
}

func isEphemeral(pod *v1.Pod, name string) bool {
	return slices.ContainsFunc(pod.Spec.EphemeralContainers, func(c v1.EphemeralContainer) bool { return c.Name == name })
}
