package scheduler

import (
	"context"
	"maps"
	"reflect"

	v1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/dynamic-resource-allocation/deviceclass/extendedresourcecache"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
	"k8s.io/klog/v2"

	fw "keelson.dev/keelson/internal/scheduler/framework"
	"keelson.dev/keelson/internal/scheduler/plugins"
	"keelson.dev/keelson/internal/trace"
)

// defaultProfile has upstream's default plugins, in their order.
func defaultProfile(view fw.View, client kubernetes.Interface, inf informers.SharedInformerFactory) *profile {
	core, storage := inf.Core().V1(), inf.Storage().V1()
	volumes := &plugins.Volumes{Client: client, Claims: core.PersistentVolumeClaims().Lister(), Volumes: core.PersistentVolumes().Lister(),
		Classes: storage.StorageClasses().Lister(), CSINodes: storage.CSINodes().Lister(),
		Drivers: storage.CSIDrivers().Lister(), Capacities: storage.CSIStorageCapacities().Lister()}
	dra := inf.Resource().V1()
	devices := &plugins.DynamicResources{Client: client, Claims: dra.ResourceClaims().Lister(), Classes: dra.DeviceClasses().Lister(), Slices: dra.ResourceSlices().Lister(),
		Rules: dra.DeviceTaintRules().Lister(), Extended: extendedresourcecache.NewExtendedResourceCache(klog.Background())}
	owners := &plugins.Owners{Services: core.Services().Lister(), ReplicationControllers: core.ReplicationControllers().Lister(),
		ReplicaSets: inf.Apps().V1().ReplicaSets().Lister(), StatefulSets: inf.Apps().V1().StatefulSets().Lister()}
	namespaces := core.Namespaces().Lister()
	p := newProfile([]fw.Plugin{
		plugins.NodeUnschedulable{},
		plugins.NodeName{},
		plugins.TaintToleration{},
		plugins.NodeAffinity{},
		plugins.NodePorts{},
		plugins.NodeResourcesFit{Backed: devices.Backed},
		plugins.VolumeRestrictions{Volumes: volumes, View: view},
		plugins.NodeVolumeLimits{Volumes: volumes},
		plugins.VolumeBinding{Volumes: volumes},
		plugins.VolumeZone{Volumes: volumes},
		plugins.PodTopologySpread{View: view, Defaults: owners.Selector},
		plugins.InterPodAffinity{View: view, NamespaceLabels: func(name string) labels.Set {
			if ns, err := namespaces.Get(name); err == nil {
				return ns.Labels
			}
			return nil
		}},
		devices,
		plugins.BalancedAllocation{},
		plugins.ImageLocality{View: view},
	}, map[string]int64{"TaintToleration": 3, "NodeAffinity": 2, "NodeResourcesFit": 1, "PodTopologySpread": 2, "InterPodAffinity": 2,
		"NodeResourcesBalancedAllocation": 1, "ImageLocality": 1})
	p.volumes, p.devices = volumes, devices
	return p
}

// terminal pods need no node any more.
func terminal(p *v1.Pod) bool {
	return p.Status.Phase == v1.PodSucceeded || p.Status.Phase == v1.PodFailed
}

// follow makes an event handler of one function: the old object is nil when one is
// added, the new one when it is deleted.
func follow[T any](f func(old, now *T)) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { f(nil, any(o).(*T)) },
		UpdateFunc: func(old, o any) { f(any(old).(*T), any(o).(*T)) },
		DeleteFunc: func(o any) {
			if t, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = t.Obj
			}
			if old, ok := any(o).(*T); ok {
				f(old, nil)
			}
		},
	}
}

// listen follows the cluster.
func (s *Scheduler) listen(inf informers.SharedInformerFactory) error {
	core, storage, dra := inf.Core().V1(), inf.Storage().V1(), inf.Resource().V1()
	s.profile.devices.Extended.AddEventHandler(follow(func(old, now *resourcev1.DeviceClass) { tell(s, fw.DeviceClassChange, old, now) }))
	for _, l := range []struct {
		informer cache.SharedIndexInformer
		handler  cache.ResourceEventHandler // nil: it is only read
	}{
		{core.Pods().Informer(), follow(s.podChanged)},
		{core.Nodes().Informer(), follow(s.nodeChanged)},
		{core.Namespaces().Informer(), follow(func(old, now *v1.Namespace) {
			if now != nil && (old == nil || !maps.Equal(old.Labels, now.Labels)) {
				s.queue.happened(fw.NamespaceUpdate, old, now)
			}
		})},
		{core.PersistentVolumeClaims().Informer(), follow(func(old, now *v1.PersistentVolumeClaim) {
			s.profile.volumes.Changed()
			tell(s, fw.ClaimChange, old, now)
		})},
		{core.PersistentVolumes().Informer(), follow(func(old, now *v1.PersistentVolume) {
			s.profile.volumes.Changed()
			tell(s, fw.VolumeChange, old, now)
		})},
		{storage.StorageClasses().Informer(), follow(func(old, now *storagev1.StorageClass) { tell(s, fw.ClassChange, old, now) })},
		{storage.CSINodes().Informer(), follow(func(old, now *storagev1.CSINode) { tell(s, fw.CSINodeChange, old, now) })},
		{storage.CSIDrivers().Informer(), follow(func(old, now *storagev1.CSIDriver) { tell(s, fw.CapacityChange, old, now) })},
		{storage.CSIStorageCapacities().Informer(), follow(func(old, now *storagev1.CSIStorageCapacity) { tell(s, fw.CapacityChange, old, now) })},
		{dra.ResourceClaims().Informer(), follow(func(old, now *resourcev1.ResourceClaim) {
			s.profile.devices.Changed()
			s.queue.happened(fw.ResourceClaimChange, old, now)
		})},
		{dra.ResourceSlices().Informer(), follow(func(old, now *resourcev1.ResourceSlice) { s.queue.happened(fw.ResourceSliceChange, old, now) })},
		{dra.DeviceTaintRules().Informer(), follow(func(old, now *resourcev1.DeviceTaintRule) { s.queue.happened(fw.ResourceSliceChange, old, now) })},
		{dra.DeviceClasses().Informer(), s.profile.devices.Extended},
		{core.Services().Informer(), nil},
		{core.ReplicationControllers().Informer(), nil},
		{inf.Apps().V1().ReplicaSets().Informer(), nil},
		{inf.Apps().V1().StatefulSets().Informer(), nil},
		{inf.Policy().V1().PodDisruptionBudgets().Informer(), nil},
	} {
		synced := l.informer.HasSynced
		if l.handler != nil {
			r, err := l.informer.AddEventHandler(l.handler)
			if err != nil {
				return err
			}
			synced = r.HasSynced
		}
		s.synced = append(s.synced, synced)
	}
	return nil
}

