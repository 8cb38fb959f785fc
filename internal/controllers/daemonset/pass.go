package daemonset

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	apps "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/controllers/daemonset/placement"
	"keelson.dev/keelson/internal/reconcile"
)

// pass is one look at one DaemonSet.
type pass struct {
	*controller
	ds       *apps.DaemonSet // this pass's own copy
	key      string
	selector labels.Selector
	// places are the nodes. elsewhere are the pods that are on or for nodes which are
	// no more.
	places    []place
	elsewhere []*v1.Pod
	// hash is the hash of the revision of the set's template.
	hash string
	now  time.Time
	// again is when to come back though nothing may have happened; zero is never.
	again time.Duration
}

// place is a node for a DaemonSet.
type place struct {
	name string
	// run reports whether the set is to have a pod there, stay that one may remain.
	run, stay bool
	// pods are the set's pods that are there or are to be, the oldest first, and
	// those that are bound before those that are not.
	pods []*v1.Pod
}

// comeBack queues the set again after wait.
func (p *pass) comeBack(wait time.Duration) {
	if wait > 0 && (p.again == 0 || wait < p.again) {
		p.again = wait
	}
}

// find adopts and releases pods, and puts those that are the set's in their places.
func (p *pass) find(ctx context.Context) error {
	nodes, err := p.controller.nodes.List(labels.Everything())
	if err != nil {
		return err
	}
	pods, err := controllers.PodsOf(p.pods, p.ds, true)
	if err != nil {
		return err
	}
	claimer := controllers.Claimer[*v1.Pod]{Owner: p.ds, Kind: gvk, Selector: p.selector, Fresh: p.fresh(p.ds), Patch: controllers.PatchPod(p.client)}
	if pods, err = claimer.Claim(ctx, pods); err != nil {
		return err
	}
	slices.SortFunc(pods, func(a, b *v1.Pod) int {
		if bound := a.Spec.NodeName != ""; bound != (b.Spec.NodeName != "") {
			if bound {
				return -1
			}
			return 1
		}
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	slices.SortFunc(nodes, func(a, b *v1.Node) int { return cmp.Compare(a.Name, b.Name) })
	wants := placement.Wanted(p.ds)
	at := map[string]int{}
	for i, node := range nodes {
		run, stay := wants(node)
		p.places = append(p.places, place{name: node.Name, run: run, stay: stay})
		at[node.Name] = i
	}
	for _, pod := range pods {
		if i, ok := at[nodeOf(pod)]; ok {
			p.places[i].pods = append(p.places[i].pods, pod)
		} else {
			p.elsewhere = append(p.elsewhere, pod)
		}
	}
	return nil
}

// updated reports whether a pod is of the set's template.
func (p *pass) updated(pod *v1.Pod) bool {
	if pod.Labels[hashLabel] == p.hash && p.hash != "" {
		return true
	}
	g := generation(p.ds)
	return g != nil && pod.Labels[generationLabel] == strconv.FormatInt(*g, 10)
}

// available reports whether a pod has been ready for as long as the set wants.
func (p *pass) available(pod *v1.Pod) bool {
	ok, wait := controllers.PodAvailable(pod, p.ds.Spec.MinReadySeconds, p.now)
	p.comeBack(wait)
	return ok
}

// manage makes the pods that nodes lack, and deletes those that are not to be where
// they are.
func (p *pass) manage(ctx context.Context) error {
	var lacking []string
	var condemned []*v1.Pod
	for i := range p.places {
		switch at := &p.places[i]; {
		case at.run && len(at.pods) == 0:
			lacking = append(lacking, at.name)
		case at.stay:
			condemned = append(condemned, p.excess(at)...)
		default:
			condemned = append(condemned, living(at.pods)...)
		}
	}
	// A pod for a node that is no more is never bound.
	for _, pod := range living(p.elsewhere) {
		if pod.Spec.NodeName == "" && nodeOf(pod) != "" {
			condemned = append(condemned, pod)
		}
	}
	return p.sync(ctx, lacking, condemned)
}

// living returns the pods that are not being deleted.
func living(pods []*v1.Pod) []*v1.Pod {
	return slices.DeleteFunc(slices.Clone(pods), func(p *v1.Pod) bool { return p.DeletionTimestamp != nil })
}

// excess returns the pods on a node that are to go: those that have ended, and all but
// one of the others. While an update surges there may be two, the old one until the
// new one is available.
func (p *pass) excess(at *place) (out []*v1.Pod) {
	var running []*v1.Pod
	for _, pod := range living(at.pods) {
		switch pod.Status.Phase {
		case v1.PodFailed:
			id := fmt.Sprintf("%s/%s/%s", p.ds.UID, p.ds.Name, at.name)
			if p.failures.IsInBackOffSinceUpdate(id, p.now) {
				p.comeBack(p.failures.Get(id))
				continue
			}
			p.failures.Next(id, p.now)
			p.recorder.Eventf(p.ds, v1.EventTypeWarning, "FailedDaemonPod", "Found failed daemon pod %s/%s on node %s, will try to kill it", pod.Namespace, pod.Name, at.name)
			out = append(out, pod)
		case v1.PodSucceeded:
			p.recorder.Eventf(p.ds, v1.EventTypeNormal, "SucceededDaemonPod", "Found succeeded daemon pod %s/%s on node %s, will try to delete it", pod.Namespace, pod.Name, at.name)
			out = append(out, pod)
		default:
			running = append(running, pod)
		}
	}
	if len(running) <= 1 {
		return out
	}
	if surge, _, err := p.limits(1); err != nil || surge == 0 {
		return append(out, running[1:]...)
	}
	var fresh, old *v1.Pod
	for _, pod := range running {
		switch {
		case pod.Labels[hashLabel] == p.hash && fresh == nil:
			fresh = pod
		case pod.Labels[hashLabel] != p.hash && old == nil:
			old = pod
		default:
			out = append(out, pod)
		}
	}
	if fresh != nil && old != nil && (!controllers.PodReady(old) || p.available(fresh)) {
		out = append(out, old)
	}
	return out
}

// sync makes pods for nodes and deletes pods, no more than burst of each.
func (p *pass) sync(ctx context.Context, nodes []string, condemned []*v1.Pod) error {
	nodes, condemned = nodes[:min(len(nodes), burst)], condemned[:min(len(condemned), burst)]
	keys := make([]string, len(condemned))
	for i, pod := range condemned {
		keys[i] = reconcile.Key(pod)
	}
	if len(nodes) == 0 && len(condemned) == 0 {
		return nil
	}
	p.expect.Expect(p.key, len(nodes), keys...)
	done, err := controllers.SlowStart(len(nodes), func(i int) error {
		err := p.control.Create(ctx, p.ds, p.selector, newPod(p.ds, p.hash, nodes[i]))
		if apierrors.HasStatusCause(err, v1.NamespaceTerminatingCause) {
			p.expect.Created(p.key) // it will not be seen, and the set goes, too
			return nil
		}
		return err
	})
	p.expect.CreatedN(p.key, len(nodes)-done)
	deleteErr := controllers.Parallel(len(condemned), func(i int) error {
		err := p.control.Delete(ctx, p.ds, condemned[i])
		if err != nil {
			p.expect.Gone(p.key, keys[i])
			if apierrors.IsNotFound(err) {
				return nil
			}
		}
		return err
	})
	return cmp.Or(err, deleteErr)
}

// limits returns how many pods of desired may be there beyond one a node, and how many
// may be missed, while the template changes.
func (p *pass) limits(desired int) (surge, unavailable int, err error) {
	if p.ds.Spec.UpdateStrategy.Type != apps.RollingUpdateDaemonSetStrategyType {
		return 0, 0, nil
	}
	if r := p.ds.Spec.UpdateStrategy.RollingUpdate; r != nil {
		if surge, err = intstr.GetScaledValueFromIntOrPercent(intstr.ValueOrDefault(r.MaxSurge, intstr.FromInt32(0)), desired, true); err != nil {
			return 0, 0, err
		}
		if unavailable, err = intstr.GetScaledValueFromIntOrPercent(intstr.ValueOrDefault(r.MaxUnavailable, intstr.FromInt32(1)), desired, true); err != nil {
			return 0, 0, err
		}
	}
	if surge == 0 && unavailable == 0 {
		unavailable = 1
	}
	return surge, unavailable, nil
}

// pair returns the pod of the set's template on a node and that of another; ok is
// false where there are several of either, which manage sees to.
func (p *pass) pair(pods []*v1.Pod) (fresh, old *v1.Pod, ok bool) {
	for _, pod := range living(pods) {
		of := &old
		if p.updated(pod) {
			of = &fresh
		}
		if *of != nil {
			return nil, nil, false
		}
		*of = pod
	}
	return fresh, old, true
}

// roll replaces pods that are not of the set's template, as far as its strategy
// allows: by deletion, or where it surges by a pod beside the old one.
func (p *pass) roll(ctx context.Context) error {
	desired := 0
	for i := range p.places {
		if p.places[i].run {
			desired++
		}
	}
	surge, unavailable, err := p.limits(desired)
	if err != nil {
		return err
	}
	if surge > 0 {
		return p.surge(ctx, surge)
	}
	var condemned, candidates []*v1.Pod
	for i := range p.places {
		at := &p.places[i]
		fresh, old, ok := p.pair(at.pods)
		switch {
		case !at.run && len(at.pods) == 0:
		case !ok, (old == nil) == (fresh == nil):
			unavailable-- // manage sees to this node
		case fresh != nil:
			if !p.available(fresh) {
				unavailable--
			}
		case !p.available(old):
			unavailable--
			condemned = append(condemned, old) // it is missed anyway
		default:
			candidates = append(candidates, old)
		}
	}
	condemned = append(condemned, candidates[:min(len(candidates), max(0, unavailable))]...)
	return p.sync(ctx, nil, condemned)
}

// surge makes pods beside old ones, no more than extra, and deletes the old ones when
// these are available.
func (p *pass) surge(ctx context.Context, extra int) error {
	var condemned []*v1.Pod
	var allowed, candidates []string
	for i := range p.places {
		at := &p.places[i]
		fresh, old, ok := p.pair(at.pods)
		switch {
		case !ok:
			extra--
		case old == nil: // manage sees to this node
		case fresh == nil && !at.run: // it gets no further pod
		case fresh == nil && !p.available(old):
			allowed = append(allowed, at.name) // the new one is in its place
		case fresh == nil:
			candidates = append(candidates, at.name)
		case !p.available(fresh):
			extra--
		default:
			condemned = append(condemned, old)
		}
	}
	allowed = append(allowed, candidates[:min(len(candidates), max(0, extra))]...)
	return p.sync(ctx, allowed, condemned)
}

// writeStatus writes the status where it has changed. seen reports whether the
// pass has acted on the present set.
func (p *pass) writeStatus(ctx context.Context, seen bool) error {
	s := apps.DaemonSetStatus{CollisionCount: p.ds.Status.CollisionCount, Conditions: p.ds.Status.Conditions, ObservedGeneration: p.ds.Status.ObservedGeneration}
	if seen {
		s.ObservedGeneration = p.ds.Generation
	}
	for i := range p.places {
		pods := p.places[i].pods
		if !p.places[i].run {
			if len(pods) > 0 {
				s.NumberMisscheduled++
			}
			continue
		}
		s.DesiredNumberScheduled++
		if len(pods) == 0 {
			continue
		}
		s.CurrentNumberScheduled++
		if controllers.PodReady(pods[0]) {
			s.NumberReady++
			if p.available(pods[0]) {
				s.NumberAvailable++
			}
		}
		if p.updated(pods[0]) {
			s.UpdatedNumberScheduled++
		}
	}
	s.NumberUnavailable = s.DesiredNumberScheduled - s.NumberAvailable
	if equality.Semantic.DeepEqual(s, p.ds.Status) {
		return nil
	}
	p.ds.Status = s
	_, err := p.client.AppsV1().DaemonSets(p.ds.Namespace).UpdateStatus(ctx, p.ds, metav1.UpdateOptions{})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil // the cache is behind, and will have the set looked at again
	}
	return err
}
