package podspec

import (
	"iter"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// AsContainer returns an ephemeral container as one that is never started again
// (https://kubernetes.io/docs/concepts/workloads/pods/ephemeral-containers/).
func AsContainer(e *v1.EphemeralContainer) *v1.Container {
	c := v1.Container(e.EphemeralContainerCommon)
	c.RestartPolicy = ptr.To(v1.ContainerRestartPolicyNever)
	return &c
}

// Containers returns all containers of a pod, each with the field that it is in.
func Containers(pod *v1.Pod) iter.Seq2[string, *v1.Container] {
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
			if !yield("spec.ephemeralContainers", AsContainer(&pod.Spec.EphemeralContainers[i])) {
				return
			}
		}
	}
}

// Container returns the container of that name, nil if the pod has none.
func Container(pod *v1.Pod, name string) *v1.Container {
	for _, c := range Containers(pod) {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// Target returns the container whose processes the ephemeral container of that name
// is to see, if it names one.
func Target(pod *v1.Pod, name string) string {
	for i := range pod.Spec.EphemeralContainers {
		if pod.Spec.EphemeralContainers[i].Name == name {
			return pod.Spec.EphemeralContainers[i].TargetContainerName
		}
	}
	return ""
}

// IsEphemeral reports whether the container of that name is an ephemeral one.
func IsEphemeral(pod *v1.Pod, name string) bool {
	return slices.ContainsFunc(pod.Spec.EphemeralContainers, func(c v1.EphemeralContainer) bool { return c.Name == name })
}

// IsInit reports whether the container of that name is an init container, or a
// sidecar.
func IsInit(pod *v1.Pod, name string) bool {
	return slices.ContainsFunc(pod.Spec.InitContainers, func(c v1.Container) bool { return c.Name == name })
}

// EndsBefore reports whether the container of that name is an init container that has
// ended when the containers of the pod begin: no sidecar.
func EndsBefore(pod *v1.Pod, name string) bool {
	for i := range pod.Spec.InitContainers {
		if c := &pod.Spec.InitContainers[i]; c.Name == name {
			return ptr.Deref(c.RestartPolicy, "") != v1.ContainerRestartPolicyAlways
		}
	}
	return false
}

// Peak returns the most of something that the pod's containers have at one time, by what
// each has: an init container beside the sidecars before it, or all others together.
func Peak(pod *v1.Pod, of func(*v1.Container) int64) int64 {
	sum, most := int64(0), int64(0)
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if n := of(c); EndsBefore(pod, c.Name) {
			most = max(most, sum+n)
		} else {
			sum += n
		}
	}
	for i := range pod.Spec.Containers {
		sum += of(&pod.Spec.Containers[i])
	}
	return max(most, sum)
}

// Status returns the status of the container of that name, nil if the pod has none.
func Status(pod *v1.Pod, name string) *v1.ContainerStatus {
	for _, l := range [][]v1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses, pod.Status.EphemeralContainerStatuses} {
		for i := range l {
			if l[i].Name == name {
				return &l[i]
			}
		}
	}
	return nil
}

// Terminal reports whether a pod of this phase has ended.
func Terminal(p v1.PodPhase) bool { return p == v1.PodSucceeded || p == v1.PodFailed }

// GracePeriod returns how long, in seconds, the pod's containers have to end.
func GracePeriod(pod *v1.Pod) int64 {
	if pod.Spec.TerminationGracePeriodSeconds != nil {
		return *pod.Spec.TerminationGracePeriodSeconds
	}
	return 30
}

// HostUsers reports whether the pod runs with the machine's users.
func HostUsers(pod *v1.Pod) bool { return pod.Spec.HostUsers == nil || *pod.Spec.HostUsers }

// StrictGroups reports whether the pod's processes may have no groups from the
// image.
func StrictGroups(pod *v1.Pod) bool {
	s := pod.Spec.SecurityContext
	return s != nil && s.SupplementalGroupsPolicy != nil && *s.SupplementalGroupsPolicy == v1.SupplementalGroupsPolicyStrict
}

// AppArmor returns the container's own profile, else its pod's, nil for none.
func AppArmor(pod *v1.Pod, c *v1.Container) *v1.AppArmorProfile {
	if s := c.SecurityContext; s != nil && s.AppArmorProfile != nil {
		return s.AppArmorProfile
	}
	if s := pod.Spec.SecurityContext; s != nil {
		return s.AppArmorProfile
	}
	return nil
}

// QOS returns the pod's class of service: that of its status, else the one that
// follows from its resources
// (https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/).
func QOS(pod *v1.Pod) v1.PodQOSClass {
	if pod.Status.QOSClass != "" {
		return pod.Status.QOSClass
	}
	asked, guaranteed := false, true
	lists := []v1.ResourceRequirements{}
	if pod.Spec.Resources != nil {
		lists = append(lists, *pod.Spec.Resources)
	} else {
		for _, cs := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
			for i := range cs {
				lists = append(lists, cs[i].Resources)
			}
		}
	}
	for i := range lists {
		for _, n := range []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory} {
			req, lim := lists[i].Requests[n], lists[i].Limits[n]
			asked = asked || !req.IsZero() || !lim.IsZero()
			if lim.IsZero() || !req.IsZero() && req.Cmp(lim) != 0 {
				guaranteed = false
			}
		}
	}
	switch {
	case !asked:
		return v1.PodQOSBestEffort
	case guaranteed:
		return v1.PodQOSGuaranteed
	}
	return v1.PodQOSBurstable
}
