package plugins

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/component-helpers/storage/ephemeral"
	"k8s.io/component-helpers/storage/volume"

	"keelson.dev/keelson/internal/api/podspec"
	"keelson.dev/keelson/internal/csimigration"
	fw "keelson.dev/keelson/internal/scheduler/framework"
)

// Volumes holds the storage objects that the volume plugins share.
type Volumes struct {
	Client   kubernetes.Interface
	Claims   corelisters.PersistentVolumeClaimLister
	Volumes  corelisters.PersistentVolumeLister
	Classes  storagelisters.StorageClassLister
	CSINodes storagelisters.CSINodeLister
	// Drivers and Capacities say how much may be provisioned where.
	Drivers    storagelisters.CSIDriverLister
	Capacities storagelisters.CSIStorageCapacityLister

	mu sync.Mutex
	// reserved are volumes chosen for a claim ("namespace/name") of a pod about
	// to be bound, which the API server may not know yet.
	reserved map[string]string
	changed  chan struct{}
}

// Changed wakes pods that wait for their volumes: a claim or volume has
// changed.
func (v *Volumes) Changed() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.changed != nil {
		close(v.changed)
		v.changed = nil
	}
}

// change is closed at the next change.
func (v *Volumes) change() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.changed == nil {
		v.changed = make(chan struct{})
	}
	return v.changed
}

func (v *Volumes) claim(key string) (*v1.PersistentVolumeClaim, error) {
	ns, name, _ := strings.Cut(key, "/")
	return v.Claims.PersistentVolumeClaims(ns).Get(name)
}

func complete(c *v1.PersistentVolumeClaim) bool {
	return c.Spec.VolumeName != "" && metav1.HasAnnotation(c.ObjectMeta, volume.AnnBindCompleted)
}

func claimKey(c *v1.PersistentVolumeClaim) string { return c.Namespace + "/" + c.Name }

// VolumeBinding keeps a pod to nodes that its volumes can be used on, and
// binds claims that wait for their first consumer.
type VolumeBinding struct{ *Volumes }

// Name implements framework.Plugin.
func (VolumeBinding) Name() string { return "VolumeBinding" }

const bindingKey = "VolumeBinding"

// bindTimeout is how long at most a pod waits for its claims to be bound.
const bindTimeout = 10 * time.Minute

type volumeBinding struct {
	bound, delayed []*v1.PersistentVolumeClaim
	byNode         map[string]*nodeBinding
}

// nodeBinding is how delayed claims are satisfied on a node: by these volumes,
// or by provisioning.
type nodeBinding struct {
	volumes   map[string]*v1.PersistentVolume // by claim
	provision []*v1.PersistentVolumeClaim
}

// Clone implements framework.StateData.
func (s *volumeBinding) Clone() fw.StateData {
	return &volumeBinding{bound: s.bound, delayed: s.delayed, byNode: maps.Clone(s.byNode)}
}

func (p VolumeBinding) check(pod *v1.Pod) ([]*v1.PersistentVolumeClaim, error) {
	var out []*v1.PersistentVolumeClaim
	for i := range pod.Spec.Volumes {
		vol := &pod.Spec.Volumes[i]
		name := podspec.ClaimName(pod, vol)
		if name == "" {
			continue
		}
		c, err := p.Claims.PersistentVolumeClaims(pod.Namespace).Get(name)
		switch {
		case vol.Ephemeral != nil && apierrors.IsNotFound(err):
			return nil, fmt.Errorf("waiting for ephemeral volume controller to create the persistentvolumeclaim %q", name)
		case err != nil:
			return nil, err
		case c.Status.Phase == v1.ClaimLost:
			return nil, fmt.Errorf("persistentvolumeclaim %q bound to non-existent persistentvolume %q", c.Name, c.Spec.VolumeName)
		case c.DeletionTimestamp != nil:
			return nil, fmt.Errorf("persistentvolumeclaim %q is being deleted", c.Name)
		case vol.Ephemeral != nil:
			if err := ephemeral.VolumeIsForPod(pod, c); err != nil {
				return nil, err
			}
		}
		out = append(out, c)
	}
	return out, nil
}

