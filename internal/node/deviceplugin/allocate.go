package deviceplugin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"keelson.dev/keelson/internal/node/podspec"
	"keelson.dev/keelson/internal/node/topology"
)

// Allocate implements topology.Provider.
func (m *Manager) Allocate(pod *v1.Pod, c *v1.Container, h topology.Hint) error {
	m.mu.Lock()
	asked := m.requests(pod, c)
	m.mu.Unlock()
	for _, resource := range slices.Sorted(maps.Keys(asked)) {
		if err := m.allocate(pod, c, resource, asked[resource], h); err != nil {
			return err
		}
	}
	return nil
}

// allocate gives the container devices of one resource. Pods are given devices one after
// another, so that nothing else takes those that are chosen while the plug-in is asked.
func (m *Manager) allocate(pod *v1.Pod, c *v1.Container, resource string, n int, h topology.Hint) error {
	m.mu.Lock()
	p, has := m.plugins[resource], m.given[pod.UID][c.Name][resource]
	if has != nil {
		m.mu.Unlock()
		if got := len(has.ids()); got != n {
			return fmt.Errorf("pod %q container %q changed request for resource %q from %d to %d", pod.UID, c.Name, resource, got, n)
		}
		return nil
	}
	if p == nil {
		m.mu.Unlock()
		return fmt.Errorf("cannot allocate unregistered device %s", resource)
	}
	healthy := p.healthy()
	reusable := m.reusable(pod, c, resource).Intersection(healthy)
	free := healthy.Difference(m.used(resource))
	devices, ctx := maps.Clone(p.devices), m.ctx
	m.mu.Unlock()
	switch {
	case len(healthy) == 0:
		return fmt.Errorf("no healthy devices present; cannot allocate unhealthy devices %s", resource)
	case len(free)+len(reusable) < n:
		return fmt.Errorf("requested number of devices unavailable for %s. Requested: %d, Available: %d", resource, n, len(free)+len(reusable))
	}
	chosen, err := p.choose(ctx, devices, free, reusable, n, h)
	if err != nil {
		return err
	}
	begun := m.Clock.Now()
	response, err := p.allocate(ctx, chosen)
	if err != nil {
		return err
	}
	m.Allocated(resource, m.Clock.Since(begun))
	if got := len(response.ContainerResponses); got != 1 {
		return fmt.Errorf("the device plug-in of %s answered for %d containers, wanted one", resource, got)
	}
	a := &allocation{Devices: map[int64][]string{}, Response: response.ContainerResponses[0]}
	for _, id := range chosen {
		of := nodes(devices[id])
		if len(of) == 0 {
			of = []int64{anywhere}
		}
		for _, node := range of {
			a.Devices[node] = append(a.Devices[node], id)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.set(pod.UID, c.Name, resource, a)
	return m.save()
}

// choose chooses n devices: those that the pod has for an init container, then those on
// the hint's nodes, then those of no node, then others; within each those that the
// plug-in prefers, if it has a preference.
func (p *plugin) choose(ctx context.Context, devices map[string]*pluginapi.Device, free, reusable sets.Set[string], n int, h topology.Hint) ([]string, error) {
	on, off, nowhere := sets.New[string](), sets.New[string](), sets.New[string]()
	for id := range free {
		switch of := nodes(devices[id]); {
		case h.Nodes == 0 || len(of) == 0:
			nowhere.Insert(id)
		case h.Nodes.Any(ints(of)):
			on.Insert(id)
		default:
			off.Insert(id)
		}
	}
	chosen := sets.New[string]()
	// take chooses as many of a set as are still needed.
	take := func(from sets.Set[string]) {
		for _, id := range sets.List(from) {
			if len(chosen) < n {
				chosen.Insert(id)
			}
		}
	}
	// prefer chooses of a set what the plug-in prefers of all, and then from the rest.
	prefer := func(all sets.Set[string], among ...sets.Set[string]) error {
		if len(chosen) < n && p.options.GetGetPreferredAllocationAvailable() && len(all) > 0 {
			liked, err := p.preferred(ctx, sets.List(all.Union(chosen)), sets.List(chosen), n)
			if err != nil {
				return err
			}
			for _, a := range among {
				take(a.Intersection(liked))
			}
		}
		for _, a := range among {
			take(a.Difference(chosen))
		}
		return nil
	}
	if err := prefer(reusable, reusable); err != nil {
		return nil, err
	}
	if len(chosen)+len(on) >= n {
		if err := prefer(on, on); err != nil {
			return nil, err
		}
	}
	take(on)
	if err := prefer(free, nowhere, off); err != nil {
		return nil, err
	}
	if len(chosen) < n {
		return nil, errors.New("unexpectedly allocated less resources than required")
	}
	return sets.List(chosen), nil
}

func ints(of []int64) []int {
	out := make([]int, len(of))
	for i, n := range of {
		out[i] = int(n)
	}
	return out
}

// Hints implements topology.Provider.
func (m *Manager) Hints(pod *v1.Pod, c *v1.Container) map[string][]topology.Hint {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[string][]topology.Hint{}
	for resource, n := range m.requests(pod, c) {
		out[resource] = m.hints(resource, n, m.given[pod.UID][c.Name][resource], m.reusable(pod, c, resource))
	}
	return out
}

// PodHints implements topology.Provider.
func (m *Manager) PodHints(pod *v1.Pod) map[string][]topology.Hint {
	m.mu.Lock()
	defer m.mu.Unlock()
	resources := map[string]bool{}
	for _, c := range podspec.Containers(pod) {
		for resource := range m.requests(pod, c) {
			resources[resource] = true
		}
	}
	out := map[string][]topology.Hint{}
	for resource := range resources {
		n := int(podspec.Peak(pod, func(c *v1.Container) int64 { return int64(m.requests(pod, c)[resource]) }))
		has := &allocation{Devices: map[int64][]string{}}
		for _, resources := range m.given[pod.UID] {
			if a := resources[resource]; a != nil {
				has.Devices[anywhere] = append(has.Devices[anywhere], sets.List(a.ids())...)
			}
		}
		if len(has.ids()) == 0 {
			has = nil
		}
		out[resource] = m.hints(resource, n, has, nil)
	}
	return out
}

// hints returns the sets of nodes that have n devices, free or reusable, or those that
// are given already; m.mu is held.
func (m *Manager) hints(resource string, n int, has *allocation, reusable sets.Set[string]) []topology.Hint {
	p := m.plugins[resource]
	if p == nil || !p.onNodes() {
		return nil
	}
	free := p.healthy().Difference(m.used(resource))
	if has != nil {
		free, reusable = has.ids(), nil
		if len(free) != n {
			return []topology.Hint{}
		}
	}
	if len(free.Union(reusable)) < n {
		return []topology.Hint{}
	}
	out, least := []topology.Hint{}, len(m.Nodes)
	topology.Each(m.Nodes, func(mask topology.Mask) {
		within := func(ids sets.Set[string]) (n int) {
			for id := range ids {
				if d := p.devices[id]; d != nil && mask.Any(ints(nodes(d))) {
					n++
				}
			}
			return n
		}
		if within(sets.KeySet(p.devices)) >= n {
			least = min(least, mask.Count())
		}
		reused := 0
		for id := range reusable {
			if d := p.devices[id]; d != nil && len(nodes(d)) > 0 {
				if !mask.Any(ints(nodes(d))) {
					return
				}
				reused++
			}
		}
		if reused+within(free) >= n {
			out = append(out, topology.Hint{Nodes: mask})
		}
	})
	for i := range out {
		out[i].Preferred = out[i].Nodes.Count() == least
	}
	return out
}
