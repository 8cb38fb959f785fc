package provision

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/tools/reference"
	"k8s.io/component-helpers/storage/volume"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/reconcile"
	"keelson.dev/keelson/internal/trace"
)

// finalizer keeps a PersistentVolume until the driver has deleted its volume.
const finalizer = "external-provisioner.volume.kubernetes.io/finalizer"

// Config configures a Provisioner.
type Config struct {
	// Node is the node's name, and Topology the key by which the driver's volumes
	// belong to it.
	Node, Topology string
	// Driver is the driver's name; Controller calls it.
	Driver     string
	Controller csi.ControllerServer
	Client     kubernetes.Interface
	// Informers provides claims, volumes and classes of the whole cluster. The
	// caller starts it.
	Informers informers.SharedInformerFactory
	Recorder  record.EventRecorder
	Clock     clock.WithTicker
}

// Provisioner provisions the volumes of a node.
type Provisioner struct {
	Config
	claims, volumes cache.SharedIndexInformer
	classes         storagelisters.StorageClassLister
	claimQueue      reconcile.Queue
	volumeQueue     reconcile.Queue
	run             reconcile.Run
	capacities      *capacities
	classesSynced   cache.InformerSynced
}

// New makes a provisioner.
func New(c Config) *Provisioner {
	core, classes := c.Informers.Core().V1(), c.Informers.Storage().V1().StorageClasses()
	p := &Provisioner{
		Config: c, claims: core.PersistentVolumeClaims().Informer(), volumes: core.PersistentVolumes().Informer(), classes: classes.Lister(),
		classesSynced: classes.Informer().HasSynced,
		claimQueue:    reconcile.NewQueue("local_claims", c.Clock), volumeQueue: reconcile.NewQueue("local_volumes", c.Clock),
	}
	reconcile.Handle(p.claims, func(c *v1.PersistentVolumeClaim) {
		if p.wants(c) || c.Spec.VolumeName != "" && larger(c) {
			p.claimQueue.Add(reconcile.Key(c))
		}
	}, nil, reconcile.Ignore)
	reconcile.Handle(p.volumes, func(v *v1.PersistentVolume) {
		if p.own(v) {
			p.volumeQueue.Add(v.Name)
		}
	}, nil, reconcile.Ignore)
	p.capacities = newCapacities(p, classes.Informer())
	reads := []cache.SharedIndexInformer{p.claims, p.volumes, classes.Informer()}
	p.run = reconcile.Together(
		reconcile.Loop[*v1.PersistentVolumeClaim]{Queue: p.claimQueue, Workers: 4, For: p.claims, Reads: reads, Reconcile: p.syncClaim}.Run,
		reconcile.Loop[*v1.PersistentVolume]{Queue: p.volumeQueue, Workers: 4, For: p.volumes, Reads: reads, Reconcile: p.syncVolume}.Run,
	)
	return p
}

// Run works until ctx is done.
func (p *Provisioner) Run(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() { p.capacities.run(ctx, p.classesSynced) })
	p.run(ctx)
}

// wants reports whether a claim waits for a volume of this node: its pod was
// scheduled here, or its class does not wait for pods. A volume of such a class
// belongs to the node that makes its object first.
func (p *Provisioner) wants(c *v1.PersistentVolumeClaim) bool {
	if c.Spec.VolumeName != "" || c.DeletionTimestamp != nil || c.Annotations[volume.AnnStorageProvisioner] != p.Driver {
		return false
	}
	node, ok := c.Annotations[volume.AnnSelectedNode]
	return !ok || node == p.Node
}

// own reports whether a volume is the driver's, and on this node.
func (p *Provisioner) own(v *v1.PersistentVolume) bool {
	if v.Spec.CSI == nil || v.Spec.CSI.Driver != p.Driver {
		return false
	}
	node, ok := owner(v, p.Topology)
	return ok && node == p.Node
}

// owner returns the one node that a volume's affinity binds it to by the key of a
// topology.
func owner(v *v1.PersistentVolume, topology string) (string, bool) {
	a := v.Spec.NodeAffinity
	if a == nil || a.Required == nil || len(a.Required.NodeSelectorTerms) != 1 {
		return "", false
	}
	term := a.Required.NodeSelectorTerms[0]
	if len(term.MatchExpressions) != 1 || len(term.MatchFields) != 0 {
		return "", false
	}
	e := term.MatchExpressions[0]
	if e.Key != topology || e.Operator != v1.NodeSelectorOpIn || len(e.Values) != 1 {
		return "", false
	}
	return e.Values[0], true
}

