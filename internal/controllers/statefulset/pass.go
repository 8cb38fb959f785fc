package statefulset

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	apps "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/controllers/history"
)

// burst bounds the pods that are made or deleted at once in the Parallel policy.
const burst = 500

// errWait ends a pass in which something must happen first.
var errWait = errors.New("waiting for a pod")

// pass is one look at one StatefulSet.
type pass struct {
	*controller
	set             *apps.StatefulSet // this pass's own copy
	current, update *apps.ControllerRevision
	// replicas are the pods that the set wants, by ordinal from the first on;
	// those that are yet to be made have no UID. condemned are the others, with
	// the highest ordinal first.
	replicas, condemned []*v1.Pod
	// unhealthy is the first pod that is not available; nil if all are.
	unhealthy *v1.Pod
	now       time.Time
	status    apps.StatefulSetStatus
}

func (s *controller) newPass(set *apps.StatefulSet, current, update *apps.ControllerRevision, pods []*v1.Pod) (*pass, error) {
	p := &pass{controller: s, set: set, current: current, update: update, now: s.clock.Now(), replicas: make([]*v1.Pod, replicasOf(set))}
	for _, pod := range pods {
		switch _, ordinal := identity(pod); {
		case within(set, ordinal):
			p.replicas[ordinal-first(set)] = pod
		case ordinal >= 0:
			p.condemned = append(p.condemned, pod)
		}
	}
	slices.SortFunc(p.condemned, func(a, b *v1.Pod) int {
		_, x := identity(a)
		_, y := identity(b)
		return cmp.Compare(y, x)
	})
	was, err := history.Template(current)
	if err != nil {
		return nil, err
	}
	for i, pod := range p.replicas {
		ordinal := first(set) + i
		switch {
		case pod != nil:
		case p.keepsCurrent(ordinal):
			p.replicas[i] = newPod(set, was, current.Name, ordinal)
		default:
			p.replicas[i] = newPod(set, &set.Spec.Template, update.Name, ordinal)
		}
	}
	ascending := slices.Concat(p.replicas, p.condemned)
	slices.Reverse(ascending[len(p.replicas):])
	if i := slices.IndexFunc(ascending, p.unavailable); i >= 0 {
		p.unhealthy = ascending[i]
	}
	p.count()
	return p, nil
}

// keepsCurrent reports whether a rolling update has not come to an ordinal, so that
// its pod is made anew of the template that it had.
func (p *pass) keepsCurrent(ordinal int) bool {
	if p.set.Spec.UpdateStrategy.Type != apps.RollingUpdateStatefulSetStrategyType {
		return false
	}
	if r := p.set.Spec.UpdateStrategy.RollingUpdate; r != nil {
		return ordinal < first(p.set)+int(ptr.Deref(r.Partition, 0))
	}
	return ordinal < first(p.set)+int(p.set.Status.CurrentReplicas)
}

// ready reports whether a pod runs and is ready.
func ready(pod *v1.Pod) bool { return pod.Status.Phase == v1.PodRunning && controllers.PodReady(pod) }

// available reports whether a pod has been ready for as long as the set wants.
func (p *pass) available(pod *v1.Pod) bool {
	ok, _ := controllers.PodAvailable(pod, p.set.Spec.MinReadySeconds, p.now)
	return ok && ready(pod)
}

// unavailable reports whether a pod does not serve, or will soon not.
func (p *pass) unavailable(pod *v1.Pod) bool {
	return !p.available(pod) || pod.DeletionTimestamp != nil
}

// ordered reports whether pods come and go one after the other.
func (p *pass) ordered() bool { return p.set.Spec.PodManagementPolicy != apps.ParallelPodManagement }

// run takes the next steps towards what the set wants.
func (p *pass) run(ctx context.Context) error {
	if p.set.DeletionTimestamp != nil {
		return nil // the garbage collector takes the pods
	}
	err := p.each(p.replicas, func(pod *v1.Pod) error { return p.keep(ctx, pod) })
	if err == nil {
		err = p.each(p.condemned, func(pod *v1.Pod) error { return p.ownClaims(ctx, p.set, pod) })
	}
	if err == nil {
		err = p.each(p.condemned, func(pod *v1.Pod) error { return p.condemn(ctx, pod) })
	}
	if err == nil {
		err = p.roll(ctx)
	}
	if errors.Is(err, errWait) {
		return nil
	}
	return err
}

