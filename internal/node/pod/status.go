package pod

import (
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/node/podspec"
	"keelson.dev/keelson/internal/node/restart"
)

// summary computes a pod's status from what is known of the pod now.
type summary struct {
	*Manager
	pod      *v1.Pod
	obs      *observed
	starts   *starts
	probes   *probes
	resizing *resizing
	ending   *ending
	last     *v1.PodStatus // as computed before, nil for none
}

func (sm *summary) status() v1.PodStatus {
	pod, obs := sm.pod, sm.obs
	now := metav1.NewTime(sm.Clock.Now().UTC().Truncate(time.Second))
	s := v1.PodStatus{
		QOSClass: podspec.QOS(pod), NominatedNodeName: pod.Status.NominatedNodeName, StartTime: pod.Status.StartTime,
		ObservedGeneration: pod.Generation, ResourceClaimStatuses: pod.Status.ResourceClaimStatuses,
	}
	if sm.last != nil && sm.last.StartTime != nil {
		s.StartTime = sm.last.StartTime
	}
	if s.StartTime == nil {
		s.StartTime = &now
	}
	nodeIPs := sm.NodeIPs()
	for _, ip := range nodeIPs {
		s.HostIPs = append(s.HostIPs, v1.HostIP{IP: ip.String()})
	}
	if len(s.HostIPs) > 0 {
		s.HostIP = s.HostIPs[0].IP
	}
	ips := obs.ips()
	if pod.Spec.HostNetwork {
		ips = nil
		for _, ip := range nodeIPs {
			ips = append(ips, ip.String())
		}
	} else if len(ips) == 0 {
		for _, ip := range pod.Status.PodIPs {
			ips = append(ips, ip.IP)
		}
	}
	for _, ip := range ips {
		s.PodIPs = append(s.PodIPs, v1.PodIP{IP: ip})
	}
	if len(ips) > 0 {
		s.PodIP = ips[0]
	}
	initialized := true
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		cs := sm.containerStatus(c, "PodInitializing")
		done := cs.State.Terminated != nil && cs.State.Terminated.ExitCode == 0
		if restart.Sidecar(c) {
			done = ptr.Deref(cs.Started, false)
			cs.Ready = cs.State.Running != nil && sm.ready(c)
		} else {
			cs.Ready = done
		}
		initialized = initialized && done
		s.InitContainerStatuses = append(s.InitContainerStatuses, cs)
	}
	begun := false
	for i := range pod.Spec.Containers {
		begun = begun || obs.newest(pod.Spec.Containers[i].Name) != nil
	}
	initialized = initialized || begun
	reason := "ContainerCreating"
	if !initialized {
		reason = "PodInitializing"
	}
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		cs := sm.containerStatus(c, reason)
		cs.Ready = cs.State.Running != nil && sm.ready(c)
		s.ContainerStatuses = append(s.ContainerStatuses, cs)
	}
	for i := range pod.Spec.EphemeralContainers {
		cs := sm.containerStatus(podspec.AsContainer(&pod.Spec.EphemeralContainers[i]), "ContainerCreating")
		cs.Started, cs.Resources = nil, nil
		s.EphemeralContainerStatuses = append(s.EphemeralContainerStatuses, cs)
	}
	if r := pod.Spec.Resources; r != nil {
		s.AllocatedResources, s.Resources = r.Requests.DeepCopy(), r.DeepCopy()
	}
	s.Phase = sm.phase(&s, initialized)
	if sm.ending.why != nil && len(obs.running()) == 0 { // a pod has not ended while a container runs
		s.Phase, s.Reason, s.Message = v1.PodFailed, sm.ending.why.Reason, sm.ending.why.Message
	} else if podspec.Terminal(pod.Status.Phase) {
		s.Phase, s.Reason, s.Message = pod.Status.Phase, pod.Status.Reason, pod.Status.Message
	}
	switch {
	case sm.ending.why != nil && sm.ending.why.rejected:
		s.InitContainerStatuses, s.ContainerStatuses, s.EphemeralContainerStatuses = nil, nil, nil // there are none
	case podspec.Terminal(s.Phase) && len(obs.running()) == 0:
		locate(pod, &s)
	}
	s.Conditions = sm.conditions(&s, initialized, now)
	return s
}
