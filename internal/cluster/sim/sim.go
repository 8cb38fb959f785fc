package sim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/catalogue"
	"keelson.dev/keelson/internal/api/core"
	"keelson.dev/keelson/internal/node/report"
	"keelson.dev/keelson/internal/store"
	"keelson.dev/keelson/internal/trace"
)

// Options of the simulated nodes.
type Options struct {
	Client    kubernetes.Interface
	Informers informers.SharedInformerFactory
	// Nodes is how many there are at least; they are called sim-0, sim-1, ...
	Nodes int
	// Most is how many there may be, as the cluster autoscaler wants; below Nodes it
	// is Nodes.
	Most int
	// Adopt makes the nodes that are in the API already, and Ready, simulated ones: for
	// a copy of a cluster, whose own agents do not know of it.
	Adopt bool
	// Store, if set, takes the renewals of leases, many in one write.
	Store store.Store
	Clock clock.WithTicker
	// Trace is told of the pods' stages; it may be nil.
	Trace *trace.Reporter
	// External leaves the nodes' addresses and their initialization to a cloud's
	// controller manager.
	External bool
	// Capacity of each node; default 32 CPUs, 256 GiB, 250 pods.
	Capacity v1.ResourceList
}

// Nodes are simulated nodes.
type Nodes struct {
	Options
	pods                corelisters.PodLister
	synced, nodesSynced cache.InformerSynced
	queue               workqueue.TypedRateLimitingInterface[string]
	nodes               corelisters.NodeLister
	ips                 addresses

	mu      sync.Mutex
	members map[string]*member // by name
}

// member is a node that there is.
type member struct {
	name  string
	index int
	// lease is its lease as it was last written; nil is unknown.
	lease *store.Entry
}

const (
	prefix  = "sim-"
	workers = 8
	// writers is how many nodes are registered, or leases renewed, at once: those that
	// are written together share a sync.
	writers       = 256
	leaseDuration = 40 * time.Second
	renewPeriod   = 10 * time.Second
)

// New registers what the nodes need with the informers.
func New(o Options) *Nodes {
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Capacity == nil {
		o.Capacity = v1.ResourceList{v1.ResourceCPU: resource.MustParse("32"), v1.ResourceMemory: resource.MustParse("256Gi"),
			v1.ResourcePods: resource.MustParse("250"), v1.ResourceEphemeralStorage: resource.MustParse("1Ti")}
	}
	o.Most = max(o.Most, o.Nodes)
	n := &Nodes{Options: o, members: map[string]*member{}}
	n.queue = workqueue.NewTypedRateLimitingQueueWithConfig(
		workqueue.NewTypedItemExponentialFailureRateLimiter[string](5*time.Millisecond, 10*time.Second),
		workqueue.TypedRateLimitingQueueConfig[string]{Name: "sim", Clock: o.Clock})
	informer := o.Informers.Core().V1().Pods()
	n.pods, n.synced = informer.Lister(), informer.Informer().HasSynced
	nodes := o.Informers.Core().V1().Nodes()
	n.nodes, n.nodesSynced = nodes.Lister(), nodes.Informer().HasSynced
	enqueue := func(obj any) {
		if p, ok := obj.(*v1.Pod); ok && n.runs(p.Spec.NodeName) {
			n.ips.saw(p)
			n.queue.Add(p.Namespace + "/" + p.Name)
		}
	}
	_, _ = informer.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: enqueue, UpdateFunc: func(_, obj any) { enqueue(obj) }, DeleteFunc: func(obj any) {
		if t, ok := obj.(cache.DeletedFinalStateUnknown); ok {
			obj = t.Obj
		}
		if p, ok := obj.(*v1.Pod); ok {
			n.ips.gone(p)
		}
	}})
	return n
}

// Register makes the nodes in the API. Of more than Nodes, those that are there from an
// earlier run stay.
func (n *Nodes) Register(ctx context.Context) error {
	if n.Adopt {
		return n.adopt(ctx)
	}
	want := map[int]bool{}
	for i := range n.Nodes {
		want[i] = true
	}
	if n.Most > n.Nodes {
		there, err := n.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{LabelSelector: groupLabel + "=" + groupName})
		if err != nil {
			return err
		}
		for i := range there.Items {
			if index, ok := indexOf(there.Items[i].Name); ok && index < n.Most {
				want[index] = true
			}
		}
	}
	return n.add(ctx, slices.Sorted(maps.Keys(want)))
}

