package csi

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/csimigration"
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
	settings, err := p.settings(ctx, name)
	if err != nil {
		return err
	}
	grows := s.Claim != nil && d.can[csi.NodeServiceCapability_RPC_EXPAND_VOLUME]
	if grows {
		fresh := *s
		if fresh.Claim, err = p.Client.CoreV1().PersistentVolumeClaims(s.Claim.Namespace).Get(ctx, s.Claim.Name, metav1.GetOptions{}); err != nil {
			return err
		}
		if fresh.Persistent, err = p.Client.CoreV1().PersistentVolumes().Get(ctx, s.Persistent.Name, metav1.GetOptions{}); err != nil {
			return err
		}
		if fresh.Persistent, err = csimigration.Volume(fresh.Persistent); err != nil {
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

// pending reports whether the volume is larger than what the claim has of it, and the
// driver has not said that this will not do.
func pending(s *volume.Spec) bool {
	if s.Claim == nil || s.Claim.Status.AllocatedResourceStatuses[v1.ResourceStorage] == v1.PersistentVolumeClaimNodeResizeInfeasible {
		return false
	}
	granted, have := s.Persistent.Spec.Capacity[v1.ResourceStorage], s.Claim.Status.Capacity[v1.ResourceStorage]
	return granted.Cmp(have) > 0
}

// expand calls the driver to grow the node's part of a volume that was made larger
// (https://kubernetes.io/docs/concepts/storage/persistent-volumes/#expanding-persistent-volumes-claims),
// and records the result in the claim's status. A pod that only reads the volume leaves it as it is.
func (p *Plugin) expand(ctx context.Context, s *volume.Spec, r *request) error {
	if r.readOnly || !r.driver.can[csi.NodeServiceCapability_RPC_EXPAND_VOLUME] || !pending(s) {
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
		err = fmt.Errorf("kubernetes.io/csi: Expander.NodeExpand failed to expand the volume: %w", err)
		if infeasible(err) {
			return errors.Join(err, p.refused(ctx, s.Claim, err))
		}
		return err
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

// infeasible reports whether a driver will not grow a volume, however often it is asked.
func infeasible(err error) bool {
	switch status.Code(err) {
	case codes.InvalidArgument, codes.OutOfRange, codes.NotFound:
		return true
	}
	return false
}

// refused tells a claim that its volume does not grow on the node, so that it can be
// given another size (https://kep.k8s.io/1790).
func (p *Plugin) refused(ctx context.Context, claim *v1.PersistentVolumeClaim, why error) error {
	next := claim.DeepCopy()
	if next.Status.AllocatedResourceStatuses == nil {
		next.Status.AllocatedResourceStatuses = map[v1.ResourceName]v1.ClaimResourceStatus{}
	}
	next.Status.AllocatedResourceStatuses[v1.ResourceStorage] = v1.PersistentVolumeClaimNodeResizeInfeasible
	next.Status.Conditions = append(slices.DeleteFunc(next.Status.Conditions, func(c v1.PersistentVolumeClaimCondition) bool {
		return c.Type == v1.PersistentVolumeClaimNodeResizeError
	}),
		v1.PersistentVolumeClaimCondition{Type: v1.PersistentVolumeClaimNodeResizeError, Status: v1.ConditionTrue, LastTransitionTime: metav1.Now(), Message: why.Error()})
	_, err := p.Client.CoreV1().PersistentVolumeClaims(next.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{})
	return err
}

func (p *Plugin) event(pod *v1.Pod, kind, reason, message string) {
	if p.Recorder != nil {
		p.Recorder.Event(pod, kind, reason, message)
	}
}
