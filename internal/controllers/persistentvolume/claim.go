package persistentvolume

import (
	"context"
	"fmt"
	"strings"

	v1 "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/component-helpers/storage/volume"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/csimigration"
	"keelson.dev/keelson/internal/reconcile"
)

func (p *controller) syncClaim(ctx context.Context, c *v1.PersistentVolumeClaim) error {
	switch {
	case metav1.HasAnnotation(c.ObjectMeta, volume.AnnBindCompleted):
		return p.syncBound(ctx, c)
	case c.Spec.VolumeName != "":
		return p.syncRequested(ctx, c)
	}
	return p.syncUnbound(ctx, c)
}

// syncBound checks that a bound claim still has its volume, and sets its phase
// to Lost if not.
func (p *controller) syncBound(ctx context.Context, c *v1.PersistentVolumeClaim) error {
	if c.Spec.VolumeName == "" {
		return p.lost(ctx, c, "ClaimLost", "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!")
	}
	v, ok := p.volume(c.Spec.VolumeName)
	switch {
	case !ok:
		return p.lost(ctx, c, "ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!")
	case v.Spec.ClaimRef == nil || v.Spec.ClaimRef.UID == c.UID:
		return p.bind(ctx, v, c)
	}
	return p.lost(ctx, c, "ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly")
}

// lost sets the phase Lost, which a claim does not leave by itself.
func (p *controller) lost(ctx context.Context, c *v1.PersistentVolumeClaim, reason, message string) error {
	if c.Status.Phase == v1.ClaimLost {
		return nil
	}
	next, err := p.setClaimPhase(ctx, c, v1.ClaimLost, nil)
	if err != nil {
		return err
	}
	p.recorder.Event(next, v1.EventTypeWarning, reason, message)
	return nil
}

// syncRequested binds a claim to the volume that its author names.
func (p *controller) syncRequested(ctx context.Context, c *v1.PersistentVolumeClaim) error {
	v, ok := p.volume(c.Spec.VolumeName)
	switch {
	case !ok: // the volume may be created later
	case v.Spec.ClaimRef == nil:
		err := p.satisfies(v, c)
		if err == nil {
			return p.bind(ctx, v, c)
		}
		p.recorder.Event(c, v1.EventTypeWarning, "VolumeMismatch", fmt.Sprintf("Cannot bind to requested volume %q: %s", v.Name, err))
	case volume.IsVolumeBoundToClaim(v, c):
		return p.bind(ctx, v, c)
	case metav1.HasAnnotation(c.ObjectMeta, volume.AnnBoundByController):
		return fmt.Errorf("invalid binding of claim %q to volume %q: volume already claimed by %q", reconcile.Key(c), v.Name,
			v.Spec.ClaimRef.Namespace+"/"+v.Spec.ClaimRef.Name)
	default:
		p.recorder.Event(c, v1.EventTypeWarning, "FailedBinding", fmt.Sprintf("volume %q already bound to a different claim.", v.Name))
	}
	_, err := p.setClaimPhase(ctx, c, v1.ClaimPending, nil)
	return err
}

// satisfies returns nil if the volume satisfies the claim, else an error with
// the reason.
func (p *controller) satisfies(v *v1.PersistentVolume, c *v1.PersistentVolumeClaim) error {
	requested, have := c.Spec.Resources.Requests[v1.ResourceStorage], v.Spec.Capacity[v1.ResourceStorage]
	switch {
	case ptr.Deref(c.Spec.VolumeAttributesClassName, "") != ptr.Deref(v.Spec.VolumeAttributesClassName, ""):
		return fmt.Errorf("VolumeAttributesClassName do not match")
	case v.DeletionTimestamp != nil:
		return fmt.Errorf("the volume is marked for deletion %q", v.Name)
	case have.Cmp(requested) < 0:
		return fmt.Errorf("requested PV is too small")
	case volume.GetPersistentVolumeClass(v) != volume.GetPersistentVolumeClaimClass(c):
		return fmt.Errorf("storageClassName does not match")
	case volume.CheckVolumeModeMismatches(&c.Spec, &v.Spec):
		return fmt.Errorf("incompatible volumeMode")
	case !volume.CheckAccessModes(c, v):
		return fmt.Errorf("incompatible accessMode")
	}
	return nil
}

// syncUnbound binds a claim to a matching volume, or requests a new one.
func (p *controller) syncUnbound(ctx context.Context, c *v1.PersistentVolumeClaim) error {
	delayed, err := volume.IsDelayBindingMode(c, p.classes)
	if err != nil {
		return err
	}
	v, err := p.match(c, delayed)
	if err != nil {
		return err
	}
	if v != nil {
		return p.bind(ctx, v, c)
	}
	if assigned, err := p.assignClass(ctx, c); err != nil || assigned {
		return err
	}
	class := volume.GetPersistentVolumeClaimClass(c)
	switch {
	case delayed && !volume.IsDelayBindingProvisioning(c):
		p.awaitConsumer(c)
	case class != "":
		return p.provision(ctx, c, class)
	default:
		p.recorder.Event(c, v1.EventTypeNormal, "FailedBinding", "no persistent volumes available for this claim and no storage class is set")
	}
	_, err = p.setClaimPhase(ctx, c, v1.ClaimPending, nil)
	return err
}

// match returns the volume that names the claim, or the smallest that satisfies it.
func (p *controller) match(c *v1.PersistentVolumeClaim, delayed bool) (*v1.PersistentVolume, error) {
	some := reconcile.Indexed[*v1.PersistentVolume](p.writtenVolumes, volumesByClaim, reconcile.Key(c))
	for _, v := range reconcile.Indexed[*v1.PersistentVolume](p.writtenVolumes, volumesByClass, volume.GetPersistentVolumeClaimClass(c)) {
		if volume.CheckAccessModes(c, v) {
			some = append(some, v)
		}
	}
	return volume.FindMatchingVolume(c, some, nil, nil, delayed, true)
}