// runs reports whether a node's pods are run here.
func (n *Nodes) runs(node string) bool {
	if !n.Adopt {
		return strings.HasPrefix(node, prefix)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.members[node] != nil
}

// adopt takes the nodes that are Ready as members.
func (n *Nodes) adopt(ctx context.Context) error {
	there, err := n.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	errs := make([]error, len(there.Items))
	each(len(there.Items), func(i int) {
		node := &there.Items[i]
		for _, c := range node.Status.Conditions {
			if c.Type == v1.NodeReady && c.Status == v1.ConditionTrue {
				m := &member{name: node.Name, index: i}
				errs[i] = n.renew(ctx, m)
				n.mu.Lock()
				n.members[m.name] = m
				n.mu.Unlock()
			}
		}
	})
	return errors.Join(errs...)
}

// add registers nodes.
func (n *Nodes) add(ctx context.Context, indexes []int) error {
	errs := make([]error, len(indexes))
	each(len(indexes), func(i int) {
		m := &member{name: name(indexes[i]), index: indexes[i]}
		if err := n.register(ctx, m); err != nil {
			errs[i] = fmt.Errorf("registering %s: %w", m.name, err)
			return
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		n.members[m.name] = m
	})
	return errors.Join(errs...)
}

// each calls f with 0 to n-1, several at once.
func each(n int, f func(int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(n, writers) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				f(i)
			}
		})
	}
	wg.Wait()
}

// Run runs the registered nodes until ctx ends.
func (n *Nodes) Run(ctx context.Context) {
	defer context.AfterFunc(ctx, n.queue.ShutDown)()
	var wg sync.WaitGroup
	wg.Go(func() { n.heartbeat(ctx) })
	if cache.WaitForCacheSync(ctx.Done(), n.synced, n.nodesSynced) {
		for range workers {
			wg.Go(func() {
				for n.work(ctx) {
				}
			})
		}
	}
	wg.Wait()
}

func name(i int) string { return fmt.Sprintf("%s%d", prefix, i) }

// indexOf is the number in a node's name.
func indexOf(name string) (int, bool) {
	digits, ok := strings.CutPrefix(name, prefix)
	i, err := strconv.Atoi(digits)
	return i, ok && err == nil && i >= 0
}

// node is a node as it registers.
func (n *Nodes) node(name string, i int) *v1.Node {
	now := metav1.NewTime(n.Clock.Now().UTC().Truncate(time.Second))
	cond := func(t v1.NodeConditionType, s v1.ConditionStatus, reason, message string) v1.NodeCondition {
		return v1.NodeCondition{Type: t, Status: s, Reason: reason, Message: message, LastHeartbeatTime: now, LastTransitionTime: now}
	}
	return &v1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
			v1.LabelHostname: name, v1.LabelOSStable: "linux", v1.LabelArchStable: "amd64", groupLabel: groupName}},
		Status: v1.NodeStatus{
			Capacity: n.Capacity, Allocatable: n.Capacity,
			Addresses: []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: fmt.Sprintf("100.64.%d.%d", i/256%256, i%256)}, {Type: v1.NodeHostName, Address: name}},
			NodeInfo:  v1.NodeSystemInfo{KubeletVersion: "v1.37.2", OperatingSystem: "linux", Architecture: "amd64", OSImage: "simulated", ContainerRuntimeVersion: core.SimulatedRuntime + "1"},
			Conditions: []v1.NodeCondition{
				cond(v1.NodeMemoryPressure, v1.ConditionFalse, "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
				cond(v1.NodeDiskPressure, v1.ConditionFalse, "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
				cond(v1.NodePIDPressure, v1.ConditionFalse, "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
				cond(v1.NodeReady, v1.ConditionTrue, "KubeletReady", "kubelet is posting ready status"),
			},
		},
	}
}

