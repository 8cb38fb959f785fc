package clusterautoscaler

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/klog/v2"
)

// Annotations are upstream's.
const (
	safeToEvict       = "cluster-autoscaler.kubernetes.io/safe-to-evict"
	safeVolumes       = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"
	scaleDownDisabled = "cluster-autoscaler.kubernetes.io/scale-down-disabled"
	evictDaemonPod    = "cluster-autoscaler.kubernetes.io/enable-ds-eviction"
)

const (
	// evictionTime is how long the eviction of a pod is retried.
	evictionTime = 2 * time.Minute
	// evictionHeadroom is how much longer than they may take evicted pods are waited for.
	evictionHeadroom = 30 * time.Second
	// poll is the time between two attempts, and between two checks of a node's
	// pods.
	poll = time.Second
)

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
func (a *autoscaler) remove(ctx context.Context, c *candidate) {
	n := c.node
	a.mu.Lock()
	a.removing[n.Name] = len(c.pods) > 0
	a.mu.Unlock()
	a.wg.Go(func() {
		err := a.drainAndDelete(ctx, c)
		a.mu.Lock()
		delete(a.removing, n.Name)
		if err == nil {
			a.gone[n.UID] = true
		} else {
			a.failed = a.clock.Now()
		}
		a.mu.Unlock()
		if err == nil || ctx.Err() != nil {
			return // clean removes the taint after the next start
		}
		klog.FromContext(ctx).Error(err, "Removing a node failed", "node", n.Name)
		switch _, err := a.setTaint(ctx, n.Name, toBeDeleted, false); {
		case apierrors.IsNotFound(err): // it was deleted, though the provider did not say so
			a.mu.Lock()
			a.gone[n.UID] = true
			a.mu.Unlock()
		case err != nil:
			klog.FromContext(ctx).Error(err, "Untainting a node failed", "node", n.Name)
		}
	})
}

func (a *autoscaler) drainAndDelete(ctx context.Context, c *candidate) error {
	n := c.node
	if _, err := a.setTaint(ctx, n.Name, toBeDeleted, true); err != nil {
		a.recorder.Eventf(n, v1.EventTypeWarning, "ScaleDownFailed", "failed to mark the node as toBeDeleted/unschedulable: %v", err)
		return err
	}
	a.recorder.Event(n, v1.EventTypeNormal, "ScaleDown", "marked the node as toBeDeleted/unschedulable")
	if len(c.pods) == 0 {
		a.event(v1.EventTypeNormal, "ScaleDownEmpty", fmt.Sprintf("Scale-down: removing empty node %q", n.Name))
	} else {
		var names []string
		for _, p := range c.pods {
			names = append(names, p.Name)
		}
		a.event(v1.EventTypeNormal, "ScaleDown", fmt.Sprintf("Scale-down: removing node %s, utilization: %v, pods to reschedule: %s", n.Name, c.utilization, strings.Join(names, ",")))
	}
	err := a.drain(ctx, c)
	if err == nil {
		if err = c.group.Delete(ctx, []*v1.Node{n}); err != nil {
			err = fmt.Errorf("failed to delete %s: %w", n.Name, err)
		}
	}
	switch {
	case err != nil && len(c.pods) == 0:
		a.recorder.Eventf(n, v1.EventTypeWarning, "ScaleDownFailed", "failed to delete empty node: %v", err)
	case err != nil:
		a.recorder.Eventf(n, v1.EventTypeWarning, "ScaleDownFailed", "failed to drain and delete node: %v", err)
	default:
		a.recorder.Event(n, v1.EventTypeNormal, "ScaleDown", "nodes removed by cluster autoscaler")
		if len(c.pods) == 0 {
			a.event(v1.EventTypeNormal, "ScaleDownEmpty", fmt.Sprintf("Scale-down: empty node %s removed", n.Name))
		} else {
			a.event(v1.EventTypeNormal, "ScaleDown", fmt.Sprintf("Scale-down: node %s removed with drain", n.Name))
		}
	}
	return err
}

// evictDaemons evicts the pods of DaemonSets among these: those that are annotated so, and
// where other pods are moved also those that are not. Whether that succeeds does not matter.
func (a *autoscaler) evictDaemons(ctx context.Context, pods []*v1.Pod, usual bool) {
	for _, p := range pods {
		yes := p.Annotations[evictDaemonPod]
		if !ofDaemonSet(p) || p.DeletionTimestamp != nil || yes != "true" && (yes == "false" || !usual) {
			continue
		}
		a.recorder.Event(p, v1.EventTypeNormal, "ScaleDown", "deleting pod for node scale down")
		if err := a.tryEvict(ctx, p); err != nil && !apierrors.IsNotFound(err) {
			klog.FromContext(ctx).V(2).Info("Evicting a DaemonSet's pod failed", "pod", klog.KObj(p), "err", err)
		}
	}
}