// each calls f with each pod: one after the other until it returns an error where
// the pods are ordered, else in batches that grow as long as none fails.
func (p *pass) each(pods []*v1.Pod, f func(*v1.Pod) error) error {
	if p.ordered() {
		for _, pod := range pods {
			if err := f(pod); err != nil {
				return err
			}
		}
		return nil
	}
	for size := 1; len(pods) > 0; size = min(2*size, burst) {
		batch := pods[:min(size, len(pods))]
		pods = pods[len(batch):]
		errs := make([]error, len(batch))
		var wg sync.WaitGroup
		for i, pod := range batch {
			wg.Go(func() {
				if errs[i] = f(pod); errors.Is(errs[i], errWait) {
					errs[i] = nil // the others do not wait for it
				}
			})
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			return err
		}
	}
	return nil
}

// keep brings one replica to what it should be.
func (p *pass) keep(ctx context.Context, pod *v1.Pod) error {
	if controllers.PodTerminated(pod) {
		// However it ended: an eviction may leave either phase. The next is made
		// when this one has gone.
		if pod.DeletionTimestamp == nil {
			if err := p.delete(ctx, pod); err != nil {
				return err
			}
		}
		return errWait
	}
	if pod.UID == "" {
		if stale, err := p.stale(p.set, pod); err != nil {
			return err
		} else if stale {
			return errWait
		}
		if err := p.create(ctx, pod); err != nil {
			return err
		}
		return errWait
	}
	if pod.Status.Phase == v1.PodPending || pod.Status.Phase == "" {
		// A claim that was deleted before its pod could use it.
		if err := errors.Join(p.createClaims(ctx, p.set, pod), p.ownClaims(ctx, p.set, pod)); err != nil {
			return err
		}
	}
	if p.ordered() && p.unavailable(pod) {
		return errWait
	}
	return p.conform(ctx, pod)
}

// create makes a pod, with the claims that it needs.
func (p *pass) create(ctx context.Context, pod *v1.Pod) error {
	if err := p.createClaims(ctx, p.set, pod); err != nil {
		p.podEvent("create", p.set, pod, err)
		return err
	}
	made, err := p.client.CoreV1().Pods(pod.Namespace).Create(ctx, pod, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		// Where it is the set's own the cache was behind, and has the set looked at again.
		if there, getErr := p.client.CoreV1().Pods(pod.Namespace).Get(ctx, pod.Name, metav1.GetOptions{}); getErr == nil && controllers.ControlledBy(there, p.set) {
			return errWait
		}
	}
	p.podEvent("create", p.set, pod, err)
	if err != nil {
		return err
	}
	if err := p.ownClaims(ctx, p.set, made); err != nil {
		p.podEvent("update", p.set, pod, err)
		return err
	}
	return nil
}

// conform brings a pod's labels, its claims and their owners to what they should be.
func (p *pass) conform(ctx context.Context, pod *v1.Pod) error {
	if err := p.ownClaims(ctx, p.set, pod); err != nil {
		p.podEvent("update", p.set, pod, err)
		return err
	}
	if identified(pod) && mounted(p.set, pod) {
		return nil
	}
	if err := p.createClaims(ctx, p.set, pod); err != nil {
		p.podEvent("update", p.set, pod, err)
		return err
	}
	next := pod.DeepCopy()
	identify(p.set, next)
	if !mounted(p.set, next) {
		mount(p.set, next)
	}
	_, err := p.client.CoreV1().Pods(pod.Namespace).Update(ctx, next, metav1.UpdateOptions{})
	if !apierrors.IsConflict(err) {
		p.podEvent("update", p.set, pod, err)
	}
	return err
}

// delete deletes a pod of the set.
func (p *pass) delete(ctx context.Context, pod *v1.Pod) error {
	err := p.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(pod.UID))})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // it has gone, or another has its name now
	}
	p.podEvent("delete", p.set, pod, err)
	return err
}