func (n *Nodes) register(ctx context.Context, m *member) error {
	node := n.node(m.name, m.index)
	if n.External {
		node.Spec.Taints = []v1.Taint{report.Uninitialized}
		node.Status.Addresses = []v1.NodeAddress{{Type: v1.NodeHostName, Address: m.name}}
	}
	_, err := n.Client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		old, err := n.Client.CoreV1().Nodes().Get(ctx, node.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		old = old.DeepCopy()
		if n.External {
			node.Status.Addresses = old.Status.Addresses
		}
		old.Status = node.Status
		if _, err := n.Client.CoreV1().Nodes().UpdateStatus(ctx, old, metav1.UpdateOptions{}); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	return n.renew(ctx, m)
}

// leaseKey is where a node's lease is stored.
func leaseKey(name string) string { return leases().Key(v1.NamespaceNodeLease, name) }

// leases is the row of Leases.
var leases = sync.OnceValue(func() *api.Resource {
	rows := catalogue.Builtin()
	return rows[slices.IndexFunc(rows, func(r *api.Resource) bool {
		return r.Resource == "leases" && r.Group == coordinationv1.GroupName && r.Hub == nil
	})]
})

// renew writes the lease of a node. It is called by one goroutine at a time.
func (n *Nodes) renew(ctx context.Context, m *member) (err error) {
	now := metav1.NewMicroTime(n.Clock.Now())
	spec := coordinationv1.LeaseSpec{HolderIdentity: &m.name, LeaseDurationSeconds: ptr.To(int32(leaseDuration / time.Second)), RenewTime: &now}
	if n.Store == nil {
		return n.renewByAPI(ctx, m.name, spec)
	}
	old := m.lease
	m.lease = nil // it is read again, unless it is written now
	if old == nil {
		if old, err = n.Store.Get(ctx, leaseKey(m.name)); err != nil {
			return err
		}
	}
	if old == nil {
		return n.renewByAPI(ctx, m.name, spec)
	}
	lease := old.Object().(*coordinationv1.Lease).DeepCopy()
	lease.Spec = spec
	m.lease, err = n.Store.Update(ctx, leaseKey(m.name), old.ModRevision, lease, 0)
	return err
}

// renewByAPI writes a lease as a kubelet does.
func (n *Nodes) renewByAPI(ctx context.Context, name string, spec coordinationv1.LeaseSpec) error {
	leases := n.Client.CoordinationV1().Leases(v1.NamespaceNodeLease)
	lease, err := leases.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = leases.Create(ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: v1.NamespaceNodeLease}, Spec: spec}, metav1.CreateOptions{})
		return err
	}
	if err != nil {
		return err
	}
	lease = lease.DeepCopy()
	lease.Spec = spec
	_, err = leases.Update(ctx, lease, metav1.UpdateOptions{})
	return err
}

// heartbeat renews all leases each period.
func (n *Nodes) heartbeat(ctx context.Context) {
	ticker := n.Clock.NewTicker(renewPeriod)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C():
		case <-ctx.Done():
			return
		}
		n.mu.Lock()
		all := slices.Collect(maps.Values(n.members))
		n.mu.Unlock()
		each(len(all), func(i int) {
			if err := n.renew(ctx, all[i]); err != nil && ctx.Err() == nil {
				klog.FromContext(ctx).V(2).Info("Renewing a simulated node's lease failed", "node", all[i].name, "err", err)
			}
		})
	}
}

func (n *Nodes) work(ctx context.Context) bool {
	key, quit := n.queue.Get()
	if quit {
		return false
	}
	defer n.queue.Done(key)
	ns, podName, err := cache.SplitMetaNamespaceKey(key)
	if err == nil {
		err = n.sync(ctx, ns, podName)
	}
	if err != nil && ctx.Err() == nil {
		n.queue.AddRateLimited(key)
		return true
	}
	n.queue.Forget(key)
	return true
}

// jobTime is how long a pod of a Job runs before it has succeeded.
const jobTime = time.Second

// ofJob reports whether a Job waits for the end of the pod.
func ofJob(pod *v1.Pod) bool {
	owner := metav1.GetControllerOf(pod)
	return owner != nil && owner.Kind == "Job" && strings.HasPrefix(owner.APIVersion, batchv1.GroupName+"/") && pod.Spec.RestartPolicy != v1.RestartPolicyAlways
}

