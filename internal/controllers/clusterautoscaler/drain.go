package clusterautoscaler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/util/retry"
	"k8s.io/klog/v2"
)

// Annotations and taints are upstream's.
const (
	safeToEvict       = "cluster-autoscaler.kubernetes.io/safe-to-evict"
	safeVolumes       = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"
	scaleDownDisabled = "cluster-autoscaler.kubernetes.io/scale-down-disabled"
	toBeDeleted       = "ToBeDeletedByClusterAutoscaler"
)

const (
	// evictionTime is how long the eviction of a pod is retried.
	evictionTime = 2 * time.Minute
	// poll is the time between two attempts, and between two checks of a node's
	// pods.
	poll = time.Second
)

func tainted(n *v1.Node) bool {
	return slices.ContainsFunc(n.Spec.Taints, func(t v1.Taint) bool { return t.Key == toBeDeleted })
}

func ofDaemonSet(p *v1.Pod) bool {
	o := metav1.GetControllerOf(p)
	return o != nil && o.Kind == "DaemonSet" || p.Annotations["cluster-autoscaler.kubernetes.io/daemonset-pod"] == "true"
}

// stays reports whether a pod is not moved, but ends with its node.
func stays(p *v1.Pod) bool {
	_, mirror := p.Annotations[v1.MirrorPodAnnotationKey]
	return mirror || ofDaemonSet(p) || p.Status.Phase == v1.PodSucceeded || p.Status.Phase == v1.PodFailed
}

// blocks returns the reason why a pod must not be moved, empty if it may be.
func (a *autoscaler) blocks(p *v1.Pod, budgets []*policy.PodDisruptionBudget) string {
	if p.DeletionTimestamp != nil {
		return "" // the pod is ending already
	}
	of := budgetsOf(p, budgets)
	for _, b := range of {
		if b.Status.DisruptionsAllowed < 1 {
			return fmt.Sprintf("not enough pod disruption budget %s", b.Name)
		}
	}
	switch p.Annotations[safeToEvict] {
	case "true":
		return ""
	case "false":
		return "pod annotated as not safe to evict"
	}
	if metav1.GetControllerOf(p) == nil {
		return "pod is not replicated"
	}
	if p.Namespace == metav1.NamespaceSystem && len(of) == 0 {
		return "non-daemonset, non-mirrored, kube-system pod without a pod disruption budget"
	}
	safe := strings.Split(p.Annotations[safeVolumes], ",")
	for i := range p.Spec.Volumes {
		vol := &p.Spec.Volumes[i]
		local := vol.HostPath != nil || vol.EmptyDir != nil && vol.EmptyDir.Medium != v1.StorageMediumMemory
		if local && !slices.Contains(safe, vol.Name) {
			return "pod with local storage present: " + vol.Name
		}
	}
	return ""
}

func budgetsOf(p *v1.Pod, budgets []*policy.PodDisruptionBudget) (out []*policy.PodDisruptionBudget) {
	for _, b := range budgets {
		if b.Namespace != p.Namespace {
			continue
		}
		if s, err := metav1.LabelSelectorAsSelector(b.Spec.Selector); err == nil && !s.Empty() && s.Matches(labels.Set(p.Labels)) {
			out = append(out, b)
		}
	}
	return out
}

// remove drains a node and deletes it, beside the loop.
func (a *autoscaler) remove(ctx context.Context, g *group, n *v1.Node, pods []*v1.Pod, utilization float64) {
	a.mu.Lock()
	a.removing[n.Name] = len(pods) > 0
	a.mu.Unlock()
	a.wg.Go(func() {
		err := a.drainAndDelete(ctx, g, n, pods, utilization)
		a.mu.Lock()
		delete(a.removing, n.Name)
		if err != nil {
			a.failed = a.clock.Now()
		}
		a.mu.Unlock()
		if err == nil || ctx.Err() != nil {
			return // untaint removes the taint at the next start
		}
		klog.FromContext(ctx).Error(err, "Removing a node failed", "node", n.Name)
		a.recorder.Event(n, v1.EventTypeWarning, "ScaleDownFailed", err.Error())
		if err := a.setTaint(ctx, n.Name, false); err != nil {
			klog.FromContext(ctx).Error(err, "Untainting a node failed", "node", n.Name)
		}
	})
}