// PreFilter implements framework.PreFilterPlugin.
func (p VolumeBinding) PreFilter(_ context.Context, state *fw.CycleState, pod *v1.Pod) (sets.Set[string], *fw.Status) {
	claims, err := p.check(pod)
	if err != nil {
		return nil, fw.NewStatus(fw.UnschedulableAndUnresolvable, err.Error())
	}
	if len(claims) == 0 {
		return nil, fw.NewStatus(fw.Skip)
	}
	s := &volumeBinding{byNode: map[string]*nodeBinding{}}
	for _, c := range claims {
		if complete(c) {
			s.bound = append(s.bound, c)
			continue
		}
		delayed, err := volume.IsDelayBindingMode(c, p.Classes)
		if err != nil {
			return nil, fw.AsStatus(err)
		}
		// A claim that names its volume is bound without regard to pods.
		if !delayed || c.Spec.VolumeName != "" {
			return nil, fw.NewStatus(fw.UnschedulableAndUnresolvable, "pod has unbound immediate PersistentVolumeClaims")
		}
		s.delayed = append(s.delayed, c)
	}
	state.Write(bindingKey, s)
	return nil, nil
}

// Filter implements framework.FilterPlugin.
func (p VolumeBinding) Filter(_ context.Context, state *fw.CycleState, _ *v1.Pod, n *fw.NodeInfo) *fw.Status {
	s, ok := state.Read(bindingKey).(*volumeBinding)
	if !ok {
		return nil
	}
	var reasons []string
	for _, c := range s.bound {
		pv, err := p.Volumes.Volumes.Get(c.Spec.VolumeName)
		switch {
		case apierrors.IsNotFound(err):
			return fw.NewStatus(fw.UnschedulableAndUnresolvable, "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)")
		case err != nil:
			return fw.AsStatus(err)
		case volume.CheckNodeAffinity(pv, n.Node.Labels) != nil:
			reasons = append(reasons, "node(s) didn't match PersistentVolume's node affinity")
		}
		if len(reasons) > 0 {
			break
		}
	}
	b, why, err := p.satisfy(s.delayed, n.Node)
	if err != nil {
		return fw.AsStatus(err)
	}
	if why != "" {
		reasons = append(reasons, why)
	}
	if len(reasons) > 0 {
		return fw.NewStatus(fw.UnschedulableAndUnresolvable, reasons...)
	}
	s.byNode[n.Node.Name] = b
	return nil
}

// Why a node cannot have a pod's claims.
const (
	noVolumes = "node(s) didn't find available persistent volumes to bind"
	noSpace   = "node(s) did not have enough free storage"
)

// satisfy finds volumes for the claims on a node, or classes to provision
// them there, or says why there are none.
func (p VolumeBinding) satisfy(claims []*v1.PersistentVolumeClaim, node *v1.Node) (*nodeBinding, string, error) {
	b := &nodeBinding{volumes: map[string]*v1.PersistentVolume{}}
	if len(claims) == 0 {
		return b, "", nil
	}
	all, err := p.Volumes.Volumes.List(labels.Everything())
	if err != nil {
		return nil, "", err
	}
	taken := map[string]*v1.PersistentVolume{}
	p.mu.Lock()
	for _, pv := range all {
		if _, ok := p.reserved[pv.Name]; ok {
			taken[pv.Name] = pv
		}
	}
	p.mu.Unlock()
	for _, c := range claims {
		if selected, ok := c.Annotations[volume.AnnSelectedNode]; ok {
			if selected != node.Name {
				return nil, noVolumes, nil
			}
			b.provision = append(b.provision, c)
			continue
		}
		class := volume.GetPersistentVolumeClaimClass(c)
		var some []*v1.PersistentVolume
		for _, pv := range all {
			if volume.GetPersistentVolumeClass(pv) == class {
				some = append(some, pv)
			}
		}
		pv, err := volume.FindMatchingVolume(c, some, node, taken, true, true)
		if err != nil {
			return nil, "", err
		}
		if pv != nil {
			taken[pv.Name], b.volumes[claimKey(c)] = pv, pv
			continue
		}
		sc, err := p.Classes.Get(class)
		if err != nil {
			return nil, "", fmt.Errorf("failed to find storage class %q", class)
		}
		if sc.Provisioner == "" || sc.Provisioner == volume.NotSupportedProvisioner || !allowed(sc.AllowedTopologies, node.Labels) {
			return nil, noVolumes, nil
		}
		if enough, err := p.enough(sc, c, node); err != nil || !enough {
			return nil, noSpace, err
		}
		b.provision = append(b.provision, c)
	}
	return b, "", nil
}

