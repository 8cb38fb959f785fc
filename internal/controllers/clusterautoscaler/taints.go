package clusterautoscaler

import (
	"context"
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	"k8s.io/klog/v2"
)

// Taints of nodes are upstream's. Their value is the time, in seconds since 1970.
const (
	// toBeDeleted marks a node that is being removed; nothing is scheduled there.
	toBeDeleted = "ToBeDeletedByClusterAutoscaler"
	// candidateTaint marks a node that is not needed; the scheduler prefers others.
	candidateTaint = "DeletionCandidateOfClusterAutoscaler"
)

// effects of these taints.
var effects = map[string]v1.TaintEffect{toBeDeleted: v1.TaintEffectNoSchedule, candidateTaint: v1.TaintEffectPreferNoSchedule}

func hasTaint(n *v1.Node, key string) bool {
	return slices.ContainsFunc(n.Spec.Taints, func(t v1.Taint) bool { return t.Key == key })
}

// starting reports whether a taint marks a node that has not started yet.
func starting(t v1.Taint) bool {
	return strings.HasPrefix(t.Key, "startup-taint.cluster-autoscaler.kubernetes.io/") || strings.HasPrefix(t.Key, "ignore-taint.cluster-autoscaler.kubernetes.io/")
}

// unwell reports whether a taint says that a node does not take pods.
func unwell(t v1.Taint) bool {
	return t.Key == v1.TaintNodeNotReady || t.Key == v1.TaintNodeDiskPressure || t.Key == v1.TaintNodeNetworkUnavailable
}

// passing reports whether a taint is of a node's present state: another node of its group
// does not have it.
func passing(t v1.Taint) bool {
	switch t.Key {
	case toBeDeleted, candidateTaint, v1.TaintNodeNotReady, v1.TaintNodeUnreachable, v1.TaintNodeUnschedulable, v1.TaintNodeMemoryPressure, v1.TaintNodeDiskPressure,
		v1.TaintNodeNetworkUnavailable, v1.TaintNodePIDPressure, "node.cloudprovider.kubernetes.io/uninitialized", "node.cloudprovider.kubernetes.io/shutdown",
		"cloud.google.com/impending-node-termination", "NodeWithImpairedVolumes":
		return true
	}
	return starting(t) || strings.HasPrefix(t.Key, "status-taint.cluster-autoscaler.kubernetes.io/")
}

// setTaint gives a node the taint of this key, or takes it away, and reports whether that
// changes it.
func (a *autoscaler) setTaint(ctx context.Context, name, key string, on bool) (changed bool, err error) {
	nodes := a.client.CoreV1().Nodes()
	err = retry.RetryOnConflict(retry.DefaultRetry, func() error {
		n, err := nodes.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if changed = hasTaint(n, key) != on; !changed {
			return nil
		}
		n = n.DeepCopy()
		if on {
			n.Spec.Taints = append(n.Spec.Taints, v1.Taint{Key: key, Value: fmt.Sprint(a.clock.Now().Unix()), Effect: effects[key]})
		} else {
			n.Spec.Taints = slices.DeleteFunc(n.Spec.Taints, func(t v1.Taint) bool { return t.Key == key })
		}
		_, err = nodes.Update(ctx, n, metav1.UpdateOptions{})
		return err
	})
	return changed, err
}

// soften marks the groups' nodes that are not needed, so that the scheduler prefers
// others, and takes the mark from those that are: some at a time, as the options say.
func (a *autoscaler) soften(ctx context.Context, v *view) {
	left, begun := a.SoftTaints, a.clock.Now()
	for _, on := range []bool{false, true} {
		for _, g := range v.groups {
			for _, n := range g.nodes {
				_, unneeded := a.unneeded[n.Name]
				if unneeded != on || hasTaint(n, candidateTaint) == on || hasTaint(n, toBeDeleted) {
					continue
				}
				if left == 0 || a.clock.Since(begun) >= a.SoftTaintTime {
					return
				}
				left--
				if _, err := a.setTaint(ctx, n.Name, candidateTaint, on); err != nil {
					klog.FromContext(ctx).Error(err, "Changing a node's soft taint failed", "node", n.Name)
				}
			}
		}
	}
}

// clean takes back the taints of nodes that are not being removed: an earlier process has
// left them, or untainting has failed. The soft ones go where there are to be none.
func (a *autoscaler) clean(ctx context.Context) {
	nodes, err := a.present()
	if err != nil {
		return
	}
	keys := []string{toBeDeleted}
	if a.SoftTaints == 0 || a.NoScaleDown {
		keys = append(keys, candidateTaint)
	}
	for _, n := range nodes {
		a.mu.Lock()
		_, going := a.removing[n.Name]
		a.mu.Unlock()
		for _, key := range keys {
			if going || !hasTaint(n, key) {
				continue
			}
			switch changed, err := a.setTaint(ctx, n.Name, key, false); {
			case err != nil && !apierrors.IsNotFound(err):
				a.recorder.Eventf(n, v1.EventTypeWarning, "ClusterAutoscalerCleanup", "failed to clean %v on node %v: %v", key, n.Name, err)
			case changed:
				a.recorder.Eventf(n, v1.EventTypeNormal, "ClusterAutoscalerCleanup", "removed %v taints from node %v", key, n.Name)
			}
		}
	}
}