func (p *Provisioner) syncClaim(ctx context.Context, c *v1.PersistentVolumeClaim) (reconcile.Result, error) {
	if p.wants(c) {
		return reconcile.Result{}, p.provision(trace.WithCause(ctx, c), c)
	}
	return reconcile.Result{}, p.resize(trace.WithCause(ctx, c), c)
}

// provision calls the driver to make a volume, and creates the PersistentVolume
// that the binder binds the claim to.
func (p *Provisioner) provision(ctx context.Context, c *v1.PersistentVolumeClaim) error {
	name := "pvc-" + string(c.UID)
	if _, ok, err := p.volumes.GetIndexer().GetByKey(name); err != nil || ok {
		return err
	}
	class, err := p.classes.Get(volume.GetPersistentVolumeClaimClass(c))
	if err != nil {
		return p.failed(c, err)
	}
	if class.Provisioner != p.Driver {
		return p.failed(c, fmt.Errorf("class %s has the provisioner %q", class.Name, class.Provisioner))
	}
	p.Recorder.Event(c, v1.EventTypeNormal, "Provisioning", fmt.Sprintf("External provisioner is provisioning volume for claim %q", reconcile.Key(c)))
	request, err := p.request(ctx, name, c, class)
	if err != nil {
		return p.failed(c, err)
	}
	made, err := p.Controller.CreateVolume(ctx, request)
	if err != nil {
		return p.failed(c, err)
	}
	v, err := p.object(name, c, class, made.Volume)
	if err != nil {
		return err
	}
	_, err = p.Client.CoreV1().PersistentVolumes().Create(ctx, v, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		// The volume is this node's and the cache is stale, or another node was first.
		live, err := p.Client.CoreV1().PersistentVolumes().Get(ctx, name, metav1.GetOptions{})
		if err != nil || p.own(live) {
			return err
		}
		_, err = p.Controller.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: made.Volume.VolumeId})
		return err
	}
	if err != nil {
		return err // the volume stays for the next attempt
	}
	p.Recorder.Event(c, v1.EventTypeNormal, "ProvisioningSucceeded", "Successfully provisioned volume "+name)
	return nil
}

func (p *Provisioner) failed(c *v1.PersistentVolumeClaim, err error) error {
	p.Recorder.Event(c, v1.EventTypeWarning, "ProvisioningFailed", fmt.Sprintf("failed to provision volume with StorageClass %q: %v", volume.GetPersistentVolumeClaimClass(c), err))
	return err
}

// request returns the driver's request to create the volume of a claim.
func (p *Provisioner) request(ctx context.Context, name string, c *v1.PersistentVolumeClaim, class *storage.StorageClass) (*csi.CreateVolumeRequest, error) {
	here := []*csi.Topology{{Segments: map[string]string{p.Topology: p.Node}}}
	size := c.Spec.Resources.Requests[v1.ResourceStorage]
	limit := c.Spec.Resources.Limits[v1.ResourceStorage]
	r := &csi.CreateVolumeRequest{
		Name: name, Parameters: class.Parameters, CapacityRange: &csi.CapacityRange{RequiredBytes: size.Value(), LimitBytes: limit.Value()},
		AccessibilityRequirements: &csi.TopologyRequirement{Requisite: here, Preferred: here},
	}
	for _, m := range c.Spec.AccessModes {
		capability := &csi.VolumeCapability{AccessMode: &csi.VolumeCapability_AccessMode{Mode: modes[m]}}
		if ptr.Deref(c.Spec.VolumeMode, v1.PersistentVolumeFilesystem) == v1.PersistentVolumeBlock {
			capability.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
		} else {
			capability.AccessType = &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{MountFlags: class.MountOptions}}
		}
		r.VolumeCapabilities = append(r.VolumeCapabilities, capability)
	}
	source := c.Spec.DataSourceRef
	switch {
	case source == nil:
	case source.Kind == "PersistentVolumeClaim" && ptr.Deref(source.APIGroup, "") == "" && ptr.Deref(source.Namespace, c.Namespace) == c.Namespace:
		handle, err := p.cloned(ctx, c.Namespace, source.Name)
		if err != nil {
			return nil, err
		}
		r.VolumeContentSource = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: handle}}}
	case source.Kind == "VolumeSnapshot" && ptr.Deref(source.APIGroup, "") == snapshotGroup && ptr.Deref(source.Namespace, c.Namespace) == c.Namespace:
		handle, err := p.snapshot(ctx, c.Namespace, source.Name)
		if err != nil {
			return nil, err
		}
		r.VolumeContentSource = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: handle}}}
	default:
		return nil, fmt.Errorf("the content of a %s in group %q: this provisioner copies claims and snapshots of the same namespace", source.Kind, ptr.Deref(source.APIGroup, ""))
	}
	return r, nil
}

