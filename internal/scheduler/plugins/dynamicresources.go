package plugins

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/util/sets"
	corev1apply "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes"
	resourcelisters "k8s.io/client-go/listers/resource/v1"
	"k8s.io/client-go/util/retry"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/dynamic-resource-allocation/cel"
	"k8s.io/dynamic-resource-allocation/deviceclass/extendedresourcecache"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
	"k8s.io/dynamic-resource-allocation/structured"
	"k8s.io/utils/ptr"

	fw "keelson.dev/keelson/internal/scheduler/framework"
)

// deviceFeatures are the gates of v1.37 that are on by default.
var deviceFeatures = structured.Features{AdminAccess: true, ConsumableCapacity: true, DeviceBindingAndStatus: true, DeviceTaints: true, PartitionableDevices: true, PrioritizedList: true}

const (
	devicesKey = "DynamicResources"
	// extendedClaim is the annotation of the claim that the scheduler makes for a
	// pod's extended resources.
	extendedClaim = "resource.kubernetes.io/extended-resource-claim"
	// bindingTimeout bounds the time that a pod waits for its devices' binding
	// conditions, upstream's default.
	bindingTimeout = 600 * time.Second
)

// DynamicResources allocates devices to the claims of pods (KEP-4381), and to
// extended resources that a DeviceClass names (KEP-5004).
type DynamicResources struct {
	Client  kubernetes.Interface
	Claims  resourcelisters.ResourceClaimLister
	Classes resourcelisters.DeviceClassLister
	Slices  resourcelisters.ResourceSliceLister
	Rules   resourcelisters.DeviceTaintRuleLister
	// Extended maps extended resources to device classes.
	Extended *extendedresourcecache.ExtendedResourceCache

	celOnce sync.Once
	cel     *cel.Cache

	mu sync.Mutex
	// pending are allocations that Claims may not know yet, by the claim's UID.
	pending map[types.UID]*pendingAllocation
	changed chan struct{}
}

// pendingAllocation is an allocation that was decided on. version is the
// resourceVersion of the claim with it, empty until it is written.
type pendingAllocation struct {
	allocation *resourceapi.AllocationResult
	version    string
}

// Name implements framework.Plugin.
func (*DynamicResources) Name() string { return "DynamicResources" }

// deviceState is a cycle's state of a pod's claims.
type deviceState struct {
	allocated []*allocatedClaim
	// open are the claims to be allocated, in the order of the pod's.
	open []*resourceapi.ResourceClaim
	// extended are the pod's requests of extended resources that device classes
	// provide.
	extended []extendedRequest

	allocator structured.Allocator
	byNode    map[string]*nodeDevices
	// unavailable are claims whose allocation no node could use.
	unavailable sets.Set[types.UID]
	// made is the claim for extended resources on the reserved node, once it was
	// created.
	made *resourceapi.ResourceClaim
}

// Clone implements framework.StateData: the devices of a node do not depend on
// the pods that preemption removes.
func (s *deviceState) Clone() fw.StateData { return s }

type allocatedClaim struct {
	*resourceapi.ResourceClaim
	nodes *nodeaffinity.NodeSelector // nil means all nodes
}

// nodeDevices holds the devices of the open claims and the extended resources
// on a node.
type nodeDevices struct {
	results  []resourceapi.AllocationResult
	extended *resourceapi.ResourceClaim // nil if none is needed
	mappings []*corev1apply.ContainerExtendedResourceRequestApplyConfiguration
}

// extendedRequest is a container's request of an extended resource.
type extendedRequest struct {
	container string
	request   string // in the claim
	resource  v1.ResourceName
	class     string
	count     int64
}

// Backed reports whether devices can provide an extended resource that a node
// does not have.
func (d *DynamicResources) Backed(name v1.ResourceName) bool {
	return d.Extended.GetDeviceClass(name) != nil
}