func (a *autoscaler) drainAndDelete(ctx context.Context, g *group, n *v1.Node, pods []*v1.Pod, utilization float64) error {
	if err := a.setTaint(ctx, n.Name, true); err != nil {
		a.recorder.Eventf(n, v1.EventTypeWarning, "ScaleDownFailed", "failed to mark the node as toBeDeleted/unschedulable: %v", err)
		return fmt.Errorf("failed to mark the node as toBeDeleted/unschedulable: %w", err)
	}
	a.recorder.Event(n, v1.EventTypeNormal, "ScaleDown", "marked the node as toBeDeleted/unschedulable")
	if len(pods) == 0 {
		a.event(v1.EventTypeNormal, "ScaleDownEmpty", fmt.Sprintf("Scale-down: removing empty node %q", n.Name))
	} else {
		var names []string
		for _, p := range pods {
			names = append(names, p.Name)
		}
		a.event(v1.EventTypeNormal, "ScaleDown", fmt.Sprintf("Scale-down: removing node %s, utilization: %.2f, pods to reschedule: %s", n.Name, utilization, strings.Join(names, ",")))
	}
	if err := a.drain(ctx, n, pods); err != nil {
		return fmt.Errorf("failed to drain the node: %w", err)
	}
	if err := g.Delete(ctx, []*v1.Node{n}); err != nil {
		return fmt.Errorf("failed to delete the node: %w", err)
	}
	a.recorder.Event(n, v1.EventTypeNormal, "ScaleDown", "node removed by cluster autoscaler")
	if len(pods) == 0 {
		a.event(v1.EventTypeNormal, "ScaleDownEmpty", fmt.Sprintf("Scale-down: empty node %q removed", n.Name))
	} else {
		a.event(v1.EventTypeNormal, "ScaleDown", fmt.Sprintf("Scale-down: node %s removed with drain", n.Name))
	}
	return nil
}

// drain evicts pods, and waits until they are gone.
func (a *autoscaler) drain(ctx context.Context, n *v1.Node, pods []*v1.Pod) error {
	for _, p := range pods {
		a.recorder.Event(p, v1.EventTypeNormal, "ScaleDown", "deleting pod for node scale down")
		if err := a.evict(ctx, p); err != nil {
			a.recorder.Event(p, v1.EventTypeWarning, "ScaleDownFailed", "failed to delete pod for ScaleDown")
			return err
		}
	}
	deadline := a.clock.Now().Add(a.GracefulTermination)
	for {
		left := ""
		all, err := a.pods.List(labels.Everything())
		if err != nil {
			return err
		}
		for _, p := range all {
			// Further pods may have been bound before the scheduler saw the taint.
			if p.Spec.NodeName == n.Name && !stays(p) {
				left = p.Namespace + "/" + p.Name
			}
		}
		if left == "" {
			return nil
		}
		if a.clock.Now().After(deadline) {
			return fmt.Errorf("pod %s remains after the %s of --max-graceful-termination", left, a.GracefulTermination)
		}
		if err := a.pause(ctx); err != nil {
			return err
		}
	}
}

// pause waits for poll; its error is that of ctx.
func (a *autoscaler) pause(ctx context.Context) error {
	t := a.clock.NewTimer(poll)
	defer t.Stop()
	select {
	case <-t.C():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// evict evicts a pod, and retries while its budgets do not allow it.
func (a *autoscaler) evict(ctx context.Context, p *v1.Pod) error {
	deadline := a.clock.Now().Add(evictionTime)
	for {
		err := a.client.PolicyV1().Evictions(p.Namespace).Evict(ctx, &policy.Eviction{
			ObjectMeta:    metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name},
			DeleteOptions: &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &p.UID}},
		})
		if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return nil // the pod has been replaced by another of its name
		}
		if !apierrors.IsTooManyRequests(err) || a.clock.Now().After(deadline) {
			return fmt.Errorf("failed to evict pod %s/%s within allowed timeout (last error: %w)", p.Namespace, p.Name, err)
		}
		if err := a.pause(ctx); err != nil {
			return err
		}
	}
}

// setTaint adds the taint of nodes that are to be deleted, or removes it.
func (a *autoscaler) setTaint(ctx context.Context, name string, on bool) error {
	nodes := a.client.CoreV1().Nodes()
	return retry.RetryOnConflict(retry.DefaultRetry, func() error {
		n, err := nodes.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if tainted(n) == on {
			return nil
		}
		n = n.DeepCopy()
		n.Spec.Taints = slices.DeleteFunc(n.Spec.Taints, func(t v1.Taint) bool { return t.Key == toBeDeleted })
		if on {
			n.Spec.Taints = append(n.Spec.Taints, v1.Taint{Key: toBeDeleted, Value: fmt.Sprint(a.clock.Now().Unix()), Effect: v1.TaintEffectNoSchedule})
		}
		_, err = nodes.Update(ctx, n, metav1.UpdateOptions{})
		return err
	})
}

// untaint removes the taints that an earlier process has left.
func (a *autoscaler) untaint(ctx context.Context) {
	nodes, err := a.nodes.List(labels.Everything())
	if err != nil {
		return
	}
	var errs []error
	for _, n := range nodes {
		if tainted(n) {
			errs = append(errs, a.setTaint(ctx, n.Name, false))
		}
	}
	if err := errors.Join(errs...); err != nil {
		klog.FromContext(ctx).Error(err, "Untainting nodes failed")
	}
}
