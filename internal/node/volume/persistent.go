package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/storage/ephemeral"
	"k8s.io/component-helpers/storage/volume"

	"keelson.dev/keelson/internal/csimigration"
)

// resolve finds the claim and the PersistentVolume that a volume is of. The
// volume must refer to the claim, too: the claim's author could name any volume.
func (m *Manager) resolve(ctx context.Context, s *Spec, name string) error {
	claim, err := m.Client.CoreV1().PersistentVolumeClaims(s.Pod.Namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case err != nil:
		err = fmt.Errorf("failed to fetch PVC from API server: %w", err)
	case s.Volume.Ephemeral != nil && ephemeral.VolumeIsForPod(s.Pod, claim) != nil:
		err = ephemeral.VolumeIsForPod(s.Pod, claim)
	case claim.DeletionTimestamp != nil && !started(s.Pod):
		err = errors.New("PVC is being deleted")
	case claim.Status.Phase != v1.ClaimBound || claim.Spec.VolumeName == "":
		err = &Pending{errors.New("PVC is not bound")}
	}
	if err != nil {
		return fmt.Errorf("error processing PVC %s/%s: %w", s.Pod.Namespace, name, err)
	}
	pv, err := m.Client.CoreV1().PersistentVolumes().Get(ctx, claim.Spec.VolumeName, metav1.GetOptions{})
	switch {
	case err != nil:
		return fmt.Errorf("failed to fetch PV %s from API server: %w", claim.Spec.VolumeName, err)
	case pv.Spec.ClaimRef == nil:
		return fmt.Errorf("found PV object %s with nil pv.Spec.ClaimRef indicating it is not yet bound to the claim", pv.Name)
	case pv.Spec.ClaimRef.UID != claim.UID:
		return fmt.Errorf("found PV object %s with unexpected pv.Spec.ClaimRef.UID %s", pv.Name, pv.Spec.ClaimRef.UID)
	}
	if node := m.Node; node != nil {
		labels, err := node(ctx)
		if err != nil {
			return err
		}
		if err := volume.CheckNodeAffinity(pv, labels); err != nil {
			return fmt.Errorf("storage node affinity check failed for volume %q : %w", pv.Name, err)
		}
	}
	migrated, err := csimigration.Volume(pv)
	if err != nil {
		return err
	}
	s.Claim, s.Persistent, s.Migrated = claim, migrated, migrated != pv
	mounts, devices := uses(s.Pod, s.Volume.Name)
	switch {
	case s.Block() && mounts:
		return fmt.Errorf("volume %s has volumeMode Block, but is specified in volumeMounts", s.Volume.Name)
	case !s.Block() && devices:
		return fmt.Errorf("volume %s has volumeMode Filesystem, but is specified in volumeDevices", s.Volume.Name)
	}
	return nil
}

// started reports whether containers of a pod have been started.
func started(p *v1.Pod) bool {
	return slices.ContainsFunc(p.Status.ContainerStatuses, func(c v1.ContainerStatus) bool { return c.ContainerID != "" })
}

// uses reports whether containers of a pod mount a volume, and whether they have
// it as a device.
func uses(p *v1.Pod, name string) (mounts, devices bool) {
	for _, containers := range [][]v1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range containers {
			c := &containers[i]
			mounts = mounts || slices.ContainsFunc(c.VolumeMounts, func(m v1.VolumeMount) bool { return m.Name == name })
			devices = devices || slices.ContainsFunc(c.VolumeDevices, func(d v1.VolumeDevice) bool { return d.Name == name })
		}
	}
	return mounts, devices
}

// Grows reports whether a claim waits for a node to grow its volume
// (https://kubernetes.io/docs/concepts/storage/persistent-volumes/#expanding-persistent-volumes-claims).
func Grows(c *v1.PersistentVolumeClaim) bool {
	switch c.Status.AllocatedResourceStatuses[v1.ResourceStorage] {
	case v1.PersistentVolumeClaimNodeResizePending, v1.PersistentVolumeClaimNodeResizeInProgress:
		return true
	}
	return slices.ContainsFunc(c.Status.Conditions, func(c v1.PersistentVolumeClaimCondition) bool {
		return c.Type == v1.PersistentVolumeClaimFileSystemResizePending && c.Status == v1.ConditionTrue
	})
}
