package admission

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	resourcehelper "k8s.io/component-helpers/resource"
	"k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/internal/node/convert"
	"keelson.dev/keelson/internal/node/cri"
	"keelson.dev/keelson/internal/node/eviction"
	"keelson.dev/keelson/internal/node/podspec"
	"keelson.dev/keelson/internal/node/sysctl"
	"keelson.dev/keelson/internal/node/topology"
)

// Checker checks whether a pod can run on the node.
type Checker struct {
	NodeName string
	Client   kubernetes.Interface
	CRI      *cri.Client
	Sysctls  *sysctl.List
	// Pressure returns the message if the pod is refused because the node is short
	// of a resource, else "".
	Pressure func(*v1.Pod, v1.PodQOSClass) string
	// Allocatable returns the resources of the node for pods.
	Allocatable func() v1.ResourceList
	// Initial returns the node as it is registered, for when the API server does not
	// answer.
	Initial func() *v1.Node
	// Pods are the node's pods.
	Pods func() []*v1.Pod
	// ShuttingDown reports whether the machine is.
	ShuttingDown func() bool
	// Exclusive gives containers what they have for themselves.
	Exclusive Exclusive
}

// Exclusive gives the containers of pods resources for themselves.
type Exclusive interface {
	// Admit gives a pod what it is to have; the error is a topology.Refused where the
	// node's policies do not want that.
	Admit(*v1.Pod) error
	// Free takes it back.
	Free(types.UID) error
	// Fixed returns why the resources of the pod cannot be changed, "" where they can.
	Fixed(*v1.Pod) string
}

// Rejection is the reason and message with which the node refuses a pod.
type Rejection struct{ Reason, Message string }

func rejected(reason, format string, args ...any) *Rejection {
	return &Rejection{reason, "Pod was rejected: " + fmt.Sprintf(format, args...)}
}

// Admit returns the reason why a pod cannot run here, nil if it can: the
// scheduler's checks once more, for pods that were bound without it and for
// changes since.
func (c *Checker) Admit(ctx context.Context, pod *v1.Pod) *Rejection {
	if c.ShuttingDown() {
		return rejected("NodeShutdown", "Pod was rejected as the node is shutting down.")
	}
	if message := c.Pressure(pod, podspec.QOS(pod)); message != "" {
		return rejected(eviction.Reason, "%s", message)
	}
	if err := c.Sysctls.Check(&pod.Spec); err != nil {
		return rejected("SysctlForbidden", "forbidden sysctl: %v", err)
	}
	if err := c.Exclusive.Admit(pod); err != nil {
		var r *topology.Refused
		if errors.As(err, &r) {
			return rejected(r.Reason, "%s", r.Message)
		}
		return rejected("UnexpectedAdmissionError", "Allocate failed due to %v, which is unexpected", err)
	}
	r := c.predicates(ctx, pod)
	if r != nil {
		if err := c.Exclusive.Free(pod.UID); err != nil {
			klog.FromContext(ctx).Error(err, "Taking back what a pod was given failed", "pod", klog.KObj(pod))
		}
	}
	return r
}

// predicates checks the pod against the node and the pods there.
func (c *Checker) predicates(ctx context.Context, pod *v1.Pod) *Rejection {
	if f := c.admitAppArmor(pod); f != nil {
		return f
	}
	if pod.Spec.OS != nil && string(pod.Spec.OS.Name) != runtime.GOOS {
		return rejected("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS")
	}
	node, err := c.Client.CoreV1().Nodes().Get(ctx, c.NodeName, metav1.GetOptions{})
	if err != nil {
		if ctx.Err() != nil {
			return nil // the pod ends in any case
		}
		// Static pods run without an API server, too: their checks use the Node as it is
		// registered.
		node = c.Initial()
	}
	if podspec.StrictGroups(pod) {
		if f, err := c.CRI.Features(ctx); err != nil || !f.SupplementalGroupsPolicy {
			return rejected("SupplementalGroupsPolicyNotSupported", "SupplementalGroupsPolicy=%s is not supported in this node", v1.SupplementalGroupsPolicyStrict)
		}
	}
	others := others(pod, c.Pods())
	if s := c.shortage(node, pod, others); s != nil {
		return rejected("OutOf"+string(s.resource), "%v", s)
	}
	predicate := func(name, description string) *Rejection {
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

// admitAppArmor refuses a pod with AppArmor profiles on a machine that does not
// enforce any.
func (c *Checker) admitAppArmor(pod *v1.Pod) *Rejection {
	for _, c := range podspec.Containers(pod) {
		if p := podspec.AppArmor(pod, c); p != nil && p.Type != v1.AppArmorProfileTypeUnconfined && !convert.AppArmorEnabled() {
			return rejected("AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host")
		}
	}
	return nil
}

// others returns those of the pods that share the node with this one.
func others(pod *v1.Pod, pods []*v1.Pod) []*v1.Pod {
	var out []*v1.Pod
	for _, other := range pods {
		if other.UID != pod.UID && !podspec.Terminal(other.Status.Phase) {
			out = append(out, other)
		}
	}
	return out
}

// shortage is a resource of which a pod requests more than is left.
type shortage struct {
	resource                  v1.ResourceName
	requested, used, capacity int64
}

func (s *shortage) Error() string {
	return fmt.Sprintf("Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d", s.resource, s.requested, s.used, s.capacity)
}

// shortage returns the first resource that does not suffice for a pod beside the
// others, nil if there is none.
func (c *Checker) shortage(node *v1.Node, pod *v1.Pod, others []*v1.Pod) *shortage {
	have := v1.ResourceList{}
	maps.Copy(have, node.Status.Allocatable) // with the extended resources
	maps.Copy(have, c.Allocatable())
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
	// Extended resources that the node does not have are not checked: they are the
	// cluster's.
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

// Infeasible returns the reason and message if the node cannot give the pod the
// resources that it asks for: now, or ever. Those of ahead, which wait for more, too, are
// given theirs before this pod, in their order, if the node has them.
func (c *Checker) Infeasible(ctx context.Context, pod *v1.Pod, ahead []*v1.Pod) (reason, message string) {
	if message := c.Exclusive.Fixed(pod); message != "" {
		return v1.PodReasonInfeasible, message
	}
	node, err := c.Client.CoreV1().Nodes().Get(ctx, c.NodeName, metav1.GetOptions{})
	if err != nil {
		return v1.PodReasonDeferred, err.Error()
	}
	requests := resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})
	have := c.Allocatable()
	for _, r := range []struct {
		name  v1.ResourceName
		value func(v1.ResourceList) int64
	}{
		{v1.ResourceCPU, func(l v1.ResourceList) int64 { return l.Cpu().MilliValue() }},
		{v1.ResourceMemory, func(l v1.ResourceList) int64 { return l.Memory().Value() }},
	} {
		if want, all := r.value(requests), r.value(have); want > all {
			return v1.PodReasonInfeasible, fmt.Sprintf("Node didn't have enough capacity: %s, requested: %d, capacity: %d", r.name, want, all)
		}
	}
	pods := c.Pods()
	for _, first := range ahead {
		i := slices.IndexFunc(pods, func(p *v1.Pod) bool { return p.UID == first.UID })
		if i >= 0 && c.shortage(node, first, others(first, pods)) == nil {
			pods[i] = first
		}
	}
	if s := c.shortage(node, pod, others(pod, pods)); s != nil {
		return v1.PodReasonDeferred, s.Error()
	}
	return "", ""
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
	for _, c := range podspec.Containers(pod) {
		for _, p := range c.Ports {
			if p.HostPort > 0 {
				out = append(out, p)
			}
		}
	}
	return out
}
