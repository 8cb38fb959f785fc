package memorymanager

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	"keelson.dev/keelson/internal/node/hardware"
	"keelson.dev/keelson/internal/node/podspec"
	"keelson.dev/keelson/internal/node/statefile"
	"keelson.dev/keelson/internal/node/topology"
)

// The policies.
const (
	None   = "None"
	Static = "Static"
)

// Config configures a Manager.
type Config struct {
	// Policy is one of the policies, None where empty.
	Policy  string
	Machine *hardware.Machine
	// Reserved is what is kept from containers, by NUMA node. Its sums are those of All:
	// what the node's allocatable resources are less than its capacity by.
	Reserved map[int]v1.ResourceList
	All      v1.ResourceList
	// File keeps what containers have, for the agent after this one.
	File string
}

// Block is memory of one kind that a container has.
type Block struct {
	// Nodes are the NUMA nodes that it is on, in any parts.
	Nodes []int `json:"numaAffinity"`
	// Type is memory, or huge pages of a size.
	Type v1.ResourceName `json:"type"`
	// Size is in bytes.
	Size uint64 `json:"size"`
}

// Manager gives memory to containers. It is a topology.Provider.
type Manager struct {
	Config
	nodes []int
	// room is what each node has for containers.
	room map[int]map[v1.ResourceName]uint64

	mu    sync.Mutex
	given map[types.UID]map[string][]Block
}

// file is what is kept.
type file struct {
	PolicyName string                           `json:"policyName"`
	Entries    map[types.UID]map[string][]Block `json:"entries,omitempty"`
}

// New makes a manager, with what an earlier one has given.
func New(c Config) (*Manager, error) {
	if c.Policy == "" {
		c.Policy = None
	}
	if c.Policy != None && c.Policy != Static {
		return nil, fmt.Errorf("unknown policy: %q", c.Policy)
	}
	m := &Manager{Config: c, given: map[types.UID]map[string][]Block{}}
	if c.Policy == Static {
		if err := m.measure(); err != nil {
			return nil, err
		}
	}
	return m, m.load()
}

