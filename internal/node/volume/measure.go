package volume

import (
	"context"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// Stats returns the last figures of a volume of a Measurer, nil if there are none.
func (m *Manager) Stats(uid types.UID, name string) *statsapi.FsStats {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.pods[uid]; p != nil {
		return p.stats[name]
	}
	return nil
}

// measureAll measures the volumes of Measurers each period, until ctx is done.
func (m *Manager) measureAll(ctx context.Context) {
	tick := m.Clock.NewTicker(period)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C():
		}
		m.mu.Lock()
		all := slices.Collect(maps.Values(m.pods))
		m.mu.Unlock()
		for _, p := range all {
			m.measure(ctx, p)
		}
	}
}

func (m *Manager) measure(ctx context.Context, p *pod) {
	p.Lock()
	specs := maps.Clone(p.specs)
	p.Unlock()
	fresh := map[string]*statsapi.FsStats{}
	for name, spec := range specs {
		plugin, ok := m.plugin(spec).(Measurer)
		if !ok {
			continue
		}
		s, err := plugin.Stats(ctx, spec)
		if err != nil {
			klog.FromContext(ctx).V(4).Info("Measuring a volume failed", "pod", klog.KObj(spec.Pod), "volume", name, "err", err)
			continue
		}
		fresh[name] = s
	}
	m.mu.Lock()
	p.stats = fresh
	m.mu.Unlock()
}