// condemn deletes a pod that the set no longer wants. Where pods are ordered, it
// waits for the last to go, and for all others to be available, except for the one
// that is not.
func (p *pass) condemn(ctx context.Context, pod *v1.Pod) error {
	if pod.DeletionTimestamp != nil {
		return errWait
	}
	if p.ordered() && !p.available(pod) && pod != p.unhealthy {
		return errWait
	}
	if err := p.delete(ctx, pod); err != nil {
		return err
	}
	return errWait
}

// roll deletes pods that are not of the set's template, the last first, so that they
// are made anew of it. Of those that are available it leaves all but maxUnavailable;
// the others are missed anyway.
func (p *pass) roll(ctx context.Context) error {
	strategy := p.set.Spec.UpdateStrategy
	if strategy.Type == apps.OnDeleteStatefulSetStrategyType {
		return nil
	}
	partition, spare := 0, 1
	if r := strategy.RollingUpdate; r != nil {
		partition = int(ptr.Deref(r.Partition, 0))
		n, err := intstr.GetScaledValueFromIntOrPercent(intstr.ValueOrDefault(r.MaxUnavailable, intstr.FromInt32(1)), replicasOf(p.set), false)
		if err != nil {
			return err
		}
		spare = max(n, 1)
	}
	for _, pod := range p.replicas {
		if p.unavailable(pod) {
			spare--
		}
	}
	for i := len(p.replicas) - 1; i >= partition; i-- {
		pod := p.replicas[i]
		if revisionOf(pod) == p.update.Name || pod.DeletionTimestamp != nil || pod.UID == "" {
			continue
		}
		if !p.unavailable(pod) {
			if spare <= 0 {
				continue
			}
			spare--
		}
		if err := p.delete(ctx, pod); err != nil {
			return err
		}
		p.status.CurrentReplicas--
	}
	return nil
}

// count sets the status as it is before the pass.
func (p *pass) count() {
	s := &p.status
	*s = apps.StatefulSetStatus{ObservedGeneration: p.set.Generation, CurrentRevision: p.current.Name, UpdateRevision: p.update.Name, Conditions: p.set.Status.Conditions}
	for _, pod := range slices.Concat(p.replicas, p.condemned) {
		if pod.UID == "" {
			continue
		}
		s.Replicas++
		if ready(pod) {
			s.ReadyReplicas++
			if p.available(pod) {
				s.AvailableReplicas++
			}
		}
		if pod.DeletionTimestamp != nil {
			continue
		}
		if revisionOf(pod) == p.current.Name {
			s.CurrentReplicas++
		}
		if revisionOf(pod) == p.update.Name {
			s.UpdatedReplicas++
		}
	}
}

// writeStatus writes the status where it has changed. When all pods are of the
// set's template, that becomes the current one.
func (p *pass) writeStatus(ctx context.Context) error {
	s, want := &p.status, int32(replicasOf(p.set))
	if p.set.Spec.UpdateStrategy.Type == apps.RollingUpdateStatefulSetStrategyType &&
		s.UpdatedReplicas == want && s.ReadyReplicas == want && s.Replicas == want {
		s.CurrentReplicas, s.CurrentRevision = s.UpdatedReplicas, s.UpdateRevision
	}
	old := &p.set.Status
	if s.ObservedGeneration <= old.ObservedGeneration && s.Replicas == old.Replicas && s.ReadyReplicas == old.ReadyReplicas &&
		s.AvailableReplicas == old.AvailableReplicas && s.CurrentReplicas == old.CurrentReplicas && s.UpdatedReplicas == old.UpdatedReplicas &&
		s.CurrentRevision == old.CurrentRevision && s.UpdateRevision == old.UpdateRevision && ptr.Equal(s.CollisionCount, old.CollisionCount) {
		return nil
	}
	p.set.Status = *s
	_, err := p.client.AppsV1().StatefulSets(p.set.Namespace).UpdateStatus(ctx, p.set, metav1.UpdateOptions{})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil // the cache is behind, and will have the set looked at again
	}
	return err
}

// nextAvailable returns the time until the next ready pod becomes available, since
// nothing else would happen then; zero if none will.
func (p *pass) nextAvailable() time.Duration {
	var next time.Duration
	for _, pod := range p.replicas {
		if _, wait := controllers.PodAvailable(pod, p.set.Spec.MinReadySeconds, p.now); wait > 0 && (next == 0 || wait < next) {
			next = wait
		}
	}
	return next
}
