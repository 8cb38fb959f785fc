package deployment

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	apps "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	reasonAvailable = "NewReplicaSetAvailable"
	reasonTimedOut  = "ProgressDeadlineExceeded"
	reasonPaused    = "DeploymentPaused"
)

func hasDeadline(d *apps.Deployment) bool {
	return d.Spec.ProgressDeadlineSeconds != nil && *d.Spec.ProgressDeadlineSeconds != math.MaxInt32
}

func deadline(d *apps.Deployment) time.Duration {
	return time.Duration(*d.Spec.ProgressDeadlineSeconds) * time.Second
}

func condition(s apps.DeploymentStatus, t apps.DeploymentConditionType) *apps.DeploymentCondition {
	for i := range s.Conditions {
		if s.Conditions[i].Type == t {
			c := s.Conditions[i]
			return &c
		}
	}
	return nil
}

func removeCondition(s *apps.DeploymentStatus, t apps.DeploymentConditionType) {
	s.Conditions = slices.DeleteFunc(slices.Clone(s.Conditions), func(c apps.DeploymentCondition) bool { return c.Type == t })
}

// setCondition sets a condition unless its status and reason are the same
// already.
func (r *rollout) setCondition(s *apps.DeploymentStatus, t apps.DeploymentConditionType, status v1.ConditionStatus, reason, message string) {
	now := metav1.NewTime(r.clock.Now())
	c := apps.DeploymentCondition{Type: t, Status: status, Reason: reason, Message: message, LastUpdateTime: now, LastTransitionTime: now}
	if cur := condition(*s, t); cur != nil {
		if cur.Status == status && cur.Reason == reason {
			return
		}
		if cur.Status == status {
			c.LastTransitionTime = cur.LastTransitionTime
		}
	}
	removeCondition(s, t)
	s.Conditions = append(s.Conditions, c)
}

// notePause records that the Deployment was paused or resumed, so that the
// time of a pause does not count towards the deadline.
func (r *rollout) notePause(ctx context.Context) error {
	if !hasDeadline(r.d) {
		return nil
	}
	cond := condition(r.d.Status, apps.DeploymentProgressing)
	if cond != nil && cond.Reason == reasonTimedOut {
		return nil
	}
	noted := cond != nil && cond.Reason == reasonPaused
	switch {
	case r.d.Spec.Paused && !noted:
		r.setCondition(&r.d.Status, apps.DeploymentProgressing, v1.ConditionUnknown, reasonPaused, "Deployment is paused")
	case !r.d.Spec.Paused && noted:
		r.setCondition(&r.d.Status, apps.DeploymentProgressing, v1.ConditionUnknown, "DeploymentResumed", "Deployment is resumed")
	default:
		return nil
	}
	return r.writeStatus(ctx)
}

// complete reports whether all of d's replicas are of its template and available,
// and no others are left.
func complete(d *apps.Deployment, s *apps.DeploymentStatus) bool {
	n := replicasOf(d.Spec.Replicas)
	return s.UpdatedReplicas == n && s.Replicas == n && s.AvailableReplicas == n && s.ObservedGeneration >= d.Generation
}

func progressing(was, is *apps.DeploymentStatus) bool {
	return is.UpdatedReplicas > was.UpdatedReplicas ||
		is.Replicas-is.UpdatedReplicas < was.Replicas-was.UpdatedReplicas ||
		is.ReadyReplicas > was.ReadyReplicas ||
		is.AvailableReplicas > was.AvailableReplicas
}

func (r *rollout) timedOut(s *apps.DeploymentStatus) bool {
	c := condition(*s, apps.DeploymentProgressing)
	if c == nil || c.Reason == reasonAvailable {
		return false
	}
	return c.Reason == reasonTimedOut || c.LastUpdateTime.Add(deadline(r.d)).Before(r.clock.Now())
}

