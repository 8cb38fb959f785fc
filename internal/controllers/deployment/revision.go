package deployment

import (
	"cmp"
	"strconv"
	"strings"

	apps "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const (
	revisionAnnotation = "deployment.kubernetes.io/revision"
	historyAnnotation  = "deployment.kubernetes.io/revision-history"
	desiredAnnotation  = "deployment.kubernetes.io/desired-replicas"
	maxAnnotation      = "deployment.kubernetes.io/max-replicas"
	// maxHistory bounds the revision history annotation, in characters.
	maxHistory = 2000
)

// notCopied are the annotations that a ReplicaSet does not take from its
// Deployment.
var notCopied = map[string]bool{
	v1.LastAppliedConfigAnnotation: true,
	revisionAnnotation:             true,
	historyAnnotation:              true,
	desiredAnnotation:              true,
	maxAnnotation:                  true,
	apps.DeprecatedRollbackTo:      true,
}

func replicasOf(p *int32) int32 {
	if p == nil {
		return 1
	}
	return *p
}

func active(sets []*apps.ReplicaSet) (out []*apps.ReplicaSet) {
	for _, rs := range sets {
		if replicasOf(rs.Spec.Replicas) > 0 {
			out = append(out, rs)
		}
	}
	return out
}

func total(sets []*apps.ReplicaSet) (n int32) {
	for _, rs := range sets {
		n += replicasOf(rs.Spec.Replicas)
	}
	return n
}

// older orders by creation time, then by name.
func older(a, b *apps.ReplicaSet) int {
	if c := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); c != 0 {
		return c
	}
	return cmp.Compare(a.Name, b.Name)
}

// sameTemplate compares two templates but for their hash labels.
func sameTemplate(a, b *v1.PodTemplateSpec) bool {
	a, b = a.DeepCopy(), b.DeepCopy()
	delete(a.Labels, apps.DefaultDeploymentUniqueLabelKey)
	delete(b.Labels, apps.DefaultDeploymentUniqueLabelKey)
	return equality.Semantic.DeepEqual(a, b)
}

func revision(rs *apps.ReplicaSet) int64 {
	n, _ := strconv.ParseInt(rs.Annotations[revisionAnnotation], 10, 64)
	return n
}

func intAnnotation(rs *apps.ReplicaSet, name string) (int32, bool) {
	n, err := strconv.ParseInt(rs.Annotations[name], 10, 32)
	return int32(n), err == nil
}

func annotateReplicas(rs *apps.ReplicaSet, desired, most int32) bool {
	if rs.Annotations == nil {
		rs.Annotations = map[string]string{}
	}
	changed := false
	for k, n := range map[string]int32{desiredAnnotation: desired, maxAnnotation: most} {
		if v := strconv.Itoa(int(n)); rs.Annotations[k] != v {
			rs.Annotations[k] = v
			changed = true
		}
	}
	return changed
}

// setRevision notes the revision on the Deployment.
func setRevision(d *apps.Deployment, rev string) bool {
	if d.Annotations[revisionAnnotation] == rev {
		return false
	}
	if d.Annotations == nil {
		d.Annotations = map[string]string{}
	}
	d.Annotations[revisionAnnotation] = rev
	return true
}

// annotate gives the new ReplicaSet its Deployment's annotations, its revision
// where that grew, and keeps the revisions that it had before.
func annotate(d *apps.Deployment, rs *apps.ReplicaSet, rev string, exists bool) bool {
	changed := false
	if rs.Annotations == nil {
		rs.Annotations = map[string]string{}
	}
	for k, v := range d.Annotations {
		if old, ok := rs.Annotations[k]; notCopied[k] || ok && old == v {
			continue
		}
		rs.Annotations[k] = v
		changed = true
	}
	before, had := rs.Annotations[revisionAnnotation]
	was, err := strconv.ParseInt(before, 10, 64)
	if err != nil && before != "" {
		return false
	}
	is, err := strconv.ParseInt(rev, 10, 64)
	if err != nil {
		return false
	}
	if was < is {
		rs.Annotations[revisionAnnotation] = rev
		changed = true
		if had {
			// This is a rollback to rs.
			keepHistory(rs, before, rev)
		}
	}
	if !exists && annotateReplicas(rs, replicasOf(d.Spec.Replicas), replicasOf(d.Spec.Replicas)+maxSurge(d)) {
		changed = true
	}
	return changed
}

func keepHistory(rs *apps.ReplicaSet, before, rev string) {
	history := rs.Annotations[historyAnnotation]
	if history == "" {
		rs.Annotations[historyAnnotation] = before
		return
	}
	revs := append(strings.Split(history, ","), before)
	if len(rev) >= maxHistory {
		return
	}
	for len(revs) > 1 && len(strings.Join(revs, ",")) > maxHistory {
		revs = revs[1:]
	}
	rs.Annotations[historyAnnotation] = strings.Join(revs, ",")
}

// fenceposts resolves maxSurge, rounded up, and maxUnavailable, rounded down;
// one of them is never zero, for a rollout could not move then.
func fenceposts(d *apps.Deployment) (surge, unavailable int32) {
	ru := d.Spec.Strategy.RollingUpdate
	if d.Spec.Strategy.Type != apps.RollingUpdateDeploymentStrategyType || ru == nil {
		return 0, 0
	}
	zero := intstr.FromInt32(0)
	n := int(replicasOf(d.Spec.Replicas))
	s, _ := intstr.GetScaledValueFromIntOrPercent(intstr.ValueOrDefault(ru.MaxSurge, zero), n, true)
	u, _ := intstr.GetScaledValueFromIntOrPercent(intstr.ValueOrDefault(ru.MaxUnavailable, zero), n, false)
	if s == 0 && u == 0 {
		u = 1
	}
	return int32(s), int32(u)
}

func maxSurge(d *apps.Deployment) int32 {
	s, _ := fenceposts(d)
	return s
}

func maxUnavailable(d *apps.Deployment) int32 {
	_, u := fenceposts(d)
	return min(u, replicasOf(d.Spec.Replicas))
}

// newReplicas returns how large the new ReplicaSet may be now.
func newReplicas(d *apps.Deployment, rs *apps.ReplicaSet, old []*apps.ReplicaSet) int32 {
	desired := replicasOf(d.Spec.Replicas)
	if d.Spec.Strategy.Type != apps.RollingUpdateDeploymentStrategyType {
		return desired
	}
	n := replicasOf(rs.Spec.Replicas)
	room := desired + maxSurge(d) - total(old) - n
	if room <= 0 {
		return n
	}
	return n + min(room, desired-n)
}
