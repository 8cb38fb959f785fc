package deployment

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	apps "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"keelson.dev/keelson/internal/controllers"
)

// rollout is one pass over one Deployment.
type rollout struct {
	*controller
	// d is this pass's own copy.
	d *apps.Deployment
	// all holds the ReplicaSets that d controls; new is the one of d's current
	// template, nil where there is none yet, and old the others.
	all, old []*apps.ReplicaSet
	new      *apps.ReplicaSet
	// again is when to come back though nothing may have happened; zero is never.
	again time.Duration
}

func (r *rollout) run(ctx context.Context) error {
	if r.d.DeletionTimestamp != nil {
		if err := r.find(ctx, false); err != nil {
			return err
		}
		return r.syncStatus(ctx)
	}
	if err := r.notePause(ctx); err != nil {
		return err
	}
	if err := r.find(ctx, false); err != nil {
		return err
	}
	// A Recreate has nothing to divide: were it held up while several ReplicaSets are
	// active, as they may be after it was wrong about what runs, they would stay so.
	if r.d.Spec.Paused || r.d.Spec.Strategy.Type != apps.RecreateDeploymentStrategyType && r.scalingAsked() {
		if err := r.scaleAll(ctx); err != nil {
			return err
		}
		if r.d.Spec.Paused {
			if err := r.cleanup(ctx); err != nil {
				return err
			}
		}
		return r.syncStatus(ctx)
	}
	switch r.d.Spec.Strategy.Type {
	case apps.RecreateDeploymentStrategyType:
		return r.recreate(ctx)
	case apps.RollingUpdateDeploymentStrategyType:
		return r.rolling(ctx)
	}
	return fmt.Errorf("unexpected deployment strategy type: %s", r.d.Spec.Strategy.Type)
}

// scalingAsked reports whether d.spec.replicas changed since its ReplicaSets were
// last sized.
func (r *rollout) scalingAsked() bool {
	for _, rs := range active(r.sets()) {
		if n, ok := intAnnotation(rs, desiredAnnotation); ok && n != replicasOf(r.d.Spec.Replicas) {
			return true
		}
	}
	return false
}

// sets returns the old ReplicaSets and the new one.
func (r *rollout) sets() []*apps.ReplicaSet {
	if r.new == nil {
		return r.old
	}
	return append(slices.Clone(r.old), r.new)
}

// find returns the new ReplicaSet and the old ones, sets the revision of the new
// one, and creates it if it is missing and create is set.
func (r *rollout) find(ctx context.Context, create bool) error {
	r.new, r.old = nil, nil
	byAge := slices.SortedFunc(slices.Values(r.all), older)
	for _, rs := range byAge {
		if r.new == nil && sameTemplate(&rs.Spec.Template, &r.d.Spec.Template) {
			r.new = rs
		} else {
			r.old = append(r.old, rs)
		}
	}
	var last int64
	for _, rs := range r.old {
		last = max(last, revision(rs))
	}
	next := strconv.FormatInt(last+1, 10)
	if r.new != nil {
		return r.refresh(ctx, next)
	}
	if !create {
		return nil
	}
	return r.create(ctx, next)
}

// refresh brings the existing new ReplicaSet's annotations up to date.
func (r *rollout) refresh(ctx context.Context, rev string) error {
	rs := r.new.DeepCopy()
	changed := annotate(r.d, rs, rev, true)
	if changed || rs.Spec.MinReadySeconds != r.d.Spec.MinReadySeconds {
		rs.Spec.MinReadySeconds = r.d.Spec.MinReadySeconds
		updated, err := r.client.AppsV1().ReplicaSets(rs.Namespace).Update(ctx, rs, metav1.UpdateOptions{})
		if err == nil {
			r.wroteSets.Wrote(updated)
		}
		if err != nil {
			return err
		}
		r.replace(updated)
		return nil
	}
	needs := setRevision(r.d, rs.Annotations[revisionAnnotation])
	if hasDeadline(r.d) && condition(r.d.Status, apps.DeploymentProgressing) == nil {
		r.setCondition(&r.d.Status, apps.DeploymentProgressing, v1.ConditionTrue, "FoundNewReplicaSet",
			fmt.Sprintf("Found new replica set %q", rs.Name))
		needs = true
	}
	if needs {
		return r.writeStatus(ctx)
	}
	return nil
}

// replace puts an updated ReplicaSet in the place of the one it was.
func (r *rollout) replace(rs *apps.ReplicaSet) {
	for _, list := range [][]*apps.ReplicaSet{r.all, r.old} {
		for i := range list {
			if list[i].UID == rs.UID {
				list[i] = rs
			}
		}
	}
	if r.new != nil && r.new.UID == rs.UID {
		r.new = rs
	}
}

