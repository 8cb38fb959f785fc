package sim

import (
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// resize gives the containers of a pod that runs the resources of its spec, as a kubelet
// does that resizes in place, and reports whether that has changed its status. A container
// whose policy says so is started anew.
func resize(p *v1.Pod, now *metav1.Time) (changed bool) {
	for i := range p.Status.ContainerStatuses {
		s := &p.Status.ContainerStatuses[i]
		for j := range p.Spec.Containers {
			if c := &p.Spec.Containers[j]; c.Name == s.Name && (s.Resources != nil || !empty(&c.Resources)) {
				changed = give(c, s, now) || changed
			}
		}
	}
	if r := p.Spec.Resources; r != nil && (p.Status.Resources == nil || !equality.Semantic.DeepEqual(*r, *p.Status.Resources)) {
		p.Status.Resources, p.Status.AllocatedResources, changed = r.DeepCopy(), r.Requests.DeepCopy(), true
	}
	return changed
}

func empty(r *v1.ResourceRequirements) bool {
	return len(r.Requests) == 0 && len(r.Limits) == 0 && len(r.Claims) == 0
}

// give is resize for one container.
func give(c *v1.Container, s *v1.ContainerStatus, now *metav1.Time) bool {
	if s.Resources != nil && equality.Semantic.DeepEqual(c.Resources, *s.Resources) {
		return false
	}
	if s.Resources != nil {
		for _, policy := range c.ResizePolicy {
			name := policy.ResourceName
			same := equality.Semantic.DeepEqual(c.Resources.Requests[name], s.Resources.Requests[name]) && equality.Semantic.DeepEqual(c.Resources.Limits[name], s.Resources.Limits[name])
			if policy.RestartPolicy == v1.RestartContainer && !same && s.State.Running != nil {
				s.LastTerminationState = v1.ContainerState{Terminated: &v1.ContainerStateTerminated{ExitCode: 137, Reason: "Error", StartedAt: s.State.Running.StartedAt, FinishedAt: *now, ContainerID: s.ContainerID}}
				s.RestartCount++
				s.State.Running.StartedAt = *now
				break
			}
		}
	}
	s.Resources, s.AllocatedResources = c.Resources.DeepCopy(), c.Resources.Requests.DeepCopy()
	return true
}
