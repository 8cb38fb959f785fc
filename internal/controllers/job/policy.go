package job

import (
	"fmt"
	"slices"

	batch "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
)

// verdict is the result of a pod failure policy (KEP-3329) for a failed pod.
type verdict struct {
	// action is the action of the first rule that matches; "" if none does.
	action batch.PodFailurePolicyAction
	// counts reports whether the failure counts towards the backoff limits.
	counts bool
	// message is why the Job fails, with the action FailJob.
	message string
}

// judge applies a policy, which may be nil, to a failed pod.
func judge(policy *batch.PodFailurePolicy, pod *v1.Pod) verdict {
	if policy == nil {
		return verdict{counts: true}
	}
	for i, rule := range policy.Rules {
		var what string
		switch {
		case rule.OnExitCodes != nil:
			status := exited(&pod.Status, rule.OnExitCodes)
			if status == nil {
				continue
			}
			what = fmt.Sprintf("Container %s for pod %s/%s failed with exit code %v", status.Name, pod.Namespace, pod.Name, status.State.Terminated.ExitCode)
		case rule.OnPodConditions != nil:
			c := matching(&pod.Status, rule.OnPodConditions)
			if c == nil {
				continue
			}
			what = fmt.Sprintf("Pod %s/%s has condition %v", pod.Namespace, pod.Name, c.Type)
		default:
			continue
		}
		v := verdict{action: rule.Action, counts: rule.Action != batch.PodFailurePolicyActionIgnore}
		if rule.Action == batch.PodFailurePolicyActionFailJob {
			v.message = fmt.Sprintf("%s matching %v rule at index %d", what, rule.Action, i)
		}
		return v
	}
	return verdict{counts: true}
}

// exited returns the first status of a container that has ended with a code that
// matches.
func exited(s *v1.PodStatus, want *batch.PodFailurePolicyOnExitCodesRequirement) *v1.ContainerStatus {
	for _, list := range [][]v1.ContainerStatus{s.ContainerStatuses, s.InitContainerStatuses} {
		for i := range list {
			t := list[i].State.Terminated
			if t == nil || t.ExitCode == 0 || want.ContainerName != nil && *want.ContainerName != list[i].Name {
				continue
			}
			in := slices.Contains(want.Values, t.ExitCode)
			if in && want.Operator == batch.PodFailurePolicyOnExitCodesOpIn || !in && want.Operator == batch.PodFailurePolicyOnExitCodesOpNotIn {
				return &list[i]
			}
		}
	}
	return nil
}

// matching returns the first condition that matches one of the patterns.
func matching(s *v1.PodStatus, patterns []batch.PodFailurePolicyOnPodConditionsPattern) *v1.PodCondition {
	for i := range s.Conditions {
		c := &s.Conditions[i]
		if slices.ContainsFunc(patterns, func(p batch.PodFailurePolicyOnPodConditionsPattern) bool {
			return p.Type == c.Type && p.Status == c.Status
		}) {
			return c
		}
	}
	return nil
}

// replacesFailed reports whether a pod is replaced when it has failed only, and
// not when it is being deleted.
func replacesFailed(j *batch.Job) bool {
	return j.Spec.PodReplacementPolicy != nil && *j.Spec.PodReplacementPolicy == batch.Failed || j.Spec.PodFailurePolicy != nil
}

// failed reports whether the pod is a failure of the Job. One that is being
// deleted is, unless such pods are not replaced: it may never get so far as to
// fail by itself.
func failed(j *batch.Job, p *v1.Pod) bool {
	if p.Status.Phase == v1.PodFailed {
		return true
	}
	return !replacesFailed(j) && p.DeletionTimestamp != nil && p.Status.Phase != v1.PodSucceeded
}

// success returns the message of the first rule of the Job's success policy
// (KEP-3998) that the indexes which have succeeded meet, "" if none does.
func success(j *batch.Job, done indexes) string {
	if j.Spec.SuccessPolicy == nil || len(done) == 0 {
		return ""
	}
	for i, rule := range j.Spec.SuccessPolicy.Rules {
		n := done.count()
		met := false
		if rule.SucceededIndexes != nil {
			of := parseIndexes(*rule.SucceededIndexes, int(*j.Spec.Completions))
			if len(of) == 0 {
				continue
			}
			n = done.overlap(of)
			met = n == of.count()
		}
		if met || rule.SucceededCount != nil && n >= int(*rule.SucceededCount) {
			return fmt.Sprintf("Matched rules at index %d", i)
		}
	}
	return ""
}