func (r *rollout) create(ctx context.Context, rev string) error {
	tmpl := r.d.Spec.Template.DeepCopy()
	hash := controllers.TemplateHash(tmpl, r.d.Status.CollisionCount)
	if tmpl.Labels == nil {
		tmpl.Labels = map[string]string{}
	}
	tmpl.Labels[apps.DefaultDeploymentUniqueLabelKey] = hash
	selector := r.d.Spec.Selector.DeepCopy()
	if selector.MatchLabels == nil {
		selector.MatchLabels = map[string]string{}
	}
	selector.MatchLabels[apps.DefaultDeploymentUniqueLabelKey] = hash
	name := r.d.Name
	if most := validation.DNS1123SubdomainMaxLength - len(hash) - 1; len(name) > most {
		name = name[:most]
	}
	rs := &apps.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{
			Name:            name + "-" + hash,
			Namespace:       r.d.Namespace,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(r.d, gvk)},
			Labels:          tmpl.Labels,
		},
		Spec: apps.ReplicaSetSpec{
			Replicas:        new(int32),
			MinReadySeconds: r.d.Spec.MinReadySeconds,
			Selector:        selector,
			Template:        *tmpl,
		},
	}
	count := newReplicas(r.d, rs, r.old)
	*rs.Spec.Replicas = count
	annotate(r.d, rs, rev, false)

	made, err := r.client.AppsV1().ReplicaSets(rs.Namespace).Create(ctx, rs, metav1.CreateOptions{})
	if err == nil {
		r.wroteSets.Wrote(made)
	}
	existed := false
	switch {
	case apierrors.IsAlreadyExists(err):
		// Either the cache was stale and it is ours, or another template has the
		// same hash: then the next pass hashes with one more collision.
		existed = true
		found, getErr := r.client.AppsV1().ReplicaSets(rs.Namespace).Get(ctx, rs.Name, metav1.GetOptions{})
		if getErr != nil {
			return getErr
		}
		if controllers.ControlledBy(found, r.d) && sameTemplate(&found.Spec.Template, &r.d.Spec.Template) {
			made = found
			break
		}
		var n int32
		if r.d.Status.CollisionCount != nil {
			n = *r.d.Status.CollisionCount
		}
		n++
		r.d.Status.CollisionCount = &n
		return errors.Join(err, r.writeStatus(ctx))
	case apierrors.HasStatusCause(err, v1.NamespaceTerminatingCause):
		return err
	case err != nil:
		msg := fmt.Sprintf("Failed to create new replica set %q: %v", rs.Name, err)
		if hasDeadline(r.d) {
			r.setCondition(&r.d.Status, apps.DeploymentProgressing, v1.ConditionFalse, "ReplicaSetCreateError", msg)
			// The creation's own error is what the caller must see.
			_ = r.writeStatus(ctx)
		}
		r.recorder.Event(r.d, v1.EventTypeWarning, "ReplicaSetCreateError", msg)
		return err
	}
	if !existed && count > 0 {
		r.recorder.Eventf(r.d, v1.EventTypeNormal, "ScalingReplicaSet", "Scaled up replica set %s from 0 to %d", made.Name, count)
	}
	r.new = made
	r.all = append(slices.Clone(r.all), made)
	needs := setRevision(r.d, rev)
	if !existed && hasDeadline(r.d) {
		r.setCondition(&r.d.Status, apps.DeploymentProgressing, v1.ConditionTrue, "NewReplicaSetCreated",
			fmt.Sprintf("Created new replica set %q", made.Name))
		needs = true
	}
	if needs {
		return r.writeStatus(ctx)
	}
	return nil
}

// scale sizes one ReplicaSet, says so in an event, and reports whether its size
// changed.
func (r *rollout) scale(ctx context.Context, rs *apps.ReplicaSet, to int32) (bool, error) {
	desired := replicasOf(r.d.Spec.Replicas)
	from := replicasOf(rs.Spec.Replicas)
	next := rs.DeepCopy()
	annotated := annotateReplicas(next, desired, desired+maxSurge(r.d))
	if from == to && !annotated {
		return false, nil
	}
	next.Spec.Replicas = &to
	updated, err := r.client.AppsV1().ReplicaSets(next.Namespace).Update(ctx, next, metav1.UpdateOptions{})
	if err == nil {
		r.wroteSets.Wrote(updated)
	}
	if err != nil {
		return false, err
	}
	r.replace(updated)
	if from == to {
		return false, nil
	}
	direction := "up"
	if to < from {
		direction = "down"
	}
	r.recorder.Eventf(r.d, v1.EventTypeNormal, "ScalingReplicaSet", "Scaled %s replica set %s from %d to %d", direction, rs.Name, from, to)
	return true, nil
}