// enough reports whether the driver of a class has room for a claim on a node
// (https://kubernetes.io/docs/concepts/storage/storage-capacity/): one that
// publishes no capacities has.
func (p VolumeBinding) enough(class *storagev1.StorageClass, c *v1.PersistentVolumeClaim, node *v1.Node) (bool, error) {
	driver, err := p.Drivers.Get(class.Provisioner)
	if apierrors.IsNotFound(err) || err == nil && (driver.Spec.StorageCapacity == nil || !*driver.Spec.StorageCapacity) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	all, err := p.Capacities.List(labels.Everything())
	if err != nil {
		return false, err
	}
	want := c.Spec.Resources.Requests[v1.ResourceStorage]
	for _, o := range all {
		limit := o.Capacity
		if o.MaximumVolumeSize != nil {
			limit = o.MaximumVolumeSize
		}
		if o.StorageClassName != class.Name || limit == nil || limit.Cmp(want) < 0 || o.NodeTopology == nil {
			continue
		}
		// A selector that cannot be read selects nothing.
		if topology, err := metav1.LabelSelectorAsSelector(o.NodeTopology); err == nil && topology.Matches(labels.Set(node.Labels)) {
			return true, nil
		}
	}
	return false, nil
}

// allowed reports whether a class may provision for nodes with these labels: one
// of its terms agrees in all, or there are none.
func allowed(terms []v1.TopologySelectorTerm, node map[string]string) bool {
	agrees := func(t v1.TopologySelectorTerm) bool {
		for _, r := range t.MatchLabelExpressions {
			if v, ok := node[r.Key]; !ok || !slices.Contains(r.Values, v) {
				return false
			}
		}
		return true
	}
	return len(terms) == 0 || slices.ContainsFunc(terms, agrees)
}

// Reserve implements framework.ReservePlugin.
func (p VolumeBinding) Reserve(_ context.Context, state *fw.CycleState, _ *v1.Pod, node string) *fw.Status {
	p.each(state, node, func(claim string, pv *v1.PersistentVolume) {
		if p.reserved == nil {
			p.reserved = map[string]string{}
		}
		p.reserved[pv.Name] = claim
	})
	return nil
}

// Unreserve implements framework.ReservePlugin.
func (p VolumeBinding) Unreserve(_ context.Context, state *fw.CycleState, _ *v1.Pod, node string) {
	p.each(state, node, func(_ string, pv *v1.PersistentVolume) { delete(p.reserved, pv.Name) })
}

func (p VolumeBinding) each(state *fw.CycleState, node string, f func(claim string, pv *v1.PersistentVolume)) {
	s, ok := state.Read(bindingKey).(*volumeBinding)
	if !ok || s.byNode[node] == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for claim, pv := range s.byNode[node].volumes {
		f(claim, pv)
	}
}

