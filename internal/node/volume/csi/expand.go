package csi

import (
	"context"
	"fmt"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/node/volume"
)

// Again publishes the volume once more where its driver wants that, with tokens
// that are new, and has it grow where its claim was granted more. It implements
// volume.Periodic.
func (p *Plugin) Again(ctx context.Context, s *volume.Spec) error {
	name := ""
	if s.Persistent != nil {
		name = s.Persistent.Spec.CSI.Driver
	} else {
		name = s.Volume.CSI.Driver
	}
	d, err := p.driver(name)
	if err != nil {
		return err
	}
	settings, err := p.Client.StorageV1().CSIDrivers().Get(ctx, name, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	grows := s.Persistent != nil && d.can[csi.NodeServiceCapability_RPC_EXPAND_VOLUME]
	if grows {
		fresh := *s
		if fresh.Claim, err = p.Client.CoreV1().PersistentVolumeClaims(s.Claim.Namespace).Get(ctx, s.Claim.Name, metav1.GetOptions{}); err != nil {
			return err
		}
		if fresh.Persistent, err = p.Client.CoreV1().PersistentVolumes().Get(ctx, s.Persistent.Name, metav1.GetOptions{}); err != nil {
			return err
		}
		if fresh.Claim.UID != s.Claim.UID || fresh.Persistent.UID != s.Persistent.UID {
			return nil // they are others of the same names
		}
		s, grows = &fresh, pending(&fresh)
	}
	switch {
	case settings != nil && ptr.Deref(settings.Spec.RequiresRepublish, false):
		_, err = p.Mount(ctx, s)
		return err
	case grows:
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		r, err := p.request(ctx, s)
		if err != nil {
			return err
		}
		defer p.lock(r.data)()
		return p.expand(ctx, s, r)
	}
	return nil
}

// pending reports whether the volume is larger than what the claim has of it.
func pending(s *volume.Spec) bool {
	if s.Claim == nil {
		return false
	}
	granted, have := s.Persistent.Spec.Capacity[v1.ResourceStorage], s.Claim.Status.Capacity[v1.ResourceStorage]
	return granted.Cmp(have) > 0
}

// expand calls the driver to grow the node's part of a volume that was made larger
// (https://kubernetes.io/docs/concepts/storage/persistent-volumes/#expanding-persistent-volumes-claims),
// and records the result in the claim's status. A pod that only reads the volume leaves it as it is.
func (p *Plugin) expand(ctx context.Context, s *volume.Spec, r *request) error {
	if s.Persistent == nil || r.readOnly || !r.driver.can[csi.NodeServiceCapability_RPC_EXPAND_VOLUME] || !pending(s) {
		return nil
	}
	var secrets map[string]string
	if ref := s.Persistent.Spec.CSI.NodeExpandSecretRef; ref != nil {
		var err error
		if secrets, err = p.secret(ctx, ref); err != nil {
			return fmt.Errorf("fetching NodeExpandSecretRef %s/%s failed: %w", ref.Namespace, ref.Name, err)
		}
	}
	granted := s.Persistent.Spec.Capacity[v1.ResourceStorage]
	_, err := r.driver.node.NodeExpandVolume(ctx, &csi.NodeExpandVolumeRequest{
		VolumeId: r.data.Handle, VolumePath: r.data.Target, StagingTargetPath: r.data.Staging, VolumeCapability: r.capability,
		CapacityRange: &csi.CapacityRange{RequiredBytes: granted.Value()}, Secrets: secrets,
	})
	if err != nil {
		p.event(s.Pod, v1.EventTypeWarning, "VolumeResizeFailed", fmt.Sprintf("MountVolume.NodeExpandVolume failed for volume %q : %v", s.Name(), err))
		return fmt.Errorf("kubernetes.io/csi: Expander.NodeExpand failed to expand the volume: %w", err)
	}
	next := s.Claim.DeepCopy()
	if next.Status.Capacity == nil {
		next.Status.Capacity = v1.ResourceList{}
	}
	next.Status.Capacity[v1.ResourceStorage] = granted
	next.Status.Conditions = slices.DeleteFunc(next.Status.Conditions, func(c v1.PersistentVolumeClaimCondition) bool {
		return c.Type == v1.PersistentVolumeClaimResizing || c.Type == v1.PersistentVolumeClaimFileSystemResizePending || c.Type == v1.PersistentVolumeClaimNodeResizeError
	})
	delete(next.Status.AllocatedResourceStatuses, v1.ResourceStorage)
	if _, err := p.Client.CoreV1().PersistentVolumeClaims(next.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{}); err != nil {
		return err
	}
	p.event(s.Pod, v1.EventTypeNormal, "FileSystemResizeSuccessful", fmt.Sprintf("MountVolume.NodeExpandVolume succeeded for volume %q %s", s.Name(), p.Node))
	return nil
}

func (p *Plugin) event(pod *v1.Pod, kind, reason, message string) {
	if p.Recorder != nil {
		p.Recorder.Event(pod, kind, reason, message)
	}
}