// measure computes what each node has for containers.
func (m *Manager) measure() error {
	m.nodes = m.Machine.NodeIDs()
	sums := map[v1.ResourceName]resource.Quantity{}
	for id, list := range m.Reserved {
		if !slices.Contains(m.nodes, id) {
			return fmt.Errorf("the reserved memory configuration references a NUMA node %d that does not exist on this machine", id)
		}
		for name, q := range list {
			sum := sums[name]
			sum.Add(q)
			sums[name] = sum
		}
	}
	if q := sums[v1.ResourceMemory]; q.Sign() == 0 {
		return errors.New("[memorymanager] you should specify the system reserved memory")
	}
	for name, want := range m.All {
		if _, ok := sums[name]; !ok && (name == v1.ResourceMemory || isPages(name)) && want.Sign() > 0 {
			sums[name] = resource.Quantity{}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(sums)) {
		if has, want := sums[name], m.All[name]; has.Cmp(want) != 0 {
			return fmt.Errorf("the total amount %q of type %q is not equal to the value %q determined by Node Allocatable feature", has.String(), name, want.String())
		}
	}
	m.room = map[int]map[v1.ResourceName]uint64{}
	for _, n := range m.Machine.Nodes {
		room := map[v1.ResourceName]uint64{v1.ResourceMemory: n.Memory}
		take := func(name v1.ResourceName, bytes uint64) error {
			if room[name] < bytes {
				return fmt.Errorf("[memorymanager] NUMA node %d has %d bytes of %s, and %d are reserved", n.ID, room[name], name, bytes)
			}
			room[name] -= bytes
			return nil
		}
		for size, bytes := range n.HugePages {
			name := v1.ResourceName(v1.ResourceHugePagesPrefix + resource.NewQuantity(int64(size), resource.BinarySI).String())
			room[name] = bytes
			if err := take(v1.ResourceMemory, bytes); err != nil {
				return err
			}
		}
		for name, q := range m.Reserved[n.ID] {
			if err := take(name, uint64(q.Value())); err != nil {
				return err
			}
		}
		m.room[n.ID] = room
	}
	return nil
}

// requests returns what the container is to have on nodes, in bytes; nil if it has no
// say in where its memory is.
func (m *Manager) requests(pod *v1.Pod, c *v1.Container) map[v1.ResourceName]uint64 {
	if m.Policy != Static || podspec.QOS(pod) != v1.PodQOSGuaranteed || pod.Spec.Resources != nil {
		return nil
	}
	out := map[v1.ResourceName]uint64{}
	for name, q := range c.Resources.Limits { // equal to the requests
		if (name == v1.ResourceMemory || isPages(name)) && q.Sign() > 0 {
			out[name] = uint64(q.Value())
		}
	}
	return out
}

func isPages(name v1.ResourceName) bool {
	return strings.HasPrefix(string(name), v1.ResourceHugePagesPrefix)
}

// possible reports whether containers may have memory on exactly these nodes: none of
// them is in another group, or alone, for what some container has; m.mu is held.
func (m *Manager) possible(mask topology.Mask) bool {
	for _, containers := range m.given {
		for _, blocks := range containers {
			for _, b := range blocks {
				if has := topology.MaskOf(b.Nodes...); b.Size > 0 && has != mask && has&mask != 0 {
					return false
				}
			}
		}
	}
	return true
}

// left returns how much the nodes together have left, together with what an init
// container of the pod has there; m.mu is held.
func (m *Manager) left(mask topology.Mask, name v1.ResourceName, pod *v1.Pod, container string) uint64 {
	all, used := m.whole(mask, name), uint64(0)
	for uid, containers := range m.given {
		for has, blocks := range containers {
			for _, b := range blocks {
				if b.Type == name && topology.MaskOf(b.Nodes...) == mask && !(uid == pod.UID && has != container && podspec.EndsBefore(pod, has)) {
					used += b.Size
				}
			}
		}
	}
	return all - min(all, used)
}

// whole returns how much the nodes together have for containers.
func (m *Manager) whole(mask topology.Mask, name v1.ResourceName) (sum uint64) {
	for _, n := range mask.Nodes() {
		sum += m.room[n][name]
	}
	return sum
}

// hints returns the sets of nodes that have what is asked for; m.mu is held.
func (m *Manager) hints(pod *v1.Pod, container string, asked map[v1.ResourceName]uint64) map[string][]topology.Hint {
	if len(asked) == 0 {
		return nil
	}
	out, least := map[string][]topology.Hint{}, map[v1.ResourceName]int{}
	for name := range asked {
		out[string(name)], least[name] = []topology.Hint{}, len(m.nodes)
	}
	topology.Each(m.nodes, func(mask topology.Mask) {
		enough := true
		for name, bytes := range asked {
			enough = enough && m.whole(mask, name) >= bytes
		}
		if !enough {
			return
		}
		for name := range asked {
			least[name] = min(least[name], mask.Count())
		}
		if !m.possible(mask) {
			return
		}
		for name, bytes := range asked {
			enough = enough && m.left(mask, name, pod, container) >= bytes
		}
		if enough {
			for name := range asked {
				out[string(name)] = append(out[string(name)], topology.Hint{Nodes: mask})
			}
		}
	})
	for name, hints := range out {
		for i := range hints {
			hints[i].Preferred = hints[i].Nodes.Count() == least[v1.ResourceName(name)]
		}
	}
	return out
}

// held returns the hint that says where the blocks are, by type.
func held(blocks []Block) map[string][]topology.Hint {
	out := map[string][]topology.Hint{}
	for _, b := range blocks {
		out[string(b.Type)] = []topology.Hint{{Nodes: topology.MaskOf(b.Nodes...), Preferred: true}}
	}
	return out
}

// Hints implements topology.Provider.
func (m *Manager) Hints(pod *v1.Pod, c *v1.Container) map[string][]topology.Hint {
	m.mu.Lock()
	defer m.mu.Unlock()
	if has := m.given[pod.UID][c.Name]; len(has) > 0 {
		return held(has)
	}
	return m.hints(pod, c.Name, m.requests(pod, c))
}

// PodHints implements topology.Provider.
func (m *Manager) PodHints(pod *v1.Pod) map[string][]topology.Hint {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, blocks := range m.given[pod.UID] {
		return held(blocks)
	}
	asked := map[v1.ResourceName]uint64{}
	for _, c := range podspec.Containers(pod) {
		for name := range m.requests(pod, c) {
			asked[name] = uint64(podspec.Peak(pod, func(c *v1.Container) int64 { return int64(m.requests(pod, c)[name]) }))
		}
	}
	return m.hints(pod, "", asked)
}

// Allocate implements topology.Provider.
func (m *Manager) Allocate(pod *v1.Pod, c *v1.Container, h topology.Hint) error {
	asked := m.requests(pod, c)
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(asked) == 0 || len(m.given[pod.UID][c.Name]) > 0 {
		return nil
	}
	nodes, err := m.choose(pod, c.Name, asked, h)
	if err != nil {
		return err
	}
	var blocks []Block
	for _, name := range slices.Sorted(maps.Keys(asked)) {
		blocks = append(blocks, Block{nodes.Nodes(), name, asked[name]})
		m.reuse(pod, nodes, name, asked[name])
	}
	if m.given[pod.UID] == nil {
		m.given[pod.UID] = map[string][]Block{}
	}
	m.given[pod.UID][c.Name] = blocks
	return m.save()
}

// choose returns the nodes for what is asked for: those of the hint, more than these where
// they do not have it, the best ones without a hint; m.mu is held.
func (m *Manager) choose(pod *v1.Pod, container string, asked map[v1.ResourceName]uint64, h topology.Hint) (topology.Mask, error) {
	var found []topology.Hint
	for _, hints := range m.hints(pod, container, asked) {
		found = hints // the same nodes for each resource
	}
	if h.Nodes != 0 {
		found = slices.DeleteFunc(found, func(f topology.Hint) bool { return f.Nodes&h.Nodes != h.Nodes })
	}
	if len(found) == 0 {
		if h.Nodes == 0 {
			return 0, errors.New("[memorymanager] failed to get the default NUMA affinity, no NUMA nodes with enough memory is available")
		}
		return 0, errors.New("[memorymanager] failed to find NUMA nodes to extend the current topology hint")
	}
	best := slices.MinFunc(found, func(a, b topology.Hint) int { return cmp.Compare(a.Nodes.Count(), b.Nodes.Count()) })
	return best.Nodes, nil
}

// reuse takes from the pod's init containers what another container has now on the same
// nodes; m.mu is held.
func (m *Manager) reuse(pod *v1.Pod, nodes topology.Mask, name v1.ResourceName, bytes uint64) {
	for _, container := range slices.Sorted(maps.Keys(m.given[pod.UID])) {
		if !podspec.EndsBefore(pod, container) {
			continue
		}
		blocks := m.given[pod.UID][container]
		for i := range blocks {
			if b := &blocks[i]; b.Type == name && topology.MaskOf(b.Nodes...) == nodes {
				n := min(b.Size, bytes)
				b.Size -= n
				bytes -= n
			}
		}
	}
}

// Free implements topology.Provider.
func (m *Manager) Free(keep func(types.UID) bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := len(m.given)
	maps.DeleteFunc(m.given, func(uid types.UID, _ map[string][]Block) bool { return !keep(uid) })
	if len(m.given) == n {
		return nil
	}
	return m.save()
}

// Nodes returns the NUMA nodes that the container's memory is to be on, none where it may
// be on any.
func (m *Manager) Nodes(pod types.UID, container string) []int {
	m.mu.Lock()
	defer m.mu.Unlock()
	mask := topology.Mask(0)
	for _, b := range m.given[pod][container] {
		mask |= topology.MaskOf(b.Nodes...)
	}
	return mask.Nodes()
}

// Blocks returns what the container has.
func (m *Manager) Blocks(pod types.UID, container string) []Block {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.given[pod][container])
}

