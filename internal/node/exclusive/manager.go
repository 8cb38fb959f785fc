package exclusive

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/node/cpumanager"
	"keelson.dev/keelson/internal/node/deviceplugin"
	"keelson.dev/keelson/internal/node/hardware"
	"keelson.dev/keelson/internal/node/memorymanager"
	"keelson.dev/keelson/internal/node/podspec"
	"keelson.dev/keelson/internal/node/topology"
)

// Config configures a Manager.
type Config struct {
	Options
	// Root is the node's folder.
	Root string
	// Machine is what the machine has.
	Machine *hardware.Machine
	// Reserved is kept from pods for Kubernetes and the rest of the machine; All is that
	// and what is kept free by evictions.
	Reserved, All v1.ResourceList

	Clock clock.WithTicker
	// Pods gives the node's pods with their statuses.
	Pods func() []*v1.Pod
	// Update gives a running container what is set of the resources.
	Update func(ctx context.Context, id string, r *runtimeapi.LinuxContainerResources) error
	// Changed is called when devices have changed, with the pods that have some.
	Changed func(pods []types.UID)
	// Registered counts registrations of device plug-ins by resource, and Allocated
	// observes how long an allocation of devices took.
	Registered func(resource string)
	Allocated  func(resource string, took time.Duration)
	// Registry takes the metrics; nil takes none.
	Registry prometheus.Registerer
}

// Manager gives containers what they have for themselves.
type Manager struct {
	*topology.Manager
	CPUs    *cpumanager.Manager
	Memory  *memorymanager.Manager
	Devices *deviceplugin.Manager
	metrics metrics
}

// New makes a manager, with what an earlier one has given.
func New(c Config) (*Manager, error) {
	m := &Manager{}
	var err error
	if m.Manager, err = topology.New(topology.Config{Policy: c.TopologyPolicy, Scope: c.TopologyScope, Options: c.TopologyOptions,
		Nodes: c.Machine.NodeIDs(), Distances: c.Machine.Distances()}); err != nil {
		return nil, fmt.Errorf("failed to initialize topology manager: %w", err)
	}
	if m.Devices, err = deviceplugin.New(deviceplugin.Config{Dir: filepath.Join(c.Root, deviceplugin.Folder), Clock: c.Clock, Nodes: c.Machine.NodeIDs(),
		Changed: c.Changed, Registered: c.Registered, Allocated: c.Allocated}); err != nil {
		return nil, fmt.Errorf("failed to initialize device manager: %w", err)
	}
	if m.CPUs, err = cpumanager.New(cpumanager.Config{Policy: c.CPUPolicy, Options: c.CPUOptions, Machine: c.Machine, Reserved: c.ReservedCPUs, ReservedMilli: c.Reserved.Cpu().MilliValue(),
		File: filepath.Join(c.Root, "cpu_manager_state"), Period: cmp.Or(c.CPUPeriod, DefaultCPUPeriod), Clock: c.Clock, Pods: c.Pods, Update: c.Update}); err != nil {
		return nil, fmt.Errorf("failed to initialize cpu manager: %w", err)
	}
	if m.Memory, err = memorymanager.New(memorymanager.Config{Policy: c.MemoryPolicy, Machine: c.Machine, Reserved: c.ReservedMemory, All: c.All,
		File: filepath.Join(c.Root, "memory_manager_state")}); err != nil {
		return nil, fmt.Errorf("failed to initialize memory manager: %w", err)
	}
	m.register(c.Registry)
	m.Providers = []topology.Provider{m.Devices, m.CPUs, m.Memory}
	return m, nil
}

// Run keeps running containers on their CPUs until ctx ends.
func (m *Manager) Run(ctx context.Context) { m.CPUs.Run(ctx) }

// Given is what a container is to be made with.
type Given struct {
	// CPUs and Nodes are those that it is on, in the kernel's form; empty is any.
	CPUs, Nodes string
	// Devices is what device plug-ins say of theirs; nil where there are none.
	Devices *pluginapi.ContainerAllocateResponse
}

// Prepare returns what the container is to be made with, once it is ready for a start.
func (m *Manager) Prepare(ctx context.Context, pod *v1.Pod, c *v1.Container) (*Given, error) {
	devices, err := m.Devices.Prepare(ctx, pod, c)
	if err != nil {
		return nil, err
	}
	nodes := strings.Trim(strings.ReplaceAll(fmt.Sprint(m.Memory.Nodes(pod.UID, c.Name)), " ", ","), "[]")
	return &Given{CPUs: m.CPUs.Of(pod.UID, c.Name).String(), Nodes: nodes, Devices: devices}, nil
}

// Fixed returns why the resources of a pod cannot be changed while it runs, "" where they
// can.
func (m *Manager) Fixed(pod *v1.Pod) string {
	if podspec.QOS(pod) != v1.PodQOSGuaranteed {
		return ""
	}
	if m.CPUs.Policy == cpumanager.Static {
		return "Resize is infeasible for Guaranteed Pods alongside CPU Manager static policy"
	}
	if m.Memory.Policy == memorymanager.Static {
		return "Resize is infeasible for Guaranteed Pods alongside Memory Manager static policy"
	}
	return ""
}

// Statuses returns how the devices of a container are, for its status.
func (m *Manager) Statuses(pod types.UID, container string) (out []v1.ResourceStatus) {
	for _, d := range m.Devices.Devices(pod, container) {
		name := v1.ResourceName(d.Resource)
		if n := len(out); n == 0 || out[n-1].Name != name {
			out = append(out, v1.ResourceStatus{Name: name})
		}
		s := &out[len(out)-1]
		s.Resources = append(s.Resources, v1.ResourceHealth{ResourceID: v1.ResourceID(d.ID), Health: d.Health})
	}
	return out
}