// PreBind implements framework.PreBindPlugin: it writes what the volume
// controller and provisioners need to know, and waits until the claims are
// bound.
func (p VolumeBinding) PreBind(ctx context.Context, state *fw.CycleState, pod *v1.Pod, node string) *fw.Status {
	s, ok := state.Read(bindingKey).(*volumeBinding)
	if !ok || len(s.delayed) == 0 {
		return nil
	}
	b := s.byNode[node]
	if b == nil {
		return fw.AsStatus(fmt.Errorf("no pod volumes found for node %q", node))
	}
	for _, c := range s.delayed {
		pv := b.volumes[claimKey(c)]
		if pv == nil {
			continue
		}
		bound, dirty, err := volume.GetBindVolumeToClaim(pv, c)
		if err == nil && dirty {
			_, err = p.Client.CoreV1().PersistentVolumes().Update(ctx, bound, metav1.UpdateOptions{})
		}
		if err != nil {
			return fw.AsStatus(err)
		}
	}
	for _, c := range b.provision {
		if c.Annotations[volume.AnnSelectedNode] == node {
			continue
		}
		// What others have written since, as conditions, does not matter.
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": c.UID, "annotations": map[string]string{volume.AnnSelectedNode: node}}})
		if err == nil {
			_, err = p.Client.CoreV1().PersistentVolumeClaims(c.Namespace).Patch(ctx, c.Name, types.MergePatchType, patch, metav1.PatchOptions{})
		}
		if err != nil {
			return fw.AsStatus(err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, bindTimeout)
	defer cancel()
	written := false // the lister has caught up with the annotation
	for {
		change := p.change()
		waiting := ""
		for _, c := range s.delayed {
			now, err := p.Claims.PersistentVolumeClaims(c.Namespace).Get(c.Name)
			if err != nil {
				return fw.AsStatus(fmt.Errorf("error getting PVC %q: %w", claimKey(c), err))
			}
			if !complete(now) {
				waiting = now.Name
			}
			if b.volumes[claimKey(c)] != nil {
				continue
			}
			if selected := now.Annotations[volume.AnnSelectedNode]; selected == node {
				written = true
			} else if written && !complete(now) {
				return fw.AsStatus(fmt.Errorf("provisioning failed for PVC %q", now.Name))
			}
		}
		if waiting == "" {
			p.Unreserve(ctx, state, pod, node) // the API server knows now
			return nil
		}
		select {
		case <-change:
		case <-ctx.Done():
			return fw.AsStatus(fmt.Errorf("binding volumes: claim %s of pod %s/%s is not bound: %w", waiting, pod.Namespace, pod.Name, ctx.Err()))
		}
	}
}

// EventsToRegister implements framework.EnqueueExtensions.
func (VolumeBinding) EventsToRegister() []fw.EventHint {
	return []fw.EventHint{
		{Events: fw.ClaimChange, Hint: func(pod *v1.Pod, _ fw.Event, _, o any) bool {
			c := o.(*v1.PersistentVolumeClaim)
			for _, key := range podspec.ClaimKeys(pod) {
				if key == claimKey(c) {
					return true
				}
			}
			return false
		}},
		{Events: fw.VolumeChange | fw.ClassChange | fw.CSINodeChange | fw.CapacityChange | fw.NodeAdd | fw.NodeUpdateLabel},
	}
}

// VolumeZone keeps a pod in the zone of its volumes, by the volumes' labels.
type VolumeZone struct{ *Volumes }

// Name implements framework.Plugin.
func (VolumeZone) Name() string { return "VolumeZone" }

var zoneLabels = map[string]string{
	v1.LabelFailureDomainBetaZone: v1.LabelTopologyZone, v1.LabelFailureDomainBetaRegion: v1.LabelTopologyRegion,
	v1.LabelTopologyZone: v1.LabelTopologyZone, v1.LabelTopologyRegion: v1.LabelTopologyRegion,
}

const zoneKey = "VolumeZone"

type zones []zone

type zone struct {
	key    string
	values sets.Set[string]
}

// Clone implements framework.StateData: nothing changes it.
func (z zones) Clone() fw.StateData { return z }

// PreFilter implements framework.PreFilterPlugin.
func (p VolumeZone) PreFilter(_ context.Context, state *fw.CycleState, pod *v1.Pod) (sets.Set[string], *fw.Status) {
	var all zones
	for _, key := range podspec.ClaimKeys(pod) {
		c, err := p.claim(key)
		if err != nil {
			return nil, fw.NewStatus(fw.UnschedulableAndUnresolvable, err.Error())
		}
		if c.Spec.VolumeName == "" {
			continue // VolumeBinding's affair
		}
		pv, err := p.Volumes.Volumes.Get(c.Spec.VolumeName)
		if err != nil {
			return nil, fw.NewStatus(fw.UnschedulableAndUnresolvable, err.Error())
		}
		for k := range zoneLabels {
			if v, ok := pv.Labels[k]; ok {
				all = append(all, zone{k, sets.New(strings.Split(v, "__")...)})
			}
		}
	}
	if len(all) == 0 {
		return nil, fw.NewStatus(fw.Skip)
	}
	state.Write(zoneKey, all)
	return nil, nil
}

// Filter implements framework.FilterPlugin.
func (VolumeZone) Filter(_ context.Context, state *fw.CycleState, _ *v1.Pod, n *fw.NodeInfo) *fw.Status {
	all, _ := state.Read(zoneKey).(zones)
	any := false
	for k := range zoneLabels {
		_, ok := n.Node.Labels[k]
		any = any || ok
	}
	if !any {
		return nil // a cluster of one zone
	}
	for _, z := range all {
		v, ok := n.Node.Labels[z.key]
		if !ok {
			v, ok = n.Node.Labels[zoneLabels[z.key]]
		}
		if !ok || !z.values.Has(v) {
			return fw.NewStatus(fw.UnschedulableAndUnresolvable, "node(s) had no available volume zone")
		}
	}
	return nil
}

// EventsToRegister implements framework.EnqueueExtensions.
func (VolumeZone) EventsToRegister() []fw.EventHint {
	return []fw.EventHint{{Events: fw.ClassChange | fw.NodeAdd | fw.NodeUpdateLabel | fw.ClaimChange | fw.VolumeChange}}
}

// VolumeRestrictions lets one pod only use a ReadWriteOncePod claim.
type VolumeRestrictions struct {
	*Volumes
	View fw.View
}

// Name implements framework.Plugin.
func (VolumeRestrictions) Name() string { return "VolumeRestrictions" }

const restrictionsKey = "VolumeRestrictions"

type exclusive struct {
	claims sets.Set[string]
	users  int // other pods that use one
}

// Clone implements framework.StateData.
func (e *exclusive) Clone() fw.StateData { c := *e; return &c }

// PreFilter implements framework.PreFilterPlugin.
func (p VolumeRestrictions) PreFilter(_ context.Context, state *fw.CycleState, pod *v1.Pod) (sets.Set[string], *fw.Status) {
	e := &exclusive{claims: sets.New[string]()}
	for _, key := range podspec.ClaimKeys(pod) {
		c, err := p.claim(key)
		if err != nil {
			return nil, fw.NewStatus(fw.UnschedulableAndUnresolvable, err.Error())
		}
		for _, m := range c.Spec.AccessModes {
			if m == v1.ReadWriteOncePod {
				e.claims.Insert(key)
			}
		}
	}
	if e.claims.Len() == 0 {
		return nil, fw.NewStatus(fw.Skip)
	}
	for _, n := range p.View.Nodes() {
		for c := range e.claims {
			e.users += n.Claims[c]
		}
	}
	state.Write(restrictionsKey, e)
	return nil, nil
}

// AddPod implements framework.PreFilterExtensions.
func (p VolumeRestrictions) AddPod(_ context.Context, state *fw.CycleState, _ *v1.Pod, other *fw.PodInfo, _ *fw.NodeInfo) {
	p.change(state, other, 1)
}

// RemovePod implements framework.PreFilterExtensions.
func (p VolumeRestrictions) RemovePod(_ context.Context, state *fw.CycleState, _ *v1.Pod, other *fw.PodInfo, _ *fw.NodeInfo) {
	p.change(state, other, -1)
}

func (VolumeRestrictions) change(state *fw.CycleState, other *fw.PodInfo, sign int) {
	if e, ok := state.Read(restrictionsKey).(*exclusive); ok {
		for _, c := range other.Claims {
			if e.claims.Has(c) {
				e.users += sign
			}
		}
	}
}

// Filter implements framework.FilterPlugin.
func (VolumeRestrictions) Filter(_ context.Context, state *fw.CycleState, _ *v1.Pod, _ *fw.NodeInfo) *fw.Status {
	if e, ok := state.Read(restrictionsKey).(*exclusive); ok && e.users > 0 {
		return fw.NewStatus(fw.Unschedulable, "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode")
	}
	return nil
}

// EventsToRegister implements framework.EnqueueExtensions.
func (VolumeRestrictions) EventsToRegister() []fw.EventHint {
	return []fw.EventHint{
		{Events: fw.AssignedPodDelete, Hint: func(pod *v1.Pod, _ fw.Event, old, _ any) bool {
			return sets.New(podspec.ClaimKeys(pod)...).HasAny(podspec.ClaimKeys(old.(*v1.Pod))...)
		}},
		{Events: fw.NodeAdd | fw.ClaimChange},
	}
}

// NodeVolumeLimits keeps the volumes of a CSI driver on a node to as many as
// the driver can attach there.
type NodeVolumeLimits struct{ *Volumes }

// Name implements framework.Plugin.
func (NodeVolumeLimits) Name() string { return "NodeVolumeLimits" }

// PreFilter implements framework.PreFilterPlugin.
func (NodeVolumeLimits) PreFilter(_ context.Context, _ *fw.CycleState, pod *v1.Pod) (sets.Set[string], *fw.Status) {
	if len(podspec.ClaimKeys(pod)) == 0 {
		return nil, fw.NewStatus(fw.Skip)
	}
	return nil, nil
}

// attachment returns the CSI driver of a claim, and the volume it attaches.
func (p NodeVolumeLimits) attachment(key string) (driver, handle string) {
	c, err := p.claim(key)
	if err != nil {
		return "", ""
	}
	if c.Spec.VolumeName == "" {
		if sc, err := p.Classes.Get(volume.GetPersistentVolumeClaimClass(c)); err == nil {
			if driver, ok := csimigration.Driver(sc.Provisioner); ok {
				return driver, key
			}
			return sc.Provisioner, key // not provisioned yet: it will be one more
		}
		return "", ""
	}
	pv, err := p.Volumes.Volumes.Get(c.Spec.VolumeName)
	if err == nil {
		pv, err = csimigration.Volume(pv)
	}
	if err != nil || pv.Spec.CSI == nil {
		return "", ""
	}
	return pv.Spec.CSI.Driver, pv.Spec.CSI.VolumeHandle
}

// Filter implements framework.FilterPlugin.
func (p NodeVolumeLimits) Filter(_ context.Context, _ *fw.CycleState, pod *v1.Pod, n *fw.NodeInfo) *fw.Status {
	csi, err := p.CSINodes.Get(n.Node.Name)
	if err != nil {
		return nil // no driver, no limit
	}
	used, more := map[string]sets.Set[string]{}, map[string]sets.Set[string]{}
	add := func(to map[string]sets.Set[string], key string) {
		if d, h := p.attachment(key); d != "" && !used[d].Has(h) {
			if to[d] == nil {
				to[d] = sets.New[string]()
			}
			to[d].Insert(h)
		}
	}
	for key := range n.Claims {
		add(used, key)
	}
	for _, key := range podspec.ClaimKeys(pod) {
		add(more, key)
	}
	for i := range csi.Spec.Drivers {
		d := &csi.Spec.Drivers[i]
		if d.Allocatable == nil || d.Allocatable.Count == nil || more[d.Name].Len() == 0 {
			continue
		}
		if used[d.Name].Len()+more[d.Name].Len() > int(*d.Allocatable.Count) {
			return fw.NewStatus(fw.Unschedulable, "node(s) exceed max volume count")
		}
	}
	return nil
}

// EventsToRegister implements framework.EnqueueExtensions.
func (NodeVolumeLimits) EventsToRegister() []fw.EventHint {
	return []fw.EventHint{
		{Events: fw.AssignedPodDelete, Hint: func(_ *v1.Pod, _ fw.Event, old, _ any) bool { return len(podspec.ClaimKeys(old.(*v1.Pod))) > 0 }},
		{Events: fw.CSINodeChange | fw.NodeAdd | fw.ClaimChange | fw.VolumeChange},
	}
}
