package podspec

import v1 "k8s.io/api/core/v1"

// Condition returns the pod's condition of a type, nil if it has none.
func Condition(pod *v1.Pod, t v1.PodConditionType) *v1.PodCondition {
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == t {
			return &pod.Status.Conditions[i]
		}
	}
	return nil
}