// awaitConsumer records the event of a claim that waits for a pod
// (WaitForFirstConsumer).
func (p *controller) awaitConsumer(c *v1.PersistentVolumeClaim) {
	var names []string
	for _, pod := range reconcile.Indexed[*v1.Pod](p.pods.GetIndexer(), podsByClaim, reconcile.Key(c)) {
		names = append(names, pod.Name)
	}
	switch len(names) {
	case 0:
		p.recorder.Event(c, v1.EventTypeNormal, "WaitForFirstConsumer", "waiting for first consumer to be created before binding")
	case 1:
		p.recorder.Event(c, v1.EventTypeNormal, "WaitForPodScheduled", fmt.Sprintf("waiting for pod %s to be scheduled", names[0]))
	default:
		p.recorder.Event(c, v1.EventTypeNormal, "WaitForPodScheduled", fmt.Sprintf("waiting for pods %s to be scheduled", strings.Join(names, ",")))
	}
}

// assignClass sets the default class of a claim without a class: it may have been
// created after the claim.
func (p *controller) assignClass(ctx context.Context, c *v1.PersistentVolumeClaim) (bool, error) {
	if volume.PersistentVolumeClaimHasClass(c) {
		return false, nil
	}
	all, err := p.classes.List(labels.Everything())
	if err != nil {
		return false, err
	}
	class := defaultClass(all)
	if class == nil {
		return false, nil
	}
	next := c.DeepCopy()
	next.Spec.StorageClassName = &class.Name
	_, err = p.updateClaim(ctx, next)
	return true, err
}

// The annotations by which a class is the default one.
const (
	isDefault     = "storageclass.kubernetes.io/is-default-class"
	isDefaultBeta = "storageclass.beta.kubernetes.io/is-default-class"
)

// defaultClass returns the newest of the classes that are marked as the default
// one; of two with the same time the first by name.
func defaultClass(all []*storage.StorageClass) (best *storage.StorageClass) {
	for _, s := range all {
		if s.Annotations[isDefault] != "true" && s.Annotations[isDefaultBeta] != "true" {
			continue
		}
		if best == nil || s.CreationTimestamp.After(best.CreationTimestamp.Time) ||
			s.CreationTimestamp.Equal(&best.CreationTimestamp) && s.Name < best.Name {
			best = s
		}
	}
	return best
}

// provision requests a volume from the provisioner of a class, by an annotation.
func (p *controller) provision(ctx context.Context, c *v1.PersistentVolumeClaim, class string) error {
	s, err := p.classes.Get(class)
	if err != nil {
		p.recorder.Event(c, v1.EventTypeWarning, "ProvisioningFailed", err.Error())
		return nil // the class, when it is created, queues the claim
	}
	name, ok := csimigration.Driver(s.Provisioner)
	if !ok {
		if name = s.Provisioner; strings.HasPrefix(name, "kubernetes.io/") {
			p.recorder.Event(c, v1.EventTypeWarning, "ProvisioningFailed", "no volume plugin matched name: "+name)
			return nil
		}
	}
	if c.Annotations[volume.AnnStorageProvisioner] != name || c.Annotations[volume.AnnBetaStorageProvisioner] != name {
		next := c.DeepCopy()
		metav1.SetMetaDataAnnotation(&next.ObjectMeta, volume.AnnBetaStorageProvisioner, name)
		metav1.SetMetaDataAnnotation(&next.ObjectMeta, volume.AnnStorageProvisioner, name)
		csimigration.Mark(next, s.Provisioner)
		if _, err := p.updateClaim(ctx, next); err != nil {
			return err
		}
	}
	p.recorder.Event(c, v1.EventTypeNormal, "ExternalProvisioning", fmt.Sprintf("Waiting for a volume to be created either by the external provisioner '%s' "+
		"or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered.", name))
	return nil
}

func (p *controller) updateClaim(ctx context.Context, next *v1.PersistentVolumeClaim) (*v1.PersistentVolumeClaim, error) {
	written, err := p.client.CoreV1().PersistentVolumeClaims(next.Namespace).Update(ctx, next, metav1.UpdateOptions{})
	if err != nil {
		return nil, err
	}
	p.writtenClaims.Mutation(written)
	return written, nil
}

// setClaimPhase writes the claim's phase, and its volume's capacity and access
// modes.
func (p *controller) setClaimPhase(ctx context.Context, c *v1.PersistentVolumeClaim, phase v1.PersistentVolumeClaimPhase, v *v1.PersistentVolume) (*v1.PersistentVolumeClaim, error) {
	next := c.DeepCopy()
	next.Status.Phase = phase
	if v == nil {
		next.Status.AccessModes, next.Status.Capacity = nil, nil
	} else {
		next.Status.AccessModes = v.Spec.AccessModes
		// The capacity of a bound claim is that of the file system, which may be less
		// than the volume's during an expansion.
		if c.Status.Phase != phase {
			next.Status.Capacity = v.Spec.Capacity
			next.Status.CurrentVolumeAttributesClassName = v.Spec.VolumeAttributesClassName
		}
	}
	if equality.Semantic.DeepEqual(c.Status, next.Status) {
		return c, nil
	}
	written, err := p.client.CoreV1().PersistentVolumeClaims(c.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{})
	if err != nil {
		return nil, err
	}
	p.writtenClaims.Mutation(written)
	return written, nil
}
