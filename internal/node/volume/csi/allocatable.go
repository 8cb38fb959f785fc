package csi

import (
	"context"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	storage "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
)

// How often Run looks for drivers that are due, and how often it reads the objects of
// drivers that do not have it ask them. A driver's period is at least 10 seconds.
const (
	look   = 10 * time.Second
	reread = time.Minute
)

// Run asks drivers again how many volumes the node can have, as often as their
// CSIDriver wants (https://kep.k8s.io/4876), and unstages what no pod has, until ctx is
// done.
func (p *Plugin) Run(ctx context.Context) {
	p.stray.Store(true) // the agent before this one may have left something
	tick := p.Clock.NewTicker(look)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C():
		}
		now := p.Clock.Now()
		var due []*driver
		p.mu.Lock()
		for _, d := range p.drivers {
			if !now.Before(d.due) {
				due = append(due, d)
			}
		}
		p.mu.Unlock()
		if p.stray.Swap(false) {
			if err := p.unstageStray(ctx); err != nil && ctx.Err() == nil {
				klog.FromContext(ctx).Error(err, "Unstaging volumes that no pod has failed; trying again")
				p.stray.Store(true)
			}
		}
		for _, d := range due {
			next := p.again(ctx, d)
			p.mu.Lock()
			d.due = now.Add(next)
			p.mu.Unlock()
		}
	}
}

// again brings what the cluster knows of a driver's limit up to date if its object
// wants that, and returns the time until the next look at it.
func (p *Plugin) again(ctx context.Context, d *driver) time.Duration {
	settings, err := p.settings(ctx, d.name)
	if err != nil || period(settings) == 0 {
		return reread
	}
	if err := p.limit(ctx, d); err != nil && ctx.Err() == nil {
		klog.FromContext(ctx).Error(err, "Updating the node's limit of a driver's volumes failed", "driver", d.name)
	}
	return period(settings)
}

// period returns how often the driver is to be asked, 0 for never.
func period(d *storage.CSIDriver) time.Duration {
	if d == nil {
		return 0
	}
	return time.Duration(ptr.Deref(d.Spec.NodeAllocatableUpdatePeriodSeconds, 0)) * time.Second
}

// settings returns a driver's object, nil if it has none.
func (p *Plugin) settings(ctx context.Context, name string) (*storage.CSIDriver, error) {
	d, err := p.Client.StorageV1().CSIDrivers().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return d, err
}

// limit asks a driver how many volumes the node can have, and tells the CSINode if
// that has changed.
func (p *Plugin) limit(ctx context.Context, d *driver) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	info, err := d.node.NodeGetInfo(ctx, &csi.NodeGetInfoRequest{})
	if err != nil {
		return err
	}
	return p.changeCSINode(ctx, nil, func(all []storage.CSINodeDriver) []storage.CSINodeDriver {
		for i := range all {
			if all[i].Name == d.name {
				all[i].Allocatable = allocatable(info)
			}
		}
		return all
	})
}

// allocatable returns a driver's limit as the CSINode has it, nil for none.
func allocatable(info *csi.NodeGetInfoResponse) *storage.VolumeNodeResources {
	if m := info.MaxVolumesPerNode; m > 0 {
		return &storage.VolumeNodeResources{Count: ptr.To(int32(min(m, 1<<31-1)))}
	}
	return nil
}
