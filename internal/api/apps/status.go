package apps

import (
	v1 "k8s.io/api/apps/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

var statusPath = field.NewPath("status")

// count is a number of a status.
type count struct {
	name string
	n    int64
}

// validateCounts checks that no count is negative.
func validateCounts(list ...count) (errs field.ErrorList) {
	for _, c := range list {
		errs = append(errs, apivalidation.ValidateNonnegativeField(c.n, statusPath.Child(c.name))...)
	}
	return errs
}

// validateParts checks that no part is greater than all, the count called name.
func validateParts(all int32, name string, parts ...count) (errs field.ErrorList) {
	for _, c := range parts {
		if c.n > int64(all) {
			errs = append(errs, field.Invalid(statusPath.Child(c.name), int32(c.n), "cannot be greater than "+name))
		}
	}
	return errs
}

// validateCollisions checks that the count of collisions does not decrease.
func validateCollisions(is, was *int32) field.ErrorList {
	if was != nil && ptr.Deref(is, 0) < *was {
		return field.ErrorList{field.Invalid(statusPath.Child("collisionCount"), ptr.Deref(is, 0), "cannot be decremented")}
	}
	return nil
}

func validateDeploymentStatus(d, old *v1.Deployment) field.ErrorList {
	s := &d.Status
	updated, ready, available := count{"updatedReplicas", int64(s.UpdatedReplicas)}, count{"readyReplicas", int64(s.ReadyReplicas)}, count{"availableReplicas", int64(s.AvailableReplicas)}
	errs := validateCounts(count{"observedGeneration", s.ObservedGeneration}, count{"replicas", int64(s.Replicas)}, updated, ready, available,
		count{"unavailableReplicas", int64(s.UnavailableReplicas)}, count{"terminatingReplicas", int64(ptr.Deref(s.TerminatingReplicas, 0))},
		count{"collisionCount", int64(ptr.Deref(s.CollisionCount, 0))})
	errs = append(errs, validateParts(s.Replicas, "status.replicas", updated, ready, available)...)
	errs = append(errs, validateParts(s.ReadyReplicas, "readyReplicas", available)...)
	return append(errs, validateCollisions(s.CollisionCount, old.Status.CollisionCount)...)
}

func validateReplicaSetStatus(r, _ *v1.ReplicaSet) field.ErrorList {
	s := &r.Status
	labelled, ready, available := count{"fullyLabeledReplicas", int64(s.FullyLabeledReplicas)}, count{"readyReplicas", int64(s.ReadyReplicas)}, count{"availableReplicas", int64(s.AvailableReplicas)}
	errs := validateCounts(count{"replicas", int64(s.Replicas)}, labelled, ready, available, count{"observedGeneration", s.ObservedGeneration},
		count{"terminatingReplicas", int64(ptr.Deref(s.TerminatingReplicas, 0))})
	errs = append(errs, validateParts(s.Replicas, "status.replicas", labelled, ready, available)...)
	return append(errs, validateParts(s.ReadyReplicas, "readyReplicas", available)...)
}

func validateStatefulSetStatus(r, old *v1.StatefulSet) field.ErrorList {
	s := &r.Status
	ready, current := count{"readyReplicas", int64(s.ReadyReplicas)}, count{"currentReplicas", int64(s.CurrentReplicas)}
	updated, available := count{"updatedReplicas", int64(s.UpdatedReplicas)}, count{"availableReplicas", int64(s.AvailableReplicas)}
	errs := validateCounts(count{"replicas", int64(s.Replicas)}, ready, current, updated, available, count{"observedGeneration", s.ObservedGeneration},
		count{"collisionCount", int64(ptr.Deref(s.CollisionCount, 0))})
	errs = append(errs, validateParts(s.Replicas, "status.replicas", ready, current, updated, available)...)
	errs = append(errs, validateParts(s.ReadyReplicas, "status.readyReplicas", available)...)
	return append(errs, validateCollisions(s.CollisionCount, old.Status.CollisionCount)...)
}

func validateDaemonSetStatus(r, old *v1.DaemonSet) field.ErrorList {
	s := &r.Status
	errs := validateCounts(count{"currentNumberScheduled", int64(s.CurrentNumberScheduled)}, count{"numberMisscheduled", int64(s.NumberMisscheduled)},
		count{"desiredNumberScheduled", int64(s.DesiredNumberScheduled)}, count{"numberReady", int64(s.NumberReady)}, count{"observedGeneration", s.ObservedGeneration},
		count{"updatedNumberScheduled", int64(s.UpdatedNumberScheduled)}, count{"numberAvailable", int64(s.NumberAvailable)},
		count{"numberUnavailable", int64(s.NumberUnavailable)}, count{"collisionCount", int64(ptr.Deref(s.CollisionCount, 0))})
	return append(errs, validateCollisions(s.CollisionCount, old.Status.CollisionCount)...)
}