var modes = map[v1.PersistentVolumeAccessMode]csi.VolumeCapability_AccessMode_Mode{
	v1.ReadWriteOnce: csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER, v1.ReadWriteOncePod: csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER,
	v1.ReadWriteMany: csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER, v1.ReadOnlyMany: csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY,
}

// cloned returns the driver's handle of a claim's volume.
func (p *Provisioner) cloned(ctx context.Context, namespace, name string) (string, error) {
	c, err := p.Client.CoreV1().PersistentVolumeClaims(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	if c.Status.Phase != v1.ClaimBound || c.DeletionTimestamp != nil {
		return "", fmt.Errorf("the source PVC %s is not bound, or is being deleted", name)
	}
	v, err := p.Client.CoreV1().PersistentVolumes().Get(ctx, c.Spec.VolumeName, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	if v.Spec.ClaimRef == nil || v.Spec.ClaimRef.UID != c.UID || !p.own(v) {
		return "", fmt.Errorf("the source PVC %s has no volume of %s on node %s", name, p.Driver, p.Node)
	}
	return v.Spec.CSI.VolumeHandle, nil
}

// object returns the PersistentVolume of a volume, for the claim alone.
func (p *Provisioner) object(name string, c *v1.PersistentVolumeClaim, class *storage.StorageClass, made *csi.Volume) (*v1.PersistentVolume, error) {
	ref, err := reference.GetReference(scheme.Scheme, c)
	if err != nil {
		return nil, err
	}
	policy := ptr.Deref(class.ReclaimPolicy, v1.PersistentVolumeReclaimDelete)
	v := &v1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{volume.AnnDynamicallyProvisioned: p.Driver}},
		Spec: v1.PersistentVolumeSpec{
			Capacity: v1.ResourceList{v1.ResourceStorage: *resource.NewQuantity(made.CapacityBytes, resource.BinarySI)}, AccessModes: c.Spec.AccessModes,
			ClaimRef: ref, PersistentVolumeReclaimPolicy: policy, StorageClassName: class.Name, MountOptions: class.MountOptions, VolumeMode: c.Spec.VolumeMode,
			PersistentVolumeSource: v1.PersistentVolumeSource{CSI: &v1.CSIPersistentVolumeSource{
				Driver: p.Driver, VolumeHandle: made.VolumeId, VolumeAttributes: made.VolumeContext}},
			NodeAffinity: &v1.VolumeNodeAffinity{Required: &v1.NodeSelector{NodeSelectorTerms: []v1.NodeSelectorTerm{{
				MatchExpressions: []v1.NodeSelectorRequirement{{Key: p.Topology, Operator: v1.NodeSelectorOpIn, Values: []string{p.Node}}}}}}},
		},
	}
	if policy == v1.PersistentVolumeReclaimDelete {
		v.Finalizers = []string{finalizer}
	}
	return v, nil
}

// syncVolume deletes a volume that was released, if its reclaim policy is
// Delete. A volume that is deleted while a claim has it stays until it is
// released.
func (p *Provisioner) syncVolume(ctx context.Context, v *v1.PersistentVolume) (reconcile.Result, error) {
	return reconcile.Result{}, p.reclaim(trace.WithCause(ctx, v), v)
}

