package node

import (
	"context"
	"fmt"
	"maps"
	"runtime"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	resourcehelper "k8s.io/component-helpers/resource"
	"k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/internal/node/eviction"
)

// rejected is a pod that the node does not take.
func rejected(reason, format string, args ...any) *failure {
	return &failure{reason: reason, message: "Pod was rejected: " + fmt.Sprintf(format, args...), rejected: true}
}

// admit gives the reason why a pod cannot run here, nil if it can: the
// scheduler's checks once more, for pods that were bound without it and for
// changes since.
func (a *Agent) admit(ctx context.Context, pod *v1.Pod) *failure {
	if message := a.eviction.Admit(pod, qosClass(pod)); message != "" {
		return rejected(eviction.Reason, "%s", message)
	}
	if err := a.sysctls.Check(&pod.Spec); err != nil {
		return rejected("SysctlForbidden", "forbidden sysctl: %v", err)
	}
	if f := a.admitAppArmor(pod); f != nil {
		return f
	}
	if pod.Spec.OS != nil && string(pod.Spec.OS.Name) != runtime.GOOS {
		return rejected("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS")
	}
	node, err := a.Client.CoreV1().Nodes().Get(ctx, a.NodeName, metav1.GetOptions{})
	if err != nil {
		if ctx.Err() != nil {
			return nil // the pod ends anyway
		}
		// Static pods run without an API server, too: by what the node is
		// registered with.
		node = a.status.initial()
	}
	if strictGroups(pod) {
		if f, err := a.cri.Features(ctx); err != nil || !f.SupplementalGroupsPolicy {
			return rejected("SupplementalGroupsPolicyNotSupported", "SupplementalGroupsPolicy=%s is not supported in this node", v1.SupplementalGroupsPolicyStrict)
		}
	}
	others := a.others(pod)
	if s := a.shortage(node, pod, others); s != nil {
		return rejected("OutOf"+string(s.resource), "%v", s)
	}
	predicate := func(name, description string) *failure {
		return rejected(name, "Predicate %s failed: %s", name, description)
	}
	if ok, err := nodeaffinity.GetRequiredNodeAffinity(pod).Match(node); err != nil || !ok {
		return predicate("NodeAffinity", "node(s) didn't match Pod's node affinity/selector")
	}
	noExecute := func(t *v1.Taint) bool { return t.Effect == v1.TaintEffectNoExecute }
	if _, found := corev1.FindMatchingUntoleratedTaint(klog.FromContext(ctx), node.Spec.Taints, pod.Spec.Tolerations, noExecute, true); found {
		return predicate("TaintToleration", "node(s) had taints that the pod didn't tolerate")
	}
	for _, other := range others {
		if portsConflict(pod, other) {
			return predicate("NodePorts", "node(s) didn't have free ports for the requested pod ports")
		}
	}
	return nil
}

// strictGroups reports whether the pod's processes may have no groups from the
// image.
func strictGroups(pod *v1.Pod) bool {
	s := pod.Spec.SecurityContext
	return s != nil && s.SupplementalGroupsPolicy != nil && *s.SupplementalGroupsPolicy == v1.SupplementalGroupsPolicyStrict
}

// admitAppArmor refuses a pod with AppArmor profiles on a machine that does not
// enforce any.
func (a *Agent) admitAppArmor(pod *v1.Pod) *failure {
	for _, c := range containersOf(pod) {
		if p := appArmorOf(pod, c); p != nil && p.Type != v1.AppArmorProfileTypeUnconfined && !appArmorEnabled() {
			return rejected("AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host")
		}
	}
	return nil
}

// others are the pods that share the node with this one.
func (a *Agent) others(pod *v1.Pod) []*v1.Pod {
	var out []*v1.Pod
	for _, other := range a.Pods() {
		if other.UID != pod.UID && !terminal(other.Status.Phase) {
			out = append(out, other)
		}
	}
	return out
}

// shortage is a resource of which a pod wants more than is left.
type shortage struct {
	resource                  v1.ResourceName
	requested, used, capacity int64
}

func (s *shortage) Error() string {
	return fmt.Sprintf("Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d", s.resource, s.requested, s.used, s.capacity)
}

// shortage looks for what the node lacks for a pod beside the others.
func (a *Agent) shortage(node *v1.Node, pod *v1.Pod, others []*v1.Pod) *shortage {
	have := v1.ResourceList{}
	maps.Copy(have, node.Status.Allocatable) // with the extended resources
	maps.Copy(have, a.status.allocatable())
	if n, ok := have[v1.ResourcePods]; ok && int64(len(others))+1 > n.Value() {
		return &shortage{v1.ResourcePods, 1, int64(len(others)), n.Value()}
	}
	used := v1.ResourceList{}
	for _, other := range others {
		for k, q := range resourcehelper.PodRequests(other, resourcehelper.PodResourcesOptions{}) {
			u := used[k]
			u.Add(q)
			used[k] = u
		}
	}
	want := resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})
	// An extended resource that the node does not have is the cluster's.
	for k, h := range have {
		q, u := want[k], used[k]
		if q.IsZero() || k == v1.ResourcePods {
			continue
		}
		sum := u.DeepCopy()
		if sum.Add(q); sum.Cmp(h) <= 0 {
			continue
		}
		if k == v1.ResourceCPU {
			return &shortage{k, q.MilliValue(), u.MilliValue(), h.MilliValue()}
		}
		return &shortage{k, q.Value(), u.Value(), h.Value()}
	}
	return nil
}

func portsConflict(a, b *v1.Pod) bool {
	for _, p := range hostPorts(a) {
		for _, q := range hostPorts(b) {
			if p.HostPort == q.HostPort && p.Protocol == q.Protocol && (p.HostIP == q.HostIP || everyAddress(p.HostIP) || everyAddress(q.HostIP)) {
				return true
			}
		}
	}
	return false
}

func everyAddress(ip string) bool { return ip == "" || ip == "0.0.0.0" }

func hostPorts(pod *v1.Pod) []v1.ContainerPort {
	var out []v1.ContainerPort
	for _, c := range containersOf(pod) {
		for _, p := range c.Ports {
			if p.HostPort > 0 {
				out = append(out, p)
			}
		}
	}
	return out
}
