package restart

import (
	"slices"

	v1 "k8s.io/api/core/v1"
)

// Action is the consequence of a container's exit.
type Action int

const (
	// Nothing leaves the container: it has come to its end.
	Nothing Action = iota
	// Container starts the container again.
	Container
	// Pod stops the pod's other containers and starts all of them anew, the
	// init containers first.
	Pod
)

// After returns the action when container c of a pod exits with the code. The
// first rule that matches decides, then the container's policy, then the pod's.
func After(spec *v1.PodSpec, c *v1.Container, code int32) Action {
	policy := spec.RestartPolicy
	if c.RestartPolicy != nil {
		if r := matching(c, code); r != nil {
			switch r.Action {
			case v1.ContainerRestartRuleActionRestart:
				return Container
			case v1.ContainerRestartRuleActionRestartAllContainers:
				return Pod
			}
		}
		policy = v1.RestartPolicy(*c.RestartPolicy)
	}
	if policy == v1.RestartPolicyNever || policy == v1.RestartPolicyOnFailure && code == 0 {
		return Nothing
	}
	return Container
}

func matching(c *v1.Container, code int32) *v1.ContainerRestartRule {
	for i := range c.RestartPolicyRules {
		r := &c.RestartPolicyRules[i]
		if r.ExitCodes != nil && slices.Contains(r.ExitCodes.Values, code) == (r.ExitCodes.Operator == v1.ContainerRestartRuleOnExitCodesOpIn) {
			return r
		}
	}
	return nil
}

// Once reports whether none of the pod's containers ever runs a second time:
// its policy is Never and no container has another one, or rules.
func Once(spec *v1.PodSpec) bool {
	if spec.RestartPolicy != v1.RestartPolicyNever {
		return false
	}
	for i := range spec.Containers {
		c := &spec.Containers[i]
		if len(c.RestartPolicyRules) > 0 || c.RestartPolicy != nil && *c.RestartPolicy != v1.ContainerRestartPolicyNever {
			return false
		}
	}
	return true
}

// CanRestartPod reports whether a container has a rule that starts all of the
// pod's containers anew.
func CanRestartPod(spec *v1.PodSpec) bool {
	for _, cs := range [][]v1.Container{spec.InitContainers, spec.Containers} {
		for i := range cs {
			if slices.ContainsFunc(cs[i].RestartPolicyRules, func(r v1.ContainerRestartRule) bool {
				return r.Action == v1.ContainerRestartRuleActionRestartAllContainers
			}) {
				return true
			}
		}
	}
	return false
}

// Sidecar reports whether an init container runs beside the pod's containers
// (https://kep.k8s.io/753).
func Sidecar(c *v1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == v1.ContainerRestartPolicyAlways
}
