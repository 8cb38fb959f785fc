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
	"keelson.dev/keelson/internal/node/preemption"
	"keelson.dev/keelson/internal/node/static"
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
	// Pods are the node's pods that were admitted.
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

// Node returns the node, with what the checks of the pod need of the runtime. It may wait for the API
// server and the runtime, and the checks wait for neither.
func (c *Checker) Node(ctx context.Context, pod *v1.Pod) *Node {
	n := &Node{}
	var err error
	if n.object, err = c.Client.CoreV1().Nodes().Get(ctx, c.NodeName, metav1.GetOptions{}); err != nil {
		// Static pods run without an API server, too: their checks use the Node as it is
		// registered.
		n.object = c.Initial()
	}
	if podspec.StrictGroups(pod) {
		f, err := c.CRI.Features(ctx)
		n.strictGroups = err == nil && f.SupplementalGroupsPolicy
	}
	return n
}

// Node is the node as checks see it.
type Node struct {
	object       *v1.Node
	strictGroups bool // the runtime supports them
}

// Admit returns the reason why a pod cannot run here, nil if it can: the
// scheduler's checks once more, for pods that were bound without it and for
// changes since. A pod that the node must run can, when the victims have ended.
// No other pod is admitted meanwhile.
func (c *Checker) Admit(ctx context.Context, node *Node, pod *v1.Pod) (*Victims, *Rejection) {
	if c.ShuttingDown() {
		return nil, rejected("NodeShutdown", "Pod was rejected as the node is shutting down.")
	}
	if message := c.Pressure(pod, podspec.QOS(pod)); message != "" {
		return nil, rejected(eviction.Reason, "%s", message)
	}
	if err := c.Sysctls.Check(&pod.Spec); err != nil {
		return nil, rejected("SysctlForbidden", "forbidden sysctl: %v", err)
	}
	if err := c.Exclusive.Admit(pod); err != nil {
		var r *topology.Refused
		if errors.As(err, &r) {
			return nil, rejected(r.Reason, "%s", r.Message)
		}
		return nil, rejected(unexpected, "Allocate failed due to %v, which is unexpected", err)
	}
	v, r := c.predicates(ctx, node, pod)
	if r != nil {
		if err := c.Exclusive.Free(pod.UID); err != nil {
			klog.FromContext(ctx).Error(err, "Taking back what a pod was given failed", "pod", klog.KObj(pod))
		}
	}
	return v, r
}

// unexpected is the reason of the refusal of a pod that should have been admitted.
const unexpected = "UnexpectedAdmissionError"

// Victims are the pods that are to end for another one, and the resource that it lacks.
type Victims struct {
	Pods     []*v1.Pod
	Resource v1.ResourceName
}

// predicates checks the pod against the node and the pods there.
func (c *Checker) predicates(ctx context.Context, node *Node, pod *v1.Pod) (*Victims, *Rejection) {
	if f := c.admitAppArmor(pod); f != nil {
		return nil, f
	}
	if pod.Spec.OS != nil && string(pod.Spec.OS.Name) != runtime.GOOS {
		return nil, rejected("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS")
	}
	if podspec.StrictGroups(pod) && !node.strictGroups {
		return nil, rejected("SupplementalGroupsPolicyNotSupported", "SupplementalGroupsPolicy=%s is not supported in this node", v1.SupplementalGroupsPolicyStrict)
	}
	others := others(pod, c.Pods())
	short := c.shortages(node.object, pod, others)
	critical := eviction.IsCritical(pod)
	if len(short) > 0 && !critical {
		return nil, rejected("OutOf"+string(short[0].resource), "%v", short[0])
	}
	predicate := func(name, description string) *Rejection {
		return rejected(name, "Predicate %s failed: %s", name, description)
	}
	if ok, err := nodeaffinity.GetRequiredNodeAffinity(pod).Match(node.object); err != nil || !ok {
		return nil, predicate("NodeAffinity", "node(s) didn't match Pod's node affinity/selector")
	}
	for _, other := range others {
		if portsConflict(pod, other) {
			return nil, predicate("NodePorts", "node(s) didn't have free ports for the requested pod ports")
		}
	}
	noExecute := func(t *v1.Taint) bool { return t.Effect == v1.TaintEffectNoExecute }
	if _, found := corev1.FindMatchingUntoleratedTaint(klog.FromContext(ctx), node.object.Spec.Taints, pod.Spec.Tolerations, noExecute, true); found && !static.Is(pod) {
		return nil, predicate("TaintToleration", "node(s) had taints that the pod didn't tolerate")
	}
	if len(short) == 0 {
		return nil, nil
	}
	var lacks []preemption.Lack
	for _, s := range short {
		lacks = append(lacks, preemption.Lack{Resource: s.resource, Amount: s.requested - (s.capacity - s.used)})
	}
	victims, err := preemption.Choose(pod, others, lacks)
	if err != nil {
		return nil, rejected(unexpected, "Unexpected error while attempting to recover from admission failure: preemption: error finding a set of pods to preempt: %v", err)
	}
	return &Victims{victims, short[0].resource}, nil
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

// shortages returns the resources that do not suffice for a pod beside the others, in upstream's
// order.
func (c *Checker) shortages(node *v1.Node, pod *v1.Pod, others []*v1.Pod) (out []*shortage) {
	have := v1.ResourceList{}
	maps.Copy(have, node.Status.Allocatable) // with the extended resources
	maps.Copy(have, c.Allocatable())
	if n, ok := have[v1.ResourcePods]; ok && int64(len(others))+1 > n.Value() {
		out = append(out, &shortage{v1.ResourcePods, 1, int64(len(others)), n.Value()})
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
	first := []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory, v1.ResourceEphemeralStorage}
	rest := slices.DeleteFunc(slices.Sorted(maps.Keys(have)), func(k v1.ResourceName) bool { return k == v1.ResourcePods || slices.Contains(first, k) })
	for _, k := range slices.Concat(first, rest) {
		// Extended resources that the node does not have are not checked: they are the
		// cluster's.
		h, ok := have[k]
		q, u := want[k], used[k]
		if !ok || q.IsZero() {
			continue
		}
		sum := u.DeepCopy()
		if sum.Add(q); sum.Cmp(h) <= 0 {
			continue
		}
		if k == v1.ResourceCPU {
			out = append(out, &shortage{k, q.MilliValue(), u.MilliValue(), h.MilliValue()})
		} else {
			out = append(out, &shortage{k, q.Value(), u.Value(), h.Value()})
		}
	}
	return out
}

// Infeasible returns the reason and message if the node cannot give the pod the
// resources that it asks for: now, or ever. Those of ahead, which wait for more, too, are
// given theirs before this pod, in their order, if the node has them. No pod is admitted meanwhile.
func (c *Checker) Infeasible(node *Node, pod *v1.Pod, ahead []*v1.Pod) (reason, message string) {
	if message := c.Exclusive.Fixed(pod); message != "" {
		return v1.PodReasonInfeasible, message
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
		if i >= 0 && len(c.shortages(node.object, first, others(first, pods))) == 0 {
			pods[i] = first
		}
	}
	if short := c.shortages(node.object, pod, others(pod, pods)); len(short) > 0 {
		return v1.PodReasonDeferred, short[0].Error()
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
