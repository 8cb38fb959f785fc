package clusterautoscaler

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/internal/nodegroup"
)

// census counts nodes.
type census struct {
	// Registered nodes are ready, unready, or have notStarted yet. Those that are
	// being deleted are one of these as well.
	registered, ready, unready, notStarted, deleted int
	// unregistered instances have no node yet, overdue ones for longer than they may.
	unregistered, overdue []nodegroup.Instance
}

// count counts a node, and reports whether it is unready though it has had the time to
// start.
func (c *census) count(n *v1.Node, startup time.Duration, now time.Time) (unready bool) {
	c.registered++
	if hasTaint(n, toBeDeleted) {
		c.deleted++
	}
	switch {
	case isReady(n):
		c.ready++
	case now.Before(n.CreationTimestamp.Add(startup)):
		c.notStarted++
	default:
		c.unready++
		return true
	}
	return false
}

// upcoming returns how many nodes are on their way to be ready.
func (g *group) upcoming() int {
	return max(g.target-g.ready-g.unready-len(g.overdue), 0)
}

// growth is an increase of a group whose nodes are on their way.
type growth struct {
	at time.Time
	by int
}

// difference between the size that a group should have and the one that it has.
type difference struct {
	want, have int
	since      time.Time
}

// backoff is how long a group is left alone, and why.
type backoff struct {
	until, failed time.Time
	last          time.Duration
	code, message string
}

// seeInstances finds the instances that have no node.
func (a *autoscaler) seeInstances(ctx context.Context, v *view, nodes []*v1.Node) error {
	registered := make(map[string]bool, len(nodes))
	for _, n := range nodes {
		registered[n.Spec.ProviderID] = true
	}
	missing := map[string]time.Time{}
	for _, g := range v.groups {
		instances, err := g.Instances(ctx)
		if errors.Is(err, nodegroup.ErrNotImplemented) {
			continue
		}
		if err != nil {
			return fmt.Errorf("reading the instances of node group %s: %w", g.ID(), err)
		}
		for _, i := range instances {
			switch {
			case i.Failure != nil && i.State == nodegroup.Creating:
				g.failed = append(g.failed, i)
				continue
			case registered[i.ID] || i.Failure != nil || i.State == nodegroup.Unknown || i.State == nodegroup.Deleting:
				continue
			}
			since, ok := a.missing[i.ID]
			if !ok {
				since = v.now
			}
			missing[i.ID] = since
			if v.now.Sub(since) > g.options.ProvisionTime {
				g.overdue = append(g.overdue, i)
			} else {
				g.unregistered = append(g.unregistered, i)
			}
		}
		v.total.unregistered = append(v.total.unregistered, g.unregistered...)
		v.total.overdue = append(v.total.overdue, g.overdue...)
	}
	a.missing = missing
	return nil
}

// settle compares the groups with what was asked of them: it gives up what has not come in
// time or cannot come. It reports whether enough of the cluster is well for it to be
// changed.
func (a *autoscaler) settle(ctx context.Context, v *view) bool {
	maps.DeleteFunc(a.backoffs, func(_ string, b backoff) bool { return v.now.Sub(b.failed) > a.BackoffReset })
	broken := map[string]bool{}
	for _, g := range v.groups {
		a.expire(g, v.now)
		a.fail(g, v.now, broken)
		g.healthy = a.tolerable(a.growths[g.ID()].least(g)-g.ready, g.ready+g.unready+g.notStarted)
	}
	a.broken = broken
	for _, g := range v.groups {
		a.removeUnregistered(ctx, g)
	}
	if !a.tolerable(v.total.unready, v.total.registered) {
		clear(a.unneeded)
		a.event(v1.EventTypeWarning, "ClusterUnhealthy", "Cluster is unhealthy")
		return false
	}
	for _, g := range v.groups {
		a.removeFailed(ctx, g)
		a.correct(ctx, g, v.now)
	}
	return true
}

// tolerable reports whether so many of all nodes may be unready.
func (a *autoscaler) tolerable(unready, all int) bool {
	return unready <= a.UnreadyCount || float64(unready) <= a.UnreadyPercentage/100*float64(all)
}

// least returns how many nodes of a group have to be ready.
func (w growth) least(g *group) int { return g.target - len(g.overdue) - w.by }

// expire ends a group's increase whose nodes have come, or have not in time.
func (a *autoscaler) expire(g *group, now time.Time) {
	w, ok := a.growths[g.ID()]
	switch took := now.Sub(w.at); {
	case !ok:
	case g.target <= g.registered-g.notStarted:
		delete(a.growths, g.ID())
		delete(a.backoffs, g.ID())
	case took > g.options.ProvisionTime:
		delete(a.growths, g.ID())
		a.event(v1.EventTypeWarning, "ScaleUpTimedOut", fmt.Sprintf("Nodes added to group %s failed to register within %v", g.ID(), took))
		a.backOff(g.ID(), now, "timeout", fmt.Sprintf("Scale-up timed out for node group %s after %v", g.ID(), took))
	}
}