// Allocatable returns what containers can have, on each node.
func (m *Manager) Allocatable() (out []Block) {
	for _, n := range m.nodes {
		for _, name := range slices.Sorted(maps.Keys(m.room[n])) {
			out = append(out, Block{[]int{n}, name, m.room[n][name]})
		}
	}
	return out
}

// load reads what an earlier agent has given, which has to be of this policy and machine.
func (m *Manager) load() error {
	remove := fmt.Sprintf("please drain this node and delete the memory manager checkpoint file %q before restarting Kubelet", m.File)
	// Without a file, or with a damaged one, pods that run are given theirs anew.
	f, _, err := statefile.Recover[file](m.File)
	if err == nil && f == nil {
		return m.save()
	}
	switch {
	case err != nil:
		return fmt.Errorf("could not restore state from checkpoint: %w, %s", err, remove)
	case f.PolicyName != m.Policy:
		return fmt.Errorf("could not restore state from checkpoint: [memorymanager] configured policy %q differs from state checkpoint policy %q, %s", m.Policy, f.PolicyName, remove)
	}
	used := map[topology.Mask]map[v1.ResourceName]uint64{}
	for uid, containers := range f.Entries {
		m.given[uid] = containers
		for _, blocks := range containers {
			for _, b := range blocks {
				mask := topology.MaskOf(b.Nodes...)
				if used[mask] == nil {
					used[mask] = map[v1.ResourceName]uint64{}
				}
				if used[mask][b.Type] += b.Size; used[mask][b.Type] > m.whole(mask, b.Type) {
					return fmt.Errorf("[memorymanager] the expected machine state is different from the real one: the NUMA nodes %v do not have the %s of pods, %s", b.Nodes, b.Type, remove)
				}
			}
		}
	}
	return nil
}

func (m *Manager) save() error {
	return errors.Join(os.MkdirAll(filepath.Dir(m.File), 0o750), statefile.Write(m.File, &file{m.Policy, m.given}))
}