// requests returns the extended resources of a pod that device classes provide.
func (d *DynamicResources) requests(pod *v1.Pod) []extendedRequest {
	var out []extendedRequest
	for i, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		names := slices.Sorted(maps.Keys(c.Resources.Requests))
		n := 0
		for _, name := range names {
			q := c.Resources.Requests[name]
			class := d.Extended.GetDeviceClass(name)
			if class == nil || q.IsZero() {
				continue
			}
			out = append(out, extendedRequest{c.Name, fmt.Sprintf("container-%d-request-%d", i, n), name, class.Name, q.Value()})
			n++
		}
	}
	return out
}

// PreFilter implements framework.PreFilterPlugin.
func (d *DynamicResources) PreFilter(ctx context.Context, state *fw.CycleState, pod *v1.Pod) (sets.Set[string], *fw.Status) {
	var extended []extendedRequest
	if len(Requests(state, pod).Requested.Scalar) > 0 {
		extended = d.requests(pod)
	}
	if len(pod.Spec.ResourceClaims) == 0 && len(extended) == 0 {
		return nil, fw.NewStatus(fw.Skip)
	}
	s := &deviceState{byNode: map[string]*nodeDevices{}, unavailable: sets.New[types.UID](), extended: extended}
	never := func(err error) (sets.Set[string], *fw.Status) {
		return nil, fw.NewStatus(fw.UnschedulableAndUnresolvable, err.Error())
	}
	for i := range pod.Spec.ResourceClaims {
		name, own, err := resourceclaim.Name(pod, &pod.Spec.ResourceClaims[i])
		if err != nil {
			return never(err)
		}
		if name == nil {
			continue
		}
		c, err := d.Claims.ResourceClaims(pod.Namespace).Get(*name)
		if err != nil {
			return never(err)
		}
		if c.DeletionTimestamp != nil {
			return never(fmt.Errorf("resourceclaim %q is being deleted", c.Name))
		}
		if own {
			if err := resourceclaim.IsForPod(pod, c, false); err != nil {
				return never(err)
			}
		}
		a := c.Status.Allocation
		if a == nil {
			if d.inFlight(c.UID) {
				return nil, fw.NewStatus(fw.Unschedulable, fmt.Sprintf("resource claim %s is in the process of being allocated", c.Name))
			}
			if err := d.classesExist(c); err != nil {
				return never(err)
			}
			s.open = append(s.open, c)
			continue
		}
		if !resourceclaim.CanBeReserved(c) && !resourceclaim.IsReservedForPod(pod, c, false) {
			return nil, fw.NewStatus(fw.Unschedulable, "resourceclaim in use")
		}
		ac := &allocatedClaim{ResourceClaim: c}
		if a.NodeSelector != nil {
			if ac.nodes, err = nodeaffinity.NewNodeSelector(a.NodeSelector); err != nil {
				return nil, fw.AsStatus(err)
			}
		}
		s.allocated = append(s.allocated, ac)
	}
	if len(s.open) > 0 || len(s.extended) > 0 {
		var err error
		if s.allocator, err = d.allocator(ctx); err != nil {
			return nil, fw.AsStatus(err)
		}
	}
	state.Write(devicesKey, s)
	return nil, nil
}

// classesExist returns an error for a class of a claim's requests that does not
// exist.
func (d *DynamicResources) classesExist(c *resourceapi.ResourceClaim) error {
	check := func(request, class string) error {
		_, err := d.Classes.Get(class)
		if apierrors.IsNotFound(err) {
			return fmt.Errorf("request %s: device class %s does not exist", request, class)
		}
		return err
	}
	for i := range c.Spec.Devices.Requests {
		r := &c.Spec.Devices.Requests[i]
		if r.Exactly != nil {
			if err := check(r.Name, r.Exactly.DeviceClassName); err != nil {
				return err
			}
		}
		for _, sub := range r.FirstAvailable {
			if err := check(resourceclaim.CreateSubRequestRef(r.Name, sub.Name), sub.DeviceClassName); err != nil {
				return err
			}
		}
	}
	return nil
}