func (r *rollout) status() apps.DeploymentStatus {
	sets := r.sets()
	s := apps.DeploymentStatus{
		ObservedGeneration: r.d.Generation,
		CollisionCount:     r.d.Status.CollisionCount,
		Conditions:         slices.Clone(r.d.Status.Conditions),
	}
	var terminating int32
	counted := true
	for _, rs := range sets {
		s.Replicas += rs.Status.Replicas
		s.ReadyReplicas += rs.Status.ReadyReplicas
		s.AvailableReplicas += rs.Status.AvailableReplicas
		if rs.Status.TerminatingReplicas == nil {
			counted = false
		} else {
			terminating += *rs.Status.TerminatingReplicas
		}
	}
	// A ReplicaSet that was not counted yet leaves the sum unknown.
	if counted {
		s.TerminatingReplicas = &terminating
	}
	if r.new != nil {
		s.UpdatedReplicas = r.new.Status.Replicas
	}
	s.UnavailableReplicas = max(total(sets)-s.AvailableReplicas, 0)
	if s.AvailableReplicas >= replicasOf(r.d.Spec.Replicas)-maxUnavailable(r.d) {
		r.setCondition(&s, apps.DeploymentAvailable, v1.ConditionTrue, "MinimumReplicasAvailable", "Deployment has minimum availability.")
	} else {
		r.setCondition(&s, apps.DeploymentAvailable, v1.ConditionFalse, "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
	}
	return s
}

// syncProgress updates the status of a rollout under way.
func (r *rollout) syncProgress(ctx context.Context) error {
	s := r.status()
	if !hasDeadline(r.d) {
		removeCondition(&s, apps.DeploymentProgressing)
	}
	cur := condition(r.d.Status, apps.DeploymentProgressing)
	finished := s.Replicas == s.UpdatedReplicas && cur != nil && cur.Reason == reasonAvailable
	if hasDeadline(r.d) && !finished {
		what := fmt.Sprintf("Deployment %q", r.d.Name)
		if r.new != nil {
			what = fmt.Sprintf("ReplicaSet %q", r.new.Name)
		}
		switch {
		case complete(r.d, &s):
			r.setCondition(&s, apps.DeploymentProgressing, v1.ConditionTrue, reasonAvailable, what+" has successfully progressed.")
		case progressing(&r.d.Status, &s):
			// Each step restarts the deadline: the update time moves even where
			// status and reason stay.
			removeCondition(&s, apps.DeploymentProgressing)
			r.setCondition(&s, apps.DeploymentProgressing, v1.ConditionTrue, "ReplicaSetUpdated", what+" is progressing.")
			if cur != nil && cur.Status == v1.ConditionTrue {
				s.Conditions[len(s.Conditions)-1].LastTransitionTime = cur.LastTransitionTime
			}
		case r.timedOut(&s):
			r.setCondition(&s, apps.DeploymentProgressing, v1.ConditionFalse, reasonTimedOut, what+" has timed out progressing.")
		}
	}
	if f := r.failure(); f != nil {
		r.setCondition(&s, apps.DeploymentReplicaFailure, f.Status, f.Reason, f.Message)
	} else {
		removeCondition(&s, apps.DeploymentReplicaFailure)
	}
	if equality.Semantic.DeepEqual(r.d.Status, s) {
		r.again = r.stuckAfter(r.d, &s)
		return nil
	}
	r.d.Status = s
	return r.writeStatus(ctx)
}

// failure returns the failure of the new ReplicaSet, or else of any.
func (r *rollout) failure() *apps.ReplicaSetCondition {
	sets := r.old
	if r.new != nil {
		sets = append([]*apps.ReplicaSet{r.new}, sets...)
	}
	for _, rs := range sets {
		for i, c := range rs.Status.Conditions {
			if c.Type == apps.ReplicaSetReplicaFailure {
				return &rs.Status.Conditions[i]
			}
		}
	}
	return nil
}
