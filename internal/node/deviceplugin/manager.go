package deviceplugin

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/node/podspec"
)

const (
	// Folder is the folder of the plug-ins' sockets below the node's.
	Folder = "device-plugins"
	// socket is that of registrations, in the folder; state is the file of what was given.
	socket = "kubelet.sock"
	state  = "kubelet_internal_checkpoint"
	// stopGrace is how long a resource counts whose plug-in has gone: the time of an
	// update.
	stopGrace = 5 * time.Minute
)

// Config configures a Manager.
type Config struct {
	// Dir is the folder of the plug-ins' sockets.
	Dir   string
	Clock clock.WithTicker
	// Nodes are the machine's NUMA nodes.
	Nodes []int
	// Changed is called when there are more devices or fewer, or they are better or worse,
	// with the pods that have some of the resource.
	Changed func(pods []types.UID)
	// Registered counts registrations by resource, and Allocated observes how long an
	// allocation took.
	Registered func(resource string)
	Allocated  func(resource string, took time.Duration)
}

// Manager gives devices to containers. It is a topology.Provider.
type Manager struct {
	Config

	mu      sync.Mutex
	ctx     context.Context // plug-ins are watched in it
	watches sync.WaitGroup
	plugins map[string]*plugin // by resource
	given   map[types.UID]map[string]map[string]*allocation
	// removed are resources that the Node is to have none of: it may have had some.
	removed map[string]bool
}

// allocation is what a container has of a resource.
type allocation struct {
	// Devices are the devices' IDs by NUMA node, anywhere where they have none.
	Devices map[int64][]string
	// Response is the plug-in's: what the container is to be made with.
	Response *pluginapi.ContainerAllocateResponse
}

// anywhere stands for the node of devices that are of none.
const anywhere = -1

func (a *allocation) ids() sets.Set[string] {
	out := sets.New[string]()
	for _, ids := range a.Devices {
		out.Insert(ids...)
	}
	return out
}

// New reads what an earlier agent has given.
func New(c Config) (*Manager, error) {
	m := &Manager{Config: c, plugins: map[string]*plugin{}, given: map[types.UID]map[string]map[string]*allocation{}, removed: map[string]bool{}}
	return m, m.load()
}

// Capacity returns how many devices of each resource the node has, and how many of them
// are healthy. A resource that has gone has none.
func (m *Manager) Capacity() (capacity, allocatable v1.ResourceList) {
	m.mu.Lock()
	defer m.mu.Unlock()
	capacity, allocatable = v1.ResourceList{}, v1.ResourceList{}
	count := func(n int) resource.Quantity { return *resource.NewQuantity(int64(n), resource.DecimalSI) }
	for name, p := range m.plugins {
		if !p.stopped.IsZero() && m.Clock.Since(p.stopped) > stopGrace {
			delete(m.plugins, name)
			m.removed[name] = true
			continue
		}
		capacity[v1.ResourceName(name)], allocatable[v1.ResourceName(name)] = count(len(p.devices)), count(len(p.healthy()))
	}
	for name := range m.removed {
		capacity[v1.ResourceName(name)], allocatable[v1.ResourceName(name)] = count(0), count(0)
	}
	return capacity, allocatable
}

// Admittable returns how many devices of each resource pods may have: the healthy ones,
// or so many as are given where that is more, since those pods run on.
func (m *Manager) Admittable() v1.ResourceList {
	_, out := m.Capacity()
	m.mu.Lock()
	defer m.mu.Unlock()
	for name := range out {
		if used := *resource.NewQuantity(int64(len(m.used(string(name)))), resource.DecimalSI); used.Cmp(out[name]) > 0 {
			out[name] = used
		}
	}
	return out
}

// used returns the devices of a resource that are given; m.mu is held.
func (m *Manager) used(resource string) sets.Set[string] {
	out := sets.New[string]()
	for _, containers := range m.given {
		for _, resources := range containers {
			if a := resources[resource]; a != nil {
				out = out.Union(a.ids())
			}
		}
	}
	return out
}

// is reports whether the resource is one of plug-ins; m.mu is held.
func (m *Manager) is(resource string) bool {
	return m.plugins[resource] != nil || len(m.used(resource)) > 0
}

// requests returns how many devices of each resource of plug-ins the container asks
// for; m.mu is held. Requests for them are equal to the limits. A resource that the pod
// has by a claim is the DRA driver's.
func (m *Manager) requests(pod *v1.Pod, c *v1.Container) map[string]int {
	out := map[string]int{}
	for name, q := range c.Resources.Limits {
		if q.Sign() > 0 && m.is(string(name)) && !claimed(pod, c, name) {
			out[string(name)] = int(q.Value())
		}
	}
	return out
}

func claimed(pod *v1.Pod, c *v1.Container, name v1.ResourceName) bool {
	s := pod.Status.ExtendedResourceClaimStatus
	return s != nil && slices.ContainsFunc(s.RequestMappings, func(r v1.ContainerExtendedResourceRequest) bool {
		return r.ContainerName == c.Name && r.ResourceName == string(name)
	})
}