// allocator returns an allocator of all devices, less those that claims have.
func (d *DynamicResources) allocator(ctx context.Context) (structured.Allocator, error) {
	d.celOnce.Do(func() { d.cel = cel.NewCache(100, cel.Features{EnableConsumableCapacity: true}) })
	claims, err := d.Claims.List(labels.Everything())
	if err != nil {
		return nil, err
	}
	all, err := d.tainted()
	if err != nil {
		return nil, err
	}
	return structured.NewAllocator(ctx, deviceFeatures, d.taken(claims), classLister{d.Classes}, all, d.cel)
}

type classLister struct {
	resourcelisters.DeviceClassLister
}

// List returns all classes.
func (l classLister) List() ([]*resourceapi.DeviceClass, error) {
	return l.DeviceClassLister.List(labels.Everything())
}

// taken returns the devices that claims have, and those of pending allocations.
func (d *DynamicResources) taken(claims []*resourceapi.ResourceClaim) structured.AllocatedState {
	out := structured.AllocatedState{AllocatedDevices: sets.New[structured.DeviceID](), AllocatedSharedDeviceIDs: sets.New[structured.SharedDeviceID](),
		AggregatedCapacity: structured.NewConsumedCapacityCollection()}
	add := func(a *resourceapi.AllocationResult) {
		if a == nil {
			return
		}
		for i := range a.Devices.Results {
			r := &a.Devices.Results[i]
			if ptr.Deref(r.AdminAccess, false) {
				continue // admin access leaves the device to others
			}
			id := structured.MakeDeviceID(r.Driver, r.Pool, r.Device)
			if r.ShareID == nil {
				out.AllocatedDevices.Insert(id)
				continue
			}
			out.AllocatedSharedDeviceIDs.Insert(structured.MakeSharedDeviceID(id, r.ShareID))
			if r.ConsumedCapacity != nil {
				out.AggregatedCapacity.Insert(structured.NewDeviceConsumedCapacity(id, r.ConsumedCapacity))
			}
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	known := make(map[types.UID]*resourceapi.ResourceClaim, len(d.pending))
	for _, c := range claims {
		if d.pending[c.UID] != nil {
			known[c.UID] = c
		}
		add(c.Status.Allocation)
	}
	for uid, p := range d.pending {
		c := known[uid]
		if p.version != "" && (c == nil || !older(c.ResourceVersion, p.version)) {
			delete(d.pending, uid) // the lister has caught up
		} else if c == nil || c.Status.Allocation == nil {
			add(p.allocation)
		}
	}
	return out
}

func older(a, b string) bool {
	order, err := resourceversion.CompareResourceVersion(a, b)
	return err == nil && order < 0
}

// inFlight reports whether a claim that is unallocated in the lister has a
// pending allocation.
func (d *DynamicResources) inFlight(uid types.UID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.pending[uid] != nil
}

// tainted returns all slices, with the taints of rules.
func (d *DynamicResources) tainted() ([]*resourceapi.ResourceSlice, error) {
	all, err := d.Slices.List(labels.Everything())
	if err != nil {
		return nil, err
	}
	rules, err := d.Rules.List(labels.Everything())
	if err != nil || len(rules) == 0 {
		return all, err
	}
	sort.Slice(rules, func(i, j int) bool { return rules[i].Name < rules[j].Name })
	for i, s := range all {
		owned := false
		for _, r := range rules {
			sel := r.Spec.DeviceSelector
			if sel == nil || sel.Driver != nil && *sel.Driver != s.Spec.Driver || sel.Pool != nil && *sel.Pool != s.Spec.Pool.Name {
				continue
			}
			for j := range s.Spec.Devices {
				if sel.Device != nil && *sel.Device != s.Spec.Devices[j].Name {
					continue
				}
				if !owned {
					s, owned = s.DeepCopy(), true
					all[i] = s
				}
				s.Spec.Devices[j].Taints = append(s.Spec.Devices[j].Taints, r.Spec.Taint)
			}
		}
	}
	return all, nil
}

// Filter implements framework.FilterPlugin.
func (d *DynamicResources) Filter(ctx context.Context, state *fw.CycleState, pod *v1.Pod, n *fw.NodeInfo) *fw.Status {
	s, ok := state.Read(devicesKey).(*deviceState)
	if !ok {
		return nil
	}
	usable := true
	for _, c := range s.allocated {
		if c.nodes != nil && !c.nodes.Match(n.Node) {
			s.unavailable.Insert(c.UID)
			usable = false
		}
	}
	if !usable {
		return fw.NewStatus(fw.UnschedulableAndUnresolvable, "resourceclaim not available on the node")
	}
	out := &nodeDevices{}
	out.extended, out.mappings = s.extendedOn(pod, n)
	claims := s.open
	if out.extended != nil {
		claims = append(slices.Clip(claims), out.extended)
	}
	if len(claims) > 0 {
		results, err := s.allocator.Allocate(ctx, n.Node, claims)
		switch {
		case errors.Is(err, structured.ErrFailedAllocationOnNode):
			return fw.NewStatus(fw.UnschedulableAndUnresolvable, err.Error())
		case err != nil:
			// The error is about a claim, class or slice: the pod waits for a change of it.
			return fw.NewStatus(fw.UnschedulableAndUnresolvable, err.Error())
		case len(results) != len(claims):
			return fw.NewStatus(fw.UnschedulableAndUnresolvable, "cannot allocate all claims")
		}
		out.results = results
	}
	s.byNode[n.Node.Name] = out
	return nil
}

// extendedOn returns the claim for the extended resources that a node does not
// have itself, nil if it has all.
func (s *deviceState) extendedOn(pod *v1.Pod, n *fw.NodeInfo) (*resourceapi.ResourceClaim, []*corev1apply.ContainerExtendedResourceRequestApplyConfiguration) {
	c := &resourceapi.ResourceClaim{ObjectMeta: metav1.ObjectMeta{
		Namespace: pod.Namespace, GenerateName: pod.Name + "-extended-resources-", Annotations: map[string]string{extendedClaim: "true"},
		OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(pod, v1.SchemeGroupVersion.WithKind("Pod"))},
	}}
	var mappings []*corev1apply.ContainerExtendedResourceRequestApplyConfiguration
	for _, r := range s.extended {
		if n.Allocatable.Scalar[r.resource] > 0 {
			continue
		}
		c.Spec.Devices.Requests = append(c.Spec.Devices.Requests, resourceapi.DeviceRequest{Name: r.request, Exactly: &resourceapi.ExactDeviceRequest{
			DeviceClassName: r.class, AllocationMode: resourceapi.DeviceAllocationModeExactCount, Count: r.count}})
		mappings = append(mappings, corev1apply.ContainerExtendedResourceRequest().WithContainerName(r.container).WithResourceName(string(r.resource)).WithRequestName(r.request))
	}
	if len(mappings) == 0 {
		return nil, nil
	}
	// Before its creation the claim has a UID derived from the pod's.
	c.UID = "extended-" + pod.UID
	return c, mappings
}

// Reserve implements framework.ReservePlugin.
func (d *DynamicResources) Reserve(_ context.Context, state *fw.CycleState, _ *v1.Pod, node string) *fw.Status {
	s, ok := state.Read(devicesKey).(*deviceState)
	if !ok {
		return nil
	}
	on := s.byNode[node]
	if on == nil {
		return fw.AsStatus(fmt.Errorf("no devices were allocated on node %q", node))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.pending == nil {
		d.pending = map[types.UID]*pendingAllocation{}
	}
	for i, c := range s.claims(on) {
		d.pending[c.UID] = &pendingAllocation{allocation: &on.results[i]}
	}
	return nil
}

// claims returns the claims to be allocated on a node.
func (s *deviceState) claims(on *nodeDevices) []*resourceapi.ResourceClaim {
	if on.extended == nil {
		return s.open
	}
	return append(slices.Clip(s.open), on.extended)
}

// Unreserve implements framework.ReservePlugin: it releases what Reserve and
// PreBind took.
func (d *DynamicResources) Unreserve(ctx context.Context, state *fw.CycleState, pod *v1.Pod, node string) {
	s, ok := state.Read(devicesKey).(*deviceState)
	if !ok || s.byNode[node] == nil {
		return
	}
	on := s.byNode[node]
	d.mu.Lock()
	var written []types.UID
	for _, c := range s.claims(on) {
		if p := d.pending[c.UID]; p != nil && p.version != "" {
			written = append(written, c.UID)
		} else {
			delete(d.pending, c.UID)
		}
	}
	d.mu.Unlock()
	made := s.made
	s.made = nil
	if len(written) == 0 && made == nil && len(s.allocated) == 0 {
		return
	}
	// The snapshot is locked here: the API server is called from another goroutine.
	go d.giveBack(context.WithoutCancel(ctx), s, pod, made)
}

// giveBack removes the pod from the claims' reservations; the resource claim
// controller does the same for a pod that is gone.
func (d *DynamicResources) giveBack(ctx context.Context, s *deviceState, pod *v1.Pod, made *resourceapi.ResourceClaim) {
	client := d.Client.ResourceV1().ResourceClaims(pod.Namespace)
	for _, name := range s.names() {
		patch := fmt.Appendf(nil, `{"status":{"reservedFor":[{"$patch":"delete","uid":%q}]}}`, pod.UID)
		c, err := client.Get(ctx, name, metav1.GetOptions{})
		if err == nil && resourceclaim.IsReservedForPod(pod, c, false) {
			_, _ = client.Patch(ctx, name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
		}
	}
	if made != nil {
		_ = client.Delete(ctx, made.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(made.UID))})
	}
}

func (s *deviceState) names() []string {
	var out []string
	for _, c := range s.allocated {
		out = append(out, c.Name)
	}
	for _, c := range s.open {
		out = append(out, c.Name)
	}
	return out
}

// PreBind implements framework.PreBindPlugin: it writes the allocations and the
// reservations, and waits for the devices' binding conditions.
func (d *DynamicResources) PreBind(ctx context.Context, state *fw.CycleState, pod *v1.Pod, node string) *fw.Status {
	s, ok := state.Read(devicesKey).(*deviceState)
	if !ok {
		return nil
	}
	on := s.byNode[node]
	var bound []*resourceapi.ResourceClaim
	for _, c := range s.allocated {
		now, err := d.bind(ctx, pod, c.ResourceClaim, nil)
		if err != nil {
			return fw.AsStatus(err)
		}
		bound = append(bound, now)
	}
	for i, c := range s.claims(on) {
		uid := c.UID
		if c == on.extended {
			made := c.DeepCopy()
			made.UID = ""
			made, err := d.Client.ResourceV1().ResourceClaims(pod.Namespace).Create(ctx, made, metav1.CreateOptions{})
			if err != nil {
				return fw.AsStatus(fmt.Errorf("create claim for extended resources: %w", err))
			}
			s.made, c = made, made
		}
		now, err := d.bind(ctx, pod, c, &on.results[i])
		if err != nil {
			return fw.AsStatus(err)
		}
		d.mu.Lock()
		delete(d.pending, uid)
		d.pending[now.UID] = &pendingAllocation{allocation: now.Status.Allocation, version: now.ResourceVersion}
		d.mu.Unlock()
		bound = append(bound, now)
	}
	if on.extended != nil {
		apply := corev1apply.Pod(pod.Name, pod.Namespace).WithUID(pod.UID).WithStatus(corev1apply.PodStatus().WithExtendedResourceClaimStatus(
			corev1apply.PodExtendedResourceClaimStatus().WithResourceClaimName(s.made.Name).WithRequestMappings(on.mappings...)))
		if _, err := d.Client.CoreV1().Pods(pod.Namespace).ApplyStatus(ctx, apply, metav1.ApplyOptions{FieldManager: "kube-scheduler", Force: true}); err != nil {
			return fw.AsStatus(fmt.Errorf("update pod %s/%s ExtendedResourceClaimStatus: %w", pod.Namespace, pod.Name, err))
		}
	}
	return fw.AsStatus(d.ready(ctx, bound))
}

// bind writes an allocation, if there is one to be made, and the reservation for
// the pod. A claim that another scheduler has allocated meanwhile is an error.
func (d *DynamicResources) bind(ctx context.Context, pod *v1.Pod, claim *resourceapi.ResourceClaim, allocation *resourceapi.AllocationResult) (*resourceapi.ResourceClaim, error) {
	client := d.Client.ResourceV1().ResourceClaims(claim.Namespace)
	first := true
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		var err error
		now := claim
		if !first {
			if now, err = client.Get(ctx, claim.Name, metav1.GetOptions{}); err != nil {
				return err
			}
		}
		first = false
		switch {
		case now.UID != claim.UID || now.DeletionTimestamp != nil:
			return fmt.Errorf("claim %s got deleted in the meantime", claim.Name)
		case allocation != nil && now.Status.Allocation != nil && !equality.Semantic.DeepEqual(now.Status.Allocation.Devices.Results, allocation.Devices.Results):
			return fmt.Errorf("claim %s got allocated in the meantime", claim.Name)
		case allocation == nil && now.Status.Allocation == nil:
			return fmt.Errorf("claim %s got deallocated in the meantime", claim.Name)
		case now.Status.Allocation != nil && resourceclaim.IsReservedForPod(pod, now, false):
			claim = now
			return nil
		}
		now = now.DeepCopy()
		if now.Status.Allocation == nil {
			// The finalizer comes first: a claim with an allocation must not vanish.
			if !slices.Contains(now.Finalizers, resourceapi.Finalizer) {
				now.Finalizers = append(now.Finalizers, resourceapi.Finalizer)
				if now, err = client.Update(ctx, now, metav1.UpdateOptions{}); err != nil {
					return err
				}
				now = now.DeepCopy()
			}
			now.Status.Allocation = allocation.DeepCopy()
			if slices.ContainsFunc(allocation.Devices.Results, func(r resourceapi.DeviceRequestAllocationResult) bool { return len(r.BindingConditions) > 0 }) {
				now.Status.Allocation.AllocationTimestamp = ptr.To(metav1.Now())
			}
		}
		now.Status.ReservedFor = append(now.Status.ReservedFor, resourceapi.ResourceClaimConsumerReference{Resource: "pods", Name: pod.Name, UID: pod.UID})
		if now, err = client.UpdateStatus(ctx, now, metav1.UpdateOptions{}); err != nil {
			return err
		}
		claim = now
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("binding claim %s: %w", claim.Name, err)
	}
	return claim, nil
}