// podsOn reads the pods of a node from the API server: an informer may not have seen the
// last ones.
func (a *autoscaler) podsOn(ctx context.Context, node string) ([]*v1.Pod, error) {
	list, err := a.client.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("spec.nodeName", node).String()})
	if err != nil {
		return nil, fmt.Errorf("reading the pods of node %s: %w", node, err)
	}
	pods := make([]*v1.Pod, len(list.Items))
	for i := range list.Items {
		pods[i] = &list.Items[i]
	}
	return pods, nil
}

// drain evicts the pods of a node that is tainted, all at once, and waits until they are
// gone. Those that have been bound since the node was looked at may not be moved from one
// that was empty.
func (a *autoscaler) drain(ctx context.Context, c *candidate) error {
	n := c.node
	if err := a.pause(ctx, a.DelayAfterTaint); err != nil {
		return err
	}
	all, err := a.podsOn(ctx, n.Name)
	if err != nil {
		return err
	}
	budgets, err := a.budgets.List(labels.Everything())
	if err != nil {
		return err
	}
	var pods []*v1.Pod
	for _, p := range all {
		if stays(p) {
			continue
		}
		known := slices.ContainsFunc(c.pods, func(old *v1.Pod) bool { return old.UID == p.UID })
		if why := a.blocks(p, budgets); why != "" && !known {
			return fmt.Errorf("pod %s/%s has been scheduled to it: %s", p.Namespace, p.Name, why)
		}
		pods = append(pods, p)
	}
	if len(c.pods) == 0 && len(pods) > 0 {
		return fmt.Errorf("failed to delete empty node %q, new pods scheduled", n.Name)
	}
	a.evictDaemons(ctx, all, len(c.pods) > 0)
	errs := make([]error, len(pods))
	var wg sync.WaitGroup
	for i, p := range pods {
		a.recorder.Event(p, v1.EventTypeNormal, "ScaleDown", "deleting pod for node scale down")
		wg.Go(func() {
			if errs[i] = a.evict(ctx, p); errs[i] != nil {
				a.recorder.Event(p, v1.EventTypeWarning, "ScaleDownFailed", "failed to delete pod for ScaleDown")
			}
		})
	}
	wg.Wait()
	if errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil }); len(errs) > 0 {
		return fmt.Errorf("Failed to drain node %s/%s, due to following errors: %v", n.Namespace, n.Name, errs) //nolint:staticcheck // upstream's
	}
	deadline := a.clock.Now().Add(a.GracefulTermination + evictionHeadroom)
	moving := func(p *v1.Pod) bool { return p.Spec.NodeName == n.Name && !stays(p) }
	for {
		seen, err := a.pods.List(labels.Everything())
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(seen, moving) {
			if seen, err = a.podsOn(ctx, n.Name); err != nil {
				return err
			}
			if !slices.ContainsFunc(seen, moving) {
				return nil
			}
		}
		if a.clock.Now().After(deadline) {
			return fmt.Errorf("Failed to drain node %s/%s: pods remaining after timeout", n.Namespace, n.Name) //nolint:staticcheck // upstream's
		}
		if err := a.pause(ctx, poll); err != nil {
			return err
		}
	}
}

// pause waits for d; its error is that of ctx.
func (a *autoscaler) pause(ctx context.Context, d time.Duration) error {
	t := a.clock.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// tryEvict asks for the eviction of a pod.
func (a *autoscaler) tryEvict(ctx context.Context, p *v1.Pod) error {
	grace := int64(a.GracefulTermination / time.Second)
	if g := p.Spec.TerminationGracePeriodSeconds; g != nil {
		grace = min(grace, *g)
	}
	return a.client.PolicyV1().Evictions(p.Namespace).Evict(ctx, &policy.Eviction{
		ObjectMeta:    metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name},
		DeleteOptions: &metav1.DeleteOptions{GracePeriodSeconds: &grace, Preconditions: &metav1.Preconditions{UID: &p.UID}},
	})
}

// evict evicts a pod, and retries while its budgets do not allow it.
func (a *autoscaler) evict(ctx context.Context, p *v1.Pod) error {
	deadline := a.clock.Now().Add(evictionTime)
	for {
		err := a.tryEvict(ctx, p)
		if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return nil // the pod has been replaced by another of its name
		}
		if a.clock.Now().After(deadline) {
			return fmt.Errorf("failed to evict pod %s/%s within allowed timeout (last error: %w)", p.Namespace, p.Name, err)
		}
		if err := a.pause(ctx, poll); err != nil {
			return err
		}
	}
}