// scaleAll brings the ReplicaSets to d's size without moving the rollout on:
// where several are active each gets its proportion.
func (r *rollout) scaleAll(ctx context.Context) error {
	desired := replicasOf(r.d.Spec.Replicas)
	if rs := r.activeOrLatest(); rs != nil {
		// Of the right size it may still have to note what that is.
		_, err := r.scale(ctx, rs, desired)
		return err
	}
	if r.saturated() {
		for _, rs := range active(r.old) {
			if _, err := r.scale(ctx, rs, 0); err != nil {
				return err
			}
		}
		return nil
	}
	if r.d.Spec.Strategy.Type != apps.RollingUpdateDeploymentStrategyType {
		return nil
	}
	sets := active(r.sets())
	allowed := int32(0)
	if desired > 0 {
		allowed = desired + maxSurge(r.d)
	}
	toAdd := allowed - total(sets)
	// Leftovers go to the largest; among equals the newer grows first and the
	// older shrinks first.
	slices.SortFunc(sets, func(a, b *apps.ReplicaSet) int {
		if x, y := replicasOf(a.Spec.Replicas), replicasOf(b.Spec.Replicas); x != y {
			return int(y - x)
		}
		if toAdd > 0 {
			return older(b, a)
		}
		return older(a, b)
	})
	sizes := make([]int32, len(sets))
	added := int32(0)
	for i, rs := range sets {
		sizes[i] = replicasOf(rs.Spec.Replicas)
		if toAdd != 0 {
			p := proportion(rs, r.d, toAdd, added)
			sizes[i] += p
			added += p
		}
	}
	for i, rs := range sets {
		if i == 0 && toAdd != 0 {
			sizes[i] = max(sizes[i]+toAdd-added, 0)
		}
		if _, err := r.scale(ctx, rs, sizes[i]); err != nil {
			return err
		}
	}
	return nil
}

// proportion returns the share of toAdd that rs gets, given what others were given.
func proportion(rs *apps.ReplicaSet, d *apps.Deployment, toAdd, added int32) int32 {
	n := replicasOf(rs.Spec.Replicas)
	if n == 0 || toAdd == 0 || toAdd == added {
		return 0
	}
	var fraction int32
	if desired := replicasOf(d.Spec.Replicas); desired == 0 {
		fraction = -n
	} else {
		before, ok := intAnnotation(rs, maxAnnotation)
		if !ok || before == 0 {
			// No record of the earlier size: the present one is the best guess.
			before = d.Status.Replicas
		}
		if before == 0 {
			return 0
		}
		size := float64(n) * float64(desired+maxSurge(d)) / float64(before)
		fraction = int32(math.Floor(size+0.5)) - n
	}
	if toAdd > 0 {
		return min(fraction, toAdd-added)
	}
	return max(fraction, toAdd-added)
}

// activeOrLatest returns the only active ReplicaSet, or the latest where none is
// active; nil where there are several, or none at all.
func (r *rollout) activeOrLatest() *apps.ReplicaSet {
	switch a := active(r.sets()); len(a) {
	case 1:
		return a[0]
	case 0:
		if r.new != nil || len(r.old) == 0 {
			return r.new
		}
		return slices.MinFunc(r.old, func(a, b *apps.ReplicaSet) int { return older(b, a) })
	}
	return nil
}

// saturated reports whether the new ReplicaSet has all of d's replicas, available.
func (r *rollout) saturated() bool {
	if r.new == nil {
		return false
	}
	desired := replicasOf(r.d.Spec.Replicas)
	n, ok := intAnnotation(r.new, desiredAnnotation)
	return ok && n == desired && replicasOf(r.new.Spec.Replicas) == desired && r.new.Status.AvailableReplicas == desired
}

func (r *rollout) rolling(ctx context.Context) error {
	if r.new == nil {
		if err := r.find(ctx, true); err != nil {
			return err
		}
	}
	desired := replicasOf(r.d.Spec.Replicas)
	if n := replicasOf(r.new.Spec.Replicas); n != desired {
		to := desired
		if n < desired {
			to = newReplicas(r.d, r.new, r.old)
		}
		if scaled, err := r.scale(ctx, r.new, to); err != nil {
			return err
		} else if scaled {
			return r.syncProgress(ctx)
		}
	}
	if scaled, err := r.shrinkOld(ctx); err != nil {
		return err
	} else if scaled {
		return r.syncProgress(ctx)
	}
	if complete(r.d, &r.d.Status) {
		if err := r.cleanup(ctx); err != nil {
			return err
		}
	}
	return r.syncProgress(ctx)
}