// ready waits until all devices have their binding conditions (KEP-5007). If one
// has failed or the time is over, the claims are released.
func (d *DynamicResources) ready(ctx context.Context, claims []*resourceapi.ResourceClaim) error {
	claims = slices.DeleteFunc(claims, func(c *resourceapi.ResourceClaim) bool {
		return !slices.ContainsFunc(c.Status.Allocation.Devices.Results, func(r resourceapi.DeviceRequestAllocationResult) bool { return len(r.BindingConditions) > 0 })
	})
	if len(claims) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, bindingTimeout)
	defer cancel()
	for {
		change := d.change()
		waiting := ""
		for _, c := range claims {
			now, err := d.Claims.ResourceClaims(c.Namespace).Get(c.Name)
			switch {
			case err != nil:
				return err
			case older(now.ResourceVersion, c.ResourceVersion):
				now = c
			case now.UID != c.UID || now.Status.Allocation == nil:
				return fmt.Errorf("claim %s got deallocated in the meantime", c.Name)
			}
			ok, err := bindingConditions(now)
			if err != nil {
				d.deallocate(ctx, now)
				return err
			}
			if !ok {
				waiting = c.Name
			}
		}
		if waiting == "" {
			return nil
		}
		select {
		case <-change:
		case <-ctx.Done():
			for _, c := range claims {
				if now, err := d.Claims.ResourceClaims(c.Namespace).Get(c.Name); err == nil {
					if ok, _ := bindingConditions(now); !ok {
						d.deallocate(context.WithoutCancel(ctx), now)
					}
				}
			}
			return fmt.Errorf("device binding timeout: claim %s: %w", waiting, ctx.Err())
		}
	}
}