// tell tells the queue of an object added or changed.
func tell[T any](s *Scheduler, e fw.Event, old, now *T) {
	if now != nil {
		s.queue.happened(e, old, now)
	}
}

func (s *Scheduler) mine(p *v1.Pod) bool {
	return p.Spec.NodeName == "" && p.Spec.SchedulerName == s.SchedulerName && p.DeletionTimestamp == nil && !terminal(p)
}

func (s *Scheduler) podChanged(old, p *v1.Pod) {
	switch {
	case p == nil:
		s.podGone(old)
	case p.Spec.NodeName != "" && terminal(p):
		s.podGone(p)
	case p.Spec.NodeName != "":
		s.queue.delete(p.UID)
		s.nominate(p, "")
		s.snapshot.place(p, p.Spec.NodeName)
		switch {
		case old == nil || old.Spec.NodeName == "":
			s.queue.happened(fw.AssignedPodAdd, nil, p)
		case !maps.Equal(old.Labels, p.Labels):
			s.queue.happened(fw.AssignedPodUpdateLabel, old, p)
		case requestsLess(old, p):
			s.queue.happened(fw.AssignedPodScaleDown, old, p)
		}
	case s.mine(p):
		if old == nil || old.Status.NominatedNodeName != p.Status.NominatedNodeName {
			s.nominate(p, p.Status.NominatedNodeName)
		}
		s.queue.put(old, p, podChanges(old, p))
		if len(p.Spec.SchedulingGates) > 0 && old == nil {
			s.wg.Go(func() { s.gated(trace.WithCause(context.Background(), p), p) })
		}
	default:
		s.queue.delete(p.UID)
		s.nominate(p, "")
	}
}

// nominate changes the node nominated for a pod.
func (s *Scheduler) nominate(p *v1.Pod, node string) {
	s.snapshot.mu.Lock()
	defer s.snapshot.mu.Unlock()
	s.nominated.set(p, node)
}

// podChanges returns the changes of a waiting pod that matter to plugins.
func podChanges(old, p *v1.Pod) (e fw.Event) {
	if old == nil || old == p {
		return 0
	}
	if !maps.Equal(old.Labels, p.Labels) {
		e |= fw.PodUpdateLabel
	}
	if !resourceclaim.PodStatusEqual(old.Status.ResourceClaimStatuses, p.Status.ResourceClaimStatuses) {
		e |= fw.PodUpdateClaims
	}
	if old.Generation == p.Generation {
		return e
	}
	if len(old.Spec.Tolerations) != len(p.Spec.Tolerations) {
		e |= fw.PodUpdateToleration
	}
	if requestsLess(old, p) {
		e |= fw.PodUpdateScaleDown
	}
	return e
}

// requestsLess reports whether a pod asks for less of anything than before.
func requestsLess(old, p *v1.Pod) bool {
	if sameRequests(old, p) {
		return false
	}
	was, is := fw.NewPodRequests(old, true).Requested, fw.NewPodRequests(p, true).Requested
	return !is.Holds(&was)
}

func (s *Scheduler) podGone(p *v1.Pod) {
	s.queue.delete(p.UID)
	s.nominate(p, "")
	if p.Spec.NodeName != "" {
		s.snapshot.remove(p)
		s.queue.happened(fw.AssignedPodDelete, p, nil)
	}
}

func (s *Scheduler) nodeChanged(old, n *v1.Node) {
	if n == nil {
		s.snapshot.removeNode(old.Name)
		s.queue.happened(fw.NodeDelete, old, nil)
		return
	}
	if old == nil {
		s.snapshot.setNode(n)
		s.queue.happened(fw.NodeAdd, nil, n)
		return
	}
	var e fw.Event
	if was, is := fw.NewResource(old.Status.Allocatable), fw.NewResource(n.Status.Allocatable); !was.Equal(is) {
		e |= fw.NodeUpdateAllocatable
	}
	if !maps.Equal(old.Labels, n.Labels) {
		e |= fw.NodeUpdateLabel
	}
	if old.Spec.Unschedulable != n.Spec.Unschedulable || !reflect.DeepEqual(old.Spec.Taints, n.Spec.Taints) {
		e |= fw.NodeUpdateTaint
	}
	if e == 0 && reflect.DeepEqual(old.Status.Images, n.Status.Images) {
		s.snapshot.refreshNode(n) // a heartbeat
		return
	}
	s.snapshot.setNode(n)
	if e != 0 {
		s.queue.happened(e, old, n)
	}
}