// held reports whether the pod outlives its deletion: its holders look at how it
// ended. Of other pods the end is not written, since nothing can rely on seeing it.
func held(pod *v1.Pod) bool { return len(pod.Finalizers) > 0 }

// alive reports whether the pod has not ended.
func alive(pod *v1.Pod) bool {
	return pod.Status.Phase != v1.PodSucceeded && pod.Status.Phase != v1.PodFailed
}

// sync takes a pod one stage on: to Running, if it is a Job's to Succeeded, to Failed
// if it is deleted and held, or away.
func (n *Nodes) sync(ctx context.Context, ns, podName string) error {
	pod, err := n.pods.Pods(ns).Get(podName)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	ctx = trace.WithCause(ctx, pod)
	begin := time.Now()
	if pod.DeletionTimestamp != nil && !(held(pod) && alive(pod)) {
		err := n.Client.CoreV1().Pods(ns).Delete(ctx, podName, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0), Preconditions: metav1.NewUIDPreconditions(string(pod.UID))})
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return nil
		}
		return err
	}
	// Only the status is written, and is not the informer's; the managers are the server's own.
	p := &v1.Pod{TypeMeta: pod.TypeMeta, ObjectMeta: pod.ObjectMeta, Spec: pod.Spec, Status: *pod.Status.DeepCopy()}
	p.ManagedFields = nil
	switch {
	case pod.DeletionTimestamp != nil:
		p.Status = n.ended(pod, v1.PodFailed, v1.ContainerStateTerminated{ExitCode: 137, Reason: "Error"})
	case (pod.Status.Phase == v1.PodPending || pod.Status.Phase == "") && n.taken(pod):
		p.Status.Phase, p.Status.Reason = v1.PodFailed, "NodePorts"
		p.Status.Message = "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"
	case pod.Status.Phase == v1.PodPending || pod.Status.Phase == "":
		p.Status = n.running(pod)
		n.Trace.Phase("pods", pod, trace.PhaseSimulate, pod.Spec.NodeName+": the simulated pod has a sandbox, its images and running containers", begin)
		follow(p, p.Status.StartTime)
		resize(p, p.Status.StartTime)
	case pod.Status.Phase == v1.PodRunning && ofJob(pod) && pod.Status.StartTime != nil:
		if left := jobTime - n.Clock.Since(pod.Status.StartTime.Time); left > 0 {
			n.queue.AddAfter(ns+"/"+podName, left)
			return nil
		}
		p.Status = n.ended(pod, v1.PodSucceeded, v1.ContainerStateTerminated{Reason: "Completed"})
	case pod.Status.Phase == v1.PodRunning:
		followed, resized := follow(p, n.now()), resize(p, n.now())
		if !followed && !resized {
			return nil
		}
	default:
		return nil
	}
	_, err = n.Client.CoreV1().Pods(ns).UpdateStatus(ctx, p, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // the newer version is on its way here
	}
	return err
}

// follow brings the readiness of a pod that runs to what its gates say, and reports
// whether that has changed it.
func follow(p *v1.Pod, now *metav1.Time) bool {
	if len(p.Spec.ReadinessGates) == 0 {
		return false
	}
	status := func(t v1.PodConditionType) *v1.PodCondition {
		for i := range p.Status.Conditions {
			if p.Status.Conditions[i].Type == t {
				return &p.Status.Conditions[i]
			}
		}
		return nil
	}
	want, message := v1.ConditionTrue, ""
	for _, g := range p.Spec.ReadinessGates {
		if c := status(g.ConditionType); c == nil || c.Status != v1.ConditionTrue {
			want, message = v1.ConditionFalse, fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.", g.ConditionType)
			if c != nil {
				message = fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but %v", g.ConditionType, c.Status)
			}
		}
	}
	ready := status(v1.PodReady)
	if ready == nil || ready.Status == want {
		return false
	}
	ready.Status, ready.LastTransitionTime, ready.Reason, ready.Message = want, *now, "", message
	if want == v1.ConditionFalse {
		ready.Reason = "ReadinessGatesNotReady"
	}
	return true
}