// bindingConditions reports whether the devices of a claim have all conditions
// that they are bound with; a failure condition is an error.
func bindingConditions(c *resourceapi.ResourceClaim) (bool, error) {
	for i := range c.Status.Allocation.Devices.Results {
		r := &c.Status.Allocation.Devices.Results[i]
		var has []metav1.Condition
		for _, s := range c.Status.Devices {
			if s.Driver == r.Driver && s.Pool == r.Pool && s.Device == r.Device && ptr.Equal(s.ShareID, (*string)(r.ShareID)) {
				has = s.Conditions
			}
		}
		for _, t := range r.BindingFailureConditions {
			if meta.IsStatusConditionTrue(has, t) {
				return false, fmt.Errorf("claim %s binding failed: device %s/%s/%s has condition %s", c.Name, r.Driver, r.Pool, r.Device, t)
			}
		}
		for _, t := range r.BindingConditions {
			if !meta.IsStatusConditionTrue(has, t) {
				return false, nil
			}
		}
	}
	return true, nil
}

// Changed wakes pods that wait for binding conditions.
func (d *DynamicResources) Changed() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.changed != nil {
		close(d.changed)
		d.changed = nil
	}
}

func (d *DynamicResources) change() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.changed == nil {
		d.changed = make(chan struct{})
	}
	return d.changed
}