// fail tells of instances that cannot be made, once each, and leaves their group alone.
// It adds them to broken.
func (a *autoscaler) fail(g *group, now time.Time, broken map[string]bool) {
	type failure struct {
		fresh    int
		messages []string
	}
	failures := map[string]*failure{}
	for _, i := range g.failed {
		code := fmt.Sprintf("%v.%s", i.Failure.Class, i.Failure.Code)
		f := failures[code]
		if f == nil {
			f = &failure{}
			failures[code] = f
		}
		if broken[i.ID] = true; !a.broken[i.ID] {
			f.fresh++
		}
		if !slices.Contains(f.messages, i.Failure.Message) {
			f.messages = append(f.messages, i.Failure.Message)
		}
	}
	for _, code := range slices.Sorted(maps.Keys(failures)) {
		f := failures[code]
		w, growing := a.growths[g.ID()]
		if f.fresh == 0 || !growing {
			continue
		}
		errs := strings.Join(f.messages[:min(len(f.messages), 3)], ", ")
		if len(f.messages) > 3 {
			errs += ", ..."
		}
		a.event(v1.EventTypeWarning, "ScaleUpFailed", fmt.Sprintf("Failed adding %d nodes to group %s due to %s; source errors: %s", f.fresh, g.ID(), code, errs))
		if w.by -= f.fresh; w.by > 0 {
			a.growths[g.ID()] = w
		} else {
			delete(a.growths, g.ID())
		}
		_, short, _ := strings.Cut(code, ".")
		a.backOff(g.ID(), now, short, errs)
	}
}

// backOff leaves a group alone for a while: the longer, the more often it fails.
func (a *autoscaler) backOff(id string, now time.Time, code, message string) {
	wait := a.FirstBackoff
	if b, ok := a.backoffs[id]; ok && !now.Before(b.until) {
		wait = min(2*b.last, a.LastBackoff)
	}
	a.backoffs[id] = backoff{until: now.Add(wait), failed: now, last: wait, code: code, message: message}
}

// Annotation of a node that stands for an instance without one, and its values.
const (
	fakeReason       = "k8s.io/cluster-autoscaler/fake-node-reason"
	fakeUnregistered = "unregistered"
	fakeFailed       = "create-error"
)

// fakes returns nodes that stand for instances.
func fakes(instances []nodegroup.Instance, reason string) (nodes []*v1.Node) {
	for _, i := range instances {
		nodes = append(nodes, &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: i.ID, Annotations: map[string]string{fakeReason: reason}}, Spec: v1.NodeSpec{ProviderID: i.ID}})
	}
	return nodes
}

// removeUnregistered deletes instances that have not registered in time.
func (a *autoscaler) removeUnregistered(ctx context.Context, g *group) {
	n := min(len(g.overdue), g.target-g.Least())
	if n <= 0 {
		return
	}
	nodes := fakes(g.overdue[:n], fakeUnregistered)
	if err := g.Delete(ctx, nodes); err != nil {
		for _, node := range nodes {
			a.event(v1.EventTypeWarning, "DeleteUnregisteredFailed", fmt.Sprintf("Failed to remove node %s: %v", node.Name, err))
		}
		return
	}
	g.target -= n
	for _, node := range nodes {
		delete(a.missing, node.Name)
		a.event(v1.EventTypeNormal, "DeleteUnregistered", fmt.Sprintf("Removed unregistered node %s", node.Name))
	}
	g.overdue = g.overdue[n:]
}

// removeFailed deletes instances that cannot be made.
func (a *autoscaler) removeFailed(ctx context.Context, g *group) {
	if len(g.failed) == 0 {
		return
	}
	if err := g.Delete(ctx, fakes(g.failed, fakeFailed)); err != nil {
		klog.FromContext(ctx).Error(err, "Deleting instances that could not be made failed", "group", g.ID())
		return
	}
	g.target -= len(g.failed)
}

// correct takes from a group's target what has long had neither a node nor an instance.
func (a *autoscaler) correct(ctx context.Context, g *group, now time.Time) {
	d := difference{want: g.target, have: g.registered, since: now}
	if d.have <= d.want && d.have >= d.want-len(g.unregistered)-len(g.overdue) {
		delete(a.differs, g.ID())
		return
	}
	if old := a.differs[g.ID()]; old.want == d.want && old.have == d.have {
		d.since = old.since
	}
	a.differs[g.ID()] = d
	if d.have >= d.want || now.Sub(d.since) <= g.options.ProvisionTime {
		return
	}
	if err := g.Decrease(ctx, d.want-d.have); err != nil {
		klog.FromContext(ctx).Error(err, "Decreasing a node group to the nodes that it has failed", "group", g.ID(), "target", d.want, "nodes", d.have)
		return
	}
	g.target = d.have
	delete(a.differs, g.ID())
}