// shrinkOld takes away as many old replicas as availability allows: first those
// that are not available anyway.
func (r *rollout) shrinkOld(ctx context.Context) (bool, error) {
	olds := active(r.old)
	if total(olds) == 0 {
		return false, nil
	}
	minAvailable := replicasOf(r.d.Spec.Replicas) - maxUnavailable(r.d)
	newUnavailable := replicasOf(r.new.Spec.Replicas) - r.new.Status.AvailableReplicas
	most := total(r.sets()) - minAvailable - newUnavailable
	if most <= 0 {
		return false, nil
	}
	var done int32
	for i, rs := range olds {
		n := replicasOf(rs.Spec.Replicas)
		if done >= most {
			break
		}
		if n == 0 || n == rs.Status.AvailableReplicas {
			continue
		}
		k := min(most-done, n-rs.Status.AvailableReplicas)
		if k < 0 {
			return false, fmt.Errorf("when cleaning up unhealthy replicas, got invalid request to scale up %s/%s %d -> %d", rs.Namespace, rs.Name, n, n-k)
		}
		if _, err := r.scale(ctx, rs, n-k); err != nil {
			return false, err
		}
		olds[i] = r.current(rs)
		done += k
	}
	available := int32(0)
	for _, rs := range r.sets() {
		available += rs.Status.AvailableReplicas
	}
	spare := available - minAvailable
	for _, rs := range olds {
		n := replicasOf(rs.Spec.Replicas)
		if spare <= 0 {
			break
		}
		if n == 0 {
			continue
		}
		k := min(n, spare)
		if _, err := r.scale(ctx, rs, n-k); err != nil {
			return false, err
		}
		spare -= k
		done += k
	}
	return done > 0, nil
}

// current returns the present form of rs, after updates of this pass.
func (r *rollout) current(rs *apps.ReplicaSet) *apps.ReplicaSet {
	for _, o := range r.all {
		if o.UID == rs.UID {
			return o
		}
	}
	return rs
}

func (r *rollout) recreate(ctx context.Context) error {
	scaled := false
	for _, rs := range active(r.old) {
		if replicasOf(rs.Spec.Replicas) == 0 {
			continue
		}
		s, err := r.scale(ctx, rs, 0)
		if err != nil {
			return err
		}
		scaled = scaled || s
	}
	if scaled {
		return r.syncProgress(ctx)
	}
	running, err := r.oldPodsRun()
	if err != nil {
		return err
	}
	if running {
		return r.syncProgress(ctx)
	}
	if r.new == nil {
		if err := r.find(ctx, true); err != nil {
			return err
		}
	}
	if _, err := r.scale(ctx, r.new, replicasOf(r.d.Spec.Replicas)); err != nil {
		return err
	}
	if complete(r.d, &r.d.Status) {
		if err := r.cleanup(ctx); err != nil {
			return err
		}
	}
	return r.syncProgress(ctx)
}

func (r *rollout) oldPodsRun() (bool, error) {
	for _, rs := range r.old {
		if rs.Status.Replicas > 0 {
			return true, nil
		}
	}
	for _, rs := range r.old {
		pods, err := controllers.PodsOf(r.pods, rs, false)
		if err != nil {
			return false, err
		}
		if slices.ContainsFunc(pods, func(p *v1.Pod) bool { return !controllers.PodTerminated(p) }) {
			return true, nil
		}
	}
	return false, nil
}

// cleanup deletes the oldest ReplicaSets beyond the history limit.
func (r *rollout) cleanup(ctx context.Context) error {
	limit := r.d.Spec.RevisionHistoryLimit
	if limit == nil || *limit == math.MaxInt32 {
		return nil
	}
	var alive []*apps.ReplicaSet
	for _, rs := range r.old {
		if rs.DeletionTimestamp == nil {
			alive = append(alive, rs)
		}
	}
	n := len(alive) - int(*limit)
	if n <= 0 {
		return nil
	}
	slices.SortFunc(alive, func(a, b *apps.ReplicaSet) int {
		if x, y := revision(a), revision(b); x != y {
			if x < y {
				return -1
			}
			return 1
		}
		return older(a, b)
	})
	for _, rs := range alive[:n] {
		if rs.Status.Replicas != 0 || replicasOf(rs.Spec.Replicas) != 0 || rs.Generation > rs.Status.ObservedGeneration {
			continue
		}
		if err := r.client.AppsV1().ReplicaSets(rs.Namespace).Delete(ctx, rs.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// writeStatus writes d's status, and its revision annotation with it, now.
func (r *rollout) writeStatus(ctx context.Context) error {
	updated, err := r.client.AppsV1().Deployments(r.d.Namespace).UpdateStatus(ctx, r.d, metav1.UpdateOptions{})
	if err == nil {
		r.wrote.Wrote(updated)
	}
	if err != nil {
		return err
	}
	r.d.ResourceVersion = updated.ResourceVersion
	return nil
}

// syncStatus updates the status of a rollout that is not moving.
func (r *rollout) syncStatus(ctx context.Context) error {
	s := r.status()
	if equality.Semantic.DeepEqual(r.d.Status, s) {
		return nil
	}
	r.d.Status = s
	return r.writeStatus(ctx)
}