func (p *Provisioner) reclaim(ctx context.Context, v *v1.PersistentVolume) error {
	if v.Annotations[volume.AnnDynamicallyProvisioned] != p.Driver || v.Spec.PersistentVolumeReclaimPolicy != v1.PersistentVolumeReclaimDelete ||
		v.Status.Phase != v1.VolumeReleased && v.Status.Phase != v1.VolumeFailed {
		return nil
	}
	// The phase is the cache's: it is read again before the irreversible deletion.
	live, err := p.Client.CoreV1().PersistentVolumes().Get(ctx, v.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if live.UID != v.UID || live.ResourceVersion != v.ResourceVersion {
		return nil // the informer will deliver the newer version
	}
	if _, err := p.Controller.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: v.Spec.CSI.VolumeHandle}); err != nil {
		if status.Code(err) != codes.FailedPrecondition { // an ending pod still uses the volume
			p.Recorder.Event(v, v1.EventTypeWarning, "VolumeFailedDelete", err.Error())
		}
		return err
	}
	err = p.Client.CoreV1().PersistentVolumes().Delete(ctx, v.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(v.UID))})
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	if !slices.Contains(v.Finalizers, finalizer) {
		return nil
	}
	live, err = p.Client.CoreV1().PersistentVolumes().Get(ctx, v.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	live.Finalizers = slices.DeleteFunc(live.Finalizers, func(f string) bool { return f == finalizer })
	_, err = p.Client.CoreV1().PersistentVolumes().Update(ctx, live, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// larger reports whether a claim requests more than it has.
func larger(c *v1.PersistentVolumeClaim) bool {
	want, have := c.Spec.Resources.Requests[v1.ResourceStorage], c.Status.Capacity[v1.ResourceStorage]
	return c.Status.Phase == v1.ClaimBound && want.Cmp(have) > 0
}

// resize calls the driver to grow the volume of a claim that requests more:
// first the volume, then its object, then the claim's status.
func (p *Provisioner) resize(ctx context.Context, c *v1.PersistentVolumeClaim) error {
	if !larger(c) || c.DeletionTimestamp != nil {
		return nil
	}
	o, ok, err := p.volumes.GetIndexer().GetByKey(c.Spec.VolumeName)
	if err != nil || !ok {
		return err
	}
	v := o.(*v1.PersistentVolume)
	if !p.own(v) || v.Spec.ClaimRef == nil || v.Spec.ClaimRef.UID != c.UID {
		return nil
	}
	want := c.Spec.Resources.Requests[v1.ResourceStorage]
	if have := v.Spec.Capacity[v1.ResourceStorage]; want.Cmp(have) > 0 {
		p.Recorder.Event(c, v1.EventTypeNormal, "Resizing", "External resizer is resizing volume "+v.Name)
		grown, err := p.Controller.ControllerExpandVolume(ctx, &csi.ControllerExpandVolumeRequest{
			VolumeId: v.Spec.CSI.VolumeHandle, CapacityRange: &csi.CapacityRange{RequiredBytes: want.Value()}})
		if err != nil {
			message := fmt.Sprintf("resize volume %q by resizer %q failed: %v", v.Name, p.Driver, err)
			p.Recorder.Event(c, v1.EventTypeWarning, "VolumeResizeFailed", message)
			return errors.New(message)
		}
		next := v.DeepCopy()
		next.Spec.Capacity[v1.ResourceStorage] = *resource.NewQuantity(grown.CapacityBytes, resource.BinarySI)
		if v, err = p.Client.CoreV1().PersistentVolumes().Update(ctx, next, metav1.UpdateOptions{}); err != nil {
			return err
		}
	}
	next := c.DeepCopy()
	next.Status.Capacity[v1.ResourceStorage] = v.Spec.Capacity[v1.ResourceStorage]
	next.Status.Conditions = slices.DeleteFunc(next.Status.Conditions, func(c v1.PersistentVolumeClaimCondition) bool {
		return c.Type == v1.PersistentVolumeClaimResizing || c.Type == v1.PersistentVolumeClaimFileSystemResizePending
	})
	if _, err := p.Client.CoreV1().PersistentVolumeClaims(c.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{}); err != nil {
		return err
	}
	klog.FromContext(ctx).V(2).Info("Volume has grown", "volume", v.Name, "claim", klog.KObj(c))
	p.Recorder.Event(c, v1.EventTypeNormal, "VolumeResizeSuccessful", "Resize volume succeeded")
	return nil
}