// PostFilter implements framework.PostFilterPlugin: a claim whose allocation keeps
// the pod from all nodes, and which no pod uses, is deallocated.
func (d *DynamicResources) PostFilter(state *fw.CycleState, pod *v1.Pod) (string, func(context.Context)) {
	if len(pod.Spec.ResourceClaims) == 0 {
		return "no new claims to deallocate", nil
	}
	s, ok := state.Read(devicesKey).(*deviceState)
	if !ok {
		return "", nil // PreFilter has refused the pod
	}
	for _, c := range s.allocated {
		if r := c.Status.ReservedFor; s.unavailable.Has(c.UID) && (len(r) == 0 || len(r) == 1 && r[0].UID == pod.UID) {
			return "deallocation of ResourceClaim completed", func(ctx context.Context) { d.deallocate(ctx, c.ResourceClaim) }
		}
	}
	return "still not schedulable", nil
}

// deallocate removes a claim's allocation, unless the claim has changed.
func (d *DynamicResources) deallocate(ctx context.Context, c *resourceapi.ResourceClaim) {
	c = c.DeepCopy()
	c.Status.Allocation, c.Status.ReservedFor, c.Status.Devices = nil, nil, nil
	// A failure is ignored: the pod is retried.
	_, _ = d.Client.ResourceV1().ResourceClaims(c.Namespace).UpdateStatus(ctx, c, metav1.UpdateOptions{})
	d.mu.Lock()
	delete(d.pending, c.UID)
	d.mu.Unlock()
}

// EventsToRegister implements framework.EnqueueExtensions.
func (d *DynamicResources) EventsToRegister() []fw.EventHint {
	return []fw.EventHint{
		{Events: fw.ResourceClaimChange | fw.ResourceSliceChange | fw.DeviceClassChange | fw.PodUpdateClaims | fw.NodeAdd | fw.NodeUpdateLabel | fw.NodeUpdateTaint},
	}
}