// taken reports whether another pod on the node has one of a pod's host ports: the
// scheduler sees to that, but a pod may name its node itself.
func (n *Nodes) taken(pod *v1.Pod) bool {
	ports := hostPorts(pod)
	if len(ports) == 0 {
		return false
	}
	all, _ := n.pods.List(labels.Everything())
	for _, o := range all {
		if o.Spec.NodeName != pod.Spec.NodeName || o.UID == pod.UID || o.Status.Phase != v1.PodRunning {
			continue
		}
		for port := range hostPorts(o) {
			if ports[port] {
				return true
			}
		}
	}
	return false
}

// hostPorts are the ports of the node that a pod has, as protocol and number.
func hostPorts(p *v1.Pod) map[string]bool {
	var out map[string]bool
	for i := range p.Spec.Containers {
		for _, port := range p.Spec.Containers[i].Ports {
			if port.HostPort == 0 {
				continue
			}
			if out == nil {
				out = map[string]bool{}
			}
			out[fmt.Sprint(port.Protocol, port.HostPort)] = true
		}
	}
	return out
}

// now is the time, as it is in a status.
func (n *Nodes) now() *metav1.Time {
	return ptr.To(metav1.NewTime(n.Clock.Now().UTC().Truncate(time.Second)))
}

// running is the status of a pod all of whose containers run.
func (n *Nodes) running(pod *v1.Pod) v1.PodStatus {
	now := metav1.NewTime(n.Clock.Now().UTC().Truncate(time.Second))
	s := *pod.Status.DeepCopy()
	var ranges []string
	if node, err := n.nodes.Get(pod.Spec.NodeName); err == nil {
		ranges = node.Spec.PodCIDRs
	}
	s.Phase, s.StartTime, s.PodIPs = v1.PodRunning, &now, n.ips.give(pod, ranges)
	s.PodIP = s.PodIPs[0].IP
	s.ContainerStatuses = nil
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		s.ContainerStatuses = append(s.ContainerStatuses, v1.ContainerStatus{Name: c.Name, Image: c.Image, ImageID: "sim://" + c.Image,
			ContainerID: "sim://" + string(pod.UID) + "/" + c.Name, Ready: true, Started: ptr.To(true), State: v1.ContainerState{Running: &v1.ContainerStateRunning{StartedAt: now}}})
	}
	for _, t := range []v1.PodConditionType{v1.PodReadyToStartContainers, v1.PodInitialized, v1.ContainersReady, v1.PodReady} {
		found := false
		for i := range s.Conditions {
			if s.Conditions[i].Type == t {
				found = true
				s.Conditions[i].Status, s.Conditions[i].LastTransitionTime = v1.ConditionTrue, now
			}
		}
		if !found {
			s.Conditions = append(s.Conditions, v1.PodCondition{Type: t, Status: v1.ConditionTrue, LastTransitionTime: now})
		}
	}
	return s
}

// ended is the status of a pod whose containers have all ended in that way.
func (n *Nodes) ended(pod *v1.Pod, phase v1.PodPhase, how v1.ContainerStateTerminated) v1.PodStatus {
	now := metav1.NewTime(n.Clock.Now().UTC().Truncate(time.Second))
	s := *pod.Status.DeepCopy()
	s.Phase = phase
	for i := range s.ContainerStatuses {
		c := &s.ContainerStatuses[i]
		end := how
		end.StartedAt, end.FinishedAt, end.ContainerID = ptr.Deref(s.StartTime, metav1.Time{}), now, c.ContainerID
		c.Ready, c.Started, c.State = false, ptr.To(false), v1.ContainerState{Terminated: &end}
	}
	reason := "PodCompleted"
	if phase == v1.PodFailed {
		reason = "PodFailed"
	}
	for i := range s.Conditions {
		c := &s.Conditions[i]
		switch c.Type {
		case v1.PodInitialized:
			if phase == v1.PodSucceeded {
				c.Reason = reason
			}
		case v1.PodReady, v1.ContainersReady:
			c.Status, c.Reason, c.LastTransitionTime = v1.ConditionFalse, reason, now
		case v1.PodReadyToStartContainers:
			c.Status, c.LastTransitionTime = v1.ConditionFalse, now
		}
	}
	return s
}