// reusable returns the devices of the resource that the pod's init containers have and no
// container that runs beside this one does; m.mu is held.
func (m *Manager) reusable(pod *v1.Pod, c *v1.Container, resource string) sets.Set[string] {
	out, beside := sets.New[string](), sets.New[string]()
	for name, resources := range m.given[pod.UID] {
		a := resources[resource]
		switch {
		case a == nil || name == c.Name:
		case podspec.EndsBefore(pod, name):
			out = out.Union(a.ids())
		default:
			beside = beside.Union(a.ids())
		}
	}
	return out.Difference(beside)
}

// Free implements topology.Provider.
func (m *Manager) Free(keep func(types.UID) bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := len(m.given)
	maps.DeleteFunc(m.given, func(uid types.UID, _ map[string]map[string]*allocation) bool { return !keep(uid) })
	if len(m.given) == n {
		return nil
	}
	return m.save()
}

// Device is one that a container has.
type Device struct {
	Resource, ID string
	// Nodes are the NUMA nodes that it is of.
	Nodes []int64
	// Health is that of the plug-in, Unknown where it does not tell.
	Health v1.ResourceHealthStatus
}

// Devices returns those of a container, in the order of their resources and IDs.
func (m *Manager) Devices(pod types.UID, container string) []Device {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Device
	for name, a := range m.given[pod][container] {
		for id := range a.ids() {
			d := Device{Resource: name, ID: id, Health: v1.ResourceHealthStatusUnknown}
			if p := m.plugins[name]; p != nil && p.devices[id] != nil {
				d.Nodes = nodes(p.devices[id])
				d.Health = v1.ResourceHealthStatusUnhealthy
				if p.healthy().Has(id) {
					d.Health = v1.ResourceHealthStatusHealthy
				}
			} else {
				for node, ids := range a.Devices {
					if node != anywhere && slices.Contains(ids, id) {
						d.Nodes = append(d.Nodes, node)
					}
				}
			}
			out = append(out, d)
		}
	}
	sort(out)
	return out
}

// All returns the devices that can be given, healthy or not.
func (m *Manager) All() []Device {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Device
	for name, p := range m.plugins {
		healthy := p.healthy()
		for id, d := range p.devices {
			health := v1.ResourceHealthStatusUnhealthy
			if healthy.Has(id) {
				health = v1.ResourceHealthStatusHealthy
			}
			out = append(out, Device{name, id, nodes(d), health})
		}
	}
	sort(out)
	return out
}

func sort(devices []Device) {
	slices.SortFunc(devices, func(a, b Device) int { return cmp.Or(cmp.Compare(a.Resource, b.Resource), cmp.Compare(a.ID, b.ID)) })
}

func nodes(d *pluginapi.Device) (out []int64) {
	for _, n := range d.GetTopology().GetNodes() {
		out = append(out, n.ID)
	}
	return out
}

// Prepare returns what the container is to be made with, once its devices are ready for a
// start of it; nil for a container without devices.
func (m *Manager) Prepare(ctx context.Context, pod *v1.Pod, c *v1.Container) (*pluginapi.ContainerAllocateResponse, error) {
	m.mu.Lock()
	given := maps.Clone(m.given[pod.UID][c.Name])
	asked := m.requests(pod, c)
	plugins := maps.Clone(m.plugins)
	m.mu.Unlock()
	for name := range asked {
		if given[name] == nil {
			return nil, fmt.Errorf("no devices of the resource %s are set aside for container %s of the pod", name, c.Name)
		}
	}
	var out *pluginapi.ContainerAllocateResponse
	for _, name := range slices.Sorted(maps.Keys(given)) {
		a := given[name]
		if p := plugins[name]; p != nil && p.options.GetPreStartRequired() {
			if err := p.preStart(ctx, sets.List(a.ids())); err != nil {
				return nil, fmt.Errorf("device plugin PreStartContainer rpc failed with err: %w", err)
			}
		}
		if out == nil {
			out = &pluginapi.ContainerAllocateResponse{Envs: map[string]string{}, Annotations: map[string]string{}}
		}
		merge(out, a.Response)
	}
	return out, nil
}

// merge adds to what a container is made with; what it has for a name or a path stays.
func merge(to, from *pluginapi.ContainerAllocateResponse) {
	first := func(to, from map[string]string) {
		for k, v := range from {
			if _, ok := to[k]; !ok {
				to[k] = v
			}
		}
	}
	first(to.Envs, from.GetEnvs())
	first(to.Annotations, from.GetAnnotations())
	for _, d := range from.GetDevices() {
		if !slices.ContainsFunc(to.Devices, func(o *pluginapi.DeviceSpec) bool { return o.ContainerPath == d.ContainerPath }) {
			to.Devices = append(to.Devices, d)
		}
	}
	for _, d := range from.GetMounts() {
		if !slices.ContainsFunc(to.Mounts, func(o *pluginapi.Mount) bool { return o.ContainerPath == d.ContainerPath }) {
			to.Mounts = append(to.Mounts, d)
		}
	}
	for _, d := range from.GetCdiDevices() {
		if !slices.ContainsFunc(to.CdiDevices, func(o *pluginapi.CDIDevice) bool { return o.Name == d.Name }) {
			to.CdiDevices = append(to.CdiDevices, d)
		}
	}
}
