package cpumanager

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"k8s.io/utils/cpuset"

	"keelson.dev/keelson/internal/node/hardware"
	"keelson.dev/keelson/internal/node/podspec"
	"keelson.dev/keelson/internal/node/statefile"
	"keelson.dev/keelson/internal/node/topology"
)

// Config configures a Manager.
type Config struct {
	// Policy is one of the policies, None where empty.
	Policy  string
	Options map[string]string
	Machine *hardware.Machine
	// Reserved are CPUs that no container has for itself. Where there are none, as many
	// are chosen as cover the reservations, in thousandths of a CPU.
	Reserved      cpuset.CPUSet
	ReservedMilli int64
	// File keeps which CPUs containers have, for the agent after this one.
	File string
	// Period is how often the runtime is given the CPUs of containers that it may not have
	// taken.
	Period time.Duration

	Clock clock.WithTicker
	// Pods gives the node's pods with their statuses.
	Pods func() []*v1.Pod
	// Update gives a running container what is set of the resources.
	Update func(ctx context.Context, id string, r *runtimeapi.LinuxContainerResources) error
}

// Manager gives CPUs to containers. It is a topology.Provider.
type Manager struct {
	Config
	options  options
	chooser  *chooser
	reserved cpuset.CPUSet
	wake     chan struct{}

	mu    sync.Mutex
	given map[types.UID]map[string]cpuset.CPUSet
	// told are the CPUs that the runtime has for containers, by their IDs.
	told map[string]cpuset.CPUSet
}

// file is what is kept.
type file struct {
	PolicyName    string                          `json:"policyName"`
	DefaultCPUSet string                          `json:"defaultCpuSet"`
	Entries       map[types.UID]map[string]string `json:"entries,omitempty"`
}

// New makes a manager, with what an earlier one has given.
func New(c Config) (*Manager, error) {
	if c.Policy == "" {
		c.Policy = None
	}
	if c.Policy != None && c.Policy != Static {
		return nil, fmt.Errorf("unknown policy: %q", c.Policy)
	}
	m := &Manager{Config: c, wake: make(chan struct{}, 1), given: map[types.UID]map[string]cpuset.CPUSet{}, told: map[string]cpuset.CPUSet{}}
	var err error
	if m.options, err = parse(c.Policy, c.Options); err != nil {
		return nil, err
	}
	if c.Policy == Static {
		m.chooser = newChooser(c.Machine, m.options.caches)
		if err := m.reserve(); err != nil {
			return nil, err
		}
	}
	return m, m.load()
}

// reserve chooses the CPUs that are kept from containers.
func (m *Manager) reserve() error {
	m.reserved = m.Reserved
	if m.reserved.IsEmpty() {
		n := int((m.ReservedMilli + 999) / 1000)
		if n == 0 {
			return errors.New("[cpumanager] the static policy requires systemreserved.cpu + kubereserved.cpu to be greater than zero")
		}
		var err error
		if m.reserved, err = m.chooser.take(m.chooser.all(), n); err != nil {
			return fmt.Errorf("[cpumanager] unable to reserve the required amount of CPUs: %w", err)
		}
	}
	if !m.reserved.IsSubsetOf(m.chooser.all()) {
		return fmt.Errorf("[cpumanager] the reserved CPUs %s are not all among the machine's, %s", m.reserved, m.chooser.all())
	}
	return nil
}

// exclusive returns how many CPUs the container is to have for itself, 0 where it shares
// them. Those of a pod with resources of its own share theirs.
func (m *Manager) exclusive(pod *v1.Pod, c *v1.Container) int {
	if m.Policy != Static || podspec.QOS(pod) != v1.PodQOSGuaranteed || pod.Spec.Resources != nil {
		return 0
	}
	q := c.Resources.Requests[v1.ResourceCPU]
	if q.Sign() == 0 {
		q = c.Resources.Limits[v1.ResourceCPU]
	}
	if q.Value()*1000 != q.MilliValue() {
		return 0
	}
	return int(q.Value())
}

// pool returns the CPUs of the containers that share theirs; m.mu is held.
func (m *Manager) pool() cpuset.CPUSet {
	out := m.chooser.all()
	if m.options.strict {
		out = out.Difference(m.reserved)
	}
	for _, containers := range m.given {
		for _, cpus := range containers {
			out = out.Difference(cpus)
		}
	}
	return out
}

// free returns the CPUs that can be given; m.mu is held.
func (m *Manager) free() cpuset.CPUSet { return m.pool().Difference(m.reserved) }

// reusable returns the CPUs that the pod's init containers have and no container has that
// runs beside this one; m.mu is held.
func (m *Manager) reusable(pod *v1.Pod, c *v1.Container) cpuset.CPUSet {
	out, beside := cpuset.New(), cpuset.New()
	for name, cpus := range m.given[pod.UID] {
		switch {
		case name == c.Name:
		case podspec.EndsBefore(pod, name):
			out = out.Union(cpus)
		default:
			beside = beside.Union(cpus)
		}
	}
	return out.Difference(beside)
}

