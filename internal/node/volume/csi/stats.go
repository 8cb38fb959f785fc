package csi

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/node/volume"
)

// Stats calls NodeGetVolumeStats of a driver that has it. It implements
// volume.Measurer.
func (p *Plugin) Stats(ctx context.Context, s *volume.Spec) (*statsapi.FsStats, error) {
	data, err := read(s.Dir)
	if err != nil || data == nil {
		return nil, err
	}
	d, err := p.driver(data.Driver)
	if err != nil || !d.can[csi.NodeServiceCapability_RPC_GET_VOLUME_STATS] {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	got, err := d.node.NodeGetVolumeStats(ctx, &csi.NodeGetVolumeStatsRequest{VolumeId: data.Handle, VolumePath: data.Target, StagingTargetPath: data.Staging})
	if err != nil {
		return nil, err
	}
	out := &statsapi.FsStats{Time: metav1.NewTime(p.Clock.Now())}
	figure := func(n int64) *uint64 { return ptr.To(uint64(max(n, 0))) }
	for _, u := range got.Usage {
		switch u.Unit {
		case csi.VolumeUsage_BYTES:
			out.CapacityBytes, out.AvailableBytes, out.UsedBytes = figure(u.Total), figure(u.Available), figure(u.Used)
		case csi.VolumeUsage_INODES:
			out.Inodes, out.InodesFree, out.InodesUsed = figure(u.Total), figure(u.Available), figure(u.Used)
		}
	}
	return out, nil
}
