package persistentvolume

import (
	"context"
	"errors"
	"fmt"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/storage/volume"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/reconcile"
)

func (p *controller) syncVolume(ctx context.Context, v *v1.PersistentVolume) error {
	ref := v.Spec.ClaimRef
	if ref == nil || ref.UID == "" { // unused, or kept for a claim that is to come
		_, err := p.setVolumePhase(ctx, v, v1.VolumeAvailable, "")
		return err
	}
	c, ok := p.claim(ref.Namespace + "/" + ref.Name)
	if !ok || c.UID != ref.UID {
		// The cache of claims may be behind that of volumes, and what is done now
		// cannot be undone.
		live, err := p.client.CoreV1().PersistentVolumeClaims(ref.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
		switch {
		case err == nil && live.UID == ref.UID:
			c, ok = live, true
		case err != nil && !apierrors.IsNotFound(err):
			return err
		default:
			ok = false
		}
	}
	switch {
	case !ok:
		return p.release(ctx, v)
	case c.Spec.VolumeName == "":
		p.queue.Add(claimPrefix + reconcile.Key(c)) // it takes the next step of the binding
		return nil
	case c.Spec.VolumeName == v.Name:
		_, err := p.setVolumePhase(ctx, v, v1.VolumeBound, "")
		return err
	case metav1.HasAnnotation(v.ObjectMeta, volume.AnnDynamicallyProvisioned) && v.Spec.PersistentVolumeReclaimPolicy == v1.PersistentVolumeReclaimDelete:
		return p.release(ctx, v) // it was made for the claim, which has another one
	}
	return p.unbind(ctx, v)
}

// bind takes the steps that are left of the binding of a claim to a volume. A
// step that fails is taken again when either of the two comes back.
func (p *controller) bind(ctx context.Context, v *v1.PersistentVolume, c *v1.PersistentVolumeClaim) error {
	bound, dirty, err := volume.GetBindVolumeToClaim(v, c)
	if err != nil {
		return err
	}
	if dirty {
		if v, err = p.updateVolume(ctx, bound); err != nil {
			return err
		}
	}
	if v, err = p.setVolumePhase(ctx, v, v1.VolumeBound, ""); err != nil {
		return err
	}
	if next := c.DeepCopy(); c.Spec.VolumeName != v.Name || !metav1.HasAnnotation(c.ObjectMeta, volume.AnnBindCompleted) {
		if next.Spec.VolumeName != v.Name {
			next.Spec.VolumeName = v.Name
			metav1.SetMetaDataAnnotation(&next.ObjectMeta, volume.AnnBoundByController, "yes")
		}
		metav1.SetMetaDataAnnotation(&next.ObjectMeta, volume.AnnBindCompleted, "yes")
		if c, err = p.updateClaim(ctx, next); err != nil {
			return err
		}
	}
	_, err = p.setClaimPhase(ctx, c, v1.ClaimBound, v)
	return err
}

// unbind takes a volume from a claim that has another one. It stays kept for the
// claim if its author has said so.
func (p *controller) unbind(ctx context.Context, v *v1.PersistentVolume) error {
	next := v.DeepCopy()
	if metav1.HasAnnotation(v.ObjectMeta, volume.AnnBoundByController) {
		next.Spec.ClaimRef = nil
		delete(next.Annotations, volume.AnnBoundByController)
	} else {
		next.Spec.ClaimRef.UID = ""
	}
	written, err := p.updateVolume(ctx, next)
	if err != nil {
		return err
	}
	_, err = p.setVolumePhase(ctx, written, v1.VolumeAvailable, "")
	return err
}

// release applies the reclaim policy to a volume whose claim is gone. A volume
// that has failed stays Failed, for people to see.
func (p *controller) release(ctx context.Context, v *v1.PersistentVolume) error {
	var err error
	if v.Status.Phase != v1.VolumeReleased && v.Status.Phase != v1.VolumeFailed {
		if v, err = p.setVolumePhase(ctx, v, v1.VolumeReleased, ""); err != nil {
			return err
		}
	}
	switch v.Spec.PersistentVolumeReclaimPolicy {
	case v1.PersistentVolumeReclaimRetain:
		return nil
	case v1.PersistentVolumeReclaimRecycle:
		return p.recycle(ctx, v)
	case v1.PersistentVolumeReclaimDelete:
		if provisioner := v.Annotations[volume.AnnDynamicallyProvisioned]; provisioner != "" {
			return nil // its provisioner deletes it
		}
		if v.DeletionTimestamp != nil {
			return nil
		}
		// The plug-ins that deleted volumes are CSI drivers now.
		why := "no deletable volume plugin matched"
		if v.Spec.CSI != nil {
			why = "no volume plugin matched"
		}
		return p.failed(ctx, v, "VolumeFailedDelete", fmt.Sprintf("error getting deleter volume plugin for volume %q: %s", v.Name, why))
	}
	return p.failed(ctx, v, "VolumeUnknownReclaimPolicy", "Volume has unrecognized PersistentVolumeReclaimPolicy")
}

func (p *controller) failed(ctx context.Context, v *v1.PersistentVolume, reason, message string) error {
	if v.Status.Phase == v1.VolumeFailed {
		return nil
	}
	next, err := p.setVolumePhase(ctx, v, v1.VolumeFailed, message)
	if err == nil {
		p.recorder.Event(next, v1.EventTypeWarning, reason, message)
	}
	return err
}

func (p *controller) updateVolume(ctx context.Context, next *v1.PersistentVolume) (*v1.PersistentVolume, error) {
	written, err := p.client.CoreV1().PersistentVolumes().Update(ctx, next, metav1.UpdateOptions{})
	if err != nil {
		return nil, err
	}
	p.writtenVolumes.Mutation(written)
	return written, nil
}

func (p *controller) setVolumePhase(ctx context.Context, v *v1.PersistentVolume, phase v1.PersistentVolumePhase, message string) (*v1.PersistentVolume, error) {
	if v.Status.Phase == phase {
		return v, nil
	}
	next := v.DeepCopy()
	next.Status.Phase, next.Status.Message = phase, message
	written, err := p.client.CoreV1().PersistentVolumes().UpdateStatus(ctx, next, metav1.UpdateOptions{})
	if err != nil {
		return nil, err
	}
	p.writtenVolumes.Mutation(written)
	return written, nil
}

// Recycler pods have upstream's names and image.
const (
	recyclerPrefix = "recycler-for-"
	recyclerImage  = "registry.k8s.io/build-image/debian-base:bookworm-v1.0.6"
)

// recycle empties a volume by a pod, and gives it back. The policy is deprecated,
// and is for hostPath and NFS only.
func (p *controller) recycle(ctx context.Context, v *v1.PersistentVolume) error {
	var source v1.VolumeSource
	switch {
	case v.Spec.HostPath != nil:
		source.HostPath = v.Spec.HostPath
	case v.Spec.NFS != nil:
		source.NFS = v.Spec.NFS
	default:
		return p.failed(ctx, v, "VolumeFailedRecycle", "No recycler plugin found for the volume!")
	}
	pods := p.client.CoreV1().Pods(metav1.NamespaceDefault)
	name := recyclerPrefix + v.Name
	pod, err := pods.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		pod, err = pods.Create(ctx, recycler(name, source), metav1.CreateOptions{})
	}
	if err != nil {
		return p.failed(ctx, v, "VolumeFailedRecycle", fmt.Sprintf("Recycle failed: unexpected error creating recycler pod:  %s", err))
	}
	switch pod.Status.Phase {
	case v1.PodFailed:
		message := pod.Status.Message
		if message == "" {
			message = "pod failed, pod.Status.Message unknown"
		}
		message = "Recycle failed: " + message
		return errors.Join(errors.New(message), p.failed(ctx, v, "VolumeFailedRecycle", message), p.deleteRecycler(ctx, name))
	case v1.PodSucceeded:
		p.recorder.Event(v, v1.EventTypeNormal, "VolumeRecycled", "Volume recycled")
		if err := p.unbind(ctx, v); err != nil {
			return err
		}
		return p.deleteRecycler(ctx, name)
	}
	return nil // it comes back when the pod has ended
}

func (p *controller) deleteRecycler(ctx context.Context, name string) error {
	err := p.client.CoreV1().Pods(metav1.NamespaceDefault).Delete(ctx, name, metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func recycler(name string, source v1.VolumeSource) *v1.Pod {
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: metav1.NamespaceDefault},
		Spec: v1.PodSpec{
			ActiveDeadlineSeconds: ptr.To[int64](60), RestartPolicy: v1.RestartPolicyNever,
			Volumes: []v1.Volume{{Name: "vol", VolumeSource: source}},
			Containers: []v1.Container{{
				Name: "pv-recycler", Image: recyclerImage, Command: []string{"/bin/sh"},
				Args:         []string{"-c", `test -e /scrub && find /scrub -mindepth 1 -delete && test -z "$(ls -A /scrub)" || exit 1`},
				VolumeMounts: []v1.VolumeMount{{Name: "vol", MountPath: "/scrub"}},
			}},
		},
	}
}