// Allocate implements topology.Provider.
func (m *Manager) Allocate(pod *v1.Pod, c *v1.Container, h topology.Hint) error {
	n := m.exclusive(pod, c)
	if n == 0 {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.given[pod.UID][c.Name]; ok {
		return nil
	}
	free, reusable := m.free(), m.reusable(pod, c)
	if m.options.fullCores {
		if per := m.chooser.perCore; n%per != 0 {
			return &topology.Refused{Reason: "SMTAlignmentError", Message: fmt.Sprintf("SMT Alignment Error: requested %d cpus not multiple cpus per core = %d", n, per)}
		}
		// The other CPUs of a core of which one is reserved would be half of a core.
		free = free.Difference(m.chooser.siblings(m.reserved))
		if has := free.Union(reusable).Size(); has < n {
			return &topology.Refused{Reason: "SMTAlignmentError", Message: fmt.Sprintf("SMT Alignment Error: not enough free physical CPUs: available physical CPUs = %d, requested CPUs = %d, CPUs per core = %d", has, n, m.chooser.perCore)}
		}
	}
	cpus, err := m.choose(free.Union(reusable), reusable, n, h.Nodes)
	if err != nil {
		return err
	}
	if m.given[pod.UID] == nil {
		m.given[pod.UID] = map[string]cpuset.CPUSet{}
	}
	m.given[pod.UID][c.Name] = cpus
	return m.changed()
}

// choose chooses n CPUs, those of the nodes first, if any are named. What can be used
// again is, as far as it is of no use for others meanwhile.
func (m *Manager) choose(free, reusable cpuset.CPUSet, n int, nodes topology.Mask) (cpuset.CPUSet, error) {
	if free.Size() < n {
		return cpuset.New(), fmt.Errorf("not enough cpus available to satisfy request: requested=%d, available=%d", n, free.Size())
	}
	out := cpuset.New()
	sets := []cpuset.CPUSet{reusable, free}
	if nodes != 0 {
		sets = []cpuset.CPUSet{m.chooser.on(reusable, nodes), m.chooser.on(free, nodes), free}
	}
	for _, set := range sets {
		set = set.Difference(out)
		want := min(n-out.Size(), set.Size())
		var cpus cpuset.CPUSet
		var err error
		if m.options.distribute {
			group := 1
			if m.options.fullCores {
				group = m.chooser.perCore
			}
			cpus, err = m.chooser.spread(set, want, group)
		} else {
			cpus, err = m.chooser.take(set, want)
		}
		if err != nil {
			return out, err
		}
		out = out.Union(cpus)
	}
	return out, nil
}

// Hints implements topology.Provider.
func (m *Manager) Hints(pod *v1.Pod, c *v1.Container) map[string][]topology.Hint {
	n := m.exclusive(pod, c)
	if n == 0 {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if has, ok := m.given[pod.UID][c.Name]; ok {
		return m.hints(has, cpuset.New(), n)
	}
	return m.hints(m.free(), m.reusable(pod, c), n)
}

// PodHints implements topology.Provider.
func (m *Manager) PodHints(pod *v1.Pod) map[string][]topology.Hint {
	n := int(podspec.Peak(pod, func(c *v1.Container) int64 { return int64(m.exclusive(pod, c)) }))
	if n == 0 {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	has := cpuset.New()
	for _, cpus := range m.given[pod.UID] {
		has = has.Union(cpus)
	}
	if !has.IsEmpty() {
		return m.hints(has, cpuset.New(), n)
	}
	return m.hints(m.free(), cpuset.New(), n)
}

// hints returns the sets of nodes that have n CPUs, free or reusable; m.mu is held.
func (m *Manager) hints(free, reusable cpuset.CPUSet, n int) map[string][]topology.Hint {
	out, least := []topology.Hint{}, len(m.chooser.nodes)
	topology.Each(m.chooser.nodes, func(mask topology.Mask) {
		if m.chooser.on(m.chooser.all(), mask).Size() >= n {
			least = min(least, mask.Count())
		}
		if m.chooser.on(reusable, mask).Size() == reusable.Size() && m.chooser.on(free.Union(reusable), mask).Size() >= n {
			out = append(out, topology.Hint{Nodes: mask})
		}
	})
	for i := range out {
		out[i].Preferred = out[i].Nodes.Count() == least
	}
	return map[string][]topology.Hint{string(v1.ResourceCPU): out}
}

// Free implements topology.Provider.
func (m *Manager) Free(keep func(types.UID) bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := len(m.given)
	maps.DeleteFunc(m.given, func(uid types.UID, _ map[string]cpuset.CPUSet) bool { return !keep(uid) })
	if len(m.given) == n {
		return nil
	}
	return m.changed()
}

// changed saves the assignments, and wakes the loop that writes them to the
// runtime; m.mu is held.
func (m *Manager) changed() error {
	select {
	case m.wake <- struct{}{}:
	default:
	}
	return m.save()
}

// Of returns the CPUs that the container is to be on, empty where it may be on any.
func (m *Manager) Of(pod types.UID, container string) cpuset.CPUSet {
	if m.Policy != Static {
		return cpuset.New()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if cpus, ok := m.given[pod][container]; ok {
		return cpus
	}
	return m.pool()
}

// Exclusive returns the CPUs that the container has for itself.
func (m *Manager) Exclusive(pod types.UID, container string) cpuset.CPUSet {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.given[pod][container]
}

// Shared returns the CPUs of the containers that have none for themselves, empty without
// the static policy.
func (m *Manager) Shared() cpuset.CPUSet { return m.Of("", "") }

// Given returns how many CPUs containers have for themselves.
func (m *Manager) Given() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := cpuset.New()
	for _, containers := range m.given {
		for _, cpus := range containers {
			all = all.Union(cpus)
		}
	}
	return all.Size()
}

// Allocatable returns the CPUs that containers can have for themselves.
func (m *Manager) Allocatable() cpuset.CPUSet {
	if m.Policy != Static {
		return cpuset.New()
	}
	return m.chooser.all().Difference(m.reserved)
}

// Run has the runtime have each running container on its CPUs, until ctx ends: when CPUs
// were given or taken back, and from time to time.
func (m *Manager) Run(ctx context.Context) {
	if m.Policy != Static {
		return
	}
	for {
		m.reconcile(ctx)
		select {
		case <-m.wake:
		case <-m.Clock.After(m.Period):
		case <-ctx.Done():
			return
		}
	}
}

func (m *Manager) reconcile(ctx context.Context) {
	running := map[string]bool{}
	for _, pod := range m.Pods() {
		for _, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses, pod.Status.EphemeralContainerStatuses) {
			if s.State.Running == nil {
				continue
			}
			running[s.ContainerID] = true
			cpus := m.Of(pod.UID, s.Name)
			m.mu.Lock()
			told, ok := m.told[s.ContainerID]
			m.mu.Unlock()
			if cpus.IsEmpty() || ok && told.Equals(cpus) {
				continue
			}
			_, id, _ := strings.Cut(s.ContainerID, "://")
			if err := m.Update(ctx, id, &runtimeapi.LinuxContainerResources{CpusetCpus: cpus.String()}); err != nil {
				if ctx.Err() == nil {
					klog.FromContext(ctx).Error(err, "Putting a container on its CPUs failed; trying again", "pod", klog.KObj(pod), "container", s.Name, "cpus", cpus)
				}
				continue
			}
			m.mu.Lock()
			m.told[s.ContainerID] = cpus
			m.mu.Unlock()
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.told, func(id string, _ cpuset.CPUSet) bool { return !running[id] })
}

// load reads what an earlier agent has given, which has to be of this policy and machine.
func (m *Manager) load() error {
	remove := fmt.Sprintf("please drain this node and delete the CPU manager checkpoint file %q before restarting Kubelet", m.File)
	// Without a file, or with a damaged one, pods that run are given theirs anew.
	f, _, err := statefile.Recover[file](m.File)
	if err == nil && f == nil {
		return m.save()
	}
	if err != nil {
		return fmt.Errorf("could not restore state from checkpoint: %w, %s", err, remove)
	}
	if f.PolicyName != m.Policy {
		return fmt.Errorf("could not restore state from checkpoint: configured policy %q differs from state checkpoint policy %q, %s", m.Policy, f.PolicyName, remove)
	}
	if m.Policy != Static {
		return nil
	}
	all, err := cpuset.Parse(f.DefaultCPUSet)
	for uid, containers := range f.Entries {
		m.given[uid] = map[string]cpuset.CPUSet{}
		for name, text := range containers {
			cpus, bad := cpuset.Parse(text)
			err = errors.Join(err, bad)
			m.given[uid][name] = cpus
			all = all.Union(cpus)
		}
	}
	if m.options.strict {
		all = all.Union(m.reserved)
	}
	if err == nil && !all.Equals(m.chooser.all()) {
		err = fmt.Errorf("current set of available CPUs %q doesn't match with CPUs in state %q", m.chooser.all(), all)
	}
	if err != nil {
		return fmt.Errorf("[cpumanager] static policy invalid state: %w, %s", err, remove)
	}
	return m.save()
}

func (m *Manager) save() error {
	f := file{PolicyName: m.Policy, Entries: map[types.UID]map[string]string{}}
	if m.Policy == Static {
		f.DefaultCPUSet = m.pool().String()
	}
	for uid, containers := range m.given {
		f.Entries[uid] = map[string]string{}
		for name, cpus := range containers {
			f.Entries[uid][name] = cpus.String()
		}
	}
	return errors.Join(os.MkdirAll(filepath.Dir(m.File), 0o750), statefile.Write(m.File, &f))
}
