package statefulset

import (
	apps "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
)

// reasons of events by what was tried, and whether it failed.
var reasons = map[string][2]string{
	"create": {"SuccessfulCreate", "FailedCreate"},
	"update": {"SuccessfulUpdate", "FailedUpdate"},
	"delete": {"SuccessfulDelete", "FailedDelete"},
}

// podEvent records an event about a change of a pod of the set.
func (s *controller) podEvent(verb string, set *apps.StatefulSet, pod *v1.Pod, err error) {
	if err != nil {
		s.recorder.Eventf(set, v1.EventTypeWarning, reasons[verb][1], "%s Pod %s in StatefulSet %s failed error: %s", verb, pod.Name, set.Name, err)
		return
	}
	s.recorder.Eventf(set, v1.EventTypeNormal, reasons[verb][0], "%s Pod %s in StatefulSet %s successful", verb, pod.Name, set.Name)
}

// claimEvent records an event about a change of a claim of a pod of the set.
func (s *controller) claimEvent(verb string, set *apps.StatefulSet, pod *v1.Pod, claim *v1.PersistentVolumeClaim, err error) {
	if err != nil {
		s.recorder.Eventf(set, v1.EventTypeWarning, reasons[verb][1], "%s Claim %s for Pod %s in StatefulSet %s failed error: %s", verb, claim.Name, pod.Name, set.Name, err)
		return
	}
	s.recorder.Eventf(set, v1.EventTypeNormal, reasons[verb][0], "%s Claim %s Pod %s in StatefulSet %s success", verb, claim.Name, pod.Name, set.Name)
}
